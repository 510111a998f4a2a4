# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The class tables that come with the package."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import DATA

from rt_panoptic_ros.errors import InvalidInputError
from rt_panoptic_ros.model.class_table import available_class_tables, load_class_table, parse_class_table


@pytest.mark.parametrize(
    ("name", "classes", "things", "first_thing", "last"),
    [
        ("cityscapes", 19, 8, "person", "bicycle"),
        ("coco", 133, 80, "person", "rug-merged"),
        ("camvid", 11, 3, "car", "bicyclist"),
    ],
)
def test_shipped_tables(name: str, classes: int, things: int, first_thing: str, last: str) -> None:
    table = load_class_table(name)
    assert (len(table), len(table.thing_ids)) == (classes, things)
    assert table.names[table.thing_ids[0]] == first_thing
    assert table.names[-1] == last
    assert parse_class_table(table.to_document()) == table
    assert table.colors.shape == (256, 3)
    assert table.colors.dtype == np.uint8
    assert (table.colors[3] == table.classes[3].color).all()
    assert len({entry.dataset_id for entry in table.classes}) == classes


def test_published_order_of_cityscapes_things() -> None:
    assert load_class_table("cityscapes").thing_ids == tuple(range(11, 19))


def test_coco_equals_the_official_categories() -> None:
    path = DATA / "coco_panoptic_sample" / "panoptic_coco_categories.json"
    if not path.is_file():
        pytest.skip(f"the COCO sample is not at {path}")
    official = sorted(json.loads(path.read_text()), key=lambda category: category["id"])
    ours = load_class_table("coco").classes
    assert [(c.dataset_id, c.name, int(c.thing), list(c.color)) for c in ours] == [
        (c["id"], c["name"], c["isthing"], c["color"]) for c in official
    ]


def test_all_are_listed() -> None:
    assert available_class_tables() == ("camvid", "cityscapes", "coco")
    with pytest.raises(InvalidInputError, match="camvid, cityscapes, coco, got 'kitti'"):
        load_class_table("kitti")


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ({"name": "x"}, "classes"),
        (None, "subscriptable"),
        ({"name": "x", "classes": []}, "at most 255"),
        ({"name": "x", "classes": [{"id": 1, "name": "a", "thing": True, "color": [0, 0, 0]}]}, r"\[1\]"),
        ({"name": "x", "classes": [{"id": 0, "name": "a", "thing": True, "color": [0, 0, 256]}]}, "color"),
        ({"name": "x", "classes": [{"id": 0, "name": "a", "thing": True, "color": [0, 0]}]}, "values to unpack"),
    ],
)
def test_wrong_tables_are_refused(document: object, reason: str) -> None:
    with pytest.raises(InvalidInputError, match=reason):
        parse_class_table(document)


def test_tables_lie_where_an_installation_puts_them() -> None:
    assert (Path(__file__).parents[2] / "config" / "classes" / "camvid.yaml").is_file()
