# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""`rt-panoptic soak`: seconds of it with the real node, and what it plays."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pytest
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import Image

from rt_panoptic_ros.cli import main
from rt_panoptic_ros.errors import InvalidInputError
from rt_panoptic_ros.frames.message_layout import decode_message
from rt_panoptic_ros.model.bundle import ModelBundle
from rt_panoptic_ros.ros.soak import disturbances
from rt_panoptic_ros.ros.soak.cameras import BROKEN, WHOLE, messages_of
from rt_panoptic_ros.ros.soak.soak import Soak, soak

pytest.importorskip("matplotlib")


def task(model: ModelBundle, out: Path, **changed: object) -> Soak:
    parameters = {"model": str(model.path), "backend": "onnxruntime", "device": "cpu", "network_size": "32x64"}
    return Soak(
        **{"parameters": parameters, "minutes": 0.15, "seed": 1, "rate_hz": 4.0, "source": None, "out": out, **changed}
    )


@pytest.mark.slow(30)
def test_seconds_of_a_soak(small_bundle: ModelBundle, tmp_path: Path) -> None:
    record = soak(task(small_bundle, tmp_path))
    assert (record.ended, record.lost) == ("", [])
    assert record.faults == {"callbacks failed": 0, "frames failed": 0}
    assert record.transitions >= 2
    assert len(record.disturbances) >= 2
    assert record.calm_ms
    assert record.recoveries_s
    assert record.samples[-1].python_blocks > 100_000
    lines = (tmp_path / "samples.csv").read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("time_s,calm,answered,p50_ms")
    assert len(lines) == 1 + len(record.samples)
    summary = json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))
    assert summary["frames_labelled"] == sum(sample.answered for sample in record.samples) > 0
    assert {path.name for path in tmp_path.iterdir()} >= {"samples.csv", "events.log", "node.log", "soak.png"}


@pytest.mark.exhaustive
def test_minutes_of_a_soak(small_bundle: ModelBundle, tmp_path: Path) -> None:
    record = soak(task(small_bundle, tmp_path, minutes=8.0))
    assert (record.ended, record.lost) == ("", [])
    assert len(record.disturbances) == 22, "each came"
    trends = record.trends()
    assert [name for name in ("threads", "handles", "segments") if trends[name].exceeds(1)] == []


def test_a_node_that_ends_is_the_result(small_bundle: ModelBundle, tmp_path: Path) -> None:
    refused = task(small_bundle, tmp_path)
    record = soak(replace(refused, parameters={**refused.parameters, "device": "tpu"}))
    assert record.failures()[0].startswith("expected the process node to run to the end, it exited with status 1")
    assert json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))["failures"]


@pytest.mark.parametrize("wrong", [{"minutes": 0.0}, {"minutes": float("nan")}, {"rate_hz": 0.0}])
def test_what_cannot_be_done_is_refused(wrong: dict[str, float], small_bundle: ModelBundle, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="expected --"):
        task(small_bundle, tmp_path, **wrong)


def test_the_command_refuses_a_source_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["soak", "--source", str(tmp_path / "none"), "--out", str(tmp_path / "out")]) == 1
    assert capsys.readouterr().err.startswith("rt-panoptic: expected ")
    assert not (tmp_path / "out").exists()


def test_kinds_of_messages_are_what_they_are_called() -> None:
    image = np.random.default_rng(1).integers(0, 256, (24, 32, 3), np.uint8)
    messages = {name: deserialize_message(bytes(data), Image) for name, data in messages_of(image).items()}
    assert set(messages) == {*WHOLE, *BROKEN}
    for name in WHOLE:
        assert decode_message(messages[name]).pixels.size
    for name in BROKEN:
        with pytest.raises(InvalidInputError):
            decode_message(messages[name])


def test_a_seed_gives_one_order_in_which_each_disturbance_comes_before_any_comes_again() -> None:
    table = dict.fromkeys("abcdefgh", lambda: iter(()))

    def drawn(seed: int) -> list[str]:
        return [name for name, _ in itertools.islice(disturbances._shuffled(table, Random(seed)), 16)]

    assert drawn(1) == drawn(1) != drawn(2)
    assert sorted(drawn(1)[:8]) == sorted(drawn(1)[8:]) == sorted(table)
