# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Recipes: the shipped ones hold the paper's numbers; wrong entries are named; the schedule that follows from them."""

from __future__ import annotations

from pathlib import Path

import pytest

from rt_panoptic_ros.errors import InvalidInputError
from rt_panoptic_ros.training.optimization import learning_rate_factor, scaled_to
from rt_panoptic_ros.training.recipe import Recipe, ScheduleRecipe, parse_recipe, read_recipe

DIRECTORY = Path(__file__).resolve().parents[2] / "config" / "train"
SHIPPED = ("camvid_ablation", "camvid_lite0", "cityscapes_resnet50", "coco_resnet50", "finetune_lite0", "street_lite0")
NETWORK = {"backbone": "resnet18"}


def shipped(name: str, *changes: str) -> Recipe:
    return read_recipe(str(DIRECTORY / f"{name}.yaml"), changes)


def test_all_shipped_recipes_are_known_here() -> None:
    assert tuple(sorted(path.stem for path in DIRECTORY.glob("*.yaml"))) == SHIPPED


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_recipes_parse_and_round_trip(name: str) -> None:
    recipe = shipped(name)
    assert recipe.name == name
    assert parse_recipe(name, recipe.to_document()) == recipe
    assert read_recipe(name) == recipe


def test_cityscapes_is_section_5_3() -> None:
    recipe = shipped("cityscapes_resnet50")
    optimizer, schedule = recipe.optimizer, recipe.schedule
    assert recipe.network.backbone == "resnet50"
    assert (optimizer.name, optimizer.learning_rate, optimizer.weight_decay) == ("sgd", 0.013, 1e-4)
    assert (schedule.batch, schedule.images_per_process, schedule.steps) == (8, 1, 48000)
    assert (schedule.decay, schedule.milestones, schedule.milestone_factor) == ("steps", (36000, 44000), 0.1)
    assert (recipe.augmentation.crop_size, recipe.augmentation.scale_range) == ((900, 1800), (0.7, 1.3))
    assert recipe.losses.semantics == 1


def test_coco_is_section_5_3() -> None:
    recipe = shipped("coco_resnet50")
    optimizer, schedule = recipe.optimizer, recipe.schedule
    assert recipe.network.backbone == "resnet50"
    assert (optimizer.name, optimizer.learning_rate, optimizer.weight_decay) == ("sgd", 0.01, 1e-4)
    assert (schedule.batch, schedule.images_per_process, schedule.steps) == (16, 2, 180000)
    assert (schedule.decay, schedule.milestones, schedule.milestone_factor) == ("steps", (120000, 160000), 0.1)
    assert recipe.augmentation.shortest_sides == (640, 720, 800)
    assert recipe.augmentation.crop_size is None
    assert recipe.losses.semantics == 0.4


def test_changes() -> None:
    recipe = shipped(
        "coco_resnet50", "schedule.steps=100", "losses.mask=0", "supervision=box", "optimizer.learning_rate=1e-3",
        "schedule.milestones=[10, 20]", "backbone_weights=null", "postprocess.max_detections=7",
    )  # fmt: skip
    assert (recipe.schedule.steps, recipe.schedule.milestones, recipe.schedule.batch) == (100, (10, 20), 16)
    assert (recipe.losses.mask, recipe.supervision, recipe.backbone_weights) == (0, "box", None)
    assert recipe.optimizer.learning_rate == 0.001
    assert parse_recipe(recipe.name, recipe.to_document()) == recipe


@pytest.mark.parametrize("change", ["schedule.steps", "schedule.steps.deep=1"])
def test_changes_that_are_none(change: str) -> None:
    with pytest.raises(InvalidInputError, match="expected a change such as"):
        shipped("coco_resnet50", change)


@pytest.mark.parametrize(
    ("entries", "named"),
    [
        ({"shedule": {}}, "shedule"),
        ({"schedule": {"stepz": 1}}, r"schedule\.stepz"),
        ({"schedule": {"steps": "many"}}, r"schedule\.steps"),
        ({"schedule": {"steps": 1.5}}, r"schedule\.steps"),
        ({"schedule": {"steps": True}}, r"schedule\.steps"),
        ({"schedule": {"milestones": 5}}, r"schedule\.milestones"),
        ({"schedule": {"milestones": ["a"]}}, r"schedule\.milestones"),
        ({"schedule": 5}, "schedule"),
        ({"schedule": {"steps": 0}}, "steps"),
        ({"schedule": {"decay": "linear"}}, r"schedule\.decay"),
        ({"optimizer": {"learning_rate": "fast"}}, r"optimizer\.learning_rate"),
        ({"optimizer": {"learning_rate": 0}}, r"optimizer\.learning_rate"),
        ({"optimizer": {"name": "lion"}}, r"optimizer\.name"),
        ({"optimizer": {"average_decay": 1.0}}, r"optimizer\.average_decay"),
        ({"data": {"dataset": 3}}, r"data\.dataset"),
        ({"losses": {"mask": -1}}, "mask"),
        ({"supervision": "points"}, "supervision"),
        ({"box_core": 0}, "box_core"),
        ({"box_core": 1.2}, "box_core"),
        ({"supervision": "box"}, r"losses\.mask"),
        ({"network": {"levelness": False}}, r"losses\.mask"),
        ({"network": {"backbone": "vgg"}}, "backbone"),
        ({"network": {"depth": 3}}, "depth"),
        ({"level_ranges_px": [64, 128, 128, 512]}, "level_ranges_px"),
        ({"level_ranges_px": [64, 128, 256]}, "level_ranges_px"),
        ({"augmentation": {"crop_size": [9, 9], "output_size": [9, 9]}}, "crop_size"),
        ({"postprocess": {"nonsense": 1}}, "nonsense"),
        ({"network": 5}, "network"),
    ],
)
def test_wrong_entries_are_named(entries: dict, named: str) -> None:
    with pytest.raises(InvalidInputError, match=named):
        parse_recipe("mine", {"network": NETWORK, **entries})


@pytest.mark.parametrize("document", [None, [], "text", {}])
def test_documents_that_are_no_recipe(document: object) -> None:
    with pytest.raises(InvalidInputError, match="network"):
        parse_recipe("mine", document)


def test_files_that_are_no_recipe(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="no_such_recipe"):
        read_recipe("no_such_recipe")
    path = tmp_path / "broken.yaml"
    path.write_text("network: {")
    with pytest.raises(InvalidInputError, match=r"broken\.yaml"):
        read_recipe(str(path))


def test_batches_of_another_size_scale_linearly() -> None:
    recipe = shipped("cityscapes_resnet50", "schedule.warmup_steps=500")
    same, _ = scaled_to(recipe, 8)
    assert same == recipe
    quarter, note = scaled_to(recipe, 2)
    assert quarter.optimizer.learning_rate == pytest.approx(0.00325)
    assert quarter.schedule.batch == 2
    assert (quarter.schedule.steps, quarter.schedule.warmup_steps) == (192000, 2000)
    assert quarter.schedule.milestones == (144000, 176000)
    assert "0.00325" in note
    assert "192000" in note
    double, _ = scaled_to(recipe, 16)
    assert double.optimizer.learning_rate == pytest.approx(0.026)
    assert (double.schedule.steps, double.schedule.milestones) == (24000, (18000, 22000))


def test_learning_rate_at_milestones() -> None:
    schedule = shipped("cityscapes_resnet50").schedule
    want = {0: 1, 35999: 1, 36000: 0.1, 43999: 0.1, 44000: 0.01, 47999: 0.01}
    assert {step: learning_rate_factor(schedule, step) for step in want} == pytest.approx(want)


def test_learning_rate_warms_up_and_follows_the_cosine() -> None:
    schedule = ScheduleRecipe(steps=1000, warmup_steps=4, decay="cosine")
    assert learning_rate_factor(schedule, 0) == pytest.approx(0.2)
    assert learning_rate_factor(schedule, 500) == pytest.approx(0.505)
    assert learning_rate_factor(schedule, 1000) == pytest.approx(0.01)
    stepped = ScheduleRecipe(warmup_steps=4, milestones=(2,))
    assert [learning_rate_factor(stepped, step) for step in range(5)] == pytest.approx([0.2, 0.4, 0.06, 0.08, 0.1])
