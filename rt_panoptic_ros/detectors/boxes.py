# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Boxes with class and score: their overlaps, suppression, and what several detectors agree on."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from rt_panoptic_ros.evaluation.found_boxes import pairwise_iou

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class ScoredBoxes:
    """What one detector says of one image, or what is made of that; rows in any order."""

    boxes: np.ndarray  # (n, 4) float32 xyxy, px of the image, x2 and y2 one past the last pixel
    class_ids: np.ndarray  # (n,) uint8
    scores: np.ndarray  # (n,) float32, 0 to 1

    def __len__(self) -> int:
        """Return the number of boxes."""
        return len(self.boxes)

    def __getitem__(self, rows: Any) -> ScoredBoxes:
        """Return some rows, by an array of indices or a mask."""
        return ScoredBoxes(self.boxes[rows], self.class_ids[rows], self.scores[rows])

    @staticmethod
    def concatenated(parts: Sequence[ScoredBoxes]) -> ScoredBoxes:
        """Return the rows of all parts, at least one, in their order."""
        columns = (np.concatenate([getattr(part, column.name) for part in parts]) for column in fields(ScoredBoxes))
        return ScoredBoxes(*columns)


def match_one_to_one(a: ScoredBoxes, b: ScoredBoxes, min_iou: float) -> tuple[np.ndarray, np.ndarray]:
    """Return rows of both, (k,) each, that are one object: same class, IoU of at least `min_iou`, the most of all."""
    overlap = pairwise_iou(a.boxes, b.boxes) * (a.class_ids[:, None] == b.class_ids[None])
    overlap[overlap < min_iou] = 0
    rows, columns = linear_sum_assignment(overlap, maximize=True)
    matched = overlap[rows, columns] > 0
    return rows[matched], columns[matched]


def suppress(found: ScoredBoxes, max_iou: float) -> ScoredBoxes:
    """Return the rows, by falling score, that overlap no better one of their class by more than `max_iou` (NMS)."""
    found = found[np.argsort(-found.scores, kind="stable")]
    rivals = pairwise_iou(found.boxes, found.boxes) > max_iou
    rivals &= found.class_ids[:, None] == found.class_ids[None]
    kept = np.zeros(len(found), bool)
    for row in range(len(found)):
        kept[row] = not (rivals[row] & kept).any()
    return found[kept]


def agree(
    seen: Sequence[ScoredBoxes], score_thresholds: Sequence[float], min_iou: float
) -> tuple[ScoredBoxes, ScoredBoxes]:
    """Return the objects that all detectors see, and the regions of which no one can say whether they hold one.

    An object is a box of each detector, one to one, of one class, that overlaps the mean of the boxes before it by
    `min_iou` and reaches its detector's score threshold; it gets the mean box and score. All else is unknown, but for
    what overlaps an object by `min_iou`, whatever its class: that is the object again.

    Args:
        seen: Of each detector, down to scores that say little.
        score_thresholds: Of each detector.
        min_iou: Least intersection over union, above 0.

    Returns:
        Objects and unknown regions.
    """
    group, *others = seen
    sure = group.scores >= score_thresholds[0]
    alone: list[ScoredBoxes] = []
    for number, (other, threshold) in enumerate(zip(others, score_thresholds[1:], strict=True), 1):
        rows, columns = match_one_to_one(group, other, min_iou)
        alone += [group[np.setdiff1d(np.arange(len(group)), rows)]]
        alone += [other[np.setdiff1d(np.arange(len(other)), columns)]]
        ours, theirs = group[rows], other[columns]
        sure = sure[rows] & (theirs.scores >= threshold)
        boxes = (number * ours.boxes + theirs.boxes) / (number + 1)
        scores = (number * ours.scores + theirs.scores) / (number + 1)
        group = ScoredBoxes(boxes, ours.class_ids, scores)
    unknown = ScoredBoxes.concatenated([group[~sure], *alone])
    again = (pairwise_iou(unknown.boxes, group[sure].boxes) >= min_iou).any(axis=1)
    return group[sure], suppress(unknown[~again], min_iou)
