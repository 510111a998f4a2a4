# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""COCO's formats in tests: the panoptic one read whole, as panopticapi does; the instances one written."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from rt_panoptic_ros.datasets.base import true_objects
from rt_panoptic_ros.datasets.coco_panoptic import Segment, compacted, decode_ids, read_segments
from rt_panoptic_ros.frames.sources import read_image
from rt_panoptic_ros.model.class_table import ClassTable
from rt_panoptic_ros.records import VOID, PanopticResult


class Annotation(NamedTuple):
    """What the format says about one image."""

    image_id: int | str
    ids: np.ndarray  # (H, W) int32 segment ids, 0 void
    segments: tuple[Segment, ...]


def read_coco_panoptic(json_path: Path) -> list[Annotation]:
    """Return all images of a JSON file whose PNGs lie in a folder beside it, named like it."""
    return [
        Annotation(image_id, decode_ids(read_image(json_path.with_suffix("") / name)), segments)
        for image_id, name, segments in read_segments(json_path)
    ]


def result_from_segments(ids: np.ndarray, segments: Sequence[Segment], classes: ClassTable) -> PanopticResult:
    """Return segments as a panoptic result, the inverse of `panoptic_segments`: things become objects of score 1.

    Args:
        ids: (H, W) integers, segment ids.
        segments: What they are; their areas and boxes are counted anew.
        classes: Tells things from stuff and knows the segments' categories.
    """
    class_of = {entry.dataset_id: entry for entry in classes.classes}
    entries = {segment.id: class_of[segment.category_id] for segment in segments}
    present, places = compacted(ids)
    semantic_of = {0: VOID}
    class_ids: list[int] = []  # of the objects
    instance_of = {}
    for segment_id in present[present > 0].tolist():
        entry = entries[segment_id]
        semantic_of[segment_id] = entry.id
        if entry.thing:
            class_ids.append(entry.id)
            instance_of[segment_id] = len(class_ids)
    semantic = np.array([semantic_of[segment_id] for segment_id in present.tolist()], np.uint8)
    instance = np.array([instance_of.get(segment_id, 0) for segment_id in present.tolist()], np.uint16)[places]
    return PanopticResult(semantic[places], instance, true_objects(instance, np.array(class_ids, np.uint8)))


def write_instances(
    json_path: Path,
    image_paths: Mapping[str, Path],
    annotations: Sequence[Mapping[str, Any]],
    categories: Sequence[Mapping[str, Any]] = ({"id": 1, "name": "person"}, {"id": 2, "name": "car"}),
    size: tuple[int, int] = (20, 30),
) -> None:
    """Write a data set in COCO's instances format: images of one size, ids from 1.

    Args:
        json_path: The JSON file.
        image_paths: {file name in the JSON file: where the image is written}.
        annotations: Of the first image, unless they say otherwise, with ids from 1.
        categories: As in the JSON file.
        size: (height, width) px.
    """
    for number, path in enumerate(image_paths.values()):
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), np.full((*size, 3), 10 * number, np.uint8))
    images = [
        {"id": number, "file_name": name, "height": size[0], "width": size[1]}
        for number, name in enumerate(image_paths, 1)
    ]
    rows = [{"id": number, "image_id": 1, "iscrowd": 0, **row} for number, row in enumerate(annotations, 1)]
    json_path.parent.mkdir(parents=True, exist_ok=True)
    document = {"images": images, "categories": list(categories), "annotations": rows}
    json_path.write_text(json.dumps(document), encoding="utf-8")
