# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Network outputs that are no numbers, infinite, or beyond all bounds: labels stay labels, and void where unknown."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from dense_cases import CLASSES, THING_IDS, random_dense, same_geometry, to_device

from rt_panoptic_ros.panoptic.postprocess import Postprocessor
from rt_panoptic_ros.records import IMAGES, VOID, DenseDetections, PanopticResult
from rt_panoptic_ros.settings import PostprocessSettings

SIZE = (96, 160)
SETTINGS = PostprocessSettings().replaced(
    {
        "score_threshold": 0.05,
        "mask_threshold": 0.15,
        "stuff_area_min": 100,
        "pre_nms_top_k": 50,
    }  # fewer than there are
)
OUTPUTS = ("semantic_logits", "levelness_logits", "box_class_logits", "box_offsets", "centerness_logits")
NEGATIVE_NAN = np.copysign(np.float32(np.nan), np.float32(-1))  # as x86 makes them


def dense_of(poison: Callable[[str, np.ndarray], object] = lambda *_: None) -> DenseDetections:
    """Return outputs of a scene with objects, poisoned in place."""
    arrays = random_dense(1, SIZE, reach_px=60.0).host_arrays()
    for name, array in arrays.items():
        poison(name, array)
    return DenseDetections.of_arrays({name: to_device(array) for name, array in arrays.items()})


def labelled(dense: DenseDetections, *, capturable: bool) -> PanopticResult:
    postprocessor = Postprocessor(dense, THING_IDS, same_geometry(SIZE), capturable=capturable)
    postprocessor.launch(dense, SETTINGS, images=frozenset(IMAGES))
    return postprocessor.result(images=frozenset(IMAGES))


def assert_well_formed(result: PanopticResult) -> None:
    table = result.detections
    assert set(np.unique(result.semantic)) <= {*range(CLASSES), VOID}
    assert np.isin(table.class_ids, THING_IDS).all()
    assert np.isfinite(table.scores).all()
    assert np.isfinite(table.boxes).all()
    assert set(np.unique(result.instance)) - {0} == set(table.ids.tolist())
    for row, number in enumerate(table.ids):
        assert np.count_nonzero(result.instance == number) == table.areas[row]
        assert set(result.semantic[result.instance == number]) == {table.class_ids[row]}


@pytest.mark.parametrize("capturable", [False, True])
@pytest.mark.parametrize("value", [np.nan, NEGATIVE_NAN, np.inf, -np.inf])
@pytest.mark.parametrize("output", OUTPUTS)
def test_an_output_without_numbers(output: str, value: float, capturable: bool) -> None:
    def everywhere(name: str, array: np.ndarray) -> None:
        if name.startswith(output):
            array[...] = value

    result = labelled(dense_of(everywhere), capturable=capturable)
    assert_well_formed(result)
    silent = output == "centerness_logits" and np.isinf(value)
    assert result.undefined != silent  # the sigmoid of an infinite logit is known
    if output == "semantic_logits":
        assert (result.semantic == VOID).all()
        assert result.confidence is not None
        assert not result.confidence.any()
    assert (len(result.detections) > 0) == (output == "centerness_logits" and value == np.inf)


@pytest.mark.parametrize("capturable", [False, True])
@pytest.mark.parametrize("value", [np.nan, NEGATIVE_NAN, np.inf, -np.inf, 3e38, -3e38])
def test_single_values_without_numbers(value: float, capturable: bool) -> None:
    clean = labelled(dense_of(), capturable=capturable)
    assert len(clean.detections) > 3
    assert not clean.undefined
    for output in OUTPUTS:

        def here_and_there(name: str, array: np.ndarray, output: str = output) -> None:
            if name.startswith(output):
                array.reshape(len(array), -1)[:, :: array[0].size // 3 + 1] = value

        result = labelled(dense_of(here_and_there), capturable=capturable)
        assert_well_formed(result)
        if output == "semantic_logits" and not np.isfinite(value):
            assert result.undefined
            void = result.semantic == VOID
            assert 0 < np.count_nonzero(void) < void.size / 2
            known = ~void & (clean.semantic != VOID) & (clean.instance == 0) & (result.instance == 0)
            np.testing.assert_array_equal(result.semantic[known], clean.semantic[known])


def test_both_ways_agree_on_what_is_undefined() -> None:
    random = np.random.default_rng(1)

    def anywhere(_: str, array: np.ndarray) -> None:
        array[random.random(array.shape) < 0.01] = np.nan

    poisoned = dense_of(anywhere)
    serial, parallel = labelled(poisoned, capturable=False), labelled(poisoned, capturable=True)
    assert serial.undefined
    assert_well_formed(serial)
    np.testing.assert_array_equal(serial.semantic, parallel.semantic)
    np.testing.assert_array_equal(serial.instance, parallel.instance)
