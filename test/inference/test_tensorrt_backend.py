# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The tensorrt backend as far as its contract goes without a GPU: all but the runtime and the GPU is real.

That it gives what the contract asks for is shown in `test_backends.py`.
"""

from __future__ import annotations

import logging
import sys
from contextlib import nullcontext
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnxruntime", reason="the stand-in computes with it")

from fake_tensorrt import GPU, KERNELS, STREAM, FakeRuntime, take_tensorrts_place

from rt_panoptic_ros.errors import InvalidInputError, UnavailableError
from rt_panoptic_ros.inference import backends, tensorrt_runtime
from rt_panoptic_ros.inference.backends import open_backend
from rt_panoptic_ros.inference.engine_cache import engine_folder
from rt_panoptic_ros.inference.tensorrt_backend import TensorRtBackend
from rt_panoptic_ros.inference.tensorrt_runtime import BuildOptions
from rt_panoptic_ros.model.bundle import ModelBundle
from rt_panoptic_ros.pipeline import PanopticPipeline
from rt_panoptic_ros.records import CameraImage

SIZE = (64, 96)


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeRuntime:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return take_tensorrts_place(monkeypatch)


def image(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*SIZE, 3), np.uint8)


def opened(bundle: ModelBundle, precision: str = "float32", *, tf32: bool = False) -> TensorRtBackend:
    backend = open_backend("tensorrt", bundle, SIZE, "cpu", precision, tf32=tf32)
    assert isinstance(backend, TensorRtBackend)
    return backend


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_outputs_are_the_other_backends(runtime: FakeRuntime, small_bundle: ModelBundle, precision: str) -> None:
    ours = opened(small_bundle, precision).infer(image())
    other = open_backend("onnxruntime", small_bundle, SIZE, "cpu", precision).infer(image())
    for mine, theirs in ((ours.semantic_logits, other.semantic_logits), (ours.box_offsets[4], other.box_offsets[4])):
        np.testing.assert_allclose(mine.numpy(), theirs.numpy(), atol=1e-4, rtol=1e-4)


def test_built_once_for_all_that_it_depends_on(
    runtime: FakeRuntime, small_bundle: ModelBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(2):
        opened(small_bundle)
        assert runtime.options == [BuildOptions()]
    opened(small_bundle, tf32=True)
    assert runtime.options[1:] == [BuildOptions(tf32=True)]
    opened(small_bundle, "float16")
    assert runtime.builds == 3
    runtime.version = "10.4"
    opened(small_bundle)
    assert runtime.builds == 4
    monkeypatch.setattr(tensorrt_runtime, "gpu_identity", lambda device: replace(GPU, multiprocessors=14))
    opened(small_bundle)
    assert runtime.builds == 5
    monkeypatch.setattr(tensorrt_runtime, "gpu_identity", lambda device: replace(GPU, memory_gib=64))
    opened(small_bundle)
    assert runtime.builds == 6


def test_kernels_of_tensorrt_rtx_are_compiled_once_for_a_gpu(
    small_bundle: ModelBundle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    runtime = take_tensorrts_place(monkeypatch, "tensorrt_rtx")
    for given in (b"", KERNELS):
        opened(small_bundle)
        assert runtime.engines[-1].given == given
    (kept,) = engine_folder().glob("*.kernels")
    kept.write_bytes(KERNELS[:-1] + b"!")
    opened(small_bundle)
    assert runtime.engines[-1].given == b""
    assert "its bytes are damaged" in caplog.text
    assert kept.read_bytes() == KERNELS
    monkeypatch.setattr(tensorrt_runtime, "gpu_identity", lambda device: replace(GPU, multiprocessors=14))
    opened(small_bundle)
    assert runtime.engines[-1].given == b""
    assert runtime.builds == 1  # the engine fits every GPU of the compute capability


def test_same_memory_every_frame_and_warps_stream(runtime: FakeRuntime, small_bundle: ModelBundle) -> None:
    backend = opened(small_bundle)
    assert runtime.engines[-1].streams == [STREAM]  # once on opening, lest anything be compiled while it is captured
    first = backend.infer(image(0))
    kept = first.semantic_logits.numpy().copy()
    backend.image.assign(image(1))
    np.testing.assert_array_equal(first.semantic_logits.numpy(), kept)  # an image alone computes nothing
    second = backend.enqueue()
    assert second.semantic_logits.ptr == first.semantic_logits.ptr
    assert not np.array_equal(second.semantic_logits.numpy(), kept)
    assert runtime.engines[-1].streams == 3 * [STREAM]
    backend.close()


def test_an_engine_that_does_not_load_is_built_once_more(
    runtime: FakeRuntime, small_bundle: ModelBundle, caplog: pytest.LogCaptureFixture
) -> None:
    opened(small_bundle)
    runtime.refuse_next = 1
    opened(small_bundle)
    assert runtime.builds == 2
    assert "another driver" in caplog.text
    runtime.refuse_next = 2
    with pytest.raises(UnavailableError, match=r"just built for Fake GPU .*another driver.*update the GPU's driver"):
        opened(small_bundle)


def test_the_cache_is_where_build_engine_puts_engines(runtime: FakeRuntime, small_bundle: ModelBundle) -> None:
    opened(small_bundle)
    (engine,) = engine_folder().glob("*.engine")
    assert engine.name.startswith("small-64x96-float32-tensorrt-sm8.9-")


def test_the_pipeline_goes_on_where_the_driver_captures_nothing(
    runtime: FakeRuntime, small_bundle: ModelBundle, caplog: pytest.LogCaptureFixture
) -> None:
    settings = small_bundle.settings.replaced({"score_threshold": 0.05, "mask_threshold": 0.02})
    bundle = replace(small_bundle, settings=settings)
    pipelines = [
        PanopticPipeline(bundle, backend=name, device="cpu", network_size=SIZE, settings=settings)
        for name in ("tensorrt", "onnxruntime")
    ]
    with caplog.at_level(logging.WARNING):
        for seed in range(3):
            ours, other = (pipeline(CameraImage(image(seed), "rgb")) for pipeline in pipelines)
            np.testing.assert_array_equal(ours.semantic, other.semantic)
            np.testing.assert_array_equal(ours.instance, other.instance)
    assert len([record for record in caplog.records if "captured as a graph" in record.message]) == 1
    assert "tensorrt in float32 on cpu at 64x96" in pipelines[0].describe()


def test_without_a_gpu_one_sentence(small_bundle: ModelBundle) -> None:
    with pytest.raises(UnavailableError, match=r"CUDA GPU for the tensorrt backend.*nvidia-smi"):
        open_backend("tensorrt", small_bundle, SIZE, "cpu")


def test_without_tensorrt_one_sentence_with_both_remedies(monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_libs"):
        monkeypatch.setitem(sys.modules, package, None)  # as one that is not installed
    with pytest.raises(UnavailableError, match=r"found none: tensorrt \(.*JetPack.*tensorrt_rtx \(.*pip install"):
        tensorrt_runtime.load_runtime()
    with pytest.raises(InvalidInputError, match="auto, tensorrt, tensorrt_rtx"):
        tensorrt_runtime.load_runtime("cudnn")


def test_auto_falls_back_with_a_warning_and_a_named_backend_does_not(
    monkeypatch: pytest.MonkeyPatch, small_bundle: ModelBundle, caplog: pytest.LogCaptureFixture
) -> None:
    current: list[str] = []
    monkeypatch.setattr(backends, "resolve_device", lambda *_: "cuda:1")
    monkeypatch.setattr(backends.wp, "ScopedDevice", lambda device: nullcontext(current.append(device)))
    monkeypatch.setattr(tensorrt_runtime, "gpu_identity", lambda device: GPU)

    def missing() -> object:
        raise UnavailableError("expected TensorRT, found none: install it")

    monkeypatch.setattr(tensorrt_runtime, "load_runtime", missing)
    with caplog.at_level(logging.WARNING):
        backend = open_backend("auto", small_bundle, SIZE, "auto")
    assert backend.name == ("onnxruntime" if find_spec("openvino") is None else "openvino")
    assert f"using {backend.name} on cpu instead of tensorrt on cuda:1: expected TensorRT, found none" in caplog.text
    assert "instead of tensorrt on cuda:1" in backend.fallback
    assert current == ["cuda:1"] * (1 if find_spec("torch") is None else 2)  # for tensorrt and, where it is, torch
    with pytest.raises(UnavailableError, match="expected TensorRT"):
        open_backend("tensorrt", small_bundle, SIZE, "auto")
