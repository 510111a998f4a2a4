# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Opens the backend that a user named, or the best one of this machine."""

from __future__ import annotations

import functools
import importlib
import logging
from typing import TYPE_CHECKING

import warp as wp

from rt_panoptic_ros.errors import InvalidInputError, UnavailableError, require_package
from rt_panoptic_ros.inference.base import CPU_ONLY, made_current
from rt_panoptic_ros.inference.choice import choices
from rt_panoptic_ros.progress import report
from rt_panoptic_ros.settings import BACKENDS, PRECISIONS, check_device
from rt_panoptic_ros.warp_runtime import start_warp, unusable_gpu

if TYPE_CHECKING:
    from collections.abc import Callable

    from rt_panoptic_ros.inference.base import Backend
    from rt_panoptic_ros.inference.choice import Choice
    from rt_panoptic_ros.model.bundle import ModelBundle

    BackendOpener = Callable[..., Backend]  # the arguments of `open_backend`

_LOGGER = logging.getLogger(__name__)

_BACKENDS = {  # name: (module, what opens it, the library it needs, what installs that); imported when opened
    "onnxruntime": ("inference.onnxruntime_backend", "OnnxRuntimeBackend", "onnxruntime",
                    "pip install onnx onnxruntime"),
    "torch": ("network.torch_backend", "open_torch", "torch", "pip install torch"),
    "tensorrt": ("inference.tensorrt_backend", "TensorRtBackend", "", ""),  # `tensorrt_runtime` looks for two packages
    "openvino": ("inference.openvino_backend", "OpenVinoBackend", "openvino", "pip install onnx openvino"),
}  # fmt: skip
assert ("auto", *_BACKENDS) == BACKENDS


def check_choice(backend: str, device: str, precision: str) -> None:
    """Check the names of a backend, a device and a precision, before anything is loaded.

    Raises:
        InvalidInputError: One is not known.
    """
    check_device(device)
    for what, name, known in (("backend", backend, BACKENDS), ("precision", precision, ("auto", *PRECISIONS))):
        if name not in known:
            raise InvalidInputError(f"expected {what} to be one of {', '.join(known)}, got '{name}'")


def resolve_device(device: str, backend: str = "auto") -> str:
    """Start Warp and return its name, such as cuda:0, of the device that one of `DEVICES` means for a backend.

    Raises:
        InvalidInputError: It is none of them.
        UnavailableError: There is no such GPU, or none that can be used: driver and remedy are named.
    """
    check_device(device)
    start_warp()
    gpus: dict[str, str] = {gpu.alias: gpu.name for gpu in wp.get_cuda_devices()}
    if device == "cpu" or (device == "auto" and (not gpus or backend in CPU_ONLY)):
        return "cpu"
    if not gpus:
        found = unusable_gpu() or "none: check `nvidia-smi`"
        raise UnavailableError(f"expected a CUDA GPU for device {device}, found {found}, or choose device cpu")
    if device in ("auto", "cuda"):
        return next(iter(gpus))
    if device not in gpus:
        known = ", ".join(f"{alias} ({name})" for alias, name in gpus.items())
        raise UnavailableError(f"expected one of the GPUs {known}, got {device}: choose one of them, or device cpu")
    return device


def open_backend(
    name: str, bundle: ModelBundle, network_size: tuple[int, int], device: str, precision: str = "auto", *,
    tf32: bool = False,
) -> Backend:  # fmt: skip
    """Return the backend `name` (one of `BACKENDS`) for `bundle`, loaded.

    `auto` takes the first of `choices` that can be had, and logs a warning, once, when a backend or device that was to
    be preferred could not; `Backend.fallback` says so too. A named backend never falls back.

    Raises:
        InvalidInputError: Unknown name, or a bundle without ranges for int8.
        UnavailableError: The backend or device is not on this machine, or the backend lacks the precision.
    """
    check_choice(name, device, precision)
    where = resolve_device(device, name)
    reason = unusable_gpu() if device == "auto" and where == "cpu" and name not in CPU_ONLY else ""
    reasons = [f"a GPU: found {reason}"] if reason else []
    for choice in choices(bundle, name, device, precision, where):
        try:
            backend = _open(bundle, network_size, choice, tf32=tf32)
        except UnavailableError as error:
            if name != "auto":
                raise
            reasons.append(f"{choice.backend} on {choice.device}: {error}")
            continue
        backend.chosen = "auto" in (name, precision)
        return _chosen(backend, reasons)
    raise UnavailableError(f"expected a backend, none can be used here: {'; '.join(reasons)}")


def _open(bundle: ModelBundle, network_size: tuple[int, int], choice: Choice, *, tf32: bool) -> Backend:
    module, opener, library, remedy = _BACKENDS[choice.backend]
    if library:
        require_package(library, f"the {choice.backend} backend", f"`{remedy}`")
    report(f"loading {choice.backend}")
    backend = getattr(importlib.import_module(f"rt_panoptic_ros.{module}"), opener)
    report(f"opening the model with {choice.backend}")
    with made_current(choice.device):
        opened: Backend = backend(bundle, network_size, choice.device, choice.precision, tf32=tf32)
    return opened


def _chosen(backend: Backend, reasons: list[str]) -> Backend:
    """Log once why a backend is used in place of others; one on the CPU keeps it."""
    words = [f"using {backend.name} on {backend.device} instead of {reason}" for reason in reasons]
    for line in words:
        _warn_once(line)
    backend.fallback = "; ".join(words) if backend.device == "cpu" else ""
    return backend


@functools.cache
def _warn_once(words: str) -> None:
    _LOGGER.warning("%s", words)
