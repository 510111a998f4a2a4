# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""What the network should say at each location (Section 4.1), for full and for weak supervision (Section 5.6)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from rt_panoptic_ros.records import STRIDES
from rt_panoptic_ros.training.batches import Batch, ImageLabels
from rt_panoptic_ros.training.boxes import box_area

LEVEL_RANGES_PX = (64.0, 128.0, 256.0, 512.0)
"""m_1 to m_4 of Eq. 9, px, FCOS's values: level i takes objects reaching from m_{i-1} to m_i; the last, all larger."""

IGNORED_LEVEL = -100
"""Levelness target of grid points that don't count (torch's default for ignored classes)."""


class Targets(NamedTuple):
    """Targets of a batch. L locations of all levels, finest level first, row by row; (g, k) the stride-4 grid."""

    foreground: Tensor  # (B, L) bool: has a box, class and centerness
    ignored: Tensor  # (B, L) bool: nothing is known, so it counts neither as object nor as background
    boxes: Tensor  # (B, L, 4) float32 xyxy px, where foreground
    offsets: Tensor  # (B, L, 4) float32 left, top, right, bottom px (Eq. 8), where foreground
    centerness: Tensor  # (B, L) float32 in [0, 1] (Eq. 10), where foreground
    channels: Tensor  # (B, L) int64: place among the thing classes, where foreground
    objects: Tensor  # (B, L) int64: row of the object in the image's labels, where foreground
    masked: Tensor  # (B, L) bool: the object's pixels are known, where foreground
    levelness: Tensor  # (B, g, k) int64: 0 background, else 1 + level; IGNORED_LEVEL where unknown
    positions: Tensor  # (L, 2) int64: pixel (x, y) of each location
    instance: Tensor  # (B, g, k) int32: 0 none, else 1 + row of the object of the grid point's pixel; -1 known by box
    semantic: Tensor  # (B, H, W) uint8 class ids, 255 void


@dataclass(frozen=True, slots=True)
class _Assignment:
    """What object each of some pixel positions belongs to."""

    objects: Tensor  # (n,) int64 row, -1 none
    ignored: Tensor  # (n,) bool
    boxes: Tensor  # (n, 4), arbitrary where none
    offsets: Tensor  # (n, 4)


def assign_targets(
    batch: Batch,
    level_sizes: Sequence[tuple[int, int]],
    *,
    supervision: str = "mask",
    level_ranges_px: Sequence[float] = LEVEL_RANGES_PX,
    box_core: float = 1.0,
) -> Targets:
    """Return the targets of a batch.

    A location is foreground where its pixel lies in an object's mask (Section 4.1) or else in the box of an object that
    is known by its box alone (Section 5.6; the smallest where several overlap, Appendix C), on the levels whose range
    holds its largest offset (Eq. 9). With supervision `box` all objects are taken by their boxes. Levelness names, for
    each point of the stride-4 grid, the first such level. Unknown pixels are ignored where they are not foreground.

    Args:
        batch: Images and labels.
        level_sizes: (height, width) in cells of the pyramid levels P3 to P7.
        supervision: `mask` or `box`.
        level_ranges_px: m_1 to m_4 of Eq. 9, rising.
        box_core: Share of a box's width and height, around its centre, that is foreground; the rest is ignored.
    """
    device = batch.images.device
    bounds = torch.tensor([0.0, *level_ranges_px, torch.inf], device=device)
    positions = [level_positions(*size, stride, device) for size, stride in zip(level_sizes, STRIDES, strict=True)]
    xy = torch.cat(positions)  # (L, 2)
    level = torch.cat([torch.full((len(part),), index, device=device) for index, part in enumerate(positions)])
    grid_height, grid_width = 2 * level_sizes[0][0], 2 * level_sizes[0][1]
    grid_xy = level_positions(grid_height, grid_width, 4, device)

    rows = []
    for labels in batch.labels:
        at = _assign(labels, xy, supervision, box_core)
        reach = at.offsets.amax(dim=1)
        foreground = (at.objects >= 0) & (bounds[level] <= reach) & (reach <= bounds[level + 1])
        instance = _pixel_values(labels.instance, grid_xy, 0)
        grid = _assign(labels, grid_xy, supervision, box_core)
        rows.append(
            {
                "foreground": foreground,
                "ignored": at.ignored,
                "boxes": at.boxes,
                "offsets": at.offsets,
                "centerness": centerness(at.offsets),
                "channels": _rows(labels.channels, at.objects),
                "objects": at.objects,
                "masked": ~_of_box(labels, at),
                "levelness": _levelness(grid, bounds).view(grid_height, grid_width),
                "instance": torch.where(_of_box(labels, grid), -1, instance).view(grid_height, grid_width),
                "semantic": labels.semantic,
            }
        )
    return Targets(positions=xy, **{name: torch.stack([row[name] for row in rows]) for name in rows[0]})


def pyramid_sizes(height: int, width: int) -> list[tuple[int, int]]:
    """Return (height, width) in cells of the pyramid levels P3 to P7 of an image, whose sides are given in px."""
    return [(-(-height // stride), -(-width // stride)) for stride in STRIDES]


def by_location(parts: Sequence[Tensor]) -> Tensor:
    """Return a network's output of all levels, each (B, C, h_i, w_i), in the order of the targets: (B, L, C)."""
    return torch.cat([part.flatten(2).transpose(1, 2) for part in parts], dim=1)


def level_positions(height: int, width: int, stride: int, device: torch.device) -> Tensor:
    """Return the pixel (x, y) of each cell of a level, (height * width, 2) int64: stride // 2 + index * stride."""
    y = torch.arange(height, device=device) * stride + stride // 2
    x = torch.arange(width, device=device) * stride + stride // 2
    return torch.stack([x.repeat(height), y.repeat_interleave(width)], dim=1)


def centerness(offsets: Tensor) -> Tensor:
    """Return sqrt(min(l, r) / max(l, r) * min(t, b) / max(t, b)) (Eq. 10) of offsets (n, 4), 0 outside a box: (n,)."""
    left_top, right_bottom = offsets[:, :2].clamp(min=0), offsets[:, 2:].clamp(min=0)
    largest = torch.maximum(left_top, right_bottom).clamp(min=torch.finfo(offsets.dtype).tiny)
    return (torch.minimum(left_top, right_bottom) / largest).prod(dim=1).sqrt()


def _assign(labels: ImageLabels, xy: Tensor, supervision: str, box_core: float) -> _Assignment:
    """Return what object each pixel position (n, 2) belongs to; positions outside the image belong to none."""
    points = xy.to(labels.boxes.dtype)
    objects = _pixel_values(labels.instance, xy, 0).long() - 1
    unknown = _pixel_values(labels.unknown, xy, 1).bool()
    rows = labels.by_box.nonzero()[:, 0]
    if supervision == "box":
        objects, rows = torch.full_like(objects, -1), torch.arange(len(labels.boxes), device=xy.device)
    if len(rows):
        boxes = labels.boxes[rows]
        margin = (1 - box_core) / 2 * (boxes[:, 2:] - boxes[:, :2])
        core = _smallest_box(torch.cat([boxes[:, :2] + margin, boxes[:, 2:] - margin], dim=1), points)
        unknown |= _smallest_box(boxes, points) >= 0
        objects = torch.where((objects < 0) & (core >= 0), rows[core.clamp(min=0)], objects)
    boxes = _rows(labels.boxes, objects)
    offsets = torch.cat([points - boxes[:, :2], boxes[:, 2:] - points], dim=1)  # Eq. 8
    return _Assignment(objects, unknown & (objects < 0), boxes, offsets)


def _of_box(labels: ImageLabels, at: _Assignment) -> Tensor:
    """Return which positions belong to an object that is known by its box alone: (n,) bool."""
    return (at.objects >= 0) & _rows(labels.by_box, at.objects)


def _smallest_box(boxes: Tensor, points: Tensor) -> Tensor:
    """Return, for points (n, 2), the row of the smallest box (m, 4) that holds each, -1 where none does: (n,) int64."""
    if len(boxes) == 0:
        return torch.full((len(points),), -1, device=points.device)
    inside = ((points[:, None] >= boxes[None, :, :2]) & (points[:, None] < boxes[None, :, 2:])).all(dim=2)  # (n, m)
    area, row = torch.where(inside, box_area(boxes), torch.inf).min(dim=1)
    return torch.where(area.isfinite(), row, -1)


def _levelness(grid: _Assignment, bounds: Tensor) -> Tensor:
    """Return 1 + the first level whose range holds a grid point's largest offset, 0 for background: (n,) int64."""
    reach = grid.offsets.amax(dim=1)
    level = torch.bucketize(reach, bounds[1:-1]) + 1  # right=False: a reach of exactly m_i stays in level i
    level = torch.where(grid.objects >= 0, level, 0)
    return torch.where(grid.ignored, IGNORED_LEVEL, level)


def _rows(table: Tensor, rows: Tensor) -> Tensor:
    """Return `table`'s rows at `rows`, its first or zeros where a row is -1."""
    if len(table) == 0:
        return table.new_zeros((len(rows), *table.shape[1:]))
    return table[rows.clamp(min=0)]


def _pixel_values(image: Tensor, xy: Tensor, outside: int) -> Tensor:
    """Return an image's (H, W) values at pixels (n, 2), `outside` where there is none."""
    height, width = image.shape
    x, y = xy.unbind(dim=1)
    values = image[y.clamp(max=height - 1), x.clamp(max=width - 1)]
    return torch.where((x < width) & (y < height), values, outside)
