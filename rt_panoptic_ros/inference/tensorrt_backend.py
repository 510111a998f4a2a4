"""TensorRT on an NVIDIA GPU: the robot's engine."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np
import warp as wp

from rt_panoptic_ros.errors import UnavailableError
from rt_panoptic_ros.inference import tensorrt_runtime
from rt_panoptic_ros.inference.base import CapturableBackend
from rt_panoptic_ros.inference.engine_cache import EngineIdentity, cached_engine, discard_engine
from rt_panoptic_ros.inference.onnx_export import dense_detections, exported_onnx
from rt_panoptic_ros.inference.tensorrt_runtime import BuildOptions, Runtime

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rt_panoptic_ros.model.bundle import ModelBundle
    from rt_panoptic_ros.records import DenseDetections


class TensorRtBackend(CapturableBackend):
    """Runs the bundle's engine, built once and cached; its buffers are Warp arrays."""

    name = "tensorrt"

    def __init__(self, bundle: ModelBundle, network_size: tuple[int, int], device: str, precision: str) -> None:
        """Load the engine, building it when the cache has none; see `Backend`."""
        gpu, capability = tensorrt_runtime.gpu_identity(device)
        runtime = tensorrt_runtime.load_runtime()
        self.device, self.network_size, self.precision = device, network_size, precision
        self.runtime = f"{runtime.name} {runtime.version}"
        self.found_in_cache, self._engine = _open(bundle, network_size, precision, runtime, gpu, capability)
        inputs, outputs = self._engine.tensors()
        (name, shape), *_ = inputs.items()
        pinned = device.startswith("cuda")
        self._host = wp.empty(shape, dtype=wp.uint8, device="cpu", pinned=pinned)
        self._staged: np.ndarray = self._host.numpy()[0]
        self._image = wp.empty(shape, dtype=wp.uint8, device=device)
        arrays = {output: wp.empty(size, dtype=wp.float32, device=device) for output, size in outputs.items()}
        self._engine.bind({name: self._image.ptr, **{output: array.ptr for output, array in arrays.items()}})
        self._outputs = arrays
        self._dense = dense_detections({output: array[0] for output, array in arrays.items()})

    def stage(self, image: np.ndarray) -> None:
        """Copy an image to where `enqueue` uploads it from; see `CapturableBackend`."""
        np.copyto(self._staged, image)

    def enqueue(self) -> DenseDetections:
        """Enqueue upload and network; see `CapturableBackend`."""
        wp.copy(self._image, self._host)
        self._engine.enqueue(tensorrt_runtime.current_stream(self.device))
        return self._dense

    def close(self) -> None:
        """Free the engine."""
        self._engine.close()


def build_engine(
    bundle: ModelBundle, network_size: tuple[int, int], precision: str, runtime: Runtime, gpu: str,
    capabilities: tuple[str, ...], options: BuildOptions, folder: Path | None = None,
) -> tuple[EngineIdentity, bytes, bool]:  # fmt: skip
    """Return identity and bytes of the engine for a model, and whether the cache had it.

    Args:
        bundle: The model.
        network_size: (height, width) px of its input.
        precision: float32, float16 or int8.
        runtime: What builds it.
        gpu: Name of the GPU that it is for.
        capabilities: Compute capabilities that it is for.
        options: Of the build; the capabilities in them are those to name to the builder.
        folder: Of the cache; None for the user's.

    Raises:
        UnavailableError: The graph can't be built.
        InvalidInputError: The bundle is damaged or lacks ranges, or an option doesn't fit the runtime.
    """
    onnx = exported_onnx(bundle, network_size, precision, "tensorrt")
    identity = EngineIdentity(
        model=bundle.name,
        graph_sha256=hashlib.sha256(onnx).hexdigest(),
        size=f"{network_size[0]}x{network_size[1]}",
        precision=precision,
        runtime=runtime.name,
        runtime_version=runtime.version,
        gpu="any" if runtime.name == "tensorrt_rtx" else gpu,  # its engines fit all GPUs of a compute capability
        compute_capability=",".join(capabilities),
        # A limit of scratch memory is not among them: what was built under one serves as well.
        flags="strongly typed",
    )

    def build(progress: Callable[[float], None]) -> bytes:
        return runtime.build(onnx, options, progress)

    plan, found = cached_engine(identity, build, folder)
    return identity, plan, found


def _open(
    bundle: ModelBundle, network_size: tuple[int, int], precision: str, runtime: Runtime, gpu: str, capability: str
) -> tuple[bool, tensorrt_runtime.Engine]:
    """Return whether the engine was cached, and the engine; one that doesn't load is built once more."""
    for _ in range(2):
        identity, plan, found = build_engine(
            bundle, network_size, precision, runtime, gpu, (capability,), BuildOptions()
        )
        engine = runtime.open(plan)
        if engine is not None:
            return found, engine
        discard_engine(identity, runtime.last_error or "it could not be loaded")
        if not found:
            break
    raise UnavailableError(
        f"expected {runtime.name} {runtime.version} to load the engine it has just built for {gpu} (compute "
        f"capability {capability}), it said: {runtime.last_error or 'nothing'}: update the GPU's driver, or choose "
        "another backend"
    )
