# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""How often objects change their id over a drive, with and without tracking: `python -m scripts.id_switches --help`.

The dataset's images, in its order, are taken as one camera's. Its objects get identities by the tracker's own rules,
applied to the labels with a threshold of its own; an id switch is counted as in CLEAR MOT (Bernardin and Stiefelhagen,
2008): an object that was matched before is matched to another id now.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from rt_panoptic_ros.commands.options import add_pipeline, open_pipeline_of
from rt_panoptic_ros.datasets.opening import open_dataset
from rt_panoptic_ros.errors import RtPanopticError
from rt_panoptic_ros.evaluation.report import true_result
from rt_panoptic_ros.panoptic.tracking import InstanceTracker, with_ids
from rt_panoptic_ros.records import CameraImage, PanopticResult

if TYPE_CHECKING:
    from rt_panoptic_ros.datasets.base import PanopticDataset
    from rt_panoptic_ros.pipeline import PanopticPipeline

_SAME_OBJECT = 0.3  # IoU of an object's labels in consecutive frames, whatever the tracker asks for
_MATCH = 0.5  # IoU above which a prediction and an object of the same class are one; at most one of each can be


@dataclass
class Switches:
    """What became of the objects' ids."""

    switches: int = 0
    last: dict[int, int] = field(default_factory=dict)  # object: the id it had when it was last matched

    def update(self, objects: np.ndarray, ids: np.ndarray) -> None:
        """Take in one frame's matches: (n,) objects and the ids that they were matched to."""
        for key, number in zip(objects.tolist(), ids.tolist(), strict=True):
            self.switches += self.last.get(key, number) != number
            self.last[key] = number

    @property
    def per_object(self) -> float:
        """Switches per object that was ever matched; NaN without any."""
        return self.switches / len(self.last) if self.last else np.nan


@dataclass(frozen=True, slots=True)
class TrackingReport:
    """All of it."""

    instance_note: str
    frames: int
    matches: int  # of objects and predictions, over all frames
    tracked: Switches
    untracked: Switches  # with ids that count anew in every frame
    update_ms: float  # median for a frame: matching
    rename_ms: float  # and writing the instance image anew

    def format(self) -> str:
        """Return it as text for a terminal."""
        objects = len(self.tracked.last)
        lines = [f"{self.frames} frames, {objects} objects matched {self.matches} times"]
        for words, switches in (("with tracking", self.tracked), ("without", self.untracked)):
            lines.append(f"  {words:14} {switches.switches:5d} switches, {switches.per_object:.2f} per object")
        lines.append(
            f"cost per frame: matching {self.update_ms:.2f} ms, instance image {self.rename_ms:.2f} ms (medians)"
        )
        return "\n".join([*lines, *([self.instance_note] if self.instance_note else [])])


def count_id_switches(pipeline: PanopticPipeline, dataset: PanopticDataset, *, progress: bool) -> TrackingReport:
    """Label a drive with tracking and count how often ids change.

    Args:
        pipeline: Its classes are the dataset's.
        dataset: Its images are one camera's, in order.
        progress: Whether to show a bar.
    """
    identities, tracker = InstanceTracker(_SAME_OBJECT), InstanceTracker()
    tracked, untracked = Switches(), Switches()
    matches, costs = 0, []
    for index in tqdm(range(len(dataset)), desc="drive", unit="frame", disable=not progress):
        sample = dataset[index]
        labels = true_result(sample)
        objects = identities.update(labels)
        result = pipeline(CameraImage(sample.image, "rgb"))
        begin = time.perf_counter()
        ids = tracker.update(result)
        updated = time.perf_counter()
        with_ids(result, ids)
        costs.append((updated - begin, time.perf_counter() - updated))
        rows, columns = match_objects(labels, result)
        matches += len(rows)
        tracked.update(objects[rows], ids[columns])
        untracked.update(objects[rows], columns + 1)
    update_ms, rename_ms = 1e3 * np.median(costs, axis=0)
    return TrackingReport(
        dataset.instance_note, len(dataset), matches, tracked, untracked, float(update_ms), float(rename_ms)
    )


def match_objects(labels: PanopticResult, result: PanopticResult) -> tuple[np.ndarray, np.ndarray]:
    """Return rows of both tables, (n,) each, that are one object: of the same class, with an IoU above 0.5."""
    ours, theirs = len(labels.detections), len(result.detections)
    pairs = labels.instance.astype(np.int64) * (theirs + 1) + result.instance
    common = np.bincount(pairs.ravel(), minlength=(ours + 1) * (theirs + 1)).reshape(ours + 1, theirs + 1)[1:, 1:]
    areas = labels.detections.areas[:, None].astype(np.int64) + result.detections.areas[None].astype(np.int64)
    alike = labels.detections.class_ids[:, None] == result.detections.class_ids[None]
    rows, columns = np.nonzero(alike & (common > _MATCH * (areas - common)))
    return rows, columns


def main() -> None:
    """Count what the command line asks for."""
    parser = argparse.ArgumentParser("python -m scripts.id_switches", description=__doc__)
    add_pipeline(parser)
    parser.add_argument("--dataset", default="camvid", help="default: %(default)s")
    parser.add_argument("--root", type=Path, required=True, help="folder of the dataset")
    parser.add_argument("--split", default="val", help="default: %(default)s")
    options = parser.parse_args()
    try:
        dataset = open_dataset(options.dataset, options.root, options.split)
        print(count_id_switches(open_pipeline_of(options), dataset, progress=True).format())
    except RtPanopticError as error:
        parser.exit(1, f"{parser.prog}: {error}\n")


if __name__ == "__main__":
    main()
