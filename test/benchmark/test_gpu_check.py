# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""`rt-panoptic gpu-check` on the CPU: all of its steps run, and it sees what is wrong."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from dense_cases import THING_IDS, random_dense, same_geometry

from rt_panoptic_ros.benchmark import gpu_steps
from rt_panoptic_ros.benchmark.gpu_check import STEPS, Findings, Plan, check_gpu
from rt_panoptic_ros.cli import main
from rt_panoptic_ros.inference.frame_graph import FrameGraph
from rt_panoptic_ros.panoptic import launching
from rt_panoptic_ros.settings import PostprocessSettings, settings_of

SMALL = Plan.small("cpu")


def found(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize(
    "steps",
    [
        pytest.param(
            ("machine", "kernels", "network", "tensorrt", "timing", "frames", "memcheck", "racecheck"), id="quick"
        ),
        pytest.param(tuple(STEPS), id="all", marks=pytest.mark.exhaustive),  # compiling and graphs take half a minute
    ],
)
def test_steps_run_on_the_cpu(
    steps: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    options = ["--device", "cpu", "--small", "--limit", "800", "--out", str(tmp_path)]
    assert main(["gpu-check", *options, "--only", *steps]) == 0
    text = capsys.readouterr().out
    assert text == (tmp_path / "gpu_check.txt").read_text(encoding="utf-8")
    reports = json.loads((tmp_path / "gpu_check.json").read_text(encoding="utf-8"))["steps"]
    assert [report["step"] for report in reports] == list(steps)
    for report in reports:
        assert report["failures"] == []
        assert bool(report["figures"]) != bool(report["not_run"])
    assert [report["step"] for report in reports if report["not_run"]] == ["tensorrt", "memcheck", "racecheck"]


def test_a_step_survives_anothers_failure(tmp_path: Path) -> None:
    plan = replace(SMALL, networks=(("nosuch", 64, 96),), objects=(3,))
    kernels, network = check_gpu(plan, tmp_path, ["network", "kernels"])
    assert kernels.failures == []
    assert [figures["found"] for figures in kernels.figures] == [3, 3]
    assert "Traceback" in network.failures[0]
    assert "nosuch" in network.failures[0]
    assert "ended with 1" in network.failures[1]


def test_without_time_left_a_step_fails(tmp_path: Path) -> None:
    (report,) = check_gpu(SMALL, tmp_path, ["machine"], limit_s=0.0)
    assert "no time left" in report.failures[0]
    assert "FAILED" in report.format()


def test_unknown_steps_and_devices_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gpu-check", "--only", "kernel", "--out", str(tmp_path)]) == 1
    assert main(["gpu-check", "--device", "gpu3", "--out", str(tmp_path)]) == 1
    errors = capsys.readouterr().err
    assert "got 'kernel'" in errors
    assert "got 'gpu3'" in errors


def test_other_settings_are_other_ones() -> None:
    assert {one.name for one in settings_of(PostprocessSettings)} == gpu_steps.OTHER_VALUES.keys()
    for name, value in gpu_steps.OTHER_VALUES.items():
        assert PostprocessSettings().replaced({name: value}) != PostprocessSettings()


def test_differences_of_every_stage_are_seen() -> None:
    size = (96, 160)
    settings = PostprocessSettings().replaced({"score_threshold": 0.05, "mask_threshold": 0.15})
    first, second = random_dense(1, size), random_dense(2, size)
    figures = gpu_steps._stage_differences((first, second), THING_IDS, same_geometry(size), settings)
    same = gpu_steps._stage_differences((first, first), THING_IDS, same_geometry(size), settings)
    for name, value in figures.items():
        assert value > 0, name
        assert same[name] == 0 or name == "found"


def test_what_racecheck_follows_is_one_right_graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launching, "MAX_BANDS", 1)
    gpu_steps._launch_one_graph(SMALL, Findings(tmp_path / "right"))
    assert found(tmp_path / "right") == [{"objects": 2, "different": "none"}]


def test_graphs_that_do_nothing_are_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launching, "MAX_BANDS", 1)
    monkeypatch.setattr(gpu_steps, "OTHER_VALUES", {"mask_threshold": 0.4})
    gpu_steps._compare_graphs(SMALL, Findings(tmp_path / "right"))
    assert not any("failure" in line for line in found(tmp_path / "right"))
    monkeypatch.setattr(FrameGraph, "launch", lambda self, work: None)
    gpu_steps._compare_graphs(SMALL, Findings(tmp_path / "wrong"))
    assert any("semantic in turn" in str(line.get("failure")) for line in found(tmp_path / "wrong"))
