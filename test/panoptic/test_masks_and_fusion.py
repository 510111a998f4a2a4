# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Mask construction and fusion: the kernels against the reference implementation, and what holds of any labelling."""

from __future__ import annotations

import threading
from functools import partial

import numpy as np
import pytest
import reference_postprocess as reference
import warp as wp
from dense_cases import CLASSES, THING_IDS, ideal_dense, random_dense, same_geometry
from hypothesis import given, settings
from hypothesis import strategies as st

from rt_panoptic_ros.panoptic import fusion, launching, masks, semantics
from rt_panoptic_ros.panoptic.fusion import PanopticFuser
from rt_panoptic_ros.panoptic.masks import MaskConstructor
from rt_panoptic_ros.panoptic.pixel_map import axis_positions
from rt_panoptic_ros.panoptic.postprocess import Postprocessor
from rt_panoptic_ros.panoptic.query_boxes import QueryBoxSelector
from rt_panoptic_ros.panoptic.semantics import ConfidencePainter
from rt_panoptic_ros.records import LABELS, VOID, DenseDetections, ImageGeometry, PanopticResult
from rt_panoptic_ros.settings import PostprocessSettings

LOW = {"score_threshold": 0.05, "mask_threshold": 0.15}
SIZES = [(96, 160), (33, 47), (200, 328)]


def run_kernels(
    dense: DenseDetections, geometry: ImageGeometry, config: PostprocessSettings
) -> tuple[reference.HostQueryBoxes, np.ndarray, PanopticResult]:
    """Return the query boxes, the masks of those above the score threshold, and the result."""
    queries = QueryBoxSelector(dense).select(dense, geometry.content_size, config.query_boxes)
    membership = MaskConstructor(dense, THING_IDS).construct(dense, queries, config.masks)
    fuser = PanopticFuser(dense, THING_IDS, geometry)
    fuser.launch(queries, membership, config.fusion, partial(fuser.paint_semantics, dense, membership))
    result = fuser.result()
    count = int(membership.active.numpy()[0])
    host = reference.HostQueryBoxes(
        queries.boxes.numpy()[:count], queries.scores.numpy()[:count], queries.labels.numpy()[:count]
    )
    return host, fuser.render_masks(membership), result


def assert_equals_reference(
    dense: DenseDetections, geometry: ImageGeometry, config: PostprocessSettings
) -> PanopticResult:
    queries, found, result = run_kernels(dense, geometry, config)
    probabilities = reference.mask_probabilities(dense, queries, THING_IDS, config.masks)
    pixels = reference.camera_sampled(probabilities, geometry, 4)
    threshold = config.masks.mask_threshold
    differ = found != (pixels >= np.float32(threshold))
    assert np.abs(pixels[differ] - threshold).max(initial=0) < 1e-5  # only where rounding decides
    assert differ.sum() <= 1e-5 * differ.size + 2

    expected = reference.fuse_panoptic(dense, queries, found, THING_IDS, geometry, config.fusion)
    np.testing.assert_array_equal(result.instance, expected.instance)
    logits = reference.camera_sampled(dense.semantic_logits.numpy(), geometry, 8)
    best_two = np.sort(logits, axis=0)[-2:]
    undecided = best_two[1] - best_two[0] < 1e-5
    np.testing.assert_array_equal(result.semantic[~undecided], expected.semantic[~undecided])
    np.testing.assert_array_equal(result.detections.class_ids, expected.detections.class_ids)
    np.testing.assert_array_equal(result.detections.areas, expected.detections.areas)
    np.testing.assert_array_equal(result.detections.mask_boxes, expected.detections.mask_boxes)
    np.testing.assert_allclose(result.detections.boxes, expected.detections.boxes, rtol=1e-6)
    np.testing.assert_array_equal(result.detections.scores, expected.detections.scores)
    return result


@pytest.mark.parametrize("levelness", [True, False])
@pytest.mark.parametrize("similarity", ["iou", "giou"])
@pytest.mark.parametrize("size", SIZES)
def test_equals_reference_on_random_outputs(size: tuple[int, int], similarity: str, levelness: bool) -> None:
    config = PostprocessSettings().replaced({**LOW, "similarity": similarity})
    found = 0
    for seed in range(4):
        dense = random_dense(seed, size, levelness=levelness)
        found += len(assert_equals_reference(dense, same_geometry(size), config).detections)
    assert found > 0


@pytest.mark.parametrize(
    "geometry",
    [
        ImageGeometry(180, 320, 90, 160, 96, 160),  # shrunk by two, padded below
        ImageGeometry(48, 80, 96, 160, 96, 160),  # enlarged by two
        ImageGeometry(77, 131, 96, 160, 96, 160),  # stretched by odd factors
        ImageGeometry(70, 100, 70, 100, 96, 160),  # padded on both sides
        ImageGeometry(400, 7, 96, 160, 96, 160),
    ],
)
def test_equals_reference_when_camera_and_network_sizes_differ(geometry: ImageGeometry) -> None:
    config = PostprocessSettings().replaced(LOW)
    assert_equals_reference(random_dense(11, geometry.network_size), geometry, config)


def test_ideal_objects_come_out_as_they_went_in() -> None:
    objects = [(0, (8.0, 8.0, 55.0, 47.0)), (1, (80.0, 16.0, 135.0, 79.0)), (0, (16.0, 56.0, 63.0, 87.0))]
    dense = ideal_dense((96, 160), objects)
    result = assert_equals_reference(dense, same_geometry((96, 160)), PostprocessSettings())
    assert result.detections.class_ids.tolist() == [THING_IDS[0], THING_IDS[1], THING_IDS[0]]
    for row, (_, box) in enumerate(objects):
        np.testing.assert_allclose(result.detections.boxes[row], box, atol=1e-3)
        np.testing.assert_allclose(result.detections.mask_boxes[row], box, atol=6)


def test_hundred_overlapping_objects() -> None:
    random = np.random.default_rng(4)
    corners = random.uniform([0, 0], [100, 40], (100, 2))
    objects = [(i % 3, (x, y, x + 40 + i % 17, y + 40 + i % 11)) for i, (x, y) in enumerate(corners)]
    dense = ideal_dense((96, 160), objects, score_step=0.02)
    config = PostprocessSettings().replaced(
        {"nms_threshold": 1.0, "global_nms_threshold": 1.0, "score_threshold": 0.01, "mask_threshold": 0.05}
    )
    for overlap in (0.0, 0.2, 0.5, 1.0):
        assert_equals_reference(dense, same_geometry((96, 160)), config.replaced({"overlap_threshold": overlap}))


def test_equal_scores_and_one_pixel_objects() -> None:
    objects = [(0, (40.0, 40.0, 41.0, 41.0)), (1, (84.0, 44.0, 84.5, 44.5)), (2, (20.0, 20.0, 20.1, 20.1))]
    dense = ideal_dense((96, 160), objects, score_step=0.0)
    assert_equals_reference(dense, same_geometry((96, 160)), PostprocessSettings().replaced(LOW))


def test_no_detections_leaves_the_semantics() -> None:
    dense = random_dense(2, (96, 160), box_bias=-50.0)
    result = assert_equals_reference(dense, same_geometry((96, 160)), PostprocessSettings())
    assert len(result.detections) == 0
    assert not result.instance.any()


def test_many_classes_between_four_corners() -> None:
    """More classes can win inside a cell than the kernel keeps as candidates."""
    random = np.random.default_rng(8)
    dense = random_dense(1, (64, 64))
    dense.semantic_logits.assign(random.standard_normal(dense.semantic_logits.shape).astype(np.float32) * 1e-2)
    assert_equals_reference(dense, same_geometry((64, 64)), PostprocessSettings())


@pytest.mark.parametrize("count", [1, 2, 4])
def test_bands_of_rows_change_nothing(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (launching, fusion):
        monkeypatch.setattr(module, "band_count", lambda device: count)
    monkeypatch.setitem(launching.launch_rows.__kwdefaults__, "least_cells", 1)
    for module in (masks, fusion):
        monkeypatch.setattr(module, "HELD_CELLS", 1)
    config = PostprocessSettings().replaced(LOW)
    found = [
        assert_equals_reference(random_dense(seed, (96, 160)), same_geometry((96, 160)), config) for seed in range(6)
    ]
    assert sum(len(result.detections) for result in found) > 0


@pytest.mark.parametrize("cores", [1, 2])
def test_the_whole_is_the_same_with_and_without_a_core_for_what_needs_no_query_boxes(
    cores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launching.os, "sched_getaffinity", lambda _: set(range(cores)))
    config, geometry = PostprocessSettings().replaced(LOW), same_geometry((96, 160))
    dense = random_dense(4, (96, 160))
    _, _, expected = run_kernels(dense, geometry, config)
    whole = Postprocessor(dense, THING_IDS, geometry)
    for images in (LABELS, frozenset({"instance"}), LABELS):
        whole.launch(dense, config, images=images)
        result = whole.result(images=images)
        np.testing.assert_array_equal(result.instance, expected.instance)
        if "semantic" in images:
            np.testing.assert_array_equal(result.semantic, expected.semantic)
    assert len(expected.detections) > 0


@pytest.mark.parametrize("cores", [1, 2])
def test_work_beside_is_done_in_order_and_its_failure_told_where_it_is_asked_for(
    cores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launching, "band_count", lambda device: cores)
    done: list[object] = []

    def fail() -> None:
        raise ValueError(str(done))

    with launching.Beside(wp.get_device("cpu")) as beside:
        beside.begin(lambda: done.append(threading.current_thread()))
        beside.begin(fail)
        beside.end_next()
        assert (done == [threading.current_thread()]) == (cores == 1)
        with pytest.raises(ValueError, match="Thread"):
            beside.end_next()
        beside.end_next()  # nothing is left to end

    def leave_early() -> None:
        with launching.Beside(wp.get_device("cpu")) as beside:
            may_end = threading.Event()
            beside.begin(may_end.wait)
            beside.begin(lambda: done.append("late"))
            may_end.set()
            raise KeyError

    with pytest.raises(KeyError):
        leave_early()
    assert ("late" in done) == (cores == 2)  # what was begun has ended, and nothing else is begun


def test_work_divided_among_threads_as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (launching, masks, fusion, semantics):
        monkeypatch.setattr(module, "divided", lambda device, most: most)
    config = PostprocessSettings().replaced(LOW)
    wide = ImageGeometry(151, 500, 96, 160, 96, 160)
    found = [
        assert_equals_reference(random_dense(seed, (96, 160)), geometry, config)
        for seed in range(3)
        for geometry in (same_geometry((96, 160)), wide)
    ]
    assert sum(len(result.detections) for result in found) > 0
    test_confidence_is_the_best_class_probability_interpolated((61, 200))


def test_two_runs_are_bit_equal() -> None:
    dense = random_dense(9, (96, 160))
    config = PostprocessSettings().replaced(LOW)
    first, second = (run_kernels(dense, same_geometry((96, 160)), config)[2] for _ in range(2))
    np.testing.assert_array_equal(first.semantic, second.semantic)
    np.testing.assert_array_equal(first.instance, second.instance)
    np.testing.assert_array_equal(first.detections.boxes, second.detections.boxes)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    height=st.integers(1, 120),
    width=st.integers(1, 120),
    camera=st.tuples(st.integers(1, 150), st.integers(1, 150)),
    mask_threshold=st.floats(0.02, 1.0),
    overlap_threshold=st.floats(0.0, 1.0),
    stuff_area_min=st.sampled_from([0, 1, 50, 10**6]),
    similarity=st.sampled_from(["iou", "giou"]),
)
def test_labelling_is_panoptic(
    seed: int,
    height: int,
    width: int,
    camera: tuple[int, int],
    mask_threshold: float,
    overlap_threshold: float,
    stuff_area_min: int,
    similarity: str,
) -> None:
    """Ids 1..n without holes, areas and boxes equal the pixels', classes agree, void only for small stuff."""
    config = PostprocessSettings().replaced(
        {
            "score_threshold": 0.05,
            "mask_threshold": mask_threshold,
            "overlap_threshold": overlap_threshold,
            "stuff_area_min": stuff_area_min,
            "similarity": similarity,
        }
    )
    geometry = ImageGeometry(*camera, height, width, height, width)
    _, masks, result = run_kernels(random_dense(seed, (height, width), box_bias=-1.0), geometry, config)
    table = result.detections
    assert result.semantic.shape == result.instance.shape == camera
    assert np.unique(result.instance[result.instance > 0]).tolist() == list(range(1, len(table) + 1))
    assert (np.diff(table.scores) <= 0).all()
    assert set(table.class_ids.tolist()) <= set(THING_IDS)
    for row in range(len(table)):
        y, x = np.nonzero(result.instance == row + 1)
        assert table.areas[row] == len(y)
        assert table.mask_boxes[row].tolist() == [x.min(), y.min(), x.max(), y.max()]
        assert (result.semantic[y, x] == table.class_ids[row]).all()
    assert not (result.instance[~masks.any(axis=0)] if len(masks) else result.instance).any()
    void = result.semantic == VOID
    assert (result.semantic[~void] < CLASSES).all()
    assert not (void & (result.instance > 0)).any()
    assert stuff_area_min > 0 or not void.any()
    outside = result.semantic[(result.instance == 0) & ~void]
    for c in np.unique(outside):
        assert c in THING_IDS or (outside == c).sum() >= stuff_area_min


@pytest.mark.parametrize("camera", [(96, 160), (61, 200)], ids=str)
def test_confidence_is_the_best_class_probability_interpolated(camera: tuple[int, int]) -> None:
    size = (96, 160)
    dense = random_dense(3, size)
    geometry = ImageGeometry(*camera, *size, *size)
    painter = ConfidencePainter(dense, geometry)
    painter.launch(dense)
    logits = dense.semantic_logits.numpy().astype(np.float64)
    best = np.exp(logits.max(axis=0)) / np.exp(logits).sum(axis=0)
    rows, wy = axis_positions(camera[0], size[0] / camera[0] / 8, best.shape[0])
    columns, wx = axis_positions(camera[1], size[1] / camera[1] / 8, best.shape[1])
    padded = np.pad(best, ((0, 1), (0, 1)), mode="edge")
    across = padded[rows] * (1 - wy)[:, None] + padded[rows + 1] * wy[:, None]
    expected = across[:, columns] * (1 - wx) + across[:, columns + 1] * wx
    confidence = painter.result()
    assert confidence.shape == camera
    assert np.abs(confidence - 255 * expected).max() < 0.51
    assert confidence.std() > 5
