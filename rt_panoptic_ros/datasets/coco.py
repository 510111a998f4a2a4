# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""COCO panoptic as it is distributed, and any other data set in its layout, with categories of its own.

    ROOT/SPLIT/000000142238.jpg
    ROOT/annotations/panoptic_SPLIT.json
    ROOT/annotations/panoptic_SPLIT/000000142238.png    (from the zip inside of the annotations' zip)

or the labels as `rt-panoptic predict` writes them: ROOT/panoptic.json and ROOT/panoptic/NAME.png. The PNG holds segment
ids, 0 void; the JSON file tells what the segments are (see coco_panoptic.py), and which image a PNG belongs to.
"""

from __future__ import annotations

from pathlib import Path, PurePath
from typing import Any

import numpy as np

from rt_panoptic_ros.datasets.base import PanopticDataset, PanopticSample, labels_of_segments, read_pair
from rt_panoptic_ros.datasets.coco_json import (
    category_table,
    first_missing,
    listed_images,
    read_json,
    reading,
    require_distinct,
)
from rt_panoptic_ros.datasets.coco_panoptic import JSON_NAME, KIND, PNG_FOLDER, compacted, decode_ids, listed_segments
from rt_panoptic_ros.errors import require
from rt_panoptic_ros.model.class_table import load_class_table
from rt_panoptic_ros.records import VOID

_COCO_LAYOUT = (
    "COCO as ROOT/{train2017,val2017}/ID.jpg, ROOT/annotations/panoptic_{train2017,val2017}.json and "
    "ROOT/annotations/panoptic_{train2017,val2017}/ID.png"
)
_OWN_LAYOUT = (
    "coco_panoptic as ROOT/SPLIT/NAME.jpg (or another image), ROOT/annotations/panoptic_SPLIT.json and "
    f"ROOT/annotations/panoptic_SPLIT/NAME.png, or the labels as ROOT/{JSON_NAME} and ROOT/{PNG_FOLDER}/NAME.png"
)

_ANNOTATIONS_ZIP = "panoptic_annotations_trainval2017.zip"


class CocoPanoptic(PanopticDataset):
    """A split in COCO's panoptic layout, in the order of the JSON file."""

    def __init__(self, root: Path, split: str, *, own_categories: bool = False) -> None:
        """Read the JSON file of `split` and look for the files it names.

        Args:
            root: The folder that holds everything.
            split: Such as train2017.
            own_categories: The classes are the categories that the JSON file lists, by rising id; else COCO's 133.

        Raises:
            InvalidInputError: A folder or file is missing, or the JSON file is damaged.
        """
        self._images, self._labels = root / split, root / "annotations" / f"panoptic_{split}"
        if own_categories:
            layout, self._origin, packages = _OWN_LAYOUT, "export", ["its export"] * 3
            if not self._labels.with_suffix(".json").exists() and (root / JSON_NAME).exists():
                self._labels = root / PNG_FOLDER
        else:
            layout, self._origin = _COCO_LAYOUT, _ANNOTATIONS_ZIP
            packages = [f"{split}.zip", _ANNOTATIONS_ZIP, f"panoptic_{split}.zip of {_ANNOTATIONS_ZIP}"]
        self._json = self._labels.with_suffix(".json")
        for path, package in zip((self._images, self._json, self._labels), packages, strict=True):
            require(path.exists(), layout, f"no {path}: name its root and split, or unpack {package} there")
        self._read_json(None if own_categories else "coco")
        images, labels = (self._images, self._image_names), (self._labels, self._label_names)
        for (folder, names), package in ((images, packages[0]), (labels, packages[2])):
            missing = first_missing(folder, names)
            require(missing is None, layout, f"no {missing}: unpack {package} again")

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._image_ids)

    def __getitem__(self, index: int) -> PanopticSample:
        """Return the image at `index`; see `PanopticDataset`. Segments without a pixel are left out."""
        label_path = self._labels / self._label_names[index]
        image, labels = read_pair(self._images / self._image_names[index], label_path)
        require(
            labels.dtype == np.uint8 and labels.ndim == 3,
            f"three channels of 8 bits in {label_path}",
            f"{labels.dtype} of shape {labels.shape}: take the file from the {self._origin}",
        )
        # Each pixel is found in two steps: its id among the few that the picture holds, and these among those that the
        # JSON file lists. Ids are unique within an image, and what is listed without a pixel is never asked for.
        listed = {0: (VOID, 0)} | {segment_id: row for segment_id, *row in self._segments[index].tolist()}
        present, places = compacted(decode_ids(labels))
        unknown = next((segment_id for segment_id in present.tolist() if segment_id not in listed), None)
        require(
            unknown is None,
            f"the segments that {self._json} lists for image {self._image_ids[index]} in {label_path}",
            f"id {unknown} too: take both from the same {self._origin}",
        )
        class_ids, crowd = np.array([listed[segment_id] for segment_id in present.tolist()], np.uint8).T
        labelled = labels_of_segments(places, class_ids, crowd.astype(bool), self.classes.thing_ids)
        stem = PurePath(self._label_names[index]).with_suffix("").as_posix()
        return PanopticSample(stem, self._image_ids[index], image, *labelled)

    def _read_json(self, table: str | None) -> None:
        """Fill the tables of images and segments: small arrays, as the objects of 1.3 million segments fill 1 GB.

        Args:
            table: Name of the class table; None for the file's own categories.
        """
        document = read_json(self._json, KIND)
        with reading(self._json, KIND):
            names = {image_id: image["file_name"] for image_id, image in listed_images(document, self._json).items()}
            own_name = self._images.parent.resolve().name
            self.classes = category_table(document, self._json, own_name) if table is None else load_class_table(table)
            self._list_segments(document, names, table)

    def _list_segments(self, document: Any, names: dict[int | str, str], table: str | None) -> None:
        """Fill the tables; call it in `reading`."""
        class_of = {entry.dataset_id: entry.id for entry in self.classes.classes}
        self._image_ids: list[int | str] = []
        self._image_names: list[str] = []  # below the folders of images and labels
        self._label_names: list[str] = []
        self._segments: list[np.ndarray] = []  # for each image (n, 3) int32: segment id, class id, whether a crowd
        for image_id, label_name, segments in listed_segments(document, self._json):
            require(image_id in names, f"annotations of the images that {self._json} lists", f"one of image {image_id}")
            unknown = next((segment.category_id for segment in segments if segment.category_id not in class_of), None)
            require(
                unknown is None,
                f"the {len(class_of)} categories of {'COCO panoptic' if table else 'its own list'} in {self._json}",
                f"category {unknown} in image {image_id}: take the file from the {self._origin}",
            )
            require_distinct(
                (segment.id for segment in segments),
                f"segments with their own ids in image {image_id} of {self._json}",
            )
            rows = [(segment.id, class_of[segment.category_id], segment.iscrowd) for segment in segments]
            self._segments.append(np.array(rows, np.int32).reshape(-1, 3))
            self._image_ids.append(image_id)
            self._image_names.append(names[image_id])
            self._label_names.append(label_name)
        require_distinct(self._image_ids, f"one annotation for each image in {self._json}")
