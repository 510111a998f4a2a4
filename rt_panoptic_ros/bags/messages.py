# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The messages that go into a bag, made with `rosbags`' own message classes."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime
from rosbags.rosbag2.errors import ReaderError
from rosbags.rosbag2.metadata import dump_qos_v8, parse_qos
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from rt_panoptic_ros.bags.storage import CDR, QOS, Channel, Schema
from rt_panoptic_ros.errors import InvalidInputError, first_line
from rt_panoptic_ros.frames.message_layout import class_names_text, detection_fields, image_layout, label_space_text
from rt_panoptic_ros.frames.outputs import BAG_OUTPUTS, LATCHED_OUTPUTS, OUTPUTS
from rt_panoptic_ros.resources import share_directory

if TYPE_CHECKING:
    from collections.abc import Collection

    from rosbags.typesys.store import Typestore

    from rt_panoptic_ros.labeller import LabelledFrame, OutputStyle
    from rt_panoptic_ros.model.class_table import ClassTable

IMAGE, COMPRESSED_IMAGE = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"

_VISION_MSGS = {
    "ObjectHypothesis": "string class_id\nfloat64 score\n",
    "ObjectHypothesisWithPose": "ObjectHypothesis hypothesis\ngeometry_msgs/PoseWithCovariance pose\n",
    "BoundingBox3D": "geometry_msgs/Pose center\ngeometry_msgs/Vector3 size\n",
    "Detection3D": "std_msgs/Header header\nObjectHypothesisWithPose[] results\nBoundingBox3D bbox\nstring id\n",
    "Detection3DArray": "std_msgs/Header header\nDetection3D[] detections\n",
}
"""{message of vision_msgs: its definition}."""


def qos_text(profiles: Any) -> str:
    """Return profiles of quality of service, written in any of rosbag2's ways, in the one that all its versions read.

    Raises:
        InvalidInputError: They can't be understood.
    """
    try:
        return dump_qos_v8(parse_qos(profiles))
    except (ReaderError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise InvalidInputError(f"{type(error).__name__}: {first_line(error)}") from error


def output_qos(output: str) -> str:
    """Return the quality of service that the node offers an output with, as rosbag2 writes it."""
    latched = OUTPUTS[output].latched
    endless = QosTime(9223372036, 854775807)
    profile = Qos(
        history=QosHistory.KEEP_LAST,
        depth=1 if latched else 5,
        reliability=QosReliability.RELIABLE,
        durability=QosDurability.TRANSIENT_LOCAL if latched else QosDurability.VOLATILE,
        deadline=endless,
        lifespan=endless,
        liveliness=QosLiveliness.AUTOMATIC,
        liveliness_lease_duration=endless,
        avoid_ros_namespace_conventions=False,
    )
    return dump_qos_v8([profile])


def output_channel(topic: str, output: str) -> Channel:
    """Return the channel of an output."""
    name, store = OUTPUTS[output].type, message_store()
    text, _ = store.generate_msgdef(name, ros_version=2)
    metadata = {QOS: output_qos(output)}
    return Channel(topic, CDR, Schema(name, "ros2msg", text.encode()), metadata, store.hash_rihs01(name))


@cache
def message_store() -> Typestore:
    """Return ROS 2's common message types with those of this package, and what it needs of vision_msgs."""
    store = get_typestore(Stores.LATEST)
    for name in ("PanopticDetection", "PanopticDetectionArray"):
        text = (share_directory() / "msg" / f"{name}.msg").read_text(encoding="utf-8")
        store.register(get_types_from_msg(text, f"rt_panoptic_ros/msg/{name}"))
    for name, text in _VISION_MSGS.items():
        store.register(get_types_from_msg(text, f"vision_msgs/msg/{name}"))
    return store


def latched_message(output: str, classes: ClassTable) -> memoryview:
    """Return the serialised message of one of `LATCHED_OUTPUTS` that bags have: it says what the labels mean."""
    return serialised(output, data=_TEXTS[output](classes))


_TEXTS = {"class_names": class_names_text, "label_space": label_space_text}


def frame_messages(
    outputs: Collection[str], frame: LabelledFrame, header: Any, style: OutputStyle
) -> dict[str, memoryview]:
    """Return {output: serialised message} of one frame, in the order of `BAG_OUTPUTS`.

    Args:
        outputs: Those that are wanted; `LATCHED_OUTPUTS` and those made from depth or camera_info are not made here.
        frame: The labels, with the images that the outputs are made from.
        header: The camera image's.
        style: What the images made of the labels look like.
    """

    def content(output: str) -> memoryview:
        if output == "detections":
            return _detections(frame, header)
        pixels = frame.pixels(output, style)
        data = np.ascontiguousarray(pixels).reshape(-1).view(np.uint8)
        return serialised(output, header=header, encoding=OUTPUTS[output].encoding, data=data, **image_layout(pixels))

    left_out = {*LATCHED_OUTPUTS, *(name for name, output in OUTPUTS.items() if output.inputs)}
    return {name: content(name) for name in BAG_OUTPUTS if name in outputs and name not in left_out}


def _detections(frame: LabelledFrame, header: Any) -> memoryview:
    types: Any = message_store().types
    detection, region = types["rt_panoptic_ros/msg/PanopticDetection"], types["sensor_msgs/msg/RegionOfInterest"]
    detections = [
        detection(mask_box=region(**box), **fields)
        for fields, box in detection_fields(frame.result.detections, frame.classes)
    ]
    height, width = frame.size
    return serialised("detections", header=header, height=height, width=width, detections=detections)


def serialised(output: str, **fields: Any) -> memoryview:
    """Return an output's message of some fields, serialised."""
    name, store = OUTPUTS[output].type, message_store()
    message: Any = store.types[name]
    return store.serialize_cdr(message(**fields), name)
