# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""A frame's post-processing as one captured graph, as on a GPU; Warp records and replays graphs on the CPU too."""

from __future__ import annotations

import numpy as np
import pytest
import warp as wp
from dense_cases import DEVICE, THING_IDS, random_dense, same_geometry

from rt_panoptic_ros.panoptic import launching
from rt_panoptic_ros.panoptic.postprocess import Postprocessor
from rt_panoptic_ros.records import DenseDetections, PanopticResult
from rt_panoptic_ros.settings import PostprocessSettings

SIZE = (96, 160)


def arrays_of(dense: DenseDetections) -> list[wp.array]:
    assert dense.levelness_logits is not None
    return [
        dense.semantic_logits, dense.levelness_logits, *dense.box_class_logits, *dense.box_offsets,
        *dense.centerness_logits,
    ]  # fmt: skip


class Frames:
    """Post-processing over fixed arrays, into which one frame's outputs after another are written."""

    def __init__(self, settings: PostprocessSettings) -> None:
        self._settings = settings
        self._dense = random_dense(0, SIZE)
        self._postprocessor = Postprocessor(self._dense, THING_IDS, same_geometry(SIZE), capturable=True)

    def load(self, dense: DenseDetections) -> None:
        for mine, other in zip(arrays_of(self._dense), arrays_of(dense), strict=True):
            wp.copy(mine, other)

    def launch(self) -> None:
        self._postprocessor.launch(self._dense, self._settings)

    def result(self) -> PanopticResult:
        return self._postprocessor.result()


@pytest.mark.parametrize("overlap_threshold", [0.5, 0.0])
def test_captured_once_it_serves_every_frame(overlap_threshold: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launching, "MAX_BANDS", 1)  # on a GPU there are none
    settings = PostprocessSettings().replaced({"overlap_threshold": overlap_threshold, "mask_threshold": 0.1})
    plain, captured = Frames(settings), Frames(settings)
    captured.launch()
    with wp.ScopedCapture(device=DEVICE) as capture:
        captured.launch()
    objects = 0
    for seed in range(1, 6):
        frame = random_dense(seed, SIZE, reach_px=60.0)
        plain.load(frame)
        plain.launch()
        captured.load(frame)
        wp.capture_launch(capture.graph)
        ours, expected = captured.result(), plain.result()
        np.testing.assert_array_equal(ours.semantic, expected.semantic)
        np.testing.assert_array_equal(ours.instance, expected.instance)
        np.testing.assert_array_equal(ours.detections.areas, expected.detections.areas)
        np.testing.assert_array_equal(ours.detections.mask_boxes, expected.detections.mask_boxes)
        objects += len(expected.detections)
    assert objects >= 10
