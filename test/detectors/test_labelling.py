# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""`rt-panoptic pseudo-label`: what it writes, which frames, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from detector_cases import seen, write_detector

from rt_panoptic_ros.cli import main
from rt_panoptic_ros.datasets.opening import open_dataset
from rt_panoptic_ros.frames.sources import read_image

PERSON, CAR, DOG = 1, 2, 3


@pytest.fixture
def detectors(tmp_path: Path) -> list[str]:
    """Two that agree on a person, in the left half, and not on what is to the right."""
    one = write_detector(tmp_path, "one", seen((0, 0, 8, 16, 0, 0.9), (10, 0, 16, 16, 1, 0.8)))
    other = write_detector(tmp_path, "other", seen((0, 0, 8, 15, 0, 0.7), (10, 0, 16, 4, 2, 0.8)))
    return [f"--models={tmp_path}", f"--detectors={one},{other}"]


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    """Ten pictures of 32x64 px, each 20 grey levels brighter than the one before; the fourth is as the third."""
    folder = tmp_path / "frames"
    folder.mkdir()
    for number in range(10):
        level = 20 * (number - (number == 3))
        cv2.imwrite(str(folder / f"f{number}.png"), np.full((32, 64, 3), level, np.uint8))
    return folder


def label(*words: object) -> int:
    return main(["pseudo-label", *map(str, words)])


def read(out: Path, split: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((out / "annotations" / f"instances_{split}.json").read_text(encoding="utf-8"))
    return document


def test_the_files_say_what_both_see_and_what_one_sees(tmp_path: Path, detectors: list[str], frames: Path) -> None:
    out = tmp_path / "out"
    assert label("--source", frames / "f5.png", "--out", out, *detectors) == 0
    document = read(out, "train")
    assert document["images"] == [{"id": 1, "file_name": "f5.jpg", "height": 32, "width": 64}]
    assert [(entry["id"], entry["name"]) for entry in document["categories"]] == [
        (1, "person"), (2, "car"), (3, "dog"),
    ]  # fmt: skip
    known = [entry for entry in document["annotations"] if not entry["iscrowd"]]
    assert known == [{"id": 1, "image_id": 1, "category_id": PERSON, "bbox": [0, 0, 32, 31], "area": 992,
                      "score": 0.8, "iscrowd": 0, "segmentation": []}]  # fmt: skip
    unknown = {entry["category_id"]: entry["bbox"] for entry in document["annotations"] if entry["iscrowd"]}
    assert unknown == {CAR: [40, 0, 24, 32], DOG: [40, 0, 24, 8]}
    sample = open_dataset("coco_instances", out, "train")[0]
    assert sample.boxes.tolist() == [[0, 0, 32, 31], [40, 0, 64, 32], [40, 0, 64, 8]]
    assert sample.instance_crowd.tolist() == [False, True, True]
    assert np.abs(read_image(out / "train" / "f5.jpg").astype(int) - 100).max() <= 2
    assert read_image(out / "train.jpg").shape[1] == 1920


def test_a_label_map_merges_and_drops_before_boxes_are_compared(
    tmp_path: Path, detectors: list[str], frames: Path
) -> None:
    one = write_detector(tmp_path, "one", seen((10, 0, 16, 8, 1, 0.9), (10, 0, 16, 7, 2, 0.8), (0, 0, 4, 4, 0, 0.9)))
    other = write_detector(tmp_path, "other", seen((10, 0, 16, 8, 2, 0.7)), classes=["person", "car", "truck"])
    chart = tmp_path / "vehicles.yaml"
    chart.write_text(
        "{name: vehicles, unlisted: drop, classes: {vehicle: {thing: true, color: [0, 0, 9], of: [car, dog, truck]}, "
        "ground: {thing: false, color: [9, 9, 9], of: [person]}}}",
        encoding="utf-8",
    )
    words = ["--source", frames / "f5.png", f"--models={tmp_path}", f"--detectors={one},{other}"]
    assert label(*words, "--out", tmp_path / "out", "--label-map", chart) == 0
    document = read(tmp_path / "out", "train")
    assert [(entry["id"], entry["name"]) for entry in document["categories"]] == [(0, "vehicle")]
    assert [(entry["bbox"], entry["iscrowd"]) for entry in document["annotations"]] == [([40, 0, 24, 16], 0)]
    assert label(*words, "--out", tmp_path / "other") == 1  # without the map their classes differ


def test_some_classes_alone_are_written_and_pictures_reduced(
    tmp_path: Path, detectors: list[str], frames: Path
) -> None:
    out = tmp_path / "out"
    assert label("--source", frames, "--out", out, "--max-side=16", "--classes=person,dog", *detectors) == 0
    document = read(out, "train")
    assert [entry["name"] for entry in document["categories"]] == ["person", "dog"]
    assert {(entry["category_id"], *entry["bbox"]) for entry in document["annotations"]} == {
        (PERSON, 0, 0, 8, 7.75), (DOG, 10, 0, 6, 2),
    }  # fmt: skip
    assert {(entry["width"], entry["height"]) for entry in document["images"]} == {(16, 8)}
    assert read_image(out / "train" / "f0.jpg").shape == (8, 16, 3)


@pytest.mark.parametrize(
    ("options", "train", "val"),
    [
        (["--every=3"], [0, 3, 6, 9], None),
        (["--every=3", "--first=1", "--max-frames=2"], [1, 4], None),
        (["--min-change=10"], [0, 1, 2, 4, 5, 6, 7, 8, 9], None),
        (["--min-change=30"], [0, 2, 4, 6, 8], None),
        (["--hold-out=0.3", "--every=2"], [0, 2, 4, 6], [8]),
        (["--hold-out=0.3", "--max-frames=2"], [0, 1], [7, 8]),
    ],
)
def test_the_frames_that_are_asked_for_are_taken(
    tmp_path: Path, detectors: list[str], frames: Path, options: list[str], train: list[int], val: list[int] | None
) -> None:
    out = tmp_path / "out"
    assert label("--source", frames, "--out", out, *options, *detectors) == 0
    for split, numbers in (("train", train), ("val", val)):
        if numbers is None:
            assert not (out / "annotations" / f"instances_{split}.json").exists()
            continue
        names = [f"f{number}.jpg" for number in numbers]
        assert [entry["file_name"] for entry in read(out, split)["images"]] == names
        assert sorted(path.name for path in (out / split).iterdir()) == names


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--classes=cat"], "classes among person, car, dog, got 'cat'"),
        (["--iou=0"], "an IoU above 0"),
        (["--detectors="], "at least one detector"),
        (["--source=FRAMES"], "pictures have different names, got f0 again"),
        (["--hold-out=0.5", "--held-out-split=train"], "two splits of different names, got 'train' twice"),
    ],
)
def test_what_does_not_fit_is_one_sentence(
    tmp_path: Path, detectors: list[str], frames: Path, options: list[str], words: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    options = [option.replace("FRAMES", str(frames)) for option in options]
    assert label("--source", frames / "absent.png", "--out", tmp_path / "out", *detectors) == 1  # leaves nothing behind
    assert label("--source", frames, "--out", tmp_path / "out", *detectors, *options) == 1
    assert words in capsys.readouterr().err


def test_what_came_before_a_damaged_picture_is_kept(
    tmp_path: Path, detectors: list[str], frames: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (frames / "f2.png").write_bytes(b"no picture")
    out = tmp_path / "out"
    assert label("--source", frames, "--out", out, *detectors) == 1
    assert "f2.png" in capsys.readouterr().err
    assert len(read(out, "train")["images"]) == 2
    assert label("--source", frames, "--out", out, *detectors) == 1
    assert "without the results of an earlier run" in capsys.readouterr().err
