# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Mean IoU by hand, and against masks counted one class at a time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from rt_panoptic_ros.errors import InvalidInputError
from rt_panoptic_ros.evaluation.semantic_iou import SemanticIou
from rt_panoptic_ros.records import VOID

LABELS = arrays(np.uint8, (4, 5), elements=st.sampled_from([0, 1, 2, 3, VOID]))


def test_by_hand() -> None:
    iou = SemanticIou(4)
    iou.add(np.array([[0, 0, 0, 1, 1, VOID]], np.uint8), np.array([[0, 0, 1, 1, VOID, 2]], np.uint8))
    # Class 0: 2 of 3 px. Class 1: 1 right, 1 of class 0 taken, 1 left void. Class 2 is seen only where truth is void.
    np.testing.assert_array_equal(iou.per_class(), [2 / 3, 1 / 3, np.nan, np.nan])
    iou.add(np.array([[3, 3]], np.uint8), np.array([[3, 2]], np.uint8))
    np.testing.assert_array_equal(iou.per_class(), [2 / 3, 1 / 3, 0, 1 / 2])


@given(images=st.lists(st.tuples(LABELS, LABELS), min_size=1, max_size=3))
def test_as_counted_by_masks(images: list[tuple[np.ndarray, np.ndarray]]) -> None:
    iou = SemanticIou(4)
    for truth, predicted in images:
        iou.add(truth, predicted)
    truth, predicted = (np.concatenate(parts) for parts in zip(*images, strict=True))
    for class_id, value in enumerate(iou.per_class()):
        true_mask, mask = (truth == class_id), (predicted == class_id) & (truth != VOID)
        union = (true_mask | mask).sum()
        assert value == (true_mask & mask).sum() / union if union else np.isnan(value)


def test_sizes_must_agree() -> None:
    with pytest.raises(InvalidInputError, match=r"size \(2, 3\), got \(3, 2\)"):
        SemanticIou(4).add(np.zeros((2, 3), np.uint8), np.zeros((3, 2), np.uint8))
