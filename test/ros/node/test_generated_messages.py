# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The live node with a real model under messages of which every field is drawn: none ends it or goes uncounted."""

from __future__ import annotations

import array
import threading

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from node_cases import OF_IMAGES, Camera, activated, compressed_picture, picture
from rclpy.parameter import Parameter
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from rt_panoptic_ros.ros import qos
from rt_panoptic_ros.ros.node.transitions import state_of as state

MESSAGES = 300  # of each kind

ENCODINGS = (
    "rgb8", "rgba8", "rgb16", "rgba16", "bgr8", "bgra8", "bgr16", "bgra16", "mono8", "mono16", "8UC1", "8UC3", "8SC4",
    "16UC1", "16SC2", "32SC1", "32FC1", "64FC4", "bayer_rggb8", "bayer_bggr8", "bayer_gbrg8", "bayer_grbg8",
    "bayer_rggb16", "bayer_grbg16", "yuv422", "yuv422_yuy2", "uyvy", "yuyv", "nv21", "nv24", "nv12", "NV12", "i420",
    "yuv420", "", "purple7",
)  # fmt: skip
FORMATS = (
    "jpeg", "png", "jpg", "rgb8; jpeg compressed bgr8", "bgr8; png compressed bgr8", "mono16; png compressed ",
    "bayer_rggb8; png compressed ", "rgb16; png compressed bgr16", "16UC1; compressedDepth png", "tiff", "h264", "",
    "; ; jpeg", "purple7; jpeg compressed purple7",
)  # fmt: skip

text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
sizes = st.one_of(st.integers(0, 40), st.sampled_from([1, 2, 3, 10_000, 2**31, 2**32 - 1]))


@st.composite
def headers(draw):
    header = Header(frame_id=draw(text))
    header.stamp.sec = draw(st.integers(-(2**31), 2**31 - 1))
    header.stamp.nanosec = draw(st.integers(0, 2**32 - 1))
    return header


@st.composite
def images(draw):
    encoding = draw(st.one_of(st.sampled_from(ENCODINGS), text))
    height, width = draw(st.tuples(sizes, sizes))
    row_bytes = width * draw(st.sampled_from([1, 1.5, 2, 3, 4, 6, 8])) + draw(st.sampled_from([0, 0, 1, 7]))
    step = draw(st.one_of(st.just(int(row_bytes) % 2**32), sizes))
    rows = draw(st.sampled_from([height, height, height * 3 // 2, height * 2, max(0, height - 1)]))
    size = min(step * rows, 20_000) + draw(st.sampled_from([0, 0, 0, 1, 64]))
    data = np.random.default_rng(draw(st.integers(0, 99))).integers(0, 256, size, np.uint8)
    return Image(
        header=draw(headers()), encoding=encoding, height=height, width=width, step=step,
        is_bigendian=draw(st.integers(0, 255)), data=array.array("B", data.tobytes()),
    )  # fmt: skip


@st.composite
def compressed_images(draw):
    shape = draw(st.tuples(st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 3, 4])))
    kind = draw(st.sampled_from([np.uint8, np.uint16]))
    pixels = np.random.default_rng(draw(st.integers(0, 99))).integers(0, 256, shape).astype(kind)
    suffix = draw(st.sampled_from([".png", ".jpg", ".webp", ".bmp"])) if kind == np.uint8 else ".png"
    content = bytearray(cv2.imencode(suffix, pixels)[1].tobytes())
    for place, value in draw(st.lists(st.tuples(st.integers(0, 2**20), st.integers(0, 255)), max_size=4)):
        content[place % len(content)] = value
    end = draw(st.one_of(st.just(len(content)), st.integers(0, len(content))))
    form = draw(st.one_of(st.sampled_from(FORMATS), text))
    return CompressedImage(header=draw(headers()), format=form, data=array.array("B", bytes(content[:end])))


@pytest.mark.slow
@pytest.mark.parametrize("transport", ["raw", "compressed"])
def test_no_message_ends_the_node_or_goes_uncounted(graph, small_bundle, transport):
    from rt_panoptic_ros.ros.node.panoptic_node import PanopticNode

    parameters = {
        "model": str(small_bundle.path), "network_size": "32x64", "image_reliability": "reliable", "tracking": True,
        "image_transport": transport,
    }  # fmt: skip
    overrides = [Parameter(name, value=value) for name, value in parameters.items()]
    node = activated(graph.add(PanopticNode(context=graph.context, parameter_overrides=overrides)))
    camera = Camera(graph, OF_IMAGES)
    publisher, drawn = camera.publisher, images()
    if transport == "compressed":
        publisher = camera.node.create_publisher(CompressedImage, "image/compressed", qos.stream("reliable"))
        drawn = compressed_images()
    graph.spin_until(publisher.get_subscription_count, "for the node to subscribe")
    threads = threading.active_count()
    sent = 0

    def counts():
        return node.statistics[""].counts()

    def send(message):
        nonlocal sent
        publisher.publish(message)
        sent += 1
        outcomes = ("processed", "dropped", "skipped", "refused", "failed")
        graph.spin_until(lambda: sum(counts()[one] for one in outcomes) == sent, f"for an outcome: {message.header}")

    @settings(max_examples=MESSAGES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(drawn)
    def every_message_has_an_outcome(message):
        send(message)
        assert counts()["failed"] == 0, "an unexpected error"

    every_message_has_an_outcome()
    assert sent >= MESSAGES
    assert counts()["received"] == sent
    good = picture(7, (24, 40))
    if transport == "compressed":
        good = compressed_picture(7, (24, 40))
    send(good)
    received = camera.received.values()
    graph.spin_until(
        lambda: all(got and got[-1].header == good.header for got in received), "for the good image's outputs"
    )
    assert state(node) == "active"
    assert threading.active_count() == threads
    assert node.health.callback_errors == 0
