"""The part of a planner: a semantic costmap layer, after Nav2's, that joins the outputs by their exact stamps."""

from __future__ import annotations

import json

import numpy as np
import pytest
from node_cases import Camera, activated, picture
from rclpy.qos import DurabilityPolicy, QoSProfile
from rt_panoptic_ros.msg import PanopticDetectionArray
from sensor_msgs.msg import Image
from std_msgs.msg import String

from rt_panoptic_ros.ros import qos
from rt_panoptic_ros.ros.conversions import image_from_msg

LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


class ExactTime:
    """Hands on sets of messages of one stamp, as message_filters' exact-time policy does."""

    def __init__(self, node, topics):
        self.sets = []
        self._waiting = {}
        self._wanted = set(topics)
        for name, kind in topics.items():
            node.create_subscription(
                kind, f"/panoptic_node/{name}", lambda msg, name=name: self._add(name, msg), qos.stream("reliable")
            )

    def _add(self, name, msg):
        stamp = (msg.header.stamp.sec, msg.header.stamp.nanosec)
        parts = self._waiting.setdefault(stamp, {})
        parts[name] = msg
        if parts.keys() == self._wanted:
            self.sets.append(self._waiting.pop(stamp))


def costs(semantic, confidence, classes, cost_of, least_confidence=128):
    """Return the cost of each pixel: that of its class where it is sure enough, else unknown (255)."""
    table = np.full(256, 255, np.uint8)
    for entry in classes:
        table[entry["id"]] = cost_of.get(entry["name"], 254)
    return np.where(confidence >= least_confidence, table[semantic], 255)


def test_a_semantic_layer_joins_semantics_confidence_objects_and_the_class_table(graph, fake_node):
    node = activated(fake_node(image_reliability="reliable"))
    planner = graph.node("planner")
    tables = []
    planner.create_subscription(String, "/panoptic_node/class_names", tables.append, LATCHED)
    joined = ExactTime(
        planner, {"semantic": Image, "instance": Image, "confidence": Image, "detections": PanopticDetectionArray}
    )
    camera = Camera(graph, ()).connected()
    graph.spin_until(lambda: tables, "for the latched class table")
    table = json.loads(tables[0].data)
    road = next(entry for entry in table["classes"] if entry["name"] == "road")
    assert {"id", "name", "thing", "color"} <= road.keys()
    for number in range(20):
        camera.send(picture(number))
        graph.spin_until(lambda number=number: len(joined.sets) == number + 1, "for a joined set")
        parts = joined.sets[-1]
        headers = [message.header for message in parts.values()]
        assert headers == [picture(number).header] * 4
        semantic, confidence = (image_from_msg(parts[name]).pixels for name in ("semantic", "confidence"))
        assert semantic.shape == confidence.shape == (6, 8)
        grid = costs(semantic, confidence, table["classes"], {"road": 0})
        expected = 0 if number % 11 == road["id"] else 254
        assert set(grid.flat) == {expected}  # the fake is as sure as 255 - class id
        labels = np.frombuffer(parts["instance"].data, np.uint16).reshape(6, 8)
        for entry in parts["detections"].detections:
            box = entry.mask_box
            inside = labels[box.y_offset : box.y_offset + box.height, box.x_offset : box.x_offset + box.width]
            assert np.count_nonzero(inside == entry.instance_id) == entry.area == np.count_nonzero(labels == 1)
    assert node.pipelines[0].classes.names[road["id"]] == "road"


def test_vision_msgs_say_the_same(graph, fake_node):
    vision_msgs = pytest.importorskip("vision_msgs.msg", reason="vision_msgs comes with a ROS distribution")
    activated(fake_node(image_reliability="reliable", score_threshold=0.25))
    planner = graph.node("planner")
    infos = []
    planner.create_subscription(vision_msgs.LabelInfo, "/panoptic_node/label_info", infos.append, LATCHED)
    joined = ExactTime(
        planner,
        {"instance": Image, "detections": PanopticDetectionArray, "detections_2d": vision_msgs.Detection2DArray},
    )
    camera = Camera(graph, ()).connected()
    graph.spin_until(lambda: infos, "for the label info")
    assert infos[0].threshold == 0.25
    names = {entry.class_id: entry.class_name for entry in infos[0].class_map}
    camera.send(picture(7))
    graph.spin_until(lambda: joined.sets, "for a joined set")
    parts = joined.sets[0]
    (theirs,), (ours,) = parts["detections_2d"].detections, parts["detections"].detections
    assert parts["detections_2d"].header == theirs.header == picture(7).header
    assert int(theirs.id) in set(np.frombuffer(parts["instance"].data, np.uint16))
    assert theirs.results[0].hypothesis.class_id == names[ours.class_id] == ours.class_name
    assert theirs.results[0].hypothesis.score == ours.score
    assert (theirs.bbox.center.position.x, theirs.bbox.center.position.y) == (2.0, 3.0)  # the left half of 6x8
    assert (theirs.bbox.size_x, theirs.bbox.size_y) == (4.0, 6.0)
