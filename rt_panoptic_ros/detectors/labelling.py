# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Writes pictures of unlabelled sources and the boxes that detectors agree on, in COCO-instances format."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from tqdm import tqdm

from rt_panoptic_ros.detectors.boxes import agree
from rt_panoptic_ros.drawing.labels import FONT
from rt_panoptic_ros.drawing.overlay import contact_sheet
from rt_panoptic_ros.errors import InvalidInputError, require
from rt_panoptic_ros.files import output_path, write_image
from rt_panoptic_ros.frames.sources import open_source, read_image

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from rt_panoptic_ros.detectors.boxes import ScoredBoxes
    from rt_panoptic_ros.detectors.detector import Detector
    from rt_panoptic_ros.frames.sources import Frame
    from rt_panoptic_ros.model.class_table import ClassTable

_JPEG_QUALITY = 90
_SHEET_PICTURES, _SHEET_COLUMNS, _SHEET_WIDTH_PX = 24, 4, 1920
_SEEN_RGB, _UNKNOWN_RGB = (40, 230, 70), (255, 150, 40)
_COMPARED_PX = (64, 64)  # size at which frames are compared


@dataclass(frozen=True, slots=True)
class FrameChoice:
    """Which frames of each source are labelled, and how they are kept."""

    first: int = 0  # frame of each source to begin with
    every: int = 1  # from it on, one of so many
    max_frames: int = 0  # of one source and split; 0: no limit
    min_change: float = 0.0  # from the last one kept, mean of the grey values' absolute differences, 0..255
    hold_out: float = 0.0  # share of each source's frames, its last ones, that go to the other split
    max_side: int = 0  # px, to which larger pictures are reduced when kept; 0: as they are


class SplitLabels:
    """A split that is being labelled: its pictures are written as they come, the rest by `finish`."""

    def __init__(self, out: Path, split: str, classes: ClassTable, class_ids: Sequence[int]) -> None:
        """Begin a split in folder `out`; of `classes`, those of `class_ids` are labelled.

        Raises:
            InvalidInputError: The folder has results of an earlier run.
        """
        self.images: list[dict[str, Any]] = []  # as the JSON file has them
        self.annotations: list[dict[str, Any]] = []
        self._classes = {class_id: classes.classes[class_id] for class_id in class_ids}
        self._pictures, self._sheet = out / split, out / f"{split}.jpg"
        self._json = out / "annotations" / f"instances_{split}.json"
        for place in (self._json, self._pictures):
            if place.is_file() or (place.is_dir() and any(place.iterdir())):
                raise InvalidInputError(
                    f"expected a folder without the results of an earlier run, got {place}: name another, or move it "
                    "away"
                )

    def add(self, frame: Frame, objects: ScoredBoxes, unknown: ScoredBoxes, max_side: int) -> None:
        """Write a frame's picture, at most `max_side` px large (0: as it is), and add its objects and unknown regions.

        Raises:
            UnavailableError: The file can't be written.
        """
        image, factors = frame.image, np.ones(4, np.float32)
        largest = max(image.shape[:2])
        if max_side and largest > max_side:
            height, width = (max(1, round(length * max_side / largest)) for length in image.shape[:2])
            factors = np.array((width / image.shape[1], height / image.shape[0]) * 2, np.float32)
            image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        name = f"{frame.stem}.jpg"
        _write_jpeg(self._pictures / name, image)
        height, width = image.shape[:2]
        self.images.append({"id": len(self.images) + 1, "file_name": name, "height": height, "width": width})
        for rows, crowd in ((objects, 0), (unknown, 1)):
            for (x1, y1, x2, y2), class_id, score in zip(
                (rows.boxes * factors).tolist(), rows.class_ids.tolist(), rows.scores.tolist(), strict=True
            ):
                if class_id in self._classes:
                    box = [round(value, 2) for value in (x1, y1, x2 - x1, y2 - y1)]
                    self.annotations.append({
                        "id": len(self.annotations) + 1, "image_id": len(self.images),
                        "category_id": self._classes[class_id].dataset_id,
                        "bbox": box, "area": round(box[2] * box[3], 2), "score": round(score, 4), "iscrowd": crowd,
                        "segmentation": [],
                    })  # fmt: skip

    def finish(self, description: str) -> None:
        """Write the JSON file and the sheet, unless there is no picture.

        Raises:
            UnavailableError: A file can't be written.
        """
        if not self.images:
            return
        categories = [
            {"id": entry.dataset_id, "name": entry.name, "supercategory": entry.name}
            for entry in self._classes.values()
        ]
        document = {"info": {"description": description}, "images": self.images, "annotations": self.annotations,
                    "categories": categories}  # fmt: skip
        with output_path(self._json) as temporary:
            temporary.write_text(json.dumps(document), encoding="utf-8")
        _write_jpeg(self._sheet, self._draw_some())

    def _draw_some(self) -> np.ndarray:
        """Draw some of the pictures with their boxes, green what is known, orange what is unknown: (h, w, 3) RGB."""
        names = {entry.dataset_id: entry.name for entry in self._classes.values()}
        chosen = np.unique(np.linspace(0, len(self.images) - 1, _SHEET_PICTURES).round().astype(int))
        pictures, captions = [], []
        for entry in (self.images[index] for index in chosen):
            picture = read_image(self._pictures / entry["file_name"])
            for annotation in (item for item in self.annotations if item["image_id"] == entry["id"]):
                x, y, width, height = (round(value) for value in annotation["bbox"])
                color, thickness = (_UNKNOWN_RGB, 1) if annotation["iscrowd"] else (_SEEN_RGB, 2)
                cv2.rectangle(picture, (x, y), (x + width - 1, y + height - 1), color, thickness)
                text = names[annotation["category_id"]]
                cv2.putText(picture, text, (x, max(10, y - 3)), FONT, 0.4, color, 1, cv2.LINE_AA)
            pictures.append(picture)
            captions.append(entry["file_name"])
        return contact_sheet(pictures, _SHEET_COLUMNS, _SHEET_WIDTH_PX, captions)


def label_sources(
    detectors: Sequence[Detector],
    sources: Sequence[str],
    out: Path,
    splits: tuple[str, str],
    *,
    class_names: Sequence[str] = (),
    min_iou: float = 0.5,
    frames: FrameChoice = FrameChoice(),
) -> dict[str, SplitLabels]:
    """Label sources with what all detectors agree on (see `agree`).

    Writes, for each split, `out`/SPLIT/STEM.jpg, `out`/annotations/instances_SPLIT.json and `out`/SPLIT.jpg, a sheet of
    some pictures with their boxes. Regions that one detector alone sees have `iscrowd` 1, so that all else is known to
    be empty: complete labels.

    Args:
        detectors: One or more, with classes of the same names.
        sources: As `open_source` takes them; their pictures have different names.
        out: The folder, without an earlier run's results.
        splits: Of the frames, and of those held out.
        class_names: Classes to keep; none: all.
        min_iou: Least intersection over union of boxes that agree.
        frames: Which frames.

    Returns:
        {split: what was written}; without the second split where nothing is held out.

    Raises:
        InvalidInputError: Detectors or sources don't fit, a name is no class, `out` has results, or a frame can't be
            read (what came before it is written).
        UnavailableError: A file can't be written, or a camera is gone.
    """
    require(min_iou > 0, "an IoU above 0 of boxes that agree", min_iou)
    require(bool(detectors), "at least one detector", "none")
    classes, descriptions = detectors[0].classes, [detector.description for detector in detectors]
    for detector in detectors:
        require(
            detector.classes.names == classes.names, f"detectors of the same classes as '{descriptions[0].name}'",
            f"'{detector.description.name}' with others: bring them together by a label map",
        )  # fmt: skip
    things = [classes.names[class_id] for class_id in classes.thing_ids]
    for name in class_names:
        require(name in things, f"classes among {', '.join(things)}", f"'{name}'")
    wanted = [entry.id for entry in classes.classes if entry.thing and (not class_names or entry.name in class_names)]
    require(not frames.hold_out or splits[0] != splits[1], "two splits of different names", f"'{splits[0]}' twice")
    labels = {split: SplitLabels(out, split, classes, wanted) for split in splits[: 2 if frames.hold_out else 1]}
    thresholds = [description.score_threshold for description in descriptions]
    names = set[str]()
    try:
        for source in sources:
            for frame, held_out in _chosen(source, frames):
                require(
                    frame.stem not in names, "sources whose pictures have different names",
                    f"{frame.stem} again from {source}: rename it",
                )  # fmt: skip
                names.add(frame.stem)
                agreed = agree([detector(frame.image) for detector in detectors], thresholds, min_iou)
                labels[splits[held_out]].add(frame, *agreed, frames.max_side)
    finally:
        for written in labels.values():
            written.finish(f"boxes that {', '.join(description.name for description in descriptions)} agree on")
    return labels


def _chosen(name: str, choice: FrameChoice) -> Iterator[tuple[Frame, bool]]:
    """Give the chosen frames of a source, and whether each is held out."""
    with open_source(name) as source:
        if choice.hold_out and source.count is None:
            raise InvalidInputError(
                f"expected a source that tells its number of frames, to hold some out, got '{name}': save it as images"
            )
        first_held_out = (1 - choice.hold_out) * source.count if choice.hold_out and source.count else np.inf
        taken, last = [0, 0], None
        bar = tqdm(source, total=source.count, unit="frame", desc=f"labelling {name}")
        for number, frame in enumerate(bar):
            held_out = number >= first_held_out
            full = choice.max_frames and taken[held_out] >= choice.max_frames
            if full and held_out == bool(choice.hold_out):
                return
            if full or number < choice.first or (number - choice.first) % choice.every:
                continue
            small = cv2.resize(
                cv2.cvtColor(frame.image, cv2.COLOR_RGB2GRAY), _COMPARED_PX, interpolation=cv2.INTER_AREA
            )
            if last is not None and cv2.absdiff(small, last).mean() < choice.min_change:
                continue
            last = small
            taken[held_out] += 1
            yield frame, held_out


def _write_jpeg(path: Path, image: np.ndarray) -> None:
    write_image(path, cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
