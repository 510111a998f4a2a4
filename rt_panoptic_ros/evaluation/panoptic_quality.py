# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Panoptic quality (Eq. 20), by the rules of panopticapi, the metric's official code.

A predicted and a true segment of one class match where their IoU is above 0.5; void pixels of the ground truth are left
out of the union. A predicted segment without a match is no false positive where more than half of it is void or lies on
crowds of its class; crowds are never missed. Where all objects are labelled, void that holds none is known to be wrong
for things, unlike in panopticapi.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np

from rt_panoptic_ros.errors import InvalidInputError, require

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rt_panoptic_ros.datasets.coco_panoptic import Segment
    from rt_panoptic_ros.model.class_table import ClassTable

_UNKNOWN, _BLANK, _FIRST = 0, 1, 2  # places in the joint histogram: ids without a segment, void, then the segments


@dataclass(frozen=True, slots=True)
class MeanQuality:
    """Panoptic quality averaged over classes, each 0 to 1; NaN where no class occurs."""

    pq: float
    sq: float
    rq: float
    classes: int  # how many occur, and are averaged over


@dataclass(frozen=True, slots=True)
class QualityCounts:
    """What Eq. 20 is computed from, by class id, over one image or many; `+` joins the images of both."""

    iou_sums: np.ndarray  # (N,) float64: over the true positives
    true_positives: np.ndarray  # (N,) int64: matched pairs
    false_positives: np.ndarray  # (N,) int64
    false_negatives: np.ndarray  # (N,) int64

    @classmethod
    def none(cls, class_count: int) -> QualityCounts:
        """Return the counts over no image."""
        zeros = np.zeros(class_count, np.int64)
        return cls(np.zeros(class_count), zeros, zeros, zeros)

    def __add__(self, other: QualityCounts) -> QualityCounts:
        return QualityCounts(*(getattr(self, one.name) + getattr(other, one.name) for one in fields(self)))

    @property
    def true_segments(self) -> np.ndarray:
        """Segments of the ground truth but crowds, (N,) int64."""
        segments: np.ndarray = self.true_positives + self.false_negatives
        return segments

    @property
    def pq(self) -> np.ndarray:
        """Panoptic quality, (N,) float64 in 0 to 1; NaN for classes in neither ground truth nor prediction."""
        return ratio(self.iou_sums, self._weights)

    @property
    def sq(self) -> np.ndarray:
        """Segmentation quality, the mean IoU of matches, (N,) float64; 0 without a match, NaN as in `pq`."""
        quality = np.where(self.true_positives > 0, ratio(self.iou_sums, self.true_positives), 0.0)
        return np.where(self._weights > 0, quality, np.nan)

    @property
    def rq(self) -> np.ndarray:
        """Recognition quality, the F1 score of segments, (N,) float64 in 0 to 1; NaN as in `pq`."""
        return ratio(self.true_positives, self._weights)

    def mean(self, class_ids: Sequence[int]) -> MeanQuality:
        """Return the averages over those of `class_ids` that occur in ground truth or prediction."""
        chosen = np.array(class_ids, np.intp)
        chosen = chosen[self._weights[chosen] > 0]
        if not len(chosen):
            return MeanQuality(np.nan, np.nan, np.nan, 0)
        pq, sq, rq = (float(values[chosen].mean()) for values in (self.pq, self.sq, self.rq))
        return MeanQuality(pq, sq, rq, len(chosen))

    @property
    def _weights(self) -> np.ndarray:
        """The denominator of Eq. 20, (N,) float64."""
        return self.true_positives + 0.5 * self.false_positives + 0.5 * self.false_negatives


def count_matches(
    true_ids: np.ndarray,
    true_segments: Sequence[Segment],
    predicted_ids: np.ndarray,
    predicted_segments: Sequence[Segment],
    classes: ClassTable,
    empty: np.ndarray | None = None,
) -> QualityCounts:
    """Match the segments of one image (Eq. 20).

    Areas are counted in the pictures; of the segments, only id, category and crowd are read.

    Args:
        true_ids: (H, W) integers from 0, segment ids of the ground truth, 0 void.
        true_segments: What they are.
        predicted_ids: (H, W) integers from 0, segment ids of the prediction, 0 void.
        predicted_segments: What they are; each has pixels, none is a crowd.
        classes: Knows the segments' categories.
        empty: (H, W) bool, void that is known to hold no object; None for nowhere.

    Returns:
        The image's counts.

    Raises:
        InvalidInputError: The sizes differ, a category is not in the class table, or an id in a picture has no segment
            (or a predicted segment no pixel).
    """
    if true_ids.shape != predicted_ids.shape:
        raise InvalidInputError(
            f"expected a prediction of the ground truth's size {true_ids.shape}, got {predicted_ids.shape}: "
            "compare labels of the same image"
        )
    true_classes = _class_ids(true_segments, classes)
    predicted_classes = _class_ids(predicted_segments, classes)
    width = _FIRST + len(predicted_segments)
    predicted_places = _places(predicted_ids, predicted_segments)
    pairs = _places(true_ids, true_segments) * width + predicted_places
    histogram = np.bincount(pairs.ravel(), minlength=(_FIRST + len(true_segments)) * width).reshape(-1, width)
    true_areas, predicted_areas = histogram[_FIRST:].sum(axis=1), histogram[:, _FIRST:].sum(axis=0)
    _require_segments(histogram, predicted_areas)

    shared = histogram[_FIRST:, _FIRST:]  # (true, predicted) px
    void = histogram[_BLANK, _FIRST:]  # (predicted,) px
    if empty is not None:
        known = np.bincount(predicted_places[empty], minlength=width)[_FIRST:]
        void = void - np.where(np.isin(predicted_classes, classes.thing_ids), known, 0)
    crowd = np.array([segment.iscrowd == 1 for segment in true_segments], bool)
    same_class = true_classes[:, None] == predicted_classes
    unions = true_areas[:, None] + predicted_areas - shared - void
    # At most one match in each row and column: two would share more pixels than there are.
    rows, columns = np.nonzero(same_class & ~crowd[:, None] & (2 * shared > unions))
    missed = ~crowd
    missed[rows] = False
    ignored = void + np.where(same_class & crowd[:, None], shared, 0).sum(axis=0)
    wrong = 2 * ignored <= predicted_areas
    wrong[columns] = False

    count = len(classes)
    ious = shared[rows, columns] / unions[rows, columns]
    return QualityCounts(
        iou_sums=np.bincount(true_classes[rows], ious, count),
        true_positives=np.bincount(true_classes[rows], minlength=count),
        false_positives=np.bincount(predicted_classes[wrong], minlength=count),
        false_negatives=np.bincount(true_classes[missed], minlength=count),
    )


def _class_ids(segments: Sequence[Segment], classes: ClassTable) -> np.ndarray:
    class_of = {entry.dataset_id: entry.id for entry in classes.classes}
    unknown = {segment.category_id for segment in segments} - set(class_of)
    if unknown:
        raise InvalidInputError(
            f"expected categories of class table '{classes.name}', got category {min(unknown)}: "
            "name the table that the labels were made with"
        )
    return np.array([class_of[segment.category_id] for segment in segments], np.intp)


def _places(ids: np.ndarray, segments: Sequence[Segment]) -> np.ndarray:
    """Return each pixel's place in the histogram, (H, W) intp."""
    listed = [segment.id for segment in segments]
    # As large as the ids are (up to 2^24 in COCO's pictures), but zeros take no memory until they are written.
    table = np.zeros(max(int(ids.max(initial=0)), *listed, 0) + 1, np.intp)
    table[0] = _BLANK
    table[listed] = np.arange(_FIRST, _FIRST + len(listed))
    places: np.ndarray = table[ids]
    return places


def _require_segments(histogram: np.ndarray, predicted_areas: np.ndarray) -> None:
    remedy = "take the picture and its segments from the same file"
    for name, strays in (("ground truth", histogram[_UNKNOWN].sum()), ("prediction", histogram[:, _UNKNOWN].sum())):
        expected = f"a segment for each id in the picture of the {name}"
        require(strays == 0, expected, f"{strays} px of ids without one: {remedy}")
    empty = np.count_nonzero(predicted_areas == 0)
    require(empty == 0, "predicted segments that have pixels", f"{empty} without: {remedy}")


def ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Divide, with NaN where the denominator is 0."""
    quotient = np.full(numerator.shape, np.nan)
    np.divide(numerator, denominator, out=quotient, where=denominator > 0)
    return quotient
