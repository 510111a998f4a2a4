"""TensorRT on an NVIDIA GPU: the robot's backend."""

from __future__ import annotations

import hashlib
from functools import partial
from typing import TYPE_CHECKING

import warp as wp

from rt_panoptic_ros.errors import UnavailableError
from rt_panoptic_ros.inference import tensorrt_runtime
from rt_panoptic_ros.inference.base import CapturableBackend
from rt_panoptic_ros.inference.engine_cache import EngineIdentity, cached_engine, discard_engine, engine_folder
from rt_panoptic_ros.inference.onnx_export import exported_onnx
from rt_panoptic_ros.inference.tensorrt_runtime import BuildOptions, Runtime
from rt_panoptic_ros.records import DenseDetections

if TYPE_CHECKING:
    from pathlib import Path

    from rt_panoptic_ros.model.bundle import ModelBundle


class TensorRtBackend(CapturableBackend):
    """Runs the bundle's engine, built once and cached; its buffers are Warp arrays."""

    name = "tensorrt"

    def __init__(
        self, bundle: ModelBundle, network_size: tuple[int, int], device: str, precision: str, *, tf32: bool = False
    ) -> None:
        """Load the engine, building it when the cache has none; see `Backend`."""
        super().__init__(network_size, device, precision, tf32=tf32)
        self._engine = _open(bundle, network_size, precision, tensorrt_runtime.gpu_identity(device))
        inputs, outputs = self._engine.tensors()
        (name, shape), *_ = inputs.items()
        self.image = wp.empty(shape[1:], dtype=wp.uint8, device=device)
        self._outputs = {output: wp.empty(size, dtype=wp.float32, device=device) for output, size in outputs.items()}
        self._engine.bind({name: self.image.ptr, **{output: array.ptr for output, array in self._outputs.items()}})
        self._dense = DenseDetections.of_arrays({output: array[0] for output, array in self._outputs.items()})

    def enqueue(self) -> DenseDetections:
        """Enqueue the network; see `CapturableBackend`."""
        self._engine.enqueue(tensorrt_runtime.current_stream(self.device))
        return self._dense

    def close(self) -> None:
        """Free the engine; see `Backend`."""
        self._engine.close()


def build_engine(
    bundle: ModelBundle, network_size: tuple[int, int], precision: str, runtime: Runtime, gpu: tuple[str, str],
    options: BuildOptions, folder: Path,
) -> tuple[EngineIdentity, bytes, bool]:  # fmt: skip
    """Return identity and bytes of the engine for a model, and whether the cache had it.

    Args:
        bundle: The model.
        network_size: (height, width) px of its input.
        precision: float32, float16 or int8.
        runtime: What builds it.
        gpu: Name and compute capability of the GPU that it is for.
        options: Of the build; they name the compute capability again where the GPU is not the one at hand.
        folder: Of the cache.

    Raises:
        UnavailableError: The graph can't be built.
        InvalidInputError: The bundle is damaged or lacks ranges, or an option doesn't fit the runtime.
    """
    onnx = exported_onnx(bundle, network_size, precision, "tensorrt")
    name, capability = gpu
    identity = EngineIdentity(
        model=bundle.name,
        graph_sha256=hashlib.sha256(onnx).hexdigest(),
        size=f"{network_size[0]}x{network_size[1]}",
        precision=precision,
        runtime=runtime.name,
        runtime_version=runtime.version,
        gpu="any" if runtime.name == "tensorrt_rtx" else name,  # its engines fit all GPUs of a compute capability
        compute_capability=capability,
        # A limit of scratch memory is not among them: what was built under one serves as well.
        flags="strongly typed",
    )
    plan, found = cached_engine(identity, partial(runtime.build, onnx, options), folder)
    return identity, plan, found


def _open(
    bundle: ModelBundle, network_size: tuple[int, int], precision: str, gpu: tuple[str, str]
) -> tensorrt_runtime.Engine:
    """Return the engine, ready to run; one of the cache that doesn't load is built once more."""
    runtime = tensorrt_runtime.load_runtime()
    for _ in range(2):
        identity, plan, found = build_engine(
            bundle, network_size, precision, runtime, gpu, BuildOptions(), engine_folder()
        )
        engine = runtime.open(plan)
        if engine is not None:
            return engine
        discard_engine(identity, runtime.last_error or "it could not be loaded")
        if not found:
            break
    name, capability = gpu
    raise UnavailableError(
        f"expected {runtime.name} {runtime.version} to load the engine it has just built for {name} (compute "
        f"capability {capability}), it said: {runtime.last_error or 'nothing'}: update the GPU's driver, or choose "
        "another backend"
    )
