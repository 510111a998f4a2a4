# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Reads a bag's SQLite file (.db3) row by row, so that a damaged row costs itself."""

from __future__ import annotations

import shutil
import sqlite3
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np
import yaml
from rosbags.typesys import Stores, TypesysError, get_typestore

from rt_panoptic_ros.bags.storage import QOS, Channel, Message, Schema, StorageFile, full_type_name
from rt_panoptic_ros.errors import first_line
from rt_panoptic_ros.files import parse_yaml

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterator
    from pathlib import Path

    from rt_panoptic_ros.bags.storage import Bag

MAGIC = b"SQLite format 3\0"
JOURNALS = "-wal", "-journal"
"""What SQLite puts behind a file's name for the journals that may hold a part of it."""

_DAMAGED = (sqlite3.Error, UnicodeDecodeError, MemoryError)  # of a column's name; of a size that can't be
_ROW = np.dtype([("id", "i8"), ("channel", "i8"), ("time_ns", "i8")])


class SqliteFile(StorageFile):
    """A SQLite file. One that is cut off or damaged is read as far as it goes."""

    def __init__(self, path: Path, bag: Bag, copies: Callable[[], Path]) -> None:
        """Find the file's channels and messages.

        Args:
            path: The file.
            bag: Takes what is found.
            copies: Gives a folder for a copy of a file with a journal, as reading that changes both.
        """
        super().__init__(path.name, bag)
        self._definitions: dict[str, Schema] = {}
        self._rows = np.empty(0, _ROW)
        self._database = _open(path, copies)
        try:
            tables = {name for (name,) in self._database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            for table, note in (
                ("message_definitions", self._note_definition), ("topics", self._note_topic),
                ("metadata", self._note_metadata),
            ):  # fmt: skip
                if table in tables or table == "topics":  # rosbag2 added the others later
                    self._read_table(table, note)
            self._rows = np.fromiter(self._listed(), _ROW)
        except _DAMAGED as error:
            self._lose(f"can't be read: {first_line(error)}")
        numbers, counts = np.unique(self._rows["channel"], return_counts=True)
        bag.counts.update(dict(zip(numbers.tolist(), counts.tolist(), strict=True)))

    def messages(self, wanted: Container[int]) -> Iterator[Message]:
        """Give the messages of some channels by receive time; equal times in the order of recording."""
        for row in self._rows[np.argsort(self._rows["time_ns"], kind="stable")]:
            id_, number, time_ns = row.item()
            if number not in wanted:
                continue
            try:
                found = self._database.execute("SELECT data FROM messages WHERE id = ?", (id_,)).fetchone()
                data = found and found[0]
                problem = "" if isinstance(data, bytes) else "it holds no message"
            except _DAMAGED as error:
                problem = first_line(error)
            if problem:
                reason = f"a row is damaged and left out ({problem})"
                self._lose(reason, id_, {self._bag.channels[number].topic: 1})
            else:
                yield Message(number, time_ns, time_ns, 0, data)

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def _read_table(self, table: str, note: Callable[[dict[str, Any]], None]) -> None:
        """Note the rows of a small table, as far as they can be read; one that holds something else costs itself."""
        try:
            cursor = self._database.execute(f"SELECT * FROM {table} ORDER BY id")
            for row in cursor:
                try:
                    note(dict(zip((column for column, *_ in cursor.description), row, strict=True)))
                except (AttributeError, KeyError, TypeError, ValueError, yaml.YAMLError) as error:
                    self._lose(f"a row of its {table} can't be understood ({first_line(error)})")
        except _DAMAGED as error:
            self._lose(f"its {table} can't be read whole ({first_line(error)})")

    def _note_definition(self, row: dict[str, Any]) -> None:
        name = full_type_name(row["topic_type"])
        self._definitions[name] = Schema(name, row["encoding"], row["encoded_message_definition"].encode())

    def _note_topic(self, row: dict[str, Any]) -> None:
        name = full_type_name(row["type"])
        schema = self._definitions.get(name) or _known_schema(name)
        problem = "" if schema else f"the bag has no definition of {name}"
        texts = [row["name"], row["serialization_format"], row.get(QOS) or "", row.get("type_description_hash") or ""]
        if not all(isinstance(text, str) for text in texts):
            raise TypeError(f"{row['name']!r:.40} with an entry that is no text")
        topic, encoding, qos, type_hash = texts
        metadata = {QOS: qos} if qos else {}
        channel = Channel(topic, encoding, schema or Schema(name, "", b""), metadata, type_hash, problem)
        self._numbers[row["id"]] = self._bag.add_channel(channel)

    def _note_metadata(self, row: dict[str, Any]) -> None:
        self._bag.add_information({**parse_yaml(row["metadata"])})

    def _listed(self) -> Iterator[tuple[int, int, int]]:
        """Give all rows that can be reached: from the first to a damaged page, then those from the last one to it."""
        query = "SELECT id, topic_id, timestamp FROM messages WHERE id > ? ORDER BY id"
        last = -1
        try:
            for row in self._database.execute(query, (last,)):
                yield from self._usable(*row)
                last = row[0]
        except _DAMAGED as error:
            reason = f"cut off or damaged behind row {max(last, 0)} ({first_line(error)})"
            behind: list[tuple[int, int, int]] = []
            try:
                for row in self._database.execute(f"{query} DESC", (last,)):
                    behind.append(row)
            except _DAMAGED:
                self._lose(reason)  # from here on, and from there on backwards
            for row in reversed(behind):
                yield from self._usable(*row)

    def _usable(self, id_: int, topic: int, time_ns: int) -> Iterator[tuple[int, int, int]]:
        if topic in self._numbers and isinstance(id_, int) and isinstance(time_ns, int) and time_ns >= 0:
            yield id_, self._numbers[topic], time_ns
        else:
            self._lose("a message whose topic is listed nowhere, or time is none, is left out", id_)


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
def _known_schema(name: str) -> Schema | None:
    """Return the definition of one of ROS's own types: bags of Humble and before define none."""
    try:
        text, _ = get_typestore(Stores.ROS2_HUMBLE).generate_msgdef(name, ros_version=2)
    except (KeyError, TypesysError):
        return None
    return Schema(name, "ros2msg", text.encode())
