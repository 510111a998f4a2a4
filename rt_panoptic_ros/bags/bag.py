# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Opens a bag: finds its files, whatever they are and however whole, and gives what they hold."""

from __future__ import annotations

import re
import shutil
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path, PurePath
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import yaml
import zstandard

from rt_panoptic_ros.bags import mcap_file, sqlite_file
from rt_panoptic_ros.bags.storage import Bag
from rt_panoptic_ros.errors import InvalidInputError, first_line
from rt_panoptic_ros.files import make_folder, parse_yaml

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from rt_panoptic_ros.bags.storage import Losses, StorageFile

SCRATCH = "input-"
"""What the names of folders with copies of a bag's files begin with."""
METADATA = "metadata.yaml"
INFORMATION = "rosbag2_bagfile_information"
"""The only entry of metadata.yaml."""

_ROS1_MAGIC = b"#ROSBAG V"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_STORAGE = re.compile(r"\.(mcap|db3)(\.zstd)?$")


@contextmanager
def open_bag(path: Path, scratch: Path) -> Iterator[Bag]:
    """Open a bag: a folder, with metadata.yaml or without, or a single .mcap or .db3 file, cut off or not.

    Args:
        path: The bag.
        scratch: A folder for copies of files that can't be read where they lie; it is made if there are such.

    Raises:
        InvalidInputError: There is none, it is of ROS 1, nothing of it can be read, or it is packed in an unknown way.
    """
    bag = Bag(path)
    paths, information = _find_files(path, bag.losses) if path.is_dir() else ([path], {})
    with ExitStack() as stack:

        @cache
        def copies() -> Path:
            if not scratch.exists():
                make_folder(scratch)
                stack.callback(lambda: None if any(scratch.iterdir()) else scratch.rmdir())
            return Path(stack.enter_context(TemporaryDirectory(prefix=SCRATCH, dir=scratch)))

        if not paths:
            bag.losses.add(path.name, "there is no .mcap or .db3 file in it")
        for file in paths:
            if (opened := _open_file(file, bag, copies)) is not None:
                stack.callback(opened.close)
                bag.files.append(opened)
        if not bag.channels:
            raise InvalidInputError(
                f"expected a bag of ROS 2 (a folder, or an .mcap or .db3 file), got {path}, of which nothing can be "
                f"read: {'; '.join(bag.losses.lines()) or 'it has no topics'}: restore it from a copy, or record it "
                "again"
            )
        # After the files, of which the last knows most: `ros2 bag reindex` leaves out of metadata.yaml what they know.
        bag.add_information(information)
        found = bag.counts.total()
        if isinstance(counted := information.get("message_count"), int) and counted > found:
            bag.losses.add(METADATA, f"it counts {counted} messages, {found} are there")
        if bag.packed and (kind := bag.information.get("compression_format")) != "zstd":
            raise InvalidInputError(
                f"expected messages compressed with zstd, got {path} with {kind}: write it anew with `ros2 bag convert`"
            )
        yield bag


def _find_files(folder: Path, losses: Losses) -> tuple[list[Path], Mapping[str, Any]]:
    """Return a bag's files in the order in which they were recorded, and what metadata.yaml says."""
    files = {path.name: path for path in folder.iterdir() if path.is_file()}
    there = sorted((path for name, path in files.items() if _STORAGE.search(name)), key=_counting_order)
    if METADATA not in files:
        return there, {}
    try:
        information = parse_yaml(files[METADATA].read_text(encoding="utf-8"))[INFORMATION]
        names = dict.fromkeys(PurePath(name).name for name in information["relative_file_paths"])
    except (UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError) as error:
        reason = f"{type(error).__name__}: {first_line(error)}"
        losses.add(METADATA, f"it can't be read, and the files are taken by their names ({reason})")
        return there, {}
    listed = []
    for name in names:
        if (match := files.get(name) or files.get(f"{name}.zstd")) is None:
            losses.add(name, "it is missing")
        else:
            listed.append(match)
    if not listed:
        return there, information
    for path in there:
        if path not in listed:
            losses.add(path.name, f"it is not read, as {METADATA} doesn't list it: `ros2 bag reindex` makes that anew")
    return listed, information


def _counting_order(path: Path) -> list[str | int]:
    """Return a key that sorts drive_10 behind drive_9."""
    return [int(part) if place % 2 else part for place, part in enumerate(re.split(r"([0-9]+)", path.name))]


def _open_file(path: Path, bag: Bag, copies: Callable[[], Path]) -> StorageFile | None:
    """Open a file of any kind; None, and a loss, where it is of none.

    Raises:
        InvalidInputError: It is of ROS 1.
    """
    if _start(path).startswith(_ZSTD_MAGIC):
        path = _unpacked(path, bag.losses, copies())
    start = _start(path)
    if start.startswith(mcap_file.MAGIC):
        return mcap_file.McapFile(path, bag)
    if start == sqlite_file.MAGIC:
        return sqlite_file.SqliteFile(path, bag, copies)
    if start.startswith(_ROS1_MAGIC) or path.suffix == ".bag":
        raise InvalidInputError(f"expected a bag of ROS 2, got {path} of ROS 1: convert it with `rosbags-convert`")
    bag.losses.add(path.name, "it is neither MCAP nor SQLite" if start else "it is empty")
    return None


def _start(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(len(sqlite_file.MAGIC))


def _unpacked(path: Path, losses: Losses, folder: Path) -> Path:
    """Return a copy, unpacked as far as it goes, of a file that is compressed as a whole."""
    copy = folder / path.stem
    with path.open("rb") as packed, copy.open("wb") as file:
        try:
            shutil.copyfileobj(zstandard.ZstdDecompressor().stream_reader(packed, read_across_frames=True), file)
        except zstandard.ZstdError as error:
            losses.add(path.name, f"damaged, and unpacked as far as it goes ({first_line(error)})")
    return copy
