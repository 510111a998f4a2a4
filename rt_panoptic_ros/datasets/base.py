# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""What every dataset gives: images with a class for each pixel and an object for each pixel of a thing."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
from scipy.ndimage import find_objects

from rt_panoptic_ros.errors import InvalidInputError, require
from rt_panoptic_ros.files import literal_name
from rt_panoptic_ros.frames.sources import read_image
from rt_panoptic_ros.records import DetectionTable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from rt_panoptic_ros.model.class_table import ClassTable


@dataclass(frozen=True, slots=True)
class PanopticSample:
    """One labelled image."""

    stem: str  # names files about the image
    image_id: int | str  # the dataset's own
    image: np.ndarray  # (H, W, 3) uint8 RGB
    semantic: np.ndarray  # (H, W) uint8 class ids, 255 void
    instance: np.ndarray  # (H, W) int32, 0 none, else 1 + row of the arrays below
    instance_classes: np.ndarray  # (n,) uint8 class ids
    instance_crowd: np.ndarray  # (n,) bool: a group of objects that are not told apart
    boxes: np.ndarray = None  # type: ignore[assignment]
    """(n, 4) float32 xyxy px (x2, y2 one past the last pixel) of objects that are known by their box alone, which have
    no pixel in `instance`; rows of nan for the others, by default for all."""
    complete: bool = False
    """Whether all objects are labelled: void pixels then hold no object; else they are unknown."""

    def __post_init__(self) -> None:
        if self.boxes is None:
            object.__setattr__(self, "boxes", np.full((len(self.instance_classes), 4), np.nan, np.float32))

    @property
    def by_box(self) -> np.ndarray:
        """Which objects are known by their box alone: (n,) bool."""
        known: np.ndarray = ~np.isnan(self.boxes[:, 0])
        return known


class PanopticDataset(ABC):
    """A split of a dataset, in a fixed order."""

    classes: ClassTable
    instance_note: str = ""
    """Where the objects are not true ones: what figures about them are called, and why."""

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of images."""

    @abstractmethod
    def __getitem__(self, index: int) -> PanopticSample:
        """Return the image at `index`, read from disk.

        Raises:
            InvalidInputError: A file is damaged, or a label value is not one of the dataset's.
            IndexError: There is no such image.
        """


def read_labels(path: Path) -> np.ndarray:
    """Return a PNG's values as they are stored: (H, W) uint8 or uint16, or (H, W, 3) uint8 RGB.

    Raises:
        InvalidInputError: The file is missing or damaged.
    """
    labels: np.ndarray | None = None
    if path.is_file():
        with literal_name(path) as name:
            labels = cv2.imread(name, cv2.IMREAD_UNCHANGED)
    if labels is None:
        raise InvalidInputError(f"expected labels in {path}, got no readable PNG: restore the file")
    if labels.ndim == 3:  # 30 times faster than NumPy turns the channels around
        labels = cv2.cvtColor(labels, cv2.COLOR_BGR2RGB if labels.shape[2] == 3 else cv2.COLOR_BGRA2RGB)
    return labels


def read_pair(image_path: Path, label_path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return an image, (H, W, 3) uint8 RGB, and its labels (see `read_labels`).

    Raises:
        InvalidInputError: A file is missing or damaged, or their sizes differ.
    """
    image, labels = read_image(image_path), read_labels(label_path)
    require(
        image.shape[:2] == labels.shape[:2],
        f"labels of the image's size {image.shape[:2]} in {label_path}",
        f"{labels.shape[:2]}: take both from the same release of the dataset",
    )
    return image, labels


def labels_of_segments(
    segments: np.ndarray, class_ids: np.ndarray, crowd: np.ndarray, thing_ids: Sequence[int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return a sample's `semantic` to `instance_crowd` from a segment for each pixel; those of things are objects.

    Args:
        segments: (H, W) integers: row of the arrays below, each of which has pixels.
        class_ids: (k,) uint8, VOID where a segment has no class.
        crowd: (k,) bool.
        thing_ids: Classes of objects.
    """
    is_object = np.isin(class_ids, thing_ids)
    number_of = np.where(is_object, np.cumsum(is_object), 0).astype(np.int32)
    return class_ids.take(segments), number_of.take(segments), class_ids[is_object], crowd[is_object]


def instance_boxes(instance: np.ndarray, count: int) -> np.ndarray:
    """Return the boxes of the objects in an instance image; of what fusion made, the table has them already.

    Args:
        instance: (H, W) integers, 0 none, else 1 + the object's row.
        count: Number of objects.

    Returns:
        (count, 4) int32: x_min, y_min, x_max, y_max, inclusive; (0, 0, -1, -1) for an object without pixels.
    """
    boxes = np.full((count, 4), (0, 0, -1, -1), np.int32)
    for row, region in enumerate(find_objects(instance, max_label=count)[:count]):
        if region is not None:
            y, x = region
            boxes[row] = x.start, y.start, x.stop - 1, y.stop - 1
    return boxes


def object_boxes(sample: PanopticSample) -> np.ndarray:
    """Return the boxes of all objects of an image, (n, 4) float32 xyxy px, x2 and y2 one past the last pixel.

    Those of the pixels, empty where an object has none, or the labelled ones of objects that are known by them alone.
    """
    boxes = instance_boxes(sample.instance, len(sample.instance_classes)).astype(np.float32)
    boxes[:, 2:] += 1
    return np.where(np.isnan(sample.boxes), boxes, sample.boxes)


def true_objects(instance: np.ndarray, class_ids: np.ndarray) -> DetectionTable:
    """Return ground truth as a table of objects with score 1.

    Args:
        instance: (H, W) integers, 0 none, else 1 + the object's row.
        class_ids: (n,) uint8.
    """
    boxes = instance_boxes(instance, len(class_ids))
    areas = np.bincount(instance.ravel(), minlength=len(class_ids) + 1)[1:].astype(np.uint32)
    return DetectionTable(class_ids, np.ones(len(class_ids), np.float32), boxes.astype(np.float32), boxes, areas)
