# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Which objects are found, by their boxes alone: what can be measured where the ground truth has no masks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rt_panoptic_ros.datasets.base import object_boxes
from rt_panoptic_ros.evaluation.panoptic_quality import ratio

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rt_panoptic_ros.datasets.base import PanopticSample
    from rt_panoptic_ros.records import DetectionTable

MIN_IOU = 0.5
"""A true box is found by one whose IoU with it is above this."""

_RECALLS = np.linspace(0, 1, 101)  # at which COCO looks the precision up


@dataclass(frozen=True, slots=True)
class FoundBoxes:
    """What was found on one image or many."""

    true_boxes: np.ndarray  # (N,) int64 by class id: objects of the ground truth but crowds
    class_ids: np.ndarray  # (k,) uint8 of the predictions, but those on crowds
    scores: np.ndarray  # (k,) float32
    found: np.ndarray  # (k,) bool: the prediction found a true box of its class

    @classmethod
    def joined(cls, parts: Sequence[FoundBoxes]) -> FoundBoxes:
        """Return the figures over the images of all parts, at least one."""
        rest = (np.concatenate([getattr(part, name) for part in parts]) for name in ("class_ids", "scores", "found"))
        return cls(np.sum([part.true_boxes for part in parts], axis=0), *rest)

    @property
    def predicted(self) -> np.ndarray:
        """Predictions by class id, (N,) int64."""
        return np.bincount(self.class_ids, minlength=len(self.true_boxes))

    @property
    def recall(self) -> np.ndarray:
        """Share of the true boxes that are found, (N,) float64; NaN without a true box."""
        return ratio(self._hits, self.true_boxes)

    @property
    def precision(self) -> np.ndarray:
        """Share of the predictions that found one, (N,) float64; NaN without a prediction."""
        return ratio(self._hits, self.predicted)

    @property
    def average_precision(self) -> np.ndarray:
        """COCO's average precision of boxes at IoU 0.5, (N,) float64; NaN without a true box."""
        return np.array([self._average_precision(class_id) for class_id in range(len(self.true_boxes))])

    @property
    def mean_average_precision(self) -> float:
        """Mean of `average_precision` over the classes with a true box; NaN without any."""
        values = self.average_precision
        return float(np.mean(values[~np.isnan(values)])) if self.true_boxes.any() else np.nan

    @property
    def _hits(self) -> np.ndarray:
        return np.bincount(self.class_ids[self.found], minlength=len(self.true_boxes))

    def _average_precision(self, class_id: int) -> float:
        chosen = self.class_ids == class_id
        if not self.true_boxes[class_id]:
            return np.nan
        hits = self.found[chosen][np.argsort(-self.scores[chosen], kind="stable")].cumsum()
        precision = hits / np.arange(1, len(hits) + 1)
        best = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)  # at this recall or a higher one
        return float(best[np.searchsorted(hits / self.true_boxes[class_id], _RECALLS)].mean())


def find_boxes(sample: PanopticSample, objects: DetectionTable, class_count: int) -> FoundBoxes:
    """Compare the predicted objects of an image with the true ones; see `match_boxes`.

    Args:
        sample: The ground truth; the box of an object with pixels is that of its pixels.
        objects: What was predicted; of each, the box of its visible pixels counts.
        class_count: Number of classes.
    """
    boxes = objects.mask_boxes.astype(np.float32) + np.array([0, 0, 1, 1], np.float32)
    truth = object_boxes(sample), sample.instance_classes, sample.instance_crowd
    return match_boxes(*truth, boxes, objects.class_ids, objects.scores, class_count)


def match_boxes(
    true_boxes: np.ndarray,
    true_classes: np.ndarray,
    true_crowd: np.ndarray,
    boxes: np.ndarray,
    class_ids: np.ndarray,
    scores: np.ndarray,
    class_count: int,
) -> FoundBoxes:
    """Match the boxes of one image by class: by falling score, each takes the free true box of the largest IoU.

    A prediction without a match of which more than half lies on a crowd of its class doesn't count.

    Args:
        true_boxes: (n, 4) xyxy px, x2 and y2 one past the last pixel.
        true_classes: (n,) class ids.
        true_crowd: (n,) bool.
        boxes: (k, 4) predicted ones, likewise.
        class_ids: (k,).
        scores: (k,).
        class_count: Number of classes.
    """
    same_class = true_classes[:, None] == class_ids
    ious = np.where(same_class & ~true_crowd[:, None], pairwise_iou(true_boxes, boxes), 0.0)
    found = np.zeros(len(boxes), bool)
    for column in np.argsort(-scores, kind="stable").tolist() if len(true_boxes) else ():
        row = ious[:, column].argmax()
        if ious[row, column] > MIN_IOU:
            found[column] = True
            ious[row] = 0.0
    on_crowd = (same_class & true_crowd[:, None] & (_shared(true_boxes, boxes) > 0.5 * _areas(boxes))).any(axis=0)
    counts = found | ~on_crowd
    wanted = np.bincount(true_classes[~true_crowd], minlength=class_count)
    return FoundBoxes(wanted, class_ids[counts], scores[counts], found[counts])


def pairwise_iou(some: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the intersection over union of boxes, (n, k) float64, of (n, 4) and (k, 4) xyxy; 0 of empty ones."""
    shared = _shared(some, others)
    union = _areas(some)[:, None] + _areas(others) - shared
    iou: np.ndarray = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return iou


def _shared(some: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the areas that boxes share, (n, k) float64 px."""
    corner = np.minimum(some[:, None, 2:], others[:, 2:]) - np.maximum(some[:, None, :2], others[:, :2])
    shared: np.ndarray = corner.clip(0).astype(np.float64).prod(axis=2)
    return shared


def _areas(boxes: np.ndarray) -> np.ndarray:
    areas: np.ndarray = (boxes[:, 2:] - boxes[:, :2]).astype(np.float64).prod(axis=1)
    return areas
