# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Writes the new bag: what is copied, and behind each image what it gave, in one pass over the old bag."""

from __future__ import annotations

import hashlib
import json
import shutil
import zlib
from collections import Counter
from dataclasses import replace
from typing import IO, TYPE_CHECKING, Any

import yaml
from mcap.writer import CompressionType
from mcap.writer import Writer as McapWriter

from rt_panoptic_ros.bags.bag import INFORMATION, METADATA
from rt_panoptic_ros.bags.mcap_file import ROSBAG2, SERIALIZED
from rt_panoptic_ros.bags.messages import latched_message, output_channel, qos_text
from rt_panoptic_ros.bags.storage import QOS, TYPE_HASH
from rt_panoptic_ros.errors import InvalidInputError
from rt_panoptic_ros.files import parse_yaml, sync

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from rt_panoptic_ros.bags.journal import Journal
    from rt_panoptic_ros.bags.options import BagOptions
    from rt_panoptic_ros.bags.storage import Bag, Channel, Schema
    from rt_panoptic_ros.bags.topics import BagPlan

    Report = Callable[[str, int, int], None]
    """Called with (what is done, how many of it are done, how many there are)."""

_ORIGIN = "rt_panoptic_ros"  # of the entry in the bag's custom data
_VERSION = 8  # of metadata.yaml: the last that Humble can read too
_REPORT_EVERY = 100  # messages


def write_bag(
    folder: Path,
    bag: Bag,
    plan: BagPlan,
    journal: Journal,
    options: BagOptions,
    document: Mapping[str, Any],
    report: Report,
) -> tuple[Counter[tuple[str, str]], Counter[tuple[str, str]]]:
    """Write the new bag as `folder`; return how many frames were skipped, and lack outputs, by (topic, reason).

    Raises:
        InvalidInputError: The old bag's images are not those that were labelled.
    """
    records = [journal.frames(number) for number in range(len(plan.cameras))]
    wanted = {*plan.copied, *plan.labelled}
    total = sum(bag.counts[number] for number in wanted)
    skipped, missing = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    custom = bag.information.get("custom_data")
    custom = dict(custom) if isinstance(custom, dict) else {}
    custom[_ORIGIN] = json.dumps({"digest": _digest(document), **document})
    changed = InvalidInputError(
        f"expected the images of {bag.path} as they were when they were labelled, got others: begin anew with --force"
    )
    folder.mkdir(parents=True)
    path = folder / f"{folder.name}.mcap"
    with path.open("xb") as file:
        writer = _Writer(file, compressed=options.compressed)
        told = _topic_information(bag)
        copies = {number: writer.add_channel(_copied(bag, bag.channels[number], told)) for number in plan.copied}
        outputs = {key: writer.add_channel(output_channel(topic, key[1])) for key, topic in plan.output_topics.items()}
        for done, message in enumerate(bag.messages(wanted)):
            times = message.time_ns, message.publish_ns
            for camera_topic, name in outputs if done == 0 else ():
                if not camera_topic:
                    writer.add_message(outputs["", name], latched_message(name, options.model.classes), *times)
            if (copy := copies.get(message.channel)) is not None:
                writer.add_message(copy, message.data, *times, message.sequence)
            if (camera := plan.labelled.get(message.channel)) is not None:
                record = next(records[camera], None)
                if record is None or record.checksum != zlib.crc32(message.data):
                    raise changed
                topic = plan.cameras[camera].topic
                skipped.update([(topic, record.problem)] if record.problem else [])
                missing.update((topic, note) for note in record.notes.splitlines())
                for name, content in record.outputs.items():
                    writer.add_message(outputs[topic, name], content, *times)
            if done % _REPORT_EVERY == 0:
                report("writing", done, total)
        if any(next(frames, None) for frames in records):
            raise changed
        for part in bag.attachments():
            writer.mcap.add_attachment(part.create_time, part.log_time, part.name, part.media_type, part.data)
        for record in bag.records:
            writer.mcap.add_metadata(record.name, record.metadata)
        information = writer.information(path.name, custom, str(bag.information.get("ros_distro") or ""))
        writer.mcap.add_metadata(ROSBAG2, {SERIALIZED: _yaml(information)})
        writer.mcap.finish()
    (folder / METADATA).write_text(_yaml({INFORMATION: information}), encoding="utf-8")
    report("writing", total, total)
    return skipped, missing


def publish_bag(folder: Path, out: Path) -> None:
    """Move a whole bag to its place, where it stays even if the power fails now.

    Args:
        folder: The bag.
        out: Where it goes; a bag that is there is deleted.
    """
    for path in (*folder.iterdir(), folder):
        sync(path)
    if out.exists():
        replaced = folder.with_name(f"{folder.name}.replaced")
        shutil.rmtree(replaced, ignore_errors=True)
        out.rename(replaced)
    folder.rename(out)
    sync(out.parent)


def is_made_of(out: Path, document: Mapping[str, Any]) -> bool:
    """Return whether `out` is the bag that a run with `document` makes, which is whole wherever it exists."""
    try:
        metadata = parse_yaml((out / METADATA).read_text(encoding="utf-8"))
        custom = metadata[INFORMATION]["custom_data"]
        return bool(json.loads(custom[_ORIGIN])["digest"] == _digest(document))
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError):
        return False  # something else


def _digest(document: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


class _Writer:
    """Writes channels and messages to an MCAP file, the same bytes for the same calls, and tells of them."""

    def __init__(self, file: IO[bytes], *, compressed: bool) -> None:
        self.mcap = McapWriter(file, compression=CompressionType.ZSTD if compressed else CompressionType.NONE)
        self.mcap.start(profile="ros2", library=_ORIGIN)
        self._schemas: dict[Schema | None, int] = {None: 0}
        self._channels: dict[int, Channel] = {}
        self._counts: Counter[int] = Counter()
        self._times_ns: tuple[int, int] | None = None  # the first and the last

    def add_channel(self, channel: Channel) -> int:
        """Add a channel and return its id."""
        if (schema := channel.schema) is not None and schema not in self._schemas:
            self._schemas[schema] = self.mcap.register_schema(schema.name, schema.encoding, schema.data)
        metadata = {**channel.metadata, **({TYPE_HASH: channel.type_hash} if channel.type_hash else {})}
        id_: int = self.mcap.register_channel(channel.topic, channel.encoding, self._schemas[schema], metadata)
        self._channels[id_] = channel
        return id_

    def add_message(
        self, channel: int, data: bytes | memoryview, time_ns: int, publish_ns: int, sequence: int = 0
    ) -> None:
        """Add a message to the channel with an id."""
        self.mcap.add_message(channel, time_ns, data, publish_ns, sequence)
        self._counts[channel] += 1
        first, last = self._times_ns or (time_ns, time_ns)
        self._times_ns = min(first, time_ns), max(last, time_ns)

    def information(self, file_name: str, custom: Mapping[str, str], distribution: str) -> dict[str, Any]:
        """Return what metadata.yaml says of what was written."""
        first, last = self._times_ns or (0, 0)
        span: dict[str, Any] = {
            "starting_time": {"nanoseconds_since_epoch": first},
            "duration": {"nanoseconds": last - first},
            "message_count": self._counts.total(),
        }
        topics = [
            {
                "topic_metadata": {
                    "name": channel.topic,
                    "type": channel.type_name,
                    "serialization_format": channel.encoding,
                    QOS: channel.metadata.get(QOS, ""),
                    "type_description_hash": channel.type_hash,
                },
                "message_count": self._counts[id_],
            }
            for id_, channel in self._channels.items()
        ]
        return {
            "version": _VERSION,
            "storage_identifier": "mcap",
            "relative_file_paths": [file_name],
            **span,
            "topics_with_message_count": topics,
            "compression_format": "",
            "compression_mode": "",
            "files": [{"path": file_name, **span}],
            "custom_data": custom,
            "ros_distro": distribution,
        }


def _copied(bag: Bag, channel: Channel, told: Mapping[str, Mapping[str, Any]]) -> Channel:
    """Return a channel as the new bag has it, with what metadata.yaml alone may know of it."""
    elsewhere = told.get(channel.topic, {})
    profiles = channel.metadata.get(QOS) or elsewhere.get(QOS)
    metadata = dict(channel.metadata)
    try:
        text = qos_text(profiles)
    except InvalidInputError as error:
        bag.losses.add(channel.topic, f"its quality of service can't be understood and is left out ({error})")
        text = ""
    if text or QOS in metadata:
        metadata[QOS] = text
    type_hash = channel.type_hash or str(elsewhere.get("type_description_hash") or "")
    schema = channel.schema and replace(channel.schema, name=channel.type_name)
    return replace(channel, schema=schema, metadata=metadata, type_hash=type_hash)


def _topic_information(bag: Bag) -> dict[str, Mapping[str, Any]]:
    """Return {topic: what metadata.yaml says of it}."""
    entries = bag.information.get("topics_with_message_count")
    try:
        return {entry["topic_metadata"]["name"]: entry["topic_metadata"] for entry in entries or ()}
    except (KeyError, TypeError) as error:
        bag.losses.add(METADATA, f"what it says of the topics can't be read ({type(error).__name__}: {error})")
        return {}


def _yaml(document: Mapping[str, Any]) -> str:
    return yaml.safe_dump(document, allow_unicode=True, sort_keys=False)
