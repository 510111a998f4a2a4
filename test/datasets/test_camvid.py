# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""CamVid's layout, and connected regions as objects."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import DATA
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from rt_panoptic_ros.datasets.camvid import MIN_AREA, CamVid, connected_instances
from rt_panoptic_ros.datasets.opening import open_dataset
from rt_panoptic_ros.errors import InvalidInputError
from rt_panoptic_ros.records import VOID

SKY, ROAD, CAR, PEDESTRIAN, BICYCLIST = 0, 3, 8, 9, 10
THINGS = (CAR, PEDESTRIAN, BICYCLIST)
ROOT = DATA / "camvid"


def write(root: Path, split: str, name: str, image: np.ndarray, labels: np.ndarray) -> None:
    for folder in ("images", "labels"):
        (root / split / folder).mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(root / split / "images" / name), image[..., ::-1])
    cv2.imwrite(str(root / split / "labels" / f"{Path(name).stem}.png"), labels)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Two frames of 40 x 60 in train, the later one written first."""
    image = np.zeros((40, 60, 3), np.uint8)
    image[:] = 200, 100, 50
    labels = np.full((40, 60), ROAD, np.uint8)
    labels[:5] = 11
    labels[10:20, 5:15] = CAR  # MIN_AREA exactly
    labels[10:20, 20:29] = CAR  # too small
    labels[20:40, 40:60] = PEDESTRIAN
    labels[10:20, 30:40] = CAR  # touches the pedestrian at a corner
    write(tmp_path, "train", "0016E5_00002.png", image, labels)
    write(tmp_path, "train", "0001TP_006690.jpg", image[:8, :9], labels[10:18, :9] * 0)
    return tmp_path


class TestReading:
    def test_a_sample_has_every_field(self, tree: Path) -> None:
        dataset = CamVid(tree, "train")
        assert len(dataset) == 2
        assert dataset.classes.name == "camvid"
        assert "pseudo-instance" in dataset.instance_note
        sample = dataset[1]
        assert sample.stem == sample.image_id == "0016E5_00002"
        assert (sample.image.dtype, sample.semantic.dtype, sample.instance.dtype) == (np.uint8, np.uint8, np.int32)
        assert sample.image.shape == (40, 60, 3)
        assert set(sample.image.reshape(-1, 3).T.ravel()) == {200, 100, 50}
        np.testing.assert_array_equal(sample.image[0, 0], (200, 100, 50))
        assert sorted(np.unique(sample.semantic)) == [ROAD, CAR, PEDESTRIAN, VOID]
        assert (sample.semantic[:5] == VOID).all()
        np.testing.assert_array_equal(sample.instance_classes, [CAR, CAR, PEDESTRIAN])
        assert sample.instance_classes.dtype == np.uint8
        np.testing.assert_array_equal(sample.instance_crowd, [False] * 3)
        assert sample.instance_crowd.dtype == bool
        assert (sample.instance[10:20, 5:15] == 1).all()
        assert (sample.instance[10:20, 30:40] == 2).all()
        assert (sample.instance[20:40, 40:60] == 3).all()
        assert np.count_nonzero(sample.instance) == 2 * MIN_AREA + 400

    def test_small_regions_keep_their_class_without_being_an_object(self, tree: Path) -> None:
        sample = CamVid(tree, "train")[1]
        assert (sample.semantic[10:20, 20:29] == CAR).all()
        assert not sample.instance[10:20, 20:29].any()

    def test_samples_come_in_the_order_of_their_names(self, tree: Path) -> None:
        assert [sample.stem for sample in CamVid(tree, "train")] == ["0001TP_006690", "0016E5_00002"]

    def test_an_image_without_objects_has_empty_tables(self, tree: Path) -> None:
        sample = CamVid(tree, "train")[0]
        assert sample.image.shape == (8, 9, 3)
        assert not sample.instance.any()
        assert (len(sample.instance_classes), len(sample.instance_crowd)) == (0, 0)

    def test_an_index_beyond_the_end_is_an_index_error(self, tree: Path) -> None:
        with pytest.raises(IndexError):
            CamVid(tree, "train")[2]


class TestErrors:
    TREE = r"CamVid as ROOT/\{train,val,test\}/\{images,labels\}/NAME\.\{jpg,png\}"

    def test_a_missing_split_is_named(self, tree: Path) -> None:
        with pytest.raises(InvalidInputError, match=self.TREE + r", got no folder .*val/images: name its root"):
            CamVid(tree, "val")

    def test_missing_labels_are_named(self, tree: Path) -> None:
        (tree / "train" / "labels" / "0016E5_00002.png").unlink()
        with pytest.raises(InvalidInputError, match=self.TREE + r".*no labels .*0016E5_00002\.png for 0016E5_00002"):
            CamVid(tree, "train")

    def test_an_empty_folder_is_named(self, tree: Path) -> None:
        for path in (tree / "train" / "images").iterdir():
            path.unlink()
        with pytest.raises(InvalidInputError, match=self.TREE + r", got no image in .*train/images"):
            CamVid(tree, "train")

    @pytest.mark.parametrize(
        ("labels", "message"),
        [
            (np.full((8, 9), 12, np.uint8), r"0 to 11 \(11 void\) in .*0001TP_006690\.png, got 12"),
            (np.zeros((8, 9, 3), np.uint8), r"in .*0001TP_006690\.png, got a colour picture"),
            (np.zeros((9, 8), np.uint8), r"image's size \(8, 9\) in .*0001TP_006690\.png, got \(9, 8\)"),
        ],
    )
    def test_wrong_labels_are_named(self, tree: Path, labels: np.ndarray, message: str) -> None:
        cv2.imwrite(str(tree / "train" / "labels" / "0001TP_006690.png"), labels)
        with pytest.raises(InvalidInputError, match=message):
            CamVid(tree, "train")[0]

    @pytest.mark.parametrize("file", ["images/0016E5_00002.png", "images/0001TP_006690.jpg", "labels/0016E5_00002.png"])
    def test_a_truncated_file_is_named(self, tree: Path, file: str) -> None:
        path = tree / "train" / file
        path.write_bytes(path.read_bytes()[:-20])
        with pytest.raises(InvalidInputError, match=f"{path.name}"):
            CamVid(tree, "train")[int("0016E5" in file)]


def regions(mask: np.ndarray) -> set[frozenset[tuple[int, int]]]:
    """The 8-connected regions of a mask, by walking from pixel to pixel."""
    left = set(map(tuple, np.argwhere(mask).tolist()))
    found = set()
    while left:
        region, todo = set(), [left.pop()]
        while todo:
            row, column = todo.pop()
            region.add((row, column))
            around = {(row + y, column + x) for y in (-1, 0, 1) for x in (-1, 0, 1)} & left
            left -= around
            todo.extend(around)
        found.add(frozenset(region))
    return found


class TestConnectedInstances:
    @given(
        semantic=arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.sampled_from(
            [ROAD, CAR, PEDESTRIAN, VOID]
        )),
        min_area=st.integers(1, 8),
    )  # fmt: skip
    def test_objects_are_the_large_regions_of_each_class(self, semantic: np.ndarray, min_area: int) -> None:
        instance, classes = connected_instances(semantic, THINGS, min_area)
        assert (instance.dtype, classes.dtype) == (np.int32, np.uint8)
        assert sorted(set(np.unique(instance)) | {0}) == list(range(len(classes) + 1))
        for thing in THINGS:
            expected = {region for region in regions(semantic == thing) if len(region) >= min_area}
            rows = np.flatnonzero(classes == thing) + 1
            numbered = [frozenset(map(tuple, np.argwhere(instance == row).tolist())) for row in rows]
            assert set(numbered) == expected
            assert len(numbered) == len(expected)


@pytest.mark.skipif(not ROOT.is_dir(), reason=f"needs CamVid in {ROOT} (RT_PANOPTIC_DATA)")
class TestRealData:
    @pytest.mark.parametrize(("split", "count"), [("train", 367), ("val", 101)])
    def test_splits_are_whole(self, split: str, count: int) -> None:
        dataset = open_dataset("camvid", ROOT, split)
        assert len(dataset) == count
        sample = dataset[count - 1]
        assert sample.image.shape == (360, 480, 3)
        assert set(np.unique(sample.semantic)) <= {*range(11), VOID}
        for row, class_id in enumerate(sample.instance_classes, 1):
            assert class_id in THINGS
            assert set(sample.semantic[sample.instance == row]) == {class_id}
            assert np.count_nonzero(sample.instance == row) >= MIN_AREA
