# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The COCO-panoptic format: a PNG of segment ids for each image, and one JSON file that tells what the segments are.

Described at https://cocodataset.org/#format-data; panopticapi reads what is written here and the other way round.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from rt_panoptic_ros.datasets.base import instance_boxes
from rt_panoptic_ros.datasets.coco_json import read_json, reading
from rt_panoptic_ros.errors import InvalidInputError, UnavailableError
from rt_panoptic_ros.files import make_folder, output_path, write_image
from rt_panoptic_ros.records import VOID, PanopticResult

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import TracebackType

    from typing_extensions import Self

    from rt_panoptic_ros.model.class_table import ClassTable

PNG_FOLDER = "panoptic"
JSON_NAME = "panoptic.json"
KIND = "COCO-panoptic"
"""The format's name, for messages."""
CITYSCAPES_SUFFIX = "_leftImg8bit"
"""Of the images' names, which are their ids otherwise."""

_FIRST_INSTANCE = VOID + 1  # segment ids: 1 + class id for stuff, then VOID + instance id for things


@dataclass(frozen=True, slots=True)
class Segment:
    """One object, or all the pixels of one stuff class."""

    id: int  # value in the PNG, R + 256 G + 256^2 B; not 0
    category_id: int  # the dataset's own id of the class
    area: int  # pixels
    bbox: tuple[int, int, int, int]  # x_min, y_min, width, height, px
    iscrowd: int = 0  # 1 where the segment is a group of objects not told apart (only in ground truth)
    isthing: int = 0  # 1 for things


def panoptic_segments(result: PanopticResult, classes: ClassTable) -> tuple[np.ndarray, tuple[Segment, ...]]:
    """Number a result's segments: each object is one, each stuff class is one, all else is void.

    Pixels of a thing class that belong to no object are void here, as the metric wants it, and so are values that are
    not in the class table.

    Args:
        result: What the pipeline made of an image.
        classes: Tells things from stuff and gives the dataset's ids.

    Returns:
        (H, W) int32 segment ids, 0 void, for objects 255 + their id; and the segments that have pixels, by rising id.

    Raises:
        InvalidInputError: A pixel's instance has no detection, or a detection's class is not in the class table.
    """
    table = result.detections
    found, last = int(result.instance.max(initial=0)), int(table.ids.max(initial=0))
    if found > last:
        raise InvalidInputError(f"expected instance ids up to {last}, the largest of the detections, got {found}")
    crowd = np.zeros(len(table), bool)
    return number_segments(result.semantic, result.instance, table.class_ids, crowd, classes, table.ids)


def number_segments(
    semantic: np.ndarray,
    instance: np.ndarray,
    instance_classes: np.ndarray,
    instance_crowd: np.ndarray,
    classes: ClassTable,
    instance_ids: np.ndarray | None = None,
) -> tuple[np.ndarray, tuple[Segment, ...]]:
    """Number the segments of a labelling, be it a result or ground truth; see `panoptic_segments`.

    Args:
        semantic: (H, W) uint8 class ids, VOID where there is none.
        instance: (H, W) integers, 0 none, else an object's id.
        instance_classes: (n,) class ids.
        instance_crowd: (n,) bool, groups of objects that are not told apart.
        classes: Tells things from stuff and gives the dataset's ids.
        instance_ids: (n,) the objects' ids; None for 1 + row.

    Returns:
        (H, W) int32 segment ids, 0 void; and the segments that have pixels, by rising id, things last.

    Raises:
        InvalidInputError: An instance's class is not in the class table.
    """
    stuff_ids = np.zeros(VOID + 1, np.int32)
    categories = {}
    for entry in classes.classes:
        if not entry.thing:
            stuff_ids[entry.id] = entry.id + 1
            categories[entry.id + 1] = entry, False
    numbers = np.arange(1, len(instance_classes) + 1) if instance_ids is None else instance_ids
    for number, class_id, crowd in zip(
        numbers.tolist(), instance_classes.tolist(), instance_crowd.tolist(), strict=True
    ):
        if class_id >= len(classes):
            raise InvalidInputError(
                f"expected classes of table '{classes.name}' (0 to {len(classes) - 1}), got {class_id}"
            )
        categories[VOID + number] = classes.classes[class_id], crowd
    ids = np.where(instance > 0, instance.astype(np.int32) + VOID, stuff_ids[semantic])
    segments = []
    for segment_id, area, bbox in _measured(*compacted(ids)):
        entry, crowd = categories[segment_id]
        segments.append(Segment(segment_id, entry.dataset_id, area, bbox, int(crowd), int(entry.thing)))
    return ids, tuple(segments)


def encode_ids(ids: np.ndarray) -> np.ndarray:
    """Return (H, W) segment ids below 2^24 as (H, W, 3) uint8 RGB: id = R + 256 G + 256^2 B."""
    rgb: np.ndarray = np.ascontiguousarray(ids, "<u4").view(np.uint8).reshape(*ids.shape, 4)[..., :3].copy()
    return rgb


def decode_ids(rgb: np.ndarray) -> np.ndarray:
    """Return the (H, W) int32 segment ids of an (H, W, 3) uint8 RGB picture."""
    words: np.ndarray = cv2.cvtColor(rgb, cv2.COLOR_RGB2RGBA).view("<i4")[..., 0]  # the highest byte is alpha
    ids: np.ndarray = words & 0xFFFFFF
    return ids


def compacted(ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the ids that occur, rising (k,), and for each pixel its id's place among them, (H, W) int32.

    By runs of equal neighbours, of which there are few: ten times faster than sorting the pixels.
    """
    flat = ids.ravel()
    starts = np.flatnonzero(np.append(True, flat[1:] != flat[:-1])[: flat.size])
    present, places = np.unique(flat[starts], return_inverse=True)
    return present, np.repeat(places.astype(np.int32), np.diff(starts, append=flat.size)).reshape(ids.shape)


class CocoPanopticWriter:
    """Writes results as they come: `folder`/panoptic/STEM.png at once, `folder`/panoptic.json when closed.

    Leaving the `with` block closes, after an error too: the JSON file then tells of the images written so far, if any.
    """

    def __init__(self, folder: Path, classes: ClassTable) -> None:
        """Make the folder.

        Raises:
            UnavailableError: The folder cannot be made.
        """
        self._folder = folder
        self._classes = classes
        self._images: list[dict[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []
        self._image_ids: set[int | str] = set()
        self._names: set[str] = set()
        self._closed = False
        try:
            make_folder(folder / PNG_FOLDER)
        except OSError as error:
            raise UnavailableError(
                f"expected to write into {folder}, but {error.strerror}: name another folder"
            ) from None

    def add(
        self,
        stem: str,
        result: PanopticResult,
        image_id: int | str | None = None,
        image_file: str | None = None,
    ) -> None:
        """Write one image's result.

        Args:
            stem: Names the PNG; with / it lies in a sub-folder.
            result: What the pipeline made of the image.
            image_id: The ground truth's id of the image; by default what the data sets make of its file's name (COCO's
                000000142238.jpg is 142238, Cityscapes' ulm_000000_000019_leftImg8bit.png is ulm_000000_000019), and
                the stem where that was taken before.
            image_file: The image's own file name; by default the stem with .jpg, as in COCO.

        Raises:
            InvalidInputError: The image id was added before.
            UnavailableError: The file cannot be written.
        """
        if self._closed:
            raise ValueError("the writer is closed")
        image_file = image_file or f"{stem}.jpg"
        if image_id is None:
            own = PurePath(image_file).stem.partition(CITYSCAPES_SUFFIX)[0] or stem
            image_id = int(own) if own.isascii() and own.isdecimal() else own
            image_id = stem if image_id in self._image_ids else image_id
        name = f"{stem}.png"
        if image_id in self._image_ids or name in self._names:
            raise InvalidInputError(f"expected each image once, got '{stem}' (image id {image_id}) again")
        numbers, segments = panoptic_segments(result, self._classes)
        write_image(self._folder / PNG_FOLDER / name, np.ascontiguousarray(encode_ids(numbers)[..., ::-1]))
        height, width = numbers.shape
        self._image_ids.add(image_id)
        self._names.add(name)
        self._images.append({"id": image_id, "file_name": image_file, "height": height, "width": width})
        self._annotations.append(
            {"image_id": image_id, "file_name": name, "segments_info": [asdict(segment) for segment in segments]}
        )

    def close(self) -> None:
        """Write the JSON file in one step, so that no reader ever sees half of it; harmless when repeated.

        Raises:
            UnavailableError: The file cannot be written.
        """
        if self._closed:
            return
        self._closed = True
        document = {
            "images": self._images,
            "annotations": self._annotations,
            "categories": [
                {"id": entry.dataset_id, "name": entry.name, "isthing": int(entry.thing), "color": list(entry.color)}
                for entry in self._classes.classes
            ],
        }
        with output_path(self._folder / JSON_NAME) as part:
            part.write_text(json.dumps(document), encoding="utf-8")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None or self._images:  # a run that came to nothing leaves none of its files
            self.close()


def read_segments(json_path: Path) -> Iterator[tuple[int | str, str, tuple[Segment, ...]]]:
    """Read a JSON file in the format, without the PNGs, one image at a time, in the file's order.

    Args:
        json_path: The JSON file.

    Yields:
        The image's id, the name of its PNG, and its segments.

    Raises:
        InvalidInputError: The JSON file is not of the format (told when the wrong entry is reached).
    """
    return listed_segments(read_json(json_path, KIND), json_path)


def listed_segments(document: Any, json_path: Path) -> Iterator[tuple[int | str, str, tuple[Segment, ...]]]:
    """Look the segments up in what is in a JSON file; see `read_segments`."""
    with reading(json_path, KIND):
        things = {category["id"]: int(category["isthing"]) for category in document["categories"]}
        for annotation in document["annotations"]:
            segments = tuple(_segment(fields, things) for fields in annotation["segments_info"])
            yield annotation["image_id"], str(annotation["file_name"]), segments


def _segment(fields: dict[str, Any], things: dict[int, int]) -> Segment:
    x, y, width, height = (int(value) for value in fields["bbox"])
    category_id = int(fields["category_id"])
    return Segment(
        id=int(fields["id"]),
        category_id=category_id,
        area=int(fields["area"]),
        bbox=(x, y, width, height),
        iscrowd=int(bool(int(fields.get("iscrowd", 0)))),
        isthing=things.get(category_id, 0),  # a data set says which category is unknown, and where
    )


def _measured(present: np.ndarray, places: np.ndarray) -> Iterator[tuple[int, int, tuple[int, int, int, int]]]:
    """Yield the id, the area and the box (x_min, y_min, width, height) of each segment but void, by rising id."""
    boxes = instance_boxes(places + 1, len(present)).tolist()
    areas = np.bincount(places.ravel(), minlength=len(present)).tolist()
    for segment_id, area, (left, top, right, bottom) in zip(present.tolist(), areas, boxes, strict=True):
        if segment_id != 0:
            yield segment_id, area, (left, top, right - left + 1, bottom - top + 1)
