# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""`rt-panoptic view` where Rerun is not installed; what it shows is in test/viewing/."""

from __future__ import annotations

import subprocess
import sys

from rt_panoptic_ros.cli import main


def test_without_rerun_one_sentence_says_so(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "rerun", None)
    assert main(["view", "street.mp4"]) == 1
    said = capsys.readouterr().err
    assert "expected the package rerun for the viewer, it is not installed: `pip install 'rerun-sdk==0.41.*'`" in said


def test_help_loads_nothing_heavy():
    code = (
        "import sys\nfrom rt_panoptic_ros.cli import main\n"
        "try:\n    main(['view', '--help'])\nfinally:\n    print(*sys.modules)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "--web" in said
    assert {"rerun", "rclpy", "numpy", "cv2"}.isdisjoint(said.split())
