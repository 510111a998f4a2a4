# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The journal of a bag's run: what each frame gave, on disk as soon as it is known, so that a killed run can go on.

A file of records, each with its length and checksum. The first tells what the result depends on; those behind it are
frames. What was cut off in the middle of a record is cut off there when the journal is opened again. A power loss costs
the frames of the last seconds, which are labelled again.
"""

from __future__ import annotations

import fcntl
import json
import os
import struct
import time
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rt_panoptic_ros.errors import InvalidInputError
from rt_panoptic_ros.files import make_folder, sync

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from typing_extensions import Self

_PREFIX = struct.Struct("<QHI")  # length of the payload, the camera's number, CRC-32 of both and the payload
_FASTEST = 1  # labels shrink a hundredfold even so
_STRANGE = (AttributeError, KeyError, RecursionError, TypeError, ValueError)  # what a record of another form gives
_SYNC_PERIOD_S = 5.0
_STATE, _NOTES = "", "?"  # parts of a record beside those of the outputs: the tracker's, and what is missing


@dataclass(frozen=True, slots=True)
class FrameRecord:
    """What one frame gave."""

    checksum: int  # CRC-32 of the image's serialised message
    problem: str = ""  # why the frame was skipped
    outputs: Mapping[str, bytes | memoryview] = field(default_factory=dict)  # {output: serialised message}
    state: bytes = b""  # of the camera's tracker after this frame
    notes: str = ""  # lines: outputs that there are not, and why


class Journal:
    """An open journal, held by this process alone.

    Attributes:
        counts: Frames by camera number.
    """

    def __init__(self, path: Path, document: Mapping[str, Any], *, replace: bool = False) -> None:
        """Open the journal of a run, or begin one.

        Args:
            path: The file; its folder is made.
            document: What the result depends on, plain data.
            replace: Begin anew in place of another run's journal, as is always done where that has no frames.

        Raises:
            InvalidInputError: Another process has it open, or it has frames of another run.
        """
        make_folder(path.parent)
        self._file = path.open("a+b")  # reads anywhere, and writes at the end alone
        sync(path.parent)
        self._synced_s = time.monotonic()
        self._places: list[list[int]] = []  # of each camera's frames
        try:
            self._lock(path)
            self._continue(path, json.loads(json.dumps(document)), replace)
        except BaseException:
            self._file.close()
            raise

    @property
    def counts(self) -> list[int]:
        """How many frames of each camera there are; cameras without any may be missing at the end."""
        return [len(places) for places in self._places]

    def append(self, camera: int, record: FrameRecord) -> None:
        """Add a camera's next frame."""
        notes = {_NOTES: record.notes.encode()} if record.notes else {}
        parts = {**record.outputs, **notes, _STATE: record.state}
        sizes = {name: len(part) for name, part in parts.items()}
        head = json.dumps([record.checksum, record.problem, sizes]).encode()
        self._remember(camera, self._write(camera, b"\n".join([head, b"".join(parts.values())])))

    def frames(self, camera: int, begin: int = 0) -> Iterator[FrameRecord]:
        """Give a camera's frames in order, from number `begin`; negative ones count from the end."""
        for place in self._places[camera][begin:] if camera < len(self._places) else []:
            self._file.seek(place)
            found = self._read()
            assert found is not None, "the journal was whole when it was opened"
            try:
                record = _frame_of(found[1])
            except _STRANGE as error:
                raise self._strange(error) from None
            yield record

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def _lock(self, path: Path) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InvalidInputError(
                f"expected {path.parent} for this run alone, got it in use by another: wait for that one, or end it"
            ) from None

    def _continue(self, path: Path, document: dict[str, Any], replace: bool) -> None:
        """Find the frames of an earlier run with the same document, or begin anew."""
        self._file.seek(0)
        if (first := self._read()) is not None:
            try:
                begun = {**json.loads(first[1])}
            except _STRANGE as error:
                if not replace:
                    raise self._strange(error) from None
                begun = {}
            self._find_frames()
            if begun == document:
                return
            if self._places and not replace:
                other = [name for name in document if begun.get(name) != document[name]]
                raise InvalidInputError(
                    f"expected the arguments that {path.parent} was begun with, got other {', '.join(other)}: "
                    "give those, or begin anew with --force"
                )
        self._places = []
        self._file.truncate(0)
        self._write(0, json.dumps(document).encode())

    def _strange(self, error: Exception) -> InvalidInputError:
        return InvalidInputError(
            f"expected a journal of this program in {self._file.name}, got a whole record of another form "
            f"({type(error).__name__}): begin anew with --force"
        )

    def _find_frames(self) -> None:
        """Note where the frames lie, up to the first record that is not whole, where the file is cut off."""
        place = self._file.tell()
        while (record := self._read(content=False)) is not None:
            self._remember(record[0], place)
            place = self._file.tell()
        self._file.truncate(place)

    def _remember(self, camera: int, place: int) -> None:
        self._places += [[] for _ in range(camera + 1 - len(self._places))]
        self._places[camera].append(place)

    def _write(self, camera: int, payload: bytes) -> int:
        """Add a record and return its place."""
        packed = zlib.compress(payload, _FASTEST)
        place = self._file.seek(0, os.SEEK_END)
        self._file.write(_PREFIX.pack(len(packed), camera, _checksum(camera, packed)) + packed)
        self._file.flush()
        if time.monotonic() - self._synced_s > _SYNC_PERIOD_S:
            os.fdatasync(self._file.fileno())
            self._synced_s = time.monotonic()
        return place

    def _read(self, *, content: bool = True) -> tuple[int, bytes] | None:
        """Return (camera, payload) of the record at the file's place, None where there is no whole one."""
        prefix = self._file.read(_PREFIX.size)
        if len(prefix) < _PREFIX.size:
            return None
        length, camera, checksum = _PREFIX.unpack(prefix)
        if length > os.fstat(self._file.fileno()).st_size - self._file.tell():
            return None
        packed = self._file.read(length)
        if _checksum(camera, packed) != checksum:
            return None
        return camera, zlib.decompress(packed) if content else b""


def _frame_of(payload: bytes) -> FrameRecord:
    """Return what a record's payload says.

    Raises:
        One of _STRANGE: It is of another form.
    """
    head, _, content = payload.partition(b"\n")
    checksum, problem, sizes = json.loads(head)
    rest = memoryview(content)
    parts = {}
    for name, length in sizes.items():
        parts[name], rest = rest[:length], rest[length:]
    state, notes = bytes(parts.pop(_STATE)), bytes(parts.pop(_NOTES, b"")).decode()
    return FrameRecord(checksum, problem, parts, state, notes)


def _checksum(camera: int, packed: bytes) -> int:
    return zlib.crc32(packed, zlib.crc32(_PREFIX.pack(len(packed), camera, 0)))
