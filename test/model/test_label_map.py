# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Label maps: merged, dropped and kept classes, their files, and the shipped one."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rt_panoptic_ros.drawing.color_vision import lab
from rt_panoptic_ros.errors import InvalidInputError
from rt_panoptic_ros.model.class_table import (
    ClassTable,
    load_class_table,
    parse_class_table,
    parse_published_table,
)
from rt_panoptic_ros.model.label_map import parse_label_map, read_label_map
from rt_panoptic_ros.records import VOID

COLOR = [1, 2, 3]
DOCUMENT: dict[str, Any] = {
    "name": "few",
    "classes": {
        "person": {"thing": True, "color": COLOR, "of": ["pedestrian", "rider"]},
        "ground": {"thing": False, "color": COLOR, "of": ["road", "car"]},
        "sky": {"thing": False, "color": COLOR},
    },
}


def table(*names: str) -> ClassTable:
    rows = [{"id": k, "name": name, "thing": k % 2 == 0, "color": [9, 9, 9]} for k, name in enumerate(names)]
    return parse_class_table({"name": "source", "classes": rows})


class TestApplying:
    def test_listed_classes_come_first_and_others_stay(self) -> None:
        source = table("tree", "road", "pedestrian", "car", "dog")
        few = parse_label_map(DOCUMENT, "here")
        mapped = few.table(source)
        assert mapped.names == ("person", "ground", "sky", "tree", "dog")
        assert [entry.id for entry in mapped.classes] == [entry.dataset_id for entry in mapped.classes] == [*range(5)]
        assert mapped.thing_ids == (0, 3, 4)
        assert mapped.colors[:4].tolist() == [COLOR] * 3 + [[9, 9, 9]]
        ids = few.new_ids(source)
        assert ids[:5].tolist() == [3, 1, 0, 1, 4]
        assert (ids.shape, ids.dtype, set(ids[5:].tolist())) == ((256,), np.uint8, {VOID})

    def test_unlisted_classes_are_dropped_where_the_map_says_so(self) -> None:
        source, few = table("tree", "road", "pedestrian"), parse_label_map({**DOCUMENT, "unlisted": "drop"}, "here")
        assert few.table(source).names == ("person", "ground", "sky")
        assert few.new_ids(source)[:4].tolist() == [VOID, 1, 0, VOID]

    @pytest.mark.parametrize("unlisted", ["keep", "drop"])
    def test_twice_is_once(self, unlisted: str) -> None:
        few = parse_label_map({**DOCUMENT, "unlisted": unlisted}, "here")
        once = few.table(table("tree", "road", "pedestrian"))
        assert few.table(once) == once
        assert few.new_ids(once)[: len(once)].tolist() == [*range(len(once))]

    @pytest.mark.parametrize(
        ("ids", "void", "published"),
        [
            (None, None, {}),
            (None, 0, {"published_ids": (1, 2, 3, 4, 5), "published_void": 0}),
            ([7, 3, 200], None, {"published_ids": (7, 3, 200, 201, 202)}),
            ([0, 1, 2], 255, {}),
        ],
    )
    def test_published_ids(self, ids: list[int] | None, void: int | None, published: dict[str, Any]) -> None:
        source = table("tree", "road", "pedestrian", "car", "dog")
        rows = {
            name: row | ({} if ids is None else {"id": ids[number]})
            for number, (name, row) in enumerate(DOCUMENT["classes"].items())
        }
        document = {**DOCUMENT, "classes": rows} | ({} if void is None else {"void": void})
        mapped = parse_label_map(document, "here").table(source)
        assert [entry.id for entry in mapped.classes] == [*range(5)]  # inside, nothing changes
        values = list(published.get("published_ids", range(5)))
        assert [entry.dataset_id for entry in mapped.classes] == values
        assert mapped.published[:5].tolist() == values
        assert mapped.published[VOID] == published.get("published_void", VOID)
        assert mapped.as_published is not bool(published)
        assert parse_published_table(mapped.published_document()) == mapped
        assert parse_class_table(mapped.to_document()) == replace(mapped, published_ids=(), published_void=VOID)

    def test_another_class_can_take_a_name(self) -> None:
        rows = {"a": {"thing": True, "color": COLOR, "of": ["b"]}, "b": {"thing": True, "color": COLOR, "of": ["a"]}}
        assert parse_label_map({"name": "swap", "classes": rows}, "here").new_ids(table("a", "b"))[:2].tolist() == [
            1,
            0,
        ]

    def test_one_name_must_be_there(self) -> None:
        with pytest.raises(
            InvalidInputError,
            match=r"map 'few' names \(person, ground, sky, pedestrian, .*got those of 'source' \(tree, dog\)",
        ):
            parse_label_map(DOCUMENT, "here").table(table("tree", "dog"))

    def test_there_is_an_end_to_ids(self) -> None:
        with pytest.raises(InvalidInputError, match="at most 255 classes by label map 'few', got 257"):
            parse_label_map(DOCUMENT, "here").table(table("road", *(f"c{k}" for k in range(254))))


class TestFiles:
    @pytest.mark.parametrize(
        ("change", "said"),
        [
            ({"classs": {}}, "an entry classs"),
            ({"unlisted": "ignore"}, "unlisted: 'ignore'"),
            ({"classes": ["person"]}, r"classes: \['person'\]"),
            ({"classes": {}}, "ids of table 'few' to be 0, 1, 2"),
            ({"classes": {"a": {"thing": "yes", "color": COLOR}}}, "class a: "),
            ({"classes": {"a": {"thing": True, "color": COLOR, "off": []}}}, "class a: "),
            ({"void": 7}, "void: 7"),
            ({"void": False}, "void: False"),
            (
                {"classes": {"a": {"id": 255, "thing": True, "color": COLOR}}},
                r"different ids .* got \[255\] and void 255",
            ),
            ({"classes": {"a": {"id": -1, "thing": True, "color": COLOR}}}, r"ids from 0 to 255, .* got \[-1\]"),
            ({"classes": {"a": {"id": "7", "thing": True, "color": COLOR}}}, r"ids from 0 to 255, .* got \['7'\]"),
            ({"void": 0, "classes": {"a": {"id": 0, "thing": True, "color": COLOR}}}, r"got \[0\] and void 0"),
            (
                {"classes": {name: {"id": 3, "thing": True, "color": COLOR} for name in "ab"}},
                r"different ids from 0 to 255, .* got \[3, 3\] and void 255",
            ),
            (
                {"classes": {"a": {"id": 1, "thing": True, "color": COLOR}, "b": {"thing": True, "color": COLOR}}},
                "an id for some classes alone",
            ),
            ({"classes": {"a": {"thing": True, "color": COLOR, "of": "road"}}}, "class a: "),
            ({"classes": {"a": {"thing": True, "color": [1, 2]}}}, "color"),
            (
                {"classes": {name: {"thing": True, "color": COLOR, "of": ["x"]} for name in "ab"}},
                "each name in one `of` in here, got 'x' in several",
            ),
        ],
    )
    def test_a_wrong_entry_is_named(self, change: dict[str, Any], said: str) -> None:
        with pytest.raises(InvalidInputError, match=said) as caught:
            parse_label_map({**DOCUMENT, **change}, "here")
        assert "\n" not in str(caught.value)

    def test_a_file_is_read_by_its_path(self, tmp_path: Path) -> None:
        path = tmp_path / "few.yaml"
        path.write_text("name: few\nclasses: {a: {thing: true, color: [1, 2, 3], of: [b]}}\n")
        assert read_label_map(str(path)).of == (("b",),)
        for content, said in (("name: [", "as YAML"), ("- a", r"a label map with name, .*got \['a'\]")):
            path.write_text(content)
            with pytest.raises(InvalidInputError, match=said) as caught:
                read_label_map(str(path))
            assert "\n" not in str(caught.value)

    def test_a_missing_file_is_answered_with_the_shipped_names(self) -> None:
        with pytest.raises(InvalidInputError, match=r"a label map file or one of .*street.*, got 'avenue'"):
            read_label_map("avenue")


class TestStreet:
    def test_it_names_every_category_of_coco(self) -> None:
        street, coco = read_label_map("street"), load_class_table("coco")
        named = {name for names in street.of for name in names}
        assert named == set(coco.names)
        assert (street.new_ids(coco)[: len(coco)] != VOID).all()
        assert street.table(coco).names == (
            "person", "bicycle", "vehicle", "animal", "chair", "ground", "grass", "vegetation", "building", "sky",
            "water", "other",
        )  # fmt: skip
        assert street.table(coco).thing_ids == (0, 1, 2, 3, 4)

    def test_its_colors_lie_apart(self) -> None:
        colors = lab(np.array([entry.color for entry in read_label_map("street").listed.classes], np.uint8))
        assert min(np.linalg.norm(a - b) for a, b in combinations(colors, 2)) > 35  # Cityscapes' person and bicycle: 38
