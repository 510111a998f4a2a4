# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""RTAB-Map's synchronisation of colour and depth, and what it takes for depth, replayed on our messages.

Read in introlab's rtabmap_ros: rtabmap_sync/src/nodelets/rgbd_sync.cpp, rtabmap_conversions/src/MsgConversion.cpp.
"""

from __future__ import annotations

import numpy as np
import pytest
from consumer_cases import (
    COLOR,
    COLOR_INFO,
    DEPTH,
    PERSON,
    SIZE,
    Joined,
    Player,
    camera_info,
    consumer_node,
    depth_image,
    labelling,
    scene,
)
from node_cases import picture
from sensor_msgs.msg import CameraInfo, Image

METRES = {"16UC1": (np.uint16, 1e-3), "32FC1": (np.float32, 1.0), "mono16": (np.uint16, 1e-3)}


@pytest.mark.parametrize("encoding", ["16UC1", "32FC1"])
def test_people_have_no_depth(graph, fake_node, encoding):
    labelling(fake_node, "RTAB-Map")
    topics = {"rgb/image": Image, "rgb/camera_info": CameraInfo, "depth/image": Image}
    joined = Joined(consumer_node(graph, "RTAB-Map"), topics)  # approx_sync:=false
    camera = Player(graph, {COLOR: Image, COLOR_INFO: CameraInfo, DEPTH: Image}).connected({COLOR: 2})
    depth_m = np.linspace(1.0, 3.0, SIZE[0] * SIZE[1]).reshape(SIZE)
    color = picture(2, SIZE)
    camera.send({
        COLOR_INFO: camera_info(color.header), DEPTH: depth_image(color.header, depth_m, encoding), COLOR: color
    })  # fmt: skip
    graph.spin_until(lambda: joined.sets, "for colour with its depth")
    rgb, _, depth = joined.sets[0].values()
    kind, scale = METRES[depth.encoding]  # any other is an error
    assert rgb.width // depth.width == rgb.height // depth.height  # else RTAB-Map ends
    assert depth.header.frame_id == rgb.header.frame_id  # it takes the colour's frame for both
    pixels = np.frombuffer(depth.data, kind).reshape(depth.height, depth.width) * scale
    is_person = scene().semantic == PERSON
    assert (pixels[is_person] == 0).all()  # no measurement
    assert pixels[~is_person] == pytest.approx(depth_m[~is_person], abs=1e-3)
