# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""TensorRT's place taken at its one module: a runtime whose engines are graphs that ONNX Runtime computes.

What the backend does with it is the real thing: cache, buffers, addresses, staging, order of calls.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping

import numpy as np
import onnxruntime
import pytest
import warp as wp

from rt_panoptic_ros.inference import tensorrt_runtime
from rt_panoptic_ros.inference.tensorrt_runtime import BuildOptions, Gpu, Runtime

STREAM = 4711
KERNELS = b"compiled" * 99
GPU = Gpu("Fake GPU", "8.9", 24, 8)


class FakeEngine:
    """Computes a graph; one of TensorRT-RTX compiles kernels until it is given them."""

    def __init__(self, plan: bytes, kernels: bytes | None) -> None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(plan, options, providers=["CPUExecutionProvider"])
        self._addresses: dict[str, int] = {}
        self.given = kernels
        self.streams: list[int] = []

    def tensors(self) -> tuple[dict[str, tuple[int, ...]], dict[str, tuple[int, ...]]]:
        inputs = {item.name: tuple(item.shape) for item in self._session.get_inputs()}
        return inputs, {item.name: tuple(item.shape) for item in self._session.get_outputs()}

    def bind(self, addresses: Mapping[str, int]) -> None:
        inputs, outputs = self.tensors()
        assert addresses.keys() == inputs.keys() | outputs.keys()
        self._addresses = dict(addresses)

    def enqueue(self, stream: int) -> None:
        if wp.get_device("cpu").is_capturing:
            raise RuntimeError("operation not permitted when stream is capturing")
        self.streams.append(stream)
        inputs, outputs = self.tensors()
        (name, shape), *_ = inputs.items()
        results = self._session.run(list(outputs), {name: self._view(name, shape, ctypes.c_uint8)})
        for (output, size), value in zip(outputs.items(), results, strict=True):
            np.copyto(self._view(output, size, ctypes.c_float), value)

    def new_kernels(self) -> bytes:
        assert self.streams, "kernels are compiled up to the first inference"
        return b"" if self.given is None or self.given == KERNELS else KERNELS

    def close(self) -> None:
        del self._session

    def _view(self, name: str, shape: tuple[int, ...], kind: type) -> np.ndarray:
        size = int(np.prod(shape))
        pointer = ctypes.cast(self._addresses[name], ctypes.POINTER(kind * size))
        return np.frombuffer(pointer.contents, dtype=np.dtype(kind)).reshape(shape)


class FakeRuntime:
    """Builds by handing the graph on; opens all but plans that it is told to refuse."""

    def __init__(self, name: str = "tensorrt", version: str = "10.3") -> None:
        self.name, self.version = name, version
        self.rtx = name == "tensorrt_rtx"
        self.last_error = ""
        self.options: list[BuildOptions] = []  # of each build
        self.refuse_next = 0
        self.engines: list[FakeEngine] = []

    dialect = Runtime.dialect

    @property
    def builds(self) -> int:
        return len(self.options)

    def build(self, onnx: bytes, options: BuildOptions, progress: Callable[[float], None]) -> bytes:
        assert options.compute_capability == (GPU.compute_capability if self.rtx else "")  # for the GPU at hand
        self.options.append(options)
        progress(1.0)
        return onnx

    def open(self, plan: bytes, device: str, kernels: bytes = b"") -> FakeEngine | None:
        if self.refuse_next > 0:
            self.refuse_next -= 1
            self.last_error = "the engine was made for another driver"
            return None
        self.engines.append(FakeEngine(plan, kernels if self.rtx else None))
        return self.engines[-1]


def take_tensorrts_place(monkeypatch: pytest.MonkeyPatch, name: str = "tensorrt") -> FakeRuntime:
    """Have the backend find a runtime, and a GPU, on the CPU."""
    runtime = FakeRuntime(name)
    monkeypatch.setattr(tensorrt_runtime, "load_runtime", lambda: runtime)
    monkeypatch.setattr(tensorrt_runtime, "gpu_identity", lambda device: GPU)
    monkeypatch.setattr(tensorrt_runtime, "current_stream", lambda device: STREAM)
    return runtime
