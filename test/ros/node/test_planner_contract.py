# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The part of a planner: a semantic costmap layer, after Nav2's, that joins the outputs by their exact stamps."""

from __future__ import annotations

import json

import numpy as np
import pytest
from consumer_cases import Joined
from node_cases import Camera, activated, picture
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.qos import DurabilityPolicy, QoSProfile
from rt_panoptic_ros.msg import PanopticDetection, PanopticDetectionArray
from sensor_msgs.msg import Image, RegionOfInterest
from std_msgs.msg import String

from rt_panoptic_ros.frames.message_layout import decode_image
from rt_panoptic_ros.model.class_table import load_class_table
from rt_panoptic_ros.ros.conversions import detections_2d_to_msg, label_info_to_msg

WANTED = "needs vision_msgs, of a ROS distribution or of scripts/make_environment --with-tests"
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


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
    kinds = {"semantic": Image, "instance": Image, "confidence": Image, "detections": PanopticDetectionArray}
    joined = Joined(planner, kinds, prefix="/panoptic_node/")
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
        semantic, confidence = (decode_image(parts[name]).pixels for name in ("semantic", "confidence"))
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


@pytest.mark.parametrize("tracking", [False, True])
def test_vision_msgs_say_the_same(graph, fake_node, tracking):
    vision_msgs = pytest.importorskip("vision_msgs.msg", reason=WANTED)
    activated(fake_node(image_reliability="reliable", score_threshold=0.25, tracking=tracking))
    planner = graph.node("planner")
    infos = []
    planner.create_subscription(vision_msgs.LabelInfo, "/panoptic_node/label_info", infos.append, LATCHED)
    kinds = {"instance": Image, "detections": PanopticDetectionArray, "detections_2d": vision_msgs.Detection2DArray}
    joined = Joined(planner, kinds, prefix="/panoptic_node/")
    camera = Camera(graph, ()).connected()
    graph.spin_until(lambda: infos, "for the label info")
    assert infos[0].threshold == 0.25
    names = {entry.class_id: entry.class_name for entry in infos[0].class_map}
    camera.send(picture(7))
    graph.spin_until(lambda: joined.sets, "for a joined set")
    parts = joined.sets[0]
    (theirs,), (ours,) = parts["detections_2d"].detections, parts["detections"].detections
    assert parts["detections_2d"].header == theirs.header == picture(7).header
    ids = {str(number) for number in np.frombuffer(parts["instance"].data, np.uint16) if number}
    assert {theirs.id} == (ids if tracking else {""})
    assert names[int(theirs.results[0].hypothesis.class_id)] == names[ours.class_id] == ours.class_name
    assert theirs.results[0].hypothesis.score == ours.score
    assert (theirs.bbox.center.position.x, theirs.bbox.center.position.y) == (2.0, 3.0)  # the left half of 6x8
    assert (theirs.bbox.size_x, theirs.bbox.size_y) == (4.0, 6.0)


@pytest.mark.parametrize("lasting", [False, True])
def test_ids_say_what_vision_msgs_means_by_them(lasting):
    pytest.importorskip("vision_msgs", reason=WANTED)
    classes = load_class_table("camvid")
    car = classes.names.index("car")
    box = RegionOfInterest(x_offset=2, y_offset=3, width=4, height=6)
    ours = PanopticDetectionArray(
        header=picture(1).header,
        detections=[PanopticDetection(instance_id=9, class_id=car, class_name="car", score=0.5, mask_box=box)],
    )
    (theirs,) = detections_2d_to_msg(ours, lasting_ids=lasting).detections
    assert theirs.id == ("9" if lasting else "")  # equal ids are one object, over all images
    keys = {str(entry.class_id): entry.class_name for entry in label_info_to_msg(classes, 0.5).class_map}
    assert keys[theirs.results[0].hypothesis.class_id] == "car"
    assert (theirs.bbox.center.position.x, theirs.bbox.center.position.y) == (4.0, 6.0)


@pytest.mark.parametrize(
    ("cameras", "topics"),
    [
        ("", {"label_info"}),
        ("front=/front/image,rear=/rear/image", {"label_info", "front/label_info", "rear/label_info"}),
    ],
)
def test_a_label_info_lies_beside_each_cameras_outputs(graph, fake_node, cameras, topics):
    vision_msgs = pytest.importorskip("vision_msgs.msg", reason=WANTED)
    node = activated(fake_node(cameras=cameras, score_threshold=0.25))
    planner = graph.node("planner")
    kind, received = vision_msgs.LabelInfo, {}
    for topic in topics:
        planner.create_subscription(
            kind, f"/panoptic_node/{topic}", lambda msg, topic=topic: received.update({topic: msg}), LATCHED
        )
    graph.spin_until(lambda: len(received) == len(topics), "for the latched label infos")
    for info in received.values():
        assert [entry.class_name for entry in info.class_map] == [*node.pipelines[0].classes.names]
        assert info.threshold == 0.25
    assert {name for name, _ in planner.get_topic_names_and_types() if name.endswith("label_info")} == {
        f"/panoptic_node/{topic}" for topic in topics
    }
    assert node.trigger_deactivate() == node.trigger_cleanup() == TransitionCallbackReturn.SUCCESS
    graph.spin_until(
        lambda: not any(planner.count_publishers(f"/panoptic_node/{topic}") for topic in topics), "for them to go"
    )
