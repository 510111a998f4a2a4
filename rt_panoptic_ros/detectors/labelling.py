"""Writes pictures of unlabelled sources and the boxes that detectors agree on, in COCO-instances format."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from tqdm import tqdm

from rt_panoptic_ros.detectors.boxes import ScoredBoxes, agree, suppress
from rt_panoptic_ros.drawing.labels import FONT
from rt_panoptic_ros.drawing.overlay import contact_sheet
from rt_panoptic_ros.errors import InvalidInputError, require
from rt_panoptic_ros.files import output_path, write_image
from rt_panoptic_ros.frames.sources import open_source, read_image

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from rt_panoptic_ros.detectors.description import DetectorDescription
    from rt_panoptic_ros.detectors.detector import Detector
    from rt_panoptic_ros.frames.sources import Frame

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


@dataclass(slots=True)
class Labels:
    """What was written of one split: images and annotations as the JSON file has them."""

    images: list[dict[str, Any]] = field(default_factory=list)
    annotations: list[dict[str, Any]] = field(default_factory=list)

    def add(self, file_name: str, size: tuple[int, int], found: ScoredBoxes, *, unknown: ScoredBoxes) -> None:
        """Add a picture of `size` (height, width) px, its objects, and regions of which nothing is known."""
        self.images.append({"id": len(self.images) + 1, "file_name": file_name, "height": size[0], "width": size[1]})
        for rows, crowd in ((found, 0), (unknown, 1)):
            for (x1, y1, x2, y2), category_id, score in zip(
                rows.boxes.tolist(), rows.category_ids.tolist(), rows.scores.tolist(), strict=True
            ):
                box = [round(value, 2) for value in (x1, y1, x2 - x1, y2 - y1)]
                self.annotations.append({
                    "id": len(self.annotations) + 1, "image_id": len(self.images), "category_id": category_id,
                    "bbox": box, "area": round(box[2] * box[3], 2), "score": round(score, 4), "iscrowd": crowd,
                    "segmentation": [],
                })  # fmt: skip

    def document(self, category_ids: dict[str, int], description: str) -> dict[str, Any]:
        """Return the file's content."""
        categories = [{"id": number, "name": name, "supercategory": name} for name, number in category_ids.items()]
        return {"info": {"description": description}, "images": self.images, "annotations": self.annotations,
                "categories": categories}  # fmt: skip


def label_sources(
    detectors: Sequence[Detector],
    sources: Sequence[str],
    out: Path,
    splits: tuple[str, str],
    *,
    class_names: Sequence[str] = (),
    renamed: Mapping[str, str] | None = None,
    min_iou: float = 0.5,
    frames: FrameChoice = FrameChoice(),
) -> dict[str, Labels]:
    """Label sources with what all detectors agree on (see `agree`).

    Writes, for each split, `out`/SPLIT/STEM.jpg, `out`/annotations/instances_SPLIT.json and `out`/SPLIT.jpg, a sheet of
    some pictures with their boxes. Regions that one detector alone sees have `iscrowd` 1, so that all else is known to
    be empty: complete labels.

    Args:
        detectors: One or more, with classes of the same names and numbers.
        sources: As `open_source` takes them; their pictures have different names.
        out: The folder, without an earlier run's results.
        splits: Of the frames, and of those held out.
        class_names: Classes to keep; none: all.
        renamed: {class: the one that it is taken for}, before boxes are compared: detectors tell cars from trucks apart
            less well than both from all else.
        min_iou: Least intersection over union of boxes that agree.
        frames: Which frames.

    Returns:
        {split: what was written}; without the second split where nothing is held out.

    Raises:
        InvalidInputError: Detectors or sources don't fit, a name is no class, `out` has results, or a frame can't be
            read (what came before it is written).
        UnavailableError: A file can't be written, or a camera is gone.
    """
    category_ids = _common_categories(detectors, class_names, renamed or {})
    table = _renaming(detectors[0].description.category_ids, renamed or {})
    chosen_splits = splits if frames.hold_out else splits[:1]
    _refuse_results(out, chosen_splits)
    labels = {split: Labels() for split in chosen_splits}
    thresholds = [detector.description.score_threshold for detector in detectors]
    wanted = np.array(list(category_ids.values()))
    names = set[str]()
    try:
        for source in sources:
            for frame, held_out in _chosen(source, frames):
                require(
                    frame.stem not in names, "sources whose pictures have different names",
                    f"{frame.stem} again from {source}: rename it",
                )  # fmt: skip
                names.add(frame.stem)
                seen = [_renamed(detector(frame.image), table, detector.description) for detector in detectors]
                found, unknown = agree(seen, thresholds, min_iou)
                split = splits[held_out]
                _keep(labels[split], out / split, frame, found, unknown, wanted, frames.max_side)
    finally:
        description = f"boxes that {', '.join(detector.description.name for detector in detectors)} agree on"
        for split, written in labels.items():
            with output_path(out / "annotations" / f"instances_{split}.json") as temporary:
                temporary.write_text(json.dumps(written.document(category_ids, description)), encoding="utf-8")
    for split, written in labels.items():
        if written.images:
            sheet = cv2.cvtColor(render_boxes(out / split, written, category_ids), cv2.COLOR_RGB2BGR)
            write_image(out / f"{split}.jpg", sheet, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    return labels


def _common_categories(
    detectors: Sequence[Detector], class_names: Sequence[str], renamed: Mapping[str, str]
) -> dict[str, int]:
    require(bool(detectors), "at least one detector", "none")
    first, *others = (detector.description for detector in detectors)
    for other in others:
        require(
            other.category_ids == first.category_ids, f"detectors of the same classes as '{first.name}'",
            f"'{other.name}' with others: write the classes into both descriptions",
        )  # fmt: skip
    for name in (*class_names, *renamed, *renamed.values()):
        require(name in first.category_ids, f"classes among {', '.join(first.category_ids)}", f"'{name}'")
    wanted = set(class_names or first.category_ids) - renamed.keys()
    return {name: number for name, number in first.category_ids.items() if name in wanted}


def _renaming(category_ids: Mapping[str, int], renamed: Mapping[str, str]) -> np.ndarray:
    """Return what each class number becomes, by number."""
    table = np.arange(max(category_ids.values()) + 1)
    for name, other in renamed.items():
        table[category_ids[name]] = category_ids[other]
    return table


def _renamed(seen: ScoredBoxes, table: np.ndarray, description: DetectorDescription) -> ScoredBoxes:
    """Return boxes of the new classes, without those that now show one object twice."""
    return suppress(replace(seen, category_ids=table[seen.category_ids]), description.nms_threshold)


def _refuse_results(out: Path, splits: Sequence[str]) -> None:
    require(len(set(splits)) == len(splits), "two splits of different names", f"'{splits[0]}' twice")
    for split in splits:
        for place in (out / "annotations" / f"instances_{split}.json", out / split):
            if place.is_file() or (place.is_dir() and any(place.iterdir())):
                raise InvalidInputError(
                    f"expected a folder without the results of an earlier run, got {place}: name another, or move it "
                    "away"
                )


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


def _keep(
    labels: Labels, folder: Path, frame: Frame, found: ScoredBoxes, unknown: ScoredBoxes, wanted: np.ndarray, side: int
) -> None:
    """Write a frame's picture, at most `side` px large, and add its boxes of the wanted classes."""
    image, factors = frame.image, np.ones(4, np.float32)
    largest = max(image.shape[:2])
    if side and largest > side:
        height, width = (max(1, round(length * side / largest)) for length in image.shape[:2])
        factors = np.float32((width / image.shape[1], height / image.shape[0]) * 2)
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    file_name = f"{frame.stem}.jpg"
    write_image(folder / file_name, cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    found, unknown = (
        ScoredBoxes(rows.boxes * factors, rows.category_ids, rows.scores)[np.isin(rows.category_ids, wanted)]
        for rows in (found, unknown)
    )
    labels.add(file_name, (image.shape[0], image.shape[1]), found, unknown=unknown)


def render_boxes(folder: Path, labels: Labels, category_ids: dict[str, int]) -> np.ndarray:
    """Draw some of the pictures with their boxes: green what is known, orange what is unknown.

    Args:
        folder: Of the pictures.
        labels: Theirs, at least one.
        category_ids: The classes.

    Returns:
        (height, width, 3) uint8 RGB.
    """
    names = {number: name for name, number in category_ids.items()}
    chosen = np.unique(np.linspace(0, len(labels.images) - 1, _SHEET_PICTURES).round().astype(int))
    pictures, captions = [], []
    for entry in (labels.images[index] for index in chosen):
        picture = read_image(folder / entry["file_name"])
        for annotation in (item for item in labels.annotations if item["image_id"] == entry["id"]):
            x, y, width, height = (round(value) for value in annotation["bbox"])
            color, thickness = (_UNKNOWN_RGB, 1) if annotation["iscrowd"] else (_SEEN_RGB, 2)
            cv2.rectangle(picture, (x, y), (x + width - 1, y + height - 1), color, thickness)
            text = names[annotation["category_id"]]
            cv2.putText(picture, text, (x, max(10, y - 3)), FONT, 0.4, color, 1, cv2.LINE_AA)
        pictures.append(picture)
        captions.append(entry["file_name"])
    return contact_sheet(pictures, _SHEET_COLUMNS, _SHEET_WIDTH_PX, captions)
