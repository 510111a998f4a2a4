# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""When the player publishes what: at a recording's own times, or at a rate that is asked for; what it leaves out."""

from __future__ import annotations

import json
import threading

import cv2
import numpy as np
import pytest
from film_cases import matroska
from rclpy.parameter import Parameter

from rt_panoptic_ros.ros.tools.image_player import ImagePlayer


class FakeTime(threading.Event):
    """An event for which waiting takes no time of the test's, only of its own."""

    def __init__(self):
        super().__init__()
        self.now_s = 100.0

    def wait(self, timeout=None):
        self.now_s += timeout
        return self.is_set()


class WatchedPlayer(ImagePlayer):
    """Keeps when it published what, which takes some time."""

    def __init__(self, finished, delays_s, **node_options):
        self.time = finished
        self.published = []  # when, and the picture's first value
        self.delays_s = iter(delays_s)
        super().__init__(finished, lambda: finished.now_s, **node_options)

    def publish(self, frame):
        self.published.append((round(self.time.now_s - 100, 6), frame.image[0, 0, 0]))
        self.time.now_s += next(self.delays_s, 0.0)


@pytest.fixture
def play(graph, tmp_path):
    """Play to the end without waiting; return the times at which images were published, and the summary."""

    def run(source, delays_s=(), **parameters):
        given = {
            "source": str(source),
            "wait_for_subscribers": 0,
            "summary": str(tmp_path / "summary.json"),
            **parameters,
        }
        overrides = [Parameter(name, value=value) for name, value in given.items()]
        player = WatchedPlayer(FakeTime(), delays_s, context=graph.context, parameter_overrides=overrides)
        player.play()
        status = player.finish()
        player.destroy_node()
        return player.published, json.loads((tmp_path / "summary.json").read_text(encoding="utf-8")), status

    return run


def test_a_variable_rate_is_played_at_the_recordings_own_times(play, tmp_path):
    times_ms = [0, 40, 90, 148, 1148, 1169]
    published, summary, status = play(matroska(tmp_path / "recorder.webm", times_ms))
    assert [when_s for when_s, _ in published] == pytest.approx(np.array(times_ms) / 1000, abs=1e-6)
    assert summary == {"frames": 6, "rate_hz": pytest.approx(5 / 1.169)}
    assert status == 0


def test_lateness_does_not_add_up_and_a_pause_makes_no_burst(play, tmp_path):
    film = matroska(tmp_path / "recorder.webm", [0, 40, 80, 120, 160, 200])
    slow, *_ = play(film, delays_s=[0.03] * 6)  # less than the time between images
    assert [when_s for when_s, _ in slow] == pytest.approx([0, 0.04, 0.08, 0.12, 0.16, 0.2], abs=1e-6)
    late, *_ = play(film, delays_s=[0, 0.06, 0, 0, 0])  # catches up
    assert [when_s for when_s, _ in late] == pytest.approx([0, 0.04, 0.1, 0.12, 0.16, 0.2], abs=1e-6)
    paused, *_ = play(film, delays_s=[0, 5.0, 0, 0, 0])
    gaps = np.diff([when_s for when_s, _ in paused])
    assert gaps == pytest.approx([0.04, 5.0, 0.0, 0.04, 0.04], abs=1e-6)


def test_a_summary_that_cannot_be_written_is_one_sentence(graph, tmp_path, capfd):
    film = matroska(tmp_path / "recorder.webm", [0, 40])
    given = {"source": str(film), "summary": str(film / "summary.json")}
    player = ImagePlayer(threading.Event(), context=graph.context, parameter_overrides=[
        Parameter(name, value=value) for name, value in given.items()
    ])  # fmt: skip
    assert player.finish() == 1
    player.destroy_node()
    assert "expected to write" in "".join(capfd.readouterr())


def test_a_rate_that_is_asked_for_counts(play, tmp_path):
    film = matroska(tmp_path / "recorder.webm", [0, 40, 90, 148])
    published, summary, _ = play(film, rate_hz=10.0)
    assert [when_s for when_s, _ in published] == pytest.approx([0, 0.1, 0.2, 0.3], abs=1e-6)
    assert summary == {"frames": 4, "rate_hz": 10.0}


def test_a_loop_goes_on(play, tmp_path):
    film = matroska(tmp_path / "recorder.webm", [0, 50, 100, 300])
    published, *_ = play(film, loop=True, max_frames=6)
    assert [when_s for when_s, _ in published] == pytest.approx([0, 0.05, 0.1, 0.3, 0.35, 0.4], abs=1e-6)


def test_images_come_ten_a_second_and_broken_ones_are_left_out(play, tmp_path, capfd):
    (tmp_path / "in").mkdir()
    for number in range(4):
        cv2.imwrite(str(tmp_path / "in" / f"{number}.png"), np.full((4, 6, 3), number, np.uint8))
    (tmp_path / "in" / "1.png").write_bytes(b"no picture")
    published, summary, status = play(tmp_path / "in")
    assert published == [(0.0, 0), (0.1, 2), (0.2, 3)]
    assert (summary["frames"], status) == (3, 0)
    assert "image left out: expected an image that OpenCV can decode" in "".join(capfd.readouterr())


@pytest.mark.parametrize("loop", [False, True])
def test_a_folder_of_broken_images_alone_ends_with_one_sentence(play, tmp_path, capfd, loop):
    (tmp_path / "in").mkdir()
    for name in "ab":
        (tmp_path / "in" / f"{name}.png").write_bytes(b"no picture")
    published, summary, status = play(tmp_path / "in", loop=loop)
    assert (published, summary["frames"], status) == ([], 0, 1)
    assert "b.png" in "".join(capfd.readouterr())
