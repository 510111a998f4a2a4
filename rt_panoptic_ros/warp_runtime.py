# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Starts Warp and loads its kernels, quietly, and without a cache where none can be written; why it has no GPU.

Kernels are compiled when the package is installed (`rt-panoptic compile-kernels`), for the processor of that moment;
what is missing there, a first start compiles into the user's cache.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import json
import logging
import os
import shutil
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import warp as wp

from rt_panoptic_ros.errors import UnavailableError
from rt_panoptic_ros.files import (
    atomic_path,
    file_lock,
    file_sha256,
    is_private,
    process_folder,
    sync,
    user_cache,
    why_unwritable,
)
from rt_panoptic_ros.progress import report
from rt_panoptic_ros.resources import share_directory

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import ModuleType

_LOG = logging.getLogger(__name__)

CUDA_12_WARP = "warp-lang>=1.15,<1.18"
"""PyPI's last Warp for drivers of CUDA 12, such as JetPack 6's; the extra jetpack6 has it too."""

_SIGNS_OF_DRIVER = ("/proc/driver/nvidia/version", "/etc/nv_tegra_release", "/dev/nvhost-gpu")

_DIGESTS = "rt_panoptic_ros.json"  # in each folder of kernels: {name of a file: its SHA-256}

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


@functools.cache
def unusable_gpu() -> str:
    """Return what tells of a GPU that Warp can't use, why it can't, and what to do; empty where nothing tells of one.

    PyPI's Warp is built for one CUDA, of which each major version needs a driver of that version or newer.
    """
    start_warp()
    driver, toolkit, warp = _driver_version(), wp.get_cuda_toolkit_version(), f"Warp {wp.config.version}"
    if wp.is_cuda_available():
        return ""
    if driver is None:
        sign = next((path for path in _SIGNS_OF_DRIVER if Path(path).exists()), None)
        remedy = "install NVIDIA's driver, or start the container with --gpus all (on a Jetson --runtime nvidia)"
        return f"{sign}, but no driver library libcuda.so.1 that works: {remedy}" if sign else ""
    found = "a driver for CUDA {}.{}, ".format(*driver)
    if toolkit is None:
        return f"{found}but {warp} is built without CUDA: install PyPI's `warp-lang`"
    built = "{} for CUDA {}.{}".format(warp, *toolkit)
    if driver[0] < 12:
        return f"{found}but {built}: install a driver for CUDA 12 or newer (Jetson: JetPack 6)"
    if driver[0] < toolkit[0]:
        return (
            f"{found}but {built}: `pip install '{CUDA_12_WARP}'`, which is built for CUDA 12, or install a newer driver"
        )
    return (
        f"{found}and {built}, but no GPU that this process may use: check `nvidia-smi`, CUDA_VISIBLE_DEVICES, the "
        "permissions of /dev/nvidia* (on a Jetson, be in the groups video and render), and the container's --gpus"
    )


def _driver_version() -> tuple[int, int] | None:
    """Return the CUDA version of NVIDIA's driver, of which Warp tells only where it could start it."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    version = ctypes.c_int()
    if driver.cuDriverGetVersion(ctypes.byref(version)):
        return None
    return version.value // 1000, version.value % 1000 // 10


def load_kernels(modules: Sequence[ModuleType], device: wp.Device | str) -> None:
    """Load all kernels of some modules, from the cache or compiled; `progress.observing` hears of each module.

    Raises:
        UnavailableError: There is no room for them, neither in the cache nor in a temporary folder.
    """
    start_warp()
    device = wp.get_device(device)
    block = 1 if device.is_cpu else 256  # as in launches that don't say it
    cache = Path(wp.config.kernel_cache_dir)
    try:
        with file_lock(cache / "rt_panoptic_ros.lock", "waiting for others that load kernels"):
            for number, module in enumerate(modules, 1):
                report(f"loading kernels, which a first start compiles: part {number} of {len(modules)}")
                _remove_damaged(cache, module)
                _take_installed(cache, module)
                _keep_digests(cache, module)  # of the installed, which are no news
                begin_s = time.monotonic()
                wp.load_module(module, device, block_dim=block)
                if _keep_digests(cache, module):
                    name, took_s = module.__name__.rpartition(".")[2], time.monotonic() - begin_s
                    _LOG.info("compiled kernels in %.1f s: %s, part %d of %d", took_s, name, number, len(modules))
    except OSError as error:
        raise UnavailableError(
            f"expected to read and write compiled kernels in {cache}, got {error.strerror}: check its permissions and "
            "the disk's space, or set WARP_CACHE_PATH to a folder that can be written"
        ) from None


def _remove_damaged(cache: Path, module: ModuleType) -> None:
    """Remove a module's compiled kernels that aren't what was written: Warp would run them, or fail at every start.

    Those without a digest, as a killed process leaves them, are trusted if they are of this boot: then no power loss
    can have cost what was not synced.
    """
    now_s, up_s = time.time(), time.clock_gettime(time.CLOCK_BOOTTIME)
    for folder in cache.glob(f"wp_{module.__name__}_*"):
        digests, why = _read_digests(folder), ""
        files = _compiled(folder)
        if digests.keys() - {file.name for file in files}:
            why = "its files are not those of its digests"
        for file in files:
            if file.name not in digests:
                why = why or ("" if 0 <= now_s - file.stat().st_ctime <= up_s else f"{file.name} may be cut")
            elif file_sha256(file) != digests[file.name]:
                why = f"the bytes of {file.name} are damaged"
        if why:
            _LOG.warning("not loading kernels from %s: %s; compiling them again", folder, why)
            shutil.rmtree(folder)


def _take_installed(cache: Path, module: ModuleType) -> None:
    """Copy into the cache those of a module's kernels that came with an installation and are whole.

    Warp names them by their source's digest, and those for a CPU by its features too: what doesn't fit is never loaded.
    """
    environment = Path(sys.prefix, "share", "rt_panoptic_ros")  # has them for a checkout that runs in it
    for place in dict.fromkeys((share_directory(), environment)):
        for folder in (place / "kernels" / cache.name).glob(f"wp_{module.__name__}_*"):
            for name, digest in _read_digests(folder).items():
                kept, target = folder / name, cache / folder.name / name
                if target.exists() or not kept.is_file():
                    continue
                content = kept.read_bytes()
                if hashlib.sha256(content).hexdigest() == digest:
                    with atomic_path(target) as temporary:
                        temporary.write_bytes(content)


def _keep_digests(cache: Path, module: ModuleType) -> bool:
    """Sync a module's new kernels and write their digests beside them; return whether there were any."""
    any_new = False
    for folder in cache.glob(f"wp_{module.__name__}_*"):
        digests = _read_digests(folder)
        new = [file for file in _compiled(folder) if file.name not in digests]
        if new:
            any_new = True
            for path in (*new, folder, cache):
                sync(path)
            with atomic_path(folder / _DIGESTS) as temporary:
                digests |= {file.name: file_sha256(file) for file in new}
                temporary.write_text(json.dumps(digests), encoding="utf-8")
    return any_new


def _compiled(folder: Path) -> list[Path]:
    """Return what Warp reads of a module's folder; the source beside it is for people."""
    return [file for file in folder.iterdir() if file.suffix not in (".cpp", ".cu", ".json") and file.name[0] != "."]


def _read_digests(folder: Path) -> dict[str, str]:
    """Return {name of a file: its SHA-256}; of a damaged list what fits no folder."""
    try:
        return dict(json.loads((folder / _DIGESTS).read_text(encoding="utf-8")))
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError):
        return {_DIGESTS: ""}


def _temporary_cache(cache: Path, reason: str) -> Path:
    """Return a folder of this process that has what a cache holds and takes what can't be kept there."""
    folder = process_folder("kernels")
    reason_there = why_unwritable(folder)
    if reason_there is not None:
        raise UnavailableError(
            f"expected room for compiled kernels in {cache} or {folder}, got: {reason}; {reason_there}: set "
            "WARP_CACHE_PATH or TMPDIR to a folder that has room"
        )
    for place, _, names in os.walk(cache) if is_private(cache) else ():
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
