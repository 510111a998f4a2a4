"""Opens the inference engine that a user named, or the best one of this machine."""

from __future__ import annotations

import importlib
import importlib.util
import logging
from typing import TYPE_CHECKING

import warp as wp

from rt_panoptic_ros.errors import InvalidInputError, UnavailableError, require_package
from rt_panoptic_ros.progress import report
from rt_panoptic_ros.settings import BACKENDS, DEVICES, PRECISIONS
from rt_panoptic_ros.warp_runtime import start_warp

if TYPE_CHECKING:
    from rt_panoptic_ros.inference.base import Backend
    from rt_panoptic_ros.model.bundle import ModelBundle

_LOGGER = logging.getLogger(__name__)

_ENGINES = {  # name: (module of this package, class, the library it needs, what installs that)
    "onnxruntime": ("onnxruntime_backend", "OnnxRuntimeBackend", "onnxruntime", "pip install onnx onnxruntime"),
    "torch": ("torch_backend", "TorchBackend", "torch", "pip install torch"),
    "tensorrt": ("tensorrt_backend", "TensorRtBackend", "", "see docs/tensorrt.md"),
    "openvino": ("openvino_backend", "OpenVinoBackend", "openvino", "pip install onnx openvino"),
}
assert ("auto", *_ENGINES) == BACKENDS


def check_choice(backend: str, device: str, precision: str) -> None:
    """Check the names of a backend, a device and a precision, before anything is loaded.

    Raises:
        InvalidInputError: One is not known.
    """
    if backend not in BACKENDS:
        raise InvalidInputError(f"expected backend to be one of {', '.join(BACKENDS)}, got '{backend}'")
    if device not in DEVICES:
        raise InvalidInputError(f"expected device to be one of {', '.join(DEVICES)}, got '{device}'")
    if precision not in PRECISIONS:
        raise InvalidInputError(f"expected precision to be one of {', '.join(PRECISIONS)}, got '{precision}'")


def resolve_device(device: str) -> str:
    """Start Warp and return its device name for auto, cpu or cuda.

    Raises:
        UnavailableError: cuda, and no usable CUDA GPU.
    """
    start_warp()
    if device == "cpu" or (device == "auto" and not wp.is_cuda_available()):
        return "cpu"
    if not wp.is_cuda_available():
        raise UnavailableError("expected a CUDA GPU for device cuda, found none: check `nvidia-smi`, or choose cpu")
    return "cuda:0"


def open_backend(
    name: str, bundle: ModelBundle, network_size: tuple[int, int], device: str, precision: str = "float32"
) -> Backend:
    """Return the engine `name` (one of `BACKENDS`) for `bundle`, loaded.

    `auto` takes tensorrt, else torch on a GPU where it can, else onnxruntime on the CPU, and logs a warning when an
    engine or device that was to be preferred could not be had. A named engine never falls back.

    Raises:
        InvalidInputError: Unknown name, or a bundle without ranges for int8.
        UnavailableError: The engine or device is not on this machine, or the engine lacks the precision.
    """
    check_choice(name, device, precision)
    where = resolve_device(device)
    if name != "auto":
        return _open(name, bundle, network_size, where, precision)
    attempts = [("onnxruntime", "cpu"), ("torch", "cpu")] if device != "cuda" else []
    if where != "cpu":
        attempts = [("tensorrt", where), ("torch", where), *attempts]
    reasons: list[str] = []
    for engine, place in attempts:
        try:
            backend = _open(engine, bundle, network_size, place, precision)
        except UnavailableError as error:
            reasons.append(f"{engine} on {place}: {error}")
            continue
        for reason in reasons:
            _LOGGER.warning("using %s on %s instead of %s", engine, place, reason)
        return backend
    raise UnavailableError(f"expected an inference engine, none can be used here: {'; '.join(reasons)}")


def _open(name: str, bundle: ModelBundle, network_size: tuple[int, int], device: str, precision: str) -> Backend:
    module, class_name, library, remedy = _ENGINES[name]
    if library:  # TensorRT is looked for by `tensorrt_runtime`, in two packages
        require_package(library, f"the {name} backend", f"`{remedy}`")
    report(f"loading {name}")
    engine: type[Backend] = getattr(importlib.import_module(f"rt_panoptic_ros.inference.{module}"), class_name)
    report(f"opening the model with {name}")
    return engine(bundle, network_size, device, precision)
