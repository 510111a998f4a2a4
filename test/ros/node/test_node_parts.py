# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The node's parts by themselves: worker, rate limit, statistics, diagnostics, settings."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from unittest.mock import MagicMock

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticStatus
from hypothesis import given
from hypothesis import strategies as st
from rclpy.clock import Clock
from sensor_msgs.msg import Image

from rt_panoptic_ros.errors import InvalidInputError
from rt_panoptic_ros.ros.node import camera_stream, frame_worker
from rt_panoptic_ros.ros.node.camera_stream import CameraStream
from rt_panoptic_ros.ros.node.diagnostics import CameraHealth, CameraWatch, NodeHealth, diagnostic_array
from rt_panoptic_ros.ros.node.frame_statistics import FrameStatistics, Latencies
from rt_panoptic_ros.ros.node.frame_worker import FrameWorker
from rt_panoptic_ros.ros.node.node_settings import NodeSettings, Periods, parse_cameras, parse_outputs
from rt_panoptic_ros.ros.node.rate_limit import RateLimit
from rt_panoptic_ros.settings import parse_size, settings_of

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


def fails(item: int, error: Exception) -> None:
    pytest.fail(f"{item}: {error}")


def test_the_newest_item_wins():
    gate = Gate()
    worker = FrameWorker(gate, "test", fails)
    assert not worker.put(1)
    assert gate.begun.acquire(timeout=TIMEOUT_S)
    assert [worker.put(item) for item in (2, 3, 4)] == [False, True, True]
    gate.open.set()
    assert gate.begun.acquire(timeout=TIMEOUT_S)
    assert worker.clear() == []
    assert worker.stop()
    assert gate.done == [1, 4]


def test_way_is_given_until_the_item_that_woke_the_thread_is_done(monkeypatch):
    gate = Gate()
    worker = FrameWorker(gate, "test", fails)
    worker.run(lambda: None)

    def give_way() -> threading.Thread:
        giver = threading.Thread(target=worker.give_way)
        giver.start()
        return giver

    monkeypatch.setattr(frame_worker, "_LONGEST_WAY_S", TIMEOUT_S)
    while not worker._resting:  # the job is done a moment before
        worker.run(lambda: None)
    worker.put(1)
    giver = give_way()
    assert gate.begun.acquire(timeout=TIMEOUT_S)
    assert giver.is_alive()
    worker.put(2)  # comes while the thread is busy, and goes on without it
    worker.give_way()
    giver.join(TIMEOUT_S)
    assert gate.done == []
    gate.open.set()
    assert gate.begun.acquire(timeout=TIMEOUT_S)
    assert worker.stop(TIMEOUT_S)
    worker.give_way()
    assert gate.done == [1, 2]


def test_way_is_given_for_a_moment_only():
    gate = Gate()
    worker = FrameWorker(gate, "test", fails)
    worker.run(lambda: None)
    while not worker._resting:
        worker.run(lambda: None)
    worker.put(1)
    worker.give_way()
    assert gate.done == []
    gate.open.set()
    assert worker.stop(TIMEOUT_S)


def test_stop_finishes_the_item_at_hand_and_drops_the_waiting_one():
    gate = Gate()
    worker = FrameWorker(gate, "test", fails)
    worker.put(1)
    assert gate.begun.acquire(timeout=TIMEOUT_S)
    worker.put(2)
    assert not worker.stop(0.0)  # the item at hand goes on
    gate.open.set()
    assert worker.stop(TIMEOUT_S)
    assert gate.done == [1]


def test_an_item_that_fails_is_told_and_the_next_has_its_turn():
    told, done = [], threading.Event()

    def work(item: str) -> None:
        if item == "bad":
            raise KeyError(item)
        done.set()

    worker = FrameWorker(work, "test", lambda item, error: told.append((item, type(error))))
    worker.put("bad", 1)
    worker.put("good", 2)
    assert done.wait(TIMEOUT_S)
    worker.stop()
    assert told == [("bad", KeyError)]


def test_jobs_come_before_items_in_their_order_and_one_within_another_at_once():
    gate = Gate()
    worker = FrameWorker(gate, "test", fails)
    worker.put(1)
    assert gate.begun.acquire(timeout=TIMEOUT_S)
    worker.put(2)
    jobs = [worker.submit(lambda number=number: worker.run(lambda: gate.done.append(number))) for number in (10, 11)]
    failing = worker.submit(lambda: 1 // 0)
    gate.open.set()
    for job in jobs:
        job.result(TIMEOUT_S)
    with pytest.raises(ZeroDivisionError):
        failing.result(TIMEOUT_S)
    assert gate.begun.acquire(timeout=TIMEOUT_S)
    worker.stop()
    assert gate.done == [1, 10, 11, 2]


@given(st.lists(st.sampled_from("abc"), min_size=3, max_size=60))
def test_slots_take_turns_however_often_one_is_filled(fills):
    """While one item is worked on, slots are filled as drawn, and all three at least once."""
    gate = Gate()
    worker = FrameWorker(gate, "test", fails)
    worker.put("first", "a")
    assert gate.begun.acquire(timeout=TIMEOUT_S)
    for slot in (*fills, "a", "b", "c"):
        worker.put(slot, slot)
    gate.open.set()
    for _ in range(3):
        assert gate.begun.acquire(timeout=TIMEOUT_S)
    assert worker.clear() == []
    assert worker.stop()
    assert gate.done[0] == "first"
    assert sorted(gate.done[1:3]) == ["b", "c"]  # a had its turn
    assert gate.done[3:] == ["a"]


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
    for number in range(4):
        statistics.arrive(10.0 + number, age_ms=5.0 + number)
    statistics.finish(10.0, 12.0)
    statistics.finish(20.0, 22.0)
    report = statistics.report(12.0)
    assert (report.counts["received"], report.since_last["processed"]) == (4, 2)
    assert (report.rate_hz, report.input_hz) == (1.0, 2.0)
    assert report.latencies_ms["arrival to outputs"][0] == 15.0
    assert report.latencies_ms["age at arrival"][0] == 6.5
    statistics.count("refused", 3)
    later = statistics.report(13.0)
    assert (later.counts["processed"], later.since_last["processed"], later.since_last["refused"]) == (2, 0, 3)


def test_frames_that_take_longer_than_the_cameras_period_are_late():
    statistics = FrameStatistics(0.0)
    for number in range(5):
        statistics.arrive(0.1 * number, 0.0)
    statistics.finish(500.0, 500.0)  # of a period not yet known
    statistics.pause()  # nobody listens for a while: no interval of the camera's
    for number in range(12):
        statistics.arrive(50.0 + 0.1 * number, 0.0)
    for took_ms in (99.0, 101.0, 150.0):
        statistics.finish(took_ms, took_ms)
    report = statistics.report(60.0)
    assert report.period_ms == pytest.approx(100.0)
    assert (report.counts["processed"], report.counts["late"]) == (4, 2)


class Played:
    """A stream over a stand-in for the middleware: images are held and fetched as a test says."""

    def __init__(self):
        self.held, self.waiting, self.given_way = [], [], []
        node = MagicMock(get_clock=Clock, resolve_topic_name=str)
        self.subscription = node.create_subscription.return_value
        self.subscription.handle.take_message.side_effect = lambda *_: self.held.pop() if self.held else None
        self.stream = CameraStream(
            node, "", "image", NodeSettings, Periods(), FrameStatistics(0.0), MagicMock(), self.deliver,
            lambda: self.given_way.append(len(self.waiting)),
        )  # fmt: skip
        self.stream.follow(True)

    def deliver(self, image, only_replace):
        replaced = bool(self.waiting)
        assert not only_replace
        self.waiting[:] = [image]
        return replaced

    def send(self, number):
        """Have the middleware hold an image of that number, sent that many nanoseconds after the epoch."""
        self.held.append((Image(width=number), {"source_timestamp": number}))

    def receive(self, number):
        """As the executor does with the image of that number, which it has taken."""
        self.stream.receive(Image(width=number), {"source_timestamp": number})

    def begin_fetching(self):
        """As the executor does before it takes an image."""
        assert self.stream.gate.beginning_execution(self.subscription)

    def take_turn(self):
        """Return the image that the camera's turn gives."""
        image = self.stream.newest(self.waiting.pop())
        return image and image.msg.width


def test_a_cameras_period_is_known_though_most_of_its_images_are_passed_over(monkeypatch):
    """A camera of 60 Hz, a network of 64 ms: two images as they come, one after a rest, the newest at the turn."""
    now_s = [0.0]
    monkeypatch.setattr(camera_stream, "time", SimpleNamespace(monotonic=lambda: now_s[0]))
    played = Played()
    for turn in range(20):
        for since_turn_s in (0.005, 0.005 + 1 / 60, 0.045 + 1 / 60):
            now_s[0] = 0.07 * turn + since_turn_s
            played.receive(0)
        played.send(turn)
        now_s[0] = 0.07 * (turn + 1)
        assert played.take_turn() == turn
    report = played.stream.statistics.report(2.0)
    assert report.period_ms == pytest.approx(1e3 / 60)
    assert (report.counts["received"], report.counts["dropped"]) == (80, 60)


def test_an_image_that_the_executor_held_while_a_newer_one_had_its_turn_is_dropped():
    played = Played()
    played.begin_fetching()
    played.receive(1)
    played.begin_fetching()  # 2, which it holds while
    played.send(3)
    assert played.take_turn() == 3
    played.receive(2)
    assert played.take_turn() is None
    played.begin_fetching()
    played.receive(4)
    assert played.take_turn() == 4
    counts = played.stream.statistics.counts()
    assert (counts["received"], counts["dropped"]) == (4, 2)
    assert played.given_way == [1, 1, 1]  # with each image that waited by then


def test_no_way_is_given_by_an_image_that_came_in_place_of_another():
    played = Played()
    played.receive(1)
    played.receive(2)
    assert played.given_way == [1]


@pytest.mark.parametrize("by_rclpy", [True, False])
def test_the_newest_image_has_its_turn_though_the_worker_fetched_one_while_the_executor_did(by_rclpy):
    played = Played()
    played.receive(1)
    played.begin_fetching()
    played.send(2)  # the worker is quicker
    assert played.take_turn() == 2
    if by_rclpy:
        played.receive(3)
    else:  # what rclpy fetched was older than both
        played.send(3)
        played.receive(0)
    assert played.take_turn() == 3


def test_latencies_are_of_the_latest_frames():
    latencies = Latencies()
    for number in range(300):
        latencies.add({"network": float(number)})
    assert latencies.percentiles()["network"][0] == 249.5


def camera_health(statistics, now_s=1.0, **changes):
    values = {"name": "", "topic": "/image", "subscribed": True, "publishers": 1, "silence_s": 0.0, **changes}
    return CameraHealth(**values, report=statistics.report(now_s))


OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR


@pytest.mark.parametrize(
    ("health", "camera", "outcomes", "level", "words"),
    [
        ({}, {}, {"processed": 5}, OK, "processing 5.0 frames per second"),
        ({"state": "inactive"}, {"subscribed": False}, {}, OK, "inactive"),
        ({}, {"subscribed": False}, {}, OK, "waiting for a subscriber"),
        ({"enabled": False}, {"subscribed": False}, {}, OK, "disabled by the service ~/enable"),
        ({}, {"publishers": 0, "silence_s": 9.0}, {}, WARN, "nobody publishes images on /image"),
        ({}, {"silence_s": 9.0}, {}, WARN, "none arrived for 9 s"),
        ({}, {}, {"refused": 2}, WARN, "2 frames refused"),
        ({}, {}, {"lost": 2}, WARN, "2 frames lost in transport"),
        ({}, {}, {"failed": 1, "refused": 2}, ERROR, "1 frames failed"),
        ({"fallback": "using x on cpu instead of a GPU"}, {}, {"processed": 5}, WARN, "instead of a GPU"),
        ({"state": "unconfigured", "problem": "cannot configure: x"}, {}, {}, ERROR, "cannot configure: x"),
        ({"state": "unconfigured", "busy_with": "building: 40 %"}, {}, {}, WARN, "building: 40 %"),
    ],
)
def test_diagnostic_levels(health, camera, outcomes, level, words):
    statistics = FrameStatistics(0.0)
    for outcome, number in outcomes.items():
        statistics.count(outcome, number)
    state = health.get("state", "active")
    node = NodeHealth(**{key: words for key, words in health.items() if key != "state"})
    for time_ms in (0.0, 2.0):
        node.stages.add({"network": time_ms})
    found = camera_health(statistics, **camera)
    finding = CameraWatch().judge(found, active=state == "active")
    array = diagnostic_array("ns/node", state, Time(sec=3), node, [(found, finding)])
    status, of_camera = array.status
    assert (array.header.stamp.sec, status.name, status.level) == (3, "ns/node: panoptic", level)
    assert words in status.message
    values = {item.key: item.value for item in status.values}
    assert values["state"] == state
    assert (values["network p50 (ms)"], values["network p95 (ms)"]) == ("1.00", "1.90")
    frames = {f"frames {outcome}" for outcome in ("received", "processed", "late", "dropped", "refused", "lost")}
    assert frames <= values.keys()
    assert of_camera.name == "ns/node: camera"
    assert frames | {"topic", "input rate (Hz)", "period (ms)"} <= {item.key for item in of_camera.values}


def test_the_nodes_status_is_that_of_the_worst_camera():
    def judged(name, outcome):
        statistics = FrameStatistics(0.0)
        statistics.count(outcome)
        camera = camera_health(statistics, name=name)
        return camera, CameraWatch().judge(camera, active=True)

    cameras = [judged("front", "processed"), judged("left", "failed"), judged("rear", "lost")]
    array = diagnostic_array("node", "active", Time(), NodeHealth(), cameras)
    levels = {status.name: status.level for status in array.status}
    assert levels == {"node: panoptic": ERROR, "node: camera front": OK, "node: camera left": ERROR,
                      "node: camera rear": WARN}  # fmt: skip
    assert array.status[0].message.startswith("left: 1 frames failed")


def test_trouble_is_told_until_three_reports_were_free_of_it():
    statistics, watch = FrameStatistics(0.0), CameraWatch()

    def level(now_s):
        return watch.judge(camera_health(statistics, now_s), active=True).level

    statistics.count("lost", 2)
    assert [level(now_s) for now_s in (1, 2, 3, 4, 5)] == [WARN, WARN, WARN, OK, OK]
    statistics.count("lost")
    assert [level(now_s) for now_s in (6, 7)] == [WARN, WARN]
    statistics.count("lost")
    assert [level(now_s) for now_s in (8, 9, 10, 11)] == [WARN, WARN, WARN, OK]


def test_a_warning_is_an_error_once_it_has_kept_all_results_away_for_long():
    statistics, watch = FrameStatistics(0.0), CameraWatch(Periods(lasting_s=2.5))

    def level(now_s, **frames):
        for outcome, number in frames.items():
            statistics.count(outcome, number, "expected a")
        return watch.judge(camera_health(statistics, now_s), active=True)

    assert [level(now_s, refused=1).level for now_s in (1, 2, 3, 4)] == [WARN, WARN, ERROR, ERROR]
    assert level(5, refused=2).message == "2 frames refused: expected a"
    assert [level(now_s, refused=1, processed=1).level for now_s in range(6, 12)] == [WARN] * 6


def test_a_name_that_two_nodes_have_is_told_and_an_error_where_neither_was_killed_lately():
    for shared_s, level in ((0.0, OK), (1.0, WARN), (31.0, ERROR)):
        finding = NodeHealth(shared_name_s=shared_s).judge("active", [], 0.0)
        assert (finding.level, "-r __node:=NAME" in finding.message) == (level, level != OK)


def test_lateness_is_told_after_some_reports_and_not_for_a_few_frames():
    statistics, watch = FrameStatistics(0.0), CameraWatch()
    for number in range(20):
        statistics.arrive(0.1 * number, 1.0)

    def level(now_s, late, in_time):
        for _ in range(late):
            statistics.finish(120.0, 121.0)
        for _ in range(in_time):
            statistics.finish(80.0, 81.0)
        finding = watch.judge(camera_health(statistics, now_s), active=True)
        assert finding.level == OK or "period of 100 ms" in finding.message
        return finding.level

    assert [level(1, 10, 0), level(2, 10, 0), level(3, 3, 7), level(4, 10, 0), level(5, 10, 0)] == [OK] * 5
    assert level(6, 6, 4) == WARN
    assert [level(now_s, 3, 7) for now_s in (7, 8, 9, 10)] == [WARN] * 4  # between the two thresholds
    assert [level(11, 0, 10), level(12, 1, 9), level(13, 0, 10)] == [WARN, WARN, OK]


@pytest.mark.parametrize(
    ("age_ms", "words"),
    [
        (1.7e12, "stamps are no time of day"),
        (-2500.0, "stamps are 2.50 s in the future"),
        (-1.7e12, "have /clock published"),
    ],
)
def test_stamps_that_are_no_camera_time_are_told(age_ms, words):
    statistics = FrameStatistics(0.0)
    statistics.arrive(0.5, age_ms)
    finding = CameraWatch().judge(camera_health(statistics), active=True)
    assert (finding.level, words in finding.message) == (WARN, True)


@pytest.mark.parametrize(
    ("text", "cameras"),
    [
        ("", {}),
        ("front=/front/image_raw", {"front": "/front/image_raw"}),
        (" front = /f , rear=rear/image ,", {"front": "/f", "rear": "rear/image"}),
        ("own=~/image", {"own": "~/image"}),
    ],
)
def test_cameras(text, cameras):
    assert parse_cameras(text) == cameras


@pytest.mark.parametrize(
    "text", ["front", "=x", "1st=/x", "a b=/x", "a=/x//y", "a=/x/", "a=/x,a=/y", "a=/x,b=/x", "a=1"]
)
def test_wrong_cameras(text):
    with pytest.raises(InvalidInputError, match=r"expected (cameras as|every camera)"):
        parse_cameras(text)


def test_outputs_are_known_names():
    assert parse_outputs(" semantic, overlay,") == {"semantic", "overlay"}
    with pytest.raises(InvalidInputError, match=r"semantic, instance, .* got 'depth'"):
        parse_outputs("semantic,depth")


def test_every_setting_accepts_its_default_and_describes_itself():
    for entry in settings_of(NodeSettings):
        assert entry.parsed(entry.default) == getattr(NodeSettings(), entry.name)
        assert entry.description.endswith((".", "accepted all the same."))


@pytest.mark.parametrize(("text", "size"), [("", None), ("512x1024", (512, 1024)), (" 1X2 ", (1, 2))])
def test_sizes(text, size):
    assert parse_size("network_size", text) == size


@pytest.mark.parametrize("text", ["512", "0x4", "-1x5", "4x", "axb", "512x1024x3", "999999x1", "9999x9999"])
def test_wrong_sizes(text):
    with pytest.raises(InvalidInputError, match="network_size as HEIGHTxWIDTH"):
        parse_size("network_size", text)
