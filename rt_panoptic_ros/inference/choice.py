# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""What `auto` stands for on this machine, for a model: by rule, or as `rt-panoptic tune` has measured it."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import warp as wp

from rt_panoptic_ros.errors import InvalidInputError, UnavailableError
from rt_panoptic_ros.files import (
    MOST_TEXT_BYTES,
    cache_directory,
    output_path,
    plain_name,
    read_regular,
    user_cache,
    why_unwritable,
)
from rt_panoptic_ros.inference.base import CPU_ONLY, made_current
from rt_panoptic_ros.inference.onnx_export import physical_cores, processor
from rt_panoptic_ros.resources import installed_versions
from rt_panoptic_ros.settings import PRECISIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rt_panoptic_ros.inference.base import Backend
    from rt_panoptic_ros.model.bundle import ModelBundle

_LOG = logging.getLogger(__name__)

_MOST_LOSS = 0.5
"""What a precision may cost, in points of the card's mean IoU and PQ, to be chosen unasked."""
_TUNE_S = 2.0
"""For how long each is timed, about."""
_CLEARLY = 0.95
"""Of the time of what the rule takes: what takes more isn't clearly faster."""
_PACKAGES = ("onnxruntime", "openvino", "torch", "tensorrt", "tensorrt_rtx")


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
    asked = Choice(backend, where, precision)
    rule = _rule(bundle, asked, also_cpu=device in ("auto", "cpu"))
    if "auto" not in (backend, precision):
        return rule
    tuned = [choice for choice in _read_tuned(bundle, where) if _fits(choice, asked)]
    return list(dict.fromkeys([*tuned[:1], *rule]))


def _rule(bundle: ModelBundle, asked: Choice, *, also_cpu: bool) -> list[Choice]:
    places = [("tensorrt", asked.device), ("torch", asked.device)] if asked.device != "cpu" else []
    if also_cpu:
        installed = importlib.util.find_spec("openvino") is not None
        places += [(name, "cpu") for name in (*(("openvino",) if installed else ()), "onnxruntime", "torch")]
    if asked.backend != "auto":
        places = [(asked.backend, asked.device)]
    if asked.precision != "auto":
        return [Choice(*place, asked.precision) for place in places]
    why_not = _why_not(bundle, "int8")
    if why_not and bundle.has_ranges:
        _LOG.info("auto is float32: %s", why_not)
    return [
        Choice(name, place, "int8" if place == "cpu" and name in CPU_ONLY and not why_not else "float32")
        for name, place in places
    ]


def _fits(choice: Choice, asked: Choice) -> bool:
    return asked.backend in ("auto", choice.backend) and asked.precision in ("auto", choice.precision)


def _candidates(bundle: ModelBundle, where: str) -> list[Choice]:
    """Return what can be chosen on a device unasked, whether or not it is installed."""
    if where == "cpu":  # which float16 saves nothing
        pairs = [("onnxruntime", "float32"), ("onnxruntime", "int8"), ("openvino", "float32"), ("openvino", "int8"),
                 ("torch", "float32")]  # fmt: skip
    else:
        pairs = [("torch", "float32"), ("torch", "float16"), *(("tensorrt", precision) for precision in PRECISIONS)]
    allowed = {precision for precision in PRECISIONS if not _why_not(bundle, precision)}
    return [Choice(name, where, precision) for name, precision in pairs if precision in allowed]


def _why_not(bundle: ModelBundle, precision: str) -> str:
    """Return why a precision is not to be chosen unasked, or nothing."""
    if precision == "float32":
        return ""
    loss = bundle.loss(precision)
    if loss is None:
        return f"the card has no figures of {precision} beside float32's (`rt-panoptic eval --record` writes them)"
    if loss > _MOST_LOSS:
        return f"{precision} loses {loss:.1f} points by the card's figures, more than {_MOST_LOSS}"
    if precision == "int8":
        try:
            bundle.load_ranges()
        except InvalidInputError as error:
            return str(error)
    return ""


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
        (choice, ms) of each, and what could not be timed, with the reason. Times are lower quartiles, which other work
        on the machine moves less than medians. The first is to be chosen: the fastest, or what the rule of `choices`
        takes if none is clearly faster; the others follow by their times.

    Raises:
        UnavailableError: None can be had.
    """
    from tqdm import tqdm

    opened: dict[Choice, Backend] = {}
    left_out = [why for precision in PRECISIONS if (why := _why_not(bundle, precision))]
    for choice in _candidates(bundle, where):
        try:
            opened[choice] = open_backend(choice.backend, bundle, network_size, where, choice.precision)
        except UnavailableError as error:
            left_out.append(f"{choice.backend} in {choice.precision}: {error}")
    if not opened:
        raise UnavailableError(f"expected a backend to time, none can be used here: {'; '.join(left_out)}")
    image = np.random.default_rng(0).integers(0, 256, (*network_size, 3), np.uint8)
    samples_ms: dict[Choice, list[float]] = {choice: [] for choice in opened}
    turns = 5
    with made_current(where), tqdm(total=turns * len(opened), desc="timing", unit="turn", leave=False) as bar:
        for _ in range(turns):
            for choice, backend in opened.items():
                _infer_ms(backend, image)  # the threads of the one before come to rest
                end_s = time.perf_counter() + _TUNE_S / turns
                while not samples_ms[choice] or time.perf_counter() < end_s:
                    samples_ms[choice].append(_infer_ms(backend, image))
                bar.update()
        for backend in opened.values():
            backend.close()
    times = {choice: float(np.quantile(samples, 0.25)) for choice, samples in samples_ms.items()}
    rule = _rule(bundle, Choice("auto", where, "auto"), also_cpu=where == "cpu")
    usual = next((choice for choice in rule if choice in times), None)
    first = min(times, key=lambda choice: times[choice])
    if usual is not None and times[first] > _CLEARLY * times[usual]:
        first = usual
    others = sorted(times.keys() - {first}, key=lambda choice: times[choice])
    return [(choice, times[choice]) for choice in (first, *others)], left_out


def _infer_ms(backend: Backend, image: np.ndarray) -> float:
    begin_s = time.perf_counter()
    backend.infer(image)
    if backend.device != "cpu":
        wp.synchronize_device(backend.device)
    return 1e3 * (time.perf_counter() - begin_s)


def check_tunable() -> None:
    """Check that what is tuned can be kept.

    Raises:
        UnavailableError: The cache can't be written, or isn't used, as others may write there.
    """
    folder = user_cache() / "rt_panoptic_ros"
    if reason := why_unwritable(folder):
        raise UnavailableError(f"expected to keep what is tuned in {folder}, got: {reason}; or set XDG_CACHE_HOME")


def write_tuned(bundle: ModelBundle, times: Sequence[tuple[Choice, float]], network_size: tuple[int, int]) -> Path:
    """Write what `auto` stands for from now on, for this model and machine: the first of `times`; return the file.

    Raises:
        UnavailableError: It can't be written.
    """
    path = _tuned_path(bundle, _candidates(bundle, times[0][0].device))
    rows = [[choice.backend, choice.precision, round(ms, 3)] for choice, ms in times]
    with output_path(path) as temporary:
        temporary.write_text(json.dumps({"network_size": network_size, "ms": rows}, indent=1) + "\n", encoding="utf-8")
    return path


def _read_tuned(bundle: ModelBundle, where: str) -> list[Choice]:
    candidates = _candidates(bundle, where)
    path = _tuned_path(bundle, candidates)
    found = _tuned_in(path, where)
    if set(found) <= set(candidates):
        return found
    _LOG.warning("%s has what can't be chosen on %s: run `rt-panoptic tune` again", path, where)
    return []


def _tuned_in(path: Path, where: str) -> list[Choice]:
    """Return what a file says, the best first; nothing if there is none, or, which is logged, a damaged one."""
    try:
        rows = json.loads(read_regular(path, "what was tuned", MOST_TEXT_BYTES))["ms"]
        return [Choice(str(backend), where, str(precision)) for backend, precision, _ in rows]
    except FileNotFoundError:
        return []
    except (InvalidInputError, OSError, ValueError, KeyError, TypeError, RecursionError):
        _LOG.warning("%s is not what tuning wrote: run `rt-panoptic tune` again", path)
        return []


def _tuned_path(bundle: ModelBundle, candidates: Sequence[Choice]) -> Path:
    """Return the place of what was tuned for a model on the candidates' device, with the libraries that are here."""
    where = candidates[0].device
    gpu = next((gpu.name for gpu in wp.get_cuda_devices() if gpu.alias == where), where)
    machine = f"{processor()}, {physical_cores()} cores" if where == "cpu" else gpu
    parts = (bundle.content_key, machine, candidates, installed_versions(_PACKAGES))
    key = hashlib.sha256(repr(parts).encode()).hexdigest()[:24]
    return cache_directory() / "tuned" / f"{plain_name(bundle.name)}-{key}.json"
