# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Colours and sharpness change, labels don't."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rt_panoptic_ros.datasets.base import PanopticSample
from rt_panoptic_ros.datasets.photometric import color_jitter, degrade

GREY_WEIGHTS = np.array([0.299, 0.587, 0.114])


def picture(seed: int, height: int = 20, width: int = 30) -> PanopticSample:
    """Random colours, and an object of class 3."""
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    instance = np.zeros((height, width), np.int32)
    instance[3:9, 4:7] = 1
    semantic = (3 * instance).astype(np.uint8)
    return PanopticSample("a", 1, image, semantic, instance, np.full(1, 3, np.uint8), np.zeros(1, bool))


def assert_same_labels(left: PanopticSample, right: PanopticSample) -> None:
    for name in PanopticSample.__dataclass_fields__.keys() - {"image"}:
        np.testing.assert_array_equal(getattr(left, name), getattr(right, name))


class TestColorJitter:
    @given(seed=st.integers(0, 1000), limits=st.tuples(*[st.floats(0, 1)] * 3).filter(any))
    def test_factors_act_one_after_the_other(self, seed: int, limits: tuple[float, float, float]) -> None:
        sample = picture(seed)
        changed = color_jitter(sample, np.random.default_rng(seed), *limits)
        rng = np.random.default_rng(seed)
        brightness, contrast, saturation = (rng.uniform(1 - x, 1 + x) for x in limits)
        expected = sample.image * brightness
        expected = contrast * expected + (1 - contrast) * (expected @ GREY_WEIGHTS).mean()
        expected = saturation * expected + (1 - saturation) * (expected @ GREY_WEIGHTS)[..., None]
        assert np.abs(changed.image - np.clip(expected, 0, 255)).max() <= 1
        assert changed.image.dtype == np.uint8
        assert_same_labels(changed, sample)

    def test_nothing_asked_is_nothing_done(self) -> None:
        sample, rng = picture(1), np.random.default_rng(0)
        assert color_jitter(sample, rng, 0, 0, 0) is sample
        assert rng.random() == np.random.default_rng(0).random()

    @given(seed=st.integers(0, 1000))
    def test_hue_keeps_greys_and_the_grey_value(self, seed: int) -> None:
        sample = picture(seed)
        sample.image[:] = 100 + sample.image // 8  # so that nothing is clipped
        sample.image[:9] = sample.image[:9, :, :1]
        changed = color_jitter(sample, np.random.default_rng(seed), 0, 0, 0, hue=90).image.astype(int)
        np.testing.assert_allclose(changed[:9], sample.image[:9], atol=1)
        np.testing.assert_allclose(changed @ GREY_WEIGHTS, sample.image @ GREY_WEIGHTS, atol=2)

    def test_half_a_turn_makes_red_a_blue_green(self) -> None:
        sample = replace(picture(1), image=np.full((9, 9, 3), (150, 100, 100), np.uint8))
        angles = [color_jitter(sample, np.random.default_rng(seed), 0, 0, 0, hue=180).image[0, 0] for seed in range(99)]
        red, _, blue = min(angles, key=lambda color: int(color[0])).tolist()
        assert red < 100 < blue

    def test_grey_has_no_colour(self) -> None:
        image = color_jitter(picture(1), np.random.default_rng(1), 0.3, 0.3, 0.3, grey_probability=1).image.astype(int)
        assert np.ptp(image, axis=-1).max() <= 1

    def test_gamma_keeps_black_and_white_and_goes_both_ways(self) -> None:
        sample = replace(picture(1), image=np.array([[[0, 128, 255]]], np.uint8))
        images = [color_jitter(sample, np.random.default_rng(seed), 0, 0, 0, gamma=1).image for seed in range(50)]
        assert {(int(image[0, 0, 0]), int(image[0, 0, 2])) for image in images} == {(0, 255)}
        middles = [int(image[0, 0, 1]) for image in images]
        assert 64 <= min(middles) < 80
        assert 160 < max(middles) <= 181  # 255 * (128 / 255)^2 and ^(1/2)


class TestDegrade:
    def test_nothing_asked_is_nothing_done(self) -> None:
        sample, rng = picture(1), np.random.default_rng(0)
        assert degrade(sample, rng, 0, 0, 100) is sample
        assert rng.random() == np.random.default_rng(0).random()

    @pytest.mark.parametrize("values", [(3, 0, 100), (0, 20, 100), (0, 0, 5), (3, 20, 5)])
    @given(seed=st.integers(0, 1000))
    def test_labels_stay_and_the_same_generator_gives_the_same(
        self, values: tuple[float, float, int], seed: int
    ) -> None:
        sample = picture(seed)
        before = sample.image.copy()
        changed = degrade(sample, np.random.default_rng(seed), *values)
        assert changed.image.dtype == np.uint8
        assert_same_labels(changed, sample)
        np.testing.assert_array_equal(sample.image, before)
        np.testing.assert_array_equal(degrade(sample, np.random.default_rng(seed), *values).image, changed.image)

    def test_about_half_of_the_images_are_changed(self) -> None:
        sample = picture(1)
        for values in ((3, 0, 100), (0, 20, 100), (0, 0, 5)):
            kept = [degrade(sample, np.random.default_rng(seed), *values) is sample for seed in range(200)]
            assert np.mean(kept) == pytest.approx(0.5, abs=0.1)

    def test_noise_is_grey_and_as_strong_as_asked(self) -> None:
        sample = replace(picture(1), image=np.full((200, 200, 3), 128, np.uint8))
        images = [degrade(sample, np.random.default_rng(seed), 0, 10, 100).image.astype(int) for seed in range(60)]
        assert all((np.ptp(image, axis=-1) == 0).all() for image in images)
        strengths = [image.std() for image in images]
        assert 8 < max(strengths) <= 10.5
        assert max(abs(image.mean() - 128) for image in images) < 0.3

    def test_blur_and_compression_take_detail(self) -> None:
        sample = picture(1, 100, 100)
        for values in ((3, 0, 100), (0, 0, 5)):
            images = [degrade(sample, np.random.default_rng(seed), *values).image for seed in range(20)]
            assert min(image.std() for image in images) < 0.7 * sample.image.std()
            assert np.allclose([image.mean() for image in images], sample.image.mean(), atol=3)
