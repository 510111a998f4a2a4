# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Ids that stay: matching, birth, loss, reset, the bound of 16 bits; and objects of some classes only."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from rt_panoptic_ros.datasets.base import instance_boxes, true_objects
from rt_panoptic_ros.errors import InvalidInputError
from rt_panoptic_ros.model.class_table import load_class_table
from rt_panoptic_ros.panoptic.class_filter import keep_classes, parse_class_names
from rt_panoptic_ros.panoptic.tracking import LAST_ID, MEMORY_FRAMES, STEP_BACK_NS, InstanceTracker, with_ids
from rt_panoptic_ros.records import PanopticResult

SIZE = (60, 100)


def frame(*objects: tuple[int, int, int, int, int], size: tuple[int, int] = SIZE) -> PanopticResult:
    """Return a result with objects (class, left, top, width, height), the first on top."""
    instance = np.zeros(size, np.uint16)
    for row in reversed(range(len(objects))):
        _, left, top, width, height = objects[row]
        instance[top : top + height, left : left + width] = row + 1
    class_ids = np.array([entry[0] for entry in objects], np.uint8)
    return PanopticResult(np.zeros(size, np.uint8), instance, true_objects(instance, class_ids))


def test_ids_follow_objects_whose_order_changes() -> None:
    tracker = InstanceTracker()
    assert tracker.update(frame((8, 10, 10, 20, 20), (8, 60, 10, 20, 20))).tolist() == [1, 2]
    assert tracker.update(frame((8, 62, 11, 20, 20), (8, 13, 10, 20, 20))).tolist() == [2, 1]
    assert tracker.update(frame((8, 65, 12, 20, 20))).tolist() == [2]


def test_another_class_is_another_object() -> None:
    tracker = InstanceTracker()
    assert tracker.update(frame((8, 10, 10, 20, 20))).tolist() == [1]
    assert tracker.update(frame((9, 10, 10, 20, 20))).tolist() == [2]


def test_too_little_overlap_is_another_object() -> None:
    tracker = InstanceTracker()
    tracker.update(frame((8, 10, 10, 20, 20)))
    assert tracker.update(frame((8, 23, 10, 20, 20))).tolist() == [1]  # 7 of 33 columns
    assert tracker.update(frame((8, 37, 10, 20, 20))).tolist() == [2]  # 6 of 34


def test_the_best_assignment_as_a_whole() -> None:
    tracker = InstanceTracker()
    assert tracker.update(frame((8, 0, 0, 20, 10), (8, 20, 0, 20, 10))).tolist() == [1, 2]
    # The first overlaps both tracks, the second of them a little more, but the other object has that one only.
    assert tracker.update(frame((8, 9, 0, 20, 10), (8, 29, 0, 11, 10))).tolist() == [1, 2]


def test_a_lost_object_is_remembered_for_a_while() -> None:
    tracker = InstanceTracker()
    tracker.update(frame((8, 10, 10, 20, 20)))
    for _ in range(MEMORY_FRAMES):
        assert tracker.update(frame()).tolist() == []
    assert tracker.update(frame((8, 10, 10, 20, 20))).tolist() == [1]
    for _ in range(MEMORY_FRAMES + 1):
        tracker.update(frame())
    assert tracker.update(frame((8, 10, 10, 20, 20))).tolist() == [2]


def test_reset_and_another_size_begin_anew() -> None:
    tracker = InstanceTracker()
    tracker.update(frame((8, 10, 10, 20, 20), (8, 60, 10, 20, 20)))
    tracker.reset()
    assert tracker.update(frame((8, 60, 10, 20, 20))).tolist() == [1]
    assert tracker.update(frame((8, 5, 5, 9, 9), (8, 20, 5, 9, 9), size=(30, 50))).tolist() == [1, 2]


def test_ids_begin_again_behind_the_last_and_skip_those_in_use() -> None:
    tracker = InstanceTracker(last_id=5)
    stays = (8, 0, 0, 10, 10)
    assert tracker.update(frame(stays)).tolist() == [1]
    seen = [tracker.update(frame(stays, (8, 20 + 30 * (number % 2), 20, 10, 10))).tolist() for number in range(4)]
    assert seen == [[1, 2], [1, 3], [1, 2], [1, 3]]  # both places are remembered
    tracker.update(frame(stays, (9, 40, 0, 10, 10)))
    assert tracker.update(frame(stays, (9, 60, 0, 10, 10)))[1] == 5
    for _ in range(MEMORY_FRAMES + 1):
        tracker.update(frame(stays))
    assert tracker.update(frame(stays, (9, 80, 0, 10, 10))).tolist() == [1, 2]


def test_the_instance_image_is_renamed() -> None:
    result = frame((8, 10, 10, 20, 20), (8, 60, 10, 20, 20))
    renamed = with_ids(result, np.array([700, LAST_ID], np.uint16))
    again = with_ids(renamed, np.array([2, 1], np.uint16))  # of values beyond a byte's
    for labels, (first, second) in ((renamed, (700, LAST_ID)), (again, (2, 1))):
        assert labels.instance.dtype == labels.detections.ids.dtype == np.uint16
        assert labels.detections.ids.tolist() == [first, second]
        np.testing.assert_array_equal(labels.instance == first, result.instance == 1)
        np.testing.assert_array_equal(labels.instance == second, result.instance == 2)
        np.testing.assert_array_equal(labels.instance == 0, result.instance == 0)


def test_objects_of_some_classes_only() -> None:
    result = frame((8, 10, 10, 20, 20), (9, 60, 10, 20, 20), (8, 40, 40, 10, 10))
    listed = keep_classes(result, {8})
    assert listed.detections.ids.tolist() == [1, 3]
    kept = with_ids(listed, np.array([1, 2], np.uint16))
    assert kept.detections.class_ids.tolist() == [8, 8]
    np.testing.assert_array_equal(kept.instance == 1, result.instance == 1)
    np.testing.assert_array_equal(kept.instance == 2, result.instance == 3)
    np.testing.assert_array_equal(kept.instance == 0, (result.instance == 0) | (result.instance == 2))
    assert kept.instance.dtype == np.uint16
    assert kept.detections.areas.tolist() == [400, 100]
    assert len(keep_classes(result, {10}).detections) == 0


@settings(deadline=None)
@given(npst.arrays(np.int32, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 6)))
def test_boxes_are_those_of_the_pixels(instance: np.ndarray) -> None:
    for row, box in enumerate(instance_boxes(instance, 5).tolist()):
        y, x = np.nonzero(instance == row + 1)
        assert box == ([x.min(), y.min(), x.max(), y.max()] if len(x) else [0, 0, -1, -1])


def test_class_names_are_those_of_things() -> None:
    camvid = load_class_table("camvid")
    assert parse_class_names("", camvid) is None
    assert parse_class_names("car, pedestrian", camvid) == {camvid.names.index("car"), camvid.names.index("pedestrian")}
    for wrong in ("road", "Car", "car;pedestrian"):
        with pytest.raises(InvalidInputError, match=f"countable classes \\(.*car.*got '{wrong}'"):
            parse_class_names(wrong, camvid)


boxes = st.tuples(st.integers(7, 9), st.integers(0, 80), st.integers(0, 40), st.integers(1, 20), st.integers(1, 20))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(boxes, max_size=5), min_size=1, max_size=8))
def test_ids_of_a_frame_are_always_different_and_positive(frames: list[list[tuple[int, int, int, int, int]]]) -> None:
    tracker = InstanceTracker()
    for objects in frames:
        apart = [entry for k, entry in enumerate(objects) if not any(_touch(entry, other) for other in objects[:k])]
        ids = tracker.update(frame(*apart))
        assert len(set(ids.tolist())) == len(apart)
        assert not len(ids) or ids.min() >= 1


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(boxes, max_size=5), min_size=2, max_size=12), st.data())
def test_a_tracker_restored_at_any_frame_gives_the_same_ids(
    frames: list[list[tuple[int, int, int, int, int]]], data: st.DataObject
) -> None:
    frames = [
        [entry for k, entry in enumerate(objects) if not any(_touch(entry, other) for other in objects[:k])]
        for objects in frames
    ]
    whole = InstanceTracker()
    expected = [whole.update(frame(*objects)).tolist() for objects in frames]
    cut = data.draw(st.integers(0, len(frames) - 1))
    first, second = InstanceTracker(), InstanceTracker()
    seen = [first.update(frame(*objects)).tolist() for objects in frames[:cut]]
    second.restore(first.state())
    assert seen + [second.update(frame(*objects)).tolist() for objects in frames[cut:]] == expected
    assert second.state() == whole.state()


def _touch(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    return a[1] < b[1] + b[3] and b[1] < a[1] + a[3] and a[2] < b[2] + b[4] and b[2] < a[2] + a[4]


@pytest.mark.parametrize("start_ns", [1_700_000_000_000_000_000, 0, -3_000_000_000])
def test_a_stamp_that_goes_far_back_forgets_all(start_ns: int) -> None:
    tracker = InstanceTracker()
    objects, moved = frame((8, 10, 10, 20, 20)), frame((8, 60, 30, 20, 20))
    assert tracker.update(objects, start_ns).tolist() == [1]
    assert tracker.update(moved, start_ns + 20).tolist() == [2]
    assert tracker.update(moved, start_ns + 20 - STEP_BACK_NS).tolist() == [2]
    restored = InstanceTracker()
    restored.restore(tracker.state())
    for same in (tracker, restored):
        assert same.update(moved, start_ns + 19 - STEP_BACK_NS).tolist() == [1]  # a bag that begins again
        assert same.update(objects, start_ns + 19 - STEP_BACK_NS).tolist() == [2]


@pytest.mark.parametrize("step_ns", [1, 100_000_000, STEP_BACK_NS])
def test_ids_outlive_small_steps_back(step_ns: int) -> None:
    tracker = InstanceTracker()
    tracker.update(frame((8, 60, 30, 20, 20)), 5 * STEP_BACK_NS)
    objects = frame((8, 10, 10, 20, 20), (8, 60, 30, 20, 20))
    assert tracker.update(objects, 5 * STEP_BACK_NS).tolist() == [2, 1]
    for number in range(5):  # frames that change places, or a clock that was set
        stamp_ns = 5 * STEP_BACK_NS - step_ns * (number % 2)
        assert tracker.update(objects, stamp_ns).tolist() == [2, 1]


def test_many_small_steps_back_are_a_far_one() -> None:
    tracker = InstanceTracker()
    objects = frame((8, 10, 10, 20, 20), (8, 60, 30, 20, 20))
    tracker.update(frame((8, 60, 30, 20, 20)), 10 * STEP_BACK_NS)
    ids = [tracker.update(objects, 10 * STEP_BACK_NS - number * STEP_BACK_NS // 4).tolist() for number in range(7)]
    assert ids == [[2, 1]] * 5 + [[1, 2]] * 2
