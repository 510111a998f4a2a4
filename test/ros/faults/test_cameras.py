# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Faults of cameras and of what they send, in front of one node with a real model."""

from __future__ import annotations

import array
import struct
import threading
import zlib
from itertools import cycle

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from node_cases import (
    KINDS,
    SUCCESS,
    TIMEOUT_S,
    call,
    compressed_picture,
    counts,
    final_counts,
    picture,
    set_parameters,
)
from rcl_interfaces.srv import GetParameters
from rclpy.clock import ClockType
from rclpy.serialization import serialize_message
from rclpy.time import Time
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from rt_panoptic_ros.geometry.cloud import POINT
from rt_panoptic_ros.ros import qos
from rt_panoptic_ros.ros.conversions import image_to_msg
from rt_panoptic_ros.settings import DEPTH_SLACK_S

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR


@pytest.fixture
def camera(labelling):
    return labelling.camera


def stamped(camera, message):
    """Return a message as of now."""
    message.header.stamp = camera.node.get_clock().now().to_msg()
    return message


def recovers(labelling, message, recovery):
    with recovery("result"):
        labels = labelling.label(stamped(labelling.camera, message))
    assert (labels.height, labels.width) == (message.height, message.width)


@pytest.mark.fault("camera stops", "WARN: none arrived for so long; ERROR after 30 s; labelled from its next image on")
def test_a_camera_that_stops_is_told_of_and_comes_back(labelling, camera, recovery):
    words = "waiting for images: none arrived for"
    camera.await_report(lambda status: status.level == ERROR and status.message.startswith(words))
    recovers(labelling, picture(1), recovery)


@pytest.mark.fault(
    "camera restarts with another quality of service",
    "WARN: best effort, where reliable is asked for, and what to set; ERROR after 30 s; labelled once it fits",
)
def test_a_camera_that_restarts_is_received_again(labelling, camera, recovery):
    camera.node.destroy_publisher(camera.publisher)
    camera.await_report(lambda status: "nobody publishes images on /image" in status.message)
    camera.publisher = camera.node.create_publisher(Image, "image", qos.stream("best_effort"))
    status = camera.await_report(lambda status: status.level == ERROR and "image_reliability" in status.message)
    assert "best_effort" in status.message
    camera.node.destroy_publisher(camera.publisher)
    camera.publisher = camera.node.create_publisher(Image, "image", qos.stream("reliable"))
    with recovery("result"):
        camera.connected()
        labelling.label(picture(1))


@pytest.mark.fault("camera changes its size in the middle", "labels have the new size from its first image on")
def test_every_image_has_labels_of_its_own_size(labelling, camera, recovery):
    for size in ((6, 8), (480, 640), (1, 1), (33, 7), (2, 5000), (6, 8)):
        recovers(labelling, picture(3, size), recovery)


@pytest.mark.fault("camera changes its encoding in the middle", "labelled from its first image on")
def test_every_image_is_read_in_its_own_encoding(labelling, camera, recovery):
    for encoding, channels in (("bgr8", 3), ("mono8", 1), ("rgba8", 4), ("bayer_rggb8", 1), ("yuv422", 2), ("rgb8", 3)):
        pixels = np.full((6, 8, channels), 9, np.uint8)
        recovers(labelling, image_to_msg(pixels, encoding, picture(1).header), recovery)


def with_fields(message, **fields):
    for name, content in fields.items():
        setattr(message, name, content)
    return message


@pytest.mark.parametrize(
    ("unfit", "words"),
    [
        pytest.param(
            lambda: picture(1, encoding="purple7"), "got 'purple7'",
            marks=pytest.mark.fault("encoding that nobody knows", "refused; WARN says which came, ERROR after 30 s"),
        ),
        pytest.param(
            lambda: image_to_msg(np.zeros((6, 8), np.uint16), "16UC1", picture(1).header), "got depth ('16UC1')",
            marks=pytest.mark.fault("depth on the camera's topic", "refused; WARN says so, ERROR after 30 s"),
        ),
        pytest.param(
            lambda: with_fields(picture(1), data=picture(1).data[:100]), "= 144 bytes of image data, got 100",
            marks=pytest.mark.fault("data cut", "refused; WARN with both lengths, ERROR after 30 s"),
        ),
        pytest.param(
            lambda: with_fields(picture(1), data=picture(1).data * 2), "= 144 bytes of image data, got 288",
            marks=pytest.mark.fault("data longer than its rows", "refused; WARN with both lengths, ERROR after 30 s"),
        ),
        pytest.param(
            lambda: with_fields(picture(1), step=12, data=picture(1).data[:72]), "a step of at least width x 3 = 24",
            marks=pytest.mark.fault("step shorter than a row", "refused; WARN with both, ERROR after 30 s"),
        ),
        pytest.param(
            lambda: with_fields(picture(1), height=2**32 - 1, width=2**32 - 1), "4294967295",
            marks=pytest.mark.fault(
                "4,294,967,295 x 4,294,967,295 pixels claimed", "refused, nothing allocated; WARN, ERROR after 30 s"
            ),
        ),
        pytest.param(
            lambda: with_fields(picture(1), header=Header(frame_id="x" * 10_000)), "got 10000 that begin with",
            marks=pytest.mark.fault("frame_id of 10 kB", "refused; WARN says how long, ERROR after 30 s"),
        ),
        pytest.param(
            Image, "an image of at least 1x1 px, got height 0 and width 0",
            marks=pytest.mark.fault("0 x 0 pixels", "refused; WARN says so, ERROR after 30 s"),
        ),
    ],
)  # fmt: skip
def test_what_is_no_image_is_refused_with_its_cause(labelling, camera, recovery, unfit, words):
    before = final_counts(labelling.node)
    told = lambda status: "refused: expected" in status.message and words in status.message  # noqa: E731
    labelling.send_until(lambda: stamped(camera, unfit()), lambda status: status.level == ERROR and told(status))
    now = final_counts(labelling.node)
    assert (now.processed, now.failed) == (before.processed, before.failed)
    recovers(labelling, picture(1), recovery)


@pytest.mark.fault("10,000 x 10,000 pixels, all sent", "refused, unread; WARN says how many are taken")
def test_an_image_of_a_hundred_megapixels_is_refused(labelling, camera, recovery):
    camera.reports.clear()
    camera.send(image_to_msg(np.zeros((10_000, 10_000), np.uint8), "mono8", picture(1).header))
    words = "64 megapixels, got height 10000 and width 10000"
    told = lambda: any(words in report.status[0].message for report in camera.reports)  # noqa: E731
    labelling.graph.spin_until(told, "for a report")
    recovers(labelling, picture(1), recovery)


@pytest.mark.fault(
    "bytes that are no message",
    "the middleware drops them; WARN: no image arrives, ERROR after 30 s; its next is labelled",
)
def test_bytes_that_are_no_message_are_outlived(labelling, camera, recovery):
    whole = serialize_message(picture(1))
    contents = cycle((whole[:3], whole[:20], whole[:-30], b"\0\1\0\0" + b"\xff" * 60, b""))
    told = lambda status: status.level == ERROR and "waiting for images" in status.message  # noqa: E731
    labelling.send_until(lambda: next(contents), told)
    recovers(labelling, picture(1), recovery)


@pytest.mark.fault("frame_id empty", "labelled, with the same")
def test_a_frame_without_a_name(labelling, camera, recovery):
    message = stamped(camera, picture(1))
    message.header.frame_id = ""
    with recovery("result"):
        assert labelling.label(message).header.frame_id == ""


@pytest.mark.parametrize(
    ("shifts_s", "words"),
    [
        pytest.param(
            (0.0, -3600.0, 0.0),
            "",
            marks=pytest.mark.fault("stamps jump an hour back", "labelled under their own stamps; ids begin with 1"),
        ),
        pytest.param(
            (3600.0,) * 3,
            "in the future: synchronise the machines' clocks",
            marks=pytest.mark.fault("stamps jump an hour ahead", "labelled under their own stamps; WARN says how far"),
        ),
        pytest.param(
            (None, None, None),
            "the images' stamps are no time of day",
            marks=pytest.mark.fault("stamps are zero, all the same", "labelled under their own stamps; WARN says so"),
        ),
    ],
)
def test_whatever_the_stamps_are(labelling, camera, recovery, shifts_s, words):
    assert set_parameters(labelling.node, tracking=True).successful

    def made(shift_s):
        message = stamped(camera, picture(1))
        message.header.stamp.sec = message.header.stamp.sec + round(shift_s) if shift_s is not None else 0
        message.header.stamp.nanosec *= shift_s is not None
        return message

    for shift_s in shifts_s:
        labelling.label(made(shift_s))
    if words:
        labelling.send_until(
            lambda: made(shifts_s[-1]), lambda status: status.level == WARN and words in status.message
        )
    assert set_parameters(labelling.node, tracking=False).successful
    recovers(labelling, picture(1), recovery)


@pytest.mark.fault(
    "camera floods, as fast as it can", "services answer; the newest images are labelled, its last always"
)
def test_of_a_flood_the_last_image_is_labelled_and_services_answer(labelling, camera, recovery):
    def flood():
        for number in range(1000):
            camera.send(picture(number % 200))
            sent.set()

    sent, before = threading.Event(), counts(labelling.node)
    flooding = threading.Thread(target=flood)
    flooding.start()
    assert sent.wait(TIMEOUT_S)
    request = GetParameters.Request(names=["model"])
    assert call(labelling.graph, camera.node, GetParameters, "/panoptic_node/get_parameters", request).values
    labelling.graph.spin_until(lambda: not flooding.is_alive(), "for the flood to end")
    recovers(labelling, picture(1), recovery)
    now = counts(labelling.node)
    assert now.failed == before.failed
    assert 0 < now.processed - before.processed < 1000


class Depth:
    """Depth and camera_info beside a camera's images, and who listens to what is made with them."""

    def __init__(self, camera):
        self.camera = camera
        self.depth = camera.node.create_publisher(Image, "depth", qos.stream("reliable"))
        self.info = camera.node.create_publisher(CameraInfo, "camera_info", qos.stream("reliable"))
        self.clouds, self.boxes = [], []
        self.last = Time(clock_type=ClockType.ROS_TIME)
        topics = (("points", self.clouds), ("detections_3d", self.boxes))
        self.subscriptions = [
            camera.node.create_subscription(KINDS[name], f"/panoptic_node/{name}", got.append, qos.stream("reliable"))
            for name, got in topics
            if name in KINDS
        ]
        for publisher in (self.depth, self.info):
            camera.graph.spin_until(publisher.get_subscription_count, "for the node to subscribe")

    def send(self, depth):
        """Send an image with its depth, farther from the one before than depth may be from its image."""
        clock = self.camera.node.get_clock()
        self.camera.graph.spin_until(lambda: (clock.now() - self.last).nanoseconds > 1e9 * DEPTH_SLACK_S)
        image = stamped(self.camera, picture(1, depth.shape))
        self.last = Time.from_msg(image.header.stamp)
        self.depth.publish(image_to_msg(depth, "32FC1", image.header))
        self.camera.send(image)

    def end(self):
        for one in self.subscriptions:
            self.camera.node.destroy_subscription(one)
        for one in (self.depth, self.info):
            self.camera.node.destroy_publisher(one)


@pytest.fixture
def depth(camera):
    depth = Depth(camera)
    yield depth
    depth.end()


def calibration(focal_length):
    k = [focal_length, 0.0, 3.5, 0.0, focal_length, 2.5, 0.0, 0.0, 1.0]
    return CameraInfo(height=6, width=8, k=k, p=[*k[:3], 0.0, *k[3:6], 0.0, *k[6:], 0.0])


@pytest.mark.fault(
    "depth of NaN, infinities, negatives", "points without depth are NaN, as REP 118 says; nothing fails"
)
def test_depth_of_no_number_gives_points_of_none(labelling, camera, depth, recovery):
    failed = counts(labelling.node).failed
    depth.info.publish(calibration(10.0))
    wild = np.resize(np.array([np.nan, np.inf, -np.inf, -1.0, 3e38, 1e-40, 0.0, 2.0], np.float32), (6, 8))

    def cloud(pixels):
        depth.clouds.clear()
        depth.send(pixels)
        camera.graph.spin_until(lambda: depth.clouds, "for its points")
        return np.frombuffer(depth.clouds[0].data, POINT).reshape(6, 8)["z"]

    labelling.graph.spin_until(lambda: labelling.node.streams[0].depth._info is not None, "for the camera_info")
    z = cloud(wild)
    assert np.array_equal(z[:, -1], np.full(6, 2.0))
    assert np.isnan(z[:, :4]).all()
    with recovery("result"):
        assert np.array_equal(cloud(np.full((6, 8), 1.5, np.float32)), np.full((6, 8), 1.5))
    assert counts(labelling.node).failed == failed


@pytest.mark.parametrize(
    "focal_length",
    [
        pytest.param(
            0.0, marks=pytest.mark.fault("camera_info of zeros", "labels go on; WARN: no focal length, calibrate")
        ),
        pytest.param(
            np.nan, marks=pytest.mark.fault("camera_info of NaN", "labels go on; WARN: no focal length, calibrate")
        ),
    ],
)
def test_a_camera_info_without_calibration_is_told(labelling, camera, depth, recovery, focal_length):
    flat = np.full((6, 8), 1.5, np.float32)
    depth.info.publish(calibration(focal_length))

    def told():
        depth.send(flat)
        return any(
            "expected a camera_info with focal lengths above 0" in report.status[0].message for report in camera.reports
        )

    camera.reports.clear()
    camera.graph.spin_until(told, "for a report")
    with recovery("result"):
        depth.info.publish(calibration(10.0))

        def located():
            depth.send(flat)
            return depth.clouds

        camera.graph.spin_until(located, "for points")


# The rest is of compressed images ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def compressed(labelling):
    """The same, of a camera that sends compressed images."""
    assert labelling.node.trigger_deactivate() == SUCCESS
    assert set_parameters(labelling.node, image_transport="compressed").successful
    assert labelling.node.trigger_activate() == SUCCESS
    camera = labelling.camera
    camera.publisher = camera.node.create_publisher(CompressedImage, "image/compressed", qos.stream("reliable"))
    camera.connected()
    return labelling


def png_of_zeros(width, height):
    """Return a small PNG whose pixels would be many."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    rows = zlib.compress(bytes((width + 1) * min(height, 1000)))
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(
            lambda: bytes(compressed_picture(1).data[:-20]),
            marks=pytest.mark.fault("compressed image cut", "refused; WARN says so, ERROR after 30 s"),
        ),
        pytest.param(
            lambda: b"\xff\xd8" + bytes(range(256)),
            marks=pytest.mark.fault("compressed image of garbage", "refused; WARN says so, ERROR after 30 s"),
        ),
        pytest.param(
            lambda: png_of_zeros(60_000, 60_000),
            marks=pytest.mark.fault(
                "compressed image of 3,600 megapixels in 60 kB", "refused before it is unpacked; WARN, ERROR after 30 s"
            ),
        ),
        pytest.param(
            lambda: b"", marks=pytest.mark.fault("compressed image of no bytes", "refused; WARN, ERROR after 30 s")
        ),
    ],
)
def test_what_cannot_be_decoded_is_refused_with_its_cause(compressed, recovery, content):
    camera, failed = compressed.camera, counts(compressed.node).failed
    data = array.array("B", content())

    def unfit():
        return stamped(camera, CompressedImage(format="png", data=data))

    words = f"megapixels, got {len(data)} bytes that can't be decoded"
    compressed.send_until(unfit, lambda status: status.level == ERROR and words in status.message)
    assert counts(compressed.node).failed == failed
    with recovery("result"):
        compressed.label(stamped(camera, compressed_picture(1)))
