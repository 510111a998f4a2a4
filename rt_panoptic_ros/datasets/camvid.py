# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""CamVid in the layout of the SegNet split, with connected components as pseudo-instances.

    ROOT/train/images/NAME.jpg (or .png)    ROOT/train/labels/NAME.png    and the same for val and test

Labels are 8-bit: 0 to 10 as in config/classes/camvid.yaml, 11 void. There are no instance ids: each connected region of
car, pedestrian or bicyclist of at least `MIN_AREA` px counts as one object, touching objects merge, and smaller regions
keep their class without being an object. Figures on these are pseudo-instance figures.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

from rt_panoptic_ros.datasets.base import PanopticDataset, PanopticSample, read_pair
from rt_panoptic_ros.errors import require
from rt_panoptic_ros.model.class_table import load_class_table
from rt_panoptic_ros.records import VOID

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

MIN_AREA = 100
"""Pixels of the smallest region that counts as an object."""

_LAYOUT = "CamVid as ROOT/{train,val,test}/{images,labels}/NAME.{jpg,png}"

_VOID_LABEL = 11
_IMAGE_SUFFIXES = (".jpg", ".png")


class CamVid(PanopticDataset):
    """A split of CamVid, ordered by name."""

    instance_note = (
        "pseudo-instance PQ and AP: the dataset has no instance ids, so connected regions of car, pedestrian or "
        f"bicyclist of at least {MIN_AREA} px stand for objects"
    )

    def __init__(self, root: Path, split: str) -> None:
        """Find the files of `split` (a folder below `root`: train, val or test).

        Raises:
            InvalidInputError: A folder or a label file is missing.
        """
        self.classes = load_class_table("camvid")
        images, self._labels = root / split / "images", root / split / "labels"
        for folder in (images, self._labels):
            require(folder.is_dir(), _LAYOUT, f"no folder {folder}: name its root and split")
        self._images = sorted(path for path in images.iterdir() if path.suffix in _IMAGE_SUFFIXES)
        require(bool(self._images), _LAYOUT, f"no image in {images}")
        for path in self._images:
            require(self._label(path).is_file(), _LAYOUT, f"no labels {self._label(path)} for {path.name}")

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._images)

    def __getitem__(self, index: int) -> PanopticSample:
        """Return the image at `index`; see `PanopticDataset`."""
        path = self._images[index]
        image, labels = read_pair(path, self._label(path))
        require(
            labels.ndim == 2 and labels.max(initial=0) <= _VOID_LABEL,
            f"8-bit labels 0 to {_VOID_LABEL} ({_VOID_LABEL} void) in {self._label(path)}",
            f"{'a colour picture' if labels.ndim != 2 else labels.max()}: use the labels of the SegNet split",
        )
        semantic = np.where(labels == _VOID_LABEL, VOID, labels).astype(np.uint8)
        instance, classes = connected_instances(semantic, self.classes.thing_ids)
        crowd = np.zeros(len(classes), bool)
        return PanopticSample(path.stem, path.stem, image, semantic, instance, classes, crowd)

    def _label(self, image: Path) -> Path:
        return self._labels / f"{image.stem}.png"


def connected_instances(
    semantic: np.ndarray, thing_ids: Sequence[int], min_area: int = MIN_AREA
) -> tuple[np.ndarray, np.ndarray]:
    """Number the connected regions (8 neighbours) of the things.

    Args:
        semantic: (H, W) uint8 class ids.
        thing_ids: Classes to look at.
        min_area: Smaller regions, px, are left out.

    Returns:
        (H, W) int32, 0 none, else 1 + index; and (n,) uint8, the regions' classes.
    """
    instance = np.zeros(semantic.shape, np.int32)
    classes: list[int] = []
    for thing in thing_ids:
        mask = (semantic == thing).astype(np.uint8)
        count, regions, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8, ltype=cv2.CV_32S)
        numbers = np.zeros(count, np.int32)
        for region in range(1, count):
            if stats[region, cv2.CC_STAT_AREA] >= min_area:
                classes.append(thing)
                numbers[region] = len(classes)
        instance += numbers[regions]
    return instance, np.array(classes, np.uint8)
