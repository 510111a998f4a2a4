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

    Query boxes are the predicted boxes of foreground locations (so each has its target box and mask) after the same
    suppression as at inference. They and their beta are constants; the gradient flows through the dense boxes that
    levelness assembles (Eq. 14). The sums run over the stride-4 grid, without points where nothing is known.
    """
    per_image = []
    for index in range(len(targets.foreground)):
        queries, rows = query_boxes(outputs, targets, index)
        if len(queries):
            boxes = dense_boxes(outputs, index)
            known = targets.levelness[index].flatten() != IGNORED_LEVEL
            target_boxes = targets.boxes[index][rows]
            objects = targets.objects[index][rows]
            masks = targets.instance[index].flatten()[known][None] == 1 + objects[:, None]  # (q, p)
            per_image.append(query_losses(boxes[known], queries, target_boxes, masks))
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


def dense_boxes(outputs: NetworkOutputs, index: int) -> Tensor:
    """Return the dense boxes (Eq. 14) of one image at the stride-4 grid, row by row: (p, 4) xyxy px.

    As at inference: each level's offsets upsampled bilinearly, the level of highest levelness, background aside.
    """
    assert outputs.levelness_logits is not None
    levelness = outputs.levelness_logits[index]
    height, width = levelness.shape[1:]
    best = levelness[1:].argmax(dim=0)  # (g, k)
    offsets = torch.zeros(4, height, width, device=levelness.device)
    for level, part in enumerate(outputs.box_offsets):
        full = functional.interpolate(part[index, None].float(), (height, width), mode="bilinear", align_corners=False)
        offsets = torch.where(best == level, full[0], offsets)
    points = level_positions(height, width, 4, levelness.device)
    return offsets_to_boxes(offsets.flatten(1).T, points.float())


@torch.no_grad()
def query_boxes(outputs: NetworkOutputs, targets: Targets, index: int) -> tuple[Tensor, Tensor]:
    """Return one image's query boxes, (q, 4) xyxy px by falling score, and the locations they come from, (q,) int64."""
    logits, center, offsets = (
        by_location([part[index, None] for part in parts])[0]
        for parts in (outputs.box_class_logits, outputs.centerness_logits, outputs.box_offsets)
    )  # (L, T), (L, 1), (L, 4)
    rows = targets.foreground[index].nonzero()[:, 0]
    channels = targets.channels[index][rows]
    scores = logits[rows, channels].float().sigmoid() * center[rows, 0].float().sigmoid()
    best = scores.sort(descending=True, stable=True).indices[:_CANDIDATES]
    rows, channels, scores = rows[best], channels[best], scores[best]
    boxes = offsets_to_boxes(offsets[rows].float(), targets.positions[rows].float())
    kept = suppress(boxes, scores, channels, QueryBoxSettings().nms_threshold)[:MAX_QUERIES]
    return boxes[kept], rows[kept]
