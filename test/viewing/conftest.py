# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""What is shown is read back; left out where Rerun is not installed."""

from __future__ import annotations

import importlib.util

MISSING = "" if importlib.util.find_spec("rerun") else "needs Rerun: `pip install 'rerun-sdk==0.41.*'`"
if MISSING:
    collect_ignore_glob = ["test_*.py"]


def pytest_report_header() -> str:
    return f"Viewer tests left out: {MISSING}" if MISSING else ""
