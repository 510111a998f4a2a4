# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""What detectors agree on, and suppression, for any boxes."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rt_panoptic_ros.detectors.boxes import ScoredBoxes, agree, match_one_to_one, suppress
from rt_panoptic_ros.evaluation.found_boxes import pairwise_iou

SURE, MIN_IOU = 0.4, 0.5


def boxes_of(*rows: tuple[float, float, float, float, int, float]) -> ScoredBoxes:
    table = np.array(rows, np.float64).reshape(-1, 6)
    return ScoredBoxes(table[:, :4].astype(np.float32), table[:, 4].astype(np.int64), table[:, 5].astype(np.float32))


@st.composite
def detections(draw: st.DrawFn) -> ScoredBoxes:
    """Boxes around a few places, so that many overlap well, none exactly as another."""
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    count = draw(st.integers(0, 8))
    places = np.array([(0, 0, 20, 40), (30, 0, 50, 40), (5, 5, 60, 30)], float)[generator.integers(0, 3, count)]
    boxes = places + generator.normal(0, 2, (count, 4))
    scores, classes = generator.uniform(0.1, 1, count), generator.integers(1, 3, count)
    return suppress(ScoredBoxes(boxes.astype(np.float32), classes, scores.astype(np.float32)), 0.8)


def rows_of(found: ScoredBoxes) -> list[list[float]]:
    return sorted(np.column_stack((found.class_ids, found.scores, found.boxes)).round(3).tolist())


@given(a=detections(), b=detections())
def test_objects_are_seen_by_both_and_nothing_seen_is_called_empty(a: ScoredBoxes, b: ScoredBoxes) -> None:
    objects, unknown = agree([a, b], (SURE, SURE), MIN_IOU)
    rows, columns = match_one_to_one(a, b, MIN_IOU)
    assert len(set(rows)) == len(rows) == len(set(columns))
    sure = (a.scores[rows] >= SURE) & (b.scores[columns] >= SURE)
    ours, theirs = a[rows[sure]], b[columns[sure]]
    assert (ours.class_ids == theirs.class_ids).all()
    assert (np.diagonal(pairwise_iou(ours.boxes, theirs.boxes)) >= MIN_IOU).all()
    np.testing.assert_allclose(objects.boxes, (ours.boxes + theirs.boxes) / 2, rtol=1e-6)
    np.testing.assert_allclose(objects.scores, (ours.scores + theirs.scores) / 2, rtol=1e-6)
    assert not (pairwise_iou(unknown.boxes, objects.boxes) >= MIN_IOU).any()
    shown = np.concatenate((objects.boxes, unknown.boxes))
    for part in (a, b):
        assert (pairwise_iou(part.boxes, shown).max(axis=1, initial=0) >= 0.3).all()


@given(a=detections(), b=detections())
def test_the_order_of_two_detectors_does_not_matter(a: ScoredBoxes, b: ScoredBoxes) -> None:
    for one, other in zip(agree([a, b], (SURE, SURE), MIN_IOU), agree([b, a], (SURE, SURE), MIN_IOU), strict=True):
        assert rows_of(one) == rows_of(other)


@given(a=detections())
def test_a_detector_agrees_with_itself(a: ScoredBoxes) -> None:
    sure = a[a.scores >= SURE]
    for count in (1, 2, 3):
        objects, _ = agree([a] * count, [SURE] * count, MIN_IOU)
        np.testing.assert_allclose(rows_of(objects), rows_of(sure), atol=2e-3)


def test_what_one_detector_sees_or_both_hardly_see_is_unknown() -> None:
    a = boxes_of((0, 0, 10, 20, 1, 0.9), (30, 0, 40, 20, 1, 0.9), (60, 0, 70, 20, 1, 0.3), (1, 0, 10, 20, 2, 0.5))
    b = boxes_of((0, 0, 10, 22, 1, 0.5), (30, 0, 40, 20, 2, 0.9), (60, 0, 70, 20, 1, 0.9))
    objects, unknown = agree([a, b], (SURE, SURE), MIN_IOU)
    np.testing.assert_allclose(objects.boxes, [[0, 0, 10, 21]])
    assert objects.scores.tolist() == [np.float32(0.7)]
    # The box of class 2 on the object is that object again; where classes differ, both are unknown.
    assert sorted(zip(unknown.boxes[:, 0].tolist(), unknown.class_ids.tolist(), strict=True)) == [
        (30, 1), (30, 2), (60, 1),
    ]  # fmt: skip


def test_suppression_keeps_the_best_of_a_class() -> None:
    found = boxes_of((0, 0, 10, 10, 1, 0.5), (0, 0, 10, 11, 1, 0.9), (0, 0, 10, 10, 2, 0.4), (0, 0, 10, 40, 1, 0.3))
    assert suppress(found, 0.6).scores.tolist() == [np.float32(score) for score in (0.9, 0.4, 0.3)]
    assert len(suppress(boxes_of(), 0.6)) == 0
