# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Where ROS writes its log, without which rclpy doesn't start."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from rt_panoptic_ros.files import why_unwritable
from rt_panoptic_ros.ros import logs


@pytest.fixture(autouse=True)
def _log_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger("rt_panoptic_ros"), "propagate", True)  # unlike in a node's process


def test_the_users_folder_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROS_LOG_DIR", str(tmp_path / "log"))
    logs.find_log_directory()
    assert os.environ["ROS_LOG_DIR"] == str(tmp_path / "log")


def test_where_it_cannot_be_written_there_is_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("ROS_LOG_DIR", str(tmp_path / "file" / "log"))
    logs.find_log_directory()
    assert why_unwritable(Path(os.environ["ROS_LOG_DIR"])) is None
    assert f"{tmp_path}/file/log (Not a directory)" in caplog.text
    assert "set ROS_LOG_DIR to a folder that can be written" in caplog.text


def test_without_a_home_there_is_another(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("ROS_LOG_DIR", "ROS_HOME", "HOME"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    logs.find_log_directory()
    assert why_unwritable(Path(os.environ.pop("ROS_LOG_DIR"))) is None
    assert "no home folder" in caplog.text
