"""Reads a bag's SQLite file (.db3) row by row, so that a damaged row costs itself."""

from __future__ import annotations

import shutil
import sqlite3
from array import array
from collections import Counter
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np
import yaml
from rosbags.typesys import Stores, TypesysError, get_typestore

from rt_panoptic_ros.bags.storage import QOS, Channel, Message, Schema, full_type_name, place_of
from rt_panoptic_ros.errors import first_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from collections.abc import Set as AbstractSet
    from pathlib import Path

    from rosbags.typesys.store import Typestore

    from rt_panoptic_ros.bags.storage import Attachment, Losses

MAGIC = b"SQLite format 3\0"
JOURNALS = "-wal", "-journal"
"""What SQLite puts behind a file's name for the journals that may hold a part of it."""


class SqliteFile:
    """A SQLite file; see `StorageFile`. One that is cut off or damaged is read as far as it goes."""

    def __init__(self, path: Path, losses: Losses, copies: Callable[[], Path]) -> None:
        """Find the file's channels and messages.

        Args:
            path: The file.
            losses: Told of what can't be read, now and whenever messages are read.
            copies: Gives a folder for a copy of a file with a journal, as reading that changes both.
        """
        self.channels: list[Channel] = []
        self.counts: Counter[int] = Counter()
        self.records: list[tuple[str, dict[str, str]]] = []
        self.information: Mapping[str, Any] = {}
        self._name, self._losses = path.name, losses
        self._numbers: dict[int, int] = {}  # {a topic's id: its place in `channels`}
        self._ids, self._topics, self._times = array("q"), array("q"), array("q")
        self._database = _open(path, copies)
        try:
            self._read_channels()
            self._list_messages()
        except sqlite3.Error as error:
            self._losses.add(self._name, f"can't be read: {first_line(error)}")

    def messages(self, wanted: AbstractSet[int]) -> Iterator[Message]:
        """Give the messages of some channels by receive time; equal times in the order of recording."""
        for row in np.argsort(np.asarray(self._times), kind="stable").tolist():
            number = self._numbers.get(self._topics[row])
            if number is None or number not in wanted:
                continue
            id_, time_ns = self._ids[row], self._times[row]
            try:
                found = self._database.execute("SELECT data FROM messages WHERE id = ?", (id_,)).fetchone()
                data = found and found[0]
                problem = "" if isinstance(data, bytes) else "it holds no message"
            except sqlite3.DatabaseError as error:
                problem = first_line(error)
            if problem:
                reason = f"a row is damaged and left out ({problem})"
                self._losses.add(self._name, reason, id_, [(self.channels[number].topic, 1)])
            else:
                yield Message(number, time_ns, time_ns, 0, data)

    def attachments(self) -> Iterator[Attachment]:
        """Give nothing: these files have no attachments."""
        return iter(())

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def _read_channels(self) -> None:
        tables = {name for (name,) in self._database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        definitions: dict[str, Schema] = {}
        if "message_definitions" in tables:
            for row in self._rows("message_definitions"):
                with self._row("message_definitions"):
                    name = full_type_name(row["topic_type"])
                    definitions[name] = Schema(name, row["encoding"], row["encoded_message_definition"].encode())
        for row in self._rows("topics"):
            with self._row("topics"):
                name = full_type_name(row["type"])
                schema = definitions.get(name) or _known_schema(name)
                qos = row.get(QOS)
                channel = Channel(
                    row["name"],
                    row["serialization_format"],
                    schema or Schema(name, "", b""),
                    {QOS: qos} if qos else {},
                    row.get("type_description_hash") or "",
                    "" if schema else f"the bag has no definition of {name}",
                )
                self._numbers[row["id"]] = place_of(channel, self.channels)
        if "metadata" in tables:
            for row in self._rows("metadata"):
                with self._row("metadata"):
                    self.information = {**yaml.safe_load(row["metadata"])}

    def _rows(self, table: str) -> Iterator[dict[str, Any]]:
        """Give the rows of a small table, {column: value}, as far as they can be read."""
        try:
            cursor = self._database.execute(f"SELECT * FROM {table} ORDER BY id")
            for row in cursor:
                yield dict(zip((column for column, *_ in cursor.description), row, strict=True))
        except sqlite3.DatabaseError as error:
            self._losses.add(self._name, f"its {table} can't be read whole ({first_line(error)})")

    @contextmanager
    def _row(self, table: str) -> Iterator[None]:
        """Let a row that holds something else than it should cost itself."""
        try:
            yield
        except (AttributeError, KeyError, TypeError, ValueError, yaml.YAMLError) as error:
            self._losses.add(self._name, f"a row of its {table} can't be understood ({first_line(error)})")

    def _list_messages(self) -> None:
        """Note all rows that can be reached: from the first to a damaged page, then from the last one back to it."""
        last = -1
        try:
            for row in self._listed("id", last):
                self._add(*row)
                last = row[0]
        except sqlite3.DatabaseError as error:
            reason = f"cut off or damaged behind row {max(last, 0)} ({first_line(error)})"
            behind: list[tuple[int, int, int]] = []
            try:
                for row in self._listed("id DESC", last):
                    behind.append(row)
            except sqlite3.DatabaseError:
                self._losses.add(self._name, reason)  # from here on, and from there on backwards
            for row in reversed(behind):
                self._add(*row)

    def _listed(self, order: str, behind: int) -> Iterator[tuple[int, int, int]]:
        query = f"SELECT id, topic_id, timestamp FROM messages WHERE id > ? ORDER BY {order}"
        return iter(self._database.execute(query, (behind,)))

    def _add(self, id_: int, topic: int, time_ns: int) -> None:
        if topic not in self._numbers or not isinstance(time_ns, int) or time_ns < 0:
            self._losses.add(self._name, "a message whose topic is listed nowhere, or time is none, is left out", id_)
            return
        self._ids.append(id_)
        self._topics.append(topic)
        self._times.append(time_ns)
        self.counts[self._numbers[topic]] += 1


def _open(path: Path, copies: Callable[[], Path]) -> sqlite3.Connection:
    """Open a database without ever changing it, nor what lies beside it."""
    journals = [beside for name in JOURNALS if (beside := path.with_name(path.name + name)).is_file()]
    if any(beside.stat().st_size for beside in journals):
        for file in (path, *journals):
            shutil.copyfile(file, copies() / file.name)
        database = sqlite3.connect(copies() / path.name)
    else:
        database = sqlite3.connect(f"file:{quote(str(path.absolute()))}?mode=ro&immutable=1", uri=True)
    database.execute("PRAGMA writable_schema = ON")  # else SQLite refuses to open a file that is cut off
    return database


@cache
def _known_types() -> Typestore:
    """Return ROS's own types: bags of Humble and before define none."""
    return get_typestore(Stores.ROS2_HUMBLE)


def _known_schema(name: str) -> Schema | None:
    try:
        text, _ = _known_types().generate_msgdef(name, ros_version=2)
    except (KeyError, TypesysError):
        return None
    return Schema(name, "ros2msg", text.encode())
