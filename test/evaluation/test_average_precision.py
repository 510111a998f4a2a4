# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Average precision by hand, and against pycocotools used as its own demo does."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from rt_panoptic_ros.datasets.base import PanopticSample
from rt_panoptic_ros.errors import UnavailableError
from rt_panoptic_ros.evaluation.average_precision import AveragePrecision, Precision
from rt_panoptic_ros.model.class_table import load_class_table
from rt_panoptic_ros.records import DetectionTable, PanopticResult

CAMVID = load_class_table("camvid")
ROAD, CAR, PEDESTRIAN = 3, 8, 9


def sample_of(instance: np.ndarray, classes: list[int], crowd: list[bool] | None = None) -> PanopticSample:
    class_of = np.array([ROAD, *classes], np.uint8)
    return PanopticSample(
        stem="a",
        image_id="a",
        image=np.zeros((*instance.shape, 3), np.uint8),
        semantic=class_of[instance],
        instance=instance.astype(np.int32),
        instance_classes=class_of[1:],
        instance_crowd=np.array(crowd or [False] * len(classes), bool),
    )


def result_of(instance: np.ndarray, classes: list[int], scores: list[float]) -> PanopticResult:
    boxes = np.zeros((len(classes), 4), np.int32)
    areas = np.bincount(instance.ravel(), minlength=len(classes) + 1)[1:].astype(np.uint32)
    class_of = np.array([ROAD, *classes], np.uint8)
    table = DetectionTable(class_of[1:], np.array(scores, np.float32), boxes.astype(np.float32), boxes, areas)
    return PanopticResult(class_of[instance], instance.astype(np.uint16), table)


def blocks(*widths: int) -> np.ndarray:
    """Return objects of 10 rows side by side."""
    return np.tile(np.repeat(np.arange(len(widths)), widths), (10, 1))


def precision_of(*images: tuple[PanopticSample, PanopticResult]) -> Precision:
    pytest.importorskip("pycocotools", reason="pycocotools is not installed")
    precision = AveragePrecision(CAMVID)
    for sample, result in images:
        precision.add(sample, result)
    return precision.result()


def test_by_hand() -> None:
    truth = sample_of(blocks(0, 10, 50), [CAR, CAR])
    found = result_of(blocks(0, 10, 33, 17) % 3, [CAR, CAR], [0.9, 0.8])
    # The second car is found with IoU 0.66: right at 0.50, 0.55, 0.60 and 0.65. Above, half of the cars are found
    # before the first error, which gives 51 of the 101 recalls.
    precision = precision_of((truth, found))
    assert precision.ap50 == pytest.approx(1.0)
    assert precision.ap == pytest.approx((4 + 6 * 51 / 101) / 10)
    assert precision.per_class[CAR] == precision.ap
    assert np.isnan(np.delete(precision.per_class, CAR)).all()


def test_things_are_averaged_and_scores_order() -> None:
    truth = sample_of(blocks(10, 10, 10), [CAR, PEDESTRIAN])
    wrong_first = result_of(blocks(0, 10, 10, 10)[:, :30], [CAR, CAR, PEDESTRIAN], [0.9, 0.8, 0.7])
    precision = precision_of((truth, wrong_first))
    assert precision.per_class[CAR] == pytest.approx(0.5)  # its precision at every recall, after the false one
    assert precision.per_class[PEDESTRIAN] == pytest.approx(1.0)
    assert precision.ap == pytest.approx(0.75)


def test_crowds_are_ignored() -> None:
    truth = sample_of(blocks(0, 10, 20), [CAR, CAR], [False, True])
    on_crowd = result_of(blocks(0, 10, 10, 10), [CAR, CAR, CAR], [0.5, 0.9, 0.8])
    assert precision_of((truth, on_crowd)).ap == pytest.approx(1.0)


def test_without_objects_there_is_no_precision() -> None:
    nothing, found = sample_of(blocks(20), []), result_of(blocks(10, 10), [CAR], [0.9])
    precision = precision_of((nothing, found))
    assert np.isnan([precision.ap, precision.ap50, *precision.per_class]).all()
    assert precision_of((sample_of(blocks(10, 10), [CAR]), result_of(blocks(20), [], []))).ap == 0.0


@pytest.mark.parametrize("seed", range(3))
def test_as_pycocotools_says(seed: int, tmp_path: Path) -> None:
    """Ground truth from a file, results by loadRes, figures from summarize."""
    coco = pytest.importorskip("pycocotools.coco", reason="pycocotools is not installed")
    from pycocotools import mask as masks
    from pycocotools.cocoeval import COCOeval

    rng = np.random.default_rng(seed)
    images = []
    truth: list[dict] = []
    results: list[dict] = []
    for number in range(4):
        true_ids, found_ids = (np.zeros((60, 80), int) for _ in range(2))
        for row in range(1, 7):
            y, x, h, w = rng.integers((0, 0, 10, 10), (40, 60, 30, 30))
            true_ids[y : y + h, x : x + w] = row
            y, x, h, w = np.array([y, x, h, w]) + rng.integers(0, 4, 4)
            found_ids[y : y + h, x : x + w] = row
        classes = rng.choice(CAMVID.thing_ids, 6).tolist()
        scores = np.sort(rng.random(6).astype(np.float32))[::-1].tolist()
        crowd = (rng.random(6) < 0.2).tolist()
        images.append((sample_of(true_ids, classes, crowd), result_of(found_ids, classes, scores)))
        for row in range(6):
            encoded = [masks.encode(np.asfortranarray(ids == row + 1, np.uint8)) for ids in (true_ids, found_ids)]
            common = {"image_id": number, "category_id": classes[row]}
            polygon = {**encoded[0], "counts": encoded[0]["counts"].decode()}
            truth.append({**common, "id": len(truth) + 1, "segmentation": polygon, "iscrowd": int(crowd[row]),
                          "area": int(masks.area(encoded[0])), "bbox": masks.toBbox(encoded[0]).tolist()})  # fmt: skip
            results.append({**common, "segmentation": encoded[1], "score": scores[row]})
    document = {
        "images": [{"id": number, "height": 60, "width": 80} for number in range(4)],
        "categories": [{"id": class_id} for class_id in CAMVID.thing_ids],
        "annotations": truth,
    }
    (tmp_path / "truth.json").write_text(json.dumps(document))
    ground_truth = coco.COCO(str(tmp_path / "truth.json"))
    evaluation = COCOeval(ground_truth, ground_truth.loadRes(results), "segm")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    precision = precision_of(*images)
    assert (precision.ap, precision.ap50) == pytest.approx(tuple(evaluation.stats[:2]), rel=0, abs=1e-12)
    assert 0 < precision.ap < 1


def test_missing_pycocotools_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UnavailableError, match=r"expected the package pycocotools .* `pip install pycocotools`"):
        AveragePrecision(CAMVID)
