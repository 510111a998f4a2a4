# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Pasted objects bring their labels, and what lies below loses its pixels."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rt_panoptic_ros.datasets.base import PanopticDataset, PanopticSample
from rt_panoptic_ros.datasets.copy_paste import CopyPasteSettings, CutOutBank, collect_cut_outs, cut_outs, paste
from rt_panoptic_ros.errors import InvalidInputError
from rt_panoptic_ros.model.class_table import ClassTable, SemanticClass
from rt_panoptic_ros.records import VOID

PERSON, CAR, GROUND, WALL = range(4)
CLASSES = ClassTable(
    "four",
    tuple(
        SemanticClass(number, name, number < 2, (0, 0, 0), number)
        for number, name in enumerate(("person", "car", "ground", "wall"))
    ),
)
COLORS = np.array([(200, 30, 30), (30, 200, 30), (90, 90, 90), (30, 30, 200)], np.uint8)


def scene(*objects: tuple[int, int, int, int, int], size: tuple[int, int] = (120, 160)) -> PanopticSample:
    """Wall above, ground below, void between, and ellipses: class, top, left, height, width of each."""
    semantic = np.full(size, VOID, np.uint8)
    semantic[: size[0] // 3], semantic[size[0] // 2 :] = WALL, GROUND
    instance = np.zeros(size, np.int32)
    y, x = np.mgrid[: size[0], : size[1]]
    for number, (class_id, top, left, height, width) in enumerate(objects, 1):
        inside = ((y + 0.5 - top) / height * 2 - 1) ** 2 + ((x + 0.5 - left) / width * 2 - 1) ** 2 < 1
        semantic[inside], instance[inside] = class_id, number
    image = np.concatenate([COLORS, np.full((252, 3), 128, np.uint8)])[semantic]
    class_ids = np.array([item[0] for item in objects], np.uint8)
    return PanopticSample("frame", 7, image, semantic, instance, class_ids, np.zeros(len(objects), bool))


class Scenes(PanopticDataset):
    """Samples held in memory."""

    classes = CLASSES

    def __init__(self, *samples: PanopticSample) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> PanopticSample:
        return self.samples[index]


DONORS = Scenes(scene((PERSON, 20, 30, 60, 30), (CAR, 60, 90, 40, 60)), scene((PERSON, 40, 50, 50, 20)))


def bank_of(**values: Any) -> CutOutBank:
    return collect_cut_outs(
        [DONORS], CopyPasteSettings(**{"count": (1, 6), "height_range": (10, 60), **values}), seed=1
    )


BANK = bank_of(ground=("ground",))
seeds = st.integers(0, 2**32 - 1)
object_rows = st.tuples(
    st.integers(0, 1), st.integers(0, 90), st.integers(0, 130), st.integers(4, 60), st.integers(4, 60)
)
scenes = st.lists(object_rows, max_size=5).map(lambda rows: scene(*rows))


def assert_equal(left: PanopticSample, right: PanopticSample) -> None:
    for name in PanopticSample.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(left, name), getattr(right, name))


def with_box(sample: PanopticSample, class_id: int, box: tuple[float, float, float, float]) -> PanopticSample:
    boxes = np.full((len(sample.instance_classes) + 1, 4), np.nan, np.float32)
    boxes[-1] = box
    return replace(
        sample,
        boxes=boxes,
        instance_classes=np.append(sample.instance_classes, np.uint8(class_id)),
        instance_crowd=np.append(sample.instance_crowd, False),
    )


class TestCutOuts:
    def found(self, sample: PanopticSample, **values: Any) -> list[tuple[int, bool]]:
        wanted = CopyPasteSettings(**values)
        return [(item.class_id, item.open_below) for item in cut_outs(sample, CLASSES.thing_ids, wanted)]

    def test_whole_objects_are_cut_out(self) -> None:
        assert self.found(scene((PERSON, 20, 30, 60, 30), (CAR, 60, 90, 40, 60))) == [(PERSON, False), (CAR, False)]

    def test_one_that_the_image_ends_below_is_known_as_such(self) -> None:
        assert self.found(scene((PERSON, 70, 30, 70, 30))) == [(PERSON, True)]

    @pytest.mark.parametrize("row", [(-9, 30, 60, 30), (20, -9, 60, 30), (20, 140, 60, 30), (20, 30, 24, 30)])
    def test_parts_and_small_ones_are_not(self, row: tuple[int, int, int, int]) -> None:
        assert self.found(scene((PERSON, *row))) == []
        assert self.found(scene((PERSON, 20, 30, 24, 30)), min_height=24) == [(PERSON, False)]

    def test_crowds_and_hidden_ones_are_not(self) -> None:
        sample = scene((PERSON, 20, 30, 60, 30))
        assert self.found(replace(sample, instance_crowd=np.array([True]))) == []
        split = replace(sample, instance=sample.instance.copy())
        split.instance[40:60] = 0
        assert self.found(split) == []

    def test_regions_of_stuff_are(self) -> None:
        sample = scene()
        sample.semantic[40:80, 50:90] = WALL  # an island that touches neither void's end nor another wall
        sample.semantic[: 120 // 3] = VOID
        assert (WALL, False) in self.found(sample)

    def test_they_are_opaque_inside_and_clear_at_the_border_of_their_own_colour(self) -> None:
        (item,) = cut_outs(scene((PERSON, 20, 30, 60, 30)), CLASSES.thing_ids, CopyPasteSettings())
        opacity = item.pixels[..., 3]
        assert opacity[30, 18] == 255
        assert max(map(int, (*opacity[0], *opacity[-1], *opacity[:, 0], *opacity[:, -1]))) == 0
        assert (item.pixels[opacity > 127][:, :3] == COLORS[PERSON]).all()

    def test_they_are_no_larger_than_they_are_of_use(self) -> None:
        sample = scene((PERSON, 20, 30, 80, 40))
        (item,) = cut_outs(sample, CLASSES.thing_ids, CopyPasteSettings(height_range=(10, 40)))
        assert item.pixels.shape[0] in range(38, 46)


class TestBank:
    def test_what_was_asked_for_is_apart_from_all_else(self) -> None:
        bank = bank_of(classes=("car",))
        assert [[item.class_id for item in items] for items in bank.main] == [[CAR]]
        assert {item.class_id for items in bank.other for item in items} == {PERSON}
        drawn = [bank.draw(np.random.default_rng(seed), 20) for seed in range(400)]
        assert all((item.class_id == CAR) == asked for item, asked in drawn)
        assert np.mean([asked for _, asked in drawn]) == pytest.approx(0.75, abs=0.08)

    def test_classes_come_up_by_their_weights(self) -> None:
        bank = bank_of(classes=("car", "person"), class_weights=(3, 1), other_share=0)
        drawn = [bank.draw(np.random.default_rng(seed), 20)[0].class_id for seed in range(400)]
        assert drawn.count(CAR) / 400 == pytest.approx(0.75, abs=0.08)

    def test_a_class_that_no_one_knows_is_named(self) -> None:
        with pytest.raises(InvalidInputError, match="copy_paste of classes person, car, ground, wall, got 'cat'"):
            bank_of(classes=("cat",))

    def test_a_data_set_of_boxes_alone_is_left_soon(self) -> None:
        read = []

        class Boxes(Scenes):
            def __getitem__(self, index: int) -> PanopticSample:
                read.append(index)
                return super().__getitem__(index)

        bank = collect_cut_outs([Boxes(*[scene()] * 300), DONORS], CopyPasteSettings(count=(1, 1)), seed=1)
        assert len(bank.main) == 2
        assert len(read) <= 30

    def test_nothing_to_paste_is_said(self) -> None:
        with pytest.raises(InvalidInputError, match="whole objects of person to paste, got none"):
            collect_cut_outs([Scenes(scene())], CopyPasteSettings(count=(1, 1), classes=("person",)), seed=1)


class TestPaste:
    @settings(deadline=None)
    @given(sample=scenes, seed=seeds)
    def test_labels_agree_and_the_sample_is_untouched(self, sample: PanopticSample, seed: int) -> None:
        before = replace(sample, **{name: getattr(sample, name).copy() for name in ("image", "semantic", "instance")})
        result = paste(sample, BANK, np.random.default_rng(seed))
        assert (result.image.dtype, result.semantic.dtype, result.instance.dtype) == (np.uint8, np.uint8, np.int32)
        old, new = len(sample.instance_classes), len(result.instance_classes)
        assert old <= new <= old + 6
        assert len(result.instance_crowd) == new >= result.instance.max()
        for number, class_id in enumerate(result.instance_classes.tolist(), 1):
            assert set(result.semantic[result.instance == number].tolist()) <= {class_id}
        same = result.semantic == sample.semantic
        np.testing.assert_array_equal(result.semantic[result.instance == 0], sample.semantic[result.instance == 0])
        assert same[result.instance == sample.instance].all()
        for number in range(1, old + 1):  # objects only lose pixels, all or at most three quarters
            was, left = sample.instance == number, result.instance == number
            assert not (left & ~was).any()
            assert left.sum() == 0 or left.sum() >= 0.25 * was.sum()
        assert_equal(sample, before)
        assert_equal(result, paste(sample, BANK, np.random.default_rng(seed)))

    @settings(deadline=None)
    @given(seed=seeds)
    def test_the_image_changes_near_what_is_pasted_alone(self, seed: int) -> None:
        sample = scene()
        result = paste(sample, BANK, np.random.default_rng(seed))
        near = np.zeros(sample.semantic.shape, bool)
        for y, x in np.argwhere(result.instance > 0):
            near[max(y - 9, 0) : y + 10, max(x - 9, 0) : x + 10] = True
        np.testing.assert_array_equal(result.image[~near], sample.image[~near])

    @settings(deadline=None)
    @given(seed=seeds)
    def test_pasted_pixels_show_the_donor_under_its_class(self, seed: int) -> None:
        bank = bank_of(light=0, blur=0, rotation=0)
        result = paste(scene(), bank, np.random.default_rng(seed))
        for number, class_id in enumerate(result.instance_classes.tolist(), 1):
            shown = result.image[result.instance == number].astype(int)
            to_classes = np.abs(shown[:, None] - COLORS.astype(int)).sum(axis=-1)  # (pixels, 4)
            assert len(shown) < 50 or (to_classes.argmin(axis=1) == class_id).mean() > 0.8

    def test_they_stand_on_the_ground_where_there_is_some(self) -> None:
        bank = bank_of(ground=("ground",), ground_probability=1, rotation=0, count=(1, 1))
        ends = []
        for seed in range(50):
            result = paste(scene(), bank, np.random.default_rng(seed))
            ends += [int(rows.max()) for rows in [np.nonzero(result.instance)[0]] if len(rows)]
        assert len(ends) > 30
        assert min(ends) >= 60 - 6  # the ground starts at row 60; cut-outs have a clear border

    def test_what_ends_lower_stays_in_front(self) -> None:
        sample = scene((CAR, 10, 0, 110, 160))
        for seed in range(30):
            result = paste(sample, bank_of(ground_probability=0), np.random.default_rng(seed))
            new = result.instance > 1
            assert not new[30:90, 40:120].any() or max(np.nonzero(new)[0]) >= 110

    def test_stuff_brings_no_object(self) -> None:
        donor = scene()
        donor.semantic[40:80, 50:90] = WALL
        donor.semantic[:40] = VOID
        wanted = CopyPasteSettings(count=(3, 3), classes=("wall",), height_range=(30, 40))
        result = paste(scene(), collect_cut_outs([Scenes(donor)], wanted, 1), np.random.default_rng(2))
        assert len(result.instance_classes) == 0
        assert (result.semantic == WALL).sum() > (scene().semantic == WALL).sum()

    @settings(deadline=None)
    @given(seed=seeds, left=st.integers(0, 140), top=st.integers(0, 100), side=st.integers(2, 40))
    def test_a_box_is_gone_where_all_of_it_is_hidden_and_stays_whole_else(
        self, seed: int, left: int, top: int, side: int
    ) -> None:
        box = (left, top, min(left + side, 160), min(top + side, 120))
        sample = with_box(scene(), CAR, box)
        result = paste(sample, BANK, np.random.default_rng(seed))
        assert result.boxes.shape == (len(result.instance_classes), 4)
        assert np.isnan(result.boxes[1:]).all()
        pasted = result.instance[box[1] : box[3], box[0] : box[2]] > 0
        assert bool(result.by_box[0]) == (not pasted.all())
        if result.by_box[0]:
            assert result.boxes[0].tolist() == list(box)
            assert (~pasted).sum() >= 0.25 * pasted.size


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"count": (3, 1)}, r"copy_paste.count as \(fewest, most\), .*, got \(3, 1\)"),
        ({"height_range": (0, 9)}, r"copy_paste.height_range as \(low, high\), .*, got \(0, 9\)"),
        ({"other_share": 1.5}, "copy_paste.other_share from 0 to 1, got 1.5"),
        ({"rotation": float("nan")}, "copy_paste.rotation of at least 0, got nan"),
        ({"bank_images": 0}, "copy_paste.bank_images of at least 1, got 0"),
        ({"classes": ("car",), "class_weights": (1, 2)}, r"one for each of copy_paste.classes, got \(1, 2\)"),
        ({"classes": ("car",), "class_weights": (0,)}, r"one for each of copy_paste.classes, got \(0,\)"),
    ],
)
def test_wrong_values_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message) as caught:
        CopyPasteSettings(**values)
    assert "\n" not in str(caught.value)
