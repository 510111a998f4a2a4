# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Any data set in COCO's instances format: objects as polygons, run lengths (RLE) or boxes alone.

The JSON file is the first of these that is there; its images lie, as their `file_name` says, below one of the folders:

    ROOT/annotations/instances_SPLIT.json            ROOT/{images/SPLIT,images,SPLIT,.}    COCO, CVAT with subsets
    ROOT/SPLIT/annotations/instances_default.json    ROOT/SPLIT/{images/default,images,.}  CVAT, a task in each folder
    ROOT/SPLIT/_annotations.coco.json                ROOT/SPLIT/{images,.}                 Roboflow
    ROOT/SPLIT/result.json                           ROOT/SPLIT/{images,.}                 Label Studio

The split `default` is that of an export without splits: ROOT/SPLIT is then ROOT. The format is described at
https://cocodataset.org/#format-data.

All categories are things but those with `isthing: 0`, whose pixels get their class alone. Where masks overlap, the
smaller one is on top, as a cup is on a table; things lie on stuff, and single objects on crowds. Objects without a
visible pixel are left out, and what nothing labels is void. CVAT calls each mask that was brushed a crowd: run lengths
with `attributes`, which are CVAT's, are single objects here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from rt_panoptic_ros.datasets.base import PanopticDataset, PanopticSample, labels_of_segments
from rt_panoptic_ros.datasets.coco_json import (
    category_table,
    first_missing,
    listed_images,
    read_json,
    reading,
    require_distinct,
)
from rt_panoptic_ros.datasets.coco_masks import checked_box, counts_of_text, encode_mask, mask_pixels
from rt_panoptic_ros.datasets.coco_panoptic import compacted
from rt_panoptic_ros.errors import InvalidInputError, require, require_package
from rt_panoptic_ros.frames.sources import read_image
from rt_panoptic_ros.records import VOID

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from rt_panoptic_ros.model.class_table import SemanticClass

WHOLE = "default"
"""The split of an export without splits, as CVAT calls it."""

_KIND = "COCO-instances"
_LAYOUT = (
    "coco_instances as ROOT/annotations/instances_SPLIT.json, or as annotations/instances_default.json (CVAT), "
    f"_annotations.coco.json (Roboflow) or result.json (Label Studio) in ROOT/SPLIT (in ROOT for split '{WHOLE}'), "
    "with the images beside it or in images/"
)
_NO_BOX = (math.nan,) * 4


@dataclass(frozen=True, slots=True)
class _Object:
    """One annotation."""

    class_id: int
    thing: bool
    crowd: bool
    mask: str | None  # its run lengths as `encode_mask` writes them; None: known by its box alone
    box: tuple[float, ...]  # xyxy px; nan where there is a mask


@dataclass(frozen=True, slots=True)
class _Image:
    """One image and what is labelled in it, in the file's order."""

    id: int | str
    name: str  # below the folder of the images
    size: tuple[int, int]  # height, width, px
    objects: list[_Object]


class CocoInstances(PanopticDataset):
    """A split of labelled objects, in the order of the JSON file's images; see the module for what lies where."""

    def __init__(self, root: Path, split: str) -> None:
        """Read the JSON file of `split` and look for the images it names.

        Raises:
            InvalidInputError: A file is missing, or something is wrong in the JSON file: one sentence about the first.
            UnavailableError: pycocotools, which draws masks, is not installed.
        """
        places = _places(root, split)
        path = next((path for path in places if path.is_file()), None)
        if path is None:
            wanted = " or ".join(str(path) for path in places) if root.is_dir() else f"folder {root}"
            raise InvalidInputError(f"expected {_LAYOUT}, got no {wanted}: name its root and split")
        self._json = path
        document = read_json(path, _KIND)
        with reading(path, _KIND):
            used = {annotation["category_id"] for annotation in document["annotations"]}
            document["categories"] = _without_placeholder(document["categories"], used)
            self.classes = category_table(document, path, root.resolve().name)
            self._images = self._read(document)
        names = [image.name for image in self._images]
        require(bool(names), f"images in {path}", "none: export the labels with their images")
        with reading(path, _KIND):  # names may be too long for a file's
            self._folder = next((folder for folder in places[path] if (folder / names[0]).is_file()), places[path][0])
            missing = first_missing(self._folder, names)
        folders = ", ".join(map(str, places[path]))
        require(missing is None, f"all the images of {path} in one of {folders}", f"no {missing}: put them there")

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._images)

    def __getitem__(self, index: int) -> PanopticSample:
        """Return the image at `index`; see `PanopticDataset`."""
        entry = self._images[index]
        path = self._folder / entry.name
        image = read_image(path)
        height, width = image.shape[:2]
        require(
            (height, width) == entry.size,
            f"an image of {entry.size[1]} x {entry.size[0]} px (width x height), as {self._json} says, in {path}",
            f"{width} x {height}"
            + (" upright, as its EXIF orientation says" if (width, height) == entry.size else "")
            + ": export the labels with the image they belong to",
        )
        present, places = compacted(_painted(entry.objects, entry.size))
        class_ids = np.array([VOID, *(one.class_id for one in entry.objects)], np.uint8)[present]
        crowd = np.array([False, *(one.crowd for one in entry.objects)])[present]
        semantic, instance, classes, crowds = labels_of_segments(places, class_ids, crowd, self.classes.thing_ids)
        stem = PurePosixPath(entry.name).with_suffix("").as_posix()
        boxed = [one for one in entry.objects if one.mask is None]
        boxes = np.array([_NO_BOX] * len(classes) + [one.box for one in boxed], np.float32).reshape(-1, 4)
        classes = np.append(classes, np.array([one.class_id for one in boxed], np.uint8))
        crowds = np.append(crowds, np.array([one.crowd for one in boxed], bool))
        return PanopticSample(stem, entry.id, image, semantic, instance, classes, crowds, boxes)

    def _read(self, document: Any) -> list[_Image]:
        """Return what is in the JSON file, checked but for the images themselves."""
        images: dict[int | str, _Image] = {}
        for image_id, image in listed_images(document, self._json).items():
            size = int(image["height"]), int(image["width"])
            name = image["file_name"].replace("\\", "/")  # Label Studio on Windows
            require(min(size) > 0, f"a height and a width of image '{name}' in {self._json}", f"{size}")
            images[image_id] = _Image(image_id, name, size, [])
        require_distinct((one["id"] for one in document["annotations"]), f"one annotation with each id in {self._json}")
        class_of = {entry.dataset_id: entry for entry in self.classes.classes}
        for annotation in document["annotations"]:
            number, image_id, category_id = (annotation[name] for name in ("id", "image_id", "category_id"))
            require(
                image_id in images, f"annotations of the images that {self._json} lists",
                f"annotation {number} of image {image_id}: export the labels again",
            )  # fmt: skip
            where = f"annotation {number} of image '{images[image_id].name}' in {self._json}"
            require(
                category_id in class_of, f"one of the {len(class_of)} categories that the file lists in {where}",
                f"category {category_id}: export the labels again",
            )  # fmt: skip
            with reading(where, _KIND):
                one = _object(annotation, class_of[category_id], images[image_id].size, where)
            images[image_id].objects.append(one)
        return list(images.values())


def _places(root: Path, split: str) -> dict[Path, list[Path]]:
    """Return the JSON files that a split may have, each with the folders where its images may lie."""
    part = root if split == WHOLE else root / split
    places = {
        part / "annotations" / f"instances_{WHOLE}.json": [part / "images" / WHOLE, part / "images", part],
        part / "_annotations.coco.json": [part / "images", part],
        part / "result.json": [part / "images", part],
    }
    coco = root / "annotations" / f"instances_{split}.json"
    return {coco: [root / "images" / split, root / "images", root / split, root], **places}


def _without_placeholder(categories: list[dict[str, Any]], used: set[Any]) -> list[dict[str, Any]]:
    """Leave out Roboflow's category 0, the super-category of the others, which has none itself and no annotation."""
    groups = {category.get("supercategory") for category in categories if category["id"] != 0}
    placeholder = {"id": 0, "supercategory": "none"}
    return [
        one for one in categories if 0 in used or one["name"] not in groups or not placeholder.items() <= one.items()
    ]


def _object(annotation: dict[str, Any], category: SemanticClass, size: tuple[int, int], where: str) -> _Object:
    crowd = bool(int(annotation.get("iscrowd", 0)))
    if annotation.get("segmentation"):
        crowd = crowd and not (isinstance(annotation["segmentation"], dict) and "attributes" in annotation)  # CVAT
        require_package("pycocotools", "labels by polygons or run lengths")
        mask = encode_mask(annotation["segmentation"], size, where)
        return _Object(category.id, category.thing, crowd, mask, _NO_BOX)
    require(category.thing, f"a mask of '{category.name}', which is stuff, in {where}", "a box alone: draw its outline")
    require("bbox" in annotation, f"a segmentation or a bbox in {where}", "neither: export the labels again")
    return _Object(category.id, True, crowd, None, checked_box(annotation["bbox"], size, where))


def _painted(objects: Sequence[_Object], size: tuple[int, int]) -> np.ndarray:
    """Return an image of 1 + row of the uppermost mask, 0 where there is none, (H, W) int32.

    Of masks of the same area, the later one is on top.
    """
    painted = np.zeros(size, np.int32, order="F")  # as the masks lie
    masks = [(row, one, counts_of_text(one.mask)) for row, one in enumerate(objects, 1) if one.mask is not None]
    # Every second run is the mask's, so their sum is its area.
    masks.sort(key=lambda item: (item[1].thing, not item[1].crowd, -sum(item[2][1::2])))
    for row, _, counts in masks:
        np.copyto(painted, row, where=mask_pixels(counts, size))
    return np.ascontiguousarray(painted)
