# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Messages of a node, whatever they hold, as they are shown."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import rerun as rr
from bag_cases import IMAGE, START_NS, STORE, header, image_message
from view_cases import Recording

from rt_panoptic_ros.errors import InvalidInputError, UnavailableError
from rt_panoptic_ros.viewing.outputs import OutputView, read_class_names, read_points
from rt_panoptic_ros.viewing.recorder import ViewRecorder

if TYPE_CHECKING:
    from pathlib import Path


def cloud(positions: np.ndarray, rgb: int = 0x010203, order: str = "<", padding: int = 0) -> Any:
    """Return an organised cloud, (H, W, 3), with a field between that nobody asked for and bytes behind each row."""
    height, width = positions.shape[:2]
    kinds = [*((name, f"{order}f4") for name in ("x", "y", "z", "score")), ("rgb", f"{order}u4")]
    points = np.zeros((height, width), kinds)
    for axis, name in enumerate("xyz"):
        points[name] = positions[..., axis]
    points["rgb"] = rgb
    rows = np.pad(points.view(np.uint8).reshape(height, width * points.itemsize), ((0, 0), (0, padding)))
    fields = [SimpleNamespace(name=name, offset=points.dtype.fields[name][1]) for name in points.dtype.names]
    return SimpleNamespace(
        header=header(0), fields=fields, height=height, width=width, point_step=points.itemsize,
        row_step=rows.shape[1], is_bigendian=order == ">", data=rows.ravel(),
    )  # fmt: skip


@pytest.mark.parametrize(("order", "padding"), [("<", 0), (">", 0), ("<", 7)])
def test_points(order: str, padding: int) -> None:
    places = np.arange(36, dtype=np.float32).reshape(3, 4, 3)
    places[1, 2] = np.nan
    positions, colors = read_points(cloud(places, order=order, padding=padding))
    assert np.array_equal(positions, np.delete(places.reshape(-1, 3), 6, axis=0))
    assert np.array_equal(colors, np.tile(np.uint8([1, 2, 3]), (11, 1)))


def test_of_many_points_some_are_shown_evenly() -> None:
    places = np.zeros((480, 640, 3), np.float32)
    places[..., 0], places[..., 1] = np.meshgrid(np.arange(640), np.arange(480))
    positions, _ = read_points(cloud(places))
    assert 30_000 < len(positions) <= 40_000
    assert set(positions[:, 0] % 3) == set(positions[:, 1] % 3) == {0}


def test_no_points() -> None:
    positions, colors = read_points(cloud(np.zeros((0, 4, 3), np.float32)))
    assert positions.shape == colors.shape == (0, 3)


@pytest.mark.parametrize(
    "change", [{"fields": []}, {"height": 7}, {"row_step": 8}, {"data": np.zeros(5, np.uint8)}, {"width": 5}]
)
def test_points_that_are_none_are_refused(change: dict[str, Any]) -> None:
    message = cloud(np.zeros((3, 4, 3), np.float32))
    vars(message).update(change)
    with pytest.raises(InvalidInputError, match="expected points with x, y, z, rgb"):
        read_points(message)


@pytest.mark.parametrize("text", ["", "{", "[]", "7", '{"name": "x"}', '{"name": "x", "classes": [{"id": 0}]}'])
def test_class_names_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(InvalidInputError, match="expected"):
        read_class_names(text)


def test_a_frame_is_shown_once_all_of_it_is_there_and_broken_ones_are_counted(tmp_path: Path) -> None:
    recorder = ViewRecorder(rr.FileSink(str(tmp_path / "x.rrd")), "test")
    view = OutputView(recorder, {"camera": ["image", "semantic"]})
    pictures = [message_of(number, np.full((4, 6, 3), 90, np.uint8), "rgb8") for number in range(4)]
    labels = [message_of(number, np.full((4, 6), number, np.uint8), "mono8") for number in range(4)]
    labels[2].encoding = "mono16"
    pictures[3].data = pictures[3].data[:5]
    for picture, label in zip(pictures, labels, strict=True):
        view.add("camera", "image", picture, START_NS)
        frames = recorder.frames
        view.add("camera", "semantic", label, START_NS + 100_000_000)
        assert recorder.frames == frames + (label.encoding == "mono8" and len(picture.data) > 5)
    view.add("camera", "points", cloud(np.ones((2, 2, 3), np.float32)), START_NS)
    view.add("", "class_names", SimpleNamespace(data="?"), START_NS)
    recorder.close()

    assert sorted(view.skipped.values()) == [1, 1, 1]
    shown = Recording(tmp_path / "x.rrd")
    assert [image[0, 0] for image in shown.labels("/camera/semantic")] == [0, 1]
    assert shown.column("/camera/points", "Points3D:positions") == [[[1.0, 1.0, 1.0]] * 4]
    assert shown.column("/camera/points", "stamp") == [START_NS + 123]
    assert shown.column("/camera/timings/stamp\\ to\\ outputs", "Scalars:scalars")[0] == [pytest.approx(99.999877)]


def test_a_full_disk_is_said() -> None:
    with pytest.raises(UnavailableError, match="expected Rerun to take all frames, got"):
        ViewRecorder(rr.FileSink("/dev/full"), "test").close()


def message_of(number: int, pixels: np.ndarray, encoding: str) -> Any:
    return STORE.deserialize_cdr(image_message(number, pixels, encoding=encoding).data, IMAGE)
