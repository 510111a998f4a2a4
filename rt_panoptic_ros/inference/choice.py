# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""What `auto` stands for on this machine, for a model: by rule, or as `rt-panoptic tune` has measured it."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import warp as wp

from rt_panoptic_ros.errors import InvalidInputError, UnavailableError, first_line
from rt_panoptic_ros.files import MOST_TEXT_BYTES, cache_directory, output_path, plain_name, read_regular
from rt_panoptic_ros.inference.base import CPU_ONLY, made_current
from rt_panoptic_ros.inference.onnx_export import processor
from rt_panoptic_ros.settings import BACKENDS, PRECISIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rt_panoptic_ros.inference.base import Backend
    from rt_panoptic_ros.model.bundle import ModelBundle

_LOG = logging.getLogger(__name__)

_MOST_LOSS = 0.5
"""What a precision may cost, in points of any figure of the card (mean IoU, PQ), to be chosen unasked."""
_TUNE_S = 2.0
"""For how long each is timed, about."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A backend, Warp's name of the device it computes on, and a precision."""

    backend: str
    device: str
    precision: str


def choices(bundle: ModelBundle, backend: str, device: str, precision: str, where: str) -> list[Choice]:
    """Return what a backend, device and precision stand for that may each be auto, the best first.

    On a GPU, auto is TensorRT or else torch, in float32. On a CPU it is OpenVINO where that is installed, else ONNX
    Runtime, in int8 where the model has ranges and its card says that int8 loses at most half a point. What
    `rt-panoptic tune` has found faster on this machine comes before them.

    Args:
        bundle: The model.
        backend: One of `settings.BACKENDS`.
        device: One of `settings.DEVICES`.
        precision: One of `settings.PRECISIONS`, or auto.
        where: What the device means here: see `backends.resolve_device`.
    """
    places = [("tensorrt", where), ("torch", where)] if where != "cpu" else []
    if device in ("auto", "cpu"):
        installed = importlib.util.find_spec("openvino") is not None
        places += [(name, "cpu") for name in (*(("openvino",) if installed else ()), "onnxruntime", "torch")]
    if backend != "auto":
        places = [(backend, where)]
    found = [Choice(*place, _precise_enough(bundle, *place) if precision == "auto" else precision) for place in places]
    tuned = _read_tuned(_tuned_path(bundle, where), where) if backend == "auto" else None
    if tuned is not None and precision in ("auto", tuned.precision) and _costs_little(bundle, tuned.precision):
        return [tuned, *(choice for choice in found if choice != tuned)]
    return found


def _precise_enough(bundle: ModelBundle, backend: str, device: str) -> str:
    return "int8" if device == "cpu" and backend in CPU_ONLY and _costs_little(bundle, "int8") else "float32"


def _costs_little(bundle: ModelBundle, precision: str) -> bool:
    loss = 0.0 if precision == "float32" else bundle.loss(precision)
    return loss is not None and loss <= _MOST_LOSS and (precision != "int8" or bundle.has_ranges)


def tune(
    bundle: ModelBundle, network_size: tuple[int, int], where: str, open_backend: Callable[..., Backend]
) -> tuple[list[tuple[Choice, float]], list[str]]:
    """Time the network with every backend of this machine, in every precision that costs little, in turns.

    Args:
        bundle: The model.
        network_size: (height, width) px.
        where: The device to compute on, by Warp's name.
        open_backend: `backends.open_backend`.

    Returns:
        (choice, median ms) of each, the fastest first, and what could not be timed, with the reason.

    Raises:
        UnavailableError: None can be had.
    """
    from tqdm import tqdm

    names = [name for name in BACKENDS[1:] if (name not in CPU_ONLY if where != "cpu" else name != "tensorrt")]
    precisions = [one for one in PRECISIONS if where != "cpu" or one != "float16"]  # which saves a CPU nothing
    wanted = [Choice(name, where, one) for name in names for one in precisions if _costs_little(bundle, one)]
    opened: dict[Choice, Backend] = {}
    left_out = [
        f"{one}: no figures of it in the card beside float32's, or they lose over {_MOST_LOSS} points, or no ranges"
        for one in precisions
        if not _costs_little(bundle, one)
    ]
    for choice in wanted:
        try:
            opened[choice] = open_backend(choice.backend, bundle, network_size, where, choice.precision)
        except UnavailableError as error:
            left_out.append(f"{choice.backend} in {choice.precision}: {error}")
    if not opened:
        raise UnavailableError(f"expected a backend to time, none can be used here: {'; '.join(left_out)}")
    image = np.random.default_rng(0).integers(0, 256, (*network_size, 3), np.uint8)
    times_ms: dict[Choice, list[float]] = {choice: [] for choice in opened}
    turns = 5
    with made_current(where), tqdm(total=turns * len(opened), desc="timing", unit="turn", leave=False) as bar:
        for _ in range(turns):
            for choice, backend in opened.items():
                _infer_ms(backend, image)  # the threads of the one before come to rest
                end_s = time.perf_counter() + _TUNE_S / turns
                while not times_ms[choice] or time.perf_counter() < end_s:
                    times_ms[choice].append(_infer_ms(backend, image))
                bar.update()
        for backend in opened.values():
            backend.close()
    medians = [(choice, float(np.median(times))) for choice, times in times_ms.items()]
    return sorted(medians, key=lambda one: one[1]), left_out


def _infer_ms(backend: Backend, image: np.ndarray) -> float:
    begin_s = time.perf_counter()
    backend.infer(image)
    if backend.device != "cpu":
        wp.synchronize_device(backend.device)
    return 1e3 * (time.perf_counter() - begin_s)


def write_tuned(bundle: ModelBundle, times: Sequence[tuple[Choice, float]]) -> Path:
    """Write what `auto` stands for from now on, the first of `times`, for this model and machine; return the file.

    Raises:
        UnavailableError: It can't be written.
    """
    best = times[0][0]
    path = _tuned_path(bundle, best.device)
    document = {**asdict(best), "median_ms": [[*asdict(choice).values(), median_ms] for choice, median_ms in times]}
    with output_path(path) as temporary:
        temporary.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return path


def _read_tuned(path: Path, where: str) -> Choice | None:
    try:
        document = json.loads(read_regular(path, "what was tuned", MOST_TEXT_BYTES))
        choice = Choice(str(document["backend"]), where, str(document["precision"]))
        if choice.backend in BACKENDS[1:] and choice.precision in PRECISIONS:
            return choice
        reason = "a backend or precision that is not known"
    except FileNotFoundError:
        return None
    except (InvalidInputError, OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        reason = f"{type(error).__name__}: {first_line(error)}"
    _LOG.warning("what was tuned for this machine in %s is of no use (%s): run `rt-panoptic tune` again", path, reason)
    return None


def _tuned_path(bundle: ModelBundle, where: str) -> Path:
    """Return the place of what was tuned for a model on this processor, or this GPU."""
    gpu = next((gpu.name for gpu in wp.get_cuda_devices() if gpu.alias == where), where)
    machine = f"{processor()}, {os.cpu_count()} cores" if where == "cpu" else gpu
    key = hashlib.sha256(f"{bundle.content_key} {machine}".encode()).hexdigest()[:24]
    return cache_directory() / "tuned" / f"{plain_name(bundle.name)}-{key}.json"
