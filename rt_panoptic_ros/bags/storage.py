"""What bags consist of, whatever file holds them, and the record of what of them can't be read."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from collections.abc import Set as AbstractSet

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


class Attachment(NamedTuple):
    """A file in a bag."""

    log_ns: int
    create_ns: int
    name: str
    media_type: str
    data: bytes


class StorageFile(Protocol):
    """An open file of a bag.

    Attributes:
        channels: In the file's order.
        counts: {place in `channels`: messages}, as far as the file says.
        records: MCAP's metadata records, (name, entries).
        information: What the recorder wrote as metadata.yaml too; empty where it did not.
    """

    channels: list[Channel]
    counts: Counter[int]
    records: list[tuple[str, dict[str, str]]]
    information: Mapping[str, Any]

    def messages(self, wanted: AbstractSet[int]) -> Iterator[Message]:
        """Give the messages of some channels by receive time."""

    def attachments(self) -> Iterator[Attachment]:
        """Give the attached files."""

    def close(self) -> None:
        """Close the file."""


class Losses:
    """What of a bag can't be read; what is met several times, as a bag is read several times, is told once."""

    def __init__(self) -> None:
        """Begin with nothing lost."""
        self._met: dict[tuple[str, str, object], Sequence[tuple[str, int]]] = {}

    def add(self, name: str, reason: str, place: object = None, messages: Sequence[tuple[str, int]] = ()) -> None:
        """Remember a loss.

        Args:
            name: Of the file, or the topic.
            reason: What is wrong.
            place: Where; the same reason at several places is one line.
            messages: (topic, how many are lost), as far as known.
        """
        self._met[name, reason, place] = messages

    def lines(self) -> list[str]:
        """Return what was lost, a line for each kind."""
        times: Counter[tuple[str, str]] = Counter()
        lost: dict[tuple[str, str], Counter[str]] = {}
        for (name, reason, _), messages in self._met.items():
            times[name, reason] += 1
            counts = lost.setdefault((name, reason), Counter())
            for topic, count in messages:
                counts[topic] += count
        lines = []
        for (name, reason), counts in lost.items():
            several = f", {times[name, reason]} times" if times[name, reason] > 1 else ""
            topics = ", ".join(f"{count} on {topic}" for topic, count in sorted(counts.items()))
            lines.append(f"{name}: {reason}{several}" + (f": messages lost are {topics}" if topics else ""))
        return lines


def place_of(channel: Channel, channels: list[Channel]) -> int:
    """Return a channel's place among others, at the end if it is new."""
    if channel not in channels:
        channels.append(channel)
    return channels.index(channel)


def full_type_name(name: str) -> str:
    """Return a message type's name with the /msg/ that bags of ROS 2 Crystal and converters leave out."""
    return re.sub(r"^([^/]+)/([^/]+)$", r"\1/msg/\2", name)
