# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The short form of `python -m scripts.kills`: all programs that write, ended anywhere, go on and lose nothing."""

from __future__ import annotations

import subprocess
import sys

import pytest
from conftest import ROOT

pytest.importorskip("rosbags", reason="rosbags is not installed")
pytest.importorskip("tensorboard", reason="tensorboard is not installed")


def kills(*arguments: str) -> list[list[str]]:
    """Return the cells of the table's rows."""
    command = [sys.executable, "-m", "scripts.kills", *arguments]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=1800)
    if "expected to mount a file system" in ended.stderr:
        pytest.skip(ended.stderr.splitlines()[-1])
    assert ended.returncode == 0, ended.stderr
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in ended.stdout.splitlines() if "|" in line]
    return rows[2:]


@pytest.mark.slow(40)
def test_killed_programs_go_on_and_lose_nothing() -> None:
    rows = kills("--kills", "10", "--programs", "predict", "bag", "calibrate", "build-engine", "make-untrained")
    assert sum(int(row[1]) for row in rows) == 10
    assert {tuple(row[-2:]) for row in rows} == {("0", "0")}


@pytest.mark.slow(30)
def test_what_was_told_outlasts_a_power_loss() -> None:
    rows = kills("--kills", "0", "--power-losses", "6", "--programs", "predict", "make-untrained")
    assert sum(int(row[1]) for row in rows) == 6
    assert {tuple(row[-2:]) for row in rows} == {("0", "0")}
