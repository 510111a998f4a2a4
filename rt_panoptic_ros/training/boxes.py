# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Box arithmetic in torch. Boxes are xyxy px; offsets are left, top, right, bottom px from one location."""

from __future__ import annotations

import torch
from torch import Tensor

_EPSILON = 1e-7
"""Keeps ratios of empty boxes finite; far below any area in px^2 that matters."""


def paired_iou(a: Tensor, b: Tensor) -> Tensor:
    """Return the IoU of boxes (..., 4) with boxes that broadcast against them: (...)."""
    sizes = torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])
    intersection = sizes.clamp(min=0).prod(dim=-1)
    union = box_area(a) + box_area(b) - intersection
    return intersection / (union + _EPSILON)


def box_area(boxes: Tensor) -> Tensor:
    """Return the areas (...) of boxes (..., 4), px^2."""
    return (boxes[..., 2:] - boxes[..., :2]).prod(dim=-1)


def offsets_to_boxes(offsets: Tensor, xy: Tensor) -> Tensor:
    """Return the boxes (..., 4) that offsets (..., 4) reach from locations xy (..., 2) (Eq. 8)."""
    return torch.cat([xy - offsets[..., :2], xy + offsets[..., 2:]], dim=-1)


def offset_iou(a: Tensor, b: Tensor) -> Tensor:
    """Return the IoU (n,) of the boxes that offsets (n, 4), none below 0, reach from the same locations."""
    origin = a.new_zeros(2)  # any location gives the same IoU; from 0, sums of offsets are the boxes' sides exactly
    return paired_iou(offsets_to_boxes(a, origin), offsets_to_boxes(b, origin))


@torch.no_grad()
def suppress(boxes: Tensor, groups: Tensor, threshold: float) -> Tensor:
    """Return which boxes greedy non-maximum suppression keeps: (..., n) bool.

    Args:
        boxes: (..., n, 4) by falling score.
        groups: (..., n) integers; only boxes of one group suppress each other.
        threshold: IoU above which the lower-scored of two boxes is removed.
    """
    overlaps = paired_iou(boxes[..., :, None, :], boxes[..., None, :, :]) > threshold
    same = groups[..., :, None] == groups[..., None, :]
    above = (overlaps & same).triu(diagonal=1)  # [..., i, j]: i, of higher score, would remove j
    kept = torch.ones_like(groups, dtype=torch.bool)
    # A box stays when no kept box removes it. From "all kept", each round settles at least one more box in order of
    # score, so the rounds end at greedy suppression's result, after few of them.
    while True:
        update = ~(above & kept[..., None]).any(dim=-2)
        if torch.equal(update, kept):
            return kept
        kept = update
