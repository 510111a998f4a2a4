# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Detectors' input and decodings, on graphs made here and on the published ones where they are at hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import DATA
from detector_cases import INPUT, seen, write_channel_means, write_detector

from rt_panoptic_ros.datasets.opening import open_dataset
from rt_panoptic_ros.detectors.boxes import ScoredBoxes, agree, match_one_to_one
from rt_panoptic_ros.detectors.description import read_description
from rt_panoptic_ros.detectors.detector import Detector
from rt_panoptic_ros.errors import InvalidInputError


def load(path: Path, tiles: int = 1) -> Detector:
    return Detector(read_description(str(path)), path.parent, tiles)


@pytest.mark.parametrize(("order", "expected"), [("rgb", [1.0, 0.5]), ("bgr", [0.5, 1.0])])
def test_the_input_has_its_colour_order_scale_and_padding(tmp_path: Path, order: str, expected: list[float]) -> None:
    """Red fills the upper half of a padded square, the padding is green: the channels' means tell all of it."""
    image = np.full((8, 16, 3), (255, 0, 128), np.uint8)
    path = write_channel_means(
        tmp_path, "means", input={**INPUT, "fit": "pad", "color_order": order}, padding_rgb=[255, 255, 127],
        unknown_threshold=0.0, score_threshold=0.0,
    )  # fmt: skip
    found = load(path)(image)
    by_class = dict(zip(found.class_ids.tolist(), found.scores.tolist(), strict=True))
    assert [by_class[0], by_class[2]] == pytest.approx(expected, abs=0.003)
    assert by_class[1] == pytest.approx(0.5, abs=0.003)
    np.testing.assert_allclose(found.boxes, [[0, 0, 16, 8]] * 3)  # cut at the image


def test_boxes_are_brought_to_the_images_pixels(tmp_path: Path) -> None:
    rows = ((0, 4, 8, 16, 1, 0.9), (2, 2, 6, 6, 0, 0.1), (4, 4, 4.01, 9, 0, 0.9))  # the last have no score, no width
    found = load(write_detector(tmp_path, "made", seen(*rows)))(np.zeros((32, 64, 3), np.uint8))
    np.testing.assert_allclose(found.boxes, [[0, 8, 32, 32]])
    assert (found.class_ids.tolist(), found.scores.tolist()) == ([1], [np.float32(0.9)])


def test_yolox_cells_are_decoded(tmp_path: Path) -> None:
    """Strides 8 and 16 of 16x16: cells (0, 0), (1, 0), (0, 1), (1, 1), then the one of stride 16."""
    output = np.zeros((1, 5, 8), np.float32)
    output[0, 1] = 0.5, 0.25, np.log(0.5), np.log(0.75), 0.9, 0.1, 0.2, 0.8  # centre (12, 2), size (4, 6)
    output[0, 4] = 0.5, 0.5, 0, 0, 0.8, 0.9, 0.1, 0.1  # the whole image
    found = load(write_detector(tmp_path, "made", {"output": output}, decoding="yolox", strides=[8, 16]))(
        np.zeros((16, 16, 3), np.uint8)
    )
    np.testing.assert_allclose(found.boxes, [[10, 0, 14, 5], [0, 0, 16, 16]], atol=1e-5)
    assert found.class_ids.tolist() == [2, 0]
    np.testing.assert_allclose(found.scores, [0.72, 0.72], atol=1e-6)


def test_tiles_give_smaller_boxes_but_none_that_a_border_cuts(tmp_path: Path) -> None:
    """Every part of the image shows a box in its upper left corner, and one that its right border cuts."""
    detector = load(write_detector(tmp_path, "made", seen((0, 0, 4, 4, 0, 0.9), (12, 6, 16, 10, 1, 0.8))), tiles=2)
    found = detector(np.zeros((90, 180, 3), np.uint8))
    corners = {0: [], 1: []}  # type: dict[int, list[list[float]]]
    for box, number in zip(found.boxes.round().tolist(), found.class_ids.tolist(), strict=True):
        corners[number].append(box)
    assert [0, 0, 45, 22] in corners[0]  # the whole image's, over 4/16 of it
    assert [0, 0, 25, 12] in corners[0]  # the upper left tile's, 100x50
    assert sorted(box[2] for box in corners[1]) == [180, 180, 180]  # never at a border inside the image
    assert all(box[:2] == [0, 0] for box in corners[0])  # the other tiles' first boxes begin at a cut


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"decoding": "detr"}, "decoding to be one of yolox, boxes"),
        ({"score_threshold": 2}, "score_threshold to be a number from 0 to 1"),
        ({"unknown_threshold": 0.9}, "unknown_threshold to be at most score_threshold"),
        ({"input": {**INPUT, "size": None}}, r"input\.size to be \[height, width\]"),
        ({"speed": 3}, "entries named"),
        ({"model": "absent.onnx"}, r"model of detector 'made'.*absent\.onnx"),
        ({"model": "made.yaml"}, r"an ONNX model in .*made\.yaml"),
        ({"decoding": "yolox"}, "to have images, output, as decoding yolox reads"),
        ({"classes": ["person"]}, "class numbers below 1"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    path = write_detector(tmp_path, "made", seen((0, 0, 8, 8, 2, 0.9)), **changes)
    with pytest.raises(InvalidInputError, match=words):
        load(path)(np.zeros((16, 16, 3), np.uint8))


def test_other_outputs_than_the_description_says_are_refused(tmp_path: Path) -> None:
    path = write_detector(tmp_path, "made", {"output": np.zeros((1, 7, 8), np.float32)}, decoding="yolox")
    with pytest.raises(InvalidInputError, match=r"5 cells.*\(7, 8\).*made\.onnx"):
        load(path)(np.zeros((16, 16, 3), np.uint8))


def test_a_missing_description_is_answered_with_those_there_are() -> None:
    with pytest.raises(InvalidInputError, match="deimv2_femto, yolox_nano"):
        read_description("yolo")


def test_the_published_detectors_find_cocos_people() -> None:
    """What both call a person is one, by far the most times."""
    teachers, coco = DATA / "teachers", DATA / "coco_panoptic_200"
    if not (teachers.is_dir() and coco.is_dir()):
        pytest.skip(f"{teachers} or {coco} is not at hand")
    detectors = [Detector(read_description(name), teachers) for name in ("yolox_nano", "deimv2_femto")]
    dataset = open_dataset("coco", coco, "val2017")
    right = total = 0
    for sample in (dataset[index] for index in range(0, len(dataset), 2)):
        objects, _ = agree([detector(sample.image) for detector in detectors], (0.4, 0.4), 0.5)
        objects = objects[objects.class_ids == 0]
        person = dataset.classes.names.index("person")
        truth = [
            np.nonzero(sample.instance == row)
            for row, (number, crowd) in enumerate(zip(sample.instance_classes, sample.instance_crowd, strict=True), 1)
            if number == person and not crowd
        ]
        boxes = np.array([(x.min(), y.min(), x.max() + 1, y.max() + 1) for y, x in truth], np.float32).reshape(-1, 4)
        true = ScoredBoxes(boxes, np.zeros(len(boxes), np.uint8), np.ones(len(boxes), np.float32))
        rows, _ = match_one_to_one(objects, true, 0.5)
        right, total = right + len(rows), total + len(objects)
    assert total >= 10
    assert right >= 0.85 * total
