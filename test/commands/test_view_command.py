# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""`rt-panoptic view` where Rerun is not installed; what it shows is in test/viewing/."""

from __future__ import annotations

import subprocess
import sys

import pytest

from rt_panoptic_ros.cli import main


def test_without_rerun_one_sentence_says_so(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "rerun", None)
    assert main(["view", "street.mp4"]) == 1
    said = capsys.readouterr().err
    assert "expected the package rerun for the viewer, it is not installed: `pip install 'rerun-sdk==0.41.*'`" in said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["street.mp4", "--images", "/x"], "expected no --images, as street.mp4 is no bag"),
        (["street.mp4", "--node", "mine"], "expected no --node, as they are for --live"),
        (["street.mp4", "--ros-args", "-r", "a:=b"], "expected no --ros-args, as they are for --live"),
    ],
)
def test_options_of_no_use_are_refused(monkeypatch, capsys, arguments, words):
    monkeypatch.setattr("rt_panoptic_ros.commands.view.require_package", lambda *_: None)
    assert main(["view", *arguments]) == 1
    assert words in capsys.readouterr().err


def test_help_loads_nothing_heavy():
    code = (
        "import sys\nfrom rt_panoptic_ros.cli import main\n"
        "try:\n    main(['view', '--help'])\nfinally:\n    print(*sys.modules)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "--web" in said
    assert {"rerun", "rclpy", "numpy", "cv2"}.isdisjoint(said.split())
