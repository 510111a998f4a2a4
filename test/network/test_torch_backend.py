# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The torch backend's half for GPUs, as far as a CPU can show it: what of CUDA it calls is replaced."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import warp as wp

torch = pytest.importorskip("torch", reason="torch is not installed")

from rt_panoptic_ros.errors import UnavailableError  # noqa: E402
from rt_panoptic_ros.inference.base import CapturableBackend  # noqa: E402
from rt_panoptic_ros.model.bundle import ModelBundle  # noqa: E402
from rt_panoptic_ros.network.torch_backend import (  # noqa: E402
    CudaTorchBackend,
    TorchBackend,
    convolution_flags,
    open_torch,
)

SIZE = (64, 96)
CUDNN: Any = torch.backends.cudnn


def image(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*SIZE, 3), np.uint8)


def flags() -> tuple[object, ...]:
    return CUDNN.benchmark, CUDNN.deterministic, CUDNN.conv.fp32_precision


@pytest.fixture
def pools(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Let the CPU pass for a GPU; returns the memory pools that were entered."""
    entered: list[object] = []

    @contextmanager
    def use(pool: object, _device: str) -> Iterator[None]:
        entered.append(pool)
        yield

    cuda = {"is_available": lambda: True, "MemPool": SimpleNamespace, "use_mem_pool": use,
            "stream": lambda _: nullcontext(), "empty_cache": lambda: None}  # fmt: skip
    for name, stand_in in cuda.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)
    monkeypatch.setattr(wp, "stream_to_torch", lambda _: None)
    return entered


def test_a_cpu_gets_the_plain_backend(small_bundle: ModelBundle) -> None:
    assert not isinstance(open_torch(small_bundle, SIZE, "cpu", "float32"), CapturableBackend)
    if not torch.cuda.is_available():
        with pytest.raises(UnavailableError, match=r"expected torch 2.9 or newer with CUDA for device cuda:0"):
            open_torch(small_bundle, SIZE, "cuda:0", "float32")


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-5), ("float16", 0.02)])
def test_outputs_are_the_cpus(pools: list[object], small_bundle: ModelBundle, precision: str, tolerance: float) -> None:
    ours = CudaTorchBackend(small_bundle, SIZE, "cpu", precision).infer(image()).host_arrays()
    expected = TorchBackend(small_bundle, SIZE, "cpu", "float32").infer(image()).host_arrays()
    assert ours.keys() == expected.keys()
    for name, value in expected.items():
        assert ours[name].dtype == np.float32
        np.testing.assert_allclose(ours[name], value, atol=tolerance, rtol=tolerance, err_msg=name)
    assert (ours["semantic_logits"].argmax(0) == expected["semantic_logits"].argmax(0)).mean() > 0.98


def test_half_precision_is_that_of_weights_and_activations(pools: list[object], small_bundle: ModelBundle) -> None:
    backend = CudaTorchBackend(small_bundle, SIZE, "cpu", "float16")
    seen = []
    for module in backend._network.modules():
        if isinstance(module, torch.nn.Conv2d):
            assert module.weight.is_contiguous(memory_format=torch.channels_last)
            module.register_forward_hook(lambda _, given, out: seen.append((given[0].dtype, out.dtype)))
    backend.infer(image())
    assert set(seen) == {(torch.float16, torch.float16)}


def test_each_frame_writes_the_same_memory_and_allocates_in_the_pool(
    pools: list[object], small_bundle: ModelBundle
) -> None:
    backend = CudaTorchBackend(small_bundle, SIZE, "cpu", "float16")
    assert pools == []  # choosing algorithms leaves nothing in it
    first = backend.infer(image())
    kept = {name: value.copy() for name, value in first.host_arrays().items()}
    backend.image.assign(image(1))
    other = backend.enqueue()
    assert other is first
    assert pools == [backend._pool] * 2
    assert any(not np.array_equal(value, kept[name]) for name, value in other.host_arrays().items())
    for name, value in backend.infer(image()).host_arrays().items():
        np.testing.assert_array_equal(value, kept[name])


@pytest.mark.parametrize("tf32", [False, True])
def test_float32_is_float32_unless_it_says_otherwise(
    pools: list[object], small_bundle: ModelBundle, monkeypatch: pytest.MonkeyPatch, *, tf32: bool
) -> None:
    seen = []
    forward = torch.nn.functional.conv2d
    monkeypatch.setattr(torch.nn.functional, "conv2d", lambda *given: seen.append(flags()) or forward(*given))
    before = flags()
    backend = CudaTorchBackend(small_bundle, SIZE, "cpu", "float32", tf32=tf32)
    precision = "tf32" if tf32 else "ieee"
    assert set(seen) == {(True, True, precision)}  # algorithms are chosen once, before the first frame
    seen.clear()
    backend.infer(image())
    assert set(seen) == {(False, True, precision)}
    assert flags() == before


def test_flags_are_restored_whatever_happens() -> None:
    before = flags()
    with pytest.raises(ZeroDivisionError), convolution_flags(tf32=False, choose=True):
        _ = 1 / 0
    assert flags() == before
