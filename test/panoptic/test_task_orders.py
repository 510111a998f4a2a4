# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The kernels' tasks side by side under ThreadSanitizer, and in other orders: no races, and the same results.

On the CPU Warp runs a kernel's tasks one by one, which hides what a GPU would show; `task_orders` runs them otherwise.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import task_orders

TEST = Path(__file__).resolve().parents[1]
TESTS_OF_KERNELS = ("panoptic/test_query_boxes.py", "panoptic/test_masks_and_fusion.py", "panoptic/test_capture.py",
                    "inference/test_frame_graph.py")  # fmt: skip


def run(command: list[str], folder: Path, *, sanitizer: bool, orders: str = "") -> list[str]:
    """Run Python; return what ThreadSanitizer reported."""
    reason = task_orders.why_impossible(folder)
    if reason:
        pytest.skip(f"ThreadSanitizer can't be used here: {reason}")
    cache = Path(os.environ.get("WARP_CACHE_PATH", folder), "tasks")
    variables = task_orders.environment(cache, folder / "reports" if sanitizer else None) | {"TASK_ORDERS": orders}
    done = subprocess.run(
        [sys.executable, *command], env=variables, cwd=TEST.parent, capture_output=True, text=True, encoding="utf-8",
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    texts = [path.read_text(encoding="utf-8") for path in folder.glob("reports.*")]
    return [report for text in texts for report in re.findall(r"^WARNING: ThreadSanitizer.*?^=====", text, re.M | re.S)]


@pytest.mark.slow(100)
def test_scenes_give_the_same_in_any_order_and_without_races(tmp_path: Path) -> None:
    reports = run([str(TEST / "task_scenes.py")], tmp_path, sanitizer=True)
    controls = [report for report in reports if re.search("racing_(block|count)", report)]
    assert {"racing_block" in report for report in controls} == {True, False}
    races = [report for report in reports if report not in controls]
    assert not races, f"{len(races)} races, the first: {races[0]}"


@pytest.mark.exhaustive
@pytest.mark.parametrize("orders", ["threads", "reversed,permuted,warps"])
def test_kernels_pass_their_tests_in_any_order(orders: str, tmp_path: Path) -> None:
    tests = [str(TEST / path) for path in TESTS_OF_KERNELS]
    options = ["-p", "task_orders", "-p", "no:cacheprovider", "-q", "-k", "not bands"]  # a GPU has none
    races = run(["-m", "pytest", *options, *tests], tmp_path, sanitizer=orders == "threads", orders=orders)
    assert not races, f"{len(races)} races, the first: {races[0]}"
