# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""What bags consist of, whatever files hold them, and the record of what of them can't be read."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import zstandard

from rt_panoptic_ros.errors import first_line, one_line

if TYPE_CHECKING:
    from collections.abc import Container, Iterator, Mapping
    from pathlib import Path

    from mcap import records as mcap_records

CDR = "cdr"
"""ROS 2's encoding of messages."""
QOS = "offered_qos_profiles"
"""Under what name rosbag2 keeps a topic's quality of service."""
TYPE_HASH = "topic_type_hash"
"""Under what name a channel of MCAP has its type's hash."""


@dataclass(frozen=True, slots=True)
class Schema:
    """The definition of a message type."""

    name: str
    encoding: str  # such as ros2msg; empty where there is no text
    data: bytes


@dataclass(frozen=True, slots=True)
class Channel:
    """A topic's messages of one type; equal ones are one."""

    topic: str
    encoding: str  # of the messages, such as cdr
    schema: Schema | None
    metadata: Mapping[str, str] = field(compare=False)  # the channel's own, with its quality of service
    type_hash: str = field(default="", compare=False)
    problem: str = ""  # why it can't be copied

    @property
    def type_name(self) -> str:
        """The messages' type; ROS 2's with the /msg/ that some bags leave out."""
        name = self.schema.name if self.schema else ""
        return full_type_name(name) if self.encoding == CDR else name


class Message(NamedTuple):
    """A recorded message."""

    channel: int  # its place in the list of channels
    time_ns: int  # of receiving
    publish_ns: int
    sequence: int
    data: bytes


class Losses:
    """What of a bag can't be read; what is met several times, as a bag is read several times, is told once."""

    def __init__(self) -> None:
        """Begin with nothing lost."""
        self._met: dict[tuple[str, str, object], Mapping[str, int]] = {}

    def add(self, name: str, reason: str, place: object = None, messages: Mapping[str, int] | None = None) -> None:
        """Remember a loss.

        Args:
            name: Of the file, or the topic.
            reason: What is wrong.
            place: Where; the same reason at several places is one line.
            messages: {topic: how many are lost}, as far as known.
        """
        self._met[name, reason, place] = messages or {}

    def lines(self) -> list[str]:
        """Return what was lost, a line for each kind."""
        kinds: dict[tuple[str, str], list[Mapping[str, int]]] = {}
        for (name, reason, _), messages in self._met.items():
            kinds.setdefault((name, reason), []).append(messages)
        lines = []
        for (name, reason), places in kinds.items():
            several = f", {len(places)} times" if len(places) > 1 else ""
            counts = sum(map(Counter, places), Counter[str]())
            topics = ", ".join(f"{count} on {topic}" for topic, count in sorted(counts.items()))
            lines.append(one_line(f"{name}: {reason}{several}" + (f": messages lost are {topics}" if topics else "")))
        return lines


@dataclass(slots=True)
class Bag:
    """An open bag: what its files say, each of which adds to it when it is opened."""

    path: Path  # its folder or file
    channels: list[Channel] = field(default_factory=list)  # equal ones of several files are one
    counts: Counter[int] = field(default_factory=Counter)  # {place in `channels`: messages}, as far as the files say
    records: list[mcap_records.Metadata] = field(default_factory=list)  # but rosbag2's own
    information: dict[str, Any] = field(default_factory=dict)  # of the whole, as in metadata.yaml
    losses: Losses = field(default_factory=Losses)
    files: list[StorageFile] = field(default_factory=list)  # in the order in which they were recorded

    def add_channel(self, channel: Channel) -> int:
        """Return a channel's place among the bag's, at the end if it is new."""
        if channel not in self.channels:
            self.channels.append(channel)
        return self.channels.index(channel)

    def add_information(self, part: Mapping[str, Any]) -> None:
        """Add what is known of the whole, in place of what was but where it is empty."""
        self.information.update({name: value for name, value in part.items() if value})

    @property
    def packed(self) -> bool:
        """Whether each message is compressed by itself."""
        return str(self.information.get("compression_mode") or "").lower() == "message"

    def messages(self, wanted: Container[int]) -> Iterator[Message]:
        """Give the messages of some channels, file by file, each by receive time."""
        packed = self.packed
        for message in (message for file in self.files for message in file.messages(wanted)):
            if not packed:
                yield message
                continue
            try:
                data = zstandard.ZstdDecompressor().decompressobj().decompress(message.data)
            except zstandard.ZstdError as error:
                reason = f"a message can't be decompressed and is left out ({first_line(error)})"
                self.losses.add(self.path.name, reason, message[:4], {self.channels[message.channel].topic: 1})
            else:
                yield message._replace(data=data)

    def attachments(self) -> Iterator[mcap_records.Attachment]:
        """Give the attached files."""
        for file in self.files:
            yield from file.attachments()


class StorageFile(ABC):
    """An open file of a bag."""

    def __init__(self, name: str, bag: Bag) -> None:
        """Begin with nothing found; a kind of file adds to `bag` what it finds."""
        self._name, self._bag = name, bag
        self._numbers: dict[int, int] = {}  # {a channel's id in this file: its place in the bag}

    @abstractmethod
    def messages(self, wanted: Container[int]) -> Iterator[Message]:
        """Give the messages of some channels by receive time; equal times in the order of recording."""

    def attachments(self) -> Iterator[mcap_records.Attachment]:
        """Give the attached files, which not all kinds have."""
        return iter(())

    @abstractmethod
    def close(self) -> None:
        """Close the file."""

    def _lose(self, reason: str, place: object = None, messages: Mapping[str, int] | None = None) -> None:
        self._bag.losses.add(self._name, reason, place, messages)


def full_type_name(name: str) -> str:
    """Return a message type's name with the /msg/ that bags of ROS 2 Crystal and converters leave out."""
    return re.sub(r"^([^/]+)/([^/]+)$", r"\1/msg/\2", name)
