# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Reading YAML files, and writing files so that a reader never sees half of one."""

from __future__ import annotations

import atexit
import errno
import fcntl
import functools
import hashlib
import logging
import os
import re
import shutil
import stat
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import cv2
import yaml

from rt_panoptic_ros.errors import InvalidInputError, UnavailableError
from rt_panoptic_ros.progress import report

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np


_LOG = logging.getLogger(__name__)
_ROOM_BYTES = 16 << 20
"""What a process should find room for in a cache: for all kernels many times over."""
_OTHERS = "other users may write there, and what is in it is run: have it belong to this one alone (chmod 700)"
MOST_TEXT_BYTES = 1 << 20
"""Of a card, a class table, a label map, a recipe, ranges: a hundred times what the package's own have."""
_MOST_CHARACTERS = 16 << 20  # of a YAML document whose aliases are written out
_PART = ".part-"  # in the names of files that are being written
_WAIT_PERIOD_S = 0.1


def parse_yaml(text: str) -> Any:
    """Return what YAML says; LibYAML, where PyYAML has it, takes an eighth of the time: some 0.1 s of a model's start.

    Raises:
        yaml.YAMLError: It is not YAML, or deeper or larger than any file of this package's kinds.
    """
    try:
        document = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        characters = _characters(document, {})
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        # PyYAML's own, of what looks like a number or a date (0x_, 2026-13-01), or is deep
        raise yaml.YAMLError(f"a value that can't be ({type(error).__name__}: {error})") from None
    if characters > _MOST_CHARACTERS:
        raise yaml.YAMLError("aliases that name each other too often, or themselves")
    return document


def _characters(value: Any, known: dict[int, int]) -> int:
    """Return about how long a value is as text, in which what aliases name stands as often as they name it."""
    if not isinstance(value, dict | list | tuple | set):
        return len(value) if isinstance(value, str | bytes) else 1
    if id(value) not in known:
        known[id(value)] = _MOST_CHARACTERS  # met again before it is known: it holds itself
        parts = (*value, *value.values()) if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(_characters(part, known) for part in parts)
    return known[id(value)]


@contextmanager
def open_regular(path: Path, kind: str) -> Iterator[BinaryIO]:
    """Open a regular file to be read, and nothing whose opening or reading may never end, as a pipe's or a device's.

    Raises:
        InvalidInputError: It is something else; `kind` is what it should be, for the message.
        OSError: It can't be opened.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        found = "a folder" if stat.S_ISDIR(mode) else "a pipe" if stat.S_ISFIFO(mode) else "a device"
        raise InvalidInputError(f"expected {kind} in a regular file, got {path}, which is {found}: check the path")
    with os.fdopen(descriptor, "rb") as file:
        yield file


def read_regular(path: Path, kind: str, most_bytes: int) -> bytes:
    """Return what is in a file that a user named, if it is a regular one of at most `most_bytes`.

    Raises:
        InvalidInputError: It is something else, or larger; `kind` is what it should be, for the message.
        OSError: It can't be read.
    """
    with open_regular(path, kind) as file:
        size = os.fstat(file.fileno()).st_size
        content = b""
        # Memory for its size alone, not for all that it may have; by its content in the end, as a size may grow.
        while max(size, len(content)) <= most_bytes and (more := file.read(max(size + 1 - len(content), 1 << 16))):
            content += more
    if max(size, len(content)) > most_bytes:
        raise InvalidInputError(f"expected {kind} of at most {most_bytes:,} bytes, got {path}, which is larger")
    return content


def read_yaml(path: Path, kind: str) -> Any:
    """Return what is in a YAML file; `kind` is what it should be, for the message, such as "a recipe".

    Raises:
        InvalidInputError: It is not YAML, no regular file, or larger than `MOST_TEXT_BYTES`.
        OSError: It can't be read.
    """
    try:
        return parse_yaml(read_regular(path, kind, MOST_TEXT_BYTES).decode("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"expected {kind} as YAML in {path}, got {' '.join(str(error).split())}") from None


@contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Give a temporary path beside `target`; on success it is renamed to `target`, else removed.

    When this returns, `target` is there even if the power fails now; until then it is what it was before. What killed
    processes left in the folder is removed.
    """
    make_folder(target.parent)
    _remove_leftovers(target.parent)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name[:32]}{_PART}", suffix=target.suffix)
    temporary = Path(name)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)  # as long as this process lives
        yield temporary
        sync(temporary)
        temporary.chmod(0o644)
        temporary.replace(target)
        sync(target.parent)
    finally:
        temporary.unlink(missing_ok=True)
        os.close(handle)


@functools.cache  # once for each folder: one may hold many files
def _remove_leftovers(folder: Path) -> None:
    for path in folder.glob(f".*{_PART}*"):
        with suppress(FileNotFoundError), path.open("rb") as file:  # its writer was quicker
            if _try_lock(file.fileno()):
                path.unlink()


def sync(path: Path) -> None:
    """Have a file's content, or the names in a folder, outlast a power loss."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno != errno.EINVAL or not path.is_dir():  # some network file systems have it for files alone
            raise
    finally:
        os.close(handle)


def make_folder(folder: Path) -> None:
    """Make a folder, and those above it that are missing, so that they outlast a power loss."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for path in missing:
        sync(path.parent)


@contextmanager
def file_lock(path: Path, waiting: str) -> Iterator[None]:
    """Hold the lock that a file stands for, among processes; the kernel frees a killed one's.

    Args:
        path: The file; its folder is made.
        waiting: What `progress` tells, and the log, while another process holds it.

    Raises:
        OSError: The file can't be made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if not _try_lock(handle):
            _LOG.info("%s", waiting)
            while not _try_lock(handle):
                report(waiting)
                time.sleep(_WAIT_PERIOD_S)
        yield
    finally:
        os.close(handle)


def _try_lock(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def output_path(target: Path) -> Iterator[Path]:
    """Give a temporary path as `atomic_path` does, for a file that the user asked for.

    Raises:
        UnavailableError: The file can't be written, such as on a full disk; what was at `target` is intact.
    """
    try:
        with atomic_path(target) as temporary:
            yield temporary
    except OSError as error:
        raise UnavailableError(
            f"expected to write {target}, got {error.strerror}: check the disk's space and permissions"
        ) from None


def write_image(path: Path, image: np.ndarray, options: Sequence[int] = ()) -> None:
    """Encode an image by the path's suffix and write it so that no reader sees half of it.

    Args:
        path: The file; its folder is made.
        image: (H, W) or, in OpenCV's BGR order, (H, W, 3).
        options: OpenCV's encoding options.

    Raises:
        UnavailableError: The file can't be written.
    """
    encoded, content = cv2.imencode(path.suffix, image, list(options))
    assert encoded, f"OpenCV can't encode {image.dtype} {image.shape} as {path.suffix}"
    with output_path(path) as temporary:
        temporary.write_bytes(content.tobytes())


@contextmanager
def literal_name(path: Path) -> Iterator[str]:
    """Give text by which OpenCV opens exactly this file, for as long as it may be opened.

    OpenCV takes text as UTF-8, whatever the locale, and % for the pattern of a sequence's names.

    Raises:
        OSError: A file of a name that it would take for another can't be opened.
    """
    place, rest = path.absolute(), ""
    if _is_literal(place.name):
        place, rest = place.parent, f"/{place.name}"
    if _is_literal(str(place)):
        yield f"{place}{rest}"
        return
    descriptor = os.open(place, os.O_RDONLY)
    try:
        yield f"/proc/self/fd/{descriptor}{rest}"
    finally:
        os.close(descriptor)


def _is_literal(name: str) -> bool:
    return "%" not in name and os.fsencode(name) == name.encode("utf-8", "replace")


def plain_name(name: str) -> str:
    """Return a name as part of a file's own, whatever it holds and the locale is."""
    return re.sub(r"[^\w.-]", "_", name, flags=re.ASCII)[:64]


def file_sha256(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file's bytes.

    Raises:
        InvalidInputError: It is no regular file.
        OSError: It can't be read.
    """
    with open_regular(path, "content") as file:
        digest = hashlib.sha256()
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def user_cache() -> Path:
    """Return the user's cache folder: `$XDG_CACHE_HOME`, by default ~/.cache.

    For a user without a home folder it is one of this process, and a warning says so.

    Raises:
        UnavailableError: Not even a temporary folder can be written.
    """
    return Path(os.environ.get("XDG_CACHE_HOME") or _default_cache())


@functools.cache
def _default_cache() -> Path:
    try:
        return Path.home() / ".cache"
    except RuntimeError:
        _LOG.warning(
            "this user has no home folder for caches, so every start makes graphs, engines and kernels again: set "
            "XDG_CACHE_HOME to a folder that can be written, or HOME"
        )
        return process_folder("cache")


def cache_directory() -> Path:
    """Return this package's folder in `user_cache`, or where others could write there one of this process."""
    folder = user_cache() / "rt_panoptic_ros"
    return folder if is_private(folder) else _instead_of(folder)


def is_private(folder: Path) -> bool:
    """Make a cache's folder for this user alone; return whether nobody but root can have written what is in it."""
    with suppress(OSError):  # then nothing is there to be believed
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.stat()
        return found.st_uid in (os.geteuid(), 0) and not found.st_mode & stat.S_IWOTH
    return True


@functools.cache
def _instead_of(folder: Path) -> Path:
    _LOG.warning("the cache %s is not used, as %s: every start makes graphs and engines again", folder, _OTHERS)
    return process_folder("own-cache")


def why_unwritable(folder: Path) -> str | None:
    """Return what hinders files of some megabytes in `folder`, which is made where it is missing; None for nothing."""
    if not is_private(folder):
        return _OTHERS
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            os.posix_fallocate(file.fileno(), 0, _ROOM_BYTES)
    except OSError as error:
        return error.strerror
    return None


def process_folder(name: str) -> Path:
    """Return a folder by this name that is removed when the process ends, for what no cache can keep.

    Raises:
        UnavailableError: No temporary folder can be written.
    """
    folder = _process_folder() / name
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


@functools.cache
def _process_folder() -> Path:
    try:
        folder = tempfile.mkdtemp(prefix="rt_panoptic_ros-")
    except OSError as error:
        raise UnavailableError(
            f"expected a temporary folder, got {error.strerror}: set TMPDIR to a folder that can be written"
        ) from None
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)
