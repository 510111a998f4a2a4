# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""docs/own_data.md, followed: its commands as they stand there, shortened by further options, on the data it makes."""

from __future__ import annotations

import importlib
import json
import os
import re
import shlex
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml
from conftest import ROOT

from rt_panoptic_ros.cli import main
from rt_panoptic_ros.datasets.opening import open_dataset
from rt_panoptic_ros.model.bundle import read_bundle
from rt_panoptic_ros.pipeline import open_pipeline
from rt_panoptic_ros.records import CameraImage
from rt_panoptic_ros.ros.node.node_settings import NodeSettings
from rt_panoptic_ros.settings import settings_of
from scripts.made_up_data import CLASSES, LABEL_MAP, draw_scene, make_instances, make_panoptic

torch.set_num_threads(1)

TEXT = (ROOT / "docs" / "own_data.md").read_text(encoding="utf-8")
SHORTER = {
    "scripts.made_up_data": ["--pictures", "10"],
    "train": [
        "--workers", "0", "--set", "schedule.steps=4", "--set", "schedule.epoch_images=8",
        "--set", "input.size=[96,128]", "--set", "augmentation.base_size=[96,128]",
        "--set", "augmentation.output_size=[64,96]",
    ],
    "eval": [], "predict": [], "calibrate": [],
}  # fmt: skip


def blocks() -> list[str]:
    """Return the indented lines of the page, those that go on joined."""
    return [line.strip() for line in TEXT.replace("\\\n", " ").splitlines() if line.startswith("    ")]


def commands() -> list[list[str]]:
    """Return the commands of the page as words, $PWD filled in."""
    starts = ("rt-panoptic ", "python -m ", "ros2 ")
    return [shlex.split(os.path.expandvars(line)) for line in blocks() if line.startswith(starts)]


@pytest.mark.slow
def test_the_page_is_followed_word_for_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PWD", str(tmp_path))
    done = []
    for words in commands():
        done.append(words[1])
        if words[0] == "python":
            monkeypatch.setattr(sys, "argv", [words[2], *words[3:], *SHORTER[words[2]]])
            importlib.import_module(words[2]).main()
        elif words[0] == "rt-panoptic" and words[1] != "demo":
            assert main([*words[1:], *SHORTER[words[1]]]) == 0, words
    assert done == ["-m", "train", "eval", "predict", "calibrate", "eval", "launch", "demo"]
    bundle = read_bundle("runs/shapes/model")
    assert bundle.classes.names == tuple(CLASSES)
    assert bundle.about["from_model"]["name"] == "street_lite0"
    assert bundle.about["recipe"]["data"]["val_split"] == "default[80%:]"
    measured = bundle.about["measured"]
    assert [(name.rpartition(", ")[2], figures["images"]) for name, figures in measured.items()] == [
        ("float32", 2), ("int8", 2),
    ]  # fmt: skip
    assert bundle.loss("int8") is not None  # so that the node knows whether to take it
    for name in ("runs/shapes/pictures/end.jpg", "out/shapes/contact_sheet.jpg", "out/predicted/overlay/009.jpg"):
        assert cv2.imread(name) is not None, name
    metrics = [json.loads(Path(f"out/{name}/metrics.json").read_text()) for name in ("shapes", "shapes_int8")]
    assert [document["images"] for document in metrics] == [2, 2]
    launched = dict(word.split(":=") for word in next(words for words in commands() if words[1] == "launch")[4:])
    assert launched.keys() - {"image_topic"} <= {one.name for one in settings_of(NodeSettings)}
    pipeline = open_pipeline(model=launched["model"])
    picture = cv2.cvtColor(cv2.imread("shapes/images/default/000.jpg"), cv2.COLOR_BGR2RGB)
    assert pipeline(CameraImage(picture, "rgb")).semantic.shape == picture.shape[:2]


def test_the_label_map_of_the_page_is_the_one_that_is_made() -> None:
    lines = "\n".join(TEXT.split("## 3.")[1].split("## 4.")[0].splitlines())
    shown = yaml.safe_load("\n".join(line[4:] for line in lines.splitlines() if line.startswith("    ")))
    assert shown == yaml.safe_load(LABEL_MAP)


def test_all_settings_of_the_page_exist() -> None:
    from rt_panoptic_ros.training.recipe import read_recipe

    lines = [re.findall(r"--set (\"[^\"]+\"|[^\s`]+)", line) for line in TEXT.splitlines()]
    assert sum(map(len, lines)) > 6
    for changes in lines:
        read_recipe("finetune_lite0", [change.strip('"') for change in changes])


def test_both_formats_hold_the_same_scenes(tmp_path: Path) -> None:
    make_instances(tmp_path / "instances", 3)
    make_panoptic(tmp_path / "panoptic", 3)
    label_map = str(tmp_path / "instances" / "shapes.yaml")
    polygons = open_dataset("coco_instances", tmp_path / "instances", "default", label_map=label_map)
    segments = open_dataset("coco_panoptic", tmp_path / "panoptic", "default")
    assert [(entry.name, entry.thing) for entry in polygons.classes.classes] == list(CLASSES.items())
    assert [(entry.name, entry.thing) for entry in segments.classes.classes] == list(CLASSES.items())
    for index in range(3):
        first, second, scene = polygons[index], segments[index], draw_scene(np.random.default_rng(index))
        assert np.array_equal(first.image, second.image)
        assert np.mean(np.abs(first.image.astype(float) - scene.picture)) < 8  # JPEG
        things = [name for name, _ in scene.shapes if CLASSES[name]]
        assert [segments.classes.names[number] for number in second.instance_classes] == things
        assert sorted(first.instance_classes) == sorted(second.instance_classes)
        assert np.mean(first.semantic == second.semantic) > 0.98  # a polygon ends within its pixels
