# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Several data sets learned together: which image comes when, in which classes, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from coco_cases import write_instances
from conftest import TINY_RECIPE

from rt_panoptic_ros.datasets.base import PanopticDataset, PanopticSample
from rt_panoptic_ros.errors import InvalidInputError
from rt_panoptic_ros.model.class_table import ClassTable, load_class_table, parse_class_table, united_classes
from rt_panoptic_ros.training.recipe import Recipe, parse_recipe
from rt_panoptic_ros.training.sources import open_sources, open_validation
from rt_panoptic_ros.training.stream import TrainingStream
from rt_panoptic_ros.training.trainer import train


class Numbered(PanopticDataset):
    """Images of one grey level, their number."""

    def __init__(self, count: int) -> None:
        self.classes, self._count = load_class_table("camvid"), count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> PanopticSample:
        nothing, grey = np.zeros(0, np.uint8), np.full((64, 96, 3), index, np.uint8)
        void, none = np.full((64, 96), 255, np.uint8), np.zeros((64, 96), np.int32)
        return PanopticSample(str(index), index, grey, void, none, nothing, nothing.astype(bool))


def recipe_of(*sources: dict[str, Any], **data: Any) -> Recipe:
    return parse_recipe("tiny", {**TINY_RECIPE, "data": {**data, "sources": list(sources)}})


def weighted(*weights: float, seed: int = 1) -> Recipe:
    sources = [{"dataset": "camvid", "weight": weight} for weight in weights]
    return parse_recipe("tiny", {**TINY_RECIPE, "seed": seed, "data": {"sources": sources}})


@pytest.mark.parametrize("weights", [(1.0, 1.0), (3.0, 1.0, 0.5), (900.0, 1.0)])
def test_sources_come_by_their_weights_whatever_their_sizes(weights: tuple[float, ...]) -> None:
    sizes = (7, 40, 3)[: len(weights)]
    stream = TrainingStream([Numbered(size) for size in sizes], weighted(*weights))
    seen = [stream.image_at(place) for place in range(3000)]
    shares = np.bincount([source for source, _ in seen], minlength=len(weights)) / len(seen)
    np.testing.assert_allclose(shares, np.array(weights) / sum(weights), atol=1e-3)
    assert stream.image_count == sum(sizes)
    for source, size in enumerate(sizes):
        own = [index for at, index in seen if at == source]
        whole = len(own) // size * size
        for first in range(0, whole, size):  # permutation after permutation, across the turns
            assert sorted(own[first : first + size]) == list(range(size))
        assert whole < 2 * size or own[:size] != own[size : 2 * size]
    for first in range(0, 3000, 100):  # well mixed
        share = np.mean([source == 0 for source, _ in seen[first : first + 100]])
        assert abs(share - weights[0] / sum(weights)) < 0.25


def test_what_comes_follows_from_seed_and_place_alone() -> None:
    sources = [Numbered(7), Numbered(40)]
    one = TrainingStream(sources, weighted(2.0, 1.0))
    forward = [one.image_at(place) for place in range(2500)]
    other = TrainingStream(sources, weighted(2.0, 1.0))
    assert [other.image_at(place) for place in reversed(range(2500))] == forward[::-1]
    another = TrainingStream(sources, weighted(2.0, 1.0, seed=2))
    assert [another.image_at(place) for place in range(100)] != forward[:100]
    source, index = forward[1234]
    assert int(one[1234].image[0].float().median()) == index < len(sources[source])


def test_one_source_comes_in_the_order_it_always_had() -> None:
    stream = TrainingStream([Numbered(7)], parse_recipe("tiny", TINY_RECIPE))
    for epoch in range(300):
        want = np.random.default_rng((1, 0, epoch)).permutation(7).tolist()
        assert [stream.image_at(7 * epoch + position) for position in range(7)] == [(0, index) for index in want]


def table(name: str, **things: bool) -> ClassTable:
    rows = [
        {"id": number, "name": entry, "thing": thing, "color": [number, 1, 2], "dataset_id": 10 + number}
        for number, (entry, thing) in enumerate(things.items())
    ]
    return parse_class_table({"name": name, "classes": rows})


def test_classes_are_united_by_name() -> None:
    streets, homes = table("streets", road=False, person=True), table("homes", person=True, chair=True, floor=False)
    both = united_classes([streets, homes, streets])
    assert (both.name, both.names) == ("streets+homes", ("road", "person", "chair", "floor"))
    assert both.thing_ids == (1, 2)
    assert [entry.dataset_id for entry in both.classes] == [0, 1, 2, 3]
    assert both.classes[2].color == (1, 1, 2)
    assert united_classes([streets, table("few", person=True)]) is streets


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        (
            [table("a", box=True), table("b", box=False)],
            "class 'box' to be a thing in all .*, got one in which it is stuff",
        ),
        ([table("a", **{f"a{k}": True for k in range(200)}), table("b", **{f"b{k}": True for k in range(60)})], "255"),
    ],
)
def test_classes_that_do_not_go_together(tables: list[ClassTable], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        united_classes(tables)


@pytest.fixture
def root(tiny_camvid: Path) -> Path:
    """CamVid in `camvid`, and in `boxes` two images with a car and a dog each, known by their boxes alone."""
    boxes = tiny_camvid.parent / "boxes"
    labels = [
        {"image_id": image, "category_id": category, "bbox": [10.5 * category, 20 + image, 30, 24.5]}
        for image in (1, 2)
        for category in (1, 2)
    ]
    write_instances(
        boxes / "annotations" / "instances_train.json",
        {name: boxes / "images" / "train" / name for name in ("a.png", "b.png")},
        labels,
        [{"id": 1, "name": "car"}, {"id": 2, "name": "dog"}],
        (64, 96),
    )
    return tiny_camvid.parent


BOXES = {"dataset": "coco_instances", "root": "boxes", "split": "train", "complete": True, "licence": "CC0"}
CAMVID = {"dataset": "camvid", "root": "camvid", "weight": 2.0, "licence": "CC BY-NC 4.0"}


def test_sources_have_one_class_table(root: Path) -> None:
    recipe = recipe_of(CAMVID, BOXES, root="camvid")
    camvid, boxes = open_sources(recipe.data, root)
    assert camvid.classes == boxes.classes
    assert camvid.classes.names == (*load_class_table("camvid").names, "dog")
    sample = boxes[0]
    assert [boxes.classes.names[class_id] for class_id in sample.instance_classes] == ["car", "dog"]
    assert sample.by_box.tolist() == [True, True]
    assert (sample.complete, camvid[0].complete) == (True, False)
    alone = parse_recipe("tiny", {**TINY_RECIPE, "data": {"root": "camvid", "complete": True}}).data
    assert [source[0].complete for source in open_sources(alone, root)] == [True]
    validation = open_validation(recipe.data, root, camvid.classes)
    assert validation.classes == camvid.classes
    assert len(validation) == 1


def test_a_label_map_makes_the_classes_of_all(root: Path) -> None:
    path = root / "map.yaml"
    path.write_text(
        "{name: mine, unlisted: drop, classes: {ground: {thing: false, color: [1, 2, 3], of: [road]}, "
        "body: {thing: true, color: [4, 5, 6], of: [car, dog]}}}"
    )
    recipe = recipe_of(CAMVID, BOXES, root="camvid", label_map=str(path))
    sources = open_sources(recipe.data, root)
    assert [source.classes.names for source in sources] == [("ground", "body")] * 2
    assert sources[1][0].instance_classes.tolist() == [1, 1]
    assert open_validation(recipe.data, root, sources[0].classes)[0].instance_classes.tolist() == [1]


def test_a_val_split_with_classes_that_nothing_teaches(root: Path) -> None:
    recipe = recipe_of(BOXES, root="camvid")
    (boxes,) = open_sources(recipe.data, root)
    with pytest.raises(InvalidInputError, match=r"classes of what is learned \(car, dog\), got sky, .* in camvid val"):
        open_validation(recipe.data, root, boxes.classes)


def test_a_run_learns_masks_and_boxes_together_and_its_card_names_all(root: Path, tmp_path: Path) -> None:
    recipe = recipe_of(CAMVID, BOXES, root="camvid")
    bundle = train(recipe, root, tmp_path / "run", resume=False, device="cpu", workers=0)
    assert bundle is not None
    assert bundle.about["data"] == "camvid camvid train; boxes coco_instances train"
    assert bundle.about["data_licence"] == "CC BY-NC 4.0; CC0"
    assert parse_recipe("tiny", bundle.about["recipe"]) == recipe


@pytest.mark.parametrize(
    ("data", "named"),
    [
        ({"sources": {"dataset": "camvid"}}, r"data\.sources to be a list of tables"),
        ({"sources": ["camvid"]}, r"data\.sources\[0\] to be a table"),
        ({"sources": [{"dataset": "camvid"}, {"dataset": "camvid", "wait": 1}]}, r"data\.sources\[1\]\.wait"),
        ({"sources": [{"dataset": "camvid", "weight": "much"}]}, r"data\.sources\[0\]\.weight"),
        ({"sources": [{"dataset": "camvid", "weight": 0}]}, "weights above 0"),
        ({"sources": [{"dataset": "camvid"}, {"dataset": "camvid", "weight": 1e-4}]}, "below a thousandth"),
        ({"sources": [{"root": "camvid"}]}, r"data\.sources\[0\] .*dataset"),
    ],
)
def test_wrong_entries_are_named(data: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidInputError, match=named):
        parse_recipe("tiny", {**TINY_RECIPE, "data": data})
