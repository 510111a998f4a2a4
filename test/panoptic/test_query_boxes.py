# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Query-box selection: the kernels against the reference implementation, and what must always hold."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import reference_postprocess as reference
from dense_cases import DEVICE, ideal_dense, random_dense, to_device
from hypothesis import given, settings
from hypothesis import strategies as st

from rt_panoptic_ros.benchmark.scenes import street_scene
from rt_panoptic_ros.model.class_table import load_class_table
from rt_panoptic_ros.panoptic.query_boxes import QueryBoxSelector
from rt_panoptic_ros.records import DenseDetections
from rt_panoptic_ros.settings import QueryBoxSettings

SIZE = (96, 160)


def select(dense: DenseDetections, config: QueryBoxSettings, size: tuple[int, int] = SIZE) -> reference.HostQueryBoxes:
    """Select both ways, one by one and in parallel as on a GPU, which must give the same to the bit."""
    serial, parallel = (_select(dense, config, size, capturable=capturable) for capturable in (False, True))
    np.testing.assert_array_equal(serial.boxes, parallel.boxes)
    np.testing.assert_array_equal(serial.scores, parallel.scores)
    np.testing.assert_array_equal(serial.labels, parallel.labels)
    return serial


def _select(
    dense: DenseDetections, config: QueryBoxSettings, size: tuple[int, int], *, capturable: bool
) -> reference.HostQueryBoxes:
    queries = QueryBoxSelector(dense, capturable=capturable).select(dense, size, config)
    count = int(queries.count.numpy()[0])
    return reference.HostQueryBoxes(
        queries.boxes.numpy()[:count], queries.scores.numpy()[:count], queries.labels.numpy()[:count]
    )


def assert_equals_reference(dense: DenseDetections, config: QueryBoxSettings, size: tuple[int, int] = SIZE) -> int:
    ours, expected = select(dense, config, size), reference.select_query_boxes(dense, size, config)
    np.testing.assert_array_equal(ours.labels, expected.labels)
    np.testing.assert_allclose(ours.scores, expected.scores, rtol=1e-5)
    np.testing.assert_allclose(ours.boxes, expected.boxes, rtol=1e-6)
    return len(ours.scores)


def with_finest_level(dense: DenseDetections, class_logits: np.ndarray, offsets: np.ndarray) -> DenseDetections:
    """Return outputs whose finest level proposes other boxes."""
    return replace(
        dense,
        box_class_logits=(to_device(class_logits), *dense.box_class_logits[1:]),
        box_offsets=(to_device(offsets), *dense.box_offsets[1:]),
    )


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("size", [(96, 160), (33, 47), (128, 128), (200, 328)])
def test_equals_reference_on_random_outputs(seed: int, size: tuple[int, int]) -> None:
    assert assert_equals_reference(random_dense(seed, size), QueryBoxSettings(), size) > 0


@pytest.mark.parametrize("top_k", [1, 7, 100])
def test_top_k_keeps_the_best_of_each_level(top_k: int) -> None:
    dense = random_dense(3, (128, 256), box_bias=1.0)
    config = QueryBoxSettings(pre_nms_top_k=top_k, nms_threshold=1.0, global_nms_threshold=1.0, max_detections=128)
    candidates = [(reference.sigmoid(array.numpy()) > 0.06).sum() for array in dense.box_class_logits]
    assert candidates[0] > top_k
    expected = min(128, sum(min(top_k, count) for count in candidates))
    assert assert_equals_reference(dense, config, (128, 256)) == expected


def test_no_detections() -> None:
    dense = random_dense(1, SIZE, box_bias=-50.0)
    assert assert_equals_reference(dense, QueryBoxSettings()) == 0


def test_equal_scores_are_ordered_by_index() -> None:
    dense = random_dense(1, SIZE)
    flat = DenseDetections(
        dense.semantic_logits,
        dense.levelness_logits,
        tuple(to_device(np.zeros(array.shape)) for array in dense.box_class_logits),
        dense.box_offsets,
        tuple(to_device(np.zeros(array.shape)) for array in dense.centerness_logits),
    )
    assert assert_equals_reference(flat, QueryBoxSettings(pre_nms_top_k=33)) > 1


def test_hundred_identical_boxes_leave_one_per_group() -> None:
    dense = ideal_dense(SIZE, [])
    shape = dense.box_class_logits[0].shape
    y, x = np.mgrid[: shape[1], : shape[2]] * 8 + 4
    box = (20.0, 10.0, 120.0, 80.0)
    offsets = np.stack([x - box[0], y - box[1], box[2] - x, box[3] - y])
    classes = np.random.default_rng(1).uniform(0, 2, shape)
    crowd = with_finest_level(dense, classes, offsets)
    assert assert_equals_reference(crowd, QueryBoxSettings()) == 1


def test_chains_of_boxes_that_each_remove_the_next() -> None:
    """Every second one is kept; whether one is depends on all before it, over the chunks' borders too."""
    size, stride = (8, 8 * 700), 8
    dense = ideal_dense(size, [])
    shape = dense.box_class_logits[0].shape
    x = np.arange(shape[2]) * stride + stride // 2
    reach = np.full((4, *shape[1:]), 14.0)  # boxes are 28 px wide and 8 px apart: IoU 0.55 with the next, 0.27 beyond
    falling = np.full(shape, -50.0)
    falling[0] = np.linspace(3.0, 2.0, len(x))
    chain = with_finest_level(dense, falling, reach)
    for nms, overall in ((0.5, 1.0), (1.0, 0.5), (0.5, 0.2)):
        config = QueryBoxSettings(nms_threshold=nms, global_nms_threshold=overall, max_detections=128)
        assert assert_equals_reference(chain, config, size) == 128


def test_no_thread_takes_many_steps_with_a_hundred_objects() -> None:
    size, table = (1024, 2048), load_class_table("cityscapes")
    dense = street_scene(size, 100, classes=len(table), thing_ids=table.thing_ids, device=DEVICE)
    selector = QueryBoxSelector(dense, capturable=True)
    assert selector.select(dense, size, QueryBoxSettings()).count.numpy()[0] == 100
    assert 0 < selector.rounds() <= 64  # of suppression; each is a few steps


def test_boxes_outside_the_image_are_clipped_to_its_pixels() -> None:
    dense = random_dense(5, SIZE, reach_px=400.0)
    boxes = select(dense, QueryBoxSettings(nms_threshold=1.0, global_nms_threshold=1.0), (90, 150)).boxes
    assert len(boxes)
    assert boxes.min() >= 0
    assert boxes[:, [0, 2]].max() <= 149
    assert boxes[:, [1, 3]].max() <= 89


def test_two_runs_are_bit_equal() -> None:
    dense = random_dense(7, SIZE, box_bias=0.0)
    selector = QueryBoxSelector(dense)
    first = selector.select(dense, SIZE, QueryBoxSettings()).boxes.numpy().copy()
    again = selector.select(dense, SIZE, QueryBoxSettings()).boxes.numpy()
    np.testing.assert_array_equal(first.view(np.uint32), again.view(np.uint32))


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    threshold=st.floats(0.3, 1.0),
    global_threshold=st.floats(0.3, 1.0),
    limit=st.integers(1, 128),
)
def test_survivors_overlap_at_most_by_the_thresholds(
    seed: int, threshold: float, global_threshold: float, limit: int
) -> None:
    config = QueryBoxSettings(nms_threshold=threshold, global_nms_threshold=global_threshold, max_detections=limit)
    found = select(random_dense(seed, (64, 96), box_bias=-1.0), config, (64, 96))
    assert len(found.scores) <= limit
    assert (np.diff(found.scores) <= 0).all()
    for i in range(1, len(found.scores)):
        overlaps = reference.iou(found.boxes[:i], found.boxes[i])
        assert overlaps.max() <= global_threshold + 1e-6
        same = found.labels[:i] == found.labels[i]
        assert overlaps[same].max(initial=0) <= threshold + 1e-6
