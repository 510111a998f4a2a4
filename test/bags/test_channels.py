# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Bags are read channel by channel: what can't be understood costs itself, and everything else of a bag is kept."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
import yaml
from bag_cases import (
    COMPRESSED_IMAGE,
    IMAGE,
    NODE,
    STORE,
    STRING,
    TYPES,
    Message,
    StoragePlugin,
    by_topic,
    compressed_message,
    drive,
    image_message,
    information,
    make_bag,
    make_mcap,
    picture,
    read_bag,
    read_parts,
    schema_text,
    write_information,
)
from mcap.reader import make_reader
from mcap.writer import Writer as McapWriter
from rosbags.highlevel import AnyReader

from rt_panoptic_ros.errors import InvalidInputError
from rt_panoptic_ros.frames.message_layout import class_names_text
from rt_panoptic_ros.model.class_table import load_class_table

if TYPE_CHECKING:
    from collections.abc import Callable

    from bag_cases import Label

DETECTIONS = "rt_panoptic_ros/msg/PanopticDetectionArray"
CASES = Path(__file__).resolve().parents[2] / ".." / "shared" / "cases"


def copied(path: Path) -> list[tuple[Any, ...]]:
    """Return all that a bag's messages, channels and schemas hold, but for the outputs."""
    return [
        (
            channel.topic, channel.message_encoding, schema and (schema.name, schema.encoding, schema.data),
            message.log_time, message.publish_time, message.sequence, message.data,
        )
        for schema, channel, message in read_parts(path)
        if not channel.topic.startswith(NODE)
    ]  # fmt: skip


def text_message(topic: str, text: str, time_ns: int = 5) -> Message:
    return Message(topic, STRING, bytes(STORE.serialize_cdr(TYPES[STRING](data=text), STRING)), time_ns)


@pytest.mark.parametrize("storage", ["sqlite3", "mcap"])
def test_old_type_names(label: Label, tmp_path: Path, storage: str) -> None:
    messages = drive(3)
    if storage == "sqlite3":
        source = make_bag(tmp_path / "old", messages, StoragePlugin.SQLITE3)
        with sqlite3.connect(source / "old.db3") as database:
            database.execute("UPDATE topics SET type = replace(type, '/msg/', '/')")
            database.execute("DROP TABLE message_definitions")
        text = (source / "metadata.yaml").read_text().replace("/msg/", "/")
        (source / "metadata.yaml").write_text(text)
    else:

        def add(writer: McapWriter) -> None:
            name = "sensor_msgs/Image"
            schema = writer.register_schema(name, "ros2msg", schema_text(IMAGE))
            channel = writer.register_channel("/camera/image_raw", "cdr", schema)
            for message in messages[1::2]:
                writer.add_message(channel, message.time_ns, message.data, message.time_ns)

        source = make_mcap(tmp_path / "old.mcap", messages[::2], extend=add)
    assert label(source, tmp_path / "out").frames == 3
    topics = by_topic(tmp_path / "out")  # with definitions that rosbags finds under these names
    assert len(topics["/camera/image_raw"]) == len(topics[f"{NODE}/semantic"]) == 3


def add_channel(
    name: str, encoding: str, schema_encoding: str, schema: bytes, topic: str = "/odd", data: bytes = b"\x01odd"
) -> Callable[[McapWriter], None]:
    def add(writer: McapWriter) -> None:
        number = writer.register_schema(name, schema_encoding, schema) if name else 0
        channel = writer.register_channel(topic, encoding, number, {"who": "ü"})
        time_ns = drive(1)[0].time_ns + 7
        writer.add_message(channel, time_ns, data, time_ns - 3, 9)

    return add


ODD = {
    "service event": add_channel("a/srv/Add_Event", "cdr", "ros2msg", b"int64 a\n---\nint64 sum\n"),
    "protobuf": add_channel("foxglove.Log", "protobuf", "protobuf", b"\x0a\x05"),
    "json": add_channel("Note", "json", "jsonschema", b"{}", data=b'{"a": 1}'),
    "unknown encoding": add_channel("Note", "x-own", "x-own", b"\xff\xfe"),
    "no schema": add_channel("", "json", "", b""),
    "schema without text": add_channel("a/msg/B", "cdr", "", b""),
    "same type, other definition": add_channel("my_robot_msgs/msg/Wheel", "cdr", "ros2msg", b"float32 old\n"),
    "camera's topic in json": add_channel(
        IMAGE, "json", "jsonschema", b"{}", topic="/camera/image_raw", data=b'{"height": 2}'
    ),
}


@pytest.mark.parametrize("kind", ODD)
def test_a_channel_that_cannot_be_understood_is_copied(label: Label, tmp_path: Path, kind: str) -> None:
    source = make_mcap(tmp_path / "drive.mcap", drive(3), extend=ODD[kind])
    summary = label(source, tmp_path / "out")
    assert (summary.frames, summary.skipped, summary.losses) == (3, {}, [])
    assert copied(tmp_path / "out") == copied(source)
    counts = {
        (entry["topic_metadata"]["name"], entry["topic_metadata"]["serialization_format"]): entry["message_count"]
        for entry in information(tmp_path / "out")["topics_with_message_count"]
    }
    assert counts["/wheel", "cdr"] == counts["/camera/image_raw", "cdr"] == 3


@pytest.mark.parametrize("profile", ["", "x-own"])
def test_an_mcap_without_ros_profile(label: Label, tmp_path: Path, profile: str) -> None:
    source = make_mcap(tmp_path / "drive.mcap", drive(2), profile=profile)
    assert label(source, tmp_path / "out").frames == 2
    assert len(by_topic(tmp_path / "out")["/wheel"]) == 2


def test_an_mcap_of_ros1_is_named(label: Label, tmp_path: Path) -> None:
    add = add_channel("sensor_msgs/Image", "ros1", "ros1msg", b"uint8 a\n", "/camera/image_raw")
    source = make_mcap(tmp_path / "old.mcap", [], profile="ros1", extend=add)
    with pytest.raises(InvalidInputError, match=r"a bag of ROS 2, got .*old\.mcap with messages of ROS 1: .*convert"):
        label(source, tmp_path / "out")
    (tmp_path / "old.db3").write_bytes(b"#ROSBAG V2.0\n...")
    with pytest.raises(InvalidInputError, match=r"a bag of ROS 2, got .*old\.db3 of ROS 1: convert it"):
        label(tmp_path / "old.db3", tmp_path / "out")


def test_images_of_other_kinds_are_named(label: Label, tmp_path: Path) -> None:
    add = add_channel("foxglove.CompressedImage", "protobuf", "protobuf", b"\x0a", "/camera/jpeg")
    source = make_mcap(tmp_path / "other.mcap", [], extend=add)
    with pytest.raises(
        InvalidInputError, match=r"found none \(but /camera/jpeg \(foxglove.CompressedImage in protobuf"
    ):
        label(source, tmp_path / "out")
    with pytest.raises(
        InvalidInputError, match=r"images on /camera/jpeg, got a topic of foxglove.CompressedImage in pr"
    ):
        label(source, tmp_path / "out", images=("/camera/jpeg",))
    source = make_mcap(tmp_path / "both.mcap", drive(1), extend=add)
    told = "not labelled, foxglove.CompressedImage in protobuf: /camera/jpeg"
    assert told in label(source, tmp_path / "out").format()


def test_publish_times_and_sequences_are_kept(label: Label, tmp_path: Path) -> None:
    source = make_mcap(tmp_path / "drive.mcap", drive(3), publish_delay_ns=4_000_003)
    label(source, tmp_path / "out")
    assert copied(tmp_path / "out") == copied(source)
    times = {
        (channel.topic, message.log_time): message.publish_time
        for _, channel, message in read_parts(tmp_path / "out")
        if channel.topic != f"{NODE}/class_names"
    }
    for (topic, log_ns), publish_ns in times.items():
        assert publish_ns == times["/wheel" if topic == "/wheel" else "/camera/image_raw", log_ns] == log_ns - 4_000_003


@pytest.mark.parametrize("reindexed", [False, True])
def test_attachments_and_metadata_are_kept(
    label: Label, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, reindexed: bool
) -> None:
    def add(writer: McapWriter) -> None:
        writer.add_attachment(3, 4, "calibration.yaml", "text/yaml", b"fx: 1\n")
        writer.add_attachment(0, 0, "ü", "", b"")
        writer.add_metadata("run", {"driver": "ü", "": ""})
        writer.add_metadata("rosbag2", {"serialized_metadata": "version: 8\ncustom_data:\n  vehicle: truck 7\n"})

    source = make_mcap(tmp_path / "drive.mcap", drive(2), extend=add)
    if reindexed:
        source = tmp_path
        metadata = {"relative_file_paths": ["drive.mcap"], "custom_data": None, "storage_identifier": ""}
        write_information(source, metadata)
    label(source, out := tmp_path_factory.mktemp("new") / "out")
    with (out / "out.mcap").open("rb") as stream:
        reader = make_reader(stream)
        attached = [
            (part.create_time, part.log_time, part.name, part.media_type, part.data)
            for part in reader.iter_attachments()
        ]
        records = {record.name: record.metadata for record in reader.iter_metadata()}
    assert attached == [(3, 4, "calibration.yaml", "text/yaml", b"fx: 1\n"), (0, 0, "ü", "", b"")]
    own = yaml.safe_load(records.pop("rosbag2")["serialized_metadata"])
    assert records == {"run": {"driver": "ü", "": ""}}
    assert own == information(out)
    assert own["custom_data"]["vehicle"] == "truck 7"


@pytest.mark.parametrize("storage", [StoragePlugin.MCAP, StoragePlugin.SQLITE3])
def test_custom_data_is_kept(label: Label, tmp_path: Path, storage: StoragePlugin) -> None:
    source = make_bag(tmp_path / "drive", drive(2), storage)
    values = {"custom_data": {"vehicle": "truck 7", "ü": "ß"}, "ros_distro": "jazzy"}
    write_information(source, {**information(source), **values})
    label(source, tmp_path / "out")
    made = information(tmp_path / "out")
    custom = made["custom_data"]
    assert json.loads(custom.pop("rt_panoptic_ros"))["outputs"]
    assert (custom, made["ros_distro"]) == ({"vehicle": "truck 7", "ü": "ß"}, "jazzy")
    with AnyReader([tmp_path / "out"]) as reader:
        assert reader.readers[0].storage.metadata.custom["vehicle"] == "truck 7"
    # A bag of ours labelled again keeps it too; the record of how it was made is that of the new bag.
    label(tmp_path / "out", tmp_path / "again", outputs=("instance",))
    custom = information(tmp_path / "again")["custom_data"]
    assert json.loads(custom.pop("rt_panoptic_ros"))["outputs"] == ["instance"]
    assert custom == {"vehicle": "truck 7", "ü": "ß"}


WORDS = (
    "- history: keep_last\n  depth: 7\n  reliability: best_effort\n  durability: transient_local\n  deadline:\n"
    "    sec: 1\n    nsec: 0\n  lifespan:\n    sec: 1\n    nsec: 0\n  liveliness: automatic\n"
    "  liveliness_lease_duration:\n    sec: 1\n    nsec: 0\n  avoid_ros_namespace_conventions: false\n"
)


@pytest.mark.parametrize("place", ["channel", "metadata as text", "metadata as list"])
def test_quality_of_service_in_words_becomes_what_all_versions_read(label: Label, tmp_path: Path, place: str) -> None:
    source = make_bag(tmp_path / "drive", drive(2))
    (source / "drive.mcap").unlink()
    metadata = {"offered_qos_profiles": WORDS if place == "channel" else ""}

    def add(writer: McapWriter) -> None:
        schema = writer.register_schema(STRING, "ros2msg", schema_text(STRING))
        writer.register_channel("/note", "cdr", schema, metadata)  # without a message

    make_mcap(source / "drive.mcap", drive(2), extend=add)
    made = information(source)
    qos = {"metadata as text": WORDS, "metadata as list": yaml.safe_load(WORDS)}.get(place, "")
    entry = {"topic_metadata": {"name": "/note", "type": STRING, "offered_qos_profiles": qos}, "message_count": 0}
    made["topics_with_message_count"].append(entry)
    write_information(source, made)
    summary = label(source, tmp_path / "out")
    assert summary.losses == []
    (text,) = (
        entry["topic_metadata"]["offered_qos_profiles"]
        for entry in information(tmp_path / "out")["topics_with_message_count"]
        if entry["topic_metadata"]["name"] == "/note"
    )
    (profile,) = yaml.safe_load(text)
    assert (profile["history"], profile["depth"], profile["reliability"], profile["durability"]) == (1, 7, 2, 1)


def test_quality_of_service_that_cannot_be_read_costs_itself(label: Label, tmp_path: Path) -> None:
    def add(writer: McapWriter) -> None:
        schema = writer.register_schema(STRING, "ros2msg", schema_text(STRING))
        for number, text in enumerate(("{", "- 3", "- depth: 1", "word")):
            writer.register_channel(f"/note{number}", "cdr", schema, {"offered_qos_profiles": text})

    summary = label(make_mcap(tmp_path / "drive.mcap", drive(1), extend=add), tmp_path / "out")
    assert len(summary.losses) == 4
    assert "lost: /note0: its quality of service can't be understood and is left out" in summary.format()
    assert len(read_bag(tmp_path / "out")) == 2 + 5


def outputs_of(prefix: str, names: dict[str, str] | None = None) -> list[Message]:
    """Return what a panoptic node gives for one frame."""
    names = names or {}
    labels = np.full((40, 240), 3, np.uint8)
    labels[10:30, 50:90] = 8
    ids = (labels == 8).astype(np.uint16)
    images = {
        "semantic": (labels, "mono8"), "instance": (ids, "mono16"),
        "confidence": (picture(5)[..., 0], "mono8"), "overlay": (picture(1), "rgb8"),
    }  # fmt: skip
    return [
        image_message(0, pixels, f"{prefix}/{names.get(name, name)}", encoding)
        for name, (pixels, encoding) in images.items()
    ]


@pytest.mark.parametrize("prefixes", [["/front_seg"], ["/robot1/seg"], ["/seg/front", "/seg/rear"], [""]])
def test_recorded_outputs_of_any_node_are_no_cameras(label: Label, tmp_path: Path, prefixes: list[str]) -> None:
    recorded = [message for prefix in prefixes for message in outputs_of(prefix)]
    jpeg = cv2.imencode(".jpg", picture(1))[1].tobytes()
    recorded.append(compressed_message(0, jpeg, "rgb8; jpeg compressed bgr8", f"{prefixes[0]}/overlay/compressed"))
    source = make_bag(tmp_path / "drive", [*recorded, *drive(2)])
    summary = label(source, tmp_path / "out")
    assert [(camera.topic, camera.prefix) for camera in summary.cameras] == [("/camera/image_raw", NODE)]
    assert set(summary.others) == {message.topic for message in recorded}
    assert "not labelled, named like a panoptic node's output: " in summary.format()
    assert len(copied(tmp_path / "out")) == len(recorded) + 4
    named = f"{prefixes[0]}/overlay"
    assert [camera.topic for camera in label(source, tmp_path / "named", images=(named,)).cameras] == [named]


@pytest.mark.parametrize("evidence", ["ids", "class names", "detections"])
def test_recorded_labels_of_any_name_are_no_cameras(label: Label, tmp_path: Path, evidence: str) -> None:
    semantic, instance, *_ = outputs_of("/map", {"semantic": "classes", "instance": "objects"})
    recorded = [semantic]
    if evidence == "ids":
        recorded.append(instance)
    elif evidence == "class names":
        recorded.append(text_message("/map/legend", class_names_text(load_class_table("camvid"))))
    grey = image_message(0, picture(0)[..., 0], "/grey/image_raw", "mono8")
    notes = [text_message("/note", "hello"), text_message("/json", "[1]")]

    def add(writer: McapWriter) -> None:
        if evidence == "detections":
            writer.register_channel("/objects", "cdr", writer.register_schema(DETECTIONS, "ros2msg", b"uint8 a"))

    source = make_mcap(tmp_path / "drive.mcap", [*recorded, grey, *notes], extend=add)
    summary = label(source, tmp_path / "out")
    assert [camera.topic for camera in summary.cameras] == ["/grey/image_raw"]
    images = [message.topic for message in recorded if message.kind == IMAGE]
    assert summary.others == dict.fromkeys(images, "ids, not a picture")
    # A dark first picture alone is no sign of labels.
    dark = image_message(0, np.zeros((40, 60), np.uint8), "/grey/image_raw", "mono8")
    assert len(label(make_bag(tmp_path / "dark", [dark, *notes]), tmp_path / "out_dark").cameras) == 1
    thermal = image_message(0, np.arange(2400, dtype=np.uint16).reshape(40, 60), "/thermal/image_raw", "mono16")
    assert len(label(make_bag(tmp_path / "thermal", [thermal, *notes]), tmp_path / "out_thermal").cameras) == 1


def test_topics_without_messages(label: Label, tmp_path: Path) -> None:
    def add(writer: McapWriter) -> None:
        for topic, kind in (("/rear/image_raw", IMAGE), ("/rear/jpeg", COMPRESSED_IMAGE), ("/note", STRING)):
            schema = writer.register_schema(kind, "ros2msg", schema_text(kind))
            writer.register_channel(topic, "cdr", schema)

    source = make_mcap(tmp_path / "drive.mcap", drive(2), extend=add)
    summary = label(source, tmp_path / "out")
    assert [camera.topic for camera in summary.cameras] == ["/camera/image_raw"]
    assert summary.others == dict.fromkeys(["/rear/image_raw", "/rear/jpeg"], "no images")
    with AnyReader([tmp_path / "out"]) as reader:
        assert {"/rear/image_raw", "/rear/jpeg", "/note"} <= set(reader.topics)
    summary = label(source, tmp_path / "named", images=("/rear/image_raw",), topics=())
    assert (summary.frames, [camera.topic for camera in summary.cameras]) == (0, ["/rear/image_raw"])
    assert read_bag(tmp_path / "named") == []


def test_a_broken_frame_is_told_with_its_topic(label: Label, tmp_path: Path) -> None:
    rear = [image_message(number, picture(number), "/rear/image_raw", step=number + 1) for number in range(14)]
    summary = label(make_bag(tmp_path / "drive", [*drive(1), *rear]), tmp_path / "out")
    assert sum(count for (topic, _), count in summary.skipped.items() if topic == "/rear/image_raw") == 14
    said = summary.format()
    assert said.count("skipped 1 frames: ") == 10
    assert said.count("(on /rear/image_raw)") == 10
    assert "skipped 4 frames for 4 more reasons" in said


@pytest.mark.skipif(not CASES.is_dir(), reason="the shared cases are not here")
@pytest.mark.parametrize(
    ("path", "frames", "losses"),
    [
        ("bag_type_without_msg/crystal_types", 3, 0),
        ("bag_service_event/service_event.mcap", 4, 0),
        ("bag_mixed_encodings/json_mixed.mcap", 4, 0),
        ("bag_mixed_encodings/protobuf_mixed.mcap", 4, 0),
        ("bag_mixed_encodings/no_profile.mcap", 4, 0),
        ("bag_truncated/truncated.mcap", 5, 1),
        ("bag_truncated/cut_reindexed", 5, 1),
        ("bag_publish_time/publish_time.mcap", 4, 0),
        ("bag_attachments/attachments.mcap", 4, 0),
        ("bag_custom_data/custom_data", 8, 0),
        ("bag_own_outputs/own_outputs.mcap", 4, 0),
    ],
)
def test_the_shared_cases(label: Label, tmp_path: Path, path: str, frames: int, losses: int) -> None:
    summary = label(CASES / path, tmp_path / "out")
    assert (summary.frames, summary.skipped, len(summary.losses)) == (frames, {}, losses)
