# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The benchmarks: the reference does the same work, and what is printed holds together. Nothing asserts a time."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import warp as wp

import rt_panoptic_ros
from rt_panoptic_ros.benchmark.measure import Comparison, StageClock, compare, graph_times
from rt_panoptic_ros.benchmark.scenes import SceneBackend, street_scene
from rt_panoptic_ros.cli import main
from rt_panoptic_ros.model.bundle import ModelBundle
from rt_panoptic_ros.model.class_table import load_class_table
from rt_panoptic_ros.panoptic import launching, postprocess
from rt_panoptic_ros.records import DenseDetections
from scripts import comparisons
from scripts.comparisons import bench_network, bench_pipeline, bench_postprocess
from scripts.floors import count_floors


def test_both_ways_have_their_turns() -> None:
    calls: list[str] = []

    def work(name: str, clock: StageClock) -> None:
        calls.append(name)
        clock.end("stage")

    result = compare(
        "words", lambda clock: work("ours", clock), lambda clock: work("reference", clock), seconds=0, least=3, warmup=1
    )
    assert calls[:2] == ["ours", "reference"]
    assert calls.count("reference") == 1 + 3
    assert calls.count("ours") >= 1 + 3
    assert result.ratio == result.reference_median_ms / result.median_ms
    assert set(result.to_document()) == {"subject", "median_ms", "reference_median_ms", "ratio", "stages_ms",
                                         "reference_stages_ms"}  # fmt: skip
    assert set(result.stages_ms) == set(result.reference_stages_ms) == {"stage"}


def test_the_ratio_is_how_many_times_faster() -> None:
    comparison = Comparison("words", 2.0, 10.0, {}, {}, {"objects": 3})
    assert comparison.ratio == 5
    assert "5.00 times as fast" in comparison.format()
    assert "objects: 3" in comparison.format()


@pytest.mark.parametrize("objects", [0, 1, 100])
def test_post_processing_equals_the_reference(objects: int) -> None:
    result = bench_postprocess((200, 328), objects, "cpu", seconds=0)
    assert result.details["pixels_alike"] > 0.9999
    assert 0.5 * objects <= result.details["detections"] <= objects
    assert set(result.stages_ms) == set(result.reference_stages_ms) == {"query_boxes", "masks", "fusion"}


def test_scenes_share_their_first_objects() -> None:
    ids = load_class_table("cityscapes").thing_ids
    few, many = (street_scene((64, 128), n, classes=19, thing_ids=ids, device="cpu") for n in (1, 2))
    assert [array.shape for array in few.box_offsets] == [(4, -(-64 // s), -(-128 // s)) for s in (8, 16, 32, 64, 128)]
    again = street_scene((64, 128), 1, classes=19, thing_ids=ids, device="cpu")
    np.testing.assert_array_equal(few.semantic_logits.numpy(), again.semantic_logits.numpy())
    assert not np.array_equal(few.semantic_logits.numpy(), many.semantic_logits.numpy())


def test_the_network_equals_the_concatenating_one(small_bundle: ModelBundle) -> None:
    pytest.importorskip("torch")
    result = bench_network(small_bundle, (64, 96), "onnxruntime", "cpu", "float32", tf32=False, seconds=0)
    assert result.details["largest_logit_difference"] < 1e-3
    rates = [result.details[name] for name in ("gflop_per_s", "gemm_gflop_per_s", "share_of_gemm")]
    assert rates[0] / rates[1] == pytest.approx(rates[2], rel=0.05, abs=2e-3)
    assert rates[1] > 1


@pytest.mark.parametrize("detections", [None, 5])
def test_the_whole_frame(small_bundle: ModelBundle, detections: int | None) -> None:
    pytest.importorskip("torch")
    result = bench_pipeline(small_bundle, (64, 96), detections, "onnxruntime", "cpu", "float32", tf32=False, seconds=0)
    assert result.details["frame_over_network"] > 1
    assert (
        set(result.stages_ms)
        == set(result.reference_stages_ms)
        == {"input", "network", "query_boxes", "masks", "fusion"}
    )
    assert detections is None or 0 < result.details["detections"] <= detections


def test_captured_work_is_timed_on_the_device_apart_from_the_host(
    small_bundle: ModelBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Small backends and Warp's own capture on the CPU in place of a GPU, and a made-up event in place of CUDA's."""
    classes, size, backend = small_bundle.classes, (64, 96), ("auto", "cpu", "float32")
    scene = street_scene(size, 3, classes=len(classes), thing_ids=classes.thing_ids, device="cpu")
    monkeypatch.setattr(comparisons, "open_backend", lambda *_, **__: SceneBackend(scene, size, "cpu"))
    reference = SimpleNamespace(ReferenceNetwork=lambda *_: SceneBackend(scene, size, "cpu"))
    monkeypatch.setitem(sys.modules, "reference_network", reference)
    monkeypatch.setattr(launching, "MAX_BANDS", 1)
    monkeypatch.setattr(postprocess, "QueryBoxSelector", partial(capturable_selector, postprocess.QueryBoxSelector))
    monkeypatch.setattr(wp, "timing_end", lambda: [SimpleNamespace(elapsed=1e-3)])
    frame = bench_pipeline(small_bundle, size, 5, *backend, tf32=False, seconds=0)
    behind = bench_postprocess(size, 3, "cpu", seconds=0, capture=True)
    network = bench_network(small_bundle, size, *backend, tf32=False, seconds=0)
    for result, stages, by_stage in (
        (frame, {"input", "graph"}, {"input", "network", "query_boxes", "masks", "fusion"}),
        (behind, {"graph"}, {"query_boxes", "masks", "fusion"}),
        (network, set(), set()),
    ):
        assert set(result.stages_ms) == stages
        assert set(result.details.get("by_stage_ms", ())) == by_stage
        times = result.details["captured_ms"]
        assert times["device"] == 1e-3
        assert times["host"] == pytest.approx(times["frame"], abs=2e-3)
        assert "captured_ms: frame" in result.format()


def test_on_the_cpu_a_captured_frame_is_the_devices() -> None:
    times = graph_times(lambda: None, repeats=2)
    assert times["device"] == times["frame"] > times["host"] == 0


def capturable_selector(kind: type, dense: DenseDetections, *, capturable: bool | None) -> object:
    return kind(dense, capturable=capturable is not False)


def test_the_command_prints_one_object(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "postprocess", "--size", "64x96", "--detections", "3", "--seconds", "0", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert {"median_ms", "reference_median_ms", "ratio"} <= set(document)


def test_floors_are_counted_from_the_graph(small_bundle: ModelBundle) -> None:
    floors = count_floors(small_bundle, (64, 96))
    # The first convolution alone: 7x7 over 3 channels into 64, at half the size.
    assert floors.gflop["encoder"] > 2 * 7 * 7 * 3 * 64 * 32 * 48 / 1e9
    assert floors.postprocess_write_mb == pytest.approx(3 * 64 * 96 / 1e6)
    cells = [8 * 12, 4 * 6, 2 * 3, 1 * 2, 1 * 1]
    outputs = 11 * cells[0] + 6 * 4 * cells[0] + (3 + 4 + 1) * sum(cells)
    assert floors.postprocess_read_mb == pytest.approx(4 * outputs / 1e6)
    assert count_floors(small_bundle, (128, 192)).gflop["encoder"] == pytest.approx(
        4 * floors.gflop["encoder"], rel=0.1
    )


def test_the_sweep_prints_rows_and_draws(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    from scripts.sweep import sweep_postprocess

    picture = tmp_path / "plot.png"
    sweep_postprocess(picture, "auto", seconds=0, sizes=((64, 96), (96, 160)), objects=(1, 5))
    assert len(capsys.readouterr().out.splitlines()) == 1 + 2 * 2
    assert cv2.imread(str(picture)).std() > 10


def test_an_installed_copy_has_nothing_to_compare_with(tmp_path: Path) -> None:
    package = Path(rt_panoptic_ros.__file__).parent
    shutil.copytree(package, tmp_path / package.name, ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", package.name, "bench", "postprocess"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, encoding="utf-8", check=False)
    assert done.returncode == 1
    assert "expected test/ with the reference implementations" in done.stderr
    assert "run `python -m rt_panoptic_ros bench` in a checkout" in done.stderr
    assert "Traceback" not in done.stderr
