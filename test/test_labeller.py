# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The one way from an image to its labels: groups, filter, tracking, size; what outputs are made of them."""

from __future__ import annotations

import json
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from rt_panoptic_ros.datasets.base import true_objects
from rt_panoptic_ros.errors import InvalidInputError
from rt_panoptic_ros.frames.message_layout import class_names_text, detection_fields, label_space_text
from rt_panoptic_ros.labeller import FrameLabeller, LabelledFrame, OutputStyle
from rt_panoptic_ros.model.class_table import load_class_table, parse_published_table
from rt_panoptic_ros.model.label_map import LabelMap, parse_label_map
from rt_panoptic_ros.panoptic.resizing import resized
from rt_panoptic_ros.records import IMAGES, VOID, CameraImage, PanopticResult

CAR, PERSON = (load_class_table("camvid").names.index(name) for name in ("car", "pedestrian"))


class MadeUpPipeline:
    """Finds the objects (class, left) that a test names for the next image, each a column of 8 px."""

    classes = load_class_table("camvid")
    timings_ms: dict[str, float] = {"network": 1.0}  # noqa: RUF012 - as the real one's

    def __init__(self) -> None:
        self.objects: tuple[tuple[int, int], ...] = ()
        self.last: PanopticResult
        self.asked: frozenset[str]

    def __call__(self, image: CameraImage, *, images: frozenset[str], **_: Any) -> PanopticResult:
        instance = np.zeros(image.pixels.shape[:2], np.uint16)
        semantic = np.zeros_like(instance, np.uint8)  # sky
        for number, (class_id, left) in enumerate(self.objects, 1):
            instance[:, left : left + 8] = number
            semantic[:, left : left + 8] = class_id
        table = true_objects(instance, np.array([class_id for class_id, _ in self.objects], np.uint8))
        self.asked = images
        kept = instance if "instance" in images else instance[:0, :0]
        self.last = PanopticResult(semantic, kept, table, 255 - semantic if "confidence" in images else None)
        return self.last


class Labelling:
    """A labeller and its pipeline."""

    def __init__(self, label_map: LabelMap | None = None) -> None:
        self.pipeline = MadeUpPipeline()
        self.labeller = FrameLabeller(self.pipeline, label_map)  # type: ignore[arg-type]

    def frame(self, *objects: tuple[int, int], **options: Any) -> LabelledFrame:
        self.pipeline.objects = objects
        return self.labeller.label(CameraImage(np.zeros((4, 80, 3), np.uint8), "rgb"), 0, **options)

    def ids(self, *objects: tuple[int, int], **options: Any) -> list[int]:
        """Label an image with these objects and return the id in the middle of each."""
        frame = self.frame(*objects, **options)
        assert set(np.unique(frame.result.instance)) - {0} == set(frame.result.detections.ids.tolist())
        assert frame.tracked == options.get("tracking", False)
        return [int(frame.result.instance[0, left + 4]) for _, left in objects]


def test_labels_that_nobody_wants_changed_are_the_pipelines_own() -> None:
    labelling = Labelling()
    frame = labelling.frame((CAR, 0), (PERSON, 20))
    assert frame.result is labelling.pipeline.last
    assert frame.timings_ms == {"network": 1.0}


def test_objects_are_filtered_before_they_are_tracked() -> None:
    labelling = Labelling()
    wanted: dict[str, Any] = {"class_ids": {CAR}, "tracking": True}
    assert labelling.ids((PERSON, 0), (CAR, 20), (CAR, 40), **wanted) == [0, 1, 2]
    assert labelling.ids((CAR, 41), (PERSON, 0), (CAR, 60), (CAR, 21), **wanted) == [2, 0, 3, 1]
    assert labelling.ids((PERSON, 0), (CAR, 20), (CAR, 40), class_ids={CAR}) == [0, 1, 2]


def test_cameras_are_tracked_apart_until_they_are_reset() -> None:
    labelling = Labelling()
    for camera in ("front", "rear"):
        assert labelling.ids((CAR, 0), (CAR, 20), tracking=True, camera=camera) == [1, 2]
    assert labelling.ids((CAR, 21), tracking=True, camera="front") == [2]
    assert labelling.ids((CAR, 1), tracking=True, camera="rear") == [1]
    assert labelling.ids((CAR, 21), camera="front") == [1]  # a frame without tracking forgets the camera's objects
    assert labelling.ids((CAR, 21), tracking=True, camera="front") == [1]
    assert labelling.ids((CAR, 21), tracking=True, camera="rear") == [2]
    labelling.labeller.reset_tracking()
    assert labelling.ids((CAR, 21), tracking=True, camera="rear") == [1]


@pytest.mark.parametrize(("tracking", "asked"), [(False, set()), (True, {"instance"})])
def test_objects_need_no_image_unless_they_are_tracked(tracking: bool, asked: set[str]) -> None:
    labelling = Labelling()
    for objects in (((CAR, 0), (PERSON, 20), (CAR, 40)), ((PERSON, 21), (CAR, 41))):
        frame = labelling.frame(*objects, images=frozenset(), class_ids={CAR}, tracking=tracking)
        assert labelling.pipeline.asked == asked
        assert frame.result.instance.shape == (0, 0)
    assert frame.result.detections.ids.tolist() == [2 if tracking else 1]


GROUPS = parse_label_map(
    {
        "name": "groups", "unlisted": "drop", "void": 0,
        "classes": {
            "mover": {"id": 7, "thing": True, "color": [255, 0, 0], "of": ["car", "pedestrian"]},
            "open": {"id": 200, "thing": False, "color": [0, 0, 255], "of": ["sky", "road"]},
        },
    },
    "here",
)  # fmt: skip


def test_labels_in_groups() -> None:
    labelling = Labelling(GROUPS)
    bicyclist = MadeUpPipeline.classes.names.index("bicyclist")
    frame = labelling.frame((bicyclist, 60), (CAR, 0), (PERSON, 20))
    assert frame.classes.names == ("mover", "open")
    assert frame.result.detections.ids.tolist() == [1, 2]  # what is dropped leaves no gap
    assert [fields["class_id"] for fields, _ in detection_fields(frame.result.detections, frame.classes)] == [7, 7]
    assert frame.result.semantic[0, [4, 12, 24, 64]].tolist() == [0, 1, 0, VOID]
    assert frame.pixels("semantic", OutputStyle())[0, [4, 12, 24, 64]].tolist() == [7, 200, 7, 0]
    assert frame.result.instance[0, [4, 12, 24, 64]].tolist() == [1, 0, 2, 0]
    panoptic = frame.pixels("panoptic", OutputStyle())
    assert panoptic.dtype == np.int32
    assert panoptic[0, [4, 12, 24, 64]].tolist() == [1 << 16 | 7, 200, 2 << 16 | 7, 0]
    # What is told of the classes says the same: to those who read JSON, and to Hydra.
    table = json.loads(class_names_text(frame.classes))
    assert ([row["id"] for row in table["classes"]], table["void"]) == ([7, 200], 0)
    assert parse_published_table(table) == frame.classes
    space = yaml.safe_load(label_space_text(frame.classes))
    assert {row["label"]: row["name"] for row in space["label_names"]} == {0: "unknown", 7: "mover", 200: "open"}
    assert (space["object_labels"], space["total_semantic_labels"]) == ([7], 201)


def test_an_object_keeps_its_id_within_its_group() -> None:
    labelling = Labelling(GROUPS)
    assert labelling.ids((CAR, 20), (PERSON, 0), tracking=True) == [1, 2]
    assert labelling.ids((CAR, 1), (CAR, 21), tracking=True) == [2, 1]


@pytest.mark.parametrize(
    ("names", "masked"), [("", [255, 0, 255]), ("car", [255, 0, 0]), ("pedestrian, sky", [0, 255, 255])]
)
def test_images_for_consumers(names: str, masked: list[int]) -> None:
    frame = Labelling().frame((CAR, 0), (PERSON, 20))
    places = [4, 12, 24]  # car, sky, pedestrian
    style = OutputStyle.of(0.5, "dataset", names, frame.classes)
    assert frame.pixels("mask", style)[1, places].tolist() == masked
    colors = frame.classes.colors[frame.result.semantic]
    np.testing.assert_array_equal(frame.pixels("semantic_color", style), colors)
    panoptic = frame.pixels("panoptic", style)
    np.testing.assert_array_equal(panoptic & 0xFFFF, frame.result.semantic.astype(int) + 1)
    np.testing.assert_array_equal(panoptic >> 16, frame.result.instance)
    assert frame.pixels("semantic", style) is frame.result.semantic  # no copy where nothing is to be changed


def test_a_mask_of_an_unknown_class_is_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"expected mask_classes to be names of classes \(sky, .* got 'rain'"):
        OutputStyle.of(0.5, "dataset", "car,rain", MadeUpPipeline.classes)


def test_all_outputs_have_the_size_that_is_asked_for() -> None:
    labelling = Labelling()
    kept = {"tracking": True, "output_size": (2, 20), "images": frozenset(IMAGES)}
    assert labelling.frame((CAR, 0), (PERSON, 20), **kept).result.detections.ids.tolist() == [1, 2]
    frame = labelling.frame((PERSON, 21), (CAR, 41), (CAR, 1), **kept)
    assert (frame.size, frame.image.pixels.shape) == ((2, 20), (4, 80, 3))
    for name in ("semantic", "instance", "confidence", "mask", "panoptic", "semantic_color", "overlay"):
        assert frame.pixels(name, OutputStyle()).shape[:2] == (2, 20), name
    assert frame.result.instance[0].tolist() == [1, 1] + [0] * 3 + [2, 2] + [0] * 3 + [3, 3] + [0] * 8
    table = frame.result.detections
    assert table.ids.tolist() == [2, 3, 1]
    assert table.areas.tolist() == [4, 4, 4]
    assert table.mask_boxes[0].tolist() == [5, 0, 6, 1]
    assert table.boxes[0].tolist() == [21 / 4, 0, 28 / 4, 3 / 2]
    assert labelling.frame((CAR, 0), output_size=(4, 80)).result is labelling.pipeline.last
    assert labelling.ids((CAR, 0), (PERSON, 20), output_size=(8, 80)) == [1, 2]
    frame = labelling.frame((CAR, 0), output_size=(2, 20), images=frozenset())
    assert (frame.result.detections.areas.tolist(), frame.result.instance.size) == ([4], 0)


@pytest.mark.parametrize(("size", "averaged"), [((2, 90), True), ((5, 60), True), ((3, 120), False), ((5, 80), False)])
def test_the_picture_below_an_overlay_is_averaged_where_pixels_become_fewer(
    monkeypatch: pytest.MonkeyPatch, size: tuple[int, int], averaged: bool
) -> None:
    used, resize = [], cv2.resize
    frame = Labelling().frame((CAR, 0), output_size=size)
    monkeypatch.setattr(cv2, "resize", lambda *a, interpolation: used.append(interpolation) or resize(*a))
    assert frame.pixels("overlay", OutputStyle()).shape[:2] == size
    assert used == [cv2.INTER_AREA if averaged else cv2.INTER_LINEAR]


@given(st.integers(1, 9), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_resized_labels_are_those_of_the_pixel_that_a_centre_lies_in(height: int, width: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    instance = random.integers(0, 6, (5, 11)).astype(np.uint16)
    present = np.unique(instance)[1:]
    instance = np.searchsorted(np.r_[0, present], instance).astype(np.uint16)
    table = true_objects(instance, np.full(len(present), CAR, np.uint8))
    small, kept = resized(PanopticResult(instance.astype(np.uint8), instance, table), (height, width))
    rows, columns = (
        np.floor((np.arange(new) + 0.5) * old / new).astype(int) for new, old in ((height, 5), (width, 11))
    )
    expected = instance[rows[:, None], columns]
    np.testing.assert_array_equal(small.instance, expected)
    np.testing.assert_array_equal(small.semantic, expected)
    assert kept.tolist() == [bool((expected == number).any()) for number in table.ids]
    for number, area, (left, top, right, bottom) in zip(
        small.detections.ids, small.detections.areas, small.detections.mask_boxes.tolist(), strict=True
    ):
        ys, xs = np.nonzero(expected == number)
        assert (area, left, top, right, bottom) == (len(ys), xs.min(), ys.min(), xs.max(), ys.max())
