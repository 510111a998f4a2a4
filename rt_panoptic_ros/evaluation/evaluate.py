# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Runs a model over a dataset and measures it (Section 5.2): panoptic quality, mean IoU, average precision, time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from tqdm import tqdm

from rt_panoptic_ros.datasets.coco_panoptic import Segment, number_segments, panoptic_segments
from rt_panoptic_ros.errors import InvalidInputError
from rt_panoptic_ros.evaluation.average_precision import AveragePrecision, Precision
from rt_panoptic_ros.evaluation.found_boxes import FoundBoxes, find_boxes
from rt_panoptic_ros.evaluation.panoptic_quality import MeanQuality, QualityCounts, count_matches
from rt_panoptic_ros.evaluation.semantic_iou import SemanticIou
from rt_panoptic_ros.panoptic.class_filter import relabel
from rt_panoptic_ros.panoptic.tracking import with_ids
from rt_panoptic_ros.records import VOID, CameraImage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rt_panoptic_ros.datasets.base import PanopticDataset, PanopticSample
    from rt_panoptic_ros.model.class_table import ClassTable
    from rt_panoptic_ros.model.label_map import LabelMap
    from rt_panoptic_ros.pipeline import PanopticPipeline
    from rt_panoptic_ros.records import PanopticResult


class ImageLabelling(Protocol):
    """What is evaluated: a pipeline, or one in other classes."""

    @property
    def classes(self) -> ClassTable:
        """Of the results."""

    @property
    def timings_ms(self) -> dict[str, float]:
        """Of the last image, by stage."""

    def __call__(self, image: CameraImage) -> PanopticResult:
        """Label an image."""


class RelabelledPipeline:
    """A pipeline whose results are given in the classes of a label map."""

    def __init__(self, pipeline: PanopticPipeline, label_map: LabelMap) -> None:
        """Look the classes up.

        Raises:
            InvalidInputError: None of the model's classes is named in the map.
        """
        self.classes = label_map.table(pipeline.classes)
        self._pipeline = pipeline
        self._new_ids = label_map.new_ids(pipeline.classes)

    @property
    def timings_ms(self) -> dict[str, float]:
        """Of the last image, by stage of the pipeline."""
        return self._pipeline.timings_ms

    def __call__(self, image: CameraImage) -> PanopticResult:
        """Label an image; see `PanopticPipeline`."""
        result = relabel(self._pipeline(image), self._new_ids, self.classes.thing_ids)
        return with_ids(result, result.detections.ids)


@dataclass(frozen=True, slots=True)
class FrameQuality:
    """One image's own panoptic quality."""

    index: int  # in the dataset
    stem: str
    pq: float  # averaged over the classes of this image alone, 0 to 1; NaN without any segment


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What a model reaches on the images of a dataset; all shares are 0 to 1."""

    classes: ClassTable
    instance_note: str  # what the dataset's objects are, where not true objects; else empty
    counts: QualityCounts
    iou: np.ndarray  # (N,) float64 of the semantic image by class id; NaN for classes that do not occur
    precision: Precision | None  # None where it was not asked for, or not all objects have masks
    boxes: FoundBoxes | None  # None where all objects have masks
    complete: bool  # whether all objects are labelled: else a box that finds none may be right
    frames: tuple[FrameQuality, ...]
    stage_ms: dict[str, float]  # median ms per image by stage of the pipeline, and their "total"

    @property
    def all(self) -> MeanQuality:
        """Panoptic quality averaged over all classes that occur."""
        return self.counts.mean(range(len(self.classes)))

    @property
    def things(self) -> MeanQuality:
        """Panoptic quality averaged over the things that occur."""
        return self.counts.mean(self.classes.thing_ids)

    @property
    def stuff(self) -> MeanQuality:
        """Panoptic quality averaged over the stuff that occurs."""
        return self.counts.mean([entry.id for entry in self.classes.classes if not entry.thing])

    @property
    def mean_iou(self) -> float:
        """Mean IoU over the classes that occur; NaN where none does."""
        occurring = self.iou[~np.isnan(self.iou)]
        return float(occurring.mean()) if len(occurring) else np.nan


def evaluate(
    pipeline: ImageLabelling,
    dataset: PanopticDataset,
    *,
    progress: bool,
    max_images: int = 0,
    average_precision: bool = True,
) -> Evaluation:
    """Label the images of a dataset and compare with its ground truth; nothing is written.

    Thing pixels without an instance are void for panoptic quality, in ground truth and prediction; for the mean IoU
    they have their class. Objects predicted where void is known to hold none (`PanopticSample.complete`) are wrong.
    The precision is that of the fused result; see `AveragePrecision`. Where objects are known by their boxes alone,
    panoptic quality and IoU are those of the pixels that are labelled, boxes are counted instead of masks
    (`found_boxes`), and there is no average precision of masks.

    Args:
        pipeline: Labels the images.
        dataset: Gives images and ground truth.
        progress: Show a bar on standard error.
        max_images: Stop after this many; 0 takes all.
        average_precision: Also compute that; it needs pycocotools.

    Returns:
        All figures.

    Raises:
        InvalidInputError: The pipeline's classes are not the dataset's, no image has labels, or a file of the dataset
            is damaged.
        UnavailableError: pycocotools (said before any image is labelled) or the backend can't be had here.
    """
    classes = dataset.classes
    _require_same_classes(pipeline.classes, classes)
    precision = AveragePrecision(classes) if average_precision else None
    iou = SemanticIou(len(classes))
    stems: list[str] = []
    lenient: list[QualityCounts] = []  # by image, as panopticapi counts
    strict: list[QualityCounts] = []  # objects in void that holds none are wrong
    boxes: list[FoundBoxes] = []
    by_box = complete = False
    timings: list[dict[str, float]] = []
    indices = range(min(len(dataset), max_images or len(dataset)))
    if not any(sample.by_box.any() or (sample.semantic != VOID).any() for sample in map(dataset.__getitem__, indices)):
        raise InvalidInputError(
            f"expected labels to compare with, got none in any of {len(indices)} images: take a split with labels, "
            "such as val; a benchmark keeps those of its test split to itself"
        )
    for index in tqdm(indices, unit="image", desc="evaluating", disable=not progress):
        sample = dataset[index]
        result = pipeline(CameraImage(sample.image, "rgb"))
        timings.append(pipeline.timings_ms)
        segments = (*true_segments(sample, classes), *panoptic_segments(result, classes))
        stems.append(sample.stem)
        lenient.append(count_matches(*segments, classes))
        strict.append(count_matches(*segments, classes, sample.semantic == VOID) if sample.complete else lenient[-1])
        iou.add(sample.semantic, result.semantic)
        boxes.append(find_boxes(sample, result.detections, len(classes)))
        by_box, complete = by_box or bool(sample.by_box.any()), sample.complete
        if precision is not None:
            precision.add(sample, result)
    matches = lenient if by_box else strict  # void may be an object that is known by its box alone
    qualities = [counts.mean(range(len(classes))).pq for counts in matches]
    return Evaluation(
        classes=classes,
        instance_note=dataset.instance_note,
        counts=sum(matches, QualityCounts.none(len(classes))),
        iou=iou.per_class(),
        precision=None if precision is None or by_box else precision.result(),
        boxes=FoundBoxes.joined(boxes) if by_box else None,
        complete=complete,
        frames=tuple(FrameQuality(*frame) for frame in zip(indices, stems, qualities, strict=True)),
        stage_ms=_median_timings(timings),
    )


def true_segments(sample: PanopticSample, classes: ClassTable) -> tuple[np.ndarray, tuple[Segment, ...]]:
    """Return the ground truth's segments; see `number_segments`."""
    return number_segments(sample.semantic, sample.instance, sample.instance_classes, sample.instance_crowd, classes)


def _require_same_classes(model: ClassTable, dataset: ClassTable) -> None:
    theirs, ours = ([(one.name, one.thing) for one in table.classes] for table in (dataset, model))
    if ours != theirs:
        same = sorted(ours) == sorted(theirs)
        differing = "their order" if same else ", ".join(sorted({name for name, _ in set(ours) ^ set(theirs)}))
        raise InvalidInputError(
            f"expected a model with the dataset's classes ({dataset.name}, {len(dataset)}), got one with those of "
            f"{model.name} ({len(model)}), which differ in {differing:.200}: take a model that was trained on this "
            "dataset, or its own dataset, or add --label-map with the map that it was trained with, or one for both"
        )


def _median_timings(timings: Sequence[dict[str, float]]) -> dict[str, float]:
    # The first frame may go stage by stage where the others are one graph.
    medians = {stage: float(np.median([f[stage] for f in timings if stage in f])) for stage in timings[-1]}
    return {**medians, "total": float(np.median([sum(frame.values()) for frame in timings]))}
