# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""`rt-panoptic bench node`: real short runs, how frames are accounted for, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from types import SimpleNamespace

import pytest

from rt_panoptic_ros.cli import main
from rt_panoptic_ros.errors import InvalidInputError, UnavailableError
from rt_panoptic_ros.ros.benchmark.driver import Answer, Camera
from rt_panoptic_ros.ros.benchmark.node_benchmark import NOT_OWN, NodeBenchmark, Outcome, endure
from rt_panoptic_ros.ros.benchmark.subjects import FrameLog
from rt_panoptic_ros.ros.processes import running

COUNTS = ("frames_sent", "frames_received_by_node", "frames_not_received", "frames_dropped", "frames_answered")
NODE_STAGES = [
    "receive", "hand_over", "decode", "input", "network", "query_boxes", "masks", "fusion", "publish", "deliver",
]  # fmt: skip


@pytest.fixture
def bench(programs, tmp_path):
    """Run the command in a process of its own and return what it printed as JSON."""

    def run(*options: str) -> dict:
        temporary = tmp_path / "temporary"
        temporary.mkdir()
        done = subprocess.run(
            [sys.executable, "-m", "rt_panoptic_ros", "bench", "node", "--size", "64x96", "--json", *options],
            env=programs.environment | {"TMPDIR": str(temporary)}, cwd=tmp_path, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert list(temporary.iterdir()) == []
        return json.loads(done.stdout)

    return run


def assert_accounted_for(document, frames):
    sent, received, lost, dropped, answered = (document[name] for name in COUNTS)
    assert sent == frames
    assert received + lost == sent
    assert 0 < answered <= received - dropped
    assert 0 < document["own_cost_ms"] < document["median_ms"]
    assert document["peak_memory_mb"] > abs(document["memory_growth_mb"])
    assert list(document["stages_ms"]) == NODE_STAGES
    assert document["stages_ms"]["network"] >= 2


@pytest.mark.slow
def test_measures_node_and_relay_in_turn(bench):
    document = bench("--rounds", "2", "--frames", "5", "--rate", "20", "--network-ms", "2")
    assert_accounted_for(document, 10)
    assert document["relay_frames_sent"] == 10
    assert 0 < document["relay_frames_answered"] <= 10
    assert list(document["reference_stages_ms"]) == ["receive", "network", "publish", "deliver"]
    assert document["reference_stages_ms"]["network"] >= 2
    assert document["ratio"] == document["reference_median_ms"] / document["median_ms"]
    assert document["node_over_relay"] == pytest.approx(1 / document["ratio"], abs=1e-3)
    assert document["own_cost_over_relay"] > 0
    assert document["own_cost_leaves_out"] == list(NOT_OWN)
    for of in ("", "relay_"):
        assert 0 < document[f"{of}age_at_turn_p50_ms"] <= document[f"{of}age_at_turn_p95_ms"]


@pytest.mark.slow
def test_measures_what_outputs_cost_that_nobody_listens_to(bench):
    document = bench("--idle-outputs", "--rounds", "2", "--frames", "5", "--rate", "20", "--network-ms", "2")
    assert list(document["stages_ms"]) == list(document["reference_stages_ms"]) == NODE_STAGES
    assert document["all_over_few"] == pytest.approx(1 / document["ratio"], abs=1e-3)


@pytest.mark.slow
def test_endurance_runs_the_node_alone(bench):
    document = bench("--endurance", "20", "--rate", "20", "--network-ms", "2")
    assert_accounted_for(document, 20)
    assert 0 < document["sent_rate_hz"] < 40
    assert "node_over_relay" not in document


def test_lost_dropped_and_unheard_frames_are_told_apart(tmp_path):
    log = FrameLog(str(tmp_path / "node.jsonl"))
    for stamp in (90, 100, 300, 400):  # 90 was for warming up, 200 never came
        log.note(stamp)
    for stamp in (90, 100, 400, 500):  # 300 was left out for 400; 500 was fetched at its turn
        log.note(stamp, {"receive": 1.0, "hand_over": stamp / 1000, "masks": 10.0, "publish": 2.0})
    camera = Camera("node", "/bench/image", "/bench/node", SimpleNamespace(name="node"))
    camera.sent_ns = [100, 200, 300, 400, 500]
    camera.answers = {90: Answer(99.0, 7), 100: Answer(14.1, 1), 400: Answer(16.4, 2)}  # 500's were not received
    camera.resident_mb = [50.0, 60.0, 60.0, 60.0, 60.0, 62.0]

    outcome = Outcome(camera, tmp_path / "node.jsonl", 70.0)
    assert [outcome.figures[name] for name in COUNTS] == [5, 4, 1, 1, 2]
    assert outcome.figures["objects_per_frame"] == 1.5
    assert [stages["deliver"] for stages in outcome.stages_ms] == pytest.approx([1.0, 3.0])
    assert (outcome.median_ms, outcome.own_cost_ms) == pytest.approx((15.25, 5.25))
    ages = {name: value for name, value in outcome.figures.items() if "age_at_turn" in name}
    assert ages == {"age_at_turn_p50_ms": 1.2, "age_at_turn_p95_ms": 1.4}
    memory = {name: value for name, value in outcome.figures.items() if "memory" in name}
    assert memory == {"peak_memory_mb": 70.0, "memory_growth_mb": 12.0}

    camera.answers = {90: Answer(99.0, 7)}
    with pytest.raises(UnavailableError, match="outputs of the node for some of 5 frames, got none: lower --rate"):
        Outcome(camera, tmp_path / "node.jsonl", 70.0)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--size", "64"], "expected --size as HEIGHTxWIDTH"),
        (["--size", ""], "expected --size as HEIGHTxWIDTH"),
        (["--rate", "0"], "expected --rate to be a number above 0 and up to 1000, got 0"),
        (["--rate", "nan"], "expected --rate to be a number above 0 and up to 1000, got nan"),
        (["--frames", "0"], "expected --frames to be a whole number from 1, got 0"),
        (["--rounds", "0"], "expected --rounds to be a whole number from 1, got 0"),
        (["--detections", "101"], "expected --detections to be a whole number up to 100, got 101"),
        (["--network-ms", "-1"], "expected --network-ms to be a number from 0, got -1"),
        (["--network-ms", "inf"], "expected --network-ms to be a number from 0, got inf"),
        (["--endurance", "9"], "expected --endurance to be a number of frames from 10"),
    ],
)
def test_wrong_options_are_refused_in_one_sentence(options, sentence, capsys):
    assert main(["bench", "node", *options]) == 1
    said = capsys.readouterr().err
    assert sentence in said
    assert len(said.splitlines()) == 1


def test_endurance_needs_frames_to_compare_memory_over():
    with pytest.raises(InvalidInputError, match="from 10"):
        endure(NodeBenchmark((64, 96), 10.0, 100, 3, 10, 0.0), 9)


def test_what_a_process_is_told_survives_the_command_line(programs, tmp_path):
    told = ("/bench", (64, 96), 10, 1.5, '/tmp/it\'s a "record".json')
    with running("echo", print, {}, programs.environment, tmp_path, told) as process:
        assert process.popen.wait() == 0
    assert process.log.read_text(encoding="utf-8") == '/bench (64, 96) 10 1.5 /tmp/it\'s a "record".json\n'


def test_a_process_that_ended_is_told_with_its_last_words(programs, tmp_path):
    with running("node", len, {}, programs.environment, tmp_path) as process:
        process.popen.wait()
        with pytest.raises(UnavailableError, match=r"process node .* status 1: .*TypeError.*; its log is .*node\.log"):
            process.check_running()
