# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Overlays and contact sheets: colours, outlines, labels and layout, read back from the pixels."""

from __future__ import annotations

import colorsys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rt_panoptic_ros.drawing.overlay import contact_sheet, instance_colors, render_overlay
from rt_panoptic_ros.drawing.palettes import recolored
from rt_panoptic_ros.errors import InvalidInputError
from rt_panoptic_ros.model.class_table import load_class_table
from rt_panoptic_ros.records import VOID, DetectionTable, PanopticResult

CAMVID = load_class_table("camvid")
ROAD, SKY, CAR, PEDESTRIAN = 3, 0, 8, 9


def scene(height: int, width: int, boxes: list[tuple[int, int, int, int, int]]) -> PanopticResult:
    """A road under the sky, its left eighth void, with rectangles (class, x_min, y_min, x_max, y_max inclusive)."""
    semantic = np.full((height, width), ROAD, np.uint8)
    semantic[: height // 2] = SKY
    semantic[:, : width // 8] = VOID
    instance = np.zeros((height, width), np.uint16)
    for number, (class_id, x_min, y_min, x_max, y_max) in enumerate(boxes, 1):
        semantic[y_min : y_max + 1, x_min : x_max + 1] = class_id
        instance[y_min : y_max + 1, x_min : x_max + 1] = number
    mask_boxes = np.array([box[1:] for box in boxes], np.int32).reshape(-1, 4)
    table = DetectionTable(
        class_ids=np.array([box[0] for box in boxes], np.uint8),
        scores=np.linspace(0.9, 0.5, len(boxes), dtype=np.float32),
        boxes=mask_boxes.astype(np.float32),
        mask_boxes=mask_boxes,
        areas=np.bincount(instance.ravel(), minlength=len(boxes) + 1)[1:].astype(np.uint32),
    )
    return PanopticResult(semantic, instance, table)


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def assert_mixed(drawn: np.ndarray, image: np.ndarray, color: np.ndarray, opacity: float) -> None:
    np.testing.assert_allclose(drawn, opacity * color.astype(float) + (1 - opacity) * image, atol=1)


class TestPixels:
    @pytest.mark.parametrize("opacity", [0.0, 0.3, 0.5, 1.0])
    def test_stuff_takes_its_class_colour_and_void_darkens(self, opacity: float) -> None:
        image, result = noise(60, 80), scene(60, 80, [])
        before = image.copy()
        overlay = render_overlay(image, result, CAMVID, opacity)
        assert (overlay.shape, overlay.dtype) == ((60, 80, 3), np.uint8)
        for value in (ROAD, SKY):
            where = result.semantic == value
            assert_mixed(overlay[where], image[where], CAMVID.colors[value], opacity)
        void = result.semantic == VOID
        assert_mixed(overlay[void], image[void], np.zeros(3), opacity)
        np.testing.assert_array_equal(image, before)

    def test_an_object_has_its_shade_inside_and_a_light_line_along_its_border(self) -> None:
        image, result = noise(360, 480), scene(360, 480, [(CAR, 200, 150, 300, 250), (CAR, 301, 150, 380, 250)])
        overlay = render_overlay(image, result, CAMVID)
        shades = instance_colors(np.array([CAR, CAR]), np.array([1, 2]), CAMVID)
        assert_mixed(overlay[152:249, 202:299], image[152:249, 202:299], shades[0], 0.5)
        assert_mixed(overlay[152:249, 303:379], image[152:249, 303:379], shades[1], 0.5)
        for line, shade in ((overlay[151:250, 200], shades[0]), (overlay[151:250, 300], shades[0]),
                            (overlay[151:250, 301], shades[1]), (overlay[250, 202:299], shades[0])):  # fmt: skip
            assert (line == line[0]).all()
            assert (line[0] >= shade).all()
            assert line[0].astype(int).sum() > shade.astype(int).sum() + 100
        # Nothing is drawn outside but the labels, which lie above the objects.
        np.testing.assert_array_equal(overlay[251:], render_overlay(image, scene(360, 480, []), CAMVID)[251:])

    @pytest.mark.parametrize(("height", "width", "line_px"), [(360, 480, 1), (720, 1280, 2), (1024, 2048, 2)])
    def test_lines_grow_with_the_image(self, height: int, width: int, line_px: int) -> None:
        result = scene(height, width, [(CAR, width // 3, height // 3, width // 2, height - 9)])
        row = render_overlay(np.full((height, width, 3), 90, np.uint8), result, CAMVID)[height - 30].astype(int)
        line, inside = row[width // 3], row[width // 3 + 20]
        assert (row[width // 3 : width // 3 + 20] == line).all(axis=1).sum() == line_px
        assert np.abs(line - inside).max() > 60

    def test_the_colorblind_palette_changes_the_colours_alone(self) -> None:
        image, result = noise(360, 480), scene(360, 480, [(CAR, 200, 150, 300, 250)])
        overlay = render_overlay(image, result, CAMVID, palette="colorblind")
        shown = recolored(CAMVID, "colorblind").colors
        for value in (ROAD, SKY):
            where = (result.semantic == value) & (np.arange(360) > 260)[:, None]
            assert_mixed(overlay[where], image[where], shown[value], 0.5)
        shade = instance_colors(np.array([CAR]), np.array([1]), CAMVID, "colorblind")[0]
        assert_mixed(overlay[152:249, 202:299], image[152:249, 202:299], shade, 0.5)
        with pytest.raises(InvalidInputError, match="dataset, colorblind, got 'rainbow'"):
            render_overlay(image, result, CAMVID, palette="rainbow")

    def test_stuff_borders_and_thing_pixels_without_an_object_have_no_line(self) -> None:
        result = scene(60, 80, [(CAR, 20, 20, 60, 50)])
        unclaimed = PanopticResult(result.semantic, np.zeros_like(result.instance), scene(60, 80, []).detections)
        image = noise(60, 80)
        assert_mixed(render_overlay(image, unclaimed, CAMVID), image, CAMVID.colors[result.semantic], 0.5)

    def test_views_of_any_memory_order_are_drawn_alike(self) -> None:
        image, result = noise(90, 120), scene(90, 120, [(CAR, 50, 50, 90, 80)])
        expected = render_overlay(image, result, CAMVID)
        bgr = np.ascontiguousarray(image[..., ::-1])
        wide = np.zeros((90, 200, 3), np.uint8)
        wide[:, :120] = image
        image.flags.writeable = False
        for view in (image, bgr[..., ::-1], wide[:, :120], np.asfortranarray(image)):
            np.testing.assert_array_equal(render_overlay(view, result, CAMVID), expected)

    @pytest.mark.parametrize(
        ("image", "opacity", "message"),
        [
            (np.zeros((60, 81, 3), np.uint8), 0.5, r"size \(60, 80\), got \(60, 81\)"),
            (np.zeros((60, 80), np.uint8), 0.5, "RGB"),
            (np.zeros((60, 80, 4), np.uint8), 0.5, "RGB"),
            (np.zeros((60, 80, 3), np.float32), 0.5, "float32"),
            (np.zeros((60, 80, 3), np.uint8), 1.5, "from 0 to 1, got 1.5"),
        ],
    )
    def test_what_does_not_fit_is_refused(self, image: np.ndarray, opacity: float, message: str) -> None:
        with pytest.raises(InvalidInputError, match=message):
            render_overlay(image, scene(60, 80, []), CAMVID, opacity)


class TestShades:
    def test_a_shade_depends_on_class_and_id_alone(self) -> None:
        many = instance_colors(np.array([CAR, PEDESTRIAN, CAR]), np.array([5, 6, 7]), CAMVID)
        np.testing.assert_array_equal(instance_colors(np.array([CAR]), np.array([7]), CAMVID), many[2:])

    @pytest.mark.parametrize("class_id", CAMVID.thing_ids)
    def test_neighbours_differ_and_stay_near_their_class(self, class_id: int) -> None:
        ids = np.arange(1, 13)
        shades = instance_colors(np.full(12, class_id), ids, CAMVID).astype(int)
        assert np.abs(np.diff(shades, axis=0)).max(axis=1).min() >= 20
        distances = np.abs(shades[:, None] - shades).max(axis=2) + 255 * np.eye(12, dtype=int)
        assert distances.min() >= 8
        hue = colorsys.rgb_to_hls(*(CAMVID.colors[class_id] / 255))[0]
        for shade in shades:
            turn = abs(colorsys.rgb_to_hls(*(shade / 255))[0] - hue)
            assert min(turn, 1 - turn) < 0.05


class TestLabels:
    @pytest.mark.parametrize(("height", "width"), [(360, 480), (720, 1280), (1024, 2048)])
    def test_each_object_has_a_label_of_readable_size(self, height: int, width: int) -> None:
        boxes = [
            (CAR, width // 4, height // 2, width // 2, height - 20),
            (PEDESTRIAN, width // 2 + 5, height // 2, width // 2 + 30, height // 2 + 60),
            (CAR, width - 30, 0, width - 1, 20),  # in the corner: the label must not leave the image
        ]
        result = scene(height, width, boxes)
        overlay = render_overlay(np.full((height, width, 3), 90, np.uint8), result, CAMVID)
        shades = instance_colors(result.detections.class_ids, np.arange(1, 4), CAMVID)
        areas = []
        for shade in shades:
            rows, columns = np.nonzero((overlay == shade).all(axis=2))  # only a label is unmixed
            assert len(rows) > 0
            label = overlay[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1].reshape(-1, 3).astype(int)
            assert label.shape[0] > 8 * 40
            inked = np.abs(label - shade.astype(int)).max(axis=1) > 60
            assert 0.08 < inked.mean() < 0.6
            areas.append(label.shape[0])
        assert areas[0] < 0.02 * height * width

    def test_an_image_smaller_than_its_labels_is_drawn(self) -> None:
        result = scene(9, 16, [(CAR, 3, 2, 12, 7)])
        assert render_overlay(noise(9, 16), result, CAMVID).shape == (9, 16, 3)

    def test_a_hundred_objects_of_one_pixel_are_drawn(self) -> None:
        result = scene(60, 80, [(PEDESTRIAN, i % 10 * 7, i // 10 * 5, i % 10 * 7, i // 10 * 5) for i in range(100)])
        assert render_overlay(noise(60, 80), result, CAMVID).shape == (60, 80, 3)


class TestContactSheet:
    @settings(max_examples=40, deadline=None)
    @given(
        shapes=st.lists(st.tuples(st.integers(1, 60), st.integers(1, 60)), min_size=1, max_size=7),
        columns=st.integers(1, 5),
        width_px=st.integers(120, 700),
    )
    def test_the_sheet_is_as_wide_as_asked(self, shapes: list[tuple[int, int]], columns: int, width_px: int) -> None:
        sheet = contact_sheet([np.zeros((*shape, 3), np.uint8) for shape in shapes], columns, width_px)
        assert sheet.shape[1:] == (width_px, 3)

    @pytest.mark.parametrize(
        "captions", [None, ["first", "second, which is far too long for its picture" * 3, "", "x", "y"]]
    )
    def test_images_lie_row_by_row_at_equal_size(self, captions: list[str] | None) -> None:
        colors = [(200, 0, 0), (0, 200, 0), (0, 0, 200), (200, 200, 0), (0, 200, 200)]
        images = [np.full((30, 40, 3), color, np.uint8) for color in colors]
        sheet = contact_sheet(images, 3, 600, captions)
        centers = []
        for color in colors:
            rows, columns = np.nonzero((sheet == color).all(axis=2))
            height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
            assert len(rows) == height * width  # whole, nothing written over it
            assert abs(width - 195) <= 2
            assert abs(height - width * 3 / 4) <= 1
            centers.append((rows.mean(), columns.mean()))
        assert centers[0][0] == centers[1][0] == centers[2][0] < centers[3][0] == centers[4][0]
        assert centers[0][1] < centers[1][1] < centers[2][1]
        assert centers[3][1] == pytest.approx(centers[0][1], abs=1)

    def test_captions_are_written_below_their_images(self) -> None:
        images = [np.zeros((30, 40, 3), np.uint8)] * 2
        plain, lettered = contact_sheet(images, 2, 600), contact_sheet(images, 2, 600, ["a car", ""])
        ink = (lettered > 110).all(axis=2)
        assert not (plain > 110).any()
        assert len(lettered) > len(plain)
        rows, columns = np.nonzero(ink)
        assert len(rows) > 20
        assert rows.min() > 200  # below the picture
        assert columns.max() < 300  # and only at the first

    def test_what_cannot_be_laid_out_is_refused(self) -> None:
        image = np.zeros((4, 4, 3), np.uint8)
        for images, columns, width_px, captions, message in (
            ([], 3, 600, None, "at least one image"),
            ([image], 0, 600, None, "columns"),
            ([image], 500, 600, None, "columns"),
            ([image], 1, 600, [], "1 captions"),
            ([image[..., 0]], 1, 600, None, "RGB"),
        ):
            with pytest.raises(InvalidInputError, match=message):
                contact_sheet(images, columns, width_px, captions)
