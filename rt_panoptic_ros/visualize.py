"""Pictures for people: a panoptic result drawn over its image, and contact sheets."""

from __future__ import annotations

import colorsys
from functools import lru_cache
from typing import TYPE_CHECKING

import cv2
import numpy as np

from rt_panoptic_ros.errors import InvalidInputError
from rt_panoptic_ros.records import VOID

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rt_panoptic_ros.class_table import ClassTable
    from rt_panoptic_ros.records import PanopticResult

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_SHEET_BACKGROUND = (24, 24, 27)
_SHEET_TEXT = (228, 228, 231)


def render_overlay(
    image_rgb: np.ndarray,
    result: PanopticResult,
    classes: ClassTable,
    opacity: float = 0.5,
    ids: np.ndarray | None = None,
) -> np.ndarray:
    """Draw a result over its image: class colours, a shade, an outline and a label for each object, void darkened.

    Args:
        image_rgb: (H, W, 3) uint8 RGB; not changed.
        result: What the pipeline made of the image.
        classes: The classes that the result's semantic values count.
        opacity: Share of the class colours in the picture, 0 to 1.
        ids: (n,) integers from 1, the objects' lasting ids; None for their numbers in this image.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        InvalidInputError: The image is no RGB image, of another size than the result, or the opacity is out of range.
    """
    _require_rgb(image_rgb)
    if not image_rgb.shape[:2] == result.semantic.shape == result.instance.shape:
        raise InvalidInputError(
            f"expected an image of the result's size {result.semantic.shape}, got {image_rgb.shape[:2]}: "
            "draw the result over the image that it was made from"
        )
    if not 0 <= opacity <= 1:
        raise InvalidInputError(f"expected an opacity from 0 to 1, got {opacity}")
    if ids is None:
        ids = np.arange(1, len(result.detections) + 1)
    shades = instance_colors(result.detections.class_ids, ids, classes)
    # One palette for all pixels: semantic values first, then the objects.
    palette = np.concatenate([classes.colors, shades])
    index = np.where(result.instance > 0, result.instance + np.uint16(VOID), result.semantic)  # (H, W) uint16
    overlay = cv2.addWeighted(_paint(palette, index), opacity, image_rgb, 1 - opacity, 0)
    if len(shades):
        _draw_outlines(overlay, result.instance, shades)
        _draw_labels(overlay, result, classes, ids, shades)
    return overlay


def instance_colors(class_ids: np.ndarray, instance_ids: np.ndarray, classes: ClassTable) -> np.ndarray:
    """Return a shade around its class's colour for each object; the same class and id always give the same shade.

    Args:
        class_ids: (n,) integers.
        instance_ids: (n,) integers from 1.
        classes: Gives the classes' colours.

    Returns:
        (n, 3) uint8 RGB.
    """
    shades = [
        _shade(*(int(channel) for channel in classes.colors[class_id]), int(instance_id))
        for class_id, instance_id in zip(class_ids, instance_ids, strict=True)
    ]
    return np.array(shades, np.uint8).reshape(-1, 3)


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
    scale, thickness = _text_scale(text_height), max(1, text_height // 12)
    strips = [_blank(gap, width_px)]
    for first in range(0, len(images), columns):
        cells = [
            _scaled(image, edges[k + 1] - gap - edges[k]) for k, image in enumerate(images[first : first + columns])
        ]
        picture_height = max(len(cell) for cell in cells)
        strip = _blank(picture_height + gap + (2 * text_height if captions else 0), width_px)
        for k, cell in enumerate(cells):
            strip[: len(cell), edges[k] : edges[k] + cell.shape[1]] = cell
            if captions:
                line = _shortened(_ascii(captions[first + k]), cell.shape[1], scale, thickness)
                baseline = (int(edges[k]), picture_height + gap // 2 + text_height + text_height // 3)
                cv2.putText(strip, line, baseline, _FONT, scale, _SHEET_TEXT, thickness, cv2.LINE_AA)
        strips.append(strip)
    return np.concatenate(strips)


def _paint(palette: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Return palette[index] as (H, W, 3): taking whole 32-bit pixels is five times faster than taking rows."""
    words = np.zeros((len(palette), 4), np.uint8)
    words[:, :3] = palette
    pixels = np.take(words.view(np.uint32).ravel(), index, mode="clip")
    rgb: np.ndarray = cv2.cvtColor(pixels.view(np.uint8).reshape(*index.shape, 4), cv2.COLOR_RGBA2RGB)
    return rgb


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


def _draw_outlines(overlay: np.ndarray, instance: np.ndarray, shades: np.ndarray) -> None:
    """Draw a thin light line along the inside of each object's border."""
    width = max(1, round(min(instance.shape) / 700))
    kernel = np.ones((2 * width + 1, 2 * width + 1), np.uint8)
    border = (cv2.morphologyEx(instance, cv2.MORPH_GRADIENT, kernel) > 0) & (instance > 0)
    places = np.flatnonzero(border)
    light = (shades.astype(np.uint16) + 2 * 255) // 3
    overlay.reshape(-1, 3)[places] = light.astype(np.uint8)[instance.ravel()[places] - 1]


def _draw_labels(
    overlay: np.ndarray, result: PanopticResult, classes: ClassTable, ids: np.ndarray, shades: np.ndarray
) -> None:
    """Write name, id and score at each object, the best scores first to choose their place."""
    height, width = overlay.shape[:2]
    text_height = max(8, round((height * width) ** 0.5 / 100))
    scale, thickness = _text_scale(text_height), max(1, text_height // 10)
    # The spaces of small text all but vanish, and "3 0.71" must not read 30.71: words are set apart here.
    pad, space = max(2, text_height // 4), text_height // 2
    table = result.detections
    labels = [
        (*_ascii(classes.names[class_id]).split(), str(instance_id), f"{score:.2f}")
        for class_id, instance_id, score in zip(table.class_ids, ids, table.scores, strict=True)
    ]
    steps = [[cv2.getTextSize(word, _FONT, scale, thickness)[0][0] + space for word in words] for words in labels]
    label_height = text_height + 2 * pad + text_height // 4  # room for descenders
    sizes = np.array([(sum(widths) - space + 2 * pad, label_height) for widths in steps])
    tops = np.array([  # where each object's highest pixels lie
        x_min + np.flatnonzero(result.instance[y_min, x_min : x_max + 1] == row + 1).mean()
        for row, (x_min, y_min, x_max, _) in enumerate(table.mask_boxes.tolist())
    ])  # fmt: skip
    corners = place_labels(table.mask_boxes, tops.astype(np.int32), sizes, (height, width))
    for row, (x, y) in enumerate(corners.tolist()):
        shade = shades[row].tolist()
        cv2.rectangle(overlay, (x, y), (x + int(sizes[row, 0]) - 1, y + label_height - 1), shade, cv2.FILLED)
        pen = x + pad
        for word, step in zip(labels[row], steps[row], strict=True):
            cv2.putText(overlay, word, (pen, y + pad + text_height), _FONT, scale, _ink(*shade), thickness, cv2.LINE_AA)
            pen += step


def place_labels(boxes: np.ndarray, anchors: np.ndarray, sizes: np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
    """Choose a place for each label near its object, where it covers no other label and few objects.

    Args:
        boxes: (n, 4) integers, the objects' x_min, y_min, x_max, y_max inclusive, px; earlier ones choose first.
        anchors: (n,) integers, the x at which each label is centred if it can be, px.
        sizes: (n, 2) integers, the labels' width and height, px.
        image_size: (height, width), px; labels lie inside as far as they fit.

    Returns:
        (n, 2) int32, the labels' top left pixels (x, y).
    """
    height, width = image_size
    count = len(boxes)
    # What labels should not cover: the objects, then the labels that have their place. Another label is never worth
    # covering; an object is, sooner than moving far away.
    firsts = np.concatenate([boxes[:, :2], np.zeros((count, 2), boxes.dtype)])
    ends = np.concatenate([boxes[:, 2:] + 1, np.zeros((count, 2), boxes.dtype)])
    areas = np.concatenate([(ends - firsts)[:count].prod(axis=1), sizes.prod(axis=1)])
    weights = np.repeat([1.0, 1e6], count)
    for row, (w, h) in enumerate(sizes.tolist()):
        x_min, y_min, x_max, y_max = boxes[row].tolist()
        rungs = [
            y_min - h,
            y_min,
            y_max + 1,
            *(y for k in (1, 2, 3, 4) for y in (y_min - h - k * h, y_max + 1 + k * h)),
        ]
        wishes = np.array([(x, y) for y in rungs for x in (int(anchors[row]) - w // 2, x_min, x_max + 1 - w)])
        places = np.clip(wishes, 0, (max(0, width - w), max(0, height - h)))
        there = count + row
        shared = np.minimum(places[:, None] + sizes[row], ends[:there]) - np.maximum(places[:, None], firsts[:there])
        np.maximum(shared, 0, out=shared)
        covered = shared[..., 0] * shared[..., 1] / np.minimum(areas[:there], w * h)  # share of the smaller one
        cost = covered @ weights[:there] + 0.2 * (np.arange(len(places)) // 3)
        firsts[there] = places[np.argmin(cost)]  # the first among equals
        ends[there] = firsts[there] + sizes[row]
    return firsts[count:].astype(np.int32)


def _ink(red: int, green: int, blue: int) -> tuple[int, int, int]:
    """Return black or white, whichever can be read on the colour."""
    luminance = 0.2126 * (red / 255) ** 2.2 + 0.7152 * (green / 255) ** 2.2 + 0.0722 * (blue / 255) ** 2.2
    return (0, 0, 0) if luminance > 0.179 else (255, 255, 255)  # where both have equal contrast (WCAG 2)


def _text_scale(height_px: int) -> float:
    """Return the font scale whose digits are `height_px` tall."""
    return float(height_px / cv2.getTextSize("0", _FONT, 1.0, 1)[0][1])


def _ascii(text: str) -> str:
    """Replace what OpenCV's font cannot draw."""
    return text.encode("ascii", "replace").decode()


def _shortened(text: str, width_px: int, scale: float, thickness: int) -> str:
    """Cut a line to a width, with dots for what is gone."""
    kept = text
    while kept and cv2.getTextSize(kept, _FONT, scale, thickness)[0][0] > width_px:
        text = text[:-1]
        kept = f"{text.rstrip()}..." if text else ""
    return kept


def _scaled(image: np.ndarray, width_px: int) -> np.ndarray:
    height_px = max(1, round(image.shape[0] * width_px / image.shape[1]))
    shrinks = width_px < image.shape[1]
    scaled: np.ndarray = cv2.resize(
        image, (int(width_px), height_px), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    )
    return scaled


def _blank(height_px: int, width_px: int) -> np.ndarray:
    return np.full((height_px, width_px, 3), _SHEET_BACKGROUND, np.uint8)


def _require_rgb(image: np.ndarray) -> None:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or image.size == 0:
        raise InvalidInputError(f"expected a (H, W, 3) uint8 RGB image, got {image.shape} {image.dtype}")
