# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Built TensorRT engines, kept in the user's cache: each is built once, and only what is surely right is loaded.

Beside an engine of TensorRT-RTX lie the kernels that it compiled for one GPU, kept in the same way.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import stat
import time
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from rt_panoptic_ros.files import atomic_path, cache_directory, file_lock, plain_name
from rt_panoptic_ros.progress import observer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_LOG = logging.getLogger(__name__)
_FORMAT = 1  # of the sidecar
_LOG_PERIOD_S = 5.0


@dataclass(frozen=True)
class EngineIdentity:
    """All that an engine depends on; another value of any makes another engine."""

    model: str  # the bundle's name, for people
    graph_sha256: str  # of the ONNX graph, which holds weights, size and precision
    size: str  # HEIGHTxWIDTH px
    precision: str
    runtime: str  # tensorrt or tensorrt_rtx
    runtime_version: str
    gpu: str  # its name and size, or "any" where the engine is built for compute capabilities
    compute_capability: str  # such as 8.9
    flags: str  # of the build

    @property
    def stem(self) -> str:
        """The file name without suffix: readable, and a key of everything."""
        key = hashlib.sha256(json.dumps(asdict(self)).encode()).hexdigest()[:24]
        return f"{plain_name(self.model)}-{self.size}-{self.precision}-{self.runtime}-sm{self.compute_capability}-{key}"


def engine_folder() -> Path:
    """Return where the user's cache keeps engines, and the backend looks for them."""
    return cache_directory() / "engines"


def cached_engine(
    identity: EngineIdentity, build: Callable[[Callable[[float], None]], bytes], folder: Path
) -> tuple[bytes, bool]:
    """Return an engine from the cache, or built and put there; and whether it was found.

    Of several processes that want the same engine, one builds and the others wait. An engine that can't be kept (full
    disk, unwritable folder) is used all the same, and the log says so.

    Args:
        identity: The engine.
        build: Builds it; calls its argument with the share done, 0 to 1.
        folder: Of the cache.
    """
    path = folder / f"{identity.stem}.engine"
    with _lock(path) as locked:
        plan = _load(path, identity)
        if plan is not None:
            return plan, True
        begin = time.monotonic()
        plan = build(_progress_teller(identity))
        _LOG.info("built the engine %s in %.1f s", identity.stem, time.monotonic() - begin)
        if locked:
            _store(path, identity, plan)
    return plan, False


def cached_kernels(identity: EngineIdentity) -> bytes:
    """Return what `keep_kernels` kept in the user's cache; empty where there is nothing to trust."""
    return _load(_kernels_file(identity), identity) or b""


def keep_kernels(identity: EngineIdentity, kernels: bytes) -> None:
    """Keep the kernels that were compiled for an engine in the user's cache; where that fails, the log says so.

    Args:
        identity: The engine, with the GPU that they were compiled for.
        kernels: As TensorRT-RTX serialises them.
    """
    path = _kernels_file(identity)
    with _lock(path) as locked:
        if locked:
            _store(path, identity, kernels)


def _kernels_file(identity: EngineIdentity) -> Path:
    return engine_folder() / f"{identity.stem}.kernels"


def discard_engine(identity: EngineIdentity, why: str) -> None:
    """Remove an engine that turned out not to run from the user's cache."""
    path = engine_folder() / f"{identity.stem}.engine"
    _LOG.warning("removing the cached engine %s: %s", path, why)
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        _LOG.warning("it stays there (%s): set XDG_CACHE_HOME to a folder that can be written", error.strerror)


def sidecar(path: Path) -> Path:
    """Return the file that says what an engine is, or what kernels are for."""
    return path.with_suffix(".json")


def _load(path: Path, identity: EngineIdentity) -> bytes | None:
    """Return a file's bytes if it is ours and whole; otherwise say why not."""
    try:
        if not path.exists() and not sidecar(path).exists():
            return None
        reason = _distrust(path) or _distrust(sidecar(path))
        if not reason:
            document: dict[str, Any] = json.loads(sidecar(path).read_text(encoding="utf-8"))
            plan = path.read_bytes()
            if document.get("format") != _FORMAT or document.get("identity") != asdict(identity):
                reason = "it was built for something else"
            elif len(plan) != document.get("bytes"):
                reason = f"it has {len(plan)} bytes instead of {document.get('bytes')}"
            elif hashlib.sha256(plan).hexdigest() != document.get("sha256"):
                reason = "its bytes are damaged"
            else:
                return plan
    except FileNotFoundError as error:
        reason = f"{error.filename} is missing"
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        reason = f"it can't be read ({' '.join(str(error).split())[:120]})"
    _LOG.warning("not loading %s from the cache: %s; making it again", path, reason)
    return None


def _distrust(file: Path) -> str:
    """Return why others may have made a file what it is, or nothing."""
    status = file.lstat()
    if not stat.S_ISREG(status.st_mode):
        return f"{file.name} is not a regular file"
    if status.st_uid != os.geteuid():
        return f"{file.name} belongs to another user"
    return f"others may write {file.name}" if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) else ""


def _store(path: Path, identity: EngineIdentity, plan: bytes) -> None:
    document = {
        "format": _FORMAT,
        "identity": asdict(identity),
        "bytes": len(plan),
        "sha256": hashlib.sha256(plan).hexdigest(),
        "built": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }
    try:
        for file, content in ((path, plan), (sidecar(path), json.dumps(document, indent=1).encode())):
            with atomic_path(file) as temporary:
                temporary.write_bytes(content)
    except OSError as error:
        _LOG.warning(
            "%s could not be kept (%s), so the next start makes it again: check the disk's space and permissions, or "
            "set XDG_CACHE_HOME", path, error.strerror,
        )  # fmt: skip


@contextmanager
def _lock(path: Path) -> Iterator[bool]:
    """Hold the lock of an engine's file, waiting for other builders; False where the folder can't be written."""
    with ExitStack() as stack:
        try:
            stack.enter_context(
                file_lock(path.with_suffix(".lock"), "waiting for another process that builds the same engine")
            )
        except OSError as error:
            _LOG.warning(
                "engines can't be kept in %s (%s), so every start builds them: check its permissions, or set "
                "XDG_CACHE_HOME", path.parent, error.strerror,
            )  # fmt: skip
            yield False
        else:
            yield True


def _progress_teller(identity: EngineIdentity) -> Callable[[float], None]:
    tell_observer = observer()  # of this thread: the builder may call from another
    work = f"building the {identity.runtime} engine of {identity.model} at {identity.size} in {identity.precision}"
    logged_s = float("-inf")

    def tell(words: str) -> None:
        nonlocal logged_s
        tell_observer(words)
        if time.monotonic() - logged_s >= _LOG_PERIOD_S:
            logged_s = time.monotonic()
            _LOG.info("%s", words)

    tell(f"{work}, once for this GPU and version")
    return lambda share: tell(f"{work}: {100 * share:.0f} %")
