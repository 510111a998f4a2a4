# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The explicit mask loss (Section 4.3): makes the dense boxes agree with query boxes inside masks, and only there."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from rt_panoptic_ros.network.head import NetworkOutputs
from rt_panoptic_ros.settings import QueryBoxSettings
from rt_panoptic_ros.training.boxes import offsets_to_boxes, paired_iou, suppress
from rt_panoptic_ros.training.targets import IGNORED_LEVEL, Targets, by_location, level_positions

MAX_QUERIES = 64
"""Query boxes per image that the loss looks at, the highest scores first."""

_CANDIDATES = 512
"""Locations per image that may become query boxes, the highest scores first."""


def mask_loss(outputs: NetworkOutputs, targets: Targets) -> Tensor:
    """Return the mask loss (Eq. 16) of a batch, averaged over all its query boxes; 0 where there is none.

    Query boxes are the predicted boxes of foreground locations of objects with a mask (so each has its target box and
    mask) after the same suppression as at inference. They and their beta are constants; the gradient flows through the
    dense boxes that levelness assembles (Eq. 14). The sums run over the stride-4 grid, without points where nothing is
    known, such as in the boxes of objects that are known by them alone.
    """
    known = ((targets.levelness != IGNORED_LEVEL) & (targets.instance >= 0)).flatten(1)  # (B, p)
    places = torch.split(known.nonzero()[:, 1], known.sum(dim=1).tolist())
    per_image = []
    for index, (boxes, (queries, rows)) in enumerate(
        zip(dense_boxes(outputs).unbind(), query_boxes(outputs, targets), strict=True)
    ):
        if len(queries):
            objects = targets.objects[index][rows]
            masks = targets.instance[index].flatten()[places[index]][None] == 1 + objects[:, None]  # (q, p)
            near = boxes.index_select(0, places[index])
            per_image.append(query_losses(near, queries, targets.boxes[index][rows], masks))
    if not per_image:
        return outputs.box_offsets[0].sum() * 0
    return torch.cat(per_image).mean()


def query_losses(boxes: Tensor, queries: Tensor, target_boxes: Tensor, masks: Tensor) -> Tensor:
    """Return beta_j / N_j (E_FP_j + E_FN_j) for each query box (Eq. 16 to 18): (q,), 0 where a mask has no point.

    Args:
        boxes: (p, 4) dense boxes of grid points.
        queries: (q, 4).
        target_boxes: (q, 4), the box of each query's object.
        masks: (q, p) bool, the points of each query's object.
    """
    iou = paired_iou(boxes[None], queries[:, None])  # (q, p)
    errors = torch.where(masks, 1 - iou, iou).sum(dim=1)
    points = masks.sum(dim=1)
    beta = paired_iou(queries, target_boxes)
    return torch.where(points > 0, beta * errors / points.clamp(min=1), 0.0)


def dense_boxes(outputs: NetworkOutputs) -> Tensor:
    """Return the dense boxes (Eq. 14) at the stride-4 grid, row by row: (B, p, 4) xyxy px.

    As at inference: each level's offsets upsampled bilinearly, the level of highest levelness, background aside.
    """
    assert outputs.levelness_logits is not None
    levelness = outputs.levelness_logits
    height, width = levelness.shape[2:]
    best = levelness[:, 1:].argmax(dim=1, keepdim=True)  # (B, 1, g, k)
    offsets = torch.zeros(len(levelness), 4, height, width, device=levelness.device)
    for level, part in enumerate(outputs.box_offsets):
        full = functional.interpolate(part.float(), (height, width), mode="bilinear", align_corners=False)
        offsets = torch.where(best == level, full, offsets)
    points = level_positions(height, width, 4, levelness.device)
    return offsets_to_boxes(offsets.flatten(2).transpose(1, 2), points.float())


@torch.no_grad()
def query_boxes(outputs: NetworkOutputs, targets: Targets) -> list[tuple[Tensor, Tensor]]:
    """Return each image's query boxes, (q, 4) xyxy px by falling score, and the locations they come from, (q,) int64.

    All images at once, so that a GPU is asked for results a few times per batch and not per image.
    """
    logits, center, offsets = (
        by_location(parts) for parts in (outputs.box_class_logits, outputs.centerness_logits, outputs.box_offsets)
    )  # (B, L, T), (B, L, 1), (B, L, 4)
    possible = targets.foreground & targets.masked
    own = logits.gather(2, targets.channels[..., None])
    scores = torch.where(possible, (own.float().sigmoid() * center.float().sigmoid())[..., 0], -1.0)
    count = min(_CANDIDATES, int(possible.sum(dim=1).max()))
    rows = scores.sort(dim=1, descending=True, stable=True).indices[:, :count]  # (B, c)
    possible = possible.gather(1, rows)
    groups = torch.where(possible, targets.channels.gather(1, rows), -1)
    reach = offsets.float().gather(1, rows[..., None].expand(-1, -1, 4))
    boxes = offsets_to_boxes(reach, targets.positions[rows].float())
    kept = suppress(boxes, groups, QueryBoxSettings().nms_threshold) & possible
    kept &= kept.cumsum(dim=1) <= MAX_QUERIES
    counts = kept.sum(dim=1).tolist()
    return list(zip(torch.split(boxes[kept], counts), torch.split(rows[kept], counts), strict=True))
