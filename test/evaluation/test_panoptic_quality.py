# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Panoptic quality: by hand, and exactly that of panopticapi on COCO's sample and on random labels."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from coco_cases import read_coco_panoptic
from conftest import DATA
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from rt_panoptic_ros.datasets.coco_panoptic import Segment, encode_ids
from rt_panoptic_ros.errors import InvalidInputError
from rt_panoptic_ros.evaluation.panoptic_quality import QualityCounts, count_matches
from rt_panoptic_ros.model.class_table import ClassTable, load_class_table

SAMPLE = DATA / "coco_panoptic_sample"
COCO = load_class_table("coco")
CAMVID = load_class_table("camvid")
SKY, ROAD, CAR, PEDESTRIAN = 0, 3, 8, 9  # in CamVid, category and class id alike

Labels = tuple[np.ndarray, tuple[Segment, ...]]  # (H, W) ids, and what they are
Pair = tuple[Labels, Labels]  # ground truth and prediction


def labels(ids: np.ndarray, categories: dict[int, int], classes: ClassTable, crowds: Sequence[int] = ()) -> Labels:
    """Return the segments of those ids that occur."""
    things = {entry.dataset_id: int(entry.thing) for entry in classes.classes}
    segments = []
    for number, category in categories.items():
        if area := int((ids == number).sum()):
            segments.append(Segment(number, category, area, (0, 0, 1, 1), int(number in crowds), things[category]))
    return ids, tuple(segments)


def line(text: str, categories: dict[int, int], crowds: Sequence[int] = ()) -> Labels:
    """Return an image of one row, written as digits."""
    return labels(np.array([[int(digit) for digit in text]]), categories, CAMVID, crowds)


def counted(pairs: Sequence[Pair], classes: ClassTable) -> QualityCounts:
    return sum((count_matches(*truth, *found, classes) for truth, found in pairs), QualityCounts.none(len(classes)))


class TestByHand:
    def test_void_is_left_out_of_the_union(self) -> None:
        truth = line("11111111112222220000", {1: ROAD, 2: CAR})
        found = line("11111111222222222233", {1: ROAD, 2: CAR, 3: PEDESTRIAN})
        counts = counted([(truth, found)], CAMVID)
        assert counts.pq[[ROAD, CAR]].tolist() == [8 / 10, 6 / 8]  # the car has 10 px, 2 of them void, 6 right
        assert np.isnan(counts.pq[[SKY, PEDESTRIAN]]).all()  # the pedestrian stands in void: as if it were not there
        mean = counts.mean(range(11))
        assert (mean.pq, mean.sq, mean.rq, mean.classes) == pytest.approx((0.775, 0.775, 1.0, 2))

    def test_void_that_holds_no_object_counts_against_things(self) -> None:
        truth = line("1111111111222222000000", {1: ROAD, 2: CAR})
        found = line("1111111111222222223333", {1: ROAD, 2: CAR, 3: PEDESTRIAN})
        counts = count_matches(*truth, *found, CAMVID, truth[0] == 0)
        assert counts.pq[[ROAD, CAR, PEDESTRIAN]].tolist() == [1, 6 / 8, 0]
        assert counts.false_positives[PEDESTRIAN] == 1
        in_part = np.zeros((1, 22), bool)
        in_part[:, 20:] = True  # half of the pedestrian
        counts = count_matches(*truth, *found, CAMVID, in_part)
        assert (counts.pq[CAR], counts.false_positives[PEDESTRIAN]) == (1, 1)
        in_part[:, 20] = False
        assert count_matches(*truth, *found, CAMVID, in_part).false_positives[PEDESTRIAN] == 0
        stuff = line("1111111111222222444444", {1: ROAD, 2: CAR, 4: SKY})
        assert count_matches(*truth, *stuff, CAMVID, truth[0] == 0).false_positives[SKY] == 0

    def test_misses_and_false_alarms_halve(self) -> None:
        truth = line("1111122223", {1: ROAD, 2: CAR, 3: PEDESTRIAN})
        found = line("1111124444", {1: ROAD, 2: PEDESTRIAN, 4: CAR})
        counts = counted([(truth, found)], CAMVID)
        # Car: 3 of 5 px shared. The pedestrian is missed, and one is seen where a car is.
        assert counts.pq[[ROAD, CAR, PEDESTRIAN]].tolist() == [1.0, 3 / 5, 0.0]
        assert counts.sq[[ROAD, CAR, PEDESTRIAN]].tolist() == [1.0, 3 / 5, 0.0]
        assert counts.rq[[ROAD, CAR, PEDESTRIAN]].tolist() == [1.0, 1.0, 0.0]
        assert (counts.false_positives[PEDESTRIAN], counts.false_negatives[PEDESTRIAN]) == (1, 1)
        assert counts.true_segments.sum() == 3
        assert counts.mean(CAMVID.thing_ids).pq == pytest.approx(0.3)

    def test_half_is_not_enough(self) -> None:
        counts = counted([(line("1122", {1: CAR, 2: ROAD}), line("1112", {1: ROAD, 2: CAR}))], CAMVID)
        assert counts.true_positives.sum() == 0
        halves = counted([(line("110", {1: CAR}), line("100", {1: CAR}))], CAMVID)
        assert (halves.true_positives[CAR], halves.false_positives[CAR], halves.false_negatives[CAR]) == (0, 1, 1)

    def test_crowds_are_neither_missed_nor_false(self) -> None:
        truth = line("11112222333", {1: CAR, 2: CAR, 3: ROAD}, crowds=[1, 2])
        on_crowds = line("11111122333", {1: CAR, 2: PEDESTRIAN, 3: ROAD})  # one car over both crowds
        counts = counted([(truth, on_crowds)], CAMVID)
        assert np.isnan(counts.pq[CAR])
        assert counts.true_segments[CAR] == 0
        assert counts.false_positives[PEDESTRIAN] == 1  # a crowd excuses its own class alone

    def test_images_add_up(self) -> None:
        one = line("1122", {1: CAR, 2: ROAD}), line("1122", {1: CAR, 2: ROAD})
        other = line("1122", {1: CAR, 2: ROAD}), line("0022", {2: ROAD})
        counts = counted([one, other], CAMVID)
        assert counts.pq[CAR] == 1 / 1.5
        assert counts.pq[ROAD] == 1.0

    def test_nothing_has_no_quality(self) -> None:
        mean = counted([(line("00", {}), line("00", {}))], CAMVID).mean(range(11))
        assert np.isnan([mean.pq, mean.sq, mean.rq]).all()
        assert mean.classes == 0

    @pytest.mark.parametrize(
        ("truth", "found", "message"),
        [
            (line("11", {1: CAR}), line("111", {1: CAR}), r"size \(1, 2\), got \(1, 3\)"),
            (line("12", {1: CAR}), line("11", {1: CAR}), "of the ground truth, got 1 px"),
            (line("11", {1: CAR}), line("19", {1: CAR}), "of the prediction, got 1 px"),
            (line("11", {1: CAR}), (line("11", {})[0], (Segment(1, 77, 2, (0, 0, 2, 1)),)), "got category 77"),
            (
                line("11", {1: CAR}),
                (line("00", {})[0], (Segment(1, CAR, 2, (0, 0, 2, 1)),)),
                "that have pixels, got 1 without",
            ),
        ],
    )
    def test_labels_that_do_not_fit_are_refused(self, truth: Labels, found: Labels, message: str) -> None:
        with pytest.raises(InvalidInputError, match=message):
            count_matches(*truth, *found, CAMVID)


@pytest.fixture(scope="module")
def panopticapi() -> Any:
    """The official code, as PyPI's panopticapi-lite has it; its numpy<2 is an old precaution that it does not need."""
    return pytest.importorskip(
        "panopticapi.evaluation", reason="needs panopticapi: `pip install --no-deps panopticapi-lite==0.2.0`"
    )


def official(panopticapi: Any, pairs: Sequence[Pair], classes: ClassTable) -> Any:
    """Return panopticapi's counts over images."""
    categories = {entry.dataset_id: {"isthing": int(entry.thing)} for entry in classes.classes}
    with tempfile.TemporaryDirectory() as folder:
        annotations = []
        for number, pair in enumerate(pairs):
            documents = []
            for kind, (ids, segments) in zip(("true", "found"), pair, strict=True):
                name = f"{number}_{kind}.png"
                cv2.imwrite(str(Path(folder, name)), np.ascontiguousarray(encode_ids(ids)[..., ::-1]))
                rows = [
                    {"id": s.id, "category_id": s.category_id, "area": s.area, "iscrowd": s.iscrowd} for s in segments
                ]
                documents.append({"image_id": number, "file_name": name, "segments_info": rows})
            annotations.append(documents)
        return panopticapi.pq_compute_single_core(0, annotations, folder, folder, categories), categories


def assert_official(panopticapi: Any, pairs: Sequence[Pair], classes: ClassTable) -> QualityCounts:
    """Compare every count and figure with panopticapi's."""
    ours = counted(pairs, classes)
    theirs, categories = official(panopticapi, pairs, classes)
    for entry in classes.classes:
        row = theirs[entry.dataset_id]
        counts = (ours.true_positives, ours.false_positives, ours.false_negatives)
        assert [int(values[entry.id]) for values in counts] == [row.tp, row.fp, row.fn]
        assert ours.iou_sums[entry.id] == pytest.approx(row.iou, rel=0, abs=1e-12)
    groups = {
        None: range(len(classes)),
        True: classes.thing_ids,
        False: set(range(len(classes))) - {*classes.thing_ids},
    }
    for thing, class_ids in groups.items():
        mean = ours.mean(list(class_ids))
        if mean.classes == 0:
            with pytest.raises(ZeroDivisionError):
                theirs.pq_average(categories, thing)
            continue
        average, by_category = theirs.pq_average(categories, thing)
        expected = [average[name] for name in ("pq", "sq", "rq", "n")]
        assert [mean.pq, mean.sq, mean.rq, mean.classes] == pytest.approx(expected, rel=0, abs=1e-12)
        for class_id in class_ids:
            figures = by_category[classes.classes[class_id].dataset_id]
            mine = [np.nan_to_num(values[class_id]) for values in (ours.pq, ours.sq, ours.rq)]
            assert mine == pytest.approx([figures[name] for name in ("pq", "sq", "rq")], rel=0, abs=1e-12)
    return ours


def merged(truth: Labels, rng: np.random.Generator) -> Pair:
    ids, segments = truth
    source, target = rng.choice([segment.id for segment in segments], 2, replace=False)
    return truth, kept(np.where(ids == source, target, ids), segments)


def split(truth: Labels, rng: np.random.Generator) -> Pair:
    ids, segments = truth
    ids = ids.copy()
    halves = []
    for segment in rng.permutation(np.array(segments, object))[:6]:
        columns = np.nonzero(ids == segment.id)[1]
        right = (ids == segment.id) & (np.arange(ids.shape[1]) > np.quantile(columns, rng.uniform(0.2, 0.8)))
        halves.append(replace(segment, id=1_000_000 + len(halves)))
        ids[right] = halves[-1].id
    return truth, kept(ids, (*segments, *halves))


def relabelled(truth: Labels, rng: np.random.Generator) -> Pair:
    ids, segments = truth
    categories = [entry.dataset_id for entry in COCO.classes]
    others = tuple(
        replace(segment, category_id=int(rng.choice(categories))) if rng.random() < 0.3 else segment
        for segment in segments
    )
    return truth, (ids, others)


def shifted(truth: Labels, rng: np.random.Generator) -> Pair:
    ids, segments = truth
    return truth, kept(np.roll(ids, rng.integers(-8, 9, 2), axis=(0, 1)), segments)


def voided(truth: Labels, rng: np.random.Generator) -> Pair:
    """Void rectangles in the prediction, others in the ground truth."""
    both = []
    for whole, segments in (truth, truth):
        ids = whole.copy()
        for _ in range(4):
            y, x = rng.integers(0, ids.shape)
            ids[y : y + 120, x : x + 160] = 0
        both.append(kept(ids, segments))
    return both[0], both[1]


def crowded(truth: Labels, rng: np.random.Generator) -> Pair:
    """One crowd for some of the classes, as the format has it; the prediction moves and knows no crowds."""
    ids, segments = truth
    one_of = {segment.category_id: segment.id for segment in segments}
    crowds = {number for number in one_of.values() if rng.random() < 0.6}
    marked = tuple(replace(segment, iscrowd=int(segment.id in crowds)) for segment in segments)
    return (ids, marked), shifted((ids, segments), rng)[1]


def kept(ids: np.ndarray, segments: Sequence[Segment]) -> Labels:
    """Return those segments that still have pixels, with their new areas."""
    areas = {segment.id: int((ids == segment.id).sum()) for segment in segments}
    return ids, tuple(replace(segment, area=areas[segment.id]) for segment in segments if areas[segment.id])


def truth_of_sample() -> list[Labels]:
    if not SAMPLE.is_dir():
        pytest.skip(f"needs COCO's panoptic sample in {SAMPLE} (RT_PANOPTIC_DATA)")
    return [(image.ids, image.segments) for image in read_coco_panoptic(SAMPLE / "panoptic_examples.json")]


class TestAgainstPanopticapi:
    def test_the_sample_against_itself(self, panopticapi: Any) -> None:
        counts = assert_official(panopticapi, [(truth, truth) for truth in truth_of_sample()], COCO)
        assert counts.mean(range(len(COCO))).pq == 1.0
        assert counts.true_positives.sum() == 47  # and three crowds, which the prediction may cover

    @pytest.mark.parametrize("seed", range(5))
    @pytest.mark.parametrize("perturb", [merged, split, relabelled, shifted, voided, crowded])
    def test_the_sample_perturbed(
        self, panopticapi: Any, perturb: Callable[[Labels, np.random.Generator], Pair], seed: int
    ) -> None:
        rng = np.random.default_rng(seed)
        counts = assert_official(panopticapi, [perturb(truth, rng) for truth in truth_of_sample()], COCO)
        assert counts.true_positives.sum() > 5
        assert counts.mean(range(len(COCO))).pq < 1

    @settings(max_examples=150, deadline=None)
    @given(data=st.data())
    def test_random_labels(self, panopticapi: Any, data: st.DataObject) -> None:
        numbers = arrays(np.int32, (5, 8), elements=st.integers(0, 5))
        categories = st.lists(st.sampled_from([SKY, ROAD, CAR, PEDESTRIAN]), min_size=5, max_size=5)
        pairs = []
        for _ in range(data.draw(st.integers(1, 3))):
            true_ids = np.sort(data.draw(numbers), axis=None).reshape(5, 8)
            wrong = data.draw(arrays(bool, (5, 8)))
            true_categories = dict(enumerate(data.draw(categories), 1))
            found_categories = true_categories | dict(enumerate(data.draw(categories)[:2], 1))
            crowd_of = {category: number for number, category in true_categories.items()}
            crowds = data.draw(st.sets(st.sampled_from(sorted(crowd_of.values()))))
            pairs.append((
                labels(true_ids, true_categories, CAMVID, list(crowds)),
                labels(np.where(wrong, data.draw(numbers), true_ids), found_categories, CAMVID),
            ))  # fmt: skip
        assert_official(panopticapi, pairs, CAMVID)
