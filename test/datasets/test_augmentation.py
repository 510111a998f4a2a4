# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Labels follow the image through every random view."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rt_panoptic_ros.datasets.augmentation import (
    AugmentationSettings,
    Donors,
    augment,
    crop_or_pad,
    flip_horizontally,
    mosaic,
    resize,
    without_hidden_instances,
)
from rt_panoptic_ros.datasets.base import PanopticSample, instance_boxes
from rt_panoptic_ros.datasets.copy_paste import CopyPasteSettings, CutOut, CutOutBank
from rt_panoptic_ros.errors import InvalidInputError
from rt_panoptic_ros.records import VOID

FILL = (VOID, 0, 77)
"""Says void and no object in the code of `coded_sample`, and in blue that it is padding."""


def coded_sample(seed: int, height: int, width: int) -> PanopticSample:
    """Blocks of random classes and objects; red is the class, green the object's number, blue 10."""
    rng = np.random.default_rng(seed)
    count = int(rng.integers(0, 12))
    classes = rng.integers(0, 20, count).astype(np.uint8)
    blocks = -(-height // 7), -(-width // 9)
    instance = np.kron(rng.integers(0, count + 1, blocks), np.ones((7, 9), int))[:height, :width].astype(np.int32)
    stuff = np.kron(rng.choice([30, 31, VOID], blocks), np.ones((7, 9), int))[:height, :width]
    semantic = np.where(instance > 0, np.concatenate(([0], classes))[instance], stuff).astype(np.uint8)
    image = np.stack([semantic, instance, np.full_like(instance, 10)], axis=-1).astype(np.uint8)
    return PanopticSample("frame", 7, image, semantic, instance, classes, rng.random(count) < 0.3)


samples = st.builds(coded_sample, seed=st.integers(0, 2**32 - 1), height=st.integers(1, 60), width=st.integers(1, 60))


def settings_of(**values: Any) -> AugmentationSettings:
    return AugmentationSettings(**values)


sizes = st.tuples(st.integers(1, 70), st.integers(1, 70))
wide_sizes = st.tuples(st.integers(2, 70), st.integers(2, 70))
scale_ranges = st.tuples(st.floats(0.3, 1), st.floats(1, 3))
views = st.one_of(
    st.builds(settings_of, scale_range=scale_ranges, flip_probability=st.just(0.5)),
    st.builds(settings_of, crop_size=sizes, scale_range=scale_ranges, flip_probability=st.just(0.5)),
    st.builds(settings_of, output_size=sizes, scale_range=scale_ranges, flip_probability=st.just(0.5)),
    st.builds(settings_of, output_size=sizes, base_size=sizes, scale_range=scale_ranges),
    st.builds(
        settings_of,
        shortest_sides=st.lists(st.integers(1, 50), min_size=1, max_size=3).map(tuple),
        longest_side=st.none() | st.integers(1, 60),
        flip_probability=st.just(0.5),
    ),
)


def assert_labels_are_coded(sample: PanopticSample) -> None:
    np.testing.assert_array_equal(sample.image[..., 0], sample.semantic)
    np.testing.assert_array_equal(sample.image[..., 1], sample.instance)


def assert_well_formed(sample: PanopticSample) -> None:
    assert (sample.image.dtype, sample.semantic.dtype, sample.instance.dtype) == (np.uint8, np.uint8, np.int32)
    assert sample.image.shape == (*sample.semantic.shape, 3)
    assert sample.semantic.shape == sample.instance.shape
    assert (sample.stem, sample.image_id) == ("frame", 7)
    assert len(sample.instance_classes) == len(sample.instance_crowd)
    assert sample.instance.max(initial=0) <= len(sample.instance_classes)
    for row, class_id in enumerate(sample.instance_classes, 1):
        assert set(sample.semantic[sample.instance == row]) <= {class_id}


def assert_equal(left: PanopticSample, right: PanopticSample) -> None:
    for name in PanopticSample.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(left, name), getattr(right, name))


class TestFlip:
    @given(sample=samples)
    def test_everything_is_mirrored_and_twice_is_nothing(self, sample: PanopticSample) -> None:
        flipped = flip_horizontally(sample)
        assert_well_formed(flipped)
        assert_labels_are_coded(flipped)
        np.testing.assert_array_equal(flipped.image, sample.image[:, ::-1])
        assert_equal(flip_horizontally(flipped), sample)


class TestCrop:
    @given(sample=samples, data=st.data(), size=sizes)
    def test_the_window_is_cut_out_and_the_rest_is_void(
        self, sample: PanopticSample, data: st.DataObject, size: tuple[int, int]
    ) -> None:
        rows, columns = sample.semantic.shape
        top, left = data.draw(st.integers(0, rows - 1)), data.draw(st.integers(0, columns - 1))
        window = crop_or_pad(sample, (top, left, *size), FILL)
        assert window.semantic.shape == size
        assert_well_formed(window)
        assert_labels_are_coded(window)
        inside = sample.image[top : top + size[0], left : left + size[1]]
        np.testing.assert_array_equal(window.image[: inside.shape[0], : inside.shape[1]], inside)
        padding = np.ones(size, bool)
        padding[: inside.shape[0], : inside.shape[1]] = False
        np.testing.assert_array_equal((window.image == FILL).all(axis=-1), padding)


class TestResize:
    @settings(deadline=None)
    @given(sample=samples, size=sizes)
    def test_labels_agree_with_the_image_away_from_borders(self, sample: PanopticSample, size: tuple[int, int]) -> None:
        resized = resize(sample, size)
        assert resized.semantic.shape == size
        assert_well_formed(resized)
        code = sample.semantic + 256 * sample.instance
        rows, columns = (
            np.floor((np.arange(new) + 0.5) * old / new).astype(int) for new, old in zip(size, code.shape, strict=True)
        )
        # A new pixel sees old ones as far as half its own size or the next centre, and its centre is in an old pixel.
        reach_y, reach_x = (
            int(np.ceil(0.5 + max(1, old / new / 2))) for new, old in zip(size, code.shape, strict=True)
        )
        padded = np.pad(code, ((reach_y, reach_y), (reach_x, reach_x)), mode="edge")
        around = np.lib.stride_tricks.sliding_window_view(padded, (2 * reach_y + 1, 2 * reach_x + 1))
        flat = (around.max(axis=(2, 3)) == around.min(axis=(2, 3)))[rows[:, None], columns]
        np.testing.assert_array_equal(resized.image[flat][:, 0], resized.semantic[flat])
        np.testing.assert_array_equal(resized.image[flat][:, 1], resized.instance[flat])

    @given(old=st.integers(2, 60), new=st.integers(1, 150), data=st.data(), vertical=st.booleans())
    def test_an_edge_stays_where_it_is_in_the_image(
        self, old: int, new: int, data: st.DataObject, vertical: bool
    ) -> None:
        """Half a pixel of shift between image and labels would show here."""
        edge = data.draw(st.integers(1, old - 1))
        semantic = np.tile((np.arange(old) >= edge).astype(np.uint8), (3, 1))
        semantic, size = (semantic.T, (new, 3)) if vertical else (semantic, (3, new))
        image = np.repeat(200 * semantic[..., None], 3, axis=-1)
        sample = PanopticSample(
            "a", 1, image, semantic.copy(), semantic.astype(np.int32), np.ones(1, np.uint8), np.zeros(1, bool)
        )
        resized = resize(sample, size)
        bright = resized.image[..., 0].astype(int)
        clear = np.abs(bright - 100) > 1  # where the edge goes through the new pixel's centre, both labels are right
        np.testing.assert_array_equal((bright > 100)[clear], (resized.semantic == 1)[clear])
        np.testing.assert_array_equal(resized.instance, resized.semantic)

    def test_whole_factors_repeat_pixels_or_take_the_middle_one(self) -> None:
        sample = coded_sample(1, 15, 24)
        larger = resize(sample, (45, 72))
        np.testing.assert_array_equal(larger.instance, np.kron(sample.instance, np.ones((3, 3), int)))
        assert_equal(replace(resize(larger, (15, 24)), image=sample.image), sample)

    def test_the_same_size_changes_nothing(self) -> None:
        sample = coded_sample(1, 15, 24)
        assert resize(sample, (15, 24)) is sample


class TestHiddenInstances:
    @given(sample=samples)
    def test_rows_without_pixels_go_and_the_others_keep_their_pixels(self, sample: PanopticSample) -> None:
        visible = without_hidden_instances(sample)
        assert_well_formed(visible)
        rows = np.unique(sample.instance[sample.instance > 0])
        assert len(visible.instance_classes) == len(rows)
        for new, old in enumerate(rows, 1):
            np.testing.assert_array_equal(visible.instance == new, sample.instance == old)
            assert visible.instance_classes[new - 1] == sample.instance_classes[old - 1]
            assert visible.instance_crowd[new - 1] == sample.instance_crowd[old - 1]
        np.testing.assert_array_equal(visible.instance == 0, sample.instance == 0)

    def test_boxes_of_less_than_a_pixel_go_and_the_others_end_at_the_image(self) -> None:
        boxes = np.float32(
            [[np.nan] * 4, [-5, 2, 1, 9], [-5, 2, 0.9, 9], [29.5, 2, 70, 9], [3, 25, 5, 40], [3, 19, 5, 40]]
        )
        instance = np.zeros((20, 30), np.int32)
        instance[0, 0] = 1
        sample = replace(
            coded_sample(1, 20, 30), instance=instance, instance_classes=np.arange(6, dtype=np.uint8),
            instance_crowd=np.arange(6) == 5, boxes=boxes,
        )  # fmt: skip
        visible = without_hidden_instances(sample)
        assert visible.instance_classes.tolist() == [0, 1, 5]
        assert visible.instance_crowd.tolist() == [False, False, True]
        assert visible.by_box.tolist() == [False, True, True]
        assert visible.boxes[1:].tolist() == [[0, 2, 1, 9], [3, 19, 5, 20]]


class TestMosaic:
    @settings(deadline=None)
    @given(
        parts=st.lists(samples, min_size=4, max_size=4), size=wide_sizes, scales=scale_ranges, seed=st.integers(0, 999)
    )
    def test_four_samples_fill_one_and_keep_their_labels(
        self, parts: list[PanopticSample], size: tuple[int, int], scales: tuple[float, float], seed: int
    ) -> None:
        # Each sample has its own blue, and no interpolation between blocks: whatever is seen, its labels belong to it.
        parts = [replace(part, image=np.full_like(part.image, 50 * k)) for k, part in enumerate(parts)]
        wanted = AugmentationSettings(output_size=size, scale_range=scales, base_size=(40, 40))
        result = mosaic(parts, wanted, np.random.default_rng(seed), FILL)
        assert result.semantic.shape == size
        assert_well_formed(result)
        assert not (result.image == FILL).all(axis=-1).any()
        source = result.image[..., 0] // 50
        assert set(source.ravel().tolist()) == {0, 1, 2, 3}
        ends = np.cumsum([0, *(len(part.instance_classes) for part in parts)]).tolist()
        for k, part in enumerate(parts):
            there = result.instance[source == k]
            assert set(there.tolist()) <= {0, *range(ends[k] + 1, ends[k + 1] + 1)}
            assert set(result.semantic[source == k].tolist()) <= set(part.semantic.ravel().tolist())

    def test_boxes_move_with_their_images_and_completeness_needs_all(self) -> None:
        part = replace(coded_sample(3, 40, 60), complete=True)
        boxed = replace(
            part,
            instance=np.zeros_like(part.instance),
            instance_classes=np.array([2], np.uint8),
            instance_crowd=np.zeros(1, bool),
            boxes=np.array([[0, 0, 60, 40]], np.float32),
        )
        wanted = AugmentationSettings(output_size=(40, 60))
        result = mosaic([part, part, part, boxed], wanted, np.random.default_rng(1), FILL)
        assert result.complete
        assert result.by_box.tolist() == [False] * (len(result.boxes) - 1) + [True]
        left, top, right, bottom = result.boxes[-1].tolist()
        assert (right, bottom) == (60, 40)
        assert 20 < left < 40
        assert 12 < top < 28
        mixed = mosaic([part, part, part, replace(boxed, complete=False)], wanted, np.random.default_rng(1), FILL)
        assert not mixed.complete


class TestDonors:
    def test_mosaics_come_as_often_as_asked_and_pasting_needs_cut_outs(self) -> None:
        sample, other = (
            coded_sample(3, 40, 60),
            replace(coded_sample(4, 40, 60), image=np.full((40, 60, 3), 9, np.uint8)),
        )
        wanted = AugmentationSettings(
            output_size=(40, 60), mosaic_probability=0.3, copy_paste=CopyPasteSettings((2, 2))
        )
        donors = Donors(lambda _: other)
        seen = [augment(sample, wanted, np.random.default_rng(seed), FILL, donors) for seed in range(200)]
        assert np.mean([(view.image == 9).all(axis=-1).any() for view in seen]) == pytest.approx(0.3, abs=0.08)

    def test_pasted_objects_are_there_and_numbered_without_holes(self) -> None:
        pixels = np.full((20, 10, 4), 255, np.uint8)
        cut_out = CutOut(20, thing=True, pixels=pixels, open_below=False, light=np.full(3, 128.0))
        wanted = AugmentationSettings(
            output_size=(40, 60), flip_probability=0.5, copy_paste=CopyPasteSettings((3, 3), height_range=(5, 20))
        )
        donors = Donors(lambda _: coded_sample(1, 9, 9), CutOutBank(wanted.copy_paste, [[cut_out]], np.ones(1)))
        sample, pasted = coded_sample(3, 40, 60), 0
        for seed in range(50):
            view = augment(sample, wanted, np.random.default_rng(seed), FILL, donors)
            assert_well_formed(view)
            assert set(np.unique(view.instance)) | {0} == set(range(len(view.instance_classes) + 1))
            assert_equal(augment(sample, wanted, np.random.default_rng(seed), FILL, donors), view)
            pasted += int((view.instance_classes == 20).any())
        assert pasted > 25


class TestAugment:
    @settings(deadline=None)
    @given(sample=samples, wanted=views, seed=st.integers(0, 2**32 - 1))
    def test_a_view_is_a_pure_function_whose_objects_all_have_pixels(
        self, sample: PanopticSample, wanted: AugmentationSettings, seed: int
    ) -> None:
        wanted = replace(wanted, brightness=0.4, contrast=0.4, saturation=0.4)
        before = replace(sample, **{name: getattr(sample, name).copy() for name in ("image", "semantic", "instance")})
        view = augment(sample, wanted, np.random.default_rng(seed), FILL)
        assert_well_formed(view)
        assert set(np.unique(view.instance)) | {0} == set(range(len(view.instance_classes) + 1))
        if wanted.output_size is not None:
            assert view.semantic.shape == wanted.output_size
        assert_equal(augment(sample, wanted, np.random.default_rng(seed), FILL), view)
        assert_equal(sample, before)

    @given(sample=samples, size=sizes, crop=st.booleans(), seed=st.integers(0, 2**32 - 1))
    def test_without_scaling_labels_follow_exactly(
        self, sample: PanopticSample, size: tuple[int, int], crop: bool, seed: int
    ) -> None:
        wanted = AugmentationSettings(**{"crop_size" if crop else "output_size": size}, flip_probability=0.5)
        view = augment(sample, wanted, np.random.default_rng(seed), FILL)
        np.testing.assert_array_equal(view.image[..., 0], view.semantic)
        green = view.image[..., 1]  # the object's number before
        pairs = np.unique(np.stack([green, view.instance]).reshape(2, -1), axis=1).T
        for old, new in pairs:
            assert (old == 0) == (new == 0)
            assert new == 0 or view.instance_classes[new - 1] == sample.instance_classes[old - 1]
        assert len(pairs) == len(np.unique(green)) == len(np.unique(view.instance))

    @settings(deadline=None)
    @given(wanted=views, seed=st.integers(0, 2**32 - 1))
    def test_boxes_follow_the_objects_in_them(self, wanted: AugmentationSettings, seed: int) -> None:
        """A rectangle known by its box alone gets the box that its pixels have, to the pixel where nothing scales."""
        rows, columns = (int(side) for side in np.random.default_rng(seed).integers(4, 60, 2))
        sample = coded_sample(seed, rows, columns)
        y, x = np.random.default_rng(seed).uniform(0, 1, (2, 2))
        top, bottom = np.sort(np.floor(y * rows))
        left, right = np.sort(np.floor(x * columns))
        instance = np.zeros((rows, columns), np.int32)
        instance[int(top) : int(bottom) + 1, int(left) : int(right) + 1] = 1
        boxes = np.float32([[np.nan] * 4, [left, top, right + 1, bottom + 1]])
        one, crowd = np.uint8([4]), np.array([False])
        by_pixels = replace(sample, instance=instance, instance_classes=one, instance_crowd=crowd, boxes=boxes[:1])
        by_box = replace(
            sample, instance=instance, instance_classes=np.uint8([4, 7]), instance_crowd=np.array([0, 1], bool),
            boxes=boxes,
        )  # fmt: skip
        pixels, box = (augment(each, wanted, np.random.default_rng(seed), FILL) for each in (by_pixels, by_box))
        seen, kept = len(pixels.instance_classes), int(box.by_box.sum())
        assert box.instance_classes.tolist() == [4] * seen + [7] * kept
        assert box.instance_crowd.tolist() == [False] * seen + [True] * kept
        if kept:
            assert (box.boxes[-1] >= 0).all()
            assert (box.boxes[-1] <= [*box.semantic.shape[::-1]] * 2).all()
        if seen and kept:
            assert np.isnan(box.boxes[0]).all()
            want = instance_boxes(pixels.instance, 1)[0] + [0, 0, 1, 1]
            np.testing.assert_allclose(box.boxes[1], want, atol=0.501)

    def test_by_default_nothing_happens(self) -> None:
        sample = without_hidden_instances(coded_sample(3, 20, 30))
        assert augment(sample, AugmentationSettings(), np.random.default_rng(0), FILL) is sample

    def test_a_small_image_is_padded_right_and_below_also_when_mirrored(self) -> None:
        wanted = AugmentationSettings(
            output_size=(40, 50), scale_range=(0.5, 0.5), flip_probability=1, brightness=1, contrast=1, saturation=1
        )
        view = augment(coded_sample(3, 40, 60), wanted, np.random.default_rng(0), FILL)
        padding = (view.image == FILL).all(axis=-1)
        assert padding[20:].all()
        assert padding[:, 30:].all()
        assert not padding[:20, :30].all()
        assert (view.semantic[padding] == VOID).all()
        assert not view.instance[padding].any()

    @pytest.mark.parametrize("scale", [0.5, 2.0])
    def test_output_size_scales_the_image_before_the_window_is_taken(self, scale: float) -> None:
        rows, columns = np.mgrid[:100, :200].astype(np.uint8)
        sample = replace(coded_sample(1, 100, 200), image=np.stack([rows, columns, columns], axis=-1))
        wanted = AugmentationSettings(output_size=(40, 80), scale_range=(scale, scale))
        image = augment(sample, wanted, np.random.default_rng(0), FILL).image.astype(float)
        assert np.diff(image[..., 0], axis=0).mean() == pytest.approx(1 / scale, abs=0.05)
        assert np.diff(image[..., 1], axis=1).mean() == pytest.approx(1 / scale, abs=0.05)

    @pytest.mark.parametrize("shape", [(100, 200), (50, 100), (400, 200), (30, 400)])
    def test_a_base_size_makes_pictures_of_all_sizes_alike(self, shape: tuple[int, int]) -> None:
        wanted = AugmentationSettings(base_size=(60, 80), output_size=(100, 100), scale_range=(1.2, 1.2))
        scale = 1.2 * min(60 / shape[0], 80 / shape[1])
        view = augment(coded_sample(1, *shape), wanted, np.random.default_rng(0), FILL)
        inside = np.argwhere((view.image != FILL).any(axis=-1))
        assert tuple(inside.max(axis=0) + 1) == (round(scale * shape[0]), round(scale * shape[1]))

    def test_all_windows_all_scales_and_both_sides_come_up(self) -> None:
        """Cityscapes of Section 5.3, at a tenth of its size."""
        sample, rng = coded_sample(1, 103, 205), np.random.default_rng(0)
        wanted = AugmentationSettings(crop_size=(90, 180), scale_range=(0.7, 1.3), flip_probability=0.5)
        seen = [augment(sample, wanted, rng, FILL).semantic.shape for _ in range(200)]
        assert all(abs(width - 2 * height) <= 1 for height, width in seen)
        assert min(height for height, _ in seen) in range(63, 66)
        assert max(height for height, _ in seen) in range(115, 118)
        marked = np.zeros((4, 4, 3), np.uint8)
        marked[..., 0] = np.arange(16).reshape(4, 4)
        mark = replace(coded_sample(1, 4, 4), image=marked)
        wanted = AugmentationSettings(crop_size=(3, 3), flip_probability=0.5)
        corners = {int(augment(mark, wanted, rng, FILL).image[0, 0, 0]) for _ in range(200)}
        assert corners == {0, 1, 4, 5, 2, 3, 6, 7}

    def test_shortest_sides_are_picked_at_random_and_capped(self) -> None:
        """COCO of Section 5.3, at a tenth of its size."""
        rng = np.random.default_rng(0)
        wanted = AugmentationSettings(shortest_sides=(64, 72, 80), longest_side=133)
        usual, long = coded_sample(1, 64, 48), coded_sample(1, 30, 100)
        assert {augment(usual, wanted, rng, FILL).semantic.shape for _ in range(50)} == {(85, 64), (96, 72), (107, 80)}
        assert {augment(long, wanted, rng, FILL).semantic.shape for _ in range(50)} == {(40, 133)}

    def test_another_seed_gives_another_view(self) -> None:
        sample = coded_sample(1, 100, 200)
        wanted = AugmentationSettings(output_size=(30, 60), scale_range=(0.7, 1.3))
        left, right = (augment(sample, wanted, np.random.default_rng(seed), FILL) for seed in (1, 2))
        assert not np.array_equal(left.image, right.image)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"crop_size": (0, 5)}, r"crop_size as \(height, width\) .*, got \(0, 5\)"),
        ({"output_size": (5,)}, r"output_size as \(height, width\) .*, got \(5,\)"),
        ({"scale_range": (1.3, 0.7)}, r"0 < low <= high, got \(1.3, 0.7\)"),
        ({"scale_range": (0.0, 1.0)}, r"0 < low <= high, got \(0.0, 1.0\)"),
        ({"scale_range": (1.0, float("inf"))}, r"0 < low <= high, got \(1.0, inf\)"),
        ({"scale_range": (1.0, float("nan"))}, r"0 < low <= high, got \(1.0, nan\)"),
        ({"shortest_sides": (640, 0)}, r"shortest_sides of at least 1 px each, got \(640, 0\)"),
        ({"shortest_sides": (640,), "longest_side": 0}, "longest_side of at least 1 px, got 0"),
        ({"flip_probability": 1.5}, "flip_probability from 0 to 1, got 1.5"),
        ({"brightness": -0.1}, "brightness from 0 to 1, got -0.1"),
        ({"contrast": 2}, "contrast from 0 to 1, got 2"),
        ({"saturation": float("nan")}, "saturation from 0 to 1, got nan"),
        ({"crop_size": (9, 9), "output_size": (9, 9)}, "at most one of .*, got crop_size and output_size: each"),
        (
            {"output_size": (9, 9), "shortest_sides": (9,)},
            "at most one of .*, got output_size and shortest_sides: each",
        ),
        (
            {"shortest_sides": (9,), "scale_range": (0.5, 1.0)},
            r"without scale_range and base_size, got scale_range \(0.5, 1.0\) and",
        ),
        ({"mosaic_probability": 0.5}, "mosaic_probability only beside output_size, which it divides in four"),
        ({"jpeg_quality": 0}, "jpeg_quality from 1 to 100, got 0"),
        ({"hue": 181}, "hue from 0 to 180, got 181"),
        ({"longest_side": 1333}, "only beside shortest_sides, which it limits, got 1333"),
    ],
)
def test_contradictions_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message) as caught:
        AugmentationSettings(**values)
    assert "\n" not in str(caught.value)
