"""Nav2's semantic_segmentation_layer, replayed on our messages.

Read in ros-navigation's semantic_segmentation_layer: src/semantic_segmentation_layer.cpp, src/segmentation_buffer.cpp.
"""

from __future__ import annotations

import numpy as np
import pytest
from consumer_cases import (
    CLASSES,
    COLOR,
    CONSUMERS,
    SIZE,
    Joined,
    Player,
    consumer_node,
    labelling,
    point_cloud,
    scene,
)
from node_cases import picture
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy, qos_profile_sensor_data
from sensor_msgs.msg import Image, PointCloud2

from rt_panoptic_ros.records import VOID

vision_msgs = pytest.importorskip("vision_msgs.msg", reason="needs vision_msgs")

LATCHED = QoSProfile(depth=5, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)
COSTS = {"ground": 0, "person": 254}  # the layer's class types
RESOLUTION_M, NEAREST_M, FARTHEST_M = 0.1, 0.3, 5.0


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
        x, y, z = np.frombuffer(cloud.data, np.float32).reshape(pixels, -1)[:, :3].T
        square = x**2 + y**2 + z**2
        seen = np.flatnonzero(np.isfinite(z) & (square > NEAREST_M**2) & (square < FARTHEST_M**2))
        seen = seen[np.argsort(-sure[seen].astype(int), kind="stable")]
        tiles = np.floor(np.stack([x[seen], y[seen]], axis=1) / RESOLUTION_M).astype(int)
        tiles, first = np.unique(tiles, axis=0, return_index=True)
        chosen = zip(map(tuple, tiles.tolist()), seen[first].tolist(), strict=True)
        return {tile: (names[classes[index]], sure[index]) for tile, index in chosen if classes[index] in names}


def test_a_costmaps_tiles(graph, fake_node):
    layer = Layer(graph, "Nav2")
    node = labelling(fake_node, "Nav2")
    cloud_topic = CONSUMERS["Nav2"].remappings["pointcloud_topic"]
    camera = Player(graph, {COLOR: Image, cloud_topic: PointCloud2}).connected({})
    graph.spin_until(lambda: layer.infos, "for the label info")
    assert {entry.class_name for entry in layer.infos[0].class_map} == set(CLASSES.names)

    # The driver's cloud has 40 times the image's rows and columns. A pixel's points lie on a tile of its own, but those
    # of the last two columns, which share one.
    seen = scene(*SIZE).semantic
    rows, columns = np.indices(seen.shape)
    coarse = np.stack([0.55 + 0.1 * np.minimum(columns, 14), 0.05 + 0.1 * rows, np.zeros(seen.shape)], axis=-1)
    coarse[5, 3] = np.nan  # a person's
    points = coarse.repeat(40, 0).repeat(40, 1)
    color = picture(1, SIZE)
    camera.send({COLOR: color, cloud_topic: point_cloud(color.header, points)})
    graph.spin_until(lambda: layer.joined.sets, "for a frame")
    (parts,) = layer.joined.sets
    assert {part.header.stamp.nanosec for part in parts.values()} == {color.header.stamp.nanosec}
    tiles = layer.tiles(*(parts[topic] for topic in ("segmentation_topic", "confidence_topic", "pointcloud_topic")))

    expected = {}
    for row, column in np.ndindex(seen.shape):
        if (row, column) != (5, 3):
            sure = 255 - int(seen[row, column])  # the fake's confidence
            key = (5 + min(column, 14), row)
            if sure > expected.get(key, (0, -1))[1]:
                expected[key] = int(seen[row, column]), sure
    expected = {
        key: (CLASSES.names[number], sure)
        for key, (number, sure) in expected.items()
        if number != VOID and CLASSES.names[number] in COSTS
    }
    assert tiles == expected
    assert {name for name, _ in tiles.values()} == set(COSTS)
    assert node.pipelines[0].asked == [frozenset({"semantic", "confidence", "instance"})]
