"""Writes the new bag: what is copied, and behind each image what it gave, in one pass over the old bag."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import zlib
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import yaml
from rosbags.interfaces import ConnectionExtRosbag2
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer

from rt_panoptic_ros.bags.messages import (
    CLASS_NAMES,
    OUTPUT_TYPES,
    class_names_message,
    message_store,
    output_qos,
)
from rt_panoptic_ros.bags.reading import NODE, Camera, Copied, find_cameras, find_copied, read_messages
from rt_panoptic_ros.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from rosbags.highlevel import AnyReader
    from rosbags.interfaces import Connection

    from rt_panoptic_ros.bags.journal import Journal
    from rt_panoptic_ros.bags.options import BagOptions

    Report = Callable[[str, int, int], None]
    """Called with (what is done, how many of it are done, how many there are)."""

_ORIGIN = "rt_panoptic_ros"  # of the entry in the bag's custom data
_VERSION: Literal[8] = 8  # of metadata.yaml: the last that Humble can read too
_REPORT_EVERY = 100  # messages


@dataclass(frozen=True, slots=True)
class BagPlan:
    """What goes into the new bag."""

    cameras: tuple[Camera, ...]
    copied: tuple[Copied, ...]
    output_topics: dict[tuple[str, str], str]  # {(camera's topic, output): topic}; class names have no camera's topic


def plan_bag(reader: AnyReader, options: BagOptions) -> BagPlan:
    """Return what the new bag of an old one will have.

    Raises:
        InvalidInputError: The options don't fit the bag; see `find_cameras` and `find_copied`.
    """
    cameras = find_cameras(reader, options.images)
    frames = [name for name in OUTPUT_TYPES if name in options.outputs and name != CLASS_NAMES]
    topics = {(camera.topic, name): f"{camera.prefix}/{name}" for camera in cameras for name in frames}
    if CLASS_NAMES in options.outputs:
        topics = {("", CLASS_NAMES): f"{NODE}/{CLASS_NAMES}", **topics}
    return BagPlan(tuple(cameras), tuple(find_copied(reader, options.topics, topics.values())), topics)


def write_bag(
    folder: Path,
    reader: AnyReader,
    plan: BagPlan,
    journal: Journal,
    options: BagOptions,
    document: Mapping[str, Any],
    report: Report,
) -> Counter[str]:
    """Write the new bag as `folder` and return how many frames were skipped, by reason.

    Raises:
        InvalidInputError: The old bag's images are not those that were labelled.
    """
    records = {camera.topic: journal.frames(number) for number, camera in enumerate(plan.cameras)}
    wanted = {entry.connection.topic for entry in plan.copied} | set(records)
    connections = [entry for entry in reader.connections if entry.topic in wanted]
    total = sum(entry.msgcount for entry in connections)
    skipped: Counter[str] = Counter()
    writer = Writer(folder, version=_VERSION, storage_plugin=StoragePlugin.MCAP)
    if options.compressed:
        writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
    with writer:
        writer.set_custom_data(_ORIGIN, json.dumps({"digest": _digest(document), **document}))
        copies = {
            (entry.connection.topic, entry.connection.msgtype): _add_copied(writer, entry) for entry in plan.copied
        }
        outputs = {key: _add_output(writer, topic, key[1]) for key, topic in plan.output_topics.items()}
        for done, (source, time_ns, data) in enumerate(read_messages(reader, connections)):
            if done == 0 and ("", CLASS_NAMES) in outputs:
                classes = options.model.bundle.classes
                writer.write(outputs["", CLASS_NAMES], time_ns, class_names_message(classes))
            if (copy := copies.get((source.topic, source.msgtype))) is not None:
                writer.write(copy, time_ns, data)
            if source.topic in records:
                record = next(records[source.topic], None)
                if record is None or record.checksum != zlib.crc32(data):
                    raise InvalidInputError(
                        f"expected the images of {reader.paths[0]} as they were when they were labelled, got others on "
                        f"{source.topic}: begin anew with --force"
                    )
                skipped.update([record.problem] if record.problem else [])
                for name, content in record.outputs.items():
                    writer.write(outputs[source.topic, name], time_ns, content)
            if done % _REPORT_EVERY == 0:
                report("writing", done, total)
    report("writing", total, total)
    return skipped


def publish_bag(folder: Path, out: Path) -> None:
    """Move a whole bag to its place, where it stays even if the power fails now.

    Args:
        folder: The bag.
        out: Where it goes; a bag that is there is deleted.
    """
    for path in (*folder.iterdir(), folder):
        _sync(path)
    if out.exists():
        replaced = folder.with_name(f"{folder.name}.replaced")
        shutil.rmtree(replaced, ignore_errors=True)
        out.rename(replaced)
    folder.rename(out)
    _sync(out.parent)


def is_made_of(out: Path, document: Mapping[str, Any]) -> bool:
    """Return whether `out` is the bag that a run with `document` makes, which is whole wherever it exists."""
    try:
        metadata = yaml.safe_load((out / "metadata.yaml").read_text(encoding="utf-8"))
        custom = metadata["rosbag2_bagfile_information"]["custom_data"]
        return bool(json.loads(custom[_ORIGIN])["digest"] == _digest(document))
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError):
        return False  # something else


def _digest(document: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def _add_copied(writer: Writer, entry: Copied) -> Connection:
    connection = entry.connection
    assert isinstance(connection.ext, ConnectionExtRosbag2)
    return writer.add_connection(
        connection.topic,
        connection.msgtype,
        msgdef=entry.definition,
        rihs01=entry.type_hash,
        serialization_format=connection.ext.serialization_format,
        offered_qos_profiles=connection.ext.offered_qos_profiles,
    )


def _add_output(writer: Writer, topic: str, output: str) -> Connection:
    return writer.add_connection(
        topic, OUTPUT_TYPES[output], typestore=message_store(), offered_qos_profiles=[output_qos(output)]
    )


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
