"""Starts Warp and loads its kernels, quietly, and without a cache where none can be written."""

from __future__ import annotations

import functools
import logging
import os
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import warp as wp

from rt_panoptic_ros.errors import UnavailableError
from rt_panoptic_ros.files import process_folder, user_cache, why_unwritable
from rt_panoptic_ros.progress import report

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import ModuleType

_LOG = logging.getLogger(__name__)

wp.config.log_level = wp.LOG_WARNING  # its banner would go to standard output


@functools.cache
def start_warp() -> None:
    """Start Warp, with its cache where there is room for it: else in a folder of this process, and a warning says so.

    Raises:
        UnavailableError: Not even a temporary folder has room.
    """
    # Without a variable, Warp's own default, save for users without a home folder, for whom it would make one named ~.
    folder = wp.config.kernel_cache_dir or os.environ.get("WARP_CACHE_PATH") or str(user_cache() / "warp")
    reason = why_unwritable(Path(folder))  # found out before: without room, the compiler ends the process
    wp.config.kernel_cache_dir = folder if reason is None else str(_temporary_cache(Path(folder), reason))
    with _without_word_of_missing_driver():
        wp.init()


def load_kernels(modules: Sequence[ModuleType], device: wp.Device | str) -> None:
    """Load all kernels of some modules, from the cache or compiled; `progress.observing` hears of each module.

    Raises:
        UnavailableError: There is no room for them, neither in the cache nor in a temporary folder.
    """
    start_warp()
    device = wp.get_device(device)
    block = 1 if device.is_cpu else 256  # as in launches that don't say it
    for number, module in enumerate(modules, 1):
        report(f"loading kernels, which a first start compiles: part {number} of {len(modules)}")
        wp.load_module(module, device, block_dim=block)


def _temporary_cache(cache: Path, reason: str) -> Path:
    """Return a folder of this process that has what a cache holds and takes what can't be kept there."""
    folder = process_folder("kernels")
    reason_there = why_unwritable(folder)
    if reason_there is not None:
        raise UnavailableError(
            f"expected room for compiled kernels in {cache} or {folder}, got: {reason}; {reason_there}: set "
            "WARP_CACHE_PATH or TMPDIR to a folder that has room"
        )
    for place, _, names in os.walk(cache):
        (folder / Path(place).relative_to(cache)).mkdir(exist_ok=True)
        for name in names:
            (folder / Path(place, name).relative_to(cache)).symlink_to(Path(place, name))
    _LOG.warning(
        "kernels can't be kept in %s (%s), so every start compiles those that it doesn't hold: check its permissions "
        "and the disk's space, or set WARP_CACHE_PATH to a folder that can be written", cache, reason,
    )  # fmt: skip
    return folder


@contextmanager
def _without_word_of_missing_driver() -> Iterator[None]:
    """Hold standard error back, and pass on all but the line that Warp's library writes on every machine without a GPU.

    Who asks for a GPU is told by `backends.resolve_device`.
    """
    try:
        outside = os.dup(2)
    except OSError:  # closed: nothing can be written there
        yield
        return
    sys.stderr.flush()
    held = os.memfd_create("standard error")
    os.dup2(held, 2)
    try:
        yield
    finally:
        os.dup2(outside, 2)
        os.close(outside)
        with os.fdopen(held, "rb") as file:
            file.seek(0)
            lines = [line for line in file if b"NVIDIA CUDA driver" not in line]
        os.write(2, b"".join(lines))
