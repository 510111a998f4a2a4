# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The benchmarks' driver, played to a node of this process that answers each image."""

from __future__ import annotations

import os
import threading
from contextlib import closing
from types import SimpleNamespace

import numpy as np
import pytest
from rt_panoptic_ros.msg import PanopticDetection, PanopticDetectionArray
from sensor_msgs.msg import Image

from rt_panoptic_ros.errors import UnavailableError
from rt_panoptic_ros.frames.message_layout import decode_image
from rt_panoptic_ros.ros import qos
from rt_panoptic_ros.ros.benchmark.driver import Camera, FrameDriver
from rt_panoptic_ros.ros.processes import Process


def camera_of(status: int | None) -> Camera:
    """Return a camera of this process, which seems to have ended where a status is given."""
    popen = SimpleNamespace(poll=lambda: status, pid=os.getpid(), returncode=status)
    return Camera("front", "/driver_test/image", "/driver_test/node", Process("node", popen, None))


@pytest.fixture
def images(graph):
    """Answer all images while the test runs; return them."""
    node, seen, stop = graph.node("node"), [], threading.Event()
    semantic = node.create_publisher(Image, "/driver_test/node/semantic", qos.stream("reliable"))
    detections = node.create_publisher(PanopticDetectionArray, "/driver_test/node/detections", qos.stream("reliable"))

    def answer(image):
        seen.append(image)
        detections.publish(PanopticDetectionArray(header=image.header, detections=[PanopticDetection()] * 2))
        semantic.publish(Image(header=image.header))

    def spin():
        while not stop.is_set():
            graph.executor.spin_once(timeout_sec=0.1)

    node.create_subscription(Image, "/driver_test/image", answer, qos.stream("reliable"))
    spinner = threading.Thread(target=spin)
    spinner.start()
    yield seen
    stop.set()
    spinner.join()


def test_frames_that_count_are_sent_answered_and_aged(images):
    camera = camera_of(None)
    pictures = [np.full((4, 6, 3), number, np.uint8) for number in (7, 9)]
    with closing(FrameDriver([camera], pictures, ("semantic", "detections"))) as driver:
        elapsed_s = driver.play({camera: 50.0}, frames=10)
        assert len(camera.sent_ns) == 10
        assert camera.sent_ns[-1] in camera.answered_ns()
        assert len(camera.answers) > len(camera.answered_ns())  # frames before those that count
        assert all(answer.age_ms > 0 and answer.objects == 2 for answer in camera.answers.values())
        assert camera.memory_growth_mb() == camera.resident_mb[-1] - camera.resident_mb[0]
        assert elapsed_s > 0

        camera.reset()
        driver.play({camera: 50.0}, seconds=0.2)
        assert camera.sent_ns[-1] in camera.answered_ns()
    assert {int(decode_image(image).pixels[0, 0, 0]) for image in images} == {7, 9}
    assert len({image.header.stamp.nanosec for image in images}) == len(images)


def test_a_process_that_ended_ends_the_playing():
    with (
        closing(FrameDriver([camera := camera_of(3)], [np.zeros((4, 6, 3), np.uint8)], ("detections",))) as driver,
        pytest.raises(UnavailableError, match="expected the process node to run to the end, it exited with status 3"),
    ):
        driver.play({camera: 50.0}, frames=10)
