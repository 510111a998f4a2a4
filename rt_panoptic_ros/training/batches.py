# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Augmented samples as tensors, and batches of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from rt_panoptic_ros.datasets.base import PanopticSample, object_boxes
from rt_panoptic_ros.records import VOID


@dataclass(frozen=True, slots=True)
class ImageLabels:
    """One image and its labels as tensors; crowds are not among the objects."""

    image: Tensor  # (3, H, W) uint8 RGB
    semantic: Tensor  # (H, W) uint8 class ids, 255 void
    instance: Tensor  # (H, W) int32, 0 none, else 1 + row of the arrays below
    unknown: Tensor  # (H, W) bool: where there is no object in `instance`, there may be one
    boxes: Tensor  # (n, 4) float32 xyxy px; x2, y2 are one past the last pixel
    by_box: Tensor  # (n,) bool: objects known by their box alone, which have no pixel in `instance`
    channels: Tensor  # (n,) int64: place among the thing classes


@dataclass(frozen=True, slots=True)
class Batch:
    """Images of one size, and labels of the same."""

    images: Tensor  # (B, 3, H, W) uint8 RGB
    labels: tuple[ImageLabels, ...]


def image_labels(sample: PanopticSample, thing_ids: Sequence[int], box_semantics: float = 0.0) -> ImageLabels:
    """Return a sample as tensors; crowds and hidden objects are left out.

    An object's box is that of its visible pixels, or the labelled one where it has none. Unknown are pixels of a thing
    class without an object (crowds, regions too small to count), the boxes of crowds and, unless all objects of the
    image are labelled, void.

    Args:
        sample: A dataset's image, augmented or not.
        thing_ids: Class ids of the things, in the order of the network's box-class channels.
        box_semantics: See `Recipe`.
    """
    channel_of = {thing: channel for channel, thing in enumerate(thing_ids)}
    boxes, by_box = object_boxes(sample), sample.by_box
    kept = (boxes[:, 2:] > boxes[:, :2]).all(axis=1) & ~sample.instance_crowd
    number = np.zeros(len(kept) + 1, np.int32)
    number[1:][kept] = np.arange(1, kept.sum() + 1)
    instance = number[sample.instance]
    thing = np.zeros(VOID + 1, bool)
    thing[list(thing_ids)] = True
    thing[VOID] = not sample.complete
    unknown = thing[sample.semantic] & (instance == 0)
    for left, top, right, bottom in np.ceil(boxes[by_box & sample.instance_crowd]).astype(int):
        unknown[top:bottom, left:right] = True
    return ImageLabels(
        image=torch.from_numpy(np.ascontiguousarray(sample.image.transpose(2, 0, 1))),
        semantic=torch.from_numpy(np.ascontiguousarray(_semantic_of_boxes(sample, box_semantics))),
        instance=torch.from_numpy(instance),
        unknown=torch.from_numpy(unknown),
        boxes=torch.from_numpy(boxes[kept]),
        by_box=torch.from_numpy(by_box[kept]),
        channels=torch.tensor([channel_of[class_id] for class_id in sample.instance_classes[kept].tolist()]).long(),
    )


def _semantic_of_boxes(sample: PanopticSample, share: float) -> np.ndarray:
    """Return the classes of pixels, those of objects that are known by their box alone guessed; see `Recipe`."""
    if share == 0:
        return sample.semantic
    semantic: np.ndarray = sample.semantic.copy()
    rows = np.flatnonzero(sample.by_box & ~sample.instance_crowd)
    sides = sample.boxes[rows, 2:] - sample.boxes[rows, :2]
    for row, side in sorted(zip(rows, sides, strict=True), key=lambda item: -item[1].prod()):  # the smallest on top
        for part, value in ((1.0, VOID), (share, sample.instance_classes[row])):
            margin = (1 - part) / 2 * side
            left, top = np.round(sample.boxes[row, :2] + margin).astype(int)
            right, bottom = np.round(sample.boxes[row, 2:] - margin).astype(int)
            inside = np.s_[top:bottom, left:right]
            semantic[inside][sample.instance[inside] == 0] = value
    return semantic


def collate(items: Sequence[ImageLabels], size_divisor: int, fill_rgb: tuple[int, int, int]) -> Batch:
    """Return a batch; images are padded right and below to the largest, up to a multiple of `size_divisor` px.

    Padding has colour `fill_rgb` (as `input_image.prepare_input` pads), is void, and unknown.
    """
    height, width = (
        -(-max(item.image.shape[axis] for item in items) // size_divisor) * size_divisor for axis in (1, 2)
    )
    fill = torch.tensor(fill_rgb, dtype=torch.uint8)
    images = fill[None, :, None, None].repeat(len(items), 1, height, width)
    labels = []
    for image, item in zip(images, items, strict=True):
        h, w = item.semantic.shape
        image[:, :h, :w] = item.image
        padding = (0, width - w, 0, height - h)
        labels.append(
            replace(
                item,
                image=image,
                semantic=functional.pad(item.semantic, padding, value=VOID),
                instance=functional.pad(item.instance, padding),
                unknown=functional.pad(item.unknown, padding, value=True),
            )
        )
    return Batch(images, tuple(labels))
