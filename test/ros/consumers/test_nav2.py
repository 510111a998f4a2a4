# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Nav2's semantic_segmentation_layer, replayed on our messages.

Read in ros-navigation's semantic_segmentation_layer: src/semantic_segmentation_layer.cpp, src/segmentation_buffer.cpp.
"""

from __future__ import annotations

import numpy as np
import pytest
from consumer_cases import (
    CLASSES,
    COLOR,
    COLOR_INFO,
    CONSUMERS,
    DEPTH,
    SIZE,
    Joined,
    Player,
    camera_info,
    consumer_node,
    depth_image,
    labelling,
    point_cloud,
    scene,
)
from node_cases import picture
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy, qos_profile_sensor_data
from sensor_msgs.msg import CameraInfo, Image, PointCloud2, PointField

from rt_panoptic_ros.records import VOID

vision_msgs = pytest.importorskip("vision_msgs.msg", reason="needs vision_msgs")

LATCHED = QoSProfile(depth=5, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)
COSTS = {"ground": 0, "person": 254}  # the layer's class types
RESOLUTION_M, NEAREST_M, FARTHEST_M = 0.1, 0.3, 5.0


def coordinates(cloud):
    """Return (points, 3) m, by the names of the fields, as an iterator over a cloud gives them."""
    places = {field.name: field.offset for field in cloud.fields if field.datatype == PointField.FLOAT32}
    assert cloud.row_step == cloud.width * cloud.point_step
    points = np.frombuffer(cloud.data, np.uint8).reshape(-1, cloud.point_step)
    return np.concatenate([points[:, places[axis] :][:, :4].copy().view(np.float32) for axis in "xyz"], axis=1)


class Layer:
    """Subscribes as the layer does, and fills tiles from one frame."""

    def __init__(self, graph, name):
        node = consumer_node(graph, name)
        self.infos = []
        node.create_subscription(vision_msgs.LabelInfo, "labels_topic", self.infos.append, LATCHED)
        self.joined = Joined(
            node,
            {"segmentation_topic": Image, "confidence_topic": Image, "pointcloud_topic": PointCloud2},
            profile=qos_profile_sensor_data,
        )

    def tiles(self, segmentation, confidence, cloud):
        """Return {tile: (class name, confidence)}: of a tile's pixels the surest, if its class has a cost."""
        pixels = segmentation.width * segmentation.height
        assert pixels == cloud.width * cloud.height  # else the layer drops the frame
        assert len(segmentation.data) == len(confidence.data) == pixels  # it reads row by row without a step
        names = {entry.class_id: entry.class_name for entry in self.infos[0].class_map if entry.class_name in COSTS}
        classes, sure = (np.frombuffer(msg.data, np.uint8) for msg in (segmentation, confidence))
        x, y, z = coordinates(cloud).T
        square = x**2 + y**2 + z**2
        seen = np.flatnonzero(np.isfinite(z) & (square > NEAREST_M**2) & (square < FARTHEST_M**2))
        seen = seen[np.argsort(-sure[seen].astype(int), kind="stable")]
        tiles = np.floor(np.stack([x[seen], y[seen]], axis=1) / RESOLUTION_M).astype(int)
        tiles, first = np.unique(tiles, axis=0, return_index=True)
        chosen = zip(map(tuple, tiles.tolist()), seen[first].tolist(), strict=True)
        return {tile: (names[classes[index]], sure[index]) for tile, index in chosen if classes[index] in names}

    def one_frame(self, graph):
        """Return the tiles of the first frame, whose parts have equal stamps."""
        graph.spin_until(lambda: self.joined.sets and self.infos, "for a frame and the names")
        assert {entry.class_name for entry in self.infos[0].class_map} == set(CLASSES.names)
        topics = ("segmentation_topic", "confidence_topic", "pointcloud_topic")
        return self.tiles(*(self.joined.sets[0][topic] for topic in topics))


def expected_tiles(points):
    """Return what the layer makes of the scene where each pixel has a point, NaN where it has none."""
    best = {}
    for place in np.ndindex(SIZE):
        x, y, z = points[place]
        class_id = int(scene().semantic[place])
        if np.isfinite(z):
            tile = int(np.floor(x / RESOLUTION_M)), int(np.floor(y / RESOLUTION_M))
            best[tile] = min(best.get(tile, VOID), class_id)  # the fake is the surer, the smaller the class id
    return {
        tile: (CLASSES.names[class_id], VOID - class_id)
        for tile, class_id in best.items()
        if class_id != VOID and CLASSES.names[class_id] in COSTS
    }


def test_tiles_of_a_cameras_cloud_of_another_size(graph, fake_node):
    name = "Nav2 with the camera's cloud"
    layer = Layer(graph, name)
    labelling(fake_node, name)
    cloud_topic = CONSUMERS[name].remappings["pointcloud_topic"]
    camera = Player(graph, {COLOR: Image, cloud_topic: PointCloud2}).connected({})
    # A pixel's points, 40x40 of them, lie on a tile of its own, but those of the last two columns, which share one.
    rows, columns = np.indices(SIZE)
    points = np.stack([0.55 + 0.1 * np.minimum(columns, 14), 0.05 + 0.1 * rows, np.zeros(SIZE)], axis=-1)
    points[5, 3] = np.nan  # a person's
    color = picture(1, SIZE)
    cloud = point_cloud(color.header, points.repeat(40, 0).repeat(40, 1))
    camera.send({cloud_topic: cloud, COLOR: color})
    tiles = layer.one_frame(graph)
    assert tiles == expected_tiles(points)
    assert {class_name for class_name, _ in tiles.values()} == set(COSTS)


def test_tiles_of_the_nodes_own_cloud(graph, fake_node):
    name = "Nav2 with the node's cloud"
    layer = Layer(graph, name)
    labelling(fake_node, name)
    camera = Player(graph, {COLOR: Image, COLOR_INFO: CameraInfo, DEPTH: Image}).connected({})
    color, depth_m = picture(1, SIZE), np.full(SIZE, 2.02)
    depth_m[5, 3] = 0.0  # a person's
    info = camera_info(color.header)
    camera.send({COLOR_INFO: info, DEPTH: depth_image(color.header, depth_m), COLOR: color})
    rows, columns = np.indices(SIZE)
    x, y = (columns - info.k[2]) / info.k[0] * depth_m, (rows - info.k[5]) / info.k[4] * depth_m
    points = np.where(depth_m[..., None] > 0, np.stack([x, y, depth_m], axis=-1), np.nan)
    tiles = layer.one_frame(graph)
    assert tiles == expected_tiles(points)
    assert {class_name for class_name, _ in tiles.values()} == set(COSTS)
