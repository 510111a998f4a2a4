# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Outputs made with a bag's depth: matched in the order of the bag, the same bytes wherever a run was stopped."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from bag_cases import (
    PERIOD_NS,
    START_NS,
    STORE,
    TYPES,
    Message,
    by_topic,
    contents,
    image_message,
    make_bag,
    picture,
    stamp_of,
)

from rt_panoptic_ros.errors import InvalidInputError
from rt_panoptic_ros.geometry.cloud import POINT

if TYPE_CHECKING:
    from pathlib import Path

    from bag_cases import Label

SIZE = 40, 240
FRAMES = 6
INFO = "sensor_msgs/msg/CameraInfo"
OUTPUTS = ("semantic", "camera_info", "points", "detections_3d", "depth_filtered")
TOPICS: dict[str, Any] = {"depth": ("/camera/aligned",), "camera_info": ("/camera/camera_info",)}


def depth_message(number: int, late_ns: int = 3_000_000, received_ns: int = 8_000_000, size=SIZE) -> Message:
    """Return depth for image `number`, all of it 1 + number m away, stamped and received later than the image."""
    stamped = image_message(number, np.full(size, 1000 * (1 + number), np.uint16), "/camera/aligned", "16UC1")
    message: Any = STORE.deserialize_cdr(stamped.data, stamped.kind)
    stamp_ns = START_NS + number * PERIOD_NS + 123 + late_ns
    message.header.stamp.sec, message.header.stamp.nanosec = stamp_ns // 10**9, stamp_ns % 10**9
    data = bytes(STORE.serialize_cdr(message, stamped.kind))
    return Message(stamped.topic, stamped.kind, data, START_NS + number * PERIOD_NS + received_ns)


def info_message(size=SIZE) -> Message:
    height, width = size
    region = TYPES["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False)
    header: Any = STORE.deserialize_cdr(image_message(0, picture(0)).data, "sensor_msgs/msg/Image")
    info = TYPES[INFO](
        header=header.header, height=height, width=width, distortion_model="plumb_bob", d=np.zeros(5),
        k=np.array([100.0, 0, 120, 0, 100, 20, 0, 0, 1]), r=np.eye(3).ravel(),
        p=np.array([100.0, 0, 120, 0, 0, 100, 20, 0, 0, 0, 1, 0]), binning_x=0, binning_y=0, roi=region,
    )  # fmt: skip
    return Message("/camera/camera_info", INFO, bytes(STORE.serialize_cdr(info, INFO)), START_NS + 20_000_000)


def recording(path: Path, depths: dict[int, Message] | None = None) -> Path:
    """Make a bag of images, each followed by its depth, whose camera_info comes behind the first image."""
    if depths is None:
        depths = {number: depth_message(number) for number in range(FRAMES)}
    images = [image_message(number, picture(number)) for number in range(FRAMES)]
    return make_bag(path, sorted([*images, *depths.values(), info_message()], key=lambda message: message.time_ns))


def read_outputs(out: Path, output: str) -> list[Any]:
    return [message for _, message in by_topic(out)[f"/panoptic_node/{output}"]]


def test_every_image_has_its_depth(label: Label, tmp_path: Path) -> None:
    summary = label(recording(tmp_path / "in"), tmp_path / "out", outputs=OUTPUTS, **TOPICS)
    assert summary.missing == {}
    clouds = read_outputs(tmp_path / "out", "points")
    assert len(clouds) == len(read_outputs(tmp_path / "out", "detections_3d")) == FRAMES
    for number, cloud in enumerate(clouds):
        points = cloud.data.view(POINT).reshape(SIZE)
        np.testing.assert_allclose(points["z"], 1 + number)
        np.testing.assert_allclose(points["x"][0], (np.arange(240) - 120) / 100 * (1 + number), atol=1e-5)
        assert points["rgb"][0, 0] == int.from_bytes(picture(number)[0, 0].tobytes(), "big")
    (info, *_) = read_outputs(tmp_path / "out", "camera_info")
    assert stamp_of(info) == stamp_of(read_outputs(tmp_path / "out", "semantic")[0])
    assert (info.height, info.width, info.k[2]) == (*SIZE, 120)
    filtered = read_outputs(tmp_path / "out", "depth_filtered")[2]
    assert (filtered.encoding, set(filtered.data.view(np.uint16)) - {0}) == ("16UC1", {3000})


def test_late_depth_is_waited_for_and_frames_without_are_told(label: Label, tmp_path: Path) -> None:
    """Depth 1 comes behind image 2, depth 3 never, depth 4 is too late for image 4."""
    depths = {number: depth_message(number) for number in (0, 2, 5)}
    depths[1] = depth_message(1, received_ns=PERIOD_NS + 7_000_000)
    depths[4] = depth_message(4, late_ns=20_000_001)
    summary = label(recording(tmp_path / "in", depths), tmp_path / "out", outputs=("semantic", "points"), **TOPICS)
    ((topic, why), count), *others = summary.missing.items()
    assert (topic, count, others) == ("/camera/image_raw", 2, [])
    assert why.startswith("points: expected depth within 20 ms")
    assert f"2 frames without {why}" in summary.format()
    depth_m = [cloud.data.view(POINT)["z"][0] for cloud in read_outputs(tmp_path / "out", "points")]
    np.testing.assert_allclose(depth_m, [1, 2, 3, 6])
    assert len(read_outputs(tmp_path / "out", "semantic")) == FRAMES


class StoppedError(Exception):
    """Stands in for whatever ends a run."""


def test_a_stopped_run_goes_on_with_the_same_bytes(label: Label, tmp_path: Path) -> None:
    depths = {number: depth_message(number) for number in (0, 2, 4, 5)}
    depths[1] = depth_message(1, received_ns=2 * PERIOD_NS + 7_000_000)
    source = recording(tmp_path / "in", depths)
    options: dict[str, Any] = {"outputs": OUTPUTS, "tracking": True, **TOPICS}
    label(source, tmp_path / "whole" / "out", **options)
    for number in (1, 2, 5):

        def stop(doing: str, done: int, total: int, number: int = number) -> None:
            if (doing, done) == ("labelling", number):
                raise StoppedError

        out = tmp_path / str(number) / "out"
        with pytest.raises(StoppedError):
            label(source, out, stop, **options)
        assert label(source, out, **options).resumed == number
        assert contents(out) == contents(tmp_path / "whole" / "out")


def test_what_does_not_fit_is_one_sentence(label: Label, tmp_path: Path) -> None:
    source = recording(tmp_path / "in")
    for options, words in (
        ({}, r"expected depth \(sensor_msgs/msg/Image\) on /camera/depth, .* --depth, such as one of /camera/aligned"),
        ({"depth": ("/camera/camera_info",)}, "on /camera/camera_info, the bag has none there"),
        ({"depth": ("/a", "/b")}, "a topic for each of /camera/image_raw, got /a, /b"),
    ):
        with pytest.raises(InvalidInputError, match=words):
            label(source, tmp_path / "out", outputs=("depth_filtered",), **options)


def test_depth_of_another_size_is_told(label: Label, tmp_path: Path) -> None:
    source = recording(tmp_path / "in", {0: depth_message(0, size=(20, 120))})
    summary = label(source, tmp_path / "out", outputs=("semantic", "depth_filtered"), **TOPICS)
    assert any("40x240 px, got 20x120" in why and why.endswith("with --depth") for _, why in summary.missing)
    assert summary.problem.startswith(f"expected depth_filtered, none of {FRAMES} frames has it: expected depth within")
