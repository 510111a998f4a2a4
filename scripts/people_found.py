"""How many labelled boxes of a class a model finds: `python -m scripts.people_found --help`.

The labels are a folder in COCO-instances format, such as `rt-panoptic pseudo-label` writes. A prediction is the box of
an object's visible pixels. It finds a labelled box that it overlaps by an IoU of at least 0.5, one to one; one that
finds none but lies by more than half in a region with `iscrowd` 1 is neither right nor wrong.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from rt_panoptic_ros.commands.options import add_pipeline, open_pipeline_of
from rt_panoptic_ros.detectors.boxes import ScoredBoxes, match_one_to_one
from rt_panoptic_ros.errors import InvalidInputError, RtPanopticError
from rt_panoptic_ros.frames.sources import read_image
from rt_panoptic_ros.panoptic.class_filter import parse_class_names
from rt_panoptic_ros.records import CameraImage

_MATCH = 0.5  # IoU from which a prediction and a label are one object
_INSIDE = 0.5  # of a prediction's area, above which it belongs to an unknown region


@dataclass(frozen=True, slots=True)
class Found:
    """Counts over images."""

    found: int = 0
    labelled: int = 0
    false: int = 0

    def __add__(self, other: Found) -> Found:
        """Return the counts over both."""
        return Found(self.found + other.found, self.labelled + other.labelled, self.false + other.false)

    def format(self) -> str:
        """Return them as text for a terminal."""
        recall, precision = self.found / max(1, self.labelled), self.found / max(1, self.found + self.false)
        return f"found {self.found} of {self.labelled} ({recall:.3f}), precision {precision:.3f} ({self.false} false)"


def count_found(predicted: np.ndarray, labelled: np.ndarray, unknown: np.ndarray) -> Found:
    """Compare one image's boxes, each (n, 4) xyxy px."""
    ours, theirs = (
        ScoredBoxes(boxes, np.zeros(len(boxes), np.int64), np.ones(len(boxes))) for boxes in (predicted, labelled)
    )
    rows, _ = match_one_to_one(ours, theirs, _MATCH)
    rest = np.delete(predicted, rows, axis=0)
    low = np.maximum(rest[:, None, :2], unknown[None, :, :2])
    common = np.clip(np.minimum(rest[:, None, 2:], unknown[None, :, 2:]) - low, 0, None).prod(axis=2)
    inside = (common > _INSIDE * (rest[:, 2:] - rest[:, :2]).prod(axis=1)[:, None]).any(axis=1)
    return Found(len(rows), len(labelled), int((~inside).sum()))


def main() -> None:
    """Count what the command line asks for."""
    parser = argparse.ArgumentParser("python -m scripts.people_found", description=__doc__)
    add_pipeline(parser)
    parser.add_argument("--root", type=Path, required=True, help="folder with SPLIT/ and annotations/")
    parser.add_argument("--split", default="val", help="default: %(default)s")
    parser.add_argument("--label", default="person", help="class of the labels (default: %(default)s)")
    parser.add_argument("--classes", default="person", help="the model's, with commas between (default: %(default)s)")
    options = parser.parse_args()
    try:
        pipeline = open_pipeline_of(options)
        wanted = parse_class_names(options.classes, pipeline.classes) or frozenset()
        document = json.loads(
            (options.root / "annotations" / f"instances_{options.split}.json").read_text(encoding="utf-8")
        )
        ids = [entry["id"] for entry in document["categories"] if entry["name"] == options.label]
        if not ids:
            raise InvalidInputError(f"expected labels of the class '{options.label}', got none in {options.root}")
        boxes: dict[tuple[int, int], list[list[float]]] = {}
        for entry in document["annotations"]:
            if entry["category_id"] in ids:
                x, y, width, height = entry["bbox"]
                boxes.setdefault((entry["image_id"], entry["iscrowd"]), []).append([x, y, x + width, y + height])
        total = Found()
        for entry in tqdm(document["images"], unit="image"):
            image = read_image(options.root / options.split / entry["file_name"])
            table = pipeline(CameraImage(image, "rgb")).detections
            chosen = table.mask_boxes[np.isin(table.class_ids, list(wanted))]
            known, unknown = (np.array(boxes.get((entry["id"], crowd), [])).reshape(-1, 4) for crowd in (0, 1))
            total += count_found(chosen + np.array((0, 0, 1, 1)), known, unknown)
        print(total.format())
    except RtPanopticError as error:
        parser.exit(1, f"{parser.prog}: {error}\n")


if __name__ == "__main__":
    main()
