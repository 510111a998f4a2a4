# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Runs over bags with a small network whose many objects mean nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

try:
    from rt_panoptic_ros.bags.labelling import BagSummary, label_bag
    from rt_panoptic_ros.bags.options import BagOptions
except ImportError as error:
    collect_ignore_glob = ["test_*.py"]
    MISSING = f"needs rosbags: {error}"
else:
    MISSING = ""

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rt_panoptic_ros.bags.writing import Report
    from rt_panoptic_ros.model.bundle import ModelBundle

SETTINGS = {"score_threshold": 0.0, "pre_nms_threshold": 0.0, "mask_threshold": 0.01, "overlap_threshold": 1.0}


def pytest_report_header() -> str:
    return f"Bag tests left out: {MISSING}" if MISSING else ""


@pytest.fixture
def options(small_bundle: ModelBundle) -> BagOptions:
    pipeline = {
        "model": str(small_bundle.path), "backend": "onnxruntime", "device": "cpu", "precision": "float32",
        "tf32": False, "network_size": None, "settings": SETTINGS,
    }  # fmt: skip
    return BagOptions(pipeline=pipeline)


@pytest.fixture
def label(options: BagOptions) -> Callable[..., BagSummary]:
    """Label a bag with options by name."""

    def run(source: Path, out: Path, report: Report = lambda *_: None, **changes: Any) -> BagSummary:
        return label_bag(source, out, replace(options, **changes), report)

    return run


@pytest.fixture
def arguments(small_bundle: ModelBundle) -> list[str]:
    """The command line's, for the same pipeline as `options`."""
    settings = [f"--set={name}={value}" for name, value in SETTINGS.items()]
    return ["--model", str(small_bundle.path), "--backend", "onnxruntime", "--device", "cpu", *settings]
