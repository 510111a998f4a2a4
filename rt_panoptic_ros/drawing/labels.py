# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The names written at objects: their size, their place, and text that can be read."""

from __future__ import annotations

import unicodedata
from functools import lru_cache
from typing import TYPE_CHECKING

import cv2
import numpy as np

from rt_panoptic_ros.drawing.color_vision import luminance

if TYPE_CHECKING:
    from rt_panoptic_ros.model.class_table import ClassTable
    from rt_panoptic_ros.records import PanopticResult

FONT = cv2.FONT_HERSHEY_SIMPLEX


def draw_labels(overlay: np.ndarray, result: PanopticResult, classes: ClassTable, shades: np.ndarray) -> None:
    """Write name, id and score at each object that has room for it, the best scores first to choose their place.

    Args:
        overlay: (H, W, 3) uint8 RGB, written on.
        result: The objects, at least one.
        classes: Their names.
        shades: (n, 3) uint8 RGB, the labels' plates.
    """
    height, width = overlay.shape[:2]
    # A large image is seen scaled down, so its text grows with it; below 8 px letters are no longer letters.
    text_height = max(8, round((height * width) ** 0.5 / 72))
    scale, thickness = text_scale(text_height), max(1, text_height // 10)
    # The spaces of small text all but vanish, and "3 0.71" must not read 30.71: words are set apart here.
    pad, space = max(2, text_height // 4), text_height // 2
    table = result.detections
    labels = [
        (*drawable_name(classes.names[class_id], int(class_id)).split(), str(instance_id), f"{score:.2f}")
        for class_id, instance_id, score in zip(table.class_ids, table.ids, table.scores, strict=True)
    ]
    steps = [[_text_width(word, scale, thickness) + space for word in words] for words in labels]
    label_height = text_height + 2 * pad + text_height // 4  # room for descenders
    sizes = np.array([(sum(widths) - space + 2 * pad, label_height) for widths in steps])
    tops = np.array([  # where each object's highest pixels lie
        x_min + np.flatnonzero(result.instance[y_min, x_min : x_max + 1] == instance_id).mean()
        for instance_id, (x_min, y_min, x_max, _) in zip(table.ids, table.mask_boxes.tolist(), strict=True)
    ])  # fmt: skip
    corners = place_labels(table.mask_boxes, tops.astype(np.int32), sizes, (height, width))
    inks = readable_inks(shades).tolist()
    for row in np.flatnonzero(corners[:, 0] >= 0).tolist():
        x, y = corners[row].tolist()
        plate = (x + int(sizes[row, 0]) - 1, y + label_height - 1)
        cv2.rectangle(overlay, (x, y), plate, shades[row].tolist(), cv2.FILLED)
        pen = x + pad
        for word, step in zip(labels[row], steps[row], strict=True):
            cv2.putText(overlay, word, (pen, y + pad + text_height), FONT, scale, inks[row], thickness, cv2.LINE_AA)
            pen += step


def place_labels(boxes: np.ndarray, anchors: np.ndarray, sizes: np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
    """Choose a place for each label at its object: above it, inside its top, or below it, whichever hides least.

    Args:
        boxes: (n, 4) integers, the objects' x_min, y_min, x_max, y_max inclusive, px; earlier ones choose first.
        anchors: (n,) integers, the x at which each label is centred if it can be, px.
        sizes: (n, 2) integers, the labels' width and height, px.
        image_size: (height, width), px.

    Returns:
        (n, 2) int32, the labels' top left pixels (x, y); (-1, -1) for one that would lie on an earlier one wherever it
        is put, or that is larger than the image.
    """
    height, width = image_size
    firsts, ends = boxes[:, :2], boxes[:, 2:] + 1
    areas = (ends - firsts).prod(axis=1).clip(1)  # empty ones share nothing
    corners = np.full((len(boxes), 2), -1, np.int32)
    plates, taken = np.zeros((2, len(boxes), 2), np.int64), 0  # first and end of the labels that have their place
    for row, (w, h) in enumerate(sizes.tolist()):
        if w > width or h > height:
            continue
        x_min, y_min, x_max, y_max = boxes[row].tolist()
        xs = (int(anchors[row]) - w // 2, x_min, x_max + 1 - w)
        wishes = [(x, y) for y in (y_min - h, y_min, y_max + 1) for x in xs]
        places = np.clip(wishes, 0, (width - w, height - h))
        free: np.ndarray = np.all(_shared(places, sizes[row], *plates[:, :taken]) == 0, axis=1)
        # Share of what the label hides: of the smaller of the two, but of its own object as much as is hidden.
        smaller = np.minimum(areas, w * h)
        smaller[row] = areas[row]
        hidden = (_shared(places, sizes[row], firsts, ends) / smaller).sum(axis=1)
        cost = np.where(free, hidden + 0.2 * (np.arange(len(places)) // 3), np.inf)
        best = int(np.argmin(cost))  # the first among equals
        if free[best]:
            corners[row] = places[best]
            plates[:, taken] = places[best], places[best] + sizes[row]
            taken += 1
    return corners


def readable_inks(plates: np.ndarray) -> np.ndarray:
    """Return black or white for each plate, whichever has more contrast: at least 4.58 by WCAG 2.

    Args:
        plates: (n, 3) uint8 RGB.

    Returns:
        (n, 3) uint8 RGB.
    """
    # The luminance at which (luminance + 0.05) / (0 + 0.05) equals (1 + 0.05) / (luminance + 0.05).
    balance = (1.05 * 0.05) ** 0.5 - 0.05
    inks: np.ndarray = np.where(luminance(plates) >= balance, 0, 255)
    return np.repeat(inks[:, None], 3, axis=1).astype(np.uint8)


@lru_cache(maxsize=512)
def drawable_name(name: str, class_id: int) -> str:
    """Return a class's name in letters that OpenCV's font has, accents dropped; 'class ID' where that isn't enough."""
    letters = [letter for letter in unicodedata.normalize("NFKD", name) if not unicodedata.combining(letter)]
    text = "".join(letters).strip()
    return text if text and text.isascii() and text.isprintable() else f"class {class_id}"


def text_scale(height_px: int) -> float:
    """Return the font scale whose digits are `height_px` tall."""
    return float(height_px / cv2.getTextSize("0", FONT, 1.0, 1)[0][1])


@lru_cache(maxsize=4096)
def _text_width(word: str, scale: float, thickness: int) -> int:
    return int(cv2.getTextSize(word, FONT, scale, thickness)[0][0])


def _shared(places: np.ndarray, size: np.ndarray, firsts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Return the pixels that labels of one size at each of (p, 2) places share with each of n boxes, (p, n)."""
    sides = np.minimum(places[:, None] + size, ends) - np.maximum(places[:, None], firsts)
    np.maximum(sides, 0, out=sides)
    area: np.ndarray = sides[..., 0] * sides[..., 1]
    return area
