# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The losses of Section 4.2 and 4.3, named as in the paper, and their sum (Eq. 19)."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from rt_panoptic_ros.errors import require
from rt_panoptic_ros.network.head import NetworkOutputs
from rt_panoptic_ros.records import VOID
from rt_panoptic_ros.training.boxes import offset_iou
from rt_panoptic_ros.training.mask_loss import mask_loss
from rt_panoptic_ros.training.targets import IGNORED_LEVEL, Targets, by_location

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

FOCAL_ALPHA = 0.25
FOCAL_GAMMA = 2.0
"""Of the sigmoid focal loss (Lin et al., 2017; FCOS)."""

WORST_FRACTION = 0.3
"""Share of the pixels, those of the highest loss, that the semantic loss counts (after Eq. 15)."""

_TINY = 1e-6
"""IoU below which the IoU loss stays constant: a box that has all but vanished."""


@dataclass(frozen=True, slots=True)
class LossWeights:
    """Factors of the losses in their sum; 1 as in Eq. 19, semantics is its lambda; 0 leaves a loss out."""

    box_regression: float = 1.0
    centerness: float = 1.0
    levelness: float = 1.0
    box_class: float = 1.0
    semantics: float = 1.0
    mask: float = 1.0
    classes: tuple[float, ...] = ()  # of the pixels of each class in the semantic loss, by class id; none: all 1

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            InvalidInputError: A factor below 0.
        """
        for item in fields(self):
            value = getattr(self, item.name)
            require(bool(np.all(np.array(value) >= 0)), "loss weights from 0", f"{item.name}: {value}")


def total_loss(
    outputs: NetworkOutputs,
    targets: Targets,
    weights: LossWeights,
    *,
    reduce_count: Callable[[Tensor], Tensor] = lambda count: count,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the weighted sum of the losses (Eq. 19) and each of them by name, unweighted and without gradient.

    Args:
        outputs: The network's, of a batch.
        targets: The batch's, for the same level sizes.
        weights: Factors; a network without levelness has no levelness and no mask loss.
        reduce_count: Makes the number of foreground locations the mean over all processes that learn together.

    Returns:
        A scalar, and {name: scalar}.
    """
    box_class, offsets, center = (
        by_location(parts) for parts in (outputs.box_class_logits, outputs.box_offsets, outputs.centerness_logits)
    )  # (B, L, T), (B, L, 4), (B, L, 1)
    foreground = targets.foreground
    count = reduce_count(foreground.sum().float()).clamp(min=1)
    parts = {
        "box_regression": box_regression_loss(offsets[foreground], targets.offsets[foreground], count),
        "centerness": centerness_loss(center[foreground][:, 0], targets.centerness[foreground], count),
        "box_class": box_class_loss(box_class, targets.channels, foreground, targets.ignored),
        "semantics": semantics_loss(outputs.semantic_logits, targets.semantic, class_weights=weights.classes),
    }
    if outputs.levelness_logits is not None:
        parts["levelness"] = levelness_loss(outputs.levelness_logits, targets.levelness)
        if weights.mask > 0:
            parts["mask"] = mask_loss(outputs, targets)
    total = torch.stack([getattr(weights, name) * value for name, value in parts.items()]).sum()
    return total, {name: value.detach() for name, value in parts.items()}


def box_regression_loss(offsets: Tensor, target: Tensor, count: Tensor) -> Tensor:
    """Return the sum of -ln IoU (UnitBox) over foreground locations, over their number (Eq. 11).

    Args:
        offsets: (n, 4) predicted, > 0, px.
        target: (n, 4), px.
        count: N_fg, at least 1; another number than n where several processes share a batch.
    """
    return -offset_iou(offsets, target).clamp(min=_TINY).log().sum() / count


def centerness_loss(logits: Tensor, target: Tensor, count: Tensor) -> Tensor:
    """Return the binary cross-entropy of centerness over foreground locations, over their number (Eq. 12).

    Args:
        logits: (n,).
        target: (n,) in [0, 1].
        count: See `box_regression_loss`.
    """
    return functional.binary_cross_entropy_with_logits(logits.float(), target, reduction="sum") / count


def box_class_loss(logits: Tensor, channels: Tensor, foreground: Tensor, ignored: Tensor) -> Tensor:
    """Return the sigmoid focal loss, summed over classes, averaged over the locations of all levels (Section 4.2).

    Args:
        logits: (B, L, T).
        channels: (B, L) int64, the class's place among the T things, where foreground.
        foreground: (B, L) bool.
        ignored: (B, L) bool, locations that don't count unless they are foreground.
    """
    logits = logits.float()
    target = functional.one_hot(channels, logits.shape[2]).to(logits.dtype) * foreground[..., None]
    entropy = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    probability = logits.sigmoid()
    miss = probability + target - 2 * probability * target  # 1 - p for the class that is there, p for the others
    alpha = FOCAL_ALPHA * target + (1 - FOCAL_ALPHA) * (1 - target)
    counted = foreground | ~ignored
    loss = (alpha * miss**FOCAL_GAMMA * entropy).sum(dim=2) * counted
    return loss.sum() / counted.sum().clamp(min=1)


def levelness_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Return the mean cross-entropy of levelness over the grid points that count (Eq. 13).

    Args:
        logits: (B, 6, g, k).
        target: (B, g, k) int64, 0 background, 1 to 5 levels, IGNORED_LEVEL where unknown.
    """
    total = functional.cross_entropy(logits.float(), target, ignore_index=IGNORED_LEVEL, reduction="sum")
    return total / (target != IGNORED_LEVEL).sum().clamp(min=1)


def semantics_loss(
    logits: Tensor, target: Tensor, worst: float = WORST_FRACTION, class_weights: Sequence[float] = ()
) -> Tensor:
    """Return the mean cross-entropy over the worst share of the labelled pixels of a batch (Eq. 15).

    Args:
        logits: (B, N, h, w) at stride 8; upsampled bilinearly, as inference does.
        target: (B, H, W) uint8 class ids, 255 void.
        worst: The share.
        class_weights: Factors of the pixels of each class, by id; empty for 1.
    """
    height, width = target.shape[1:]
    full = functional.interpolate(logits.float(), scale_factor=8, mode="bilinear", align_corners=False)
    full = full[..., :height, :width]
    factors = torch.tensor(class_weights, device=full.device) if class_weights else None
    loss = functional.cross_entropy(full, target.long(), factors, ignore_index=VOID, reduction="none")  # (B, H, W)
    labelled = loss[target != VOID]
    if labelled.numel() == 0:
        return logits.sum() * 0
    return labelled.topk(max(1, round(worst * labelled.numel())), sorted=False).values.mean()
