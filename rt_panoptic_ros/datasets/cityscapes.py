# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Cityscapes as it is distributed: leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip unpacked in one folder.

    ROOT/leftImg8bit/SPLIT/CITY/CITY_SEQ_FRAME_leftImg8bit.png
    ROOT/gtFine/SPLIT/CITY/CITY_SEQ_FRAME_gtFine_instanceIds.png

Like the official conversion to panoptic labels, this reads instanceIds alone, whose values hold the label ids too: 0 to
33 are a label's pixels without an object, of a thing class those of a group that is not told apart (such as cargroup);
from 1000 on, a value is 1000 times the label plus the object's number. No label script has to be run before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from rt_panoptic_ros.datasets.base import PanopticDataset, PanopticSample, labels_of_segments, read_pair
from rt_panoptic_ros.datasets.coco_panoptic import CITYSCAPES_SUFFIX, compacted
from rt_panoptic_ros.errors import InvalidInputError, require
from rt_panoptic_ros.model.class_table import load_class_table
from rt_panoptic_ros.records import VOID

if TYPE_CHECKING:
    from pathlib import Path

_LAYOUT = (
    "Cityscapes as ROOT/leftImg8bit/{train,val,test}/CITY/CITY_SEQ_FRAME_leftImg8bit.png and "
    "ROOT/gtFine/{train,val,test}/CITY/CITY_SEQ_FRAME_gtFine_instanceIds.png"
)

_IMAGE_SUFFIX = f"{CITYSCAPES_SUFFIX}.png"
_LABEL_SUFFIX = "_gtFine_instanceIds.png"
_LABELS = 34  # ids 0 to 33; license plates, -1, are never drawn
_FIRST_COUNTED = 24  # labels from here on have objects
_OBJECTS_PER_LABEL = 1000


class Cityscapes(PanopticDataset):
    """A split of Cityscapes, ordered by city, sequence and frame; labels outside of the 19 evaluated ones are void."""

    def __init__(self, root: Path, split: str) -> None:
        """Find the files of `split` (a folder below `root`/leftImg8bit and `root`/gtFine: train, val or test).

        Raises:
            InvalidInputError: A folder or a label file is missing.
        """
        self.classes = load_class_table("cityscapes")
        images, labels = root / "leftImg8bit" / split, root / "gtFine" / split
        for folder in (images, labels):
            package = f"{folder.parent.name}_trainvaltest.zip"
            require(folder.is_dir(), _LAYOUT, f"no folder {folder}: name its root and split, or unpack {package} there")
        self._images = sorted(images.glob(f"*/*{_IMAGE_SUFFIX}"))
        require(bool(self._images), _LAYOUT, f"no image in {images}: unpack leftImg8bit_trainvaltest.zip again")
        self._labels = [labels / path.parent.name / f"{_stem(path)}{_LABEL_SUFFIX}" for path in self._images]
        for path in self._labels:
            require(path.is_file(), _LAYOUT, f"no labels {path}: unpack gtFine_trainvaltest.zip again")
        self._class_of_label = np.full(_LABELS, VOID, np.uint8)
        for entry in self.classes.classes:
            self._class_of_label[entry.dataset_id] = entry.id

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._images)

    def __getitem__(self, index: int) -> PanopticSample:
        """Return the image at `index`; see `PanopticDataset`."""
        path, label_path = self._images[index], self._labels[index]
        image, values = read_pair(path, label_path)
        require(
            values.dtype == np.uint16 and values.ndim == 2,
            f"one channel of 16 bits in {label_path}",
            f"{values.dtype} of shape {values.shape}: take the file from gtFine_trainvaltest.zip",
        )
        present, places = compacted(values)
        counted = present >= _OBJECTS_PER_LABEL
        labels = np.where(counted, present // _OBJECTS_PER_LABEL, present)
        wrong = present[(labels >= _LABELS) | (counted & (labels < _FIRST_COUNTED))]
        if len(wrong):
            raise InvalidInputError(
                f"expected values 0 to {_LABELS - 1}, or {_FIRST_COUNTED * _OBJECTS_PER_LABEL} to "
                f"{_LABELS * _OBJECTS_PER_LABEL - 1} for objects, in {label_path}, got {wrong[0]}: "
                "take the file from gtFine_trainvaltest.zip"
            )
        stem = _stem(path)  # the image's id too, as in the official panoptic files
        classes = self._class_of_label[labels]
        labelled = labels_of_segments(places, classes, ~counted, self.classes.thing_ids)
        return PanopticSample(stem, stem, image, *labelled)


def _stem(image: Path) -> str:
    return image.name.removesuffix(_IMAGE_SUFFIX)
