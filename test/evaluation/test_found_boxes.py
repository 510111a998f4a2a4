# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Found boxes by hand, and their average precision against pycocotools."""

from __future__ import annotations

import numpy as np
import pytest

from rt_panoptic_ros.datasets.base import PanopticSample, object_boxes, true_objects
from rt_panoptic_ros.evaluation.found_boxes import FoundBoxes, find_boxes, match_boxes

CLASSES = 3
SQUARE = (0, 0, 10, 10)


def match(truth: list, found: list, crowd: tuple[int, ...] = ()) -> FoundBoxes:
    """Match (class id, box) with (class id, score, box); `crowd` holds rows of the truth."""
    return match_boxes(
        np.array([box for _, box in truth], np.float32).reshape(-1, 4),
        np.array([class_id for class_id, _ in truth], np.uint8),
        np.isin(np.arange(len(truth)), crowd),
        np.array([box for *_, box in found], np.float32).reshape(-1, 4),
        np.array([class_id for class_id, *_ in found], np.uint8),
        np.array([score for _, score, _ in found], np.float32),
        CLASSES,
    )


class TestMatching:
    def test_one_finds_one_of_its_class(self) -> None:
        truth = [(0, SQUARE), (1, SQUARE), (1, (20, 0, 30, 10))]
        found = match(truth, [(1, 0.5, SQUARE), (1, 0.9, (0, 0, 10, 9)), (2, 0.7, SQUARE), (0, 0.1, (0, 0, 10, 5))])
        assert found.true_boxes.tolist() == [1, 2, 0]
        assert found.predicted.tolist() == [1, 2, 1]
        assert found.found.tolist() == [False, True, False, False]  # the better score takes the box; IoU 0.5 isn't over
        np.testing.assert_array_equal(found.recall, [0, 0.5, np.nan])
        np.testing.assert_array_equal(found.precision, [0, 0.5, 0])

    def test_the_nearest_free_box_is_taken(self) -> None:
        truth = [(0, (0, 0, 10, 10)), (0, (3, 0, 13, 10))]
        found = match(truth, [(0, 0.9, (2, 0, 12, 10)), (0, 0.8, (2, 0, 12, 10)), (0, 0.7, (2, 0, 12, 10))])
        assert found.found.tolist() == [True, True, False]
        assert found.recall[0] == 1

    def test_what_lies_on_a_crowd_does_not_count(self) -> None:
        truth = [(0, SQUARE), (0, (20, 0, 40, 20)), (1, (50, 0, 70, 20))]
        found = match(
            truth, [(0, 0.9, SQUARE), (0, 0.8, (20, 0, 25, 10)), (0, 0.7, (10, 0, 25, 10)), (0, 0.6, (50, 0, 70, 20))],
            crowd=(1, 2),
        )  # fmt: skip
        assert found.true_boxes.tolist() == [1, 0, 0]
        assert found.found.tolist() == [True, False, False]  # one on the crowd of its class is left out
        np.testing.assert_allclose(found.scores, [0.9, 0.7, 0.6])

    def test_either_side_may_be_empty(self) -> None:
        nothing, missed, wrong = match([], []), match([(0, SQUARE)], []), match([], [(0, 0.5, SQUARE)])
        joined = FoundBoxes.joined([nothing, missed, wrong])
        assert np.isnan(nothing.recall).all()
        assert np.isnan(nothing.average_precision).all()
        assert (joined.recall[0], joined.precision[0], joined.average_precision[0]) == (0, 0, 0)
        assert joined.found.tolist() == [False]


def test_boxes_of_pixels_end_one_past_the_last() -> None:
    instance = np.zeros((20, 30), np.int32)
    instance[5:8, 10:20] = 1
    sample = PanopticSample(
        "a", 1, np.zeros((20, 30, 3), np.uint8), np.zeros((20, 30), np.uint8), instance, np.zeros(2, np.uint8),
        np.zeros(2, bool), boxes=np.array([[np.nan] * 4, [1.5, 2, 3, 4]], np.float32),
    )  # fmt: skip
    np.testing.assert_array_equal(object_boxes(sample), [[10, 5, 20, 8], [1.5, 2, 3, 4]])
    found = find_boxes(sample, true_objects(instance, np.zeros(1, np.uint8)), CLASSES)
    assert (found.recall[0], found.precision[0], found.average_precision[0]) == (0.5, 1, pytest.approx(51 / 101))


@pytest.mark.parametrize("seed", range(5))
def test_as_pycocotools_says(seed: int) -> None:
    coco = pytest.importorskip("pycocotools.coco", reason="pycocotools is not installed")
    from pycocotools.cocoeval import COCOeval

    rng = np.random.default_rng(seed)
    parts, truth, results = [], [], []
    for number in range(1, 5):
        corners = rng.integers(0, 60, (8, 2))
        boxes = np.concatenate([corners, corners + rng.integers(10, 30, (8, 2))], axis=1).astype(np.float32)
        shifted = boxes + rng.normal(0, 2, boxes.shape).astype(np.float32)
        classes, scores = rng.integers(0, CLASSES, 8).astype(np.uint8), rng.random(8).astype(np.float32)
        none = np.zeros(8, bool)
        parts.append(match_boxes(boxes, classes, none, shifted, classes[::-1], scores, CLASSES))
        parts.append(match_boxes(boxes, classes, none, shifted, classes, scores, CLASSES))
        for image, found in ((2 * number, classes[::-1]), (2 * number + 1, classes)):
            for box, other, class_id, found_id, score in zip(boxes, shifted, classes, found, scores, strict=True):
                size, other_size = box[2:] - box[:2], other[2:] - other[:2]
                truth.append({"id": len(truth) + 1, "image_id": image, "category_id": int(class_id), "iscrowd": 0,
                              "bbox": [*box[:2].tolist(), *size.tolist()], "area": float(size.prod())})  # fmt: skip
                results.append({"image_id": image, "category_id": int(found_id), "score": float(score),
                                "bbox": [*other[:2].tolist(), *other_size.tolist()]})  # fmt: skip
    dataset = coco.COCO()
    dataset.dataset = {"images": [{"id": image} for image in range(2, 10)], "annotations": truth,
                       "categories": [{"id": class_id} for class_id in range(CLASSES)]}  # fmt: skip
    dataset.createIndex()
    evaluation = COCOeval(dataset, dataset.loadRes(results), "bbox")
    evaluation.params.iouThrs = np.array([0.5])
    evaluation.evaluate()
    evaluation.accumulate()
    expected = evaluation.eval["precision"][0, :, :, 0, -1].mean(axis=0)
    found = FoundBoxes.joined(parts)
    np.testing.assert_allclose(found.average_precision, expected, rtol=0, atol=1e-12)
    assert 0 < expected.min() < 1
