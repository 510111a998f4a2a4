# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The viewer sends no usage statistics, listens to this machine alone, and its page may ask nobody else."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from typing import TYPE_CHECKING

import numpy as np
import psutil
import pytest
from view_cases import run_rerun

from rt_panoptic_ros.errors import UnavailableError
from rt_panoptic_ros.viewing import viewers
from rt_panoptic_ros.viewing.recorder import ViewedFrame, ViewRecorder

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user who never ran Rerun, and would like to be asked."""
    for name in ("XDG_CONFIG_HOME", "XDG_DATA_HOME", "CI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("FORCE_RERUN_ANALYTICS", "1")
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_statistics_stay_off(home: Path) -> None:
    assert "FORCE_RERUN_ANALYTICS" not in viewers.quiet_environment(os.environ)
    known = json.loads(run_rerun("analytics", "config"))  # what the program itself makes of its settings
    assert known["analytics_enabled"] is False
    assert list(home.rglob("*")) == []


def test_a_page_is_for_this_machine_and_asks_nobody_else(home: Path) -> None:
    with viewers.open_page(port := _two_free_ports()) as viewer:
        recorder = ViewRecorder(viewer.sink, "page")
        recorder.add("camera", ViewedFrame(0, semantic=np.zeros((4, 6), np.uint8)))
        recorder.close()
        page = f"http://127.0.0.1:{port}"
        with urllib.request.urlopen(f"{page}/?url=any") as answer:
            policy = answer.headers["Content-Security-Policy"]
            assert b"re_viewer.js" in answer.read()
        rules = {words[0]: set(words[1:]) for words in map(str.split, policy.split(";"))}
        assert rules["connect-src"] == {
            "'self'", f"http://127.0.0.1:{port + 1}", f"http://localhost:{port + 1}", "blob:", "data:",
        }  # fmt: skip
        assert not any(word.startswith(("http", "*")) for word in rules["default-src"])
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"{page}/none")

        assert viewer.process is not None
        listening = [
            connection.laddr
            for process in (psutil.Process(), psutil.Process(viewer.process.pid))
            for connection in process.net_connections()
            if connection.status == psutil.CONN_LISTEN
        ]
        assert {port, port + 1} < {address.port for address in listening}
        assert {address.ip for address in listening} == {"127.0.0.1"}
        with pytest.raises(UnavailableError, match=f"expected the ports {port} and {port + 1} to be free"):
            viewers.open_page(port).__enter__()
    assert not viewer.is_open
    assert list(home.rglob("*")) == []


def _two_free_ports() -> int:
    while True:
        port = viewers.free_port()
        if port < 65535 and not viewers.accepts(port + 1):
            return port
