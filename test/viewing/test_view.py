# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""What `rt-panoptic view` shows of pictures and of bags: the labels that `predict` and `bag` give, and their names."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest
from bag_cases import START_NS, by_topic, drive, image_message, make_bag, picture, pixels_of
from view_cases import Recording

from rt_panoptic_ros.cli import main
from rt_panoptic_ros.pipeline import open_pipeline
from rt_panoptic_ros.records import CameraImage

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rt_panoptic_ros.model.bundle import ModelBundle

SETTINGS = {"score_threshold": 0.0, "pre_nms_threshold": 0.0, "mask_threshold": 0.01, "overlap_threshold": 1.0}
CAMERA = "camera"


@pytest.fixture
def labelling(small_bundle: ModelBundle) -> list[str]:
    """Options under which many objects are found, which mean nothing."""
    settings = [f"--set={name}={value}" for name, value in SETTINGS.items()]
    return ["--model", str(small_bundle.path), "--backend", "onnxruntime", "--device", "cpu", *settings]


@pytest.fixture
def view(tmp_path: Path) -> Callable[..., Recording]:
    """View something into a file, and read that."""

    def run(source: Path, *options: str) -> Recording:
        out = tmp_path / f"{len(list(tmp_path.iterdir()))}.rrd"
        assert main(["view", str(source), "--out", str(out), *options]) == 0
        return Recording(out)

    return run


def test_pictures(
    view: Callable[..., Recording], labelling: list[str], small_bundle: ModelBundle, tmp_path: Path
) -> None:
    for number in range(3):
        (tmp_path / "in").mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / "in" / f"{number}.png"), picture(number)[..., ::-1])
    shown = view(tmp_path / "in", *labelling)

    assert shown.column("/camera/image", "frame") == [0, 1, 2]
    assert shown.column("/camera/image", "stamp") == [0, 10**9, 2 * 10**9]
    known = shown.classes("/camera/semantic")
    assert known.pop(255) == ("void", (0, 0, 0, 0))
    assert known == {entry.id: (entry.name, (*entry.color, 255)) for entry in small_bundle.classes.classes}
    assert shown.classes("/camera/instance") == {0: ("none", (0, 0, 0, 0))}  # the others have colours of their ids

    pipeline = open_pipeline(small_bundle.path, backend="onnxruntime", device="cpu", settings=SETTINGS)
    objects = 0
    for number in range(3):
        result = pipeline(CameraImage(picture(number), "rgb"))
        table = result.detections
        objects += len(table)
        assert np.array_equal(shown.labels("/camera/semantic")[number], result.semantic)
        assert np.array_equal(shown.labels("/camera/instance")[number], result.instance)
        assert np.mean(np.abs(shown.pictures(CAMERA)[number].astype(int) - picture(number))) < 25  # noise, as JPEG
        names = [small_bundle.classes.names[class_id] for class_id in table.class_ids]
        assert shown.column("/camera/objects", "Boxes2D:labels")[number] == [
            f"{name} {id_} {score:.2f}" for name, id_, score in zip(names, table.ids, table.scores, strict=True)
        ]
        assert shown.column("/camera/objects", "Boxes2D:class_ids")[number] == shown.ids(CAMERA)[number] == [*table.ids]
        centers, halves = (
            np.array(shown.column("/camera/objects", f"Boxes2D:{part}")[number]) for part in ("centers", "half_sizes")
        )
        assert np.array_equal(centers - halves, table.mask_boxes[:, :2])
        assert np.array_equal(centers + halves, table.mask_boxes[:, 2:] + 1)
    assert objects > 3
    assert {"/camera/timings/network", "/camera/timings/fusion"} < shown.entities


def test_a_bag_is_shown_as_it_was_labelled_or_is_labelled_on_the_way(
    view: Callable[..., Recording], labelling: list[str], tmp_path: Path
) -> None:
    cameras = {"front": 0, "rear": 100}  # number of the first frame, which stamp and frame id tell of
    messages = [
        image_message(first + number, picture(first + number), f"/{name}/image_raw")
        for number in range(3)
        for name, first in cameras.items()
    ]
    source = make_bag(tmp_path / "drive", messages)
    assert main(["bag", str(source), str(tmp_path / "labelled"), *labelling, "--tracking"]) == 0
    recorded, labelled = view(tmp_path / "labelled"), view(source, *labelling, "--tracking")

    topics = by_topic(tmp_path / "labelled")
    for name, first in cameras.items():
        stamps = [START_NS + (first + number) * 100_000_000 + 123 for number in range(3)]
        assert recorded.column(f"/{name}/image", "stamp") == labelled.column(f"/{name}/image", "stamp") == stamps
        for output in ("semantic", "instance"):
            expected = [pixels_of(message) for _, message in topics[f"/panoptic_node/{name}/{output}"]]
            for shown in (recorded, labelled):
                assert all(map(np.array_equal, shown.labels(f"/{name}/{output}"), expected))
        for place in ("objects Boxes2D:labels", "objects Boxes2D:centers", "image EncodedImage:blob"):
            entity, column = place.split()
            assert recorded.column(f"/{name}/{entity}", column) == labelled.column(f"/{name}/{entity}", column)
        assert recorded.classes(f"/{name}/semantic") == labelled.classes(f"/{name}/semantic")
        assert sum(map(len, recorded.ids(name))) > 3
        assert recorded.column(f"/{name}/timings/stamp to outputs".replace(" ", "\\ "), "Scalars:scalars")
    assert "/front/timings/network" in labelled.entities


def test_labels_of_another_size_and_meaning(
    view: Callable[..., Recording], labelling: list[str], tmp_path: Path
) -> None:
    label_map = tmp_path / "map.yaml"
    label_map.write_text(
        "name: roads\nunlisted: drop\nvoid: 0\nclasses:\n"
        "  road: {id: 7, thing: false, color: [1, 2, 3], of: [road]}\n"
        "  vehicle: {id: 9, thing: true, color: [4, 5, 6], of: [car]}\n",
        encoding="utf-8",
    )
    source = make_bag(tmp_path / "drive", drive(1))
    options = [*labelling, "--label-map", str(label_map), "--output-size", "20x60"]
    assert main(["bag", str(source), str(tmp_path / "labelled"), *options]) == 0
    for shown in (view(tmp_path / "labelled"), view(source, *options)):
        assert shown.classes("/camera/semantic") == {
            0: ("void", (0, 0, 0, 0)), 7: ("road", (1, 2, 3, 255)), 9: ("vehicle", (4, 5, 6, 255)),
        }  # fmt: skip
        assert set(np.unique(shown.labels("/camera/semantic")[0])) <= {0, 7, 9}
        assert shown.labels("/camera/instance")[0].shape == shown.pictures(CAMERA)[0].shape[:2] == (20, 60)


def test_what_can_not_be_shown_is_said(
    labelling: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def said(*arguments: str) -> str:
        assert main(["view", *arguments]) == 1
        return capsys.readouterr().err

    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    source = make_bag(tmp_path / "drive", drive(1))
    out = tmp_path / "there.rrd"
    out.touch()
    assert "or --live (a running node), got neither" in said()
    unwritten, broken = tmp_path / "unwritten.rrd", [image_message(0, picture(0), encoding="purple7")]
    made = str(make_bag(tmp_path / "broken", broken))
    for _ in range(2):  # nothing is left that the second try would find
        assert "that can be labelled, got none" in said(made, "--out", str(unwritten), *labelling)
        assert not unwritten.exists()
    assert "expected no --images, as --live" in said("--live", "--images", "/x")
    assert "expected no --images" in said(str(out), "--images", "/x")
    assert "or --live (a running node), got both" in said("--live", str(source))
    assert "expected no --tracking, as --live" in said("--live", "--tracking")
    assert "expected a new file" in said(str(source), "--out", str(out), *labelling)
    assert "that ends in .rrd, got" in said(str(source), "--out", str(tmp_path / "x.bin"), *labelling)
    assert "found neither DISPLAY nor WAYLAND_DISPLAY: write a file with --out FILE.rrd, or" in said(
        str(source), *labelling
    )
    assert "found neither DISPLAY nor WAYLAND_DISPLAY" in said(str(out))
    assert "expected a window for" in said(str(out), "--web")
    assert "which is no file: check the path" in said(str(tmp_path / "none.rrd"))
    assert "does not exist" in said(str(tmp_path / "none.mp4"), *labelling)
    assert main(["bag", str(source), str(tmp_path / "labelled"), *labelling]) == 0
    capsys.readouterr()
    assert "has labels, which are shown" in said(str(tmp_path / "labelled"), "--tracking")
    assert (
        main(["bag", str(source), str(tmp_path / "other"), *labelling, "--outputs", "confidence", "--topics", "none"])
        == 0
    )
    capsys.readouterr()
    assert "expected a topic with a camera's images" in said(str(tmp_path / "other"))


def test_labels_without_pictures(view: Callable[..., Recording], labelling: list[str], tmp_path: Path) -> None:
    source = make_bag(tmp_path / "drive", drive(2))
    options = ["--topics", "none", "--outputs", "instance", "detections"]
    assert main(["bag", str(source), str(tmp_path / "labelled"), *labelling, *options]) == 0
    shown = view(tmp_path / "labelled")
    assert shown.entities & {"/camera/image", "/camera/semantic"} == set()
    assert len(shown.labels("/camera/instance")) == len(shown.ids(CAMERA)) == 2
