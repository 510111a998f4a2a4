# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""`rt-panoptic bench cameras`: the real node, played to by several cameras."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from rt_panoptic_ros.errors import InvalidInputError
from rt_panoptic_ros.model.bundle import ModelBundle
from rt_panoptic_ros.ros.benchmark.cameras_benchmark import (
    CameraFigures,
    CamerasBenchmark,
    CamerasReport,
    PhaseFigures,
    bench_cameras,
)


@pytest.mark.slow
def test_every_camera_is_answered_also_while_one_floods(small_bundle: ModelBundle, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "frame.png"), np.random.default_rng(1).integers(0, 256, (96, 128, 3), np.uint8))
    parameters: dict[str, object] = {"model": str(small_bundle.path), "backend": "onnxruntime", "device": "cpu"}
    benchmark = CamerasBenchmark(str(tmp_path), parameters, cameras=2, rate_hz=4.0, flood_hz=40.0, seconds=10.0)
    report = bench_cameras(benchmark)
    assert report.flood is not None
    for phase in (report.calm, report.flood):
        assert list(phase.cameras) == ["camera1", "camera2"]
        assert all(figures.answered_hz > 0 and figures.age_p50_ms > 0 for figures in phase.cameras.values())
    assert report.flood.cameras["camera1"].sent_hz > 2 * report.calm.cameras["camera1"].sent_hz
    assert report.node["cameras"] == "2"
    assert json.loads(json.dumps(report.to_document()))["calm"]["engine_ms"] == report.calm.engine_ms


def figures(answered_hz: float, age_p95_ms: float = 100.0) -> CameraFigures:
    return CameraFigures(15.0, answered_hz, 50.0, age_p95_ms, 200.0)


def test_the_summary_compares_shares_ages_and_the_others_rates() -> None:
    calm = PhaseFigures({"a": figures(5.0), "b": figures(4.0, 150.0), "c": figures(5.0)}, 75.0, 0.0)
    flood = PhaseFigures({"a": figures(5.0), "b": figures(3.8), "c": figures(4.5)}, 75.0, 0.0)
    report = CamerasReport("x", calm, flood, {})
    assert report.summary() == {
        "largest_share_over_smallest": 1.25,
        "age_p95_in_engine_times": 2.0,
        "others_rate_while_flooded": 0.9,
    }
    assert "others_rate_while_flooded: 0.9" in report.format()


@pytest.mark.parametrize("wrong", [{"cameras": 1}, {"rate_hz": 0.0}, {"flood_hz": 2000.0}, {"seconds": 1.0}])
def test_what_cannot_be_measured_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InvalidInputError, match="expected --"):
        CamerasBenchmark("x", {}, **{"cameras": 3, "rate_hz": 15.0, "flood_hz": 200.0, "seconds": 300.0, **wrong})
