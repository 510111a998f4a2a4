# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Hydra's receivers of images, and Khronos's of instances, replayed on our messages.

Read in MIT-SPARK's Hydra-ROS (hydra_ros/src/input/image_receiver.cpp), Hydra (src/input/input_conversion.cpp,
src/active_window/reconstruction_module.cpp) and Khronos (src/active_window/object_detection/instance_forwarding.cpp).
"""

from __future__ import annotations

import json

import numpy as np
import pytest
import yaml
from consumer_cases import (
    CLASSES,
    COLOR,
    CONSUMERS,
    GROUND,
    PERSON,
    SIZE,
    VEHICLE,
    Joined,
    Player,
    consumer_node,
    depth_image,
    labelling,
    later,
    scene,
)
from node_cases import picture
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image
from std_msgs.msg import String

from rt_panoptic_ros.records import VOID
from rt_panoptic_ros.ros import qos

RGB, DEPTH_RECT, LABELS = (
    f"hydra/input/camera/{name}" for name in ("rgb/image_raw", "depth_registered/image_rect", "semantic/image_raw")
)
INTEGERS = {"mono8": np.uint8, "mono16": np.uint16, "32SC1": np.int32}  # cv_bridge's, of those that we publish


def pixels_of(msg):
    """Return an integer image as cv_bridge does: by its encoding, whose type its step must hold."""
    kind = np.dtype(INTEGERS[msg.encoding])
    assert msg.step == msg.width * kind.itemsize
    return np.frombuffer(msg.data, kind).reshape(msg.height, msg.width)


class Receiver:
    """Joins colour, depth and labels by approximate time, and makes one input of them."""

    def __init__(self, graph, name):
        node = consumer_node(graph, name)
        # A queue alone is a reliable subscription, which best-effort outputs would never reach.
        self.joined = Joined(node, dict.fromkeys((RGB, DEPTH_RECT, LABELS), Image), 0.02, QoSProfile(depth=10))
        topics = CONSUMERS[name].remappings
        self.camera = Player(graph, {topics[RGB]: Image, topics[DEPTH_RECT]: Image}).connected({COLOR: 2})
        self._graph, self._topics = graph, topics

    def received(self, number, depth_ms=0.0):
        """Return the parts of an input that a camera's frame gave; its depth is stamped that much later."""
        color = picture(number, SIZE)
        depth = depth_image(later(color.header, depth_ms), np.full(SIZE, 3.0))
        self.camera.send({self._topics[RGB]: color, self._topics[DEPTH_RECT]: depth})
        self._graph.spin_until(lambda: self.joined.sets, "for an input")
        parts = self.joined.sets.pop()
        assert {(part.height, part.width) for part in parts.values()} == {SIZE}  # else read out of bounds
        assert parts[LABELS].header == color.header
        return parts


def latched_text(graph, topic):
    got = []
    graph.node("latched").create_subscription(String, f"/panoptic_node/{topic}", got.append, qos.latched())
    graph.spin_until(lambda: got, f"for {topic}")
    return got[0].data


def integrated(labels, space):
    """Return what reaches the map, -1 where nothing does: invalid labels are masked, and none is beyond the space."""
    labels = labels.astype(np.int32)
    masked = np.isin(labels, space["invalid_labels"])
    assert (labels[~masked] < space["total_semantic_labels"]).all()
    return np.where(masked, -1, labels)


class TestClosedSet:
    def test_void_is_declared_invalid(self, graph, fake_node):
        labelling(fake_node, "Hydra")
        # The label space of the page: ids and names of ~/class_names.
        table = json.loads(latched_text(graph, "class_names"))["classes"]
        space = {"total_semantic_labels": len(table), "invalid_labels": [VOID]}
        labels = pixels_of(Receiver(graph, "Hydra").received(3, depth_ms=8.0)[LABELS])
        expected = scene().semantic.astype(np.int32)
        assert np.array_equal(integrated(labels, space), np.where(expected == VOID, -1, expected))

    def test_with_void_0_the_published_label_space_fits(self, graph, fake_node, tmp_path):
        names = "".join(f"  {c.name}: {{thing: {c.thing}, color: {list(c.color)}}}\n" for c in CLASSES.classes)
        (tmp_path / "hydra.yaml").write_text(f"name: hydra\nvoid: 0\nclasses:\n{names}")
        labelling(fake_node, "Hydra", label_map=str(tmp_path / "hydra.yaml"))
        space = yaml.safe_load(latched_text(graph, "label_space"))
        labels = pixels_of(Receiver(graph, "Hydra").received(4)[LABELS])
        named = {entry["label"]: entry["name"] for entry in space["label_names"]}
        reached = integrated(labels, space)
        expected = scene().semantic
        for class_id in (PERSON, VEHICLE, GROUND):
            assert {named[label] for label in reached[expected == class_id]} == {CLASSES.names[class_id]}
        assert np.array_equal(reached == -1, expected == VOID)


@pytest.mark.parametrize("ids", [(1, 2), (32767, 2)])
def test_instances_and_their_categories(graph, fake_node, ids):
    name = "Hydra with instances, and Khronos"
    labelling(fake_node, name, ids=ids, **({} if ids == (1, 2) else {"tracking": False}))  # that gives ids of its own
    space = yaml.safe_load(latched_text(graph, "label_space"))
    msg = Receiver(graph, name).received(5)[LABELS]
    assert msg.encoding == "32SC1"  # any other is an error
    values = pixels_of(msg)
    categories, instances = values & 0xFFFF, (values >> 16).astype(np.int16)
    seen = scene(ids=ids)
    assert np.array_equal(instances, seen.instance)
    named = {entry["label"]: entry["name"] for entry in space["label_names"]}
    assert (integrated(categories, space) == -1)[seen.semantic == VOID].all()
    # Khronos: a cluster for each instance but 0, of the category of its first pixel.
    clusters = {int(number): categories[instances == number][0] for number in np.unique(instances) if number}
    assert {number: named[category] for number, category in clusters.items()} == {ids[0]: "person", ids[1]: "vehicle"}
    assert set(clusters.values()) <= set(space["object_labels"])
    assert set(space["object_labels"]) == {label for label, one in named.items() if one in CLASSES.names[:5]}
