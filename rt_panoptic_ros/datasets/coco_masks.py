# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Masks and boxes of COCO's instances format, checked: polygons, run lengths as numbers or as text, and boxes."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

import numpy as np

from rt_panoptic_ros.errors import require

if TYPE_CHECKING:
    from collections.abc import Sequence

_TOLERANCE_PX = 2.0
"""How far labels may reach out of the image, as rounding tools make them; they are cut off at its border."""


def encode_mask(segmentation: Any, size: tuple[int, int], where: str) -> str:
    """Return a mask's run lengths in their text form, which takes the least memory.

    Args:
        segmentation: A list of polygons [x0, y0, x1, y1, ...] px that together are the mask, or run lengths down the
            columns, the first of background: {size: [height, width], counts: numbers, or their text form}.
        size: (height, width) of the image, px.
        where: Names the annotation, for messages.

    Raises:
        InvalidInputError: A polygon with fewer than three corners or outside of the image, or run lengths of another
            image.
    """
    from pycocotools import mask as masks

    if isinstance(segmentation, dict):
        counts = segmentation["counts"]
        counts = counts_of_text(counts) if isinstance(counts, str) else [int(count) for count in counts]
        require(
            segmentation["size"] == list(size) and min(counts, default=0) >= 0 and sum(counts) == math.prod(size),
            f"run lengths from 0 that sum up to the image's {size[0]} x {size[1]} px in {where}",
            f"size {segmentation['size']} and a sum of {sum(counts)}: export the labels again",
        )
        encoded = masks.frPyObjects({"size": list(size), "counts": counts}, *size)
    else:
        polygons = [_inside(polygon, size, where) for polygon in segmentation if polygon]
        encoded = masks.merge(masks.frPyObjects(polygons, *size))
    text: str = encoded["counts"].decode()
    return text


def mask_pixels(counts: Sequence[int], size: tuple[int, int]) -> np.ndarray:
    """Return the pixels of a mask of `size` (height, width) px from its run lengths, (H, W) bool."""
    pixels: np.ndarray = np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(size, order="F")
    return pixels


def _inside(polygon: Sequence[float], size: tuple[int, int], where: str) -> np.ndarray:
    """Return a polygon's coordinates within the image, (2 k,) float64."""
    corners = np.asarray(polygon, np.float64)
    require(
        corners.ndim == 1 and len(corners) >= 6 and len(corners) % 2 == 0,
        f"polygons as x and y of three corners or more in {where}",
        f"{corners.size} numbers: remove it or draw it again",
    )
    limits = np.array(size[::-1], np.float64)
    points = corners.reshape(-1, 2)
    within = ((points >= -_TOLERANCE_PX) & (points <= limits + _TOLERANCE_PX)).all(axis=1)  # nan isn't
    require(
        bool(within.all()),
        f"corners within the image's {size[1]} x {size[0]} px (width x height) in {where}",
        f"{points[~within][:1].tolist()}: draw the polygon again, or export the labels with the image they belong to",
    )
    inside: np.ndarray = points.clip(0, limits).ravel()
    return inside


def checked_box(bbox: Sequence[float], size: tuple[int, int], where: str) -> tuple[float, float, float, float]:
    """Return a box (x, y, width, height, px) as xyxy within the image.

    Raises:
        InvalidInputError: Not four numbers, no area, or outside of the image.
    """
    left, top, width, height = (float(number) for number in bbox)
    rows, columns = size
    require(
        width > 0 and height > 0
        and left >= -_TOLERANCE_PX and left + width <= columns + _TOLERANCE_PX and left < columns
        and top >= -_TOLERANCE_PX and top + height <= rows + _TOLERANCE_PX and top < rows
        and left + width > 0 and top + height > 0,
        f"a box with an area and within the image's {columns} x {rows} px (width x height) in {where}",
        f"x, y, width, height = {list(bbox)}: remove it or draw it again",
    )  # fmt: skip
    return max(left, 0.0), max(top, 0.0), min(left + width, float(columns)), min(top + height, float(rows))


def counts_of_text(text: str) -> list[int]:
    """Return the run lengths in a text as pycocotools writes it: five bits a character, from the third on differences.

    pycocotools reads beyond the end of a damaged one, so it is read here.

    Raises:
        ValueError: The text is damaged.
    """
    strange = re.search("[^0-o]", text)
    if strange is not None:
        raise ValueError(f"character {strange[0]!r} in run lengths")
    bits = np.frombuffer(text.encode(), np.uint8).astype(np.int64) - ord("0")
    is_last = bits & 32 == 0  # of a number's characters; more follow behind the others
    if len(bits) and not is_last[-1]:
        raise ValueError("end of run lengths")
    firsts = np.flatnonzero(np.append(True, is_last)[: len(bits)])
    lengths = np.diff(firsts, append=len(bits))
    places = np.arange(len(bits)) - np.repeat(firsts, lengths)
    numbers = np.add.reduceat((bits & 31) << 5 * places, firsts)
    numbers -= np.where(bits[is_last] & 16, 1 << 5 * lengths, 0)  # the highest bit is the sign
    numbers[1::2] = numbers[1::2].cumsum()
    numbers[2::2] = numbers[2::2].cumsum()
    counts: list[int] = numbers.tolist()
    return counts
