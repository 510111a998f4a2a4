# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Keeps the ONNX graphs made from bundles, one per content and size, in the user's cache."""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING

from rt_panoptic_ros.files import atomic_path, cache_directory, plain_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from rt_panoptic_ros.inference.onnx_layers import Dialect
    from rt_panoptic_ros.model.bundle import ModelBundle

_LOGGER = logging.getLogger(__name__)

_CPUS = Path("/sys/devices/system/cpu")
_GRAPH_VERSION = 4
"""Raised whenever the same weights give another graph, so that cached exports are made again."""


def exported_onnx(
    bundle: ModelBundle, network_size: tuple[int, int], precision: str, dialect: Dialect = "onnxruntime"
) -> bytes:
    """Return the bundle's ONNX graph for `network_size` (height, width) px, making it when the cache has none.

    The name of its file holds a key of everything the graph depends on, and the file's own digest; a file whose bytes
    do not match is made again. Where it can't be kept, the log says so. For the precisions see `onnx_graph`.

    Raises:
        InvalidInputError: The bundle's weights, or for int8 its ranges, are missing or damaged.
    """
    height, width = network_size
    ranges = bundle.load_ranges() if precision == "int8" else None
    narrow_sums = ranges is not None and not dialect.startswith("tensorrt") and adds_in_16_bits()
    parts = f"{bundle.content_key} {height}x{width} {_GRAPH_VERSION} {precision} {dialect} {json.dumps(ranges)}"
    parts += " narrow sums" * narrow_sums
    key = hashlib.sha256(parts.encode()).hexdigest()[:24]
    made = False

    def make() -> bytes:
        from rt_panoptic_ros.inference.onnx_graph import build_onnx  # imports onnx, which a cached graph needs no more

        nonlocal made
        made = True
        _LOGGER.info("making the %s ONNX graph of %s for %dx%d", precision, bundle.name, height, width)
        graph = build_onnx(
            bundle.network, bundle.input, bundle.load_weights(), network_size,
            ranges=ranges, half=precision == "float16", dialect=dialect, narrow_sums=narrow_sums,
        )  # fmt: skip
        content: bytes = graph.SerializeToString()
        return content

    graph = kept("onnx", f"{plain_name(bundle.name)}-{height}x{width}-{precision}-{key}", make)
    if not made:
        bundle.verify_weights()  # a cached graph must not outlive the weights that it was made from
    return graph


def kept(kind: str, stem: str, make: Callable[[], bytes], *, anew: bool = False) -> bytes:
    """Return what the cache has under a name, made where it has none whose bytes fit the digest in its file's name.

    Args:
        kind: The folder in the cache, and the file's suffix.
        stem: Of the file's name: it tells all that the bytes depend on.
        make: Makes them. Where they can't be kept, the log says so.
        anew: Make them again, and remove what there was.
    """
    folder = cache_directory() / kind
    cached = _read(folder, stem, kind)
    if cached is not None and not anew:
        return cached
    content = make()
    try:
        if cached is not None:
            (folder / f"{stem}-{digest(cached)}.{kind}").unlink(missing_ok=True)
        with atomic_path(folder / f"{stem}-{digest(content)}.{kind}") as temporary:
            temporary.write_bytes(content)
    except OSError as error:
        _LOGGER.warning(
            "the graph can't be kept in %s (%s), so the next start makes it again: check its permissions and the "
            "disk's space, or set XDG_CACHE_HOME to a folder that can be written", folder, error.strerror,
        )  # fmt: skip
    return content


def processor() -> str:
    """Return what tells this kind of processor from others: its name and features, or what Python knows of it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    told = dict(line.split(":", 1) for line in reversed(lines) if ":" in line)  # of the first of them
    known = {key.strip().lower(): value for key, value in told.items()}
    features = known.get("flags", known.get("features", ""))
    name = known.get("model name", known.get("cpu part", platform.processor() or platform.machine()))
    return f"{name.strip()} {digest(' '.join(sorted(features.split())).encode())}"


def physical_cores() -> int:
    """Return how many cores this process may use: one that runs two threads at a time counts once."""

    def threads_beside(cpu: int) -> str:
        try:
            return (_CPUS / f"cpu{cpu}/topology/thread_siblings_list").read_text(encoding="utf-8")
        except OSError:
            return str(cpu)

    return len({threads_beside(cpu) for cpu in os.sched_getaffinity(0)})


@functools.cache
def adds_in_16_bits() -> bool:
    """Return whether this processor adds 8-bit products by twos in 16 bits, which saturate: one of x86 without VNNI."""
    try:
        return platform.machine() == "x86_64" and "vnni" not in Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return True


def _read(folder: Path, stem: str, kind: str) -> bytes | None:
    """Return the graph of that name, if its bytes are those that were written."""
    try:
        for path in folder.glob(f"{stem}-*.{kind}"):
            content = path.read_bytes()
            if path.stem.endswith(digest(content)):
                return content
            _LOGGER.warning("the cached graph %s is damaged: making it again", path)
            path.unlink()
    except OSError as error:
        _LOGGER.warning("the cached graph can't be read or replaced (%s)", error)
    return None


def digest(content: bytes) -> str:
    """Return the digest that stands in names."""
    return hashlib.sha256(content).hexdigest()[:16]
