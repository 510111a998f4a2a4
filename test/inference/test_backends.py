# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The contract of the backends, run over each; the graph against the network."""

from __future__ import annotations

import importlib.util
import logging
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import warp as wp
from conftest import ROOT
from fake_tensorrt import take_tensorrts_place

from rt_panoptic_ros.errors import InvalidInputError, UnavailableError
from rt_panoptic_ros.files import cache_directory
from rt_panoptic_ros.inference import backends, onnx_export
from rt_panoptic_ros.inference.backends import open_backend, resolve_device
from rt_panoptic_ros.inference.base import CPU_ONLY
from rt_panoptic_ros.inference.onnx_export import digest, exported_onnx
from rt_panoptic_ros.inference.onnx_graph import build_onnx
from rt_panoptic_ros.inference.onnx_layers import Dialect
from rt_panoptic_ros.inference.tensorrt_runtime import gpu_identity, load_runtime
from rt_panoptic_ros.model.architecture import NetworkConfig, state_dict_layout
from rt_panoptic_ros.model.bundle import InputSpec, ModelBundle, read_bundle, write_bundle
from rt_panoptic_ros.model.class_table import load_class_table
from rt_panoptic_ros.model.untrained import make_untrained_bundle, untrained_weights
from rt_panoptic_ros.records import STRIDES
from rt_panoptic_ros.settings import PostprocessSettings

BACKENDS = [
    pytest.param(
        name, marks=pytest.mark.skipif(importlib.util.find_spec(name) is None, reason=f"{name} is not installed")
    )
    for name in ("onnxruntime", "torch", "openvino")
]
both = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None or importlib.util.find_spec("onnxruntime") is None,
    reason="torch or onnxruntime is not installed",
)

needs_openvino = pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="openvino is not installed")


def image(size: tuple[int, int], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)


@pytest.mark.parametrize("name", [*BACKENDS, "tensorrt"])
class TestContract:
    @pytest.fixture
    def device(self, name: str, monkeypatch: pytest.MonkeyPatch) -> str:
        """Where the backend runs: TensorRT on the GPU where there are both, else a stand-in for it on the CPU."""
        if name != "tensorrt":
            return "cpu"
        try:
            gpu_identity("cuda:0")
            load_runtime()
        except UnavailableError:
            pytest.importorskip("onnxruntime", reason="the stand-in computes with it")
            take_tensorrts_place(monkeypatch)
            return "cpu"
        return "cuda"

    @pytest.mark.parametrize("size", [(64, 96), (50, 70)])
    def test_shapes_dtype_and_device(
        self, name: str, device: str, small_bundle: ModelBundle, size: tuple[int, int]
    ) -> None:
        backend = open_backend(name, small_bundle, size, device, tf32=True)
        assert (backend.name, backend.device, backend.network_size) == (name, resolve_device(device), size)
        assert (backend.precision, backend.tf32) == ("float32", True)
        dense = backend.infer(image(size))
        height, width = -(-size[0] // 8), -(-size[1] // 8)
        assert dense.semantic_logits.shape == (11, height, width)
        assert dense.levelness_logits is not None
        assert dense.levelness_logits.shape == (6, 2 * height, 2 * width)
        for level, stride in enumerate(STRIDES):
            shape = (-(-size[0] // stride), -(-size[1] // stride))
            assert dense.box_class_logits[level].shape == (3, *shape)
            assert dense.box_offsets[level].shape == (4, *shape)
            assert dense.centerness_logits[level].shape == (1, *shape)
        for array in (dense.semantic_logits, *dense.box_offsets):
            assert array.dtype == wp.float32
            assert array.device.alias == resolve_device(device)
            assert np.isfinite(array.numpy()).all()
        backend.close()

    def test_same_image_same_bits(self, name: str, device: str, small_bundle: ModelBundle) -> None:
        backend = open_backend(name, small_bundle, (64, 96), device)
        first = backend.infer(image((64, 96))).host_arrays()
        other = backend.infer(image((64, 96), seed=1)).host_arrays()
        again = backend.infer(image((64, 96))).host_arrays()
        assert any(not np.array_equal(first[output], other[output]) for output in first)
        for output, value in first.items():
            np.testing.assert_array_equal(value, again[output])

    def test_damaged_weights_are_refused(
        self, name: str, device: str, small_network: NetworkConfig, tmp_path: Path
    ) -> None:
        classes = load_class_table("camvid")
        bundle = make_untrained_bundle(tmp_path / "m", network=small_network, classes=classes, size=None, seed=3)
        content = bytearray((bundle.path / "weights.safetensors").read_bytes())
        content[-5] ^= 1
        (bundle.path / "weights.safetensors").write_bytes(content)
        with pytest.raises(InvalidInputError, match="SHA-256"):
            open_backend(name, bundle, (32, 32), device)


@both
@pytest.mark.parametrize(
    "network",
    [
        NetworkConfig("resnet18", 16, 16, 8, tower_depth=1),
        NetworkConfig("resnet50", 16, 16, 8, tower_depth=1, towers=1),
        NetworkConfig("resnet34", 32, 16, 24, tower_depth=2, group_size=4, levelness=False),
        NetworkConfig("efficientnet_lite0", 16, 16, 16, tower_depth=1),
    ],
    ids=str,
)
@pytest.mark.parametrize("spec", [InputSpec(), InputSpec((120, 110, 100), (58, 57, 55), "rgb")], ids=["bgr", "rgb"])
def test_backends_agree(
    network: NetworkConfig, spec: InputSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    classes = load_class_table("camvid")
    weights = untrained_weights(state_dict_layout(network, len(classes), len(classes.thing_ids)), 2)
    bundle = write_bundle(
        tmp_path / "m", weights, network=network, classes=classes, spec=spec, settings=PostprocessSettings(), about={}
    )
    size = (72, 104)
    torch = open_backend("torch", bundle, size, "cpu").infer(image(size)).host_arrays()
    take_tensorrts_place(monkeypatch).version = "10.9"
    for name in ("onnxruntime", "openvino", *(["tensorrt"] if spec.color_order == "rgb" else [])):
        if name == "tensorrt" or importlib.util.find_spec(name) is not None:
            ours = open_backend(name, bundle, size, "cpu").infer(image(size)).host_arrays()
            assert ours.keys() == torch.keys()
            for output, value in ours.items():
                np.testing.assert_allclose(value, torch[output], atol=2e-4, rtol=2e-4, err_msg=f"{name} {output}")


@pytest.mark.parametrize(
    ("dialect", "group_size", "operator"),
    [
        ("onnxruntime", 8, "InstanceNormalization"),
        ("tensorrt_opset17", 8, "InstanceNormalization"),
        ("tensorrt", 8, "GroupNormalization"),
        ("tensorrt", 16, "InstanceNormalization"),  # a single group, which TensorRT would get wrong
    ],
)
def test_group_norms_are_written_as_the_parser_reads_them(
    dialect: Dialect, group_size: int, operator: str, tmp_path: Path
) -> None:
    network = NetworkConfig("resnet18", 16, 16, 16, tower_depth=1, group_size=group_size)
    classes = load_class_table("camvid")
    bundle = make_untrained_bundle(tmp_path / "m", network=network, classes=classes, size=None, seed=1)
    graph = build_onnx(bundle.network, bundle.input, bundle.load_weights(), (32, 32), dialect=dialect).graph
    assert [node.op_type for node in graph.node if node.op_type.endswith("Normalization")] == 2 * 5 * [operator]


def test_export_is_cached_and_a_damaged_one_made_again(
    small_bundle: ModelBundle, caplog: pytest.LogCaptureFixture
) -> None:
    good = exported_onnx(small_bundle, (40, 48), "float32")
    (path,) = (cache_directory() / "onnx").glob("small-40x48-float32-*.onnx")
    assert path.read_bytes() == good
    stamp = path.stat().st_mtime_ns
    assert exported_onnx(small_bundle, (40, 48), "float32") == good
    assert path.stat().st_mtime_ns == stamp
    path.write_bytes(good[:-1])
    assert exported_onnx(small_bundle, (40, 48), "float32") == good
    assert path.read_bytes() == good
    assert "damaged" in caplog.text
    assert exported_onnx(small_bundle, (40, 56), "float32") != good
    assert not list(path.parent.glob(".*"))


def test_a_cached_graph_does_not_hide_damaged_weights(small_network: NetworkConfig, tmp_path: Path) -> None:
    bundle = make_untrained_bundle(
        tmp_path / "m", network=small_network, classes=load_class_table("camvid"), size=None, seed=4
    )
    exported_onnx(bundle, (32, 40), "float32")
    (bundle.path / "weights.safetensors").write_bytes(b"")
    with pytest.raises(InvalidInputError, match="SHA-256"):
        exported_onnx(bundle, (32, 40), "float32")
    (bundle.path / "weights.safetensors").unlink()
    with pytest.raises(InvalidInputError, match="No such file"):
        exported_onnx(bundle, (32, 40), "float32")


def test_named_backend_never_falls_back(small_bundle: ModelBundle) -> None:
    with pytest.raises(InvalidInputError, match="tensorflow"):
        open_backend("tensorflow", small_bundle, (32, 32), "cpu")
    with pytest.raises(InvalidInputError, match="tpu"):
        open_backend("auto", small_bundle, (32, 32), "tpu")


@pytest.mark.skipif(wp.is_cuda_available(), reason="this machine has a GPU")
def test_cuda_without_a_gpu_is_one_sentence(small_bundle: ModelBundle) -> None:
    assert resolve_device("auto") == "cpu"
    with pytest.raises(
        UnavailableError, match=r"expected a CUDA GPU for device cuda:1, found none: check `nvidia-smi`"
    ):
        open_backend("auto", small_bundle, (32, 32), "cuda:1")


def test_one_of_several_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus = [SimpleNamespace(alias=f"cuda:{index}", name=name) for index, name in enumerate(("Orin", "H100"))]
    monkeypatch.setattr(wp, "get_cuda_devices", lambda: gpus)
    meant = {device: resolve_device(device) for device in ("auto", "cpu", "cuda", "cuda:0", "cuda:1")}
    assert list(meant.values()) == ["cuda:0", "cpu", "cuda:0", "cuda:0", "cuda:1"]
    assert {resolve_device("auto", name) for name in CPU_ONLY} == {"cpu"}
    assert resolve_device("auto", "torch") == resolve_device("cuda", "onnxruntime") == "cuda:0"  # which refuses it
    with pytest.raises(UnavailableError, match=r"one of the GPUs cuda:0 \(Orin\), cuda:1 \(H100\), got cuda:3"):
        resolve_device("cuda:3")


@pytest.mark.skipif(wp.is_cuda_available(), reason="this machine has a GPU")
def test_auto_says_once_why_it_uses_the_cpu_where_a_gpu_was_to_be_expected(
    monkeypatch: pytest.MonkeyPatch, small_bundle: ModelBundle, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("onnxruntime")
    name = "onnxruntime" if importlib.util.find_spec("openvino") is None else "openvino"
    words = f"using {name} on cpu instead of a GPU: found a driver for CUDA 12.6, but an old Warp: install another"
    with caplog.at_level(logging.WARNING):
        assert not open_backend("auto", small_bundle, (32, 32), "auto").fallback
        assert not caplog.records
        monkeypatch.setattr(backends, "unusable_gpu", lambda: words.partition("found ")[2])
        for _ in range(2):
            assert open_backend("auto", small_bundle, (32, 32), "auto").fallback == words
        for name, device in (("auto", "cpu"), ("onnxruntime", "auto")):  # which ask for the CPU
            assert not open_backend(name, small_bundle, (32, 32), device).fallback
    assert [record.message for record in caplog.records] == [words]


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_threads_stay_on_the_cores_that_the_process_may_use(backend: str, small_bundle: ModelBundle) -> None:
    """As `taskset` or a container says; in a process of its own."""
    pytest.importorskip(backend, reason=f"{backend} is not installed")
    code = f"""
import os
core = min(os.sched_getaffinity(0))
os.sched_setaffinity(0, {{core}})
import numpy as np
from rt_panoptic_ros.inference.backends import open_backend
from rt_panoptic_ros.model.bundle import read_bundle
backend = open_backend("{backend}", read_bundle({str(small_bundle.path)!r}), (96, 160), "cpu", "float32")
backend.infer(np.zeros((96, 160, 3), np.uint8))
assert all(os.sched_getaffinity(int(thread)) == {{core}} for thread in os.listdir("/proc/self/task"))
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_a_core_that_runs_two_threads_counts_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_export, "_CPUS", tmp_path)
    monkeypatch.setattr(onnx_export.os, "sched_getaffinity", lambda _: {0, 1, 2, 5})
    assert onnx_export.physical_cores() == 4  # where Linux tells nothing of them
    for cpu, beside in ((0, "0,4"), (1, "1,5"), (2, "2,6"), (4, "0,4"), (5, "1,5"), (6, "2,6")):
        folder = tmp_path / f"cpu{cpu}/topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(f"{beside}\n", encoding="utf-8")
    assert onnx_export.physical_cores() == 3


@needs_openvino
@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_openvinos_own_graph_gives_the_same_bits(precision: str) -> None:
    import openvino

    from rt_panoptic_ros.inference.openvino_backend import _OPTIONS

    bundle = read_bundle("street_lite0")
    outputs = []
    dialects: tuple[Dialect, ...] = ("onnxruntime", "openvino")
    for dialect in dialects:
        graph = exported_onnx(bundle, (64, 96), precision, dialect)
        core = openvino.Core()
        compiled = core.compile_model(core.read_model(graph), "CPU", _OPTIONS)
        outputs.append(compiled.create_infer_request().infer([image((64, 96))[None]]).to_dict().values())
    for ours, plain in zip(*outputs, strict=True):
        np.testing.assert_array_equal(ours, plain)


@needs_openvino
def test_a_damaged_compiled_graph_is_made_again(small_bundle: ModelBundle, caplog: pytest.LogCaptureFixture) -> None:
    def outputs() -> dict[str, np.ndarray]:
        return open_backend("openvino", small_bundle, (40, 64), "cpu").infer(image((40, 64))).host_arrays()

    first = outputs()
    (path,) = (cache_directory() / "openvino").glob("small-40x64-float32-*.openvino")
    stamp = path.stat().st_mtime_ns
    again = outputs()
    assert path.stat().st_mtime_ns == stamp
    path.write_bytes(path.read_bytes()[:-1])
    mended = outputs()
    assert "damaged" in caplog.text
    for name, value in first.items():
        np.testing.assert_array_equal(value, again[name])
        np.testing.assert_array_equal(value, mended[name])


@needs_openvino
def test_a_compiled_graph_that_openvino_refuses_is_made_again(
    small_bundle: ModelBundle, caplog: pytest.LogCaptureFixture
) -> None:
    size = (40, 72)

    def outputs() -> dict[str, np.ndarray]:
        return open_backend("openvino", small_bundle, size, "cpu").infer(image(size)).host_arrays()

    first = outputs()
    (path,) = (cache_directory() / "openvino").glob("small-40x72-float32-*.openvino")
    path.unlink()
    content = b"no graph " * 1000
    (path.parent / f"{path.stem[: -len(digest(b''))]}{digest(content)}.openvino").write_bytes(content)
    for name, value in outputs().items():
        np.testing.assert_array_equal(value, first[name])
    assert "compiling it again" in caplog.text
    (mended,) = path.parent.glob("small-40x72-float32-*.openvino")
    assert mended.read_bytes() != content
