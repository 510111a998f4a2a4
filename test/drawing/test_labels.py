# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Labels at objects: contrast, names, place and size."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rt_panoptic_ros.drawing.color_vision import luminance
from rt_panoptic_ros.drawing.labels import draw_labels, drawable_name, place_labels, readable_inks
from rt_panoptic_ros.drawing.overlay import instance_colors
from rt_panoptic_ros.model.class_table import available_class_tables, load_class_table, parse_class_table
from rt_panoptic_ros.records import DetectionTable, PanopticResult
from rt_panoptic_ros.settings import PALETTES


def contrast(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """WCAG 2's contrast ratio."""
    one, other = luminance(first), luminance(second)
    return (np.maximum(one, other) + 0.05) / (np.minimum(one, other) + 0.05)


class TestText:
    def test_the_contrast_of_known_colours(self) -> None:
        white = np.full(3, 255)
        for color, ratio in (((0, 0, 0), 21.0), ((119, 119, 119), 4.48), ((255, 0, 0), 4.0), (white, 1.0)):
            assert contrast(np.array(color), white) == pytest.approx(ratio, abs=0.005)

    def test_ink_can_be_read_on_any_plate(self) -> None:
        steps = np.arange(0, 256, 5)
        plates = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(-1, 3).astype(np.uint8)
        inks = readable_inks(plates)
        assert {tuple(ink) for ink in inks.tolist()} == {(0, 0, 0), (255, 255, 255)}
        assert contrast(plates, inks).min() >= 4.5

    @pytest.mark.parametrize("table", available_class_tables())
    @pytest.mark.parametrize("palette", PALETTES)
    def test_ink_can_be_read_on_every_shade_of_every_class(self, table: str, palette: str) -> None:
        classes = load_class_table(table)
        for class_id in classes.thing_ids:
            shades = instance_colors(np.full(100, class_id), np.arange(1, 101), classes, palette)
            assert contrast(shades, readable_inks(shades)).min() >= 4.5

    @pytest.mark.parametrize("table", available_class_tables())
    def test_no_name_of_a_shipped_table_is_changed(self, table: str) -> None:
        for entry in load_class_table(table).classes:
            assert drawable_name(entry.name, entry.id) == entry.name

    def test_other_names_stay_words(self) -> None:
        names = ("Fahrrad über", "Ampel", "Straße", "汽车", "", "a\nb")
        drawn = [drawable_name(name, 7) for name in names]
        assert drawn == ["Fahrrad uber", "Ampel", "class 7", "class 7", "class 7", "class 7"]

    @pytest.mark.parametrize(("height", "width"), [(360, 480), (1024, 2048)])
    def test_text_is_as_tall_as_the_image_asks_and_whole(self, height: int, width: int) -> None:
        rows = [{"id": 0, "name": "gjpqy W", "thing": True, "color": [0, 0, 0]}]
        overlay = np.full((height, width, 3), 90, np.uint8)
        box = np.array([[width - 40, 0, width - 1, height - 1]], np.int32)
        table = DetectionTable(
            np.zeros(1, np.uint8), np.full(1, 0.55, np.float32), box.astype(np.float32), box, np.ones(1, np.uint32)
        )
        instance = np.zeros((height, width), np.uint16)
        instance[0, width - 40 :] = 1
        result = PanopticResult(np.zeros((height, width), np.uint8), instance, table)
        shade = np.array([[0, 0, 200]], np.uint8)
        draw_labels(overlay, result, parse_class_table({"name": "x", "classes": rows}), shade)
        ys, xs = np.nonzero((overlay != 90).any(axis=2))
        plate = overlay[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1]
        assert (plate != 90).any(axis=2).all()  # one rectangle, so nothing of it is cut off
        ink = np.abs(plate.astype(int) - shade[0]).max(axis=2) > 120
        assert not ink[0].any()
        assert not ink[-1].any()
        assert not ink[:, 0].any()
        assert not ink[:, -1].any()
        text_height = np.flatnonzero(ink.any(axis=1)).max() - np.flatnonzero(ink.any(axis=1)).min() + 1
        assert text_height >= max(8, (height * width) ** 0.5 / 72)  # with descenders


class TestPlaces:
    @settings(max_examples=150, deadline=None)
    @given(
        starts=st.lists(st.tuples(st.integers(0, 479), st.integers(0, 359)), min_size=1, max_size=40),
        extent=st.tuples(st.integers(0, 200), st.integers(0, 200)),
    )
    def test_labels_lie_inside_apart_and_at_their_objects(
        self, starts: list[tuple[int, int]], extent: tuple[int, int]
    ) -> None:
        firsts = np.array(starts, np.int32)
        boxes = np.concatenate([firsts, np.minimum(firsts + extent, (479, 359))], axis=1).astype(np.int32)
        anchors, sizes = boxes[:, [0, 2]].mean(axis=1).astype(np.int32), np.tile((83, 14), (len(boxes), 1))
        corners = place_labels(boxes, anchors, sizes, (360, 480))
        shown = corners[:, 0] >= 0
        assert shown[0]  # the best object always has its label
        np.testing.assert_array_equal(corners[~shown], -1)
        corners, boxes = corners[shown], boxes[shown]
        assert (corners >= 0).all()
        assert (corners + sizes[0] <= (480, 360)).all()
        assert (corners <= boxes[:, 2:] + 1).all()
        assert (corners + sizes[0] >= boxes[:, :2]).all()  # touches its object's box
        canvas = np.zeros((360, 480), int)
        for x, y in corners:
            canvas[y : y + 14, x : x + 83] += 1
        assert canvas.max() == 1

    def test_above_then_inside_then_below_then_nowhere(self) -> None:
        """Four poles beside each other, with labels as wide as the image, so that only the height is free."""
        boxes = np.array([(x, 300, x + 3, 699) for x in (10, 30, 50, 70)], np.int32)
        arguments = (boxes, boxes[:, 0], np.tile((100, 10), (4, 1)), (1000, 100))
        corners = place_labels(*arguments)
        assert corners.tolist() == [[0, 290], [0, 300], [0, 700], [-1, -1]]
        np.testing.assert_array_equal(place_labels(*arguments), corners)

    def test_a_small_object_is_not_hidden_by_its_own_label(self) -> None:
        boxes = np.array([[0, 36, 99, 37], [40, 40, 50, 44]], np.int32)  # the first label takes the place above both
        corners = place_labels(boxes, np.array([50, 45]), np.array([[100, 10], [30, 14]]), (100, 100))
        assert corners.tolist() == [[0, 26], [30, 45]]

    def test_a_lone_label_lies_above_its_object_and_leaves_the_neighbour_free(self) -> None:
        box, size = np.array([[100, 100, 160, 200]], np.int32), np.array([[60, 14]])
        np.testing.assert_array_equal(place_labels(box, np.array([130]), size, (360, 480)), [[100, 86]])
        crowded = np.array([[100, 100, 160, 200], [95, 80, 165, 99]], np.int32)  # a small one just above
        sizes = np.array([[60, 14], [60, 14]])
        first, _ = place_labels(crowded, np.array([130, 130]), sizes, (360, 480))
        assert first[1] >= 100 or first[1] + 14 <= 80

    @pytest.mark.filterwarnings("error")
    def test_an_object_without_pixels_neither_hides_nor_is_hidden(self) -> None:
        boxes = np.array([[0, 0, -1, -1], [200, 100, 239, 199]])
        first, second = place_labels(boxes, np.array([0, 220]), np.array([[60, 14]] * 2), (360, 480))
        np.testing.assert_array_equal(first, [0, 0])
        np.testing.assert_array_equal(second, [190, 86])

    def test_a_label_larger_than_the_image_is_left_out(self) -> None:
        box = np.array([[3, 2, 12, 7]], np.int32)
        for size in ((17, 5), (5, 10)):
            np.testing.assert_array_equal(place_labels(box, np.array([7]), np.array([size]), (9, 16)), [[-1, -1]])


def test_what_is_drawn_in_a_crowd_covers_no_label() -> None:
    """Every shown plate is whole: its own colour or ink at each of its pixels."""
    random = np.random.default_rng(0)
    height, width, count = 360, 480, 60
    classes = load_class_table("coco")
    firsts = random.integers(0, (width - 40, height - 40), (count, 2))
    boxes = np.concatenate([firsts, firsts + random.integers(4, 40, (count, 2))], axis=1).astype(np.int32)
    instance = np.zeros((height, width), np.uint16)
    for row, (x_min, y_min, x_max, y_max) in reversed(list(enumerate(boxes))):
        instance[y_min : y_max + 1, x_min : x_max + 1] = row + 1
    kept = np.unique(instance[instance > 0]) - 1
    boxes = np.array([cv2.boundingRect((instance == row + 1).astype(np.uint8)) for row in kept], np.int32)
    boxes[:, 2:] += boxes[:, :2] - 1
    instance = (np.searchsorted(kept + 1, instance) + 1).astype(np.uint16) * (instance > 0)
    table = DetectionTable(
        random.choice(classes.thing_ids, len(kept)).astype(np.uint8), np.linspace(0.9, 0.3, len(kept)),
        boxes.astype(np.float32), boxes, np.ones(len(kept), np.uint32),
    )  # fmt: skip
    overlay = np.full((height, width, 3), 90, np.uint8)
    shades = random.integers(100, 256, (len(kept), 3)).astype(np.uint8)  # black ink, so that a plate is bright
    shades[:, 1] = 255
    result = PanopticResult(np.zeros((height, width), np.uint8), instance, table)
    draw_labels(overlay, result, classes, shades)
    whole = 0
    for shade in shades:
        ys, xs = np.nonzero((overlay == shade).all(axis=2))
        if not len(ys):
            continue
        plate = overlay[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1].astype(int)
        # Ink mixes the shade with black: every pixel is a darker shade of the plate's own colour.
        share = plate[..., 1:2] / shade[1]
        assert np.abs(plate - share * shade.astype(int)).max() <= 2
        whole += 1
    assert 15 < whole < len(kept)  # and some had no room
