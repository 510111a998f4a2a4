# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Reads an MCAP file by walking from record to record, so that neither its index nor its end is needed."""

from __future__ import annotations

import heapq
import io
import os
import struct
import zlib
from array import array
from collections import Counter
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Any

import lz4.frame
import numpy as np
import yaml
import zstandard
from mcap import records as mcap_records
from mcap.data_stream import ReadDataStream
from mcap.exceptions import EndOfFile
from mcap.opcode import Opcode

from rt_panoptic_ros.bags.storage import TYPE_HASH, Channel, Message, Schema, StorageFile
from rt_panoptic_ros.errors import first_line
from rt_panoptic_ros.files import parse_yaml

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterator
    from pathlib import Path

    from rt_panoptic_ros.bags.storage import Bag

MAGIC = b"\x89MCAP0\r\n"
ROSBAG2 = "rosbag2"
"""The metadata record in which rosbag2 keeps what stands in metadata.yaml too."""
SERIALIZED = "serialized_metadata"
"""That record's entry."""

# The library's record classes read what is rare; what comes with every message or chunk, and may be cut off, is here.
_RECORD = struct.Struct("<BQ")  # opcode, length of what follows
_CHUNK = struct.Struct("<QQQII")  # first, last time; size, CRC-32 of the records; length of the compression's name
_MESSAGE = struct.Struct("<HIQQ")  # channel, sequence, receive and publish time
_INDEX = struct.Struct("<HI")  # channel, bytes of entries
_INDEX_ENTRY = 16  # bytes
_FOOTER = struct.Struct("<BQQQI8s")  # opcode, length, place of the summary, of its offsets, its CRC-32, magic
_UNREADABLE = (EndOfFile, OverflowError, struct.error, ValueError, zstandard.ZstdError, RuntimeError)  # the last: lz4


class McapFile(StorageFile):
    """An MCAP file. One that is cut off or damaged is read as far as it goes."""

    def __init__(self, path: Path, bag: Bag) -> None:
        """Find the file's channels and where its messages lie."""
        super().__init__(path.name, bag)
        self._file = path.open("rb")
        self._size = os.fstat(self._file.fileno()).st_size
        self._schemas: dict[int, Schema] = {}
        # Of chunks, and of messages outside of any: their (first) receive time and place in the file.
        self._times, self._places = array("Q"), array("Q")
        self._indexes: dict[int, Counter[int]] = {}  # {a chunk's place: messages by channel id}
        self._loose: Counter[int] = Counter()  # messages outside of chunks, by channel id
        self._attached: list[int] = []
        self._walk()
        self._count_messages()

    def messages(self, wanted: Container[int]) -> Iterator[Message]:
        """Give the messages of some channels by receive time; equal times in the file's order."""
        waiting: list[tuple[int, int, int, Message]] = []
        for part in np.argsort(np.asarray(self._times), kind="stable").tolist():
            time_ns, place = self._times[part], self._places[part]
            index = self._indexes.get(place)
            if index is not None and not any(self._numbers.get(channel, -1) in wanted for channel in index):
                continue
            while waiting and waiting[0][0] < time_ns:
                yield heapq.heappop(waiting)[-1]
            for number, message in enumerate(self._messages_at(place, wanted)):
                heapq.heappush(waiting, (message.time_ns, place, number, message))
        while waiting:
            yield heapq.heappop(waiting)[-1]

    def attachments(self) -> Iterator[mcap_records.Attachment]:
        """Give the attached files."""
        for place in self._attached:
            content = self._content(place)
            try:
                found = _parsed(mcap_records.Attachment, content)
                if (checksum := int.from_bytes(content[-4:], "little")) and zlib.crc32(content[:-4]) != checksum:
                    raise ValueError("its checksum is another")
            except _UNREADABLE as error:
                self._lose(f"an attachment is damaged and left out ({first_line(error)})", place)
            else:
                yield found

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _walk(self) -> None:
        """Note what records there are, from the first to the footer."""
        place: int | None = len(MAGIC)
        while place is not None:
            for opcode, begin, end in _records(self._file, place, self._size):
                if opcode == Opcode.FOOTER:
                    return
                try:
                    self._note(opcode, begin, end)
                except _UNREADABLE as error:
                    self._lose(f"a damaged record is left out ({first_line(error)})", begin)
                place = end
            self._file.seek(place)
            if self._file.read(1) == bytes([Opcode.CHUNK]):  # one that is cut off has whole messages
                with suppress(*_UNREADABLE):
                    self._note(Opcode.CHUNK, place, self._size)
            if self._indexes:
                next(reversed(self._indexes.values())).clear()  # what tells of the last chunk may be cut off
            behind = self._place_behind(place)
            self._lose(
                f"cut off or damaged: read up to byte {place} of {self._size}"
                if behind is None
                else f"damaged: bytes {place} to {behind} are left out"
            )
            place = behind

    def _place_behind(self, place: int) -> int | None:
        """Return where records go on behind a damaged place, by the summary at the file's end; None without one."""
        self._file.seek(max(0, self._size - _FOOTER.size))
        tail = self._file.read()
        if len(tail) < _FOOTER.size:
            return None
        opcode, length, summary, _, _, magic = _FOOTER.unpack(tail)
        if (opcode, length, magic) != (Opcode.FOOTER, 20, MAGIC) or not place < summary < self._size:
            return None
        places: list[int] = [summary]
        for opcode, begin, _ in _records(self._file, summary, self._size):
            if opcode == Opcode.CHUNK_INDEX:
                places.append(int.from_bytes(self._content(begin)[16:24], "little"))
        return min(entry for entry in places if entry > place)

    def _content(self, place: int) -> bytes:
        """Return what the record at `place` holds."""
        self._file.seek(place)
        _, length = _RECORD.unpack(self._file.read(_RECORD.size))
        return self._file.read(length)

    def _note(self, opcode: int, place: int, end: int) -> None:
        """Note a record of the file.

        Raises:
            One of _UNREADABLE: It is damaged.
        """
        if opcode in (Opcode.SCHEMA, Opcode.CHANNEL):
            self._define(opcode, self._content(place))
        elif opcode == Opcode.ATTACHMENT:
            self._attached.append(place)
        elif opcode == Opcode.METADATA:
            self._note_metadata(_parsed(mcap_records.Metadata, self._content(place)))
        self._file.seek(place + _RECORD.size)
        if opcode == Opcode.CHUNK:
            time_ns, *_ = _CHUNK.unpack(self._file.read(_CHUNK.size))
            self._add_part(time_ns, place)
            self._indexes[place] = Counter()
        elif opcode == Opcode.MESSAGE:
            channel, _, time_ns, _ = _MESSAGE.unpack(self._file.read(_MESSAGE.size))
            self._add_part(time_ns, place)
            self._loose[channel] += 1
        elif opcode == Opcode.MESSAGE_INDEX and self._indexes:
            channel, _ = _INDEX.unpack(self._file.read(_INDEX.size))
            entries = (end - place - _RECORD.size - _INDEX.size) // _INDEX_ENTRY
            next(reversed(self._indexes.values()))[channel] += entries

    def _add_part(self, time_ns: int, place: int) -> None:
        self._times.append(time_ns)
        self._places.append(place)

    def _note_metadata(self, found: mcap_records.Metadata) -> None:
        if found.name != ROSBAG2:
            self._bag.records.append(found)
            return
        try:
            information = parse_yaml(found.metadata.get(SERIALIZED, ""))
        except yaml.YAMLError as error:
            raise ValueError(f"rosbag2's own metadata: {first_line(error)}") from error
        if isinstance(information, dict):
            self._bag.add_information(information)

    def _define(self, opcode: int, content: bytes) -> None:
        """Note a schema or a channel."""
        if opcode == Opcode.SCHEMA:
            schema = _parsed(mcap_records.Schema, content)
            self._schemas[schema.id] = Schema(schema.name, schema.encoding, schema.data)
            return
        found = _parsed(mcap_records.Channel, content)
        if found.id not in self._numbers:
            schema, type_hash = self._schemas.get(found.schema_id), found.metadata.get(TYPE_HASH, "")
            channel = Channel(found.topic, found.message_encoding, schema, found.metadata, type_hash)
            self._numbers[found.id] = self._bag.add_channel(channel)

    def _count_messages(self) -> None:
        """Count messages; chunks are opened whose channels are defined nowhere else, or of which no index tells."""
        for place, index in self._indexes.items():
            if index and self._numbers.keys() >= index.keys():
                continue
            counted: Counter[int] = Counter()
            for opcode, content in self._chunk_records(place):
                if opcode == Opcode.MESSAGE and len(content) >= _MESSAGE.size:
                    counted[_MESSAGE.unpack_from(content)[0]] += 1
                elif opcode in (Opcode.SCHEMA, Opcode.CHANNEL):
                    try:
                        self._define(opcode, bytes(content))
                    except _UNREADABLE as error:
                        self._lose(f"a damaged definition is left out ({first_line(error)})", place)
            if not index:
                index.update(counted)
        for channel, count in sum(self._indexes.values(), self._loose).items():
            if channel in self._numbers:
                self._bag.counts[self._numbers[channel]] += count
            else:
                self._lose(f"{count} messages of a channel that is defined nowhere", channel)

    def _messages_at(self, place: int, wanted: Container[int]) -> Iterator[Message]:
        """Give the messages of some channels in the chunk at `place`, or the one that lies there."""
        loose = [(Opcode.MESSAGE, memoryview(self._content(place)))] if place not in self._indexes else None
        for opcode, content in loose or self._chunk_records(place):
            if opcode == Opcode.MESSAGE and len(content) >= _MESSAGE.size:
                channel, sequence, time_ns, publish_ns = _MESSAGE.unpack_from(content)
                if (number := self._numbers.get(channel, -1)) in wanted:
                    yield Message(number, time_ns, publish_ns, sequence, bytes(content[_MESSAGE.size :]))

    def _chunk_records(self, place: int) -> Iterator[tuple[int, memoryview]]:
        """Give (opcode, content) of a chunk's records, as far as it is there."""
        try:
            content, whole = self._chunk_content(place)
        except _UNREADABLE as error:
            lost: Counter[str] = Counter()
            for channel, count in self._indexes[place].items():
                number = self._numbers.get(channel)
                lost["an unknown topic" if number is None else self._bag.channels[number].topic] += count
            self._lose(f"a chunk is damaged and left out ({first_line(error)})", place, lost)
            return
        end = 0
        for opcode, begin, end in _records(io.BytesIO(content), 0, len(content)):
            yield opcode, memoryview(content)[begin + _RECORD.size : end]
        if whole and end < len(content):
            self._lose(f"a chunk is damaged: what is behind byte {end} of it is left out", place)

    def _chunk_content(self, place: int) -> tuple[bytes, bool]:
        """Return a chunk's records, and whether they are all there.

        Raises:
            One of _UNREADABLE: It is damaged.
        """
        self._file.seek(place)
        _, length = _RECORD.unpack(self._file.read(_RECORD.size))
        _, _, size, checksum, name_length = _CHUNK.unpack(self._file.read(_CHUNK.size))
        compression = self._file.read(min(name_length, self._size)).decode()
        packed_size = int.from_bytes(self._file.read(8), "little")
        if self._file.tell() + packed_size > place + _RECORD.size + length:
            raise ValueError("its lengths disagree")
        packed = self._file.read(min(packed_size, self._size))  # a damaged length is no size to make room for
        if compression not in _UNPACKERS:
            raise ValueError(f"expected lz4, zstd or no compression, got '{compression}'")
        content = _UNPACKERS[compression](packed)
        whole = len(packed) == packed_size
        if whole and (len(content) != size or (checksum and zlib.crc32(content) != checksum)):
            raise ValueError("its size or checksum is another")
        return content, whole


# Those that give what there is of content that is cut off.
_UNPACKERS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    "lz4": lambda packed: lz4.frame.LZ4FrameDecompressor().decompress(packed),
    "zstd": lambda packed: zstandard.ZstdDecompressor().decompressobj().decompress(packed),
}


def _records(file: IO[bytes], place: int, size: int) -> Iterator[tuple[int, int, int]]:
    """Give (opcode, place, end) of the records from `place` on, up to the first that is not whole within `size`."""
    while True:
        file.seek(place)
        head = file.read(_RECORD.size)
        if len(head) < _RECORD.size:
            return
        opcode, length = _RECORD.unpack(head)
        end = place + _RECORD.size + length
        if opcode == 0 or end > size:  # no record has opcode 0
            return
        yield opcode, place, end
        place = end


def _parsed(record: Any, content: bytes) -> Any:
    """Return the content of a record of one of the library's classes."""
    return record.read(ReadDataStream(io.BytesIO(content)))
