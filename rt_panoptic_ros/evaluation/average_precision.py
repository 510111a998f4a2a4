# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Average precision of object masks as COCO defines it (AP of Table 1), computed by pycocotools."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rt_panoptic_ros.errors import require_package

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rt_panoptic_ros.datasets.base import PanopticSample
    from rt_panoptic_ros.model.class_table import ClassTable
    from rt_panoptic_ros.records import PanopticResult


@dataclass(frozen=True, slots=True)
class Precision:
    """Average precision, each 0 to 1; NaN where there is no object in the ground truth."""

    ap: float  # mean over the IoU thresholds 0.50, 0.55, ..., 0.95 and the things that occur
    ap50: float  # at IoU 0.50
    per_class: np.ndarray  # (N,) float64 by class id, over the IoU thresholds; NaN for stuff and absent things


class AveragePrecision:
    """Accumulates objects over images.

    AP is normally computed from overlapping detections before fusion. What counts here is what the pipeline gives: of
    each row of the detection table the visible mask (pixels that fusion left to it) and the score. Detections below
    the score threshold of fusion are missing, so figures are lower than those of all detections. As in COCO, at most
    100 detections of a class count in an image, a detection on a crowd is ignored, and void is not.
    """

    def __init__(self, classes: ClassTable) -> None:
        """Start without images.

        Raises:
            UnavailableError: pycocotools is not installed.
        """
        require_package("pycocotools", "the average precision")
        self._classes = classes
        self._images: list[dict[str, int]] = []
        self._truth: list[dict[str, Any]] = []
        self._detections: list[dict[str, Any]] = []

    def add(self, sample: PanopticSample, result: PanopticResult) -> None:
        """Keep one image's objects.

        Args:
            sample: The ground truth.
            result: What the pipeline made of its image.
        """
        height, width = sample.instance.shape
        self._images.append({"id": len(self._images) + 1, "height": height, "width": width})
        image, table = {"image_id": len(self._images)}, result.detections
        objects = _annotations(sample.instance, sample.instance_classes)
        for annotation, crowd in zip(objects, sample.instance_crowd.tolist(), strict=True):
            self._truth.append({**annotation, **image, "iscrowd": int(crowd)})
        objects = _annotations(result.instance, table.class_ids)
        for annotation, score in zip(objects, table.scores.tolist(), strict=True):
            self._detections.append({**annotation, **image, "iscrowd": 0, "score": score})

    def result(self) -> Precision:
        """Return the precision over the images so far."""
        from pycocotools.cocoeval import COCOeval

        things = self._classes.thing_ids
        per_class = np.full(len(self._classes), np.nan)
        with contextlib.redirect_stdout(io.StringIO()):  # it reports its progress there
            evaluation = COCOeval(self._coco(self._truth), self._coco(self._detections), "segm")
            evaluation.evaluate()
            evaluation.accumulate()
        # (IoU thresholds, recalls, things) for objects of all sizes, at the largest number of detections
        precision = np.array(evaluation.eval["precision"])[..., 0, -1]
        precision[precision < 0] = np.nan  # a thing that does not occur
        occurs = ~np.isnan(precision[0, 0])
        per_class[np.array(things)[occurs]] = precision[..., occurs].mean(axis=(0, 1))
        if not occurs.any():
            return Precision(np.nan, np.nan, per_class)
        return Precision(float(precision[..., occurs].mean()), float(precision[0][:, occurs].mean()), per_class)

    def _coco(self, annotations: list[dict[str, Any]]) -> Any:
        from pycocotools.coco import COCO

        coco = COCO()
        coco.dataset = {
            "images": self._images,
            "categories": [{"id": class_id} for class_id in self._classes.thing_ids],
            # Ids from 1: pycocotools takes 0 for no match.
            "annotations": [{**annotation, "id": number} for number, annotation in enumerate(annotations, 1)],
        }
        coco.createIndex()
        return coco


def _annotations(instance: np.ndarray, class_ids: np.ndarray) -> Iterator[dict[str, Any]]:
    """Yield category, mask and area of each object."""
    from pycocotools import mask as masks

    by_columns = np.asfortranarray(instance)  # as run lengths count pixels
    for row, class_id in enumerate(class_ids.tolist(), 1):
        encoded = masks.encode((by_columns == row).view(np.uint8))
        yield {"category_id": class_id, "segmentation": encoded, "area": float(masks.area(encoded))}
