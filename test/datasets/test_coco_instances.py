# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""COCO's instances format: layouts of three tools, four kinds of labels, overlaps, and one sentence for each fault."""

from __future__ import annotations

import json
import math
import struct
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
from coco_cases import write_instances
from hypothesis import given, settings
from hypothesis import strategies as st

from rt_panoptic_ros.datasets.coco_instances import CocoInstances
from rt_panoptic_ros.datasets.coco_masks import counts_of_text
from rt_panoptic_ros.datasets.opening import open_dataset
from rt_panoptic_ros.errors import InvalidInputError, UnavailableError
from rt_panoptic_ros.records import VOID

if TYPE_CHECKING:
    from pathlib import Path

masks = pytest.importorskip("pycocotools.mask", reason="pycocotools is not installed")

PERSON, CAR = 0, 1  # class ids
HEIGHT, WIDTH = 20, 30


def rectangle(left: int, top: int, right: int, bottom: int) -> np.ndarray:
    pixels = np.zeros((HEIGHT, WIDTH), bool)
    pixels[top:bottom, left:right] = True
    return pixels


def outline(left: float, top: float, right: float, bottom: float) -> list[list[float]]:
    return [[left, top, right, top, right, bottom, left, bottom]]


def lengths(pixels: np.ndarray) -> dict[str, Any]:
    """Run lengths as numbers."""
    flat = np.concatenate([[False], pixels.ravel("F")])
    changes = np.flatnonzero(np.diff(flat))
    counts = np.diff(np.concatenate([[0], changes, [pixels.size]])).tolist()
    return {"size": list(pixels.shape), "counts": counts}


def text(pixels: np.ndarray) -> dict[str, Any]:
    encoded = masks.encode(np.asfortranarray(pixels, np.uint8))
    return {"size": encoded["size"], "counts": encoded["counts"].decode()}


def write(root: Path, *annotations: dict[str, Any], **more: Any) -> Path:
    """One image in the plain layout; the root."""
    path = root / "annotations" / "instances_train.json"
    write_instances(path, {"a.png": root / "images" / "train" / "a.png"}, annotations, **more)
    return root


class TestLayouts:
    @pytest.mark.parametrize(
        ("split", "json_name", "file_name", "image"),
        [
            ("train2017", "annotations/instances_train2017.json", "a.jpg", "train2017/a.jpg"),  # COCO
            ("default", "annotations/instances_default.json", "a.png", "images/default/a.png"),  # CVAT, one task
            ("default", "annotations/instances_default.json", "sub/a.png", "images/sub/a.png"),
            ("Train", "annotations/instances_Train.json", "a.png", "images/Train/a.png"),  # CVAT, subsets
            ("Train", "annotations/instances_Train.json", "a.png", "images/a.png"),
            ("val", "val/annotations/instances_default.json", "a.png", "val/images/default/a.png"),  # CVAT, unpacked
            ("valid", "valid/_annotations.coco.json", "a_jpg.rf.1.jpg", "valid/a_jpg.rf.1.jpg"),  # Roboflow
            ("default", "result.json", "images/a b%.png", "images/a b%.png"),  # Label Studio
            ("val", "val/result.json", "images\\a.png", "val/images/a.png"),  # on Windows
        ],
    )
    def test_each_tools_export_is_read(
        self, tmp_path: Path, split: str, json_name: str, file_name: str, image: str
    ) -> None:
        box = {"category_id": 2, "bbox": [1, 2, 3, 4]}
        write_instances(tmp_path / json_name, {file_name: tmp_path / image}, [box])
        dataset = open_dataset("coco_instances", tmp_path, split)
        assert isinstance(dataset, CocoInstances)
        assert (len(dataset), dataset.classes.name) == (1, tmp_path.name)
        sample = dataset[0]
        assert sample.stem == file_name.replace("\\", "/").rpartition(".")[0]
        assert (sample.image_id, sample.image.shape) == (1, (HEIGHT, WIDTH, 3))

    def test_what_was_looked_for_is_said(self, tmp_path: Path) -> None:
        looked_for = (
            "instances_train.json or .*train/annotations/instances_default.json or .*_annotations.coco.json or "
        )
        with pytest.raises(
            InvalidInputError, match=f"got no .*{looked_for}.*train/result.json: name its root and split"
        ):
            CocoInstances(tmp_path, "train")

    def test_roboflows_placeholder_is_no_class(self, tmp_path: Path) -> None:
        categories = [
            {"id": 0, "name": "objects", "supercategory": "none"},
            {"id": 1, "name": "cat", "supercategory": "objects"},
        ]
        box = {"category_id": 1, "bbox": [1, 2, 3, 4]}
        assert CocoInstances(write(tmp_path, box, categories=categories), "train").classes.names == ("cat",)
        used = {"category_id": 0, "bbox": [1, 2, 3, 4]}
        assert CocoInstances(write(tmp_path, used, categories=categories), "train").classes.names == ("objects", "cat")
        categories[0]["name"] = "dog"  # Label Studio counts from 0
        assert CocoInstances(write(tmp_path, box, categories=categories), "train").classes.names == ("dog", "cat")

    def test_classes_come_by_rising_id_and_get_colors(self, tmp_path: Path) -> None:
        categories = [{"id": 9, "name": "b"}, {"id": 3, "name": "a", "color": [1, 2, 3]}]
        classes = CocoInstances(write(tmp_path, categories=categories), "train").classes
        assert [(entry.name, entry.dataset_id, entry.thing) for entry in classes.classes] == [
            ("a", 3, True), ("b", 9, True),
        ]  # fmt: skip
        assert classes.classes[0].color == (1, 2, 3)
        assert classes.classes[1].color not in ((1, 2, 3), (0, 0, 0))
        categories[0]["color"] = "#0a14ff"
        assert CocoInstances(write(tmp_path, categories=categories), "train").classes.classes[1].color == (10, 20, 255)


class TestLabels:
    @pytest.mark.parametrize(
        "segmentation", [outline(4, 5, 14, 12), lengths(rectangle(4, 5, 14, 12)), text(rectangle(4, 5, 14, 12))]
    )
    def test_a_mask_is_exact(self, tmp_path: Path, segmentation: Any) -> None:
        row = {"category_id": 2, "segmentation": segmentation, "bbox": [4, 5, 10, 7]}
        sample = CocoInstances(write(tmp_path, row), "train")[0]
        pixels = rectangle(4, 5, 14, 12)
        np.testing.assert_array_equal(sample.instance, pixels.astype(np.int32))
        np.testing.assert_array_equal(sample.semantic, np.where(pixels, CAR, VOID))
        assert (sample.semantic.dtype, sample.instance.dtype) == (np.uint8, np.int32)
        assert (sample.instance_classes.tolist(), sample.instance_crowd.tolist()) == ([CAR], [False])
        assert not sample.by_box.any()
        assert not sample.complete

    def test_several_polygons_are_one_object(self, tmp_path: Path) -> None:
        row = {"category_id": 1, "segmentation": outline(0, 0, 5, 5) + outline(20, 10, 30, 20)}
        sample = CocoInstances(write(tmp_path, row), "train")[0]
        np.testing.assert_array_equal(sample.instance == 1, rectangle(0, 0, 5, 5) | rectangle(20, 10, 30, 20))

    def test_a_box_alone_has_no_pixel(self, tmp_path: Path) -> None:
        rows = [
            {"category_id": 1, "bbox": [1.5, 2, 10, 8], "segmentation": []},
            {"category_id": 2, "segmentation": outline(0, 0, 5, 5)},
            {"category_id": 2, "bbox": [20, 10, 11, 11], "iscrowd": 1},  # a pixel too far
        ]
        sample = open_dataset("coco_instances", write(tmp_path, *rows), "train", complete=True)[0]
        assert sample.instance_classes.tolist() == [CAR, PERSON, CAR]
        assert sample.instance_crowd.tolist() == [False, False, True]
        assert (sample.instance_classes.dtype, sample.instance_crowd.dtype) == (np.uint8, bool)
        np.testing.assert_array_equal(sample.boxes, [[np.nan] * 4, [1.5, 2, 11.5, 10], [20, 10, 30, 20]])
        assert sample.boxes.dtype == np.float32
        np.testing.assert_array_equal(sample.instance, rectangle(0, 0, 5, 5).astype(int))
        np.testing.assert_array_equal(sample.semantic == VOID, sample.instance == 0)
        assert sample.complete

    def test_an_image_without_labels_is_void(self, tmp_path: Path) -> None:
        sample = CocoInstances(write(tmp_path), "train")[0]
        assert (sample.semantic == VOID).all()
        assert not sample.instance.any()
        assert len(sample.instance_classes) == len(sample.instance_crowd) == 0

    def test_stuff_lies_below_crowds_and_these_below_objects(self, tmp_path: Path) -> None:
        categories = [{"id": 1, "name": "person"}, {"id": 2, "name": "floor", "isthing": 0}]
        rows = [
            {"category_id": 1, "segmentation": outline(0, 0, 20, 20)},
            {"category_id": 1, "segmentation": lengths(rectangle(2, 2, 8, 8)), "iscrowd": 1},  # hidden
            {"category_id": 1, "segmentation": lengths(rectangle(10, 0, 25, 15)), "iscrowd": 1},
            {"category_id": 2, "segmentation": outline(0, 0, 28, 2)},
        ]
        sample = CocoInstances(write(tmp_path, *rows, categories=categories), "train")[0]
        first, crowd = rectangle(0, 0, 20, 20), rectangle(20, 0, 25, 15)
        np.testing.assert_array_equal(sample.instance, np.where(first, 1, np.where(crowd, 2, 0)))
        assert sample.instance_crowd.tolist() == [False, True]
        np.testing.assert_array_equal(sample.semantic == 1, rectangle(25, 0, 28, 2))

    def test_a_mask_that_cvat_calls_a_crowd_is_an_object(self, tmp_path: Path) -> None:
        brushed = {"category_id": 1, "segmentation": lengths(rectangle(0, 0, 9, 9)), "iscrowd": 1, "attributes": {}}
        crowd = {"category_id": 1, "segmentation": lengths(rectangle(9, 9, 19, 19)), "iscrowd": 1}
        sample = CocoInstances(write(tmp_path, brushed, crowd), "train")[0]
        assert sample.instance_crowd.tolist() == [False, True]

    @settings(max_examples=20, deadline=None)
    @given(
        st.lists(st.tuples(*(st.integers(0, size - 1) for size in (WIDTH, HEIGHT, WIDTH, HEIGHT))), max_size=6),
    )
    def test_a_pixel_is_the_smallest_masks(self, tmp_path_factory, corners: list[tuple[int, int, int, int]]) -> None:
        shapes = [rectangle(min(a, c), min(b, d), max(a, c) + 1, max(b, d) + 1) for a, b, c, d in corners]
        rows = [{"category_id": 1 + k % 2, "segmentation": text(shape)} for k, shape in enumerate(shapes)]
        sample = CocoInstances(write(tmp_path_factory.mktemp("root"), *rows), "train")[0]
        areas = np.array([HEIGHT * WIDTH + 1, *(shape.sum() for shape in shapes)])
        holding = np.array([np.ones((HEIGHT, WIDTH), bool), *shapes])
        cost = np.where(holding, areas[:, None, None], np.inf)[::-1]  # of equal ones the last
        owner = len(shapes) - cost.argmin(axis=0)
        visible = [row for row in range(1, len(shapes) + 1) if (owner == row).any()]
        number = np.zeros(len(shapes) + 1, int)
        number[visible] = np.arange(1, len(visible) + 1)
        np.testing.assert_array_equal(sample.instance, number[owner])
        assert sample.instance_classes.tolist() == [(row - 1) % 2 for row in visible]

    @settings(max_examples=50, deadline=None)
    @given(st.integers(0, 2**32 - 1), st.floats(0, 1))
    def test_run_lengths_are_read_from_text(self, seed: int, share: float) -> None:
        rng = np.random.default_rng(seed)
        pixels = np.kron(rng.random((7, 5)) < share, np.ones(rng.integers(1, 40, 2), bool)).astype(bool)
        assert counts_of_text(text(pixels)["counts"]) == lengths(pixels)["counts"]

    def test_pictures_are_read_upright(self, tmp_path: Path) -> None:
        """As a labelling tool's browser shows them."""
        write(tmp_path, {"category_id": 1, "bbox": [1, 12, 5, 17]}, size=(WIDTH, HEIGHT))
        path = tmp_path / "images" / "train" / "a.png"
        jpeg = cv2.imencode(".jpg", np.zeros((HEIGHT, WIDTH, 3), np.uint8))[1].tobytes()
        turned = b"Exif\0\0MM\0*" + struct.pack(">IHHHIHHI", 8, 1, 0x0112, 3, 1, 6, 0, 0)
        path.write_bytes(jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(turned) + 2) + turned + jpeg[2:])
        assert CocoInstances(tmp_path, "train")[0].image.shape == (WIDTH, HEIGHT, 3)
        write(tmp_path, {"category_id": 1, "bbox": [1, 2, 5, 7]})
        path.write_bytes(jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(turned) + 2) + turned + jpeg[2:])
        with pytest.raises(InvalidInputError, match=r"30 x 20 px .* in .*a\.png, got 20 x 30 upright, as its EXIF"):
            CocoInstances(tmp_path, "train")[0]


BOX = {"category_id": 1, "bbox": [1, 2, 3, 4]}
PLACE = r"annotation 1 of image 'a\.png' in .*instances_train\.json"


class TestErrors:
    @pytest.mark.parametrize(
        ("row", "said"),
        [
            (BOX | {"category_id": 7}, rf"one of the 2 categories that the file lists in {PLACE}, got category 7"),
            (BOX | {"image_id": 5}, r"images that .*instances_train\.json lists, got annotation 1 of image 5"),
            (BOX | {"bbox": [1, 2, 0, 4]}, rf"a box with an area .* in {PLACE}, got .*\[1, 2, 0, 4\]"),
            (BOX | {"bbox": [1, 2, 3, -4]}, "a box with an area"),
            (BOX | {"bbox": [1, 2, 3, math.nan]}, "a box with an area"),
            (BOX | {"bbox": [1, 2, 32, 4]}, rf"30 x 20 px \(width x height\) in {PLACE}, got .*\[1, 2, 32, 4\]"),
            (BOX | {"bbox": [-3, 2, 9, 4]}, "a box with an area and within"),
            (BOX | {"bbox": [30, 2, 1, 4]}, "a box with an area and within"),
            (BOX | {"bbox": [1, 2, 3]}, rf"JSON file, got {PLACE} without or with a wrong not enough values"),
            ({"category_id": 1}, rf"a segmentation or a bbox in {PLACE}, got neither"),
            (BOX | {"segmentation": [[1, 2, 3, 4]]}, rf"three corners or more in {PLACE}, got 4 numbers"),
            (BOX | {"segmentation": [[1, 2, 3, 4, 5, 6, 7]]}, "three corners or more .* got 7 numbers"),
            (BOX | {"segmentation": outline(1, 1, 33, 9)}, rf"corners within .* in {PLACE}, got \[\[33\.0, 1\.0\]\]"),
            (BOX | {"segmentation": outline(1, 1, math.nan, 9)}, "corners within"),
            (BOX | {"segmentation": {"size": [20, 30], "counts": [5, 5]}}, rf"20 x 30 px in {PLACE}, got .* sum of 10"),
            (BOX | {"segmentation": {"size": [20, 30], "counts": [605, -5]}}, "run lengths from 0"),
            (BOX | {"segmentation": {"size": [30, 20], "counts": [600]}}, r"got size \[30, 20\] and a sum of 600"),
            (BOX | {"segmentation": {"size": [20, 30], "counts": "~~"}}, rf"JSON file, got {PLACE} .* character '~'"),
            (BOX | {"segmentation": {"size": [20, 30], "counts": "`"}}, "wrong end of run lengths"),
            (BOX | {"segmentation": {"size": [20, 30]}}, rf"{PLACE} without or with a wrong 'counts'"),
        ],
    )
    def test_a_wrong_annotation_is_named(self, tmp_path: Path, row: dict[str, Any], said: str) -> None:
        with pytest.raises(InvalidInputError, match=f"^expected .*{said}") as caught:
            CocoInstances(write(tmp_path, row), "train")
        assert "\n" not in str(caught.value)

    def test_stuff_needs_a_mask(self, tmp_path: Path) -> None:
        root = write(tmp_path, BOX, categories=[{"id": 1, "name": "floor", "isthing": 0}])
        with pytest.raises(InvalidInputError, match=f"a mask of 'floor', which is stuff, in {PLACE}, got a box alone"):
            CocoInstances(root, "train")

    @pytest.mark.parametrize(
        ("entry", "rows", "said"),
        [
            ("annotations", [{"id": 3, "image_id": 1, **BOX}] * 2, "one annotation with each id in .*, got 3 twice"),
            ("images", [{"id": 1, "file_name": "a.png", "height": 20, "width": 30}] * 2, "one image with each id"),
            ("images", [], "images in .*, got none"),
            ("images", [{"id": 1, "file_name": "a.png", "height": 0, "width": 30}], "a height and a width of image"),
            ("images", [{"id": 1, "height": 2, "width": 30}], "without or with a wrong 'file_name'"),
            (
                "images",
                [{"id": 1, "file_name": "b.png", "height": 20, "width": 30}],
                r"got no .*b\.png: put them there",
            ),
            ("categories", [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}], "one category with each id"),
            ("categories", [{"id": 1, "name": "a"}, {"id": 2, "name": "a"}], "one category with each name"),
            ("categories", [], "1 to 255 categories in .*, got 0"),
            ("categories", [{"id": k, "name": str(k)} for k in range(1, 300)], "1 to 255 categories in .*, got 299"),
            ("categories", [{"id": 1, "name": "a", "color": [0, 0, 256]}], r"wrong color, in the categories of .*json"),
            ("categories", [{"id": 1, "name": "a", "color": "red"}], "COCO-instances JSON file, got .* wrong non-hex"),
            ("categories", None, "COCO-instances JSON file, got .*without or with a wrong"),
        ],
    )
    def test_a_wrong_list_is_named(self, tmp_path: Path, entry: str, rows: Any, said: str) -> None:
        path = write(tmp_path, *([BOX] if entry == "categories" else [])) / "annotations" / "instances_train.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {entry: rows}))
        with pytest.raises(InvalidInputError, match=f"^expected .*{said}"):
            CocoInstances(tmp_path, "train")

    def test_a_file_that_is_no_json_is_named(self, tmp_path: Path) -> None:
        path = write(tmp_path) / "annotations" / "instances_train.json"
        for content in ("{", "[]", '"a"', "{}"):
            path.write_text(content)
            with pytest.raises(InvalidInputError, match=r"COCO-instances JSON file, got .*instances_train\.json"):
                CocoInstances(tmp_path, "train")

    def test_another_size_is_named(self, tmp_path: Path) -> None:
        dataset = CocoInstances(write(tmp_path, BOX), "train")
        cv2.imwrite(str(tmp_path / "images" / "train" / "a.png"), np.zeros((20, 31, 3), np.uint8))
        with pytest.raises(InvalidInputError, match=r"30 x 20 px \(width x height\), as .* in .*a\.png, got 31 x 20: "):
            dataset[0]

    def test_masks_need_pycocotools(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        assert len(CocoInstances(write(tmp_path, BOX), "train")) == 1
        with pytest.raises(UnavailableError, match="pycocotools"):
            CocoInstances(write(tmp_path, BOX | {"segmentation": outline(1, 1, 9, 9)}), "train")
