# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The palettes: where their colours come from, and how well people tell them apart."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from rt_panoptic_ros.drawing.color_vision import lab, luminance
from rt_panoptic_ros.drawing.overlay import instance_colors
from rt_panoptic_ros.drawing.palettes import colorblind_colors, recolored
from rt_panoptic_ros.errors import InvalidInputError
from rt_panoptic_ros.model.class_table import ClassTable, load_class_table
from scripts.color_vision import DEFICIENCIES, closest_pair, simulated

OKABE_ITO = ((86, 180, 233), (240, 228, 66), (213, 94, 0))  # sky blue, yellow, vermillion
BLACK = np.zeros((1, 3), np.uint8)  # of the overlay's void

# Viénot, Brettel and Mollon 1999, on linear RGB: another model of the same eyes.
VIENOT = {
    "protanopia": [[0.11238, 0.88762, 0.0], [0.11238, 0.88762, 0.0], [0.00401, -0.00401, 1.0]],
    "deuteranopia": [[0.29275, 0.70725, 0.0], [0.29275, 0.70725, 0.0], [-0.02234, 0.02234, 1.0]],
}


def views(colors: np.ndarray) -> np.ndarray:
    """CIELAB of the colours to four eyes, (4, n, 3)."""
    return np.stack([lab(colors), *(lab(simulated(colors, deficiency)) for deficiency in DEFICIENCIES)])


def colors_of(classes: ClassTable) -> np.ndarray:
    return classes.colors[: len(classes)]


class TestColorVision:
    def test_cielab_of_known_colours(self) -> None:
        """Of sRGB's corners at D65, as colour calculators give them."""
        colors = np.array([(255, 255, 255), (0, 0, 0), (255, 0, 0), (0, 255, 0), (0, 0, 255), (119, 119, 119)])
        expected = [(100, 0, 0), (0, 0, 0), (53.24, 80.09, 67.20), (87.73, -86.18, 83.18), (32.30, 79.19, -107.86),
                    (50.03, 0, 0)]  # fmt: skip
        np.testing.assert_allclose(lab(colors), expected, atol=0.05)
        np.testing.assert_allclose(luminance(colors[:3]), [1, 0, 0.2126], atol=1e-4)

    @pytest.mark.parametrize("deficiency", DEFICIENCIES)
    def test_greys_look_grey_to_everyone(self, deficiency: str) -> None:
        greys = np.arange(256)[:, None].repeat(3, axis=1)
        np.testing.assert_allclose(simulated(greys, deficiency), greys, atol=0.5)

    def test_each_deficiency_confuses_what_it_is_known_for(self) -> None:
        red_green = np.array([(160, 100, 0), (100, 130, 0)])
        blue_green = np.array([(0, 130, 170), (0, 140, 130)])

        def shrinks(pair: np.ndarray, deficiency: str) -> float:
            return float(np.linalg.norm(np.diff(lab(simulated(pair, deficiency)), axis=0)) /
                         np.linalg.norm(np.diff(lab(pair), axis=0)))  # fmt: skip

        for deficiency in ("protanopia", "deuteranopia"):
            assert shrinks(red_green, deficiency) < 0.5 < shrinks(blue_green, deficiency)
        assert shrinks(blue_green, "tritanopia") < 0.5 < shrinks(red_green, "tritanopia")


class TestColorblind:
    def test_the_list_is_three_of_okabe_and_itos_then_always_the_farthest(self) -> None:
        steps = np.arange(0, 256, 15)
        grid = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(-1, 3)
        grid = grid[(lab(grid)[:, 0] > 22) & (lab(grid)[:, 0] < 97)]  # neither black nor white
        seen, taken = views(grid), views(np.concatenate([OKABE_ITO, BLACK]))
        expected = [np.array(color) for color in OKABE_ITO]
        distance = np.linalg.norm(seen[:, :, None] - taken[:, None], axis=3).min(axis=(0, 2))
        while len(expected) < 255:
            farthest = int(distance.argmax())
            expected.append(grid[farthest])
            np.minimum(distance, np.linalg.norm(seen - seen[:, farthest, None], axis=2).min(axis=0), out=distance)
        np.testing.assert_array_equal(colorblind_colors(255), expected)

    @pytest.mark.parametrize(("count", "promise"), [(11, 26.0), (20, 17.5), (60, 9.0), (150, 5.0), (255, 4.0)])
    def test_any_two_classes_and_void_look_different_to_every_eye(self, count: int, promise: float) -> None:
        assert closest_pair(np.concatenate([colorblind_colors(count), BLACK])) >= promise

    def test_another_model_of_the_eye_agrees(self) -> None:
        colors = np.concatenate([colorblind_colors(20), BLACK])
        for matrix in VIENOT.values():
            linear = np.where(colors <= 10, colors / 255 / 12.92, ((colors / 255 + 0.055) / 1.055) ** 2.4)
            seen = np.clip(linear @ np.transpose(matrix), 0, 1)
            view = lab(255 * np.where(seen <= 0.0031308, 12.92 * seen, 1.055 * seen ** (1 / 2.4) - 0.055))
            first, second = np.triu_indices(len(colors), 1)
            assert np.linalg.norm(view[first] - view[second], axis=1).min() >= 15.5

    @pytest.mark.parametrize(
        ("table", "official", "ours"), [("camvid", 6.1, 26.0), ("cityscapes", 3.4, 17.5), ("coco", 0.0, 5.5)]
    )
    def test_tables_gain(self, table: str, official: float, ours: float) -> None:
        classes = load_class_table(table)
        assert closest_pair(colors_of(classes)) == pytest.approx(official, abs=0.1)
        assert closest_pair(colors_of(recolored(classes, "colorblind"))) >= ours

    @pytest.mark.parametrize("table", ["camvid", "cityscapes"])
    def test_an_object_looks_like_its_own_class_to_every_eye(self, table: str) -> None:
        classes = load_class_table(table)
        known = views(colors_of(recolored(classes, "colorblind")))
        for class_id in classes.thing_ids:
            shades = instance_colors(np.full(200, class_id), np.arange(1, 201), classes, "colorblind")
            distances = np.linalg.norm(views(shades)[:, :, None] - known[:, None], axis=3)  # (4, 200, classes)
            assert distances[..., class_id].max() < 8  # half of what lies between two classes
            assert len(np.unique(shades, axis=0)) > 10

    @pytest.mark.parametrize("table", ["camvid", "cityscapes", "coco"])
    def test_only_colours_change_and_always_alike(self, table: str) -> None:
        classes = load_class_table(table)
        shown = recolored(classes, "colorblind")
        assert recolored(classes, "dataset") is classes
        assert (shown.names, shown.thing_ids) == (classes.names, classes.thing_ids)
        expected = {tuple(color) for color in colorblind_colors(len(classes)).tolist()}
        assert {entry.color for entry in shown.classes} == expected
        again = replace(classes, name="another")  # so that nothing is remembered of the first time
        assert recolored(again, "colorblind") == replace(shown, name="another")

    def test_an_unknown_palette_is_refused(self) -> None:
        with pytest.raises(InvalidInputError, match="dataset, colorblind, got 'rainbow'"):
            recolored(load_class_table("camvid"), "rainbow")
