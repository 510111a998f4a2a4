# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""A short run of every fuzz target, and the inputs that were finds once; `make fuzz` is the long run."""

from __future__ import annotations

import logging
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from fuzz.fuzzing import MODULES, TARGETS, accepts, changed
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator

for _module in MODULES:
    import_module(_module)
FINDS = [one for one in import_module("fuzz.finds").FINDS if one[0] in TARGETS]
EXAMPLES = 400
"""Of all targets together."""


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_begins_with_inputs_that_it_takes(name: str) -> None:
    taken = [accepts(TARGETS[name], seed) for seed in TARGETS[name].seeds]
    assert any(taken)


@pytest.mark.parametrize("name", TARGETS)
def test_whatever_comes_is_taken_or_refused_in_one_sentence(name: str) -> None:
    one = TARGETS[name]
    share = one.share / sum(other.share for other in TARGETS.values())

    @settings(max_examples=max(5, round(EXAMPLES * share)), suppress_health_check=list(HealthCheck))
    @given(st.sampled_from(one.seeds), st.randoms(use_true_random=False))
    def run(seed: bytes, draw: random.Random) -> None:
        accepts(one, changed(seed, draw))

    run()


@pytest.mark.parametrize(("name", "data"), FINDS, ids=[f"{name}{number}" for number, (name, _) in enumerate(FINDS)])
def test_what_was_a_find_is_none_any_more(name: str, data: bytes) -> None:
    accepts(TARGETS[name], data)


def test_a_campaign_tells_of_its_finds(tmp_path: Path) -> None:
    words = ["--engine", "random", "--target", "image_message", "--runs", "20", "--out", str(tmp_path)]
    run = subprocess.run(
        [sys.executable, "-m", "scripts.fuzz", *words], capture_output=True, encoding="utf-8", timeout=300, check=False
    )
    assert run.returncode == 0, run.stderr
    (row,) = [line for line in run.stdout.splitlines() if line.startswith("| image_message")]
    assert row.split(" | ")[1::3] == ["20", "0"]
    assert [path.name for path in tmp_path.iterdir()] == ["summary.md"]
