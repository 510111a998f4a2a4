# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Depth in metres, and the organised cloud: a point for every pixel, with its colour and labels."""

from __future__ import annotations

import functools
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

if TYPE_CHECKING:
    from rt_panoptic_ros.geometry.intrinsics import Intrinsics

POINT = np.dtype(
    [
        ("x", np.float32),  # m, in the camera's optical frame; NaN, as y and z, where there is no depth
        ("y", np.float32),
        ("z", np.float32),
        ("rgb", np.uint32),  # red << 16 | green << 8 | blue, which PCL and rviz read as a float32
        ("class", np.uint8),  # as in the semantic image
        ("confidence", np.uint8),
        ("instance", np.uint16),
    ]
)
"""A point, 20 bytes, each field at a multiple of its size."""

FIELD_TYPES = {np.dtype(np.uint8): 2, np.dtype(np.uint16): 4, np.dtype(np.float32): 7}
"""{type: sensor_msgs/PointField's number of it}."""

_BAND_ROWS = 120  # of 640 pixels, whose intermediate results stay in a core's cache
_BAND_PIXELS = 640 * _BAND_ROWS


def metres(depth: np.ndarray) -> np.ndarray:
    """Return depth in m, float32, NaN where there is none: 0, negative, infinite.

    Args:
        depth: uint16 in mm, or float32 in m.
    """
    if depth.dtype == np.uint16:
        return _metres_of_millimetres().take(depth)
    return np.where((depth > 0) & (depth < np.inf), depth, np.float32(np.nan))


def fill_cloud(
    cloud: np.ndarray,
    z: np.ndarray,
    rgb: np.ndarray,
    semantic: np.ndarray,
    instance: np.ndarray,
    confidence: np.ndarray,
    intrinsics: Intrinsics,
) -> None:
    """Fill an organised cloud: z = depth, x = (u - cx) z / fx, y = (v - cy) z / fy.

    On several cores, bands of rows are filled beside each other: NumPy and OpenCV release Python's lock.

    Args:
        cloud: (H, W) of `POINT`, contiguous.
        z: (H, W) float32 in m, NaN without depth.
        rgb: (H, W, 3) uint8.
        semantic: (H, W) uint8.
        instance: (H, W) uint16.
        confidence: (H, W) uint8.
        intrinsics: Of these pixels.
    """
    height, width = cloud.shape
    x_per_z = ((np.arange(width) - intrinsics.cx) / intrinsics.fx).astype(np.float32)
    y_per_z = ((np.arange(height) - intrinsics.cy) / intrinsics.fy).astype(np.float32)[:, None]
    points = cloud.view(np.int32).reshape(height, width, 5)

    def fill(rows: slice) -> None:
        depth = z[rows]
        color, labels = np.zeros((*depth.shape, 4), np.uint8), np.empty((*depth.shape, 4), np.uint8)
        cv2.mixChannels([rgb[rows]], [color], [0, 2, 1, 1, 2, 0])
        labels[..., 0], labels[..., 1] = semantic[rows], confidence[rows]
        labels.view(np.uint16)[..., 1] = instance[rows]
        parts = (depth * x_per_z, depth * y_per_z[rows], depth, color, labels)
        cv2.merge([part.view(np.int32).reshape(depth.shape) for part in parts], points[rows])

    bands = max(1, height * width // _BAND_PIXELS)
    starts = [height * band // bands for band in range(bands + 1)]
    list(_threads().map(fill, map(slice, starts, starts[1:])))


def cloud_layout(size: tuple[int, int]) -> dict[str, Any]:
    """Return the fields that say how an organised cloud of (height, width) lies in a sensor_msgs/PointCloud2.

    Its `fields` are dictionaries, one for each PointField.
    """
    fields = []
    for name in POINT.names or ():
        kind, offset = POINT.fields[name][:2]  # type: ignore[index]
        datatype = FIELD_TYPES[np.dtype(np.float32) if name == "rgb" else kind]
        fields.append({"name": name, "offset": offset, "datatype": datatype, "count": 1})
    return {
        "height": size[0], "width": size[1], "fields": fields, "is_bigendian": sys.byteorder == "big",
        "point_step": POINT.itemsize, "row_step": size[1] * POINT.itemsize, "is_dense": False,
    }  # fmt: skip


@functools.cache
def _metres_of_millimetres() -> np.ndarray:
    table: np.ndarray = np.arange(2**16, dtype=np.float32) / np.float32(1000)
    table[0] = np.nan
    return table


@functools.cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(2, "cloud")
