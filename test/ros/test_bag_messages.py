# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""What `rt-panoptic bag` writes is what ROS reads: bytes and hashes are those of the generated messages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import Image
from std_msgs.msg import Header, String

pytest.importorskip("rosbags", reason="bags need the package rosbags")

from rt_panoptic_ros.msg import PanopticDetectionArray

from rt_panoptic_ros.bags.messages import (
    frame_messages,
    latched_message,
    message_store,
)
from rt_panoptic_ros.frames.message_layout import decode_message
from rt_panoptic_ros.frames.outputs import BAG_OUTPUTS, LATCHED_OUTPUTS, OUTPUTS
from rt_panoptic_ros.labeller import LabelledFrame, OutputStyle
from rt_panoptic_ros.model.class_table import load_class_table
from rt_panoptic_ros.panoptic.tracking import with_ids
from rt_panoptic_ros.records import CameraImage, DetectionTable, PanopticResult
from rt_panoptic_ros.ros import conversions

CLASSES = load_class_table("camvid")


def result() -> PanopticResult:
    instance = np.zeros((48, 64), np.uint16)
    instance[3:40, 2:30] = 1
    instance[4, 40] = 2
    table = DetectionTable(
        class_ids=np.array([8, 9], np.uint8),
        scores=np.array([0.9, 0.5], np.float32),
        boxes=np.array([[1.5, 2, 30.25, 40], [0, 0, 5, 6]], np.float32),
        mask_boxes=np.array([[2, 3, 29, 39], [40, 4, 40, 4]], np.int32),
        areas=np.array([37 * 28, 1], np.uint32),
    )
    semantic = np.arange(48 * 64, dtype=np.uint32).reshape(48, 64).astype(np.uint8)
    return PanopticResult(semantic, instance, table, confidence=255 - semantic)


def header() -> Header:
    message = Header(frame_id="left camera/ü")
    message.stamp.sec, message.stamp.nanosec = 7, 123456789
    return message


@pytest.mark.parametrize("ids", [None, np.array([700, 3], np.uint16)])
def test_ros_reads_the_bytes_as_the_nodes_own_messages(ids: np.ndarray | None) -> None:
    labels = result() if ids is None else with_ids(result(), ids)
    image = CameraImage(np.zeros((48, 64, 3), np.uint8), "rgb")
    frame = LabelledFrame(image, labels, CLASSES, tracked=ids is not None, timings_ms={}, size=(48, 64))
    stamped: Any = Image(header=header(), height=1, width=1, step=1, encoding="mono8", data=b"\0")
    read = message_store().deserialize_cdr(serialize_message(stamped), "sensor_msgs/msg/Image")
    written = frame_messages(BAG_OUTPUTS, frame, read.header, OutputStyle())

    detections = deserialize_message(bytes(written["detections"]), PanopticDetectionArray)
    assert detections == conversions.detections_to_msg(labels.detections, CLASSES, (48, 64), header())
    assert [entry.instance_id for entry in detections.detections] == ([1, 2] if ids is None else [3, 700])
    first = detections.detections[0 if ids is None else 1]
    assert (first.class_name, first.area, first.mask_box.width, first.x_max) == ("car", 37 * 28, 28, 30.25)
    assert (detections.header.stamp.nanosec, detections.header.frame_id) == (123456789, "left camera/ü")

    for name in ("semantic", "confidence"):
        expected = conversions.image_to_msg(getattr(labels, name), "mono8", header())
        assert deserialize_message(bytes(written[name]), Image) == expected
    instance = deserialize_message(bytes(written["instance"]), Image)
    values = np.frombuffer(instance.data, np.uint16).reshape(48, 64)
    assert instance.encoding == "mono16"
    assert np.unique(values).tolist() == ([0, 1, 2] if ids is None else [0, 3, 700])
    assert deserialize_message(bytes(written["overlay"]), Image).encoding == "rgb8"
    for name, output in OUTPUTS.items():
        if name in written and output.encoding:
            pixels = frame.pixels(name, OutputStyle())
            expected = conversions.image_to_msg(pixels, output.encoding, header())
            assert deserialize_message(bytes(written[name]), Image) == expected
    made_elsewhere = {*LATCHED_OUTPUTS, *(name for name, output in OUTPUTS.items() if output.inputs)}
    assert list(written) == [name for name in BAG_OUTPUTS if name not in made_elsewhere]
    for name, make in (
        ("class_names", conversions.class_names_to_msg),
        ("label_space", conversions.label_space_to_msg),
    ):
        assert deserialize_message(bytes(latched_message(name, CLASSES)), String) == make(CLASSES)


@pytest.mark.parametrize("name", ["PanopticDetection", "PanopticDetectionArray"])
def test_type_hashes_are_those_of_the_generated_messages(name: str) -> None:
    import rt_panoptic_ros.msg

    built = Path(rt_panoptic_ros.msg.__file__)
    candidates = [prefix / "share" / "rt_panoptic_ros" / "msg" / f"{name}.json" for prefix in built.parents]
    description = next((path for path in candidates if path.is_file()), None)
    if description is None:
        pytest.skip("this distribution generates no type descriptions (before Iron)")
    hashes = {entry["type_name"]: entry["hash_string"] for entry in json.loads(description.read_text())["type_hashes"]}
    type_name = f"rt_panoptic_ros/msg/{name}"
    assert message_store().hash_rihs01(type_name) == hashes[type_name]


def test_a_bag_and_the_node_see_the_same_pixels() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
    message = conversions.image_to_msg(pixels, "rgb8", header())
    read = message_store().deserialize_cdr(serialize_message(message), "sensor_msgs/msg/Image")
    ours, theirs = decode_message(read), decode_message(message)
    assert ours.color_order == theirs.color_order
    np.testing.assert_array_equal(ours.pixels, theirs.pixels)
    assert np.shares_memory(ours.pixels, read.data)
