"""COCO panoptic as it is distributed: train2017.zip, val2017.zip and panoptic_annotations_trainval2017.zip.

    ROOT/SPLIT/000000142238.jpg
    ROOT/annotations/panoptic_SPLIT.json
    ROOT/annotations/panoptic_SPLIT/000000142238.png    (from the zip inside of the annotations' zip)

The PNG holds segment ids, 0 void; the JSON file tells what the segments are (see evaluation/coco_panoptic.py).
"""

from __future__ import annotations

from array import array
from pathlib import Path

import numpy as np

from rt_panoptic_ros.datasets.base import PanopticDataset, PanopticSample, read_pair
from rt_panoptic_ros.datasets.coco_panoptic import decode_ids, read_segments
from rt_panoptic_ros.errors import InvalidInputError
from rt_panoptic_ros.model.class_table import load_class_table
from rt_panoptic_ros.records import VOID

TREE = (
    "ROOT/{train2017,val2017}/ID.jpg, ROOT/annotations/panoptic_{train2017,val2017}.json and "
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
            if not path.exists():
                raise InvalidInputError(
                    f"expected COCO as {TREE}, got no {path}: name its root and split, or unpack {package} there"
                )
        self._read_json()
        for folder, suffix in ((self._images, ".jpg"), (self._labels, ".png")):
            there = {path.name for path in folder.iterdir()}  # one listing instead of 118,000 questions
            for stem in self._stems:
                if f"{stem}{suffix}" not in there:
                    raise InvalidInputError(
                        f"expected COCO as {TREE}, got no {folder / stem}{suffix}: unpack {packages[folder]} again"
                    )

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._stems)

    def __getitem__(self, index: int) -> PanopticSample:
        """Return the image at `index`; see `PanopticDataset`. Segments without a pixel are left out."""
        stem = self._stems[index]
        label_path = self._labels / f"{stem}.png"
        image, labels = read_pair(self._images / f"{stem}.jpg", label_path)
        if labels.dtype != np.uint8 or labels.ndim != 3:
            raise InvalidInputError(
                f"expected three channels of 8 bits in {label_path}, got {labels.dtype} of shape {labels.shape}: "
                f"take the file from {_ANNOTATIONS_ZIP}"
            )
        listed = slice(self._ends[index] - self._counts[index], self._ends[index])
        order = np.argsort(self._ids[listed])
        known = np.concatenate(([0], self._ids[listed][order]))  # rising; void comes first
        classes = np.concatenate(([VOID], self._classes[listed][order])).astype(np.uint8)
        crowd = np.concatenate(([False], self._crowd[listed][order]))
        ids = decode_ids(labels)
        places = np.minimum(np.searchsorted(known, ids), len(known) - 1)
        unknown = ids[known[places] != ids]
        if len(unknown):
            raise InvalidInputError(
                f"expected the segments that {self._json} lists for image {self._image_ids[index]} in {label_path}, "
                f"got id {unknown[0]} too: take both from the same {_ANNOTATIONS_ZIP}"
            )
        visible = np.bincount(places.ravel(), minlength=len(known)) > 0
        is_instance = np.isin(classes, self.classes.thing_ids) & visible
        instance_of = np.where(is_instance, np.cumsum(is_instance), 0).astype(np.int32)
        return PanopticSample(
            stem=stem,
            image_id=self._image_ids[index],
            image=image,
            semantic=classes[places],
            instance=instance_of[places],
            instance_classes=classes[is_instance],
            instance_crowd=crowd[is_instance],
        )

    def _read_json(self) -> None:
        """Fill the tables of images and segments: flat arrays, as the objects of 1.3 million segments fill 1 GB."""
        class_of = {entry.dataset_id: entry.id for entry in self.classes.classes}
        ids, classes, crowd, counts = array("i"), array("B"), array("B"), array("i")
        self._image_ids: list[int | str] = []
        self._stems: list[str] = []
        for image_id, name, segments in read_segments(self._json):
            for segment in segments:
                if segment.category_id not in class_of:
                    raise InvalidInputError(
                        f"expected the {len(class_of)} categories of COCO panoptic in {self._json}, got category "
                        f"{segment.category_id} in image {image_id}: take the file from {_ANNOTATIONS_ZIP}"
                    )
                ids.append(segment.id)
                classes.append(class_of[segment.category_id])
                crowd.append(segment.iscrowd)
            counts.append(len(segments))
            self._image_ids.append(image_id)
            self._stems.append(Path(name).stem)
        self._ids, self._counts = np.array(ids, np.int32), np.array(counts, np.int64)
        self._classes, self._crowd = np.array(classes, np.uint8), np.array(crowd, bool)
        self._ends = np.cumsum(self._counts)
