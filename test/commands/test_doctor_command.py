# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""`rt-panoptic doctor` where there is no ROS."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest

from rt_panoptic_ros.cli import main


def test_without_ros_one_sentence_says_so(monkeypatch, capsys):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "rclpy" else find(name, *rest))
    assert main(["doctor"]) == 1
    assert "expected the package rclpy for the doctor, it is not installed" in capsys.readouterr().err


def test_help_loads_nothing_of_ros():
    code = (
        "import sys\nfrom rt_panoptic_ros.cli import main\n"
        "try:\n    main(['doctor', '--help'])\nfinally:\n    print(*sys.modules)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "--node" in said
    assert "rclpy" not in said.split()


@pytest.mark.parametrize("seconds", ["0", "-1", "nan"])
def test_a_time_that_is_none_is_refused(seconds, capsys):
    pytest.importorskip("rclpy")
    assert main(["doctor", "--seconds", seconds]) == 1
    assert "expected --seconds above 0" in capsys.readouterr().err
