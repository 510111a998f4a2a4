# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""What `predict` writes: a data set's split as its evaluators take it, some objects, lasting ids, one run a folder."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from conftest import ROOT

from rt_panoptic_ros.cli import main
from rt_panoptic_ros.commands.predict import predict_source
from rt_panoptic_ros.datasets.base import true_objects
from rt_panoptic_ros.datasets.opening import open_dataset
from rt_panoptic_ros.errors import InvalidInputError
from rt_panoptic_ros.frames.sources import open_source
from rt_panoptic_ros.model.bundle import ModelBundle
from rt_panoptic_ros.model.class_table import ClassTable, load_class_table
from rt_panoptic_ros.records import CameraImage, PanopticResult

CITYSCAPES, COCO, CAMVID = (load_class_table(name) for name in ("cityscapes", "coco", "camvid"))
NAMES = ("frankfurt_000000_000294", "frankfurt_000001_000019", "lindau_000000_000019")


SHOW_MANY = ["--set=score_threshold=0", "--set=pre_nms_threshold=0", "--set=mask_threshold=0.01",
             "--set=overlap_threshold=1"]  # fmt: skip


class TruthPipeline:
    """Reads its labels from the picture: red is the class, green the object."""

    def __init__(self, classes: ClassTable) -> None:
        self.classes = classes

        self.timings_ms: dict[str, float] = {}

    def __call__(self, image: CameraImage, *, images: frozenset[str], settings: None) -> PanopticResult:
        semantic, instance = image.pixels[..., 0].copy(), image.pixels[..., 1].astype(np.uint16)
        class_ids = np.array(
            [semantic[instance == number][0] for number in range(1, int(instance.max()) + 1)], np.uint8
        )
        labels = PanopticResult(semantic, instance, true_objects(instance, class_ids))
        return replace(labels, confidence=255 - semantic) if "confidence" in images else labels


def labels(stuff: int, *objects: tuple[int, int, int]) -> np.ndarray:
    """Return a picture, RGB, of one stuff class and of objects (class, left, width); 60 px wide."""
    picture = np.full((24, 60, 3), (stuff, 0, 0), np.uint8)
    for number, (class_id, left, width) in enumerate(objects, start=1):
        picture[8:16, left : left + width] = class_id, number, 0
    return picture


def write(path: Path, rgb: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(path.suffix, rgb[..., ::-1])[1].tobytes())
    return path


def run(source: Path, out: Path, classes: ClassTable = CAMVID, **options: Any) -> int:
    with open_source(str(source)) as frames:
        return predict_source(TruthPipeline(classes), frames, out, **options)


def read(path: Path) -> np.ndarray:
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert image is not None, path
    return image if image.ndim == 2 else image[..., ::-1]


@pytest.fixture
def split(tmp_path: Path) -> Path:
    """Cityscapes in its layout, with the official panoptic labels, and images that show those labels."""
    root = tmp_path / "cityscapes"
    road, car, person = 0, 13, 11
    annotations = []
    for place, name in enumerate(NAMES):
        city = name.split("_")[0]
        write(
            root / "leftImg8bit" / "val" / city / f"{name}_leftImg8bit.png",
            labels(road, (car, 2, 10 + place), (person, 40, 9)),
        )
        values = np.full((24, 60), 7, np.uint16)
        values[8:16, 2 : 12 + place], values[8:16, 40:49] = 26000, 24000
        (root / "gtFine" / "val" / city).mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(root / "gtFine" / "val" / city / f"{name}_gtFine_instanceIds.png"), values)
        rgb = np.stack([values % 256, values // 256, np.zeros_like(values)], axis=-1).astype(np.uint8)
        write(root / "gtFine" / "cityscapes_panoptic_val" / f"{name}_gtFine_panoptic.png", rgb)
        segments = [
            {"id": value, "category_id": value if value < 1000 else value // 1000, "iscrowd": 0, "bbox": [0, 0, 1, 1],
             "area": int(np.count_nonzero(values == value))}
            for value in (7, 24000, 26000)
        ]  # fmt: skip
        annotations.append({"image_id": name, "file_name": f"{name}_gtFine_panoptic.png", "segments_info": segments})
    categories = [
        {"id": entry.dataset_id, "name": entry.name, "isthing": int(entry.thing), "color": list(entry.color)}
        for entry in CITYSCAPES.classes
    ]
    truth = {"annotations": annotations, "categories": categories, "images": []}
    (root / "gtFine" / "cityscapes_panoptic_val.json").write_text(json.dumps(truth), encoding="utf-8")
    return root


class TestSplit:
    def test_a_whole_split_in_one_run(self, split: Path, tmp_path: Path) -> None:
        assert run(split / "leftImg8bit" / "val", tmp_path / "out", CITYSCAPES) == 3
        document = json.loads((tmp_path / "out" / "panoptic.json").read_text(encoding="utf-8"))
        dataset = open_dataset("cityscapes", split, "val")
        assert [entry["id"] for entry in document["images"]] == [dataset[i].image_id for i in range(3)] == [*NAMES]
        stems = [f"{name.split('_')[0]}/{name}_leftImg8bit" for name in NAMES]
        assert [entry["file_name"] for entry in document["images"]] == [f"{stem}.png" for stem in stems]
        for folder, suffix in (("semantic", "png"), ("instance", "png"), ("panoptic", "png"), ("overlay", "jpg")):
            place = tmp_path / "out" / folder
            found = sorted(path.relative_to(place).as_posix() for path in place.rglob("*.*"))
            assert found == [f"{stem}.{suffix}" for stem in stems]

    @pytest.mark.parametrize(
        "evaluator", ["panopticapi.evaluation", "cityscapesscripts.evaluation.evalPanopticSemanticLabeling"]
    )
    def test_the_evaluators_take_it_as_it_is(self, split: Path, tmp_path: Path, evaluator: str) -> None:
        evaluation = pytest.importorskip(evaluator, reason=f"{evaluator} is not installed")
        out, truth = tmp_path / "out", split / "gtFine" / "cityscapes_panoptic_val"
        run(split / "leftImg8bit" / "val", out, CITYSCAPES)
        if evaluator.startswith("panopticapi"):
            figures = evaluation.pq_compute(f"{truth}.json", f"{out}/panoptic.json")
        else:
            figures = evaluation.evaluatePanoptic(
                f"{truth}.json", str(truth), f"{out}/panoptic.json", f"{out}/panoptic", f"{tmp_path}/results.json"
            )
        assert (figures["All"]["pq"], figures["All"]["n"]) == (1.0, 3)  # what was read from the pictures

    def test_images_of_coco_have_their_numbers_where_two_share_a_stem(self, tmp_path: Path) -> None:
        for name in ("000000000139.png", "000000000139.bmp", "000000000285.png", "new/000000000632.png"):
            write(tmp_path / "in" / name, labels(100))
        run(tmp_path / "in", tmp_path / "out", COCO)
        document = json.loads((tmp_path / "out" / "panoptic.json").read_text(encoding="utf-8"))
        assert [entry["id"] for entry in document["images"]] == [139, "000000000139.png", 285]
        names = [entry["file_name"] for entry in document["annotations"]]
        assert names == ["000000000139.bmp.png", "000000000139.png.png", "000000000285.png.png"]
        assert all((tmp_path / "out" / "panoptic" / name).is_file() for name in names)

    def test_images_of_two_folders_may_have_one_name(self, tmp_path: Path) -> None:
        for name in ("0000/000001.png", "0001/000001.png"):
            write(tmp_path / "in" / name, labels(3))
        run(tmp_path / "in", tmp_path / "out")
        document = json.loads((tmp_path / "out" / "panoptic.json").read_text(encoding="utf-8"))
        assert [entry["image_id"] for entry in document["annotations"]] == [1, "0001/000001"]


class TestFolders:
    def test_two_runs_are_never_mixed(self, tmp_path: Path) -> None:
        for name in "ab":
            write(tmp_path / name / f"{name}.png", labels(3))
        run(tmp_path / "a", tmp_path / "out")
        before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*.*")}
        with pytest.raises(InvalidInputError, match=r"results of an earlier run, got .*out with semantic"):
            run(tmp_path / "b", tmp_path / "out")
        assert {path: path.read_bytes() for path in (tmp_path / "out").rglob("*.*")} == before

    def test_a_run_that_came_to_nothing_is_none(self, tmp_path: Path) -> None:
        (tmp_path / "a.png").write_bytes(b"no picture")
        with pytest.raises(InvalidInputError, match=r"a\.png"):
            run(tmp_path / "a.png", tmp_path / "out")
        write(tmp_path / "a.png", labels(3))
        (tmp_path / "out" / "notes.txt").write_text("of the user", encoding="utf-8")
        assert run(tmp_path / "a.png", tmp_path / "out") == 1

    def test_broken_images_are_left_out_and_named(self, tmp_path: Path) -> None:
        for name in "abcd":
            write(tmp_path / "in" / f"{name}.png", labels(3))
        for name in "bc":
            (tmp_path / "in" / f"{name}.png").write_bytes(b"no picture")
        with pytest.raises(InvalidInputError, match=r"2 are labelled into .* 2 left out: .*b\.png.*c\.png"):
            run(tmp_path / "in", tmp_path / "out")
        document = json.loads((tmp_path / "out" / "panoptic.json").read_text(encoding="utf-8"))
        assert [entry["image_id"] for entry in document["annotations"]] == ["a", "d"]

    def test_long_names_and_names_that_are_no_text(self, tmp_path: Path) -> None:
        stems = ["n" * 250, "two\nlines", "\udcff", "%04d", "0x10"]
        for stem in stems:
            write(tmp_path / "in" / f"{stem}.png", labels(3))
        assert run(tmp_path / "in", tmp_path / "out") == len(stems)
        for stem in stems:
            assert (tmp_path / "out" / "semantic" / f"{stem}.png").is_file()


class TestObjects:
    car, person, cyclist = (CAMVID.names.index(name) for name in ("car", "pedestrian", "bicyclist"))

    def frames(self, folder: Path) -> Path:
        write(folder / "1.png", labels(3, (self.person, 40, 8), (self.car, 4, 10)))
        write(folder / "2.png", labels(3, (self.car, 6, 10), (self.person, 41, 8), (self.cyclist, 20, 8)))
        return folder

    def test_objects_of_some_classes_only(self, tmp_path: Path) -> None:
        run(self.frames(tmp_path / "in"), tmp_path / "out", object_classes="car, bicyclist")
        for number, classes in ((1, [self.car]), (2, [self.car, self.cyclist])):
            semantic = read(tmp_path / "out" / "semantic" / f"{number}.png")
            instance = read(tmp_path / "out" / "instance" / f"{number}.png")
            assert [int(semantic[instance == value][0]) for value in range(1, instance.max() + 1)] == classes
            assert (semantic == self.person).any()  # the semantics keep all
            assert not instance[semantic == self.person].any()
        document = json.loads((tmp_path / "out" / "panoptic.json").read_text(encoding="utf-8"))
        listed = [
            [s["category_id"] for s in entry["segments_info"] if s["isthing"]] for entry in document["annotations"]
        ]
        car, cyclist = (CAMVID.classes[class_id].dataset_id for class_id in (self.car, self.cyclist))
        assert listed == [[car], [car, cyclist]]

    def test_confidence_and_the_overlays_opacity_where_they_are_asked_for(self, tmp_path: Path) -> None:
        source = write(tmp_path / "a.png", labels(3))
        run(source, tmp_path / "plain")
        run(source, tmp_path / "out", confidence=True, opacity=0.0)
        assert not (tmp_path / "plain" / "confidence").exists()
        assert set(read(tmp_path / "out" / "confidence" / "a.png").flat) == {255 - 3}
        shown = {name: read(tmp_path / name / "overlay" / "a.jpg").astype(int) for name in ("plain", "out")}
        assert np.abs(shown["out"] - read(source)).max() <= 2  # JPEG's
        assert np.abs(shown["plain"] - read(source)).max() > 20
        for name in ("semantic", "instance"):
            shutil.rmtree(tmp_path / "out" / name)
        with pytest.raises(InvalidInputError, match="with confidence"):
            run(source, tmp_path / "out")

    def test_an_opacity_beyond_its_range_is_refused(self, capsys: pytest.CaptureFixture[str]) -> None:
        for wrong in ("1.5", "nan", "much"):
            with pytest.raises(SystemExit):
                main(["predict", "--source", "a.png", "--out", "out", "--model", "any", "--opacity", wrong])
            assert f"expected a number from 0 to 1, got '{wrong}'" in capsys.readouterr().err

    def test_groups_at_another_size(self, tmp_path: Path) -> None:
        groups = tmp_path / "groups.yaml"
        classes = {
            "mover": {"id": 9, "thing": True, "color": [255, 0, 0], "of": ["car", "bicyclist"]},
            "person": {"id": 4, "thing": True, "color": [0, 255, 0], "of": ["pedestrian"]},
        }
        groups.write_text(yaml.safe_dump({"name": "groups", "unlisted": "drop", "void": 0, "classes": classes}))
        run(
            self.frames(tmp_path / "in"), tmp_path / "out", label_map=str(groups), output_size=(12, 30),
            mask_classes="person", also=["mask", "semantic_color"],
        )  # fmt: skip
        semantic, mask, color, instance = (
            read(tmp_path / "out" / name / "2.png") for name in ("semantic", "mask", "semantic_color", "instance")
        )
        assert semantic.shape == (12, 30)
        assert semantic[6, [0, 4, 12, 22]].tolist() == [0, 9, 9, 4]
        assert instance[6, [0, 4, 12, 22]].tolist() == [0, 1, 3, 2]
        np.testing.assert_array_equal(mask == 255, semantic == 4)
        assert color[6, [0, 4, 22]].tolist() == [[0, 0, 0], [255, 0, 0], [0, 255, 0]]
        document = json.loads((tmp_path / "out" / "panoptic.json").read_text(encoding="utf-8"))
        assert [row["id"] for row in document["categories"]] == [9, 4]
        listed = [[s["category_id"] for s in entry["segments_info"]] for entry in document["annotations"]]
        assert [sorted(ids) for ids in listed] == [[4, 9], [4, 9, 9]]

    def test_a_class_that_is_no_thing_is_refused_before_anything_is_written(self, tmp_path: Path) -> None:
        with pytest.raises(InvalidInputError, match="countable classes"):
            run(self.frames(tmp_path / "in"), tmp_path / "out", object_classes="road")
        assert not (tmp_path / "out").exists()

    def test_ids_last_in_every_file(self, tmp_path: Path) -> None:
        run(self.frames(tmp_path / "in"), tmp_path / "out", tracking=True)
        expected = {1: {self.person: 1, self.car: 2}, 2: {self.person: 1, self.car: 2, self.cyclist: 3}}
        document = json.loads((tmp_path / "out" / "panoptic.json").read_text(encoding="utf-8"))
        for annotation in document["annotations"]:
            number = annotation["image_id"]
            semantic = read(tmp_path / "out" / "semantic" / f"{number}.png")
            instance = read(tmp_path / "out" / "instance" / f"{number}.png")
            for class_id, value in expected[number].items():
                np.testing.assert_array_equal(instance == value, semantic == class_id)
            stored = read(tmp_path / "out" / "panoptic" / f"{number}.png").astype(int) @ (1, 256, 65536)
            np.testing.assert_array_equal(np.where(instance > 0, stored - 255, 0), instance)
            listed = {segment["id"]: segment["area"] for segment in annotation["segments_info"]}
            assert listed == {value: np.count_nonzero(stored == value) for value in np.unique(stored).tolist()}


def test_the_same_objects_and_ids_as_a_bag_of_the_same_frames(small_bundle: ModelBundle, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    pytest.importorskip("rosbags", reason="rosbags is not installed")
    from bag_cases import by_topic, drive, make_bag, picture, pixels_of

    for number in range(4):
        write(tmp_path / "in" / f"{number}.png", picture(number))
    bag = make_bag(tmp_path / "bag", drive(4))
    options = ["--model", str(small_bundle.path), "--backend", "onnxruntime", "--device", "cpu", "--tracking",
               "--object-classes", "pedestrian,car", *SHOW_MANY]  # fmt: skip
    assert main(["bag", str(bag), str(tmp_path / "labelled"), *options]) == 0
    assert main(["predict", "--source", str(tmp_path / "in"), "--out", str(tmp_path / "out"), *options]) == 0
    topics = by_topic(tmp_path / "labelled")
    for name in ("semantic", "instance"):
        theirs = [pixels_of(message) for _, message in topics[f"/panoptic_node/{name}"]]
        assert len(theirs) == 4
        for number, image in enumerate(theirs):
            np.testing.assert_array_equal(read(tmp_path / "out" / name / f"{number}.png"), image)
    assert max(image.max() for image in theirs) > 2


def test_a_card_with_an_umlaut_is_read_where_the_locale_is_not_utf8(small_bundle: ModelBundle, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    model = tmp_path / "straße"
    model.mkdir()
    for path in small_bundle.path.iterdir():
        (model / path.name).write_bytes(path.read_bytes())
    card = yaml.safe_load((model / "model.yaml").read_text(encoding="utf-8"))
    document = CAMVID.to_document()
    document["name"] = "straßen"
    document["classes"][3]["name"] = "straße"
    card.update(name="müller/[1]", classes=document)
    (model / "model.yaml").write_text(yaml.safe_dump(card, allow_unicode=True), encoding="utf-8")
    write(tmp_path / "grün.png", labels(3))
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [sys.executable, "-m", "rt_panoptic_ros", "predict", "--model", str(model), "--source",
               str(tmp_path / "grün.png"), "--out", str(tmp_path / "größe"), "--backend", "onnxruntime"]  # fmt: skip
    result = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, check=False)
    assert result.returncode == 0, result.stderr.decode("utf-8", "replace")
    assert b"1 frames, m\\xfcller/[1] with onnxruntime" in result.stdout
    document = json.loads((tmp_path / "größe" / "panoptic.json").read_text(encoding="utf-8"))
    assert document["categories"][3]["name"] == "straße"
    assert read(tmp_path / "größe" / "semantic" / "grün.png").shape == (24, 60)
