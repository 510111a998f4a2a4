# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""What a frame costs on a GPU as far as it can be counted without one: a graph's nodes, a kernel's registers and stack.

Warp brings NVRTC, which compiles kernels for CUDA also on machines without a GPU.
"""

from __future__ import annotations

import importlib
import struct
from pathlib import Path
from typing import Any

import pytest
import warp as wp
from dense_cases import same_geometry

from rt_panoptic_ros.benchmark.scenes import street_scene
from rt_panoptic_ros.model.class_table import load_class_table
from rt_panoptic_ros.panoptic import fusion, launching
from rt_panoptic_ros.panoptic.postprocess import Postprocessor
from rt_panoptic_ros.settings import PostprocessSettings

NODES, REGISTERS, STACK_BYTES = 30, 128, 256
_REGISTERS, _FRAME_SIZE = 0x2F, 0x11  # attributes in a cubin: EIATTR_REGCOUNT, EIATTR_FRAME_SIZE
_WITH_SIZE = 4  # format of an attribute that is followed by its size and as many bytes; others have two bytes


def resources(cubin: bytes) -> dict[str, dict[int, int]]:
    """Return {kernel: {attribute: value}} of the compiled code's section .nv.info."""
    (begin,) = struct.unpack_from("<Q", cubin, 0x28)
    size, count, names_at = struct.unpack_from("<HHH", cubin, 0x3A)
    sections = [struct.unpack_from("<IIQQQQIIQQ", cubin, begin + i * size) for i in range(count)]

    def text(table: int, place: int) -> str:
        first = sections[table][4] + place
        return cubin[first : cubin.index(b"\0", first)].decode()

    by_name = {text(names_at, section[0]): section for section in sections}
    symbols, info = by_name[".symtab"], by_name[".nv.info"]
    found: dict[str, dict[int, int]] = {}
    place, end = info[4], info[4] + info[5]
    while place < end:
        kind, attribute, length = struct.unpack_from("<BBH", cubin, place)
        if kind == _WITH_SIZE and attribute in (_REGISTERS, _FRAME_SIZE):
            symbol, value = struct.unpack_from("<II", cubin, place + 4)
            (name,) = struct.unpack_from("<I", cubin, symbols[4] + symbol * 24)
            found.setdefault(text(symbols[6], name), {})[attribute] = value
        place += 4 + (length if kind == _WITH_SIZE else 0)
    return found


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(wp, "compile_aot_module"), reason="this Warp can't compile for CUDA without a GPU")
@pytest.mark.parametrize(
    "arch", [pytest.param(87, id="Orin"), pytest.param(90, id="Hopper", marks=pytest.mark.exhaustive)]
)
@pytest.mark.parametrize(
    "module",
    [
        "inference.device_input",
        "network.half_kernels",
        *(f"panoptic.{name}" for name in ("query_boxes", "suppression", "mask_kernels", "fusion_kernels")),
        *(f"panoptic.{name}" for name in ("painting", "semantics")),
    ],
)
def test_kernels_are_light(module: str, arch: int, tmp_path: Path) -> None:
    if module.startswith("network"):
        pytest.importorskip("torch", reason="torch is not installed")
    kernels = importlib.import_module(f"rt_panoptic_ros.{module}")
    wp.compile_aot_module(kernels, arch=arch, module_dir=str(tmp_path), use_ptx=False)
    (cubin,) = tmp_path.glob("*.cubin")
    found = {name: values for name, values in resources(cubin.read_bytes()).items() if name.endswith("_forward")}
    assert len(found) == Path(kernels.__file__).read_text(encoding="utf-8").count("@wp.kernel") > 0
    for name, values in found.items():
        assert 0 < values[_REGISTERS] <= REGISTERS, name
        assert values[_FRAME_SIZE] <= STACK_BYTES, name


def test_a_frame_is_few_nodes_and_allocates_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    class Pinned(launching.Packed):
        """Copies to other memory, as from a GPU."""

        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            self.come_to(wp.empty_like(self._buffer))

    monkeypatch.setattr(launching, "MAX_BANDS", 1)
    monkeypatch.setattr(fusion, "Packed", Pinned)
    monkeypatch.setattr(wp, "get_stream", wp.get_device)  # the CPU has none
    size, table = (1024, 2048), load_class_table("cityscapes")
    dense = street_scene(size, 100, classes=len(table), thing_ids=table.thing_ids, device="cpu")
    postprocessor = Postprocessor(dense, table.thing_ids, same_geometry(size), capturable=True)
    settings = PostprocessSettings().replaced({"stuff_area_min": 2048})
    postprocessor.launch(dense, settings)
    assert len(postprocessor.result().detections) > 50
    allocated, allocate = [], wp.array._init_new

    def note_and_allocate(self: wp.array, *values: Any) -> object:
        allocated.append(values)
        return allocate(self, *values)

    monkeypatch.setattr(wp.array, "_init_new", note_and_allocate)
    wp.zeros(1, device="cpu")
    assert allocated.pop()
    with wp.ScopedCapture(device="cpu") as capture:
        postprocessor.launch(dense, settings)
    assert not allocated
    nodes = capture.graph._apic_capture.operation_count
    print(nodes)
    assert 10 < nodes <= NODES
