# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""COCO's layout, its segments, and the real sample."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
from coco_cases import read_coco_panoptic
from conftest import DATA

from rt_panoptic_ros.datasets.coco import CocoPanoptic
from rt_panoptic_ros.datasets.coco_panoptic import CocoPanopticWriter, encode_ids
from rt_panoptic_ros.datasets.opening import open_dataset
from rt_panoptic_ros.errors import InvalidInputError
from rt_panoptic_ros.evaluation.report import true_result
from rt_panoptic_ros.model.class_table import load_class_table
from rt_panoptic_ros.records import VOID

if TYPE_CHECKING:
    from pathlib import Path

COCO = load_class_table("coco")
SAMPLE = DATA / "coco_panoptic_sample"
MORE = DATA / "coco_panoptic_200"
PERSON, STOP_SIGN, GRASS = 0, 11, 125  # class ids
SPLIT = "val2017"


def segment(segment_id: int, class_id: int, iscrowd: int = 0) -> dict[str, Any]:
    category_id = COCO.classes[class_id].dataset_id
    return {"id": segment_id, "category_id": category_id, "area": 1, "bbox": [0, 0, 1, 1], "iscrowd": iscrowd}


def write_json(root: Path, segments: dict[int, list[dict[str, Any]]]) -> None:
    document = {
        "images": [{"id": key, "file_name": f"{key:012d}.jpg", "height": 20, "width": 30} for key in segments],
        "annotations": [
            {"image_id": key, "file_name": f"{key:012d}.png", "segments_info": rows} for key, rows in segments.items()
        ],
        "categories": [
            {"id": entry.dataset_id, "name": entry.name, "isthing": int(entry.thing), "color": list(entry.color)}
            for entry in COCO.classes
        ],
    }
    (root / "annotations" / f"panoptic_{SPLIT}.json").write_text(json.dumps(document))


def image_path(root: Path, image_id: int) -> Path:
    return root / SPLIT / f"{image_id:012d}.jpg"


def label_path(root: Path, image_id: int) -> Path:
    return root / "annotations" / f"panoptic_{SPLIT}" / f"{image_id:012d}.png"


def write_ids(root: Path, image_id: int, ids: np.ndarray) -> None:
    cv2.imwrite(str(label_path(root, image_id)), encode_ids(ids)[..., ::-1])


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Two images of 20 x 30; the first one's segments are listed out of order, one of them has no pixel."""
    image_path(tmp_path, 1).parent.mkdir()
    label_path(tmp_path, 1).parent.mkdir(parents=True)
    image = np.zeros((20, 30, 3), np.uint8)
    image[:] = 200, 100, 50
    cv2.imwrite(str(image_path(tmp_path, 142238)), image[..., ::-1])
    cv2.imwrite(str(image_path(tmp_path, 139)), image[..., 0])  # greyscale, as some of COCO's are
    ids = np.zeros((20, 30), np.int32)
    ids[5:] = 3226956
    ids[8:10, 2:6] = 7  # person
    ids[8:10, 6:9] = 65536 + 5  # person beside it
    ids[12:14, 20:25] = 256 * 9  # crowd of persons
    ids[15:18, 0:4] = 2**24 - 1  # stop sign
    write_ids(tmp_path, 142238, ids)
    write_ids(tmp_path, 139, ids * 0)
    rows = [
        segment(2**24 - 1, STOP_SIGN), segment(3226956, GRASS), segment(256 * 9, PERSON, iscrowd=1),
        segment(8, PERSON), segment(7, PERSON), segment(65536 + 5, PERSON),
    ]  # fmt: skip
    write_json(tmp_path, {142238: rows, 139: []})
    return tmp_path


class TestReading:
    def test_a_sample_has_every_field(self, tree: Path) -> None:
        dataset = open_dataset("coco", tree, SPLIT)
        assert isinstance(dataset, CocoPanoptic)
        assert (len(dataset), dataset.classes.name) == (2, "coco")
        sample = dataset[0]
        assert (sample.stem, sample.image_id) == ("000000142238", 142238)
        assert (sample.image.dtype, sample.semantic.dtype, sample.instance.dtype) == (np.uint8, np.uint8, np.int32)
        assert sample.image.shape == (20, 30, 3)
        assert np.abs(sample.image[0, 0].astype(int) - (200, 100, 50)).max() <= 3
        np.testing.assert_array_equal(sample.instance_classes, [PERSON, PERSON, PERSON, STOP_SIGN])
        np.testing.assert_array_equal(sample.instance_crowd, [False, True, False, False])
        assert (sample.instance_classes.dtype, sample.instance_crowd.dtype) == (np.uint8, bool)

    def test_each_pixel_gets_its_class_and_object(self, tree: Path) -> None:
        sample = CocoPanoptic(tree, SPLIT)[0]
        semantic, instance = np.full((20, 30), VOID), np.zeros((20, 30), int)
        semantic[5:] = GRASS
        for rows, columns, class_id, row in (
            (slice(8, 10), slice(2, 6), PERSON, 1),
            (slice(8, 10), slice(6, 9), PERSON, 3),
            (slice(12, 14), slice(20, 25), PERSON, 2),
            (slice(15, 18), slice(0, 4), STOP_SIGN, 4),
        ):
            semantic[rows, columns], instance[rows, columns] = class_id, row
        np.testing.assert_array_equal(sample.semantic, semantic)
        np.testing.assert_array_equal(sample.instance, instance)

    def test_a_grey_image_without_segments_is_rgb_and_void(self, tree: Path) -> None:
        sample = CocoPanoptic(tree, SPLIT)[1]
        assert sample.image_id == 139
        assert sample.image.shape == (20, 30, 3)
        assert (sample.image == sample.image[..., :1]).all()
        assert (sample.semantic == VOID).all()
        assert not sample.instance.any()
        assert (len(sample.instance_classes), len(sample.instance_crowd)) == (0, 0)

    def test_negative_indices_count_from_the_end(self, tree: Path) -> None:
        dataset = CocoPanoptic(tree, SPLIT)
        np.testing.assert_array_equal(dataset[-2].instance, dataset[0].instance)
        assert dataset[-1].image_id == 139
        with pytest.raises(IndexError):
            dataset[2]


class TestOwnCategories:
    CATEGORIES = ({"id": 7, "name": "box", "isthing": 1, "color": [1, 2, 3]}, {"id": 2, "name": "belt", "isthing": 0})

    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        """A box on a belt, as `rt-panoptic predict` writes its labels, the image in a folder `plant`."""
        ids = np.zeros((20, 30), np.int32)
        ids[5:], ids[8:10, 2:6] = 3, 256
        for path, picture in (("plant/a.bmp", ids * 0), ("panoptic/a.png", encode_ids(ids)[..., ::-1])):
            (tmp_path / path).parent.mkdir()
            cv2.imwrite(str(tmp_path / path), picture.astype(np.uint8))
        segments = [{"id": k, "category_id": c, "area": 1, "bbox": [0, 0, 1, 1]} for k, c in ((3, 2), (256, 7))]
        document = {
            "images": [{"id": "a", "file_name": "a.bmp", "height": 20, "width": 30}],
            "annotations": [{"image_id": "a", "file_name": "a.png", "segments_info": segments}],
            "categories": self.CATEGORIES,
        }
        (tmp_path / "panoptic.json").write_text(json.dumps(document))
        return tmp_path

    def test_classes_are_the_files_by_rising_id(self, root: Path) -> None:
        dataset = open_dataset("coco_panoptic", root, "plant")
        assert dataset.classes.name == root.name
        belt, box = dataset.classes.classes
        assert (belt.id, belt.name, belt.thing, belt.dataset_id) == (0, "belt", False, 2)
        assert (box.id, box.name, box.thing, box.dataset_id, box.color) == (1, "box", True, 7, (1, 2, 3))
        assert belt.color not in (box.color, (0, 0, 0))
        sample = dataset[0]
        assert (sample.stem, sample.image_id, sample.instance_classes.tolist()) == ("a", "a", [1])
        assert [np.count_nonzero(sample.semantic == value) for value in (0, 1, VOID)] == [15 * 30 - 8, 8, 150]
        assert np.count_nonzero(sample.instance) == 8

    def test_the_official_layout_comes_first(self, root: Path) -> None:
        (root / "annotations").mkdir()
        document = json.loads((root / "panoptic.json").read_text())
        document["categories"][1]["name"] = "conveyor"
        (root / "annotations" / "panoptic_plant.json").write_text(json.dumps(document))
        (root / "annotations" / "panoptic_plant").symlink_to(root / "panoptic")
        assert open_dataset("coco_panoptic", root, "plant").classes.names == ("conveyor", "box")

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            ({"categories": CATEGORIES[:1]}, r"the 1 categories of its own list in .*, got category 2 in image a: "),
            ({"images": []}, r"images that .*panoptic\.json lists, got one of image a"),
            ({"images": [{"id": "a", "file_name": "b.bmp"}]}, r"got no .*plant/b\.bmp"),
            ({"images": [{"id": "a", "file_name": "a.bmp"}] * 2}, r"one image with each id in .*, got 'a' twice"),
            ({"categories": [{"name": "a"}]}, r"panoptic\.json without or with a wrong 'id'"),
        ],
    )
    def test_a_wrong_entry_is_named(self, root: Path, change: dict[str, Any], said: str) -> None:
        document = json.loads((root / "panoptic.json").read_text())
        (root / "panoptic.json").write_text(json.dumps(document | change))
        with pytest.raises(InvalidInputError, match=f"^expected .*{said}"):
            open_dataset("coco_panoptic", root, "plant")

    @pytest.mark.parametrize(
        ("entry", "said"),
        [("annotations", "one annotation for each image"), ("segments", "segments with their own ids in image a")],
    )
    def test_what_is_there_twice_is_named(self, root: Path, entry: str, said: str) -> None:
        document = json.loads((root / "panoptic.json").read_text())
        rows = document["annotations"] if entry == "annotations" else document["annotations"][0]["segments_info"]
        rows.append(rows[0])
        (root / "panoptic.json").write_text(json.dumps(document))
        with pytest.raises(InvalidInputError, match=f"^expected {said}.* twice"):
            open_dataset("coco_panoptic", root, "plant")

    def test_what_predict_writes_is_read(self, root: Path, tmp_path: Path) -> None:
        dataset = open_dataset("coco_panoptic", root, "plant")
        with CocoPanopticWriter(tmp_path / "out", dataset.classes) as writer:
            writer.add("a", true_result(dataset[0]), image_file="a.bmp")
        again = open_dataset(
            "coco_panoptic", shutil.copytree(root / "plant", tmp_path / "out" / "plant").parent, "plant"
        )
        assert again.classes.classes == dataset.classes.classes
        np.testing.assert_array_equal(again[0].semantic, dataset[0].semantic)
        np.testing.assert_array_equal(again[0].instance, dataset[0].instance)


class TestErrors:
    TREE = (
        r"COCO as ROOT/\{train2017,val2017\}/ID\.jpg, ROOT/annotations/panoptic_.*\.json and ROOT/annotations/.*ID\.png"
    )

    @pytest.mark.parametrize(
        ("missing", "package"),
        [
            (SPLIT, f"{SPLIT}.zip"),
            (f"annotations/panoptic_{SPLIT}.json", "panoptic_annotations_trainval2017.zip"),
            (f"annotations/panoptic_{SPLIT}", f"panoptic_{SPLIT}.zip of panoptic_annotations_trainval2017.zip"),
        ],
    )
    def test_what_is_missing_is_named_with_its_package(self, tree: Path, missing: str, package: str) -> None:
        (tree / missing).rename(tree / "elsewhere")
        with pytest.raises(
            InvalidInputError, match=self.TREE + f", got no {tree / missing}: .*, or unpack {package} there$"
        ):
            CocoPanoptic(tree, SPLIT)

    @pytest.mark.parametrize("path_of", [image_path, label_path])
    def test_a_missing_file_is_named(self, tree: Path, path_of) -> None:
        path_of(tree, 139).unlink()
        with pytest.raises(InvalidInputError, match=self.TREE + rf", got no {path_of(tree, 139)}: unpack .*zip again$"):
            CocoPanoptic(tree, SPLIT)

    def test_a_damaged_json_file_is_named(self, tree: Path) -> None:
        (tree / "annotations" / f"panoptic_{SPLIT}.json").write_text('{"annotations": [')
        with pytest.raises(InvalidInputError, match=rf"COCO-panoptic JSON file, got .*panoptic_{SPLIT}\.json"):
            CocoPanoptic(tree, SPLIT)

    def test_an_unknown_category_is_named(self, tree: Path) -> None:
        path = tree / "annotations" / f"panoptic_{SPLIT}.json"
        document = json.loads(path.read_text())
        document["categories"].append({"id": 201, "isthing": 0})
        document["annotations"][0]["segments_info"][1]["category_id"] = 201
        path.write_text(json.dumps(document))
        with pytest.raises(
            InvalidInputError, match=rf"133 categories .*{path.name}, got category 201 in image 142238: "
        ):
            CocoPanoptic(tree, SPLIT)

    def test_an_id_that_no_segment_has_is_named(self, tree: Path) -> None:
        for unknown in (1, 9000, 2**24 - 1):
            ids = np.zeros((20, 30), np.int32)
            ids[4, 5] = unknown
            write_ids(tree, 139, ids)
            with pytest.raises(InvalidInputError, match=rf"image 139 in .*000000000139\.png, got id {unknown} too"):
                CocoPanoptic(tree, SPLIT)[1]

    @pytest.mark.parametrize("labels", [np.zeros((20, 30), np.uint8), np.zeros((20, 30, 3), np.uint16)])
    def test_another_kind_of_picture_is_named(self, tree: Path, labels: np.ndarray) -> None:
        cv2.imwrite(str(label_path(tree, 139)), labels)
        with pytest.raises(InvalidInputError, match=rf"three channels of 8 bits in .*139\.png, got {labels.dtype} of"):
            CocoPanoptic(tree, SPLIT)[1]

    def test_another_size_is_named(self, tree: Path) -> None:
        write_ids(tree, 139, np.zeros((20, 31), np.int32))
        with pytest.raises(InvalidInputError, match=r"size \(20, 30\) in .*139\.png, got \(20, 31\)"):
            CocoPanoptic(tree, SPLIT)[1]

    @pytest.mark.parametrize("path_of", [image_path, label_path])
    def test_a_truncated_file_is_named(self, tree: Path, path_of) -> None:
        path = path_of(tree, 142238)
        path.write_bytes(path.read_bytes()[:-20])
        with pytest.raises(InvalidInputError, match=path.name):
            CocoPanoptic(tree, SPLIT)[0]


@pytest.mark.skipif(not SAMPLE.is_dir(), reason=f"needs COCO's panoptic sample in {SAMPLE} (RT_PANOPTIC_DATA)")
class TestSample:
    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        """The sample in the official layout."""
        annotations = tmp_path / "annotations"
        annotations.mkdir()
        (tmp_path / SPLIT).symlink_to(SAMPLE / "input_images")
        (annotations / f"panoptic_{SPLIT}").symlink_to(SAMPLE / "panoptic_examples")
        (annotations / f"panoptic_{SPLIT}.json").symlink_to(SAMPLE / "panoptic_examples.json")
        return tmp_path

    def test_its_segments_have_the_areas_of_the_json_file(self, root: Path) -> None:
        dataset = CocoPanoptic(root, SPLIT)
        truth = read_coco_panoptic(root / "annotations" / f"panoptic_{SPLIT}.json")
        class_of = {entry.dataset_id: entry.id for entry in COCO.classes}
        count = 0
        for sample, annotation in zip(dataset, truth, strict=True):
            assert sample.image_id == annotation.image_id
            rows = enumerate(zip(sample.instance_classes.tolist(), sample.instance_crowd.tolist(), strict=True), 1)
            found = Counter((*row, int(np.count_nonzero(sample.instance == number))) for number, row in rows)
            stuff = sample.semantic[(sample.instance == 0) & (sample.semantic != VOID)]
            found.update((int(key), False, int(np.count_nonzero(stuff == key))) for key in np.unique(stuff))
            expected = Counter((class_of[s.category_id], bool(s.iscrowd), s.area) for s in annotation.segments)
            assert found == expected
            np.testing.assert_array_equal(sample.semantic == VOID, annotation.ids == 0)
            count += found.total()
        assert count == 50

    def test_a_part_of_the_images_is_refused(self, root: Path, tmp_path: Path) -> None:
        (root / SPLIT).unlink()
        (root / SPLIT).mkdir()
        shutil.copy(SAMPLE / "input_images" / "000000142238.jpg", root / SPLIT)
        with pytest.raises(InvalidInputError, match=r"000000439180\.jpg"):
            CocoPanoptic(root, SPLIT)


@pytest.mark.skipif(not MORE.is_dir(), reason=f"needs 200 images of COCO panoptic in {MORE} (RT_PANOPTIC_DATA)")
def test_own_categories_that_are_cocos_give_the_same_labels() -> None:
    coco, own = (open_dataset(name, MORE, SPLIT) for name in ("coco", "coco_panoptic"))
    assert [(entry.name, entry.thing, entry.dataset_id) for entry in own.classes.classes] == [
        (entry.name, entry.thing, entry.dataset_id) for entry in coco.classes.classes
    ]
    assert len(own) == len(coco) == 80
    for expected, sample in zip(coco, own, strict=True):
        assert (sample.stem, sample.image_id) == (expected.stem, expected.image_id)
        for labels in ("semantic", "instance", "instance_classes", "instance_crowd"):
            np.testing.assert_array_equal(getattr(sample, labels), getattr(expected, labels))
