# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""What the tests of consumers share: how each is connected, a scene, a camera that shows it, and joining by stamps.

docs/consumers.md shows what `CONSUMERS` says, held equal by test/ros/consumers/test_page.py.
"""

from __future__ import annotations

import array
from dataclasses import dataclass

import numpy as np
import rclpy
from node_cases import activated
from sensor_msgs.msg import CameraInfo, PointCloud2, PointField
from std_msgs.msg import Header

from rt_panoptic_ros.model.bundle import read_bundle
from rt_panoptic_ros.panoptic.tracking import with_ids
from rt_panoptic_ros.records import VOID, DetectionTable, PanopticResult
from rt_panoptic_ros.ros import qos
from rt_panoptic_ros.ros.conversions import image_to_msg
from rt_panoptic_ros.ros.node.node_settings import beside

COLOR, COLOR_INFO = "/camera/color/image_raw", "/camera/color/camera_info"
DEPTH = "/camera/aligned_depth_to_color/image_raw"
OUTPUT = "/panoptic_node"


@dataclass(frozen=True)
class Consumer:
    """How one is connected, by parameters and remappings alone."""

    arguments: dict[str, str]  # of panoptic.launch.py
    remappings: dict[str, str]  # {what the consumer calls a topic: the topic}


def _hydra(labels: str) -> dict[str, str]:
    return {
        "hydra/input/camera/rgb/image_raw": COLOR,
        "hydra/input/camera/rgb/camera_info": COLOR_INFO,
        "hydra/input/camera/depth_registered/image_rect": DEPTH,
        "hydra/input/camera/semantic/image_raw": f"{OUTPUT}/{labels}",
    }


def _nav2(cloud: str) -> dict[str, str]:
    return {
        "segmentation_topic": f"{OUTPUT}/semantic",
        "confidence_topic": f"{OUTPUT}/confidence",
        "labels_topic": f"{OUTPUT}/label_info",
        "pointcloud_topic": cloud,
    }


CONSUMERS = {
    "nvblox": Consumer(
        {"image_topic": COLOR, "mask_classes": "person"},
        {
            "camera_0/color/image": COLOR,
            "camera_0/color/camera_info": COLOR_INFO,
            "camera_0/depth/image": "/camera/depth/image_rect_raw",
            "camera_0/depth/camera_info": "/camera/depth/camera_info",
            "camera_0/mask/image": f"{OUTPUT}/mask",
            "camera_0/mask/camera_info": f"{OUTPUT}/camera_info",
        },
    ),
    "Hydra": Consumer({"image_topic": COLOR}, _hydra("semantic")),
    "Hydra with instances, and Khronos": Consumer({"image_topic": COLOR, "tracking": "true"}, _hydra("panoptic")),
    "Nav2 with the camera's cloud": Consumer(
        {"image_topic": COLOR, "output_size": "480x640"}, _nav2("/camera/depth/points")
    ),
    "Nav2 with the node's cloud": Consumer({"image_topic": COLOR, "depth_topic": DEPTH}, _nav2(f"{OUTPUT}/points")),
    "Kimera-Semantics": Consumer(
        {"image_topic": COLOR},
        {
            "rgb/image_rect_color": f"{OUTPUT}/semantic_color",
            "rgb/camera_info": COLOR_INFO,
            "depth_registered/image_rect": DEPTH,
        },
    ),
    "RTAB-Map": Consumer(
        {"image_topic": COLOR, "depth_topic": DEPTH, "mask_classes": "person"},
        {"rgb/image": COLOR, "rgb/camera_info": COLOR_INFO, "depth/image": f"{OUTPUT}/depth_filtered"},
    ),
}

CLASSES = read_bundle("street_lite0").classes
PERSON, VEHICLE, GROUND = (CLASSES.names.index(name) for name in ("person", "vehicle", "ground"))
SIZE = (12, 16)


def scene(height=SIZE[0], width=SIZE[1], ids=(1, 2)):
    """Return what is seen: void above, ground below, a person on the left, a vehicle on the right."""
    semantic = np.full((height, width), GROUND, np.uint8)
    semantic[: height // 4] = VOID
    instance = np.zeros((height, width), np.uint16)
    boxes = []
    for number, (class_id, left) in enumerate(((PERSON, width // 8), (VEHICLE, width // 2)), 1):
        rows, columns = slice(height // 3, 3 * height // 4), slice(left, left + width // 4)
        semantic[rows, columns], instance[rows, columns] = class_id, number
        boxes.append([columns.start, rows.start, columns.stop - 1, rows.stop - 1])
    semantic[-1, -1] = PERSON  # claimed by no object
    table = DetectionTable(
        class_ids=np.array([PERSON, VEHICLE], np.uint8),
        scores=np.array([0.9, 0.8], np.float32),
        boxes=np.array(boxes, np.float32),
        mask_boxes=np.array(boxes, np.int32),
        areas=np.bincount(instance.ravel())[1:].astype(np.uint32),
    )
    result = PanopticResult(semantic, instance, table)
    return result if ids == (1, 2) else with_ids(result, np.array(ids, np.uint16))


def labelling(fake_node, name, ids=(1, 2), **parameters):
    """Return the node, active, that labels as the consumer of that name wants it."""

    def show_the_scene(pipeline):
        pipeline.classes = CLASSES
        pipeline.label = lambda pixels: scene(*pixels.shape[:2], ids=ids)

    arguments = CONSUMERS[name].arguments
    topics = {"image_topic": "image", "depth_topic": "depth"}
    rules = [f"{topics[key]}:={value}" for key, value in arguments.items() if key in topics]
    rules.append(f"camera_info:={beside(arguments['image_topic'], 'camera_info')}")  # as the launch file has it
    given = {key: value == "true" if value in ("true", "false") else value for key, value in arguments.items()}
    parameters = {key: value for key, value in given.items() if key not in topics} | parameters
    return activated(fake_node(*rules, on_open=show_the_scene, **parameters))


def consumer_node(graph, name):
    """Return a node whose topics are remapped as the consumer's are."""
    rules = [word for rule in CONSUMERS[name].remappings.items() for word in ("-r", ":=".join(rule))]
    return graph.add(rclpy.create_node("consumer", context=graph.context, cli_args=["--ros-args", *rules]))


class Joined:
    """Hands on sets of messages of equal stamps, or of stamps that differ by no more than the slack."""

    def __init__(self, node, topics, slack_s=0.0, profile=None, prefix=""):
        self.sets = []
        self._slack_ns = slack_s * 1e9
        self._waiting = {topic: [] for topic in topics}
        for topic, kind in topics.items():
            node.create_subscription(
                kind, prefix + topic, lambda msg, topic=topic: self._add(topic, msg), profile or qos.stream("reliable")
            )

    def _add(self, topic, msg):
        self._waiting[topic].append(msg)
        parts = {name: self._nearest(name, stamp_ns(msg)) for name in self._waiting}
        if all(parts.values()):
            self.sets.append(parts)
            for name, part in parts.items():
                self._waiting[name].remove(part)

    def _nearest(self, topic, time_ns):
        near = [msg for msg in self._waiting[topic] if abs(stamp_ns(msg) - time_ns) <= self._slack_ns]
        return min(near, key=lambda msg: abs(stamp_ns(msg) - time_ns), default=None)


def stamp_ns(msg):
    return msg.header.stamp.sec * 1_000_000_000 + msg.header.stamp.nanosec


class Player:
    """Publishes messages on topics of a camera by command."""

    def __init__(self, graph, topics):
        self.graph = graph
        node = graph.node("camera")
        self._publishers = {
            topic: node.create_publisher(kind, topic, qos.stream("reliable")) for topic, kind in topics.items()
        }

    def connected(self, numbers):
        """Wait until each of these topics has as many subscribers, and the others one."""
        self.graph.spin_until(
            lambda: all(
                publisher.get_subscription_count() >= numbers.get(topic, 1)
                for topic, publisher in self._publishers.items()
            ),
            "for all to subscribe",
        )
        return self

    def send(self, messages):
        for topic, msg in messages.items():
            self._publishers[topic].publish(msg)


def later(header, ms):
    """Return the header with another stamp."""
    moved = Header(frame_id=header.frame_id)
    time_ns = header.stamp.sec * 1_000_000_000 + header.stamp.nanosec + round(ms * 1e6)
    moved.stamp.sec, moved.stamp.nanosec = divmod(time_ns, 1_000_000_000)
    return moved


def depth_image(header, depth_m, encoding="16UC1"):
    """Return a depth image of (H, W) metres, in millimetres where the encoding says so."""
    pixels = np.rint(depth_m * 1000).astype(np.uint16) if encoding == "16UC1" else np.float32(depth_m)
    return image_to_msg(pixels, encoding, header)


def camera_info(header, size=SIZE):
    """Return the intrinsics of a camera of 90 degrees across, whose axis meets the middle of its image."""
    height, width = size
    focal = width / 2
    k = [focal, 0.0, (width - 1) / 2, 0.0, focal, (height - 1) / 2, 0.0, 0.0, 1.0]
    p = [*k[:3], 0.0, *k[3:6], 0.0, *k[6:], 0.0]
    r = np.eye(3).ravel().tolist()
    return CameraInfo(
        header=header, height=height, width=width, distortion_model="plumb_bob", d=[0.0] * 5, k=k, r=r, p=p
    )


def point_cloud(header, points):
    """Return an organised cloud of (H, W, 3) metres."""
    height, width = points.shape[:2]
    fields = [PointField(name=n, offset=4 * i, datatype=PointField.FLOAT32, count=1) for i, n in enumerate("xyz")]
    data = array.array("B", np.float32(points).tobytes())
    return PointCloud2(
        header=header, height=height, width=width, fields=fields, point_step=12, row_step=12 * width, data=data
    )
