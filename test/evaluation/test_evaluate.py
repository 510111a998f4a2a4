# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""A whole evaluation: with a pipeline that knows the truth, and `rt-panoptic eval` with a network."""

from __future__ import annotations

import importlib.util
import json
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from coco_cases import write_instances

from rt_panoptic_ros.cli import main
from rt_panoptic_ros.datasets.base import PanopticDataset, PanopticSample, true_objects
from rt_panoptic_ros.datasets.opening import open_dataset
from rt_panoptic_ros.errors import InvalidInputError
from rt_panoptic_ros.evaluation.evaluate import FrameQuality, RelabelledPipeline, evaluate
from rt_panoptic_ros.evaluation.report import (
    Subject,
    card_figures,
    extreme_frames,
    format_tables,
    metrics_document,
    render_sheet,
    true_result,
)
from rt_panoptic_ros.model.bundle import ModelBundle, read_bundle
from rt_panoptic_ros.model.class_table import load_class_table
from rt_panoptic_ros.model.label_map import parse_label_map
from rt_panoptic_ros.records import VOID, CameraImage, PanopticResult

SKY, ROAD, CAR, PEDESTRIAN, VOID_LABEL = 0, 3, 8, 9, 11
NAMES = ("a", "b", "c")
SUBJECT = Subject("oracle", "oracle nowhere", {"mask_threshold": 0.3}, "camvid", "val")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Three images of 64x96: sky over road, a car, a pedestrian (not in c), another too small for an object, void."""
    root = tmp_path / "camvid"
    for folder in ("images", "labels"):
        (root / "val" / folder).mkdir(parents=True)
    for number, name in enumerate(NAMES):
        labels = np.full((64, 96), ROAD, np.uint8)
        labels[:24] = SKY
        labels[30:50, 10 + 5 * number : 40] = CAR
        labels[20:45, 60:70] = PEDESTRIAN if name != "c" else ROAD
        labels[50:55, 80:85] = PEDESTRIAN
        labels[60:] = VOID_LABEL
        cv2.imwrite(str(root / "val" / "labels" / f"{name}.png"), labels)
        image = cv2.resize(np.random.default_rng(number).integers(0, 256, (6, 9, 3), np.uint8), (96, 64))
        cv2.imwrite(str(root / "val" / "images" / f"{name}.png"), image)
    return root


class Oracle:
    """Gives the truth, but for the images that it is told to spoil: there, all is road."""

    def __init__(self, dataset: PanopticDataset, spoilt: tuple[str, ...] = ()) -> None:
        self.classes = dataset.classes
        self.timings_ms = {"input": 1.0, "network": 2.0}
        self.calls = 0
        self._samples = [dataset[index] for index in range(len(dataset))]
        self._spoilt = spoilt

    def __call__(self, image: CameraImage) -> PanopticResult:
        self.calls += 1
        sample = next(sample for sample in self._samples if np.array_equal(sample.image, image.pixels))
        result = true_result(sample)
        if sample.stem not in self._spoilt:
            return result
        road = np.full(result.semantic.shape, ROAD, np.uint8)
        table = replace(
            result.detections,
            **{field: getattr(result.detections, field)[:0] for field in result.detections.__dataclass_fields__},
        )
        return PanopticResult(road, np.zeros_like(result.instance), table)


@pytest.fixture
def dataset(tree: Path) -> PanopticDataset:
    pytest.importorskip("pycocotools", reason="pycocotools is not installed")
    return open_dataset("camvid", tree, "val")


def test_the_truth_is_perfect(dataset: PanopticDataset) -> None:
    evaluation = evaluate(Oracle(dataset), dataset, progress=False)
    assert (evaluation.all.pq, evaluation.things.pq, evaluation.stuff.pq, evaluation.all.classes) == (1, 1, 1, 4)
    assert evaluation.mean_iou == 1
    assert (evaluation.precision.ap, evaluation.precision.ap50) == pytest.approx((1, 1))
    # The small pedestrians are no objects, but pixels of their class.
    assert evaluation.counts.true_segments[[SKY, ROAD, CAR, PEDESTRIAN]].tolist() == [3, 3, 3, 2]
    assert [(frame.index, frame.stem, frame.pq) for frame in evaluation.frames] == [
        (0, "a", 1),
        (1, "b", 1),
        (2, "c", 1),
    ]
    assert evaluation.stage_ms == {"input": 1.0, "network": 2.0, "total": 3.0}


def test_an_image_of_road_alone(dataset: PanopticDataset) -> None:
    evaluation = evaluate(Oracle(dataset, spoilt=("a",)), dataset, progress=False)
    assert evaluation.counts.pq[SKY] == 2 / 2.5  # two found, one missed
    assert evaluation.counts.pq[CAR] == 2 / 2.5
    assert evaluation.counts.pq[PEDESTRIAN] == 1 / 1.5
    truth = dataset[0]
    void = (truth.semantic == VOID) | ((truth.semantic == PEDESTRIAN) & (truth.instance == 0))
    road_iou = (truth.semantic == ROAD).sum() / (~void).sum()  # without the small pedestrian, which is void here
    assert evaluation.frames[0].pq == pytest.approx((road_iou if road_iou > 0.5 else 0) / 4)
    assert evaluation.precision.per_class[PEDESTRIAN] == pytest.approx(51 / 101)  # one of two
    sky = (truth.semantic == SKY).sum()
    assert evaluation.iou[SKY] == pytest.approx(1 - sky / sum((dataset[k].semantic == SKY).sum() for k in range(3)))


def test_less_can_be_asked_for(dataset: PanopticDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    oracle = Oracle(dataset)
    evaluation = evaluate(oracle, dataset, progress=False, max_images=2, average_precision=False)
    assert oracle.calls == len(evaluation.frames) == 2
    assert evaluation.precision is None
    assert metrics_document(evaluation, SUBJECT)["average_precision"] is None
    assert len(evaluate(oracle, dataset, progress=False, max_images=9, average_precision=False).frames) == 3


def test_other_classes_are_refused(dataset: PanopticDataset) -> None:
    oracle = Oracle(dataset)
    oracle.classes = load_class_table("cityscapes")
    with pytest.raises(InvalidInputError, match=r"classes \(camvid, 11\), got one with those of cityscapes \(19\)"):
        evaluate(oracle, dataset, progress=False)


class TestLabelMap:
    FEW = """
        name: few
        unlisted: drop
        classes:
          object: {thing: true, color: [1, 2, 3], of: [car, pedestrian]}
          ground: {thing: false, color: [1, 2, 3], of: [road, pavement]}
    """

    def test_dataset_and_results_are_mapped_alike(self, tree: Path, dataset: PanopticDataset) -> None:
        few = parse_label_map(yaml.safe_load(self.FEW), "here")
        mapped = open_dataset("camvid", tree, "val", label_map=few)
        pipeline = RelabelledPipeline(Oracle(dataset), few)  # type: ignore[arg-type]
        evaluation = evaluate(pipeline, mapped, progress=False)
        assert (evaluation.things.pq, evaluation.stuff.pq, evaluation.mean_iou) == (1, 1, 1)
        assert evaluation.counts.true_segments.tolist() == [5, 3]
        assert evaluation.stage_ms["total"] == 3
        assert render_sheet(evaluation, pipeline, mapped).shape[2] == 3
        with pytest.raises(InvalidInputError, match=r"which differ in bicyclist, building, .* or add --label-map"):
            evaluate(Oracle(dataset), mapped, progress=False)

    def test_stuff_of_things_has_no_objects(self, dataset: PanopticDataset) -> None:
        few = parse_label_map(yaml.safe_load(self.FEW.replace("true", "false")), "here")
        result = RelabelledPipeline(Oracle(dataset), few)(CameraImage(dataset[0].image, "rgb"))  # type: ignore[arg-type]
        assert len(result.detections) == result.instance.max() == 0
        assert set(np.unique(result.semantic)) == {0, 1, VOID}


class SeesMasks(Oracle):
    """Gives the objects that have pixels, not those that are known by their boxes alone."""

    def __call__(self, image: CameraImage) -> PanopticResult:
        self.calls += 1
        sample = next(sample for sample in self._samples if np.array_equal(sample.image, image.pixels))
        objects = true_objects(sample.instance, sample.instance_classes).rows(~sample.by_box)
        return PanopticResult(sample.semantic, sample.instance.astype(np.uint16), objects)


class TestBoxesAlone:
    @pytest.fixture
    def boxed(self, tmp_path: Path) -> PanopticDataset:
        """Two people, one of them a box alone; a car by its box in another image."""
        pytest.importorskip("pycocotools", reason="pycocotools is not installed")
        rows = [
            {"category_id": 1, "segmentation": [[10, 10, 30, 10, 30, 40, 10, 40]]},
            {"category_id": 1, "bbox": [60, 10, 20, 30]},
            {"category_id": 2, "bbox": [5, 5, 40, 20], "image_id": 2},
        ]
        images = {name: tmp_path / "images" / name for name in ("a.png", "b.png")}
        write_instances(tmp_path / "result.json", images, rows, size=(64, 96))
        return open_dataset("coco_instances", tmp_path, "default")

    def test_boxes_are_counted_where_masks_lack(self, boxed: PanopticDataset) -> None:
        evaluation = evaluate(SeesMasks(boxed), boxed, progress=False)
        assert evaluation.boxes is not None
        assert evaluation.boxes.true_boxes.tolist() == [2, 1]
        np.testing.assert_array_equal(evaluation.boxes.recall, [0.5, 0])
        np.testing.assert_array_equal(evaluation.boxes.precision, [1, np.nan])
        assert evaluation.precision is None
        assert evaluation.things.pq == 1  # of the object that has a mask
        assert np.isnan(evaluation.frames[1].pq)

    @pytest.mark.parametrize(
        ("by_box", "complete", "wrong"), [(False, False, 0), (False, True, 1), (True, False, 0), (True, True, 0)]
    )
    def test_void_holds_none_where_all_are_labelled(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by_box: bool, complete: bool, wrong: int
    ) -> None:
        """One person is found, and one more where nothing is labelled but perhaps a box."""
        pytest.importorskip("pycocotools", reason="pycocotools is not installed")
        rows = [{"category_id": 1, "segmentation": [[10, 10, 30, 10, 30, 40, 10, 40]]}]
        rows += [{"category_id": 1, "bbox": [60, 10, 20, 30]}] if by_box else []
        write_instances(tmp_path / "result.json", {"a.png": tmp_path / "a.png"}, rows, size=(64, 96))
        dataset = open_dataset("coco_instances", tmp_path, "default", complete=complete)
        instance = np.zeros((64, 96), np.uint16)
        instance[10:40, 10:30], instance[10:40, 60:80] = 1, 2
        semantic = np.where(instance > 0, 0, VOID).astype(np.uint8)
        seen = PanopticResult(semantic, instance, true_objects(instance, np.zeros(2, np.uint8)))
        monkeypatch.setattr(Oracle, "__call__", lambda self, image: seen)
        evaluation = evaluate(Oracle(dataset), dataset, progress=False)
        assert evaluation.complete == complete
        assert (evaluation.counts.true_positives[0], evaluation.counts.false_positives[0]) == (1, wrong)
        assert evaluation.frames[0].pq == 1 / (1 + wrong / 2)
        assert (evaluation.boxes is not None) == by_box

    def test_they_are_told_of(self, boxed: PanopticDataset) -> None:
        oracle = SeesMasks(boxed)
        evaluation = evaluate(oracle, boxed, progress=False)
        rows = [line.split() for line in format_tables(evaluation, SUBJECT).splitlines()]
        assert ["person", "50.00", "100.00", "50.50", "2", "1"] in rows
        assert ["car", "0.00", "-", "0.00", "1", "0"] in rows
        text = format_tables(evaluation, SUBJECT)
        assert "not all objects have masks: PQ, SQ, RQ and IoU are of labelled pixels" in text
        assert "may be an object without a label" in text
        assert "without a label" not in format_tables(replace(evaluation, complete=True), SUBJECT)
        document = metrics_document(evaluation, SUBJECT)
        assert document["boxes"][1] == {
            "name": "car", "recall": 0.0, "precision": None, "ap50": 0.0, "boxes": 1, "predicted": 0,
        }  # fmt: skip
        figures = card_figures(evaluation, "command")
        assert (figures["box_recall_person"], figures["box_precision_person"]) == (50, 100)
        sheet = render_sheet(evaluation, oracle, boxed)
        boxless = [
            replace(
                sample,
                boxes=sample.boxes[~sample.by_box],
                instance_classes=sample.instance_classes[~sample.by_box],
            )
            for sample in (boxed[index] for index in range(2))
        ]
        assert (sheet != render_sheet(evaluation, oracle, boxless)).any()  # type: ignore[arg-type]

    def test_masks_alone_have_no_such_figures(self, dataset: PanopticDataset) -> None:
        evaluation = evaluate(Oracle(dataset), dataset, progress=False)
        assert evaluation.boxes is None
        assert metrics_document(evaluation, SUBJECT)["boxes"] == []
        assert "recall" not in format_tables(evaluation, SUBJECT)


def test_tables(dataset: PanopticDataset) -> None:
    text = format_tables(evaluate(Oracle(dataset, spoilt=("a",)), dataset, progress=False), SUBJECT)
    rows = [line.split() for line in text.splitlines()]
    assert text.startswith("oracle on camvid val, 3 images (oracle nowhere)\npseudo-instance PQ and AP: ")
    head = rows.index(["PQ", "PQ^th", "PQ^st", "SQ", "RQ", "mIoU", "AP", "AP50"])
    assert len(rows[head + 1]) == 8
    assert rows[head + 1][1] == "73.3"  # (2 / 2.5 + 1 / 1.5) / 2
    assert ["sky", "80.00", "100.00", "80.00"] in [row[:4] for row in rows]
    assert ["fence", "-", "-", "-", "-", "0"] in rows
    assert [row[-1] for row in rows if row[:1] == ["Mean"]] == ["11"]
    assert text.endswith("median ms per image: input 1.0, network 2.0, total 3.0\n")


def test_the_document_holds_every_number(dataset: PanopticDataset) -> None:
    evaluation = evaluate(Oracle(dataset, spoilt=("b",)), dataset, progress=False)
    document = json.loads(json.dumps(metrics_document(evaluation, SUBJECT), allow_nan=False))
    assert document["panoptic_quality"]["things"] == {
        "pq": evaluation.things.pq, "sq": evaluation.things.sq, "rq": evaluation.things.rq, "classes": 2,
    }  # fmt: skip
    assert document["classes"][CAR]["pq"] == evaluation.counts.pq[CAR]
    assert document["classes"][CAR]["segments"] == 3
    assert document["classes"][7] == {
        "name": "fence", "thing": False, "pq": None, "sq": None, "rq": None, "iou": None, "average_precision": None,
        "segments": 0, "true_positives": 0, "false_positives": 0, "false_negatives": 0,
    }  # fmt: skip
    assert [frame["stem"] for frame in document["frames"]] == list(NAMES)
    assert document["instance_note"].startswith("pseudo-instance PQ")


def test_extreme_frames_come_once() -> None:
    frames = [FrameQuality(k, str(k), pq) for k, pq in enumerate((0.5, 0.9, np.nan, 0.1, 0.7, 0.6, 0.3, 0.2, 0.4, 0.8))]
    assert [frame.pq for frame in extreme_frames(frames)][:7] == [0.9, 0.8, 0.7, 0.6, 0.3, 0.2, 0.1]
    assert np.isnan(extreme_frames(frames)[7].pq)
    assert [frame.pq for frame in extreme_frames(frames[3:8])] == [0.7, 0.6, 0.3, 0.2, 0.1]
    assert len(extreme_frames(frames[:1])) == 1


def test_the_sheet_shows_truth_beside_prediction(dataset: PanopticDataset) -> None:
    oracle = Oracle(dataset, spoilt=("b",))
    evaluation = evaluate(oracle, dataset, progress=False)
    sheet = render_sheet(evaluation, oracle, dataset)
    assert sheet.shape[1:] == (1920, 3)
    assert oracle.calls == 6  # every image once more


def test_of_an_object_known_by_its_box_alone_the_border_is_shown() -> None:
    instance = np.zeros((8, 12), np.int32)
    instance[:3, :3] = 1
    nowhere, class_ids = [np.nan] * 4, np.uint8([CAR, PEDESTRIAN])
    sample = PanopticSample(
        "a", 0, np.zeros((8, 12, 3), np.uint8), np.full((8, 12), ROAD, np.uint8), instance, class_ids,
        np.zeros(2, bool), np.float32([nowhere, [1, 2, 10.2, 7]]),
    )  # fmt: skip
    result = true_result(sample)
    assert (result.instance[:3, :3] == 1).all()
    np.testing.assert_array_equal(np.argwhere(result.instance == 2), [
        (y, x) for y in range(2, 7) for x in range(1, 10) if (y in (2, 6) or x in (1, 9)) and not (y < 3 and x < 3)
    ])  # fmt: skip
    assert result.detections.mask_boxes.tolist() == [[0, 0, 2, 2], [1, 2, 9, 6]]


def evaluation_of_cli(bundle: ModelBundle, tree: Path, out: Path, *more: str) -> int:
    return main([
        "eval", "--model", str(bundle.path), "--dataset", "camvid", "--root", str(tree), "--split", "val",
        "--out", str(out), "--backend", "onnxruntime", "--device", "cpu", "--set", "score_threshold=0.05",
        "--set", "mask_threshold=0.02", *more,
    ])  # fmt: skip


class TestCommandLine:
    @pytest.fixture(autouse=True)
    def _needs(self) -> None:
        pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
        pytest.importorskip("pycocotools", reason="pycocotools is not installed")

    def test_files_and_tables(
        self, small_bundle: ModelBundle, tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        out = tmp_path / "out"
        assert evaluation_of_cli(small_bundle, tree, out) == 0
        printed = capsys.readouterr().out
        assert sorted(path.name for path in out.iterdir()) == ["contact_sheet.jpg", "metrics.json", "metrics.txt"]
        assert (out / "metrics.txt").read_text() in printed
        assert "pseudo-instance PQ" in printed
        document = json.loads((out / "metrics.json").read_text())
        assert (document["dataset"], document["split"], document["images"]) == ("camvid", "val", 3)
        assert document["model"] == str(small_bundle.path)
        assert "onnxruntime in float32 on cpu at 64x96" in document["engine"]
        assert document["settings"]["mask_threshold"] == 0.02
        assert list(document["median_ms"]) == ["input", "network", "query_boxes", "masks", "fusion", "total"]
        assert document["average_precision"] is not None
        assert document["classes"][PEDESTRIAN]["segments"] == 2
        assert cv2.imread(str(out / "contact_sheet.jpg")).shape[1] == 1920

    def test_a_label_map_serves_model_and_dataset(
        self, small_bundle: ModelBundle, tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = tmp_path / "few.yaml"
        path.write_text(TestLabelMap.FEW)
        assert evaluation_of_cli(small_bundle, tree, tmp_path / "out", "--label-map", str(path), "--complete") == 0
        document = json.loads((tmp_path / "out" / "metrics.json").read_text())
        assert [entry["name"] for entry in document["classes"]] == ["object", "ground"]
        assert evaluation_of_cli(small_bundle, tree, tmp_path / "out", "--label-map", "avenue") == 1
        assert "a label map file or one of camvid_as_street, people, street, got 'avenue'" in capsys.readouterr().err

    def test_fewer_images(self, small_bundle: ModelBundle, tree: Path, tmp_path: Path) -> None:
        assert evaluation_of_cli(small_bundle, tree, tmp_path / "out", "--max-images", "1") == 0
        assert json.loads((tmp_path / "out" / "metrics.json").read_text())["images"] == 1

    def test_figures_go_into_the_card(self, small_bundle: ModelBundle, tree: Path, tmp_path: Path) -> None:
        bundle = shutil.copytree(small_bundle.path, tmp_path / "model")
        copy = read_bundle(bundle)
        assert evaluation_of_cli(copy, tree, tmp_path / "out", "--record") == 0
        recorded = read_bundle(bundle)
        assert recorded == replace(copy, about=recorded.about)
        measured = recorded.about["measured"]["camvid val, float32"]
        document = json.loads((tmp_path / "out" / "metrics.json").read_text())
        assert measured["pq"] == round(100 * document["panoptic_quality"]["all"]["pq"], 1)
        assert measured["mean_iou"] == round(100 * document["mean_iou"], 1)
        assert {"pq_car", "ap50", "median_ms_per_image", "note"} <= set(measured)
        assert measured["images"] == 3
        assert measured["command"].startswith("rt-panoptic eval --model ")
        assert "--record" not in measured["command"]

    def test_a_missing_package_is_said_before_the_run(
        self,
        small_bundle: ModelBundle,
        tree: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        found = importlib.util.find_spec
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "pycocotools" else found(name))
        assert evaluation_of_cli(small_bundle, tree, tmp_path / "out") == 1
        said = capsys.readouterr().err
        assert "pycocotools" in said
        assert "evaluating" not in said  # the progress bar

    def test_a_wrong_place_is_said(
        self, small_bundle: ModelBundle, tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert evaluation_of_cli(small_bundle, tree / "val", tmp_path / "out") == 1
        assert "expected CamVid as ROOT" in capsys.readouterr().err
        (tmp_path / "file").touch()
        assert evaluation_of_cli(small_bundle, tree, tmp_path / "file") == 1
        assert "file" in capsys.readouterr().err


def test_a_split_without_labels_is_refused_before_any_image_is_labelled(tree: Path) -> None:
    for path in (tree / "val" / "labels").iterdir():
        cv2.imwrite(str(path), np.full((64, 96), VOID_LABEL, np.uint8))
    dataset = open_dataset("camvid", tree, "val")
    oracle = Oracle(dataset)
    with pytest.raises(InvalidInputError, match="got none in any of 3 images: take a split with labels"):
        evaluate(oracle, dataset, progress=False)  # type: ignore[arg-type]
    assert oracle.calls == 0


def test_a_dataset_without_images_is_refused(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = open_dataset("camvid", tree, "val")
    monkeypatch.setattr(type(dataset), "__len__", lambda self: 0)  # such as COCO's JSON file with an empty list
    with pytest.raises(InvalidInputError, match="got none in any of 0 images"):
        evaluate(Oracle(dataset), dataset, progress=False)  # type: ignore[arg-type]
