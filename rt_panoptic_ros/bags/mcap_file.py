"""Reads an MCAP file by walking from record to record, so that neither its index nor its end is needed."""

from __future__ import annotations

import heapq
import io
import os
import struct
import zlib
from array import array
from collections import Counter
from typing import TYPE_CHECKING, Any

import lz4.frame
import numpy as np
import yaml
import zstandard
from mcap import records as mcap_records
from mcap.data_stream import ReadDataStream
from mcap.exceptions import EndOfFile
from mcap.opcode import Opcode

from rt_panoptic_ros.bags.storage import TYPE_HASH, Attachment, Channel, Message, Schema, place_of
from rt_panoptic_ros.errors import first_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from collections.abc import Set as AbstractSet
    from pathlib import Path

    from rt_panoptic_ros.bags.storage import Losses

MAGIC = b"\x89MCAP0\r\n"
ROSBAG2 = "rosbag2"
"""The metadata record in which rosbag2 keeps what stands in metadata.yaml too."""
SERIALIZED = "serialized_metadata"
"""That record's entry."""

_RECORD = struct.Struct("<BQ")  # opcode, length of what follows
_CHUNK = struct.Struct(
    "<QQQII"
)  # first and last time, size and CRC-32 of the records, length of the compression's name
_MESSAGE = struct.Struct("<HIQQ")  # channel, sequence, receive and publish time
_INDEX = struct.Struct("<HI")  # channel, bytes of entries
_INDEX_ENTRY = 16  # bytes
_FOOTER = struct.Struct("<BQQQI8s")  # opcode, length, place of the summary, of its offsets, its CRC-32, magic
_UNREADABLE = (EndOfFile, OverflowError, struct.error, ValueError, zstandard.ZstdError, RuntimeError)  # the last: lz4


class McapFile:
    """An MCAP file; see `StorageFile`. One that is cut off or damaged is read as far as it goes."""

    def __init__(self, path: Path, losses: Losses) -> None:
        """Find the file's channels and where its messages lie.

        Args:
            path: The file.
            losses: Told of what can't be read, now and whenever messages are read.
        """
        self.channels: list[Channel] = []
        self.counts: Counter[int] = Counter()
        self.records: list[tuple[str, dict[str, str]]] = []
        self.information: Mapping[str, Any] = {}
        self._name, self._losses = path.name, losses
        self._file = path.open("rb")
        self._size = os.fstat(self._file.fileno()).st_size
        self._schemas: dict[int, Schema] = {}
        self._numbers: dict[int, int] = {}  # {a channel's id: its place in `channels`}
        # Of chunks, and of messages outside of any: their (first) receive time and place in the file.
        self._times, self._places = array("Q"), array("Q")
        self._indexes: dict[int, Counter[int]] = {}  # {a chunk's place: messages by channel id}
        self._loose: Counter[int] = Counter()  # messages outside of chunks, by channel id
        self._attached: list[int] = []
        self._walk()
        self._learn()

    def messages(self, wanted: AbstractSet[int]) -> Iterator[Message]:
        """Give the messages of some channels by receive time; equal times in the file's order."""
        waiting: list[tuple[int, int, int, Message]] = []
        for part in np.argsort(np.asarray(self._times), kind="stable").tolist():
            time_ns, place = self._times[part], self._places[part]
            index = self._indexes.get(place)
            if index is not None and not any(self._numbers.get(channel) in wanted for channel in index):
                continue
            while waiting and waiting[0][0] < time_ns:
                yield heapq.heappop(waiting)[-1]
            for number, message in enumerate(self._messages_at(place, wanted)):
                heapq.heappush(waiting, (message.time_ns, place, number, message))
        while waiting:
            yield heapq.heappop(waiting)[-1]

    def attachments(self) -> Iterator[Attachment]:
        """Give the attached files."""
        for place in self._attached:
            _, payload = self._record(place)
            try:
                found = mcap_records.Attachment.read(ReadDataStream(io.BytesIO(payload)))
                if (checksum := int.from_bytes(payload[-4:], "little")) and zlib.crc32(payload[:-4]) != checksum:
                    raise ValueError("its checksum is another")
            except _UNREADABLE as error:
                self._losses.add(self._name, f"an attachment is damaged and left out ({first_line(error)})", place)
            else:
                yield Attachment(found.log_time, found.create_time, found.name, found.media_type, found.data)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _walk(self) -> None:
        """Note what records there are, from the first to the footer."""
        place: int | None = len(MAGIC)
        while place is not None:
            opcode, end = self._head(place)
            if opcode == Opcode.FOOTER:
                return
            whole = opcode > 0 and end <= self._size
            if whole or opcode == Opcode.CHUNK:  # a chunk that is cut off has whole messages
                try:
                    self._note(opcode, place, end)
                except _UNREADABLE as error:
                    if whole:
                        self._losses.add(self._name, f"a damaged record is left out ({first_line(error)})", place)
            if whole:
                place = end
                continue
            if self._indexes:
                next(reversed(self._indexes.values())).clear()  # what tells of the last chunk may be cut off
            behind = self._resume(place)
            reason = f"cut off or damaged: read up to byte {place} of {self._size}"
            if behind is not None:
                reason = f"damaged: bytes {place} to {behind} are left out"
            self._losses.add(self._name, reason)
            place = behind

    def _head(self, place: int) -> tuple[int, int]:
        """Return the opcode and the end of the record at `place`; opcode 0, which none has, where there is none."""
        self._file.seek(place)
        head = self._file.read(_RECORD.size)
        if len(head) < _RECORD.size:
            return 0, place
        opcode, length = _RECORD.unpack(head)
        return opcode, place + _RECORD.size + length

    def _record(self, place: int) -> tuple[int, bytes]:
        """Return the opcode and the content of the record at `place`."""
        opcode, end = self._head(place)
        return opcode, self._file.read(end - place - _RECORD.size)

    def _note(self, opcode: int, place: int, end: int) -> None:
        if opcode == Opcode.CHUNK:
            first_ns, *_ = _CHUNK.unpack(self._file.read(_CHUNK.size))
            self._indexes[place] = Counter()
            self._add_part(first_ns, place)
        elif opcode == Opcode.MESSAGE_INDEX and self._indexes:
            channel, _ = _INDEX.unpack(self._file.read(_INDEX.size))
            entries = (end - place - _RECORD.size - _INDEX.size) // _INDEX_ENTRY
            next(reversed(self._indexes.values()))[channel] += entries
        elif opcode == Opcode.MESSAGE:
            channel, _, time_ns, _ = _MESSAGE.unpack(self._file.read(_MESSAGE.size))
            self._loose[channel] += 1
            self._add_part(time_ns, place)
        elif opcode in (Opcode.SCHEMA, Opcode.CHANNEL):
            self._define(opcode, self._record(place)[1])
        elif opcode == Opcode.ATTACHMENT:
            self._attached.append(place)
        elif opcode == Opcode.METADATA:
            self._note_metadata(self._record(place)[1])

    def _add_part(self, time_ns: int, place: int) -> None:
        self._times.append(time_ns)
        self._places.append(place)

    def _note_metadata(self, payload: bytes) -> None:
        found = mcap_records.Metadata.read(ReadDataStream(io.BytesIO(payload)))
        if found.name != ROSBAG2:
            self.records.append((found.name, found.metadata))
            return
        try:
            information = yaml.safe_load(found.metadata.get(SERIALIZED, ""))
        except yaml.YAMLError as error:
            raise ValueError(f"rosbag2's own metadata: {first_line(error)}") from error
        if isinstance(information, dict):
            self.information = information

    def _define(self, opcode: int, payload: bytes) -> None:
        """Note a schema or a channel."""
        stream = ReadDataStream(io.BytesIO(payload))
        if opcode == Opcode.SCHEMA:
            schema = mcap_records.Schema.read(stream)
            self._schemas[schema.id] = Schema(schema.name, schema.encoding, schema.data)
            return
        found = mcap_records.Channel.read(stream)
        channel = Channel(
            found.topic,
            found.message_encoding,
            self._schemas.get(found.schema_id),
            found.metadata,
            found.metadata.get(TYPE_HASH, ""),
        )
        if found.id not in self._numbers:
            self._numbers[found.id] = place_of(channel, self.channels)

    def _learn(self) -> None:
        """Open the chunks whose channels are defined nowhere else, or of which no index tells, and count messages."""
        for place, index in self._indexes.items():
            if index and self._numbers.keys() >= index.keys():
                continue
            counted: Counter[int] = Counter()
            for opcode, payload in self._chunk_records(place):
                if opcode == Opcode.MESSAGE and len(payload) >= _MESSAGE.size:
                    counted[_MESSAGE.unpack_from(payload)[0]] += 1
                elif opcode in (Opcode.SCHEMA, Opcode.CHANNEL):
                    try:
                        self._define(opcode, bytes(payload))
                    except _UNREADABLE as error:
                        self._losses.add(self._name, f"a damaged definition is left out ({first_line(error)})", place)
            if not index:
                index.update(counted)
        for channel, count in sum(self._indexes.values(), self._loose).items():
            if channel in self._numbers:
                self.counts[self._numbers[channel]] += count
            else:
                self._losses.add(self._name, f"{count} messages of a channel that is defined nowhere", channel)

    def _resume(self, place: int) -> int | None:
        """Return where records go on behind a damaged place, by the summary at the file's end; None without one."""
        self._file.seek(max(0, self._size - _FOOTER.size))
        tail = self._file.read()
        if len(tail) < _FOOTER.size:
            return None
        opcode, length, summary, _, _, magic = _FOOTER.unpack(tail)
        if (opcode, length, magic) != (Opcode.FOOTER, 20, MAGIC) or not place < summary < self._size:
            return None
        places: list[int] = [summary]
        at = places[0]
        while True:
            opcode, end = self._head(at)
            if opcode in (0, Opcode.FOOTER) or end > self._size:
                return min(entry for entry in places if entry > place)
            if opcode == Opcode.CHUNK_INDEX:
                places.append(int.from_bytes(self._record(at)[1][16:24], "little"))
            at = end

    def _messages_at(self, place: int, wanted: AbstractSet[int]) -> Iterator[Message]:
        """Give the messages of some channels in the chunk at `place`, or the one that lies there."""
        chunk = place in self._indexes
        for opcode, payload in self._chunk_records(place) if chunk else [self._record(place)]:
            if opcode == Opcode.MESSAGE and len(payload) >= _MESSAGE.size:
                channel, sequence, time_ns, publish_ns = _MESSAGE.unpack_from(payload)
                number = self._numbers.get(channel)
                if number is not None and number in wanted:
                    yield Message(number, time_ns, publish_ns, sequence, bytes(payload[_MESSAGE.size :]))

    def _chunk_records(self, place: int) -> Iterator[tuple[int, memoryview]]:
        """Give (opcode, content) of a chunk's records, as far as it is there."""
        try:
            content, whole = self._chunk_content(place)
        except _UNREADABLE as error:
            topics = {id_: self.channels[number].topic for id_, number in self._numbers.items()}
            lost = [(topics.get(id_, "an unknown topic"), count) for id_, count in self._indexes[place].items()]
            self._losses.add(self._name, f"a chunk is damaged and left out ({first_line(error)})", place, lost)
            return
        at = 0
        while at + _RECORD.size <= len(content):
            opcode, length = _RECORD.unpack_from(content, at)
            end = at + _RECORD.size + length
            if opcode == 0 or end > len(content):
                break
            yield opcode, content[at + _RECORD.size : end]
            at = end
        if whole and at < len(content):
            self._losses.add(self._name, f"a chunk is damaged: what is behind byte {at} of it is left out", place)

    def _chunk_content(self, place: int) -> tuple[memoryview, bool]:
        """Return a chunk's records, and whether they are all there.

        Raises:
            One of _UNREADABLE: It is damaged.
        """
        _, end = self._head(place)
        _, _, size, checksum, name_length = _CHUNK.unpack(self._file.read(_CHUNK.size))
        compression = self._file.read(min(name_length, self._size)).decode()
        packed_size = int.from_bytes(self._file.read(8), "little")
        if self._file.tell() + packed_size > end:
            raise ValueError("its lengths disagree")
        packed = self._file.read(min(packed_size, self._size))  # a damaged length is no size to make room for
        if compression == "zstd":
            content = zstandard.ZstdDecompressor().decompressobj().decompress(packed)
        elif compression == "lz4":
            content = lz4.frame.LZ4FrameDecompressor().decompress(packed)
        elif compression:
            raise ValueError(f"expected lz4, zstd or no compression, got '{compression}'")
        else:
            content = packed
        whole = len(packed) == packed_size
        if whole and (len(content) != size or (checksum and zlib.crc32(content) != checksum)):
            raise ValueError("its size or checksum is another")
        return memoryview(content), whole
