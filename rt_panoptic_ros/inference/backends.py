"""Opens the backend that a user named, or the best one of this machine."""

from __future__ import annotations

import importlib
import logging
from typing import TYPE_CHECKING

import warp as wp

from rt_panoptic_ros.errors import InvalidInputError, UnavailableError, require_package
from rt_panoptic_ros.progress import report
from rt_panoptic_ros.settings import BACKENDS, DEVICES, PRECISIONS
from rt_panoptic_ros.warp_runtime import start_warp

if TYPE_CHECKING:
    from collections.abc import Callable

    from rt_panoptic_ros.inference.base import Backend
    from rt_panoptic_ros.model.bundle import ModelBundle

    BackendOpener = Callable[..., Backend]  # the arguments of `open_backend`

_LOGGER = logging.getLogger(__name__)

_BACKENDS = {  # name: (module, class, the library it needs, what installs that); imported when opened
    "onnxruntime": ("inference.onnxruntime_backend", "OnnxRuntimeBackend", "onnxruntime",
                    "pip install onnx onnxruntime"),
    "torch": ("network.torch_backend", "TorchBackend", "torch", "pip install torch"),
    "tensorrt": ("inference.tensorrt_backend", "TensorRtBackend", "", ""),  # `tensorrt_runtime` looks for two packages
    "openvino": ("inference.openvino_backend", "OpenVinoBackend", "openvino", "pip install onnx openvino"),
}  # fmt: skip
assert ("auto", *_BACKENDS) == BACKENDS


def check_choice(backend: str, device: str, precision: str) -> None:
    """Check the names of a backend, a device and a precision, before anything is loaded.

    Raises:
        InvalidInputError: One is not known.
    """
    choices = {"backend": (backend, BACKENDS), "device": (device, DEVICES), "precision": (precision, PRECISIONS)}
    for what, (name, known) in choices.items():
        if name not in known:
            raise InvalidInputError(f"expected {what} to be one of {', '.join(known)}, got '{name}'")


def resolve_device(device: str) -> str:
    """Start Warp and return its device name for auto, cpu or cuda.

    Raises:
        UnavailableError: cuda, and no usable CUDA GPU.
    """
    start_warp()
    if device != "cpu" and wp.is_cuda_available():
        return "cuda:0"
    if device == "cuda":
        raise UnavailableError("expected a CUDA GPU for device cuda, found none: check `nvidia-smi`, or choose cpu")
    return "cpu"


def open_backend(
    name: str, bundle: ModelBundle, network_size: tuple[int, int], device: str, precision: str = "float32", *,
    tf32: bool = False,
) -> Backend:  # fmt: skip
    """Return the backend `name` (one of `BACKENDS`) for `bundle`, loaded.

    `auto` takes tensorrt, else torch on a GPU where it can, else onnxruntime on the CPU, and logs a warning when a
    backend or device that was to be preferred could not be had. A named backend never falls back.

    Raises:
        InvalidInputError: Unknown name, or a bundle without ranges for int8.
        UnavailableError: The backend or device is not on this machine, or the backend lacks the precision.
    """
    check_choice(name, device, precision)
    where = resolve_device(device)
    if name != "auto":
        return _open(name, bundle, network_size, where, precision, tf32=tf32)
    attempts = [("onnxruntime", "cpu"), ("torch", "cpu")] if device != "cuda" else []
    if where != "cpu":
        attempts = [("tensorrt", where), ("torch", where), *attempts]
    reasons: list[str] = []
    for candidate, place in attempts:
        try:
            backend = _open(candidate, bundle, network_size, place, precision, tf32=tf32)
        except UnavailableError as error:
            reasons.append(f"{candidate} on {place}: {error}")
            continue
        for reason in reasons:
            _LOGGER.warning("using %s on %s instead of %s", candidate, place, reason)
        return backend
    raise UnavailableError(f"expected a backend, none can be used here: {'; '.join(reasons)}")


def _open(
    name: str, bundle: ModelBundle, network_size: tuple[int, int], device: str, precision: str, *, tf32: bool
) -> Backend:
    module, class_name, library, remedy = _BACKENDS[name]
    if library:
        require_package(library, f"the {name} backend", f"`{remedy}`")
    report(f"loading {name}")
    backend = getattr(importlib.import_module(f"rt_panoptic_ros.{module}"), class_name)
    report(f"opening the model with {name}")
    opened: Backend = backend(bundle, network_size, device, precision, tf32=tf32)
    return opened
