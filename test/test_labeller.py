"""The one way from an image to its labels: filter before tracking, cameras apart, what resets ids."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rt_panoptic_ros.datasets.base import true_objects
from rt_panoptic_ros.labeller import FrameLabeller, LabelledFrame
from rt_panoptic_ros.model.class_table import load_class_table
from rt_panoptic_ros.records import CameraImage, PanopticResult

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
        for number, (_, left) in enumerate(self.objects, 1):
            instance[:, left : left + 8] = number
        table = true_objects(instance, np.array([class_id for class_id, _ in self.objects], np.uint8))
        self.asked = images
        kept = instance if "instance" in images else instance[:0, :0]
        self.last = PanopticResult(np.zeros_like(instance, np.uint8), kept, table)
        return self.last


class Labelling:
    """A labeller and its pipeline."""

    def __init__(self) -> None:
        self.pipeline = MadeUpPipeline()
        self.labeller = FrameLabeller(self.pipeline)  # type: ignore[arg-type]

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
