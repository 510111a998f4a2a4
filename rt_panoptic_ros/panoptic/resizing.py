# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""A frame's labels at another size, such as a point cloud's."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from rt_panoptic_ros.records import PanopticResult


def nearest(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return an image, (H, W) or (H, W, C), at (height, width) px: of each pixel's centre the pixel that it lies in."""
    if image.size == 0 or image.shape[:2] == size:
        return image
    resized: np.ndarray = cv2.resize(image, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
    return resized


def resized(result: PanopticResult, size: tuple[int, int]) -> tuple[PanopticResult, np.ndarray]:
    """Return a result in the pixels of another size, by nearest neighbour, and which of its objects are left.

    Args:
        result: With its instance image, under ids of at most some thousands; what the table doesn't list is no object.
        size: (height, width), px.

    Returns:
        The result, and (n,) bool by row of the table: an object without a pixel at that size is left out.
    """
    from scipy.ndimage import find_objects  # which starts would wait for, and few ask for another size

    table, instance = result.detections, nearest(result.instance, size)
    scale = np.tile(np.array(size[::-1], np.float32) / result.instance.shape[::-1], 2)
    largest = int(table.ids.max(initial=0))
    areas = np.bincount(instance.ravel(), minlength=largest + 1)[table.ids]
    places = find_objects(instance, largest)
    kept = areas > 0
    table = table.rows(kept)
    boxes = [(x.start, y.start, x.stop - 1, y.stop - 1) for y, x in (places[number - 1] for number in table.ids)]
    table = replace(
        table,
        boxes=(table.boxes * scale).astype(np.float32),
        mask_boxes=np.array(boxes, np.int32).reshape(-1, 4),
        areas=areas[kept].astype(np.uint32),
    )
    confidence = None if result.confidence is None else nearest(result.confidence, size)
    return replace(
        result, semantic=nearest(result.semantic, size), instance=instance, detections=table, confidence=confidence
    ), kept
