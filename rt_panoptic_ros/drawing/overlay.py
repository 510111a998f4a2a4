# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Pictures for people: a panoptic result drawn over its image, and contact sheets."""

from __future__ import annotations

import colorsys
from functools import lru_cache
from typing import TYPE_CHECKING

import cv2
import numpy as np

from rt_panoptic_ros.drawing.labels import FONT, draw_labels, text_scale
from rt_panoptic_ros.drawing.palettes import recolored
from rt_panoptic_ros.errors import InvalidInputError
from rt_panoptic_ros.records import VOID, DetectionTable, PanopticResult
from rt_panoptic_ros.settings import OVERLAY_OPACITY, PALETTES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rt_panoptic_ros.model.class_table import ClassTable

_SHEET_BACKGROUND = (24, 24, 27)
_SHEET_TEXT = (228, 228, 231)


def render_overlay(
    image_rgb: np.ndarray,
    result: PanopticResult,
    classes: ClassTable,
    opacity: float = OVERLAY_OPACITY,
    palette: str = PALETTES[0],
) -> np.ndarray:
    """Draw a result over its image: class colours, a shade, an outline and a label for each object, void darkened.

    A label that would lie on one of a better object is left out.

    Args:
        image_rgb: (H, W, 3) uint8 RGB; not changed.
        result: What the pipeline made of the image.
        classes: The classes that the result's semantic values count.
        opacity: Share of the class colours in the picture, 0 to 1.
        palette: dataset for the classes' own colours, colorblind for ones that colour-blind people tell apart.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        InvalidInputError: The image is no RGB image, of another size than the result, the opacity is out of range, or
            there is no such palette.
    """
    _require_rgb(image_rgb)
    if not image_rgb.shape[:2] == result.semantic.shape == result.instance.shape:
        raise InvalidInputError(
            f"expected an image of the result's size {result.semantic.shape}, got {image_rgb.shape[:2]}: "
            "draw the result over the image that it was made from"
        )
    if not 0 <= opacity <= 1:
        raise InvalidInputError(f"expected an opacity from 0 to 1, got {opacity}")
    ids = result.detections.ids
    shades = instance_colors(result.detections.class_ids, ids, classes, palette)
    shade_of = np.zeros((int(ids.max(initial=0)) + 1, 3), np.uint8)
    shade_of[ids] = shades
    # One table for all pixels: semantic values first, then the objects' ids from 1.
    table = np.concatenate([recolored(classes, palette).colors, shade_of[1:]])
    index = np.add(result.instance, VOID, dtype=np.min_scalar_type(len(table)))  # (H, W), 16 bits unless ids need more
    np.copyto(index, result.semantic, where=result.instance == 0)
    overlay = cv2.addWeighted(painted(table, index), opacity, image_rgb, 1 - opacity, 0)
    if len(shades):
        _draw_outlines(overlay, result.instance, shade_of)
        draw_labels(overlay, result, classes, shades)
    return overlay


def painted(palette: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Return palette[index], (H, W, 3) uint8: taking whole 32-bit pixels is five times faster than taking rows.

    Args:
        palette: (n, 3) uint8.
        index: (H, W) of an unsigned type, below n.
    """
    words = np.zeros((len(palette), 4), np.uint8)
    words[:, :3] = palette
    pixels = np.take(words.view(np.uint32).ravel(), index, mode="clip")
    rgb: np.ndarray = cv2.cvtColor(pixels.view(np.uint8).reshape(*index.shape, 4), cv2.COLOR_RGBA2RGB)
    return rgb


def warm_overlay(classes: ClassTable) -> None:
    """Draw an object of these classes in every palette, so that no later picture waits for palettes or fonts."""
    things = np.array(classes.thing_ids[:1], np.uint8)
    rows = len(things)  # 0 where nothing is countable
    boxes = np.array([[0, 0, 31, 31]], np.int32)[:rows]
    table = DetectionTable(things, np.ones(rows, np.float32), boxes.astype(np.float32), boxes, np.ones(rows, np.uint32))
    result = PanopticResult(np.zeros((32, 32), np.uint8), np.full((32, 32), rows, np.uint16), table)
    for palette in PALETTES:
        render_overlay(np.zeros((32, 32, 3), np.uint8), result, classes, palette=palette)


def instance_colors(
    class_ids: np.ndarray, instance_ids: np.ndarray, classes: ClassTable, palette: str = "dataset"
) -> np.ndarray:
    """Return a shade around its class's colour for each object; the same class and id always give the same shade.

    Args:
        class_ids: (n,) integers.
        instance_ids: (n,) integers from 1.
        classes: Gives the classes' own colours.
        palette: As of `render_overlay`.

    Returns:
        (n, 3) uint8 RGB.
    """
    colors = recolored(classes, palette).colors
    if palette == "colorblind":
        return _close_shades(colors[class_ids], instance_ids)
    rows = zip(colors[class_ids].tolist(), instance_ids.tolist(), strict=True)
    return np.array([_shade(*color, instance_id) for color, instance_id in rows], np.uint8).reshape(-1, 3)


def contact_sheet(
    images: Sequence[np.ndarray], columns: int, width_px: int, captions: Sequence[str] | None = None
) -> np.ndarray:
    """Lay images out in rows on one dark sheet.

    Args:
        images: (H_i, W_i, 3) uint8 RGB; each is scaled to its cell's width, its proportions kept.
        columns: Images beside each other.
        width_px: Width of the sheet.
        captions: One line below each image, shortened where it is too long.

    Returns:
        (height, width_px, 3) uint8 RGB; the height follows from the images.

    Raises:
        InvalidInputError: There is no image, one is not RGB, captions are missing, or the columns do not fit.
    """
    if not images:
        raise InvalidInputError("expected at least one image for a contact sheet, got none")
    if captions is not None and len(captions) != len(images):
        raise InvalidInputError(f"expected {len(images)} captions, one for each image, got {len(captions)}")
    gap = max(2, width_px // 160)
    if columns < 1 or (width_px - gap) // columns - gap < 1:
        raise InvalidInputError(f"expected from 1 to {max(1, width_px // 4)} columns on {width_px} px, got {columns}")
    for image in images:
        _require_rgb(image)

    edges = np.linspace(gap, width_px, columns + 1).round().astype(int)  # each cell's left edge and the end
    text_height = max(9, width_px // 125)
    scale, thickness = text_scale(text_height), max(1, text_height // 12)
    strips = [np.full((gap, width_px, 3), _SHEET_BACKGROUND, np.uint8)]
    for first in range(0, len(images), columns):
        cells = [
            _scaled(image, edges[k + 1] - gap - edges[k]) for k, image in enumerate(images[first : first + columns])
        ]
        picture_height = max(map(len, cells))
        height = picture_height + gap + (2 * text_height if captions else 0)
        strip = np.full((height, width_px, 3), _SHEET_BACKGROUND, np.uint8)
        for k, cell in enumerate(cells):
            strip[: len(cell), edges[k] : edges[k] + cell.shape[1]] = cell
            if captions:
                line = _shortened(captions[first + k], cell.shape[1], scale, thickness)
                baseline = (int(edges[k]), picture_height + gap // 2 + text_height + text_height // 3)
                cv2.putText(strip, line, baseline, FONT, scale, _SHEET_TEXT, thickness, cv2.LINE_AA)
        strips.append(strip)
    return np.concatenate(strips)


@lru_cache(maxsize=4096)
def _shade(red: int, green: int, blue: int, instance_id: int) -> tuple[int, int, int]:
    """Vary a class colour's hue a little and its lightness much, spread evenly over the ids (Roberts' R2 sequence)."""
    hue, lightness, saturation = colorsys.rgb_to_hls(red / 255, green / 255, blue / 255)
    turn = (instance_id * 0.5698402910) % 1 - 0.5
    step = (instance_id * 0.7548776662) % 1
    hue = (hue + 0.08 * turn) % 1
    # Dark class colours are lifted: an object must stand out from the street behind it.
    lightness = 0.2 * min(max(lightness, 0.35), 0.65) + 0.8 * (0.34 + 0.41 * step)
    saturation = max(saturation, 0.65) if saturation > 0.05 else 0.0
    r, g, b = colorsys.hls_to_rgb(hue, lightness, saturation)
    return round(r * 255), round(g * 255), round(b * 255)


def _close_shades(colors: np.ndarray, instance_ids: np.ndarray) -> np.ndarray:
    """Mix colours with a little black or white: more would make a class look like another to colour-blind people."""
    share = 0.12 * (instance_ids * 0.7548776662 % 1) - 0.06
    toward = np.where(share < 0, 0.0, 255.0)[:, None]
    shades: np.ndarray = np.rint(colors + (toward - colors) * np.abs(share)[:, None]).astype(np.uint8)
    return shades


def _draw_outlines(overlay: np.ndarray, instance: np.ndarray, shade_of: np.ndarray) -> None:
    """Draw a light line along the inside of each object's border, wide enough to be seen in an image scaled down."""
    width = max(1, round(min(instance.shape) / 450))
    kernel = np.ones((2 * width + 1, 2 * width + 1), np.uint8)
    border = (cv2.morphologyEx(instance, cv2.MORPH_GRADIENT, kernel) > 0) & (instance > 0)
    places = np.flatnonzero(border)
    light = (shade_of.astype(np.uint16) + 2 * 255) // 3
    overlay.reshape(-1, 3)[places] = light.astype(np.uint8)[instance.ravel()[places]]


def _shortened(text: str, width_px: int, scale: float, thickness: int) -> str:
    """Return a line in what letters OpenCV's font has, cut to a width, with dots for what is gone."""
    text = kept = text.encode("ascii", "replace").decode()
    while kept and cv2.getTextSize(kept, FONT, scale, thickness)[0][0] > width_px:
        text = text[:-1]
        kept = f"{text.rstrip()}..." if text else ""
    return kept


def _scaled(image: np.ndarray, width_px: int) -> np.ndarray:
    height_px = max(1, round(image.shape[0] * width_px / image.shape[1]))
    method = cv2.INTER_AREA if width_px < image.shape[1] else cv2.INTER_CUBIC
    scaled: np.ndarray = cv2.resize(image, (int(width_px), height_px), interpolation=method)
    return scaled


def _require_rgb(image: np.ndarray) -> None:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or image.size == 0:
        raise InvalidInputError(f"expected a (H, W, 3) uint8 RGB image, got {image.shape} {image.dtype}")
