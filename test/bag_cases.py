# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Makes and reads bags with `rosbags` alone, for the tests of labelling them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml
from mcap.reader import make_reader
from mcap.writer import Writer as McapWriter
from rosbags.highlevel import AnyReader
from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from rt_panoptic_ros.bags.labelling import BagSummary

    Label = Callable[..., BagSummary]
    """The fixture `label`."""

NODE = "/panoptic_node"
START_NS = 1_700_000_000_000_000_000
PERIOD_NS = 100_000_000
IMAGE, COMPRESSED_IMAGE, STRING = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage", "std_msgs/msg/String"
WHEEL = "my_robot_msgs/msg/Wheel"

STORE = get_typestore(Stores.LATEST)
STORE.register(get_types_from_msg("# of the robot itself\nfloat64 speed\nstring name\n", WHEEL))
TYPES: Any = STORE.types

_SECOND = QosTime(1, 0)
SENSOR_QOS = Qos(
    QosHistory.KEEP_LAST, 7, QosReliability.BEST_EFFORT, QosDurability.VOLATILE, _SECOND, _SECOND,
    QosLiveliness.AUTOMATIC, _SECOND, False,
)  # fmt: skip


@dataclass(frozen=True)
class Message:
    """A message of a bag."""

    topic: str
    kind: str
    data: bytes
    time_ns: int


def picture(number: int, size: tuple[int, int] = (40, 240)) -> np.ndarray:
    """Return bright boxes that move over noise, (H, W, 3) uint8."""
    height, width = size
    image = np.random.default_rng(number % 7).integers(0, 90, (height, width, 3), np.uint8)
    for box in range(4):
        left = (box * width // 4 + 3 * number) % (width - 20)
        image[8 + 3 * box : 30, left : left + 20] = (60 * box, 250 - 50 * box, 200)
    return image


def header(number: int) -> Any:
    stamp_ns = START_NS + number * PERIOD_NS + 123
    stamp = TYPES["builtin_interfaces/msg/Time"](sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9)
    return TYPES["std_msgs/msg/Header"](stamp=stamp, frame_id=f"kamera/ü {number}")


def image_message(
    number: int, pixels: np.ndarray, topic: str = "/camera/image_raw", encoding: str = "rgb8", **fields: Any
) -> Message:
    """Return an image, received some milliseconds after its stamp."""
    height, width = pixels.shape[:2]
    values = {
        "height": height, "width": width, "is_bigendian": 0, "step": pixels.nbytes // height,
        "data": np.ascontiguousarray(pixels).reshape(-1).view(np.uint8), **fields,
    }  # fmt: skip
    content = STORE.serialize_cdr(TYPES[IMAGE](header=header(number), encoding=encoding, **values), IMAGE)
    return Message(topic, IMAGE, bytes(content), START_NS + number * PERIOD_NS + 5_000_000)


def compressed_message(number: int, content: bytes, kind: str, topic: str) -> Message:
    data = np.frombuffer(content, np.uint8)
    message = TYPES[COMPRESSED_IMAGE](header=header(number), format=kind, data=data)
    time_ns = START_NS + number * PERIOD_NS + 5_000_000
    return Message(topic, COMPRESSED_IMAGE, bytes(STORE.serialize_cdr(message, COMPRESSED_IMAGE)), time_ns)


def wheel_message(number: int) -> Message:
    content = STORE.serialize_cdr(TYPES[WHEEL](speed=number / 2, name="left"), WHEEL)
    return Message("/wheel", WHEEL, bytes(content), START_NS + number * PERIOD_NS)


def drive(count: int, topic: str = "/camera/image_raw") -> list[Message]:
    """Return images with what a wheel says before each."""
    return [
        part
        for number in range(count)
        for part in (wheel_message(number), image_message(number, picture(number), topic))
    ]


def make_bag(
    path: Path,
    messages: Iterable[Message],
    storage: StoragePlugin = StoragePlugin.MCAP,
    compression: CompressionMode = CompressionMode.NONE,
) -> Path:
    writer = Writer(path, version=8, storage_plugin=storage)
    writer.set_compression(compression, CompressionFormat.ZSTD)
    with writer:
        connections: dict[str, Any] = {}
        for message in messages:
            if message.topic not in connections:
                connections[message.topic] = writer.add_connection(
                    message.topic, message.kind, typestore=STORE, offered_qos_profiles=[SENSOR_QOS]
                )
            writer.write(connections[message.topic], message.time_ns, message.data)
    return path


def schema_text(kind: str) -> bytes:
    return STORE.generate_msgdef(kind, ros_version=2)[0].encode()


def make_mcap(
    path: Path,
    messages: Iterable[Message],
    *,
    profile: str = "ros2",
    publish_delay_ns: int = 0,
    extend: Callable[[McapWriter], None] = lambda _: None,
    **options: Any,
) -> Path:
    """Make an MCAP file as other recorders do; `extend` writes what no message is, and `options` are the writer's."""
    with path.open("wb") as file:
        writer = McapWriter(file, **options)
        writer.start(profile)
        channels: dict[str, int] = {}
        for sequence, message in enumerate(messages):
            if message.topic not in channels:
                schema = writer.register_schema(message.kind, "ros2msg", schema_text(message.kind))
                channels[message.topic] = writer.register_channel(message.topic, "cdr", schema)
            times = message.time_ns, message.data, message.time_ns - publish_delay_ns, sequence
            writer.add_message(channels[message.topic], *times)
        extend(writer)
        writer.finish()
    return path


def read_parts(path: Path) -> list[tuple[Any, Any, Any]]:
    """Return (schema, channel, message) of all messages of a bag's only MCAP file, as MCAP's own library reads them."""
    (file,) = path.glob("*.mcap") if path.is_dir() else [path]
    with file.open("rb") as stream:
        return list(make_reader(stream, validate_crcs=True).iter_messages())


def read_bag(path: Path) -> list[tuple[str, int, bytes, Any]]:
    """Return (topic, receive time, content, message) of all messages, by the definitions in the bag alone."""
    with AnyReader([path]) as reader:
        return [
            (entry.topic, time_ns, data, reader.deserialize(data, entry.msgtype))
            for entry, time_ns, data in reader.messages()
        ]


def by_topic(path: Path) -> dict[str, list[tuple[int, Any]]]:
    found: dict[str, list[tuple[int, Any]]] = {}
    for topic, time_ns, _, message in read_bag(path):
        found.setdefault(topic, []).append((time_ns, message))
    return found


def information(bag: Path) -> dict[str, Any]:
    """Return what a bag's metadata.yaml says."""
    document: dict[str, Any] = yaml.safe_load((bag / "metadata.yaml").read_text("utf-8"))
    return document["rosbag2_bagfile_information"]  # type: ignore[no-any-return]


def write_information(bag: Path, values: object) -> None:
    """Make a bag's metadata.yaml say `values`."""
    text = yaml.safe_dump({"rosbag2_bagfile_information": values}, allow_unicode=True)
    (bag / "metadata.yaml").write_text(text, "utf-8")


def stamp_of(message: Any) -> tuple[int, int, str]:
    stamp = message.header.stamp
    return stamp.sec, stamp.nanosec, message.header.frame_id


def pixels_of(message: Any) -> np.ndarray:
    kind = np.uint16 if message.encoding == "mono16" else np.uint8
    return message.data.view(kind).reshape(message.height, message.width, -1).squeeze(2)


def contents(folder: Path) -> dict[str, bytes]:
    """Return all that is in a folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }
