"""COCO panoptic as it is distributed: train2017.zip, val2017.zip and panoptic_annotations_trainval2017.zip.

    ROOT/SPLIT/000000142238.jpg
    ROOT/annotations/panoptic_SPLIT.json
    ROOT/annotations/panoptic_SPLIT/000000142238.png    (from the zip inside of the annotations' zip)

The PNG holds segment ids, 0 void; the JSON file tells what the segments are (see coco_panoptic.py).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from rt_panoptic_ros.datasets.base import PanopticDataset, PanopticSample, labels_of_segments, read_pair
from rt_panoptic_ros.datasets.coco_panoptic import compacted, decode_ids, read_segments
from rt_panoptic_ros.errors import require
from rt_panoptic_ros.model.class_table import load_class_table
from rt_panoptic_ros.records import VOID

_LAYOUT = (
    "COCO as ROOT/{train2017,val2017}/ID.jpg, ROOT/annotations/panoptic_{train2017,val2017}.json and "
    "ROOT/annotations/panoptic_{train2017,val2017}/ID.png"
)

_ANNOTATIONS_ZIP = "panoptic_annotations_trainval2017.zip"


class CocoPanoptic(PanopticDataset):
    """A split of COCO with its panoptic labels, in the order of the JSON file."""

    def __init__(self, root: Path, split: str) -> None:
        """Read the JSON file of `split` (train2017 or val2017) and look for the files it names.

        Raises:
            InvalidInputError: A folder or file is missing, or the JSON file is damaged.
        """
        self.classes = load_class_table("coco")
        self._images = root / split
        self._labels = root / "annotations" / f"panoptic_{split}"
        self._json = self._labels.with_suffix(".json")
        packages = {self._images: f"{split}.zip", self._json: _ANNOTATIONS_ZIP}
        packages[self._labels] = f"{self._labels.name}.zip of {_ANNOTATIONS_ZIP}"
        for path, package in packages.items():
            require(path.exists(), _LAYOUT, f"no {path}: name its root and split, or unpack {package} there")
        self._read_json()
        for folder, suffix in ((self._images, ".jpg"), (self._labels, ".png")):
            there = {path.name for path in folder.iterdir()}  # one listing instead of 118,000 questions
            missing = next((stem for stem in self._stems if f"{stem}{suffix}" not in there), None)
            require(missing is None, _LAYOUT, f"no {folder / str(missing)}{suffix}: unpack {packages[folder]} again")

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._stems)

    def __getitem__(self, index: int) -> PanopticSample:
        """Return the image at `index`; see `PanopticDataset`. Segments without a pixel are left out."""
        stem = self._stems[index]
        label_path = self._labels / f"{stem}.png"
        image, labels = read_pair(self._images / f"{stem}.jpg", label_path)
        require(
            labels.dtype == np.uint8 and labels.ndim == 3,
            f"three channels of 8 bits in {label_path}",
            f"{labels.dtype} of shape {labels.shape}: take the file from {_ANNOTATIONS_ZIP}",
        )
        # Each pixel is found in two steps: its id among the few that the picture holds, and these among those that the
        # JSON file lists. Ids are unique within an image, and what is listed without a pixel is never asked for.
        listed = {0: (VOID, 0)} | {segment_id: row for segment_id, *row in self._segments[index].tolist()}
        present, places = compacted(decode_ids(labels))
        unknown = next((segment_id for segment_id in present.tolist() if segment_id not in listed), None)
        require(
            unknown is None,
            f"the segments that {self._json} lists for image {self._image_ids[index]} in {label_path}",
            f"id {unknown} too: take both from the same {_ANNOTATIONS_ZIP}",
        )
        class_ids, crowd = np.array([listed[segment_id] for segment_id in present.tolist()], np.uint8).T
        labelled = labels_of_segments(places, class_ids, crowd.astype(bool), self.classes.thing_ids)
        return PanopticSample(stem, self._image_ids[index], image, *labelled)

    def _read_json(self) -> None:
        """Fill the tables of images and segments: small arrays, as the objects of 1.3 million segments fill 1 GB."""
        class_of = {entry.dataset_id: entry.id for entry in self.classes.classes}
        self._image_ids: list[int | str] = []
        self._stems: list[str] = []
        self._segments: list[np.ndarray] = []  # for each image (n, 3) int32: segment id, class id, whether a crowd
        for image_id, name, segments in read_segments(self._json):
            unknown = next((segment.category_id for segment in segments if segment.category_id not in class_of), None)
            require(
                unknown is None,
                f"the {len(class_of)} categories of COCO panoptic in {self._json}",
                f"category {unknown} in image {image_id}: take the file from {_ANNOTATIONS_ZIP}",
            )
            rows = [(segment.id, class_of[segment.category_id], segment.iscrowd) for segment in segments]
            self._segments.append(np.array(rows, np.int32).reshape(-1, 3))
            self._image_ids.append(image_id)
            self._stems.append(Path(name).stem)
