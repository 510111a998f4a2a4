# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Intrinsics, the organised cloud and the objects' boxes, beside plain implementations and on scenes of known depth."""

from __future__ import annotations

from dataclasses import astuple
from types import SimpleNamespace

import numpy as np
import pytest
import reference_geometry
from depth_scenes import CAMERA, Ball, Box, Scene, loosened, mask_boxes, measured
from hypothesis import given
from hypothesis import strategies as st

from rt_panoptic_ros.errors import InvalidInputError
from rt_panoptic_ros.geometry.boxes import IDENTITY, BoxFinder, Transform
from rt_panoptic_ros.geometry.cloud import POINT, cloud_layout, fill_cloud, metres
from rt_panoptic_ros.geometry.intrinsics import Intrinsics, scaled_info

SEEDS = st.integers(0, 2**32 - 1)


def info_of(height: int, width: int, **fields):
    """Return a CameraInfo as any message class holds it."""
    values = {
        "height": height, "width": width, "binning_x": 0, "binning_y": 0,
        "k": [500.0, 0, 310, 0, 510, 230, 0, 0, 1], "p": [400.0, 0, 300, -40, 0, 410, 220, 0, 0, 0, 1, 0],
        "roi": SimpleNamespace(x_offset=0, y_offset=0, height=0, width=0, do_rectify=False), "d": [],
        "distortion_model": "plumb_bob", **fields,
    }  # fmt: skip
    return SimpleNamespace(**values)


# Intrinsics ---------------------------------------------------------------------------------------------------------


def test_projection_comes_before_the_camera_matrix():
    assert Intrinsics.of(info_of(480, 640), (480, 640), (480, 640)) == Intrinsics(400, 410, 300, 220)
    unrectified = info_of(480, 640, p=[0.0] * 12)
    assert Intrinsics.of(unrectified, (480, 640), (480, 640)) == Intrinsics(500, 510, 310, 230)


def test_region_of_interest_and_binning_are_pinhole_camera_models():
    roi = SimpleNamespace(x_offset=100, y_offset=40, width=400, height=300, do_rectify=False)
    info = info_of(480, 640, roi=roi, binning_x=2, binning_y=3)
    assert astuple(Intrinsics.of(info, (100, 200), (100, 200))) == pytest.approx((200, 410 / 3, 100, 60))


@given(st.integers(1, 50), st.integers(1, 50), st.integers(1, 50), st.integers(1, 50), st.integers(1, 3))
def test_pixels_of_another_size_see_in_the_directions_of_those_they_are_taken_from(
    height, width, rows, columns, binned
):
    """Centres lie where nearest neighbours have them; the info that goes with the output says the same."""
    info = info_of(height * binned, width * binned, binning_x=binned, binning_y=binned)
    own, scaled = (Intrinsics.of(info, (height, width), size) for size in ((height, width), (rows, columns)))
    u, v = np.arange(columns), np.arange(rows)
    source_u, source_v = (u + 0.5) * width / columns - 0.5, (v + 0.5) * height / rows - 0.5
    np.testing.assert_allclose((u - scaled.cx) / scaled.fx, (source_u - own.cx) / own.fx, atol=1e-9)
    np.testing.assert_allclose((v - scaled.cy) / scaled.fy, (source_v - own.cy) / own.fy, atol=1e-9)
    told = scaled_info(info, (height, width), (rows, columns))
    if (rows, columns) == (height, width):
        assert told == {}
    else:
        whole = info_of(**{**told, "binning_x": 0, "binning_y": 0})
        again = Intrinsics.of(whole, (rows, columns), (rows, columns))
        np.testing.assert_allclose(astuple(again), astuple(scaled))
        assert told["p"][3] == pytest.approx(-40 * columns / width / binned)  # the baseline of a stereo camera


@pytest.mark.parametrize(
    ("info", "words"),
    [
        (info_of(480, 640, k=[0.0] * 9, p=[0.0] * 12), "P with 0 and 0, K with 0 and 0: calibrate"),
        (info_of(480, 640, p=[1.0, 0, 0, 0, 0, float("inf"), 0, 0, 0, 0, 1, 0]), "P with 1 and inf"),
        (info_of(480, 640, k=[float("nan")] * 9, p=[float("nan")] * 12), "calibrate"),
        (info_of(720, 1280), "480x640 px, got one for 720x1280"),
    ],
)
def test_an_info_that_does_not_fit_is_one_sentence(info, words):
    with pytest.raises(InvalidInputError, match=words):
        Intrinsics.of(info, (480, 640), (240, 320))


# The cloud ----------------------------------------------------------------------------------------------------------


@given(SEEDS, st.integers(1, 40), st.integers(1, 40), st.sampled_from([np.uint16, np.float32]))
def test_cloud_is_the_reference(seed, height, width, kind):
    random = np.random.default_rng(seed)
    size = height, width
    depth = random.integers(0, 9000, size).astype(kind)
    if kind is np.float32:
        depth /= 1000
        depth.flat[random.integers(0, depth.size, 5)] = [np.nan, np.inf, -np.inf, -1, 0]
    rgb, labels = random.integers(0, 256, (*size, 3), np.uint8), random.integers(0, 256, (2, *size), np.uint8)
    instance = random.integers(0, 2**16, size).astype(np.uint16)
    intrinsics = Intrinsics(*random.uniform(1, 900, 4))
    cloud = np.full(size, 255, POINT)
    fill_cloud(cloud, metres(depth), rgb, labels[0], instance, labels[1], intrinsics)
    expected = reference_geometry.cloud(depth, rgb, labels[0], instance, labels[1], intrinsics)
    for name in POINT.names:
        np.testing.assert_allclose(cloud[name], expected[name], rtol=1e-5, atol=1e-6)


def test_cloud_is_the_same_in_bands():
    random = np.random.default_rng(3)
    depth = random.integers(0, 9000, (480, 640)).astype(np.uint16)
    rgb, labels = random.integers(0, 256, (480, 640, 3), np.uint8), depth.astype(np.uint8)
    cloud = np.empty((480, 640), POINT)
    fill_cloud(cloud, metres(depth), rgb, labels, depth, labels, CAMERA)
    expected = reference_geometry.cloud(depth, rgb, labels, depth, labels, CAMERA)
    np.testing.assert_allclose(cloud["y"], expected["y"], rtol=1e-5, atol=1e-6)
    for name in ("rgb", "class", "instance", "confidence"):
        np.testing.assert_array_equal(cloud[name], expected[name])


def test_layout_says_where_the_fields_lie():
    layout = cloud_layout((3, 4))
    assert {field["name"]: (field["offset"], field["datatype"]) for field in layout["fields"]} == {
        "x": (0, 7), "y": (4, 7), "z": (8, 7), "rgb": (12, 7), "class": (16, 2), "confidence": (17, 2),
        "instance": (18, 4),
    }  # fmt: skip
    assert (layout["point_step"], layout["row_step"], layout["is_dense"]) == (20, 80, False)


# Boxes --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finder():
    return BoxFinder()


def found(finder, depth, instance, camera=CAMERA, transform=IDENTITY):
    ids, boxes = mask_boxes(instance)
    return finder.find(metres(depth), instance, ids, boxes, camera, transform)


@given(SEEDS, st.integers(5, 120), st.integers(5, 120), st.floats(0, 0.9), st.booleans())
def test_boxes_are_the_reference(finder, seed, height, width, holes, is_turned):
    """On scraps of surfaces, steps, noise and holes, under masks of any form."""
    random = np.random.default_rng(seed)
    size = height, width
    v, u = np.indices(size) / 100
    depth = random.uniform(0.3, 8) + random.uniform(-2, 2) * u + random.uniform(-2, 2) * v
    depth += random.choice([0, 0.001, 0.05]) * random.standard_normal(size)
    depth += (u > random.uniform(0, u.max())) * random.uniform(0, 4)
    depth = np.where(random.random(size) < holes, 0, np.maximum(depth, 0)).astype(np.float32)
    instance = (random.integers(0, 4, (height // 4 + 1, width // 4 + 1)).repeat(4, 0).repeat(4, 1))[:height, :width]
    instance = instance.astype(np.uint16)
    camera = Intrinsics(*random.uniform(200, 600, 2), *random.uniform(-20, 150, 2))
    transform = IDENTITY
    if is_turned:
        transform = Transform.of_quaternion(tuple(random.standard_normal(4)), random.uniform(-3, 3, 3))
    ids, boxes = mask_boxes(instance)
    result = finder.find(metres(depth), instance, ids, boxes, camera, transform)
    expected = {
        row: ends
        for row, number in enumerate(ids)
        if (ends := reference_geometry.object_box(metres(depth), instance == number, boxes[row], camera, transform))
        is not None
    }
    assert result.rows.tolist() == list(expected)
    for place, ends in enumerate(expected.values()):
        low, high = ends.T
        np.testing.assert_allclose(result.centers[place], (low + high) / 2, atol=2e-3)
        np.testing.assert_allclose(result.sizes[place], high - low, atol=4e-3)


SCENES = {
    "front": Scene((Box((0, 0, 3.25), (0.6, 0.8, 0.5)),)),
    "turned": Scene((Box((0.3, 0.1, 3.2), (0.6, 0.8, 0.5), 0.6),)),
    "plane": Scene((Box((0, 0, 3), (1.2, 0.8, 0.001), 0.7),)),
    "near": Scene((Box((0, 0, 1.5), (1.0, 0.9, 0.4), 0.3),)),
    "behind a pole": Scene((Box((0, 0, 3.25), (0.8, 0.8, 0.5), 0.6), Box((0, 0, 2), (0.05, 2, 0.05)))),
}  # fmt: skip


@pytest.mark.parametrize("name", SCENES)
def test_boxes_and_planes_are_within_2_cm_and_a_tenth(finder, name):
    scene = SCENES[name]
    center, size = scene.visible_box(0)
    for noise, loose_px in ((0.0, 0), (0.0, 4), (0.01, 0), (0.01, 4)):
        depth = measured(scene.depth, noise=noise, holes=10 * noise, flying=noise > 0)
        boxes = found(finder, depth, loosened(scene.instance, loose_px))
        assert np.abs(boxes.centers[0] - center).max() < 0.02, (noise, loose_px)
        assert (np.abs(boxes.sizes[0] - size) <= np.maximum(0.1 * size, 0.02)).all(), (noise, loose_px)


def test_balls_are_within_2_cm_and_a_tenth_across(finder):
    """Of a ball's depth, the pixels at its outline show the last third, and those are the flying ones."""
    scene = Scene((Ball((0.2, -0.1, 3.3), 0.3),))
    center, size = scene.visible_box(0)
    for noise in (0.0, 0.01):
        boxes = found(finder, measured(scene.depth, noise=noise, holes=10 * noise, flying=noise > 0), scene.instance)
        assert np.abs(boxes.centers[0] - center).max() < 0.02
        assert (np.abs(boxes.sizes[0] - size) <= [0.1, 0.1, 0.2] * size).all()


def test_without_noise_a_box_has_its_size_along_the_axes_of_any_frame(finder):
    """Nearly: few pixels show where a corner ends."""
    scene = SCENES["turned"]
    surface = scene.surface(0)
    for seed in range(12):
        random = np.random.default_rng(seed)
        turn = Transform.of_quaternion(tuple(random.standard_normal(4)), random.uniform(-9, 9, 3))
        boxes = found(finder, scene.depth, scene.instance, transform=turn)
        points = surface @ turn.rotation.T + turn.translation
        assert np.abs(boxes.centers[0] - (points.min(0) + points.max(0)) / 2).max() < 0.04
        assert (np.abs(boxes.sizes[0] - np.ptp(points, axis=0)) < 0.08 * np.ptp(points, axis=0)).all()


def test_objects_without_enough_depth_are_left_out(finder):
    scene = Scene((Box((-0.5, 0, 3), (0.4, 0.4, 0.1)), Box((0.5, 0, 3), (0.4, 0.4, 0.1))))
    depth = scene.depth.copy()
    depth[scene.instance == 1] = np.nan
    depth[np.nonzero(scene.instance == 1)[0][0], np.nonzero(scene.instance == 1)[1][:15]] = 3
    assert found(finder, depth, scene.instance).rows.tolist() == [1]
    none = finder.find(depth, scene.instance, np.zeros(0, np.uint16), np.zeros((0, 4), np.int32), CAMERA)
    assert (none.centers.shape, none.sizes.shape) == ((0, 3), (0, 3))


@given(SEEDS, st.sampled_from([1e-45, 1e-30, 1.0, 1e30, 3e38]))
def test_no_depth_is_too_strange(finder, seed, scale):
    random = np.random.default_rng(seed)
    depth = (random.random((40, 40)) ** random.integers(0, 9) * scale).astype(np.float32)
    boxes = found(finder, depth, np.ones((40, 40), np.uint16))
    assert len(boxes.rows) <= 1


def test_results_do_not_depend_on_bands_or_company(finder, monkeypatch):
    scene = Scene(tuple(Box((-1 + 0.5 * i, 0, 3 + 0.2 * i), (0.3, 0.4, 0.3), 0.3 * i) for i in range(5)))
    depth = measured(scene.depth)
    together = found(finder, depth, scene.instance)
    for number in range(1, 6):
        alone = found(BoxFinder(), depth, np.where(scene.instance == number, number, 0).astype(np.uint16))
        np.testing.assert_array_equal(alone.centers[0], together.centers[number - 1])
        np.testing.assert_array_equal(alone.sizes[0], together.sizes[number - 1])


def test_quaternion_is_its_rotation():
    """A quarter turn about z takes x to y."""
    turn = Transform.of_quaternion((0, 0, 2**0.5, 2**0.5), np.array([1, 2, 3]))
    np.testing.assert_allclose(turn.rotation @ [1, 0, 0] + turn.translation, [1, 3, 3], atol=1e-12)
