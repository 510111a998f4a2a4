# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""nvblox with masks of people (use_segmentation), replayed on our messages.

Read in isaac_ros_nvblox (nvblox_ros/src/lib/nvblox_node.cpp, conversions/image_conversions.cpp) and nvblox
(nvblox/src/semantics/image_masker.cu).
"""

from __future__ import annotations

import numpy as np
from consumer_cases import (
    COLOR,
    COLOR_INFO,
    CONSUMERS,
    PERSON,
    SIZE,
    Joined,
    Player,
    camera_info,
    consumer_node,
    depth_image,
    labelling,
    later,
    scene,
)
from node_cases import picture
from sensor_msgs.msg import CameraInfo, Image

MASK = {"camera_0/mask/image": Image, "camera_0/mask/camera_info": CameraInfo}
DEPTH_SIZE = (6, 8)


def pixels_of(msg, encodings):
    """Return an image, (H, W) or (H, W, C): rows are taken to lie one behind the other, whatever the step says."""
    kind, channels = encodings[msg.encoding]  # any other encoding is an error
    shape = (msg.height, msg.width, channels) if channels > 1 else (msg.height, msg.width)
    return np.frombuffer(msg.data, kind).reshape(shape)


def masked_depth(depth, depth_info, mask, mask_info):
    """Return the depth, 0 where a point lies on a masked pixel: each is projected by K into the mask's image."""
    rows, columns = np.indices(depth.shape)
    x, y = (columns - depth_info.k[2]) / depth_info.k[0], (rows - depth_info.k[5]) / depth_info.k[4]
    u = np.rint(x * mask_info.k[0] + mask_info.k[2]).astype(int)  # both in one frame, so depth cancels out
    v = np.rint(y * mask_info.k[4] + mask_info.k[5]).astype(int)
    assert (mask_info.height, mask_info.width) == mask.shape
    inside = (u >= 0) & (u < mask_info.width) & (v >= 0) & (v < mask_info.height)
    masked = np.zeros(depth.shape, bool)
    masked[inside] = mask[v[inside], u[inside]] != 0
    return np.where(masked, 0, depth)


def test_people_are_cut_out_of_color_and_depth(graph, fake_node):
    labelling(fake_node, "nvblox")
    topics = CONSUMERS["nvblox"].remappings
    node = consumer_node(graph, "nvblox")
    colors = Joined(node, {"camera_0/color/image": Image, "camera_0/color/camera_info": CameraInfo, **MASK})
    depths = Joined(node, {"camera_0/depth/image": Image, "camera_0/depth/camera_info": CameraInfo, **MASK}, 0.01)
    depth_topic, depth_info_topic = topics["camera_0/depth/image"], topics["camera_0/depth/camera_info"]
    camera = Player(graph, {COLOR: Image, COLOR_INFO: CameraInfo, depth_topic: Image, depth_info_topic: CameraInfo})
    camera.connected({COLOR: 2, COLOR_INFO: 2})

    color = picture(9, SIZE)
    depth_header = later(color.header, 3.0)
    camera.send({
        COLOR_INFO: camera_info(color.header),
        COLOR: color,
        depth_info_topic: camera_info(depth_header, DEPTH_SIZE),
        depth_topic: depth_image(depth_header, np.full(DEPTH_SIZE, 2.0)),
    })  # fmt: skip
    graph.spin_until(lambda: colors.sets and depths.sets, "for colour and depth, each with the mask")

    image, _, mask, mask_info = colors.sets[0].values()
    assert image.header == mask.header == mask_info.header == color.header
    seen = scene().semantic == PERSON
    mask = pixels_of(mask, {"mono8": (np.uint8, 1)})
    image = pixels_of(image, {"rgb8": (np.uint8, 3), "bgra8": (np.uint8, 4)})
    assert mask.shape == image.shape[:2]  # else nvblox ends
    assert np.array_equal(np.where((mask != 0)[..., None], 0, image) == 0, np.repeat(seen[..., None], 3, 2))

    depth, depth_info, mask, mask_info = depths.sets[0].values()
    depth = pixels_of(depth, {"32FC1": (np.float32, 1), "16UC1": (np.uint16, 1), "mono16": (np.uint16, 1)})
    left = masked_depth(depth, depth_info, pixels_of(mask, {"mono8": (np.uint8, 1)}), mask_info)
    assert set(left.flat) == {0, 2000}
    coarse = seen.reshape(DEPTH_SIZE[0], 2, DEPTH_SIZE[1], 2)
    assert (left[coarse.all((1, 3))] == 0).all()  # where all four pixels below a depth are a person's
    assert (left[~coarse.any((1, 3))] == 2000).all()
