# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""A soak's findings: that what grows, is lost or is late is told, and that what wavers is not."""

from __future__ import annotations

import mmap
import os
import threading
from pathlib import Path

import numpy as np
import pytest

from rt_panoptic_ros.ros.soak.plot import draw_soak
from rt_panoptic_ros.ros.soak.record import Record, Sample, fit_trend, process_figures

HOUR_S, PERIOD_S, CALM_S = 3600, 30, 10


def soaked(hours: float = 1.0, spread_mb: float = 0.5, **per_hour: float) -> Record:
    """Return the record of a soak whose memory wavers, and whose figures grow besides by so much an hour."""
    random = np.random.default_rng(1)
    record = Record(calm_ms=[20.0] * 95 + [50.0] * 5, transitions=10)
    for second in range(int(hours * HOUR_S)):
        figures = {"resident_mb": 500.0, "python_blocks": 600_000, "threads": 20, "handles": 23, "segments": 18}
        calm = second % PERIOD_S >= PERIOD_S - CALM_S
        figures["resident_mb"] += random.normal(0, spread_mb)
        figures["threads"] += 0 if calm else 5  # a disturbance's own
        for name, growth in per_hour.items():
            figures[name] += growth * second / HOUR_S
        record.samples.append(Sample(second, calm, 12, 20.0, 50.0, **figures))
    return record


def test_a_soak_that_only_wavers_passes() -> None:
    record = soaked()
    assert record.failures() == []
    trends = record.summary()["trends"]
    assert abs(trends["resident_mb"]["per_hour"]) < 1
    assert trends["threads"] == {
        "at_begin": pytest.approx(20),
        "per_hour": pytest.approx(0, abs=1e-6),
        "margin": pytest.approx(0, abs=1e-6),
    }


@pytest.mark.parametrize(
    ("name", "growth"), [("resident_mb", 4.0), ("threads", 3.0), ("handles", 3.0), ("segments", 3.0)]
)
def test_a_leak_is_caught(name: str, growth: float) -> None:
    (failure,) = soaked(**{name: growth}).failures()
    assert failure.startswith(f"expected {name} to grow by less than 1 an hour, got +")


def test_a_leak_in_the_disturbances_alone_is_caught() -> None:
    """What they leave behind is seen in the next calm."""
    record = soaked(spread_mb=0.1)
    leaked = [
        Sample(one.time_s, one.calm, 12, 20.0, 50.0, one.resident_mb + 0.1 * (one.time_s // PERIOD_S), 1, 20, 23, 18)
        for one in record.samples
    ]
    record.samples = leaked
    assert [words.split(" to ")[0] for words in record.failures()] == ["expected resident_mb"]


def test_growth_of_the_warm_up_is_none() -> None:
    record = soaked()
    record.samples = [
        Sample(one.time_s, one.calm, 12, 20.0, 50.0, min(one.time_s, 600) + 0.01 * (one.time_s % 7), 1, 20, 23, 18)
        for one in record.samples
    ]
    assert record.failures() == []


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        ({"ended": "the node exited with status 1"}, "the node exited with status 1"),
        ({"lost": ["expected an answer to activate within 30 s, got none"]}, "expected an answer to activate"),
        ({"calm_ms": [20.0] * 95 + [61.0] * 5}, "expected a latency p99 of at most 3 times p50"),
        ({"calm_ms": []}, "expected frames that were labelled in calm"),
        ({"recoveries_s": [("a camera floods", 0.3), ("no data", 1.2)]}, "expected labels within 1 s after no data"),
        ({"faults": {"callbacks failed": 2, "frames failed": 0}}, "expected no callbacks failed, got 2"),
    ],
)  # fmt: skip
def test_each_other_finding_is_one_sentence(seen: dict[str, object], words: str) -> None:
    record = soaked()
    vars(record).update(seen)
    (failure,) = record.failures()
    assert failure.startswith(words)


def test_a_short_soak_has_no_trends() -> None:
    record = soaked(hours=0.03, resident_mb=1e6)
    assert record.trends() == {}
    assert record.failures() == []


def test_the_line_is_that_of_least_squares() -> None:
    times_s, values = np.arange(0, 7200, 60.0), 3.0 + 2.0 * np.arange(0, 7200, 60.0) / 3600
    exact = fit_trend(times_s, values)
    assert (exact.at_begin, exact.per_hour, exact.margin) == pytest.approx((3.0, 2.0, 0.0), abs=1e-9)
    random = np.random.default_rng(2)
    wavering = [fit_trend(times_s, values + random.normal(0, 1, len(values))) for _ in range(400)]
    held = np.mean([abs(one.per_hour - 2.0) <= one.margin for one in wavering])
    assert held == pytest.approx(0.95, abs=0.03)


@pytest.mark.parametrize("hours", [0.2, 0.0])
def test_a_plot_is_drawn_of_any_record(tmp_path: Path, hours: float) -> None:
    pytest.importorskip("matplotlib")
    draw_soak(soaked(hours), tmp_path / "soak.png")
    assert (tmp_path / "soak.png").read_bytes()[:4] == b"\x89PNG"


def test_a_process_is_seen_to_grow(tmp_path: Path) -> None:
    before, stop = process_figures(os.getpid()), threading.Event()
    path = Path(f"/dev/shm/rt_panoptic_test_{os.getpid()}")
    path.write_bytes(bytes(mmap.PAGESIZE))
    thread = threading.Thread(target=stop.wait)
    with path.open("r+b") as file, mmap.mmap(file.fileno(), mmap.PAGESIZE), mmap.mmap(-1, 64 << 20) as memory:
        path.unlink()
        thread.start()
        memory[:: mmap.PAGESIZE] = bytes(len(memory) // mmap.PAGESIZE)
        after = process_figures(os.getpid())
        stop.set()
    thread.join()
    grown = {name: after[name] - before[name] for name in before}
    assert grown["threads"] == 1
    assert grown["segments"] == 1
    assert grown["handles"] >= 1
    assert grown["resident_mb"] > 60
