# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Network outputs made for tests: random ones, and ideal ones of known objects."""

from __future__ import annotations

import os
from collections.abc import Sequence

import cv2
import numpy as np
import warp as wp

from rt_panoptic_ros.records import STRIDES, DenseDetections, ImageGeometry

DEVICE = os.environ.get("RT_PANOPTIC_TEST_DEVICE", "cpu")
"""Warp's name of where the kernels' tests run: cpu or cuda:0."""

CLASSES = 7
THING_IDS = (3, 5, 6)


def grid_sizes(size: tuple[int, int]) -> list[tuple[int, int]]:
    """Return the levels' (h, w) of a network input of `size`."""
    return [(-(-size[0] // stride), -(-size[1] // stride)) for stride in STRIDES]


def same_geometry(size: tuple[int, int]) -> ImageGeometry:
    """Return the geometry of a camera whose images are the network's input."""
    return ImageGeometry(*size, *size, *size)


def to_device(array: np.ndarray) -> wp.array:
    """Return a float32 array on `DEVICE`."""
    return wp.array(np.ascontiguousarray(array, np.float32), dtype=wp.float32, device=DEVICE)


def random_dense(
    seed: int, size: tuple[int, int], *, levelness: bool = True, box_bias: float = -2.0, reach_px: float = 30.0
) -> DenseDetections:
    """Return smooth random outputs for a network input of `size`, with some detections and many class borders."""
    random = np.random.default_rng(seed)
    levels = grid_sizes(size)

    def smooth(channels: int, shape: tuple[int, int], gain: float) -> np.ndarray:
        coarse = random.standard_normal((channels, max(2, shape[0] // 4), max(2, shape[1] // 4)))
        planes = [cv2.resize(plane, shape[::-1], interpolation=cv2.INTER_CUBIC) for plane in coarse]
        return gain * np.stack(planes) + 0.05 * gain * random.standard_normal((channels, *shape))

    fine = (2 * levels[0][0], 2 * levels[0][1])
    semantic = smooth(CLASSES, levels[0], 3.0)
    semantic[list(THING_IDS)] += 1.0
    return DenseDetections(
        semantic_logits=to_device(semantic),
        levelness_logits=to_device(smooth(6, fine, 2.0)) if levelness else None,
        box_class_logits=tuple(to_device(smooth(len(THING_IDS), shape, 1.5) + box_bias) for shape in levels),
        box_offsets=tuple(to_device(reach_px * np.exp(0.4 * smooth(4, shape, 1.0))) for shape in levels),
        centerness_logits=tuple(to_device(smooth(1, shape, 1.5)) for shape in levels),
    )


def ideal_dense(
    size: tuple[int, int], objects: Sequence[tuple[int, tuple[float, float, float, float]]], *, score_step: float = 0.3
) -> DenseDetections:
    """Return what a perfect network would say of `objects`, (thing index, xyxy px box that it fills), on class 0.

    Later objects lie above earlier ones; each is one level-0 detection at the cell nearest its centre, and its logit
    falls by `score_step` from object to object (0: all scores are equal).
    """
    levels = grid_sizes(size)
    height, width = levels[0]
    fine = (2 * height, 2 * width)
    semantic = np.zeros((CLASSES, height, width))
    semantic[0] = 4.0
    levelness = np.zeros((6, *fine))
    levelness[0] = 5.0
    classes = [np.full((len(THING_IDS), *shape), -9.0) for shape in levels]
    offsets = [np.full((4, *shape), 1.0) for shape in levels]
    centerness = [np.full((1, *shape), 8.0) for shape in levels]
    y8, x8 = np.mgrid[:height, :width] * 8 + 4
    y4, x4 = np.mgrid[: fine[0], : fine[1]] * 4 + 2
    for rank, (thing, (left, top, right, bottom)) in enumerate(objects):
        inside = (x8 >= left) & (x8 <= right) & (y8 >= top) & (y8 <= bottom)
        semantic[:, inside] = 0
        semantic[THING_IDS[thing], inside] = 9.0
        levelness[1, (x4 >= left) & (x4 <= right) & (y4 >= top) & (y4 <= bottom)] = 9.0
        own = np.stack([x8 - left, y8 - top, right - x8, bottom - y8])
        offsets[0] = np.where(inside, own, offsets[0])
        row = int(np.clip(((top + bottom) / 2 - 4) / 8, 0, height - 1))
        column = int(np.clip(((left + right) / 2 - 4) / 8, 0, width - 1))
        offsets[0][:, row, column] = np.maximum(own[:, row, column], 0.1)
        classes[0][thing, row, column] = 4.0 - score_step * rank
    return DenseDetections(
        to_device(semantic), to_device(levelness), *(tuple(map(to_device, x)) for x in (classes, offsets, centerness))
    )
