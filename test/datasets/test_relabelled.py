# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Samples in the classes of a label map."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from coco_cases import write_instances

from rt_panoptic_ros.datasets.opening import open_dataset
from rt_panoptic_ros.errors import InvalidInputError
from rt_panoptic_ros.model.label_map import LabelMap, parse_label_map
from rt_panoptic_ros.records import VOID

if TYPE_CHECKING:
    from pathlib import Path

PERSON, GROUND = 0, 1


def label_map(**of: list[str]) -> LabelMap:
    rows = {name: {"thing": name == "person", "color": [1, 2, 3], "of": of[name]} for name in ("person", "ground")}
    return parse_label_map({"name": "few", "unlisted": "drop", "classes": rows}, "here")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two masks and two boxes: a cat, a pedestrian, a pedestrian's box, a rug's; a floor behind."""
    pytest.importorskip("pycocotools", reason="pycocotools is not installed")
    names = ("pedestrian", "cat", "rug")
    categories = [{"id": k, "name": name} for k, name in enumerate(names)]
    categories.append({"id": 3, "name": "floor", "isthing": 0})
    rows = [
        {"category_id": 1, "segmentation": [[0, 0, 10, 0, 10, 10, 0, 10]]},
        {"category_id": 0, "segmentation": [[20, 0, 30, 0, 30, 10, 20, 10]]},
        {"category_id": 0, "bbox": [2, 12, 4, 6]},
        {"category_id": 2, "bbox": [20, 12, 4, 6]},
        {"category_id": 3, "segmentation": [[0, 10, 30, 10, 30, 20, 0, 20]]},
    ]
    write_instances(tmp_path / "result.json", {"a.png": tmp_path / "images" / "a.png"}, rows, categories)
    return tmp_path


def test_things_merge_become_stuff_or_are_dropped(root: Path) -> None:
    few = label_map(person=["pedestrian"], ground=["floor", "rug"])
    dataset = open_dataset("coco_instances", root, "default", label_map=few, complete=True)
    assert (len(dataset), dataset.classes) == (1, few.listed)
    sample = dataset[0]
    assert sample.complete
    assert sample.instance_classes.tolist() == [PERSON, PERSON]
    assert sample.instance_crowd.tolist() == [False, False]
    np.testing.assert_array_equal(sample.boxes, [[np.nan] * 4, [2, 12, 6, 18]])
    semantic, instance = np.full((20, 30), VOID), np.zeros((20, 30), int)
    semantic[:10, 20:], instance[:10, 20:] = PERSON, 1
    semantic[10:] = GROUND
    np.testing.assert_array_equal(sample.semantic, semantic)
    np.testing.assert_array_equal(sample.instance, instance)
    assert (sample.semantic.dtype, sample.instance.dtype) == (np.uint8, np.int32)


def test_stuff_that_becomes_a_thing_is_no_object(root: Path) -> None:
    few = label_map(person=["pedestrian", "floor"], ground=["cat", "rug"])
    sample = open_dataset("coco_instances", root, "default", label_map=few)[0]
    assert (sample.semantic[10:] == PERSON).all()
    assert not sample.instance[10:].any()
    assert (sample.semantic[:10, :10] == GROUND).all()
    assert sample.instance_classes.tolist() == [PERSON, PERSON]
    assert not sample.complete


def test_a_map_without_one_of_its_classes_is_refused(root: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"got those of '.*' \(pedestrian, cat, rug, floor\)"):
        open_dataset("coco_instances", root, "default", label_map=label_map(person=["x"], ground=["y"]))
