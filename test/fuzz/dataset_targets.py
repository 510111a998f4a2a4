# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Fuzz targets: data sets, of one image each."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
from fuzz.fuzzing import FindError, headed, target, workplace

from rt_panoptic_ros.datasets.opening import open_dataset


def _png(pixels: np.ndarray) -> bytes:
    return cv2.imencode(".png", pixels)[1].tobytes()  # type: ignore[no-any-return]


def _use_dataset(name: str, root: Path, split: str) -> None:
    dataset = open_dataset(name, root, split)
    for index in range(min(2, len(dataset))):
        sample = dataset[index]
        count = len(sample.instance_classes)
        shapes = {sample.image.shape[:2], sample.semantic.shape, sample.instance.shape}
        semantic = sample.semantic[sample.semantic != 255]
        if len(shapes) != 1 or sample.instance.max(initial=0) > count or len(sample.boxes) != count:
            raise FindError(f"a sample of {shapes}, {count} objects, ids up to {sample.instance.max(initial=0)}")
        if semantic.max(initial=0) >= len(dataset.classes) or (sample.instance_classes >= len(dataset.classes)).any():
            raise FindError("a class that is not in the table")


_SIZE = (6, 8)


def _folder(name: str) -> Path:
    folder = workplace() / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _with_image(folder: Path, name: str) -> None:
    if not (folder / name).exists():
        (folder / name).write_bytes(_png(np.full((*_SIZE, 3), 90, np.uint8)))


def _panoptic_seeds() -> list[bytes]:
    ids = np.zeros((*_SIZE, 3), np.uint8)
    ids[:, 4:, 2] = 1  # OpenCV's order: red is the lowest byte
    segments = [{"id": 1, "category_id": 1, "area": 24, "bbox": [4, 0, 4, 6], "iscrowd": 0}]
    document = {
        "images": [{"id": 1, "file_name": "a.png", "height": 6, "width": 8}],
        "annotations": [{"image_id": 1, "file_name": "a.png", "segments_info": segments}],
        "categories": [
            {"id": 1, "name": "person", "isthing": 1, "color": [1, 2, 3]},
            {"id": 2, "name": "b", "isthing": 0},
        ],
    }
    return [
        headed(document, _png(ids)),
        headed({**document, "categories": [{"id": 1, "name": "c", "color": "#dc143c"}]}, _png(ids)),
    ]


@target(_panoptic_seeds)
def coco_panoptic(data: bytes) -> None:
    head, _, png = data.partition(b"\n")
    root = _folder("coco")
    _with_image(_folder("coco/val"), "a.png")
    (_folder("coco/annotations/panoptic_val") / "a.png").write_bytes(png)
    (root / "annotations" / "panoptic_val.json").write_bytes(head)
    _use_dataset("coco_panoptic", root, "val")


def _instances_seeds() -> list[bytes]:
    run_lengths = {"size": [6, 8], "counts": [40, 8]}
    document = {
        "images": [{"id": 1, "file_name": "a.png", "height": 6, "width": 8}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "segmentation": [[0, 0, 4, 0, 4, 5.5]], "iscrowd": 0},
            {"id": 2, "image_id": 1, "category_id": 1, "iscrowd": 1, "segmentation": run_lengths},
            {"id": 3, "image_id": 1, "category_id": 2, "bbox": [1, 1, 3, 3.5]},
            {"id": 4, "image_id": 1, "category_id": 1, "segmentation": {"size": [6, 8], "counts": "X1X0"}},
        ],
        "categories": [{"id": 1, "name": "person"}, {"id": 2, "name": "car", "supercategory": "none"}],
    }  # fmt: skip
    return [
        json.dumps(document).encode(),
        json.dumps({**document, "annotations": document["annotations"][:3]}).encode(),
    ]


@target(_instances_seeds, share=2)
def coco_instances(data: bytes) -> None:
    _with_image(_folder("instances/images"), "a.png")
    (_folder("instances/annotations") / "instances_val.json").write_bytes(data)
    _use_dataset("coco_instances", workplace() / "instances", "val")


@target(
    lambda: [_png(np.arange(48, dtype=np.uint16).reshape(_SIZE) % 34), _png(np.full(_SIZE, 26001, np.uint16))],
    share=0.5,
)
def cityscapes(data: bytes) -> None:
    _with_image(_folder("cityscapes/leftImg8bit/val/a"), "a_0_0_leftImg8bit.png")
    (_folder("cityscapes/gtFine/val/a") / "a_0_0_gtFine_instanceIds.png").write_bytes(data)
    _use_dataset("cityscapes", workplace() / "cityscapes", "val")


@target(
    lambda: [_png(np.arange(48, dtype=np.uint8).reshape(_SIZE) % 12), _png(np.full((*_SIZE, 3), 8, np.uint8))],
    share=0.5,
)
def camvid(data: bytes) -> None:
    _with_image(_folder("camvid/val/images"), "a.png")
    (_folder("camvid/val/labels") / "a.png").write_bytes(data)
    _use_dataset("camvid", workplace() / "camvid", "val")
