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

from rt_panoptic_ros.errors import UnavailableError, first_line
from rt_panoptic_ros.files import process_folder, user_cache, why_unwritable
from rt_panoptic_ros.progress import report

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import ModuleType

_LOG = logging.getLogger(__name__)

wp.config.log_level = wp.LOG_WARNING  # its banner would go to standard output


@functools.cache
def start_warp() -> None:
    """Start Warp, with its cache where it can be written: else in a folder of this process, and a warning says so.

    Raises:
        UnavailableError: Not even a temporary folder can be written.
    """
    with _without_word_of_missing_driver():
        try:
            if wp.config.kernel_cache_dir is None and "WARP_CACHE_PATH" not in os.environ:
                # Warp's own default, but for a user without a home folder, for whom it makes one named ~.
                wp.config.kernel_cache_dir = str(user_cache() / "warp")
            wp.init()
        except (OSError, UnavailableError) as error:
            _leave_cache(first_line(error))
            wp.init()


def load_kernels(modules: Sequence[ModuleType], device: wp.Device | str) -> None:
    """Load all kernels of some modules, from the cache or compiled; `progress.observing` hears of each module.

    Raises:
        UnavailableError: They can be kept neither in the cache nor in a temporary folder.
    """
    start_warp()
    device = wp.get_device(device)
    for number, module in enumerate(modules, 1):
        report(f"loading kernels, which a first start compiles: part {number} of {len(modules)}")
        try:
            _load(module, device)
        except Exception:  # Warp's are of many kinds, and a disk without room shows in any
            reason = why_unwritable(Path(wp.config.kernel_cache_dir))
            if reason is None:
                raise
            _leave_cache(reason)
            wp.get_module(module.__name__).mark_modified()  # else it repeats how it failed
            _load(module, device)


def _load(module: ModuleType, device: wp.Device) -> None:
    wp.load_module(module, device, block_dim=1 if device.is_cpu else 256)  # as launches without one have it


def _leave_cache(reason: str) -> None:
    """Say why the cache doesn't serve, and have kernels compiled into a folder of this process."""
    folder = process_folder("kernels")
    if wp.config.kernel_cache_dir is not None and Path(wp.config.kernel_cache_dir).is_relative_to(folder):
        raise UnavailableError(
            f"expected room for compiled kernels in {folder}, got: {reason}: free space there, or set WARP_CACHE_PATH "
            "to a folder that has it"
        )
    _LOG.warning(
        "compiled kernels can't be kept in %s (%s), so every start compiles them: check its permissions and the "
        "disk's space, or set WARP_CACHE_PATH to a folder that can be written",
        wp.config.kernel_cache_dir or os.environ.get("WARP_CACHE_PATH") or "a cache", reason,
    )  # fmt: skip
    wp.config.kernel_cache_dir = str(folder)


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
