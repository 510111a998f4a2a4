# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Random views of labelled images for training (Section 5.3), alone or with parts of others.

Everything is a pure function of samples and a NumPy generator, so that a training run can be resumed bit by bit.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import cv2
import numpy as np

from rt_panoptic_ros.datasets.copy_paste import CopyPasteSettings, CutOutBank, paste
from rt_panoptic_ros.datasets.photometric import color_jitter, degrade
from rt_panoptic_ros.errors import require
from rt_panoptic_ros.records import VOID

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rt_panoptic_ros.datasets.base import PanopticSample

Window = tuple[int, int, int, int]
"""Top, left, height and width, px."""


@dataclass(frozen=True, slots=True)
class AugmentationSettings:
    """What `augment` does; by default nothing.

    At most one of `crop_size`, `output_size` and `shortest_sides` is set, and it decides the size of the result:

    - none: the whole image, scaled by a factor from `scale_range`;
    - `crop_size`: a random window of the image, then scaled by a factor from `scale_range`, so sizes vary
      (Cityscapes in Section 5.3: crop_size (900, 1800), scale_range (0.7, 1.3));
    - `output_size`: the image is scaled by a factor from `scale_range`, then a random window of `output_size` is cut
      out and padded right and below where the scaled image is smaller, so that all results can be batched (CamVid);
    - `shortest_sides`: the whole image, scaled so that its shorter side gets one of these lengths, but its longer side
      at most `longest_side` (COCO in Section 5.3: shortest_sides (640, 720, 800), longest_side 1333).

    Raises:
        InvalidInputError: A value is out of its range, or two settings contradict each other.
    """

    crop_size: tuple[int, int] | None = None  # (height, width) of the window, px of the image
    output_size: tuple[int, int] | None = None  # (height, width) of the result, px
    scale_range: tuple[float, float] = (1.0, 1.0)  # (low, high), uniform; 2 doubles both sides
    base_size: tuple[int, int] | None = None  # (height, width) px that the image fits in at scale 1; None: its own
    shortest_sides: tuple[int, ...] = ()  # px, picked with equal chances
    longest_side: int | None = None  # px
    flip_probability: float = 0.0  # of mirroring left and right
    brightness: float = 0.0  # 0 to 1: these three are the x of `color_jitter`
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0  # 0 to 180 degrees, at most, to both sides
    grey_probability: float = 0.0  # of no colour at all
    gamma: float = 0.0  # x of the range [1 / (1 + x), 1 + x] that the exponent is drawn from, log-uniform
    blur: float = 0.0  # px, largest standard deviation; this and the next two are done to half of the images each
    noise: float = 0.0  # grey levels, largest standard deviation
    jpeg_quality: int = 100  # 1 to 100, lowest; 100 for no compression
    mosaic_probability: float = 0.0  # of four images beside and below each other, at half the scale; with `output_size`
    copy_paste: CopyPasteSettings = field(default_factory=CopyPasteSettings)

    def __post_init__(self) -> None:
        for name in ("crop_size", "output_size", "base_size"):
            size = getattr(self, name)
            fits = size is None or (len(size) == 2 and min(size) >= 1)
            require(fits, f"{name} as (height, width) of at least 1 px each", size)
        rises = len(self.scale_range) == 2 and 0 < self.scale_range[0] <= self.scale_range[1] < np.inf
        require(rises, "scale_range as (low, high), 0 < low <= high", self.scale_range)
        sides, longest = self.shortest_sides, self.longest_side
        require(all(side >= 1 for side in sides), "shortest_sides of at least 1 px each", sides)
        require(longest is None or longest >= 1, "longest_side of at least 1 px", longest)
        ones = ("flip_probability", "brightness", "contrast", "saturation", "grey_probability", "mosaic_probability")
        limits = dict.fromkeys(ones, (0, 1)) | {"hue": (0, 180), "gamma": (0, 9), "blur": (0, 50), "noise": (0, 255)}
        for name, (low, high) in (limits | {"jpeg_quality": (1, 100)}).items():
            require(low <= getattr(self, name) <= high, f"{name} from {low} to {high}", getattr(self, name))
        chosen = [name for name in ("crop_size", "output_size", "shortest_sides") if getattr(self, name)]
        require(
            len(chosen) <= 1,
            "at most one of crop_size, output_size and shortest_sides",
            f"{' and '.join(chosen)}: each of them decides the size of the result",
        )
        require(
            not sides or (self.scale_range == (1.0, 1.0) and self.base_size is None),
            "shortest_sides without scale_range and base_size",
            f"scale_range {self.scale_range} and base_size {self.base_size} too: each decides the scale",
        )
        require(longest is None or bool(sides), "longest_side only beside shortest_sides, which it limits", longest)
        require(
            not self.mosaic_probability or (self.output_size is not None and min(self.output_size) >= 2),
            "mosaic_probability only beside output_size, which it divides in four",
            f"mosaic_probability {self.mosaic_probability} and output_size {self.output_size}",
        )


@dataclass(frozen=True, slots=True)
class Donors:
    """Where parts of other images come from."""

    sample: Callable[[np.random.Generator], PanopticSample]  # any image, for mosaics
    cut_outs: CutOutBank | None = None  # what is pasted


def augment(
    sample: PanopticSample,
    settings: AugmentationSettings,
    rng: np.random.Generator,
    fill_rgb: tuple[int, int, int],
    donors: Donors | None = None,
) -> PanopticSample:
    """Return a random view of a sample (Section 5.3), padded right and below as inference pads.

    In this order, where set: mosaic with other images; crop and scale; paste; change colours; flip; blur, noise, JPEG.

    Args:
        sample: The labelled image.
        settings: What to do.
        rng: Source of all choices; the same state gives the same result.
        fill_rgb: Colour of the padding, such as the network's mean colour.
        donors: Other images, for mosaics, and what is pasted: nothing without cut-outs.
    """
    if donors is not None and settings.mosaic_probability and rng.random() < settings.mosaic_probability:
        view = mosaic([sample, *(donors.sample(rng) for _ in range(3))], settings, rng, fill_rgb)
    else:
        view = _random_view(sample, settings, rng, fill_rgb)
    if donors is not None and donors.cut_outs is not None:
        view = paste(view, donors.cut_outs, rng)
    view = color_jitter(
        view, rng, settings.brightness, settings.contrast, settings.saturation,
        hue=settings.hue, grey_probability=settings.grey_probability, gamma=settings.gamma,
    )  # fmt: skip
    if rng.random() < settings.flip_probability:
        view = flip_horizontally(view)
    view = degrade(view, rng, settings.blur, settings.noise, settings.jpeg_quality)
    if settings.output_size is not None:
        view = crop_or_pad(view, (0, 0, *settings.output_size), fill_rgb)
    return without_hidden_instances(view)


def flip_horizontally(sample: PanopticSample) -> PanopticSample:
    """Return the sample mirrored left and right."""
    image, semantic, instance = (cv2.flip(pixels, 1) for pixels in (sample.image, sample.semantic, sample.instance))
    boxes = sample.boxes[:, [2, 1, 0, 3]]
    boxes[:, ::2] = semantic.shape[1] - boxes[:, ::2]
    return replace(sample, image=image, semantic=semantic, instance=instance, boxes=boxes)


def resize(sample: PanopticSample, size: tuple[int, int]) -> PanopticSample:
    """Return the sample at another size, all three pictures with their pixel centres aligned.

    The image is averaged over areas where both sides shrink and interpolated bilinearly otherwise; a label is that of
    the pixel under the new pixel's centre, so instances may vanish (see `without_hidden_instances`).

    Args:
        sample: The labelled image.
        size: (height, width), px.
    """
    height, width = sample.semantic.shape
    if size == (height, width):
        return sample
    interpolation = cv2.INTER_AREA if size[0] <= height and size[1] <= width else cv2.INTER_LINEAR
    # By index arrays: OpenCV's INTER_NEAREST is off by half a pixel, and no exact one takes int32.
    rows, columns = _source_indices(height, size[0]), _source_indices(width, size[1])
    return replace(
        sample,
        image=cv2.resize(sample.image, size[::-1], interpolation=interpolation),
        semantic=sample.semantic.take(rows, axis=0).take(columns, axis=1),
        instance=sample.instance.take(rows, axis=0).take(columns, axis=1),
        boxes=sample.boxes * np.array([size[1] / width, size[0] / height] * 2, np.float32),
    )


def crop_or_pad(sample: PanopticSample, window: Window, fill_rgb: tuple[int, int, int]) -> PanopticSample:
    """Return a window of the sample; what lies right of or below the image is void, and boxes end at the image.

    Args:
        sample: The labelled image.
        window: Its top left pixel lies inside the image.
        fill_rgb: Colour of the window's pixels outside of the image.
    """
    top, left, height, width = window
    rows, columns = sample.semantic.shape
    if window == (0, 0, rows, columns):
        return sample
    inside = np.s_[top : top + height, left : left + width]
    below, right = max(top + height - rows, 0), max(left + width - columns, 0)

    def padded(pixels: np.ndarray, fill: int | tuple[int, int, int]) -> np.ndarray:
        result: np.ndarray = cv2.copyMakeBorder(pixels[inside], 0, below, 0, right, cv2.BORDER_CONSTANT, value=fill)
        return result

    boxes = _clipped(sample.boxes - np.array([left, top] * 2, np.float32), height - below, width - right)
    image, semantic = padded(sample.image, fill_rgb), padded(sample.semantic, VOID)
    return replace(sample, image=image, semantic=semantic, instance=padded(sample.instance, 0), boxes=boxes)


def mosaic(
    samples: Sequence[PanopticSample],
    settings: AugmentationSettings,
    rng: np.random.Generator,
    fill_rgb: tuple[int, int, int],
) -> PanopticSample:
    """Return one sample of `settings.output_size` with views of four, around a random point.

    Each is scaled by half of a factor from `settings.scale_range`, but so that it fills its place.

    Args:
        samples: Top left, top right, bottom left, bottom right.
        settings: Say how a view is taken.
        rng: Source of all choices.
        fill_rgb: Colour of the padding.
    """
    rows, columns = settings.output_size or (2, 2)
    y, x = (round(length * rng.uniform(0.35, 0.65)) for length in (rows, columns))
    spans = itertools.product(((0, y), (y, rows)), ((0, x), (x, columns)))
    tiles: list[PanopticSample] = []
    number = 0
    for sample, ((top, bottom), (left, right)) in zip(samples, spans, strict=True):
        size = bottom - top, right - left
        shape = sample.semantic.shape
        least = float(max(np.array(size) / shape))
        half = 0.5 * float(min(np.array(settings.base_size) / shape)) if settings.base_size else 0.5
        low, high = (max(half * factor, least) for factor in settings.scale_range)
        wanted = replace(settings, output_size=size, base_size=None, scale_range=(low, high))
        tile = crop_or_pad(_random_view(sample, wanted, rng, fill_rgb), (0, 0, *size), fill_rgb)
        instance = np.where(tile.instance > 0, tile.instance + np.int32(number), np.int32(0))
        tiles.append(replace(tile, instance=instance, boxes=tile.boxes + np.array([left, top] * 2, np.float32)))
        number += len(tile.instance_classes)

    def joined(pictures: str) -> np.ndarray:
        parts = [getattr(tile, pictures) for tile in tiles]
        return np.concatenate([np.concatenate(parts[:2], axis=1), np.concatenate(parts[2:], axis=1)])

    def listed(rows: str) -> np.ndarray:
        return np.concatenate([getattr(tile, rows) for tile in tiles])

    return replace(
        samples[0],
        image=joined("image"),
        semantic=joined("semantic"),
        instance=joined("instance"),
        instance_classes=listed("instance_classes"),
        instance_crowd=listed("instance_crowd"),
        boxes=listed("boxes"),
        complete=all(tile.complete for tile in tiles),
    )


def without_hidden_instances(sample: PanopticSample) -> PanopticSample:
    """Return the sample with only those instances that have pixels, in the same order, numbered 1 to n.

    Of those that are known by their box alone, the ones whose box has at least 1 px in the image both ways.
    """
    visible = np.bincount(sample.instance.ravel(), minlength=len(sample.instance_classes) + 1) > 0
    visible[0] = True
    boxes = _clipped(sample.boxes, *sample.semantic.shape)
    visible[1:] |= (boxes[:, 2:] - boxes[:, :2] >= 1).all(axis=1)
    if visible.all() and not sample.by_box.any():
        return sample
    numbers = np.cumsum(visible, dtype=np.int32) - 1
    return replace(
        sample,
        instance=numbers.take(sample.instance),
        instance_classes=sample.instance_classes[visible[1:]],
        instance_crowd=sample.instance_crowd[visible[1:]],
        boxes=boxes[visible[1:]],
    )


def _clipped(boxes: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return the parts of boxes (n, 4) inside an image of that size, empty ones for those outside; nan stays."""
    inside: np.ndarray = boxes.clip(0, np.array([width, height] * 2, np.float32))
    return inside


def _random_view(
    sample: PanopticSample, settings: AugmentationSettings, rng: np.random.Generator, fill_rgb: tuple[int, int, int]
) -> PanopticSample:
    """Return a random window of a sample, scaled."""
    window, size = _random_window(sample.semantic.shape, settings, rng)
    # The window is cut out before scaling, as pixels outside of it need no scaling.
    return resize(crop_or_pad(sample, window, fill_rgb), size)


def _random_window(
    shape: tuple[int, ...], settings: AugmentationSettings, rng: np.random.Generator
) -> tuple[Window, tuple[int, int]]:
    """Return a window of an image of `shape` and the size that it is to be scaled to, (height, width) px."""
    rows, columns = shape
    if settings.shortest_sides:
        scale = int(rng.choice(settings.shortest_sides)) / min(rows, columns)
        if settings.longest_side is not None:
            scale = min(scale, settings.longest_side / max(rows, columns))
        return (0, 0, rows, columns), (_scaled(rows, scale), _scaled(columns, scale))
    scale = rng.uniform(*settings.scale_range)
    if settings.base_size is not None:
        scale *= min(settings.base_size[0] / rows, settings.base_size[1] / columns)
    height, width = rows, columns
    size = _scaled(rows, scale), _scaled(columns, scale)
    if settings.crop_size is not None:
        height, width = min(rows, settings.crop_size[0]), min(columns, settings.crop_size[1])
        size = _scaled(height, scale), _scaled(width, scale)
    elif settings.output_size is not None:
        size = min(size[0], settings.output_size[0]), min(size[1], settings.output_size[1])
        height, width = min(rows, _scaled(size[0], 1 / scale)), min(columns, _scaled(size[1], 1 / scale))
    top, left = int(rng.integers(rows - height + 1)), int(rng.integers(columns - width + 1))
    return (top, left, height, width), size


def _scaled(length: int, scale: float) -> int:
    return max(1, round(length * scale))


def _source_indices(source: int, target: int) -> np.ndarray:
    """Return, for each of `target` pixels, which of `source` pixels lies under its centre: integers, thus exact."""
    indices: np.ndarray = (2 * np.arange(target) + 1) * source // (2 * target)
    return indices
