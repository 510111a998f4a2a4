# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""What is said of an evaluation: tables like the paper's, metrics.json, and a sheet of the best and worst images."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from rt_panoptic_ros.datasets.base import object_boxes, true_objects
from rt_panoptic_ros.drawing.overlay import contact_sheet, render_overlay
from rt_panoptic_ros.evaluation.average_precision import Precision
from rt_panoptic_ros.evaluation.found_boxes import MIN_IOU
from rt_panoptic_ros.files import output_path, write_image
from rt_panoptic_ros.records import CameraImage, PanopticResult

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from rt_panoptic_ros.datasets.base import PanopticDataset, PanopticSample
    from rt_panoptic_ros.evaluation.evaluate import Evaluation, FrameQuality, ImageLabelling

_SHEET_FRAMES = 4  # best ones, and as many worst ones
_SHEET_WIDTH_PX = 1920
_JPEG_QUALITY = 92


@dataclass(frozen=True, slots=True)
class Subject:
    """What was evaluated on what."""

    model: str  # as the user named it
    engine: str  # `PanopticPipeline.describe`, after the first image
    settings: dict[str, float | int | str]  # of the post-processing, by flat name
    dataset: str
    split: str


def format_tables(evaluation: Evaluation, subject: Subject) -> str:
    """Return the figures as text in percent: one line as in Table 1, one line per class as in Table A4."""
    precision = _precision(evaluation)
    summary = {
        "PQ": evaluation.all.pq,
        "PQ^th": evaluation.things.pq,
        "PQ^st": evaluation.stuff.pq,
        "SQ": evaluation.all.sq,
        "RQ": evaluation.all.rq,
        "mIoU": evaluation.mean_iou,
        "AP": precision.ap,
        "AP50": precision.ap50,
    }
    stages = ", ".join(f"{stage} {value:.1f}" for stage, value in evaluation.stage_ms.items())
    lines = [
        f"{subject.model} on {subject.dataset} {subject.split}, {len(evaluation.frames)} images ({subject.engine})",
        *([evaluation.instance_note] if evaluation.instance_note else []),
        "",
        "".join(f"{name:>7}" for name in summary),
        "".join(f"{_percent(value, 1):>7}" for value in summary.values()),
        "",
        *_class_table(evaluation),
        "",
        *_box_table(evaluation),
        f"median ms per image: {stages}",
    ]
    return "\n".join(lines) + "\n"


def metrics_document(evaluation: Evaluation, subject: Subject) -> dict[str, Any]:
    """Return all figures as plain data: shares from 0 to 1, null where there is nothing to measure."""
    counts, precision = evaluation.counts, _precision(evaluation)
    columns = {
        "pq": counts.pq,
        "sq": counts.sq,
        "rq": counts.rq,
        "iou": evaluation.iou,
        "average_precision": precision.per_class,
        "segments": counts.true_segments,
        "true_positives": counts.true_positives,
        "false_positives": counts.false_positives,
        "false_negatives": counts.false_negatives,
    }
    document: dict[str, Any] = {
        **asdict(subject),
        "images": len(evaluation.frames),
        "instance_note": evaluation.instance_note,
        "panoptic_quality": {name: asdict(getattr(evaluation, name)) for name in ("all", "things", "stuff")},
        "mean_iou": evaluation.mean_iou,
        "average_precision": precision.ap,
        "average_precision_50": precision.ap50,
        "classes": [
            {"name": entry.name, "thing": entry.thing}
            | {name: column[entry.id].item() for name, column in columns.items()}
            for entry in evaluation.classes.classes
        ],
        "median_ms": evaluation.stage_ms,
        "frames": [{"stem": frame.stem, "pq": frame.pq} for frame in evaluation.frames],
        "boxes": [{"name": name, **figures} for name, figures in _box_figures(evaluation).items()],
    }
    plain: dict[str, Any] = _without_nan(document)
    return plain


def card_figures(evaluation: Evaluation, command: str) -> dict[str, Any]:
    """Return what a model's card says of an evaluation: percent, ms, and the command that prints them."""
    precision = _precision(evaluation)
    things = [entry for entry in evaluation.classes.classes if entry.thing]
    figures: dict[str, float] = {
        "mean_iou": evaluation.mean_iou,
        "pq": evaluation.all.pq,
        "pq_things": evaluation.things.pq,
        "pq_stuff": evaluation.stuff.pq,
        **{f"pq_{entry.name}": float(evaluation.counts.pq[entry.id]) for entry in things},
        "ap": precision.ap,
        "ap50": precision.ap50,
    }
    for name, found in _box_figures(evaluation).items():
        figures |= {f"box_{figure}_{name}": found[figure] for figure in ("recall", "precision", "ap50")}
    known = {name: round(100 * value, 1) for name, value in figures.items() if not math.isnan(value)}
    note = {"note": evaluation.instance_note} if evaluation.instance_note else {}
    frame_ms = round(evaluation.stage_ms["total"], 1)
    return {"images": len(evaluation.frames), **known, "median_ms_per_image": frame_ms, **note, "command": command}


def write_report(
    folder: Path, evaluation: Evaluation, subject: Subject, pipeline: ImageLabelling, dataset: PanopticDataset
) -> None:
    """Write metrics.json, metrics.txt and contact_sheet.jpg.

    Args:
        folder: Where; it is made.
        evaluation: What was measured.
        subject: On what.
        pipeline: What was evaluated; it labels the images of the sheet again.
        dataset: What it was evaluated on.

    Raises:
        UnavailableError: A file can't be written.
    """
    document = json.dumps(metrics_document(evaluation, subject), indent=2, allow_nan=False)
    for name, text in (("metrics.json", document + "\n"), ("metrics.txt", format_tables(evaluation, subject))):
        with output_path(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    sheet = cv2.cvtColor(render_sheet(evaluation, pipeline, dataset), cv2.COLOR_RGB2BGR)
    write_image(folder / "contact_sheet.jpg", sheet, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])


def render_sheet(evaluation: Evaluation, pipeline: ImageLabelling, dataset: PanopticDataset) -> np.ndarray:
    """Draw the images of best and worst panoptic quality, the ground truth beside the prediction, two images a row.

    Returns:
        (height, width, 3) uint8 RGB.
    """
    pictures, captions = [], []
    quality = "pseudo-instance PQ" if evaluation.instance_note else "PQ"
    for frame in extreme_frames(evaluation.frames):
        sample = dataset[frame.index]
        result = pipeline(CameraImage(sample.image, "rgb"))
        for labels in (true_result(sample), result):
            pictures.append(render_overlay(sample.image, labels, evaluation.classes))
        captions += [f"{frame.stem}: ground truth", f"predicted, {quality} {_percent(frame.pq, 1)}"]
    return contact_sheet(pictures, 4, _SHEET_WIDTH_PX, captions)


def extreme_frames(frames: Sequence[FrameQuality]) -> list[FrameQuality]:
    """Return the best frames, the best first, then the worst, the worst last; up to four of each, none twice.

    A frame without a quality, which has no segment at all, counts as the worst.
    """
    ranked = sorted(frames, key=lambda frame: -1.0 if math.isnan(frame.pq) else frame.pq, reverse=True)
    best, rest = ranked[:_SHEET_FRAMES], ranked[_SHEET_FRAMES:]
    return best + rest[-_SHEET_FRAMES:]


def true_result(sample: PanopticSample) -> PanopticResult:
    """Return the ground truth as if the pipeline had made it, with score 1 for each object that has pixels.

    Of an object that is known by its box alone, the box's border stands for them.
    """
    framed = sample.instance.copy()
    boxes = object_boxes(sample)
    for row in np.flatnonzero(sample.by_box):
        left, top, right, bottom = boxes[row].round().astype(int).tolist()
        cv2.rectangle(framed, (left, top), (right - 1, bottom - 1), int(row) + 1)
    instance = np.where(sample.instance > 0, sample.instance, framed)
    table = true_objects(instance, sample.instance_classes)
    return PanopticResult(sample.semantic, instance.astype(np.uint16), table.rows(table.areas > 0))


def _class_table(evaluation: Evaluation) -> list[str]:
    counts, mean = evaluation.counts, evaluation.all
    width = max(len(name) for name in ("Class", *evaluation.classes.names))
    rows = [("Mean", mean.pq, mean.sq, mean.rq, evaluation.mean_iou, int(counts.true_segments.sum()))]
    rows += zip(
        evaluation.classes.names, counts.pq, counts.sq, counts.rq, evaluation.iou, counts.true_segments, strict=True
    )
    lines = [f"{'Class':<{width}}{'PQ':>8}{'SQ':>8}{'RQ':>8}{'IoU':>8}{'segments':>10}"]
    for name, *shares, segments in rows:
        figures = "".join(f"{_percent(share, 2):>8}" for share in shares)
        lines.append(f"{name:<{width}}{figures}{segments:>10}")
    return lines


def _box_table(evaluation: Evaluation) -> list[str]:
    """Return what is said of boxes: nothing where all objects have masks."""
    rows = _box_figures(evaluation)
    if not rows:
        return []
    width = max(len(name) for name in ("Boxes", *evaluation.classes.names))
    doubt = (
        "" if evaluation.complete else "; what finds none counts as wrong, though it may be an object without a label"
    )
    lines = [
        f"not all objects have masks: PQ, SQ, RQ and IoU are of labelled pixels; boxes at IoU over {MIN_IOU}{doubt}",
        f"{'Boxes':<{width}}{'recall':>10}{'precision':>10}{'AP50':>8}{'boxes':>8}{'predicted':>10}",
    ]
    for name, row in rows.items():
        recall, precision, ap50 = (_percent(row[figure], 2) for figure in ("recall", "precision", "ap50"))
        lines.append(f"{name:<{width}}{recall:>10}{precision:>10}{ap50:>8}{row['boxes']:>8}{row['predicted']:>10}")
    return [*lines, ""]


def _box_figures(evaluation: Evaluation) -> dict[str, dict[str, Any]]:
    """Return {name of a thing: {name of a figure: number}}; none where all objects have masks."""
    boxes = evaluation.boxes
    if boxes is None:
        return {}
    columns = {
        "recall": boxes.recall,
        "precision": boxes.precision,
        "ap50": boxes.average_precision,
        "boxes": boxes.true_boxes,
        "predicted": boxes.predicted,
    }
    return {
        evaluation.classes.names[class_id]: {name: column[class_id].item() for name, column in columns.items()}
        for class_id in evaluation.classes.thing_ids
    }


def _precision(evaluation: Evaluation) -> Precision:
    """Return the average precision, NaN where it was not asked for."""
    return evaluation.precision or Precision(math.nan, math.nan, np.full(len(evaluation.classes), math.nan))


def _without_nan(value: Any) -> Any:
    """Return plain data with None for NaN, which JSON doesn't know."""
    if isinstance(value, dict):
        return {name: _without_nan(entry) for name, entry in value.items()}
    if isinstance(value, list):
        return [_without_nan(entry) for entry in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _percent(share: float, digits: int) -> str:
    return "-" if math.isnan(share) else f"{100 * share:.{digits}f}"
