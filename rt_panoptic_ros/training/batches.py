"""Augmented samples as tensors, and batches of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from rt_panoptic_ros.datasets.base import PanopticSample, instance_boxes
from rt_panoptic_ros.records import VOID


@dataclass(frozen=True, slots=True)
class ImageLabels:
    """One image and its labels as tensors; crowds are not among the objects."""

    image: Tensor  # (3, H, W) uint8 RGB
    semantic: Tensor  # (H, W) uint8 class ids, 255 void
    instance: Tensor  # (H, W) int32, 0 none, else 1 + row of the boxes and channels
    unassigned: Tensor  # (H, W) bool: of a thing class, but of no object (crowds, regions too small to count)
    boxes: Tensor  # (n, 4) float32 xyxy px; x2, y2 are one past the last pixel
    channels: Tensor  # (n,) int64: place among the thing classes


@dataclass(frozen=True, slots=True)
class Batch:
    """Images of one size, and labels of the same."""

    images: Tensor  # (B, 3, H, W) uint8 RGB
    labels: tuple[ImageLabels, ...]

    def to(self, device: torch.device) -> Batch:
        """Return the batch on `device`."""
        labels = tuple(
            ImageLabels(*(getattr(item, name).to(device, non_blocking=True) for name in ImageLabels.__slots__))
            for item in self.labels
        )
        return Batch(self.images.to(device, non_blocking=True), labels)


def image_labels(sample: PanopticSample, thing_ids: Sequence[int]) -> ImageLabels:
    """Return a sample as tensors, with the box of each object's visible pixels; crowds and hidden objects are left out.

    Args:
        sample: A dataset's image, augmented or not.
        thing_ids: Class ids of the things, in the order of the network's box-class channels.
    """
    channel_of = {thing: channel for channel, thing in enumerate(thing_ids)}
    number = np.zeros(len(sample.instance_classes) + 1, np.int32)
    boxes, channels = [], []
    for row, (left, top, right, bottom) in enumerate(instance_boxes(sample.instance, len(sample.instance_classes))):
        if right >= left and not sample.instance_crowd[row]:
            boxes.append((left, top, right + 1, bottom + 1))
            channels.append(channel_of[int(sample.instance_classes[row])])
            number[row + 1] = len(boxes)
    instance = number[sample.instance]
    thing = np.zeros(VOID + 1, bool)
    thing[list(thing_ids)] = True
    return ImageLabels(
        image=torch.from_numpy(np.ascontiguousarray(sample.image.transpose(2, 0, 1))),
        semantic=torch.from_numpy(np.ascontiguousarray(sample.semantic)),
        instance=torch.from_numpy(instance),
        unassigned=torch.from_numpy(thing[sample.semantic] & (instance == 0)),
        boxes=torch.tensor(np.array(boxes, np.float32).reshape(-1, 4)),
        channels=torch.tensor(channels, dtype=torch.int64),
    )


def collate(items: Sequence[ImageLabels], size_divisor: int, fill_rgb: tuple[int, int, int]) -> Batch:
    """Return a batch; images are padded right and below to the largest, up to a multiple of `size_divisor` px.

    Padding has colour `fill_rgb` (as `input_image.prepare_input` pads) and is void.
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
                unassigned=functional.pad(item.unassigned, padding),
            )
        )
    return Batch(images, tuple(labels))
