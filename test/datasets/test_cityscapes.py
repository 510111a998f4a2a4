# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Cityscapes' layout, label ids and groups."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from rt_panoptic_ros.datasets.cityscapes import Cityscapes
from rt_panoptic_ros.datasets.opening import open_dataset
from rt_panoptic_ros.errors import InvalidInputError
from rt_panoptic_ros.records import VOID

if TYPE_CHECKING:
    from pathlib import Path

STEMS = ("aachen_000000_000019", "aachen_000001_000019", "zurich_000000_000019")
# Official label ids of the 19 evaluated classes, in the order of their train ids (cityscapesscripts/helpers/labels.py).
EVALUATED = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
ROAD, SKY, PERSON, CAR, BICYCLE = 0, 10, 11, 13, 18


def image_path(root: Path, stem: str) -> Path:
    return root / "leftImg8bit" / "val" / stem.split("_", maxsplit=1)[0] / f"{stem}_leftImg8bit.png"


def label_path(root: Path, stem: str) -> Path:
    return root / "gtFine" / "val" / stem.split("_", maxsplit=1)[0] / f"{stem}_gtFine_instanceIds.png"


def write(root: Path, stem: str, image: np.ndarray, instance_ids: np.ndarray) -> None:
    """As `cityscapesscripts` makes them: instanceIds of 16 bits, labelIds of 8 bits beside them."""
    for path in (image_path(root, stem), label_path(root, stem)):
        path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(image_path(root, stem)), image[..., ::-1])
    cv2.imwrite(str(label_path(root, stem)), instance_ids.astype(np.uint16))
    label_ids = np.where(instance_ids < 1000, instance_ids, instance_ids // 1000).astype(np.uint8)
    cv2.imwrite(str(label_path(root, stem).with_name(f"{stem}_gtFine_labelIds.png")), label_ids)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Three frames of 20 x 30 in two cities, the last one written first."""
    image = np.zeros((20, 30, 3), np.uint8)
    image[:] = 200, 100, 50
    ids = np.full((20, 30), 7)
    ids[:2] = 23
    ids[18:] = 1  # ego vehicle
    ids[4:8, 0:5] = 26001
    ids[4:8, 5:10] = 26000  # touches the other car
    ids[4:8, 20:22] = 26001  # the first car again, behind something
    ids[10:12, 0:5] = 26  # car group
    ids[10:12, 10:15] = 26  # car group, elsewhere: still one row
    ids[10:12, 20:25] = 24  # person group
    ids[14:16, 0:5] = 33017
    ids[14:16, 10:15] = 29000  # a caravan: has instances, but is not evaluated
    ids[14:16, 20:25] = 30  # trailer group
    write(tmp_path, STEMS[2], image, ids * 0)
    write(tmp_path, STEMS[1], image, np.arange(600).reshape(20, 30) % 34)
    write(tmp_path, STEMS[0], image, ids)
    return tmp_path


class TestReading:
    def test_a_sample_has_every_field(self, tree: Path) -> None:
        dataset = open_dataset("cityscapes", tree, "val")
        assert isinstance(dataset, Cityscapes)
        assert (len(dataset), dataset.classes.name) == (3, "cityscapes")
        sample = dataset[0]
        assert sample.stem == sample.image_id == "aachen_000000_000019"
        assert (sample.image.dtype, sample.semantic.dtype, sample.instance.dtype) == (np.uint8, np.uint8, np.int32)
        assert sample.image.shape == (20, 30, 3)
        np.testing.assert_array_equal(sample.image[0, 0], (200, 100, 50))
        np.testing.assert_array_equal(sample.instance_classes, [PERSON, CAR, CAR, CAR, BICYCLE])
        np.testing.assert_array_equal(sample.instance_crowd, [True, True, False, False, False])
        assert (sample.instance_classes.dtype, sample.instance_crowd.dtype) == (np.uint8, bool)

    def test_each_pixel_gets_its_class_and_object(self, tree: Path) -> None:
        sample = Cityscapes(tree, "val")[0]
        semantic, instance = np.full((20, 30), ROAD), np.zeros((20, 30), int)
        semantic[:2], semantic[18:] = SKY, VOID
        for rows, columns, class_id, row in (
            (slice(4, 8), slice(0, 5), CAR, 4),
            (slice(4, 8), slice(5, 10), CAR, 3),
            (slice(4, 8), slice(20, 22), CAR, 4),
            (slice(10, 12), slice(0, 5), CAR, 2),
            (slice(10, 12), slice(10, 15), CAR, 2),
            (slice(10, 12), slice(20, 25), PERSON, 1),
            (slice(14, 16), slice(0, 5), BICYCLE, 5),
            (slice(14, 16), slice(10, 15), VOID, 0),
            (slice(14, 16), slice(20, 25), VOID, 0),
        ):
            semantic[rows, columns], instance[rows, columns] = class_id, row
        np.testing.assert_array_equal(sample.semantic, semantic)
        np.testing.assert_array_equal(sample.instance, instance)

    def test_labels_become_train_ids_and_all_others_void(self, tree: Path) -> None:
        sample = Cityscapes(tree, "val")[1]
        train_ids = np.full(34, VOID)
        train_ids[list(EVALUATED)] = np.arange(19)
        np.testing.assert_array_equal(sample.semantic, train_ids[np.arange(600).reshape(20, 30) % 34])
        np.testing.assert_array_equal(sample.instance_classes, [11, 12, 13, 14, 15, 16, 17, 18])
        assert sample.instance_crowd.all()

    def test_an_image_without_a_class_is_void(self, tree: Path) -> None:
        sample = Cityscapes(tree, "val")[2]
        assert (sample.semantic == VOID).all()
        assert not sample.instance.any()
        assert (len(sample.instance_classes), len(sample.instance_crowd)) == (0, 0)

    def test_samples_come_by_city_sequence_and_frame(self, tree: Path) -> None:
        assert [sample.stem for sample in Cityscapes(tree, "val")] == list(STEMS)


class TestErrors:
    TREE = r"Cityscapes as ROOT/leftImg8bit/\{train,val,test\}/CITY/.* and ROOT/gtFine/\{train,val,test\}/CITY/.*"

    def test_a_missing_split_is_named_with_its_package(self, tree: Path) -> None:
        with pytest.raises(
            InvalidInputError,
            match=self.TREE + r"no folder .*leftImg8bit/train: .* leftImg8bit_trainvaltest\.zip there$",
        ):
            Cityscapes(tree, "train")

    def test_missing_labels_are_named_with_their_package(self, tree: Path) -> None:
        label_path(tree, STEMS[1]).unlink()
        with pytest.raises(
            InvalidInputError, match=self.TREE + rf"no labels .*{STEMS[1]}.*: unpack gtFine_trainvaltest\.zip again$"
        ):
            Cityscapes(tree, "val")
        shutil.rmtree(tree / "gtFine")
        with pytest.raises(
            InvalidInputError, match=self.TREE + r"no folder .*gtFine/val: .* unpack gtFine_trainvaltest\.zip there$"
        ):
            Cityscapes(tree, "val")

    def test_an_empty_split_is_named(self, tree: Path) -> None:
        shutil.rmtree(tree / "leftImg8bit" / "val")
        (tree / "leftImg8bit" / "val" / "aachen").mkdir(parents=True)
        with pytest.raises(InvalidInputError, match=self.TREE + r"no image in .*val: unpack leftImg8bit_trainvaltest"):
            Cityscapes(tree, "val")

    @pytest.mark.parametrize("value", [34, 255, 999, 1000, 23999, 34000, 65535])
    def test_a_wrong_value_is_named(self, tree: Path, value: int) -> None:
        ids = np.full((20, 30), 7, np.uint16)
        ids[3, 4] = value
        cv2.imwrite(str(label_path(tree, STEMS[0])), ids)
        with pytest.raises(
            InvalidInputError, match=rf"0 to 33, or 24000 to 33999 .*{STEMS[0]}.*png, got {value}: take"
        ):
            Cityscapes(tree, "val")[0]

    @pytest.mark.parametrize("labels", [np.zeros((20, 30), np.uint8), np.zeros((20, 30, 3), np.uint16)])
    def test_another_kind_of_picture_is_named(self, tree: Path, labels: np.ndarray) -> None:
        cv2.imwrite(str(label_path(tree, STEMS[0])), labels)
        with pytest.raises(
            InvalidInputError, match=rf"one channel of 16 bits in .*{STEMS[0]}.*, got {labels.dtype} of"
        ):
            Cityscapes(tree, "val")[0]

    def test_another_size_is_named(self, tree: Path) -> None:
        cv2.imwrite(str(label_path(tree, STEMS[0])), np.zeros((20, 31), np.uint16))
        with pytest.raises(InvalidInputError, match=rf"size \(20, 30\) in .*{STEMS[0]}.*, got \(20, 31\)"):
            Cityscapes(tree, "val")[0]

    @pytest.mark.parametrize("path_of", [image_path, label_path])
    def test_a_truncated_file_is_named(self, tree: Path, path_of) -> None:
        path = path_of(tree, STEMS[0])
        path.write_bytes(path.read_bytes()[:-20])
        with pytest.raises(InvalidInputError, match=path.name):
            Cityscapes(tree, "val")[0]
