# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""TensorRT on an NVIDIA GPU: the robot's backend."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import warp as wp

from rt_panoptic_ros.errors import UnavailableError
from rt_panoptic_ros.inference import tensorrt_runtime
from rt_panoptic_ros.inference.base import CapturableBackend
from rt_panoptic_ros.inference.engine_cache import (
    EngineIdentity,
    cached_engine,
    cached_kernels,
    discard_engine,
    engine_folder,
    keep_kernels,
)
from rt_panoptic_ros.inference.onnx_export import exported_onnx
from rt_panoptic_ros.inference.tensorrt_runtime import BuildOptions, Engine, Gpu, Runtime
from rt_panoptic_ros.records import DenseDetections

if TYPE_CHECKING:
    from pathlib import Path

    from rt_panoptic_ros.model.bundle import ModelBundle


_LOG = logging.getLogger(__name__)


class TensorRtBackend(CapturableBackend):
    """Runs the bundle's engine, built once and cached; its buffers are Warp arrays."""

    name = "tensorrt"

    def __init__(
        self, bundle: ModelBundle, network_size: tuple[int, int], device: str, precision: str, *, tf32: bool = False
    ) -> None:
        """Load the engine, building it when the cache has none; see `Backend`."""
        super().__init__(network_size, device, precision, tf32=tf32)
        self._engine, identity = _open(bundle, network_size, precision, device, tf32=tf32)
        inputs, outputs = self._engine.tensors()
        (name, shape), *_ = inputs.items()
        self.image = wp.zeros(shape[1:], dtype=wp.uint8, device=device)
        arrays = {output: wp.empty(size, dtype=wp.float32, device=device) for output, size in outputs.items()}
        self._engine.bind({name: self.image.ptr, **{output: array.ptr for output, array in arrays.items()}})
        self._dense = DenseDetections.of_arrays({output: array[0] for output, array in arrays.items()})
        self.enqueue()  # compiles what is still to be compiled, which can't be captured
        kernels = self._engine.new_kernels()
        if kernels:
            keep_kernels(identity, kernels)

    def enqueue(self) -> DenseDetections:
        """Enqueue the network; see `CapturableBackend`."""
        self._engine.enqueue(tensorrt_runtime.current_stream(self.device))
        return self._dense

    def close(self) -> None:
        """Free the engine; see `Backend`."""
        self._engine.close()


def build_engine(
    bundle: ModelBundle, network_size: tuple[int, int], precision: str, runtime: Runtime, target: Gpu | str,
    options: BuildOptions, folder: Path,
) -> tuple[EngineIdentity, bytes, bool]:  # fmt: skip
    """Return identity and bytes of the engine for a model, and whether the cache had it.

    Args:
        bundle: The model.
        network_size: (height, width) px of its input.
        precision: float32, float16 or int8.
        runtime: What builds it.
        target: The GPU at hand, or the compute capability of those that it is for.
        options: Of the build, but for the compute capability.
        folder: Of the cache.

    Raises:
        UnavailableError: The graph can't be built.
        InvalidInputError: The bundle is damaged or lacks ranges, or an option doesn't fit the runtime.
    """
    capability = target if isinstance(target, str) else target.compute_capability
    if runtime.rtx or isinstance(target, str):  # TensorRT-RTX doesn't build for the GPU at hand by itself
        options = replace(options, compute_capability=capability)
    onnx = exported_onnx(bundle, network_size, precision, runtime.dialect)
    identity = EngineIdentity(
        model=bundle.name,
        graph_sha256=hashlib.sha256(onnx).hexdigest(),
        size=f"{network_size[0]}x{network_size[1]}",
        precision=precision,
        runtime=runtime.name,
        runtime_version=runtime.version,
        gpu="any" if runtime.rtx else str(target),  # its engines fit all GPUs of a compute capability
        compute_capability=capability,
        # A limit of scratch memory is not among them: what was built under one serves as well.
        flags=f"strongly typed, TF32 {'on' if options.tf32 else 'off'}",
    )
    plan, found = cached_engine(identity, partial(runtime.build, onnx, options), folder)
    return identity, plan, found


def warn_of_precision(runtime: Runtime, precision: str) -> None:
    """Log what a runtime makes of a precision, where that isn't what one would expect."""
    if runtime.rtx and precision == "int8":
        _LOG.warning(
            "%s has 8 bits for the weights of matrix products, not for convolutions: in int8 they write float32, and "
            "each rounding is a kernel of its own, so choose precision float16", runtime.name,
        )  # fmt: skip


def _open(
    bundle: ModelBundle, network_size: tuple[int, int], precision: str, device: str, *, tf32: bool
) -> tuple[Engine, EngineIdentity]:
    """Return the engine, ready to run, and for which GPU; one of the cache that doesn't load is built once more."""
    gpu = tensorrt_runtime.gpu_identity(device)
    runtime = tensorrt_runtime.load_runtime()
    warn_of_precision(runtime, precision)
    options = BuildOptions(tf32=tf32)
    for _ in range(2):
        identity, plan, found = build_engine(bundle, network_size, precision, runtime, gpu, options, engine_folder())
        compiled_for = replace(identity, gpu=str(gpu))
        engine = runtime.open(plan, device, cached_kernels(compiled_for) if runtime.rtx else b"")
        if engine is not None:
            return engine, compiled_for
        discard_engine(identity, runtime.last_error or "it could not be loaded")
        if not found:
            break
    raise UnavailableError(
        f"expected {runtime.name} {runtime.version} to load the engine it has just built for {gpu.name} (compute "
        f"capability {gpu.compute_capability}), it said: {runtime.last_error or 'nothing'}: update the GPU's driver, "
        "or choose another backend"
    )
