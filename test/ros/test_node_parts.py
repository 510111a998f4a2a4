"""The node's parts by themselves: worker, rate limit, statistics, diagnostics, settings."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticStatus
from hypothesis import given
from hypothesis import strategies as st

from rt_panoptic_ros.errors import InvalidInputError
from rt_panoptic_ros.ros.diagnostics import NodeHealth, diagnostic_array
from rt_panoptic_ros.ros.frame_statistics import FrameStatistics
from rt_panoptic_ros.ros.frame_worker import FrameWorker
from rt_panoptic_ros.ros.node_settings import NodeSettings, node_setting_infos
from rt_panoptic_ros.ros.rate_limit import RateLimit
from rt_panoptic_ros.settings import parse_size

TIMEOUT_S = 60.0


class Gate:
    """Work that begins when it is called and ends when the test says so."""

    def __init__(self) -> None:
        self.done: list[int] = []
        self.begun = threading.Semaphore(0)
        self.open = threading.Event()

    def __call__(self, item: int) -> None:
        self.begun.release()
        assert self.open.wait(TIMEOUT_S)
        self.done.append(item)


def test_the_newest_item_wins():
    gate = Gate()
    worker = FrameWorker(gate, "test")
    assert not worker.put(1)
    assert gate.begun.acquire(timeout=TIMEOUT_S)
    assert [worker.put(item) for item in (2, 3, 4)] == [False, True, True]
    gate.open.set()
    assert gate.begun.acquire(timeout=TIMEOUT_S)
    assert not worker.stop()
    assert gate.done == [1, 4]


def test_stop_finishes_the_item_at_hand_and_drops_the_waiting_one():
    gate = Gate()
    worker = FrameWorker(gate, "test")
    worker.put(1)
    assert gate.begun.acquire(timeout=TIMEOUT_S)
    worker.put(2)
    dropped = []
    stopper = threading.Thread(target=lambda: dropped.append(worker.stop()))
    stopper.start()
    gate.open.set()
    stopper.join(TIMEOUT_S)
    assert dropped == [True]
    assert gate.done == [1]


@given(st.floats(0.5, 100), st.lists(st.floats(0, 0.1), min_size=50, max_size=400))
def test_the_rate_is_never_above_the_limit(limit_hz, gaps):
    limit, times = RateLimit(), np.cumsum(gaps)
    admitted = [now for now in times if limit.admits(now, limit_hz)]
    # From any admitted frame on: at most one more than the limit allows, but for the tolerance.
    for first, begin in enumerate(admitted):
        for number, now in enumerate(admitted[first:], start=1):
            assert number <= 1 + (now - begin) * limit_hz + 0.21


@given(st.integers(1, 6), st.floats(5, 60), st.floats(0, 0.04))
def test_a_limit_that_divides_the_cameras_rate_is_met(divisor, rate_hz, jitter):
    random = np.random.default_rng(0)
    period_s = 1 / rate_hz
    times = np.arange(divisor * 100) * period_s + random.uniform(-jitter, jitter, divisor * 100) * period_s
    limit = RateLimit()
    assert sum(limit.admits(now, rate_hz / divisor) for now in times) == pytest.approx(100, abs=1)


def test_no_limit_admits_all():
    limit = RateLimit()
    assert all(limit.admits(0.0, 0.0) for _ in range(5))
    assert limit.admits(0.0, 1.0)
    assert not limit.admits(0.5, 1.0)
    assert limit.admits(0.5, 100.0) is False
    assert limit.admits(0.5105, 100.0)  # a raised limit does not wait for the lower one's due time


def test_statistics_report_totals_and_changes():
    statistics = FrameStatistics(10.0)
    for _ in range(4):
        statistics.count("received")
    statistics.add_processed({"network": 10.0})
    statistics.add_processed({"network": 20.0})
    report = statistics.report(12.0)
    assert (report.counts.received, report.since_last.processed, report.rate_hz) == (4, 2, 1.0)
    assert report.latencies_ms["network"][0] == 15.0
    statistics.count("refused", 3)
    later = statistics.report(13.0)
    assert (later.counts.processed, later.since_last.processed, later.since_last.refused) == (2, 0, 3)


HEALTHY = {
    "state": "active", "engine": "e", "building": "", "problem": "", "subscribed": True, "publishers": 1,
    "silence_s": 0.0,
}  # fmt: skip


@pytest.mark.parametrize(
    ("health", "fates", "level", "words"),
    [
        ({}, {"processed": 5}, DiagnosticStatus.OK, "processing 5.0 frames per second"),
        ({"state": "inactive", "subscribed": False}, {}, DiagnosticStatus.OK, "inactive"),
        ({"subscribed": False}, {}, DiagnosticStatus.OK, "waiting for a subscriber"),
        ({"publishers": 0, "silence_s": 9.0}, {}, DiagnosticStatus.WARN, "nobody publishes"),
        ({"silence_s": 9.0}, {}, DiagnosticStatus.WARN, "none arrived for 9 s"),
        ({}, {"refused": 2}, DiagnosticStatus.WARN, "2 frames refused"),
        ({}, {"lost": 2}, DiagnosticStatus.WARN, "2 frames lost in transport"),
        ({}, {"failed": 1, "refused": 2}, DiagnosticStatus.ERROR, "1 frames failed"),
        (
            {"state": "unconfigured", "problem": "cannot configure: x"},
            {},
            DiagnosticStatus.ERROR,
            "cannot configure: x",
        ),
        ({"state": "unconfigured", "building": "building: 40 %"}, {}, DiagnosticStatus.WARN, "building: 40 %"),
    ],
)
def test_diagnostic_levels(health, fates, level, words):
    statistics = FrameStatistics(0.0)
    for fate, number in fates.items():
        statistics.count(fate, number)
    array = diagnostic_array("ns/node", Time(sec=3), NodeHealth(**{**HEALTHY, **health}), statistics.report(1.0))
    status = array.status[0]
    assert (array.header.stamp.sec, status.name, status.level) == (3, "ns/node: panoptic", level)
    assert words in status.message
    values = {item.key: item.value for item in status.values}
    assert values["state"] == {**HEALTHY, **health}["state"]
    assert {f"frames {fate}" for fate in ("received", "processed", "dropped", "refused", "lost")} <= values.keys()


def test_every_setting_accepts_its_default_and_describes_itself():
    for entry in node_setting_infos():
        assert entry.parsed(entry.info.default) == getattr(NodeSettings(), entry.info.name)
        assert entry.info.description.endswith((".", "accepted all the same."))


@pytest.mark.parametrize(("text", "size"), [("", None), ("512x1024", (512, 1024)), (" 1X2 ", (1, 2))])
def test_sizes(text, size):
    assert parse_size("network_size", text) == size


@pytest.mark.parametrize("text", ["512", "0x4", "-1x5", "4x", "axb", "512x1024x3", "999999x1"])
def test_wrong_sizes(text):
    with pytest.raises(InvalidInputError, match="network_size as HEIGHTxWIDTH"):
        parse_size("network_size", text)
