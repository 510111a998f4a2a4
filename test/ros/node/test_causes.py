# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""What keeps images from the node is told by its true cause and by resolved names: in the log and on /diagnostics.

The doctor says the same, by the same rule: `test_doctor.py`.
"""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from node_cases import Camera, activated, compressed_picture, picture, value
from rclpy.duration import Duration
from rclpy.qos import DurabilityPolicy, LivelinessPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image

from rt_panoptic_ros.ros import qos
from rt_panoptic_ros.ros.endpoints import COMPRESSED, IMAGE, Endpoint, find_obstacle
from rt_panoptic_ros.ros.node.node_settings import Periods

SENSOR = "sensor_msgs/msg/"


@pytest.fixture
def stranger(graph):
    """A node of a participant of its own: one of another type's topic can't share one."""
    other = type(graph)()
    yield other.node("stranger")
    other.close()


def await_cause(camera, words):
    return camera.await_report(lambda status: words in status.message, index=1)


@pytest.mark.parametrize("subscribed_first", [True, False])
@pytest.mark.parametrize(
    ("transport", "topic", "kind", "words"),
    [
        ("raw", "image", CompressedImage,
         f"/stranger publishes {COMPRESSED} on /image, where the node expects {IMAGE}"),
        ("compressed", "image/compressed", Image,
         f"/stranger publishes {IMAGE} on /image/compressed, where the node expects {COMPRESSED}"),
    ],
)  # fmt: skip
def test_another_type(graph, fake_node, stranger, capfd, transport, topic, kind, words, subscribed_first):
    node = fake_node(image_transport=transport, lazy=False)
    listener = Camera(graph, ())
    listener.node.destroy_publisher(listener.publisher)
    if not subscribed_first:
        stranger.create_publisher(kind, topic, 1)
    activated(node)
    if subscribed_first:
        graph.spin_until(lambda: node.streams[0].subscribed, "for the node to subscribe")
        stranger.create_publisher(kind, topic, 1)
    status = await_cause(listener, words)
    assert value(status, "camera publishers") == "1"
    log = "".join(capfd.readouterr())
    assert log.count(words) == 1
    assert "Fast DDS" not in log


def test_a_publisher_that_offers_less(graph, fake_node, capfd):
    activated(fake_node(image_reliability="reliable", lazy=False))
    listener = Camera(graph, ())
    listener.node.destroy_publisher(listener.publisher)
    listener.node.create_publisher(Image, "image", qos.stream("best_effort"))
    words = (
        "the camera /camera offers less on /image than the node asks for: reliability (offered best_effort, asked for "
        "reliable): set the node's parameter image_reliability to best_effort"
    )
    await_cause(listener, words)
    log = "".join(capfd.readouterr())
    assert log.count(words) == 1
    assert "Fast DDS" not in log


@pytest.mark.parametrize(
    ("expected", "topic", "kind", "words"),
    [
        ("raw", "image/compressed", CompressedImage, "on /image, but /image/compressed has the images as JPEG or PNG"),
        ("compressed", "image", Image, "on /image/compressed, but /image has the images as they are"),
    ],
)
def test_another_transport(graph, fake_node, expected, topic, kind, words):
    activated(fake_node(image_transport=expected, lazy=False))
    listener = Camera(graph, ())
    listener.node.destroy_publisher(listener.publisher)
    graph.node("driver").create_publisher(kind, topic, qos.stream("reliable"))
    status = await_cause(listener, f"nobody publishes {words}")
    other = "compressed" if expected == "raw" else "raw"
    assert f"set the node's parameter image_transport to {other}" in status.message


def test_a_publisher_that_changes_its_type(graph, fake_node, stranger):
    activated(fake_node(image_reliability="reliable", periods=Periods(silence_s=0.0)))
    camera = Camera(graph).connected()
    camera.send(picture(1))
    camera.await_outputs(1)
    camera.node.destroy_publisher(camera.publisher)
    other = stranger.create_publisher(CompressedImage, "image", 1)
    await_cause(camera, f"/stranger publishes {COMPRESSED} on /image")
    stranger.destroy_publisher(other)
    camera.publisher = camera.node.create_publisher(Image, "image", qos.stream("reliable"))
    camera.connected().send(picture(2))
    camera.await_outputs(2)


def test_one_of_two_publishers_suffices(graph, fake_node, stranger):
    activated(fake_node(image_reliability="reliable"))
    camera = Camera(graph).connected()
    stranger.create_publisher(CompressedImage, "image", 1)
    camera.await_report(lambda status: value(status, "camera publishers") == "2", index=1)
    camera.send(picture(1))
    camera.await_outputs(1)
    status = camera.await_report(lambda status: value(status, "frames processed") == "1", index=1)
    assert "publishes" not in status.message


def test_silence_without_a_cause_names_both_that_it_may_have(graph, fake_node, capfd):
    activated(fake_node(periods=Periods(silence_s=0.0)))
    camera = Camera(graph).connected()
    camera.await_report(lambda status: value(status, "camera publishers") == "1", index=1)
    log = "".join(capfd.readouterr())
    assert "they send nothing (`ros2 topic hz /image` would be silent too), or the images are lost in transport" in log


def test_small_images_are_not_lost_by_fast_dds_buffers(graph, fake_node, capfd):
    node = activated(fake_node(image_reliability="reliable"))
    camera = Camera(graph).connected()
    camera.send(picture(1))
    camera.await_outputs(1)

    node.streams[0].notice_loss(SimpleNamespace(total_count=2, total_count_change=2))
    log = "".join(capfd.readouterr())
    assert "images of /image are lost in transport (2 so far). They are too small" in log
    assert "Fast DDS" not in log


def test_transient_local_images_are_received(graph, fake_node):
    activated(fake_node(image_reliability="reliable"))
    camera = Camera(graph)
    camera.publisher = camera.node.create_publisher(Image, "image", qos.latched())
    camera.connected().send(picture(1))
    camera.await_outputs(1)


@pytest.mark.parametrize(
    ("rules", "topic"),
    [
        ((), "/image/compressed"),
        (("image/compressed:=/cam/jpegs",), "/cam/jpegs"),
        (("image:=/cam/image",), "/cam/image/compressed"),
        (("image:=/cam/image", "/cam/image/compressed:=/cam/jpegs"), "/cam/jpegs"),
    ],
)
def test_compressed_images_are_spoken_of_by_their_resolved_topic(graph, fake_node, capfd, rules, topic):
    activated(fake_node(*rules, image_transport="compressed", lazy=False))
    camera = Camera(graph)
    publisher = camera.node.create_publisher(CompressedImage, topic, qos.stream("reliable"))
    graph.spin_until(publisher.get_subscription_count, "for the node to subscribe")
    publisher.publish(compressed_picture(7))
    camera.await_outputs(1)
    status = camera.await_report(lambda status: value(status, "frames processed") == "1", index=1)
    assert value(status, "topic") == topic
    assert value(status, "camera publishers") == "1"
    log = "".join(capfd.readouterr())
    assert f"receives {topic} (" in log
    assert f"receiving images from {topic}\n" in log


def test_raw_images_are_remapped_once(graph, fake_node):
    activated(fake_node("image:=/a", "/a:=/b", lazy=False))
    camera = Camera(graph)
    camera.publisher = camera.node.create_publisher(Image, "/a", qos.stream("reliable"))
    camera.connected().send(picture(1))
    camera.await_outputs(1)


def test_the_outputs_topics_are_on_diagnostics(graph, fake_node):
    activated(fake_node("panoptic_node/front/semantic:=/planner/labels", cameras="front=/f,rear=/r"))
    camera = Camera(graph, ())
    status = camera.await_report(lambda status: status.name.endswith("camera front"), index=1)
    assert value(status, "semantic topic") == "/planner/labels"
    assert value(status, "instance topic") == "/panoptic_node/front/instance"


def test_what_the_graph_tells_of_an_endpoint(graph):
    node = graph.node("camera")
    demanding = QoSProfile(
        depth=1, reliability=ReliabilityPolicy.BEST_EFFORT, durability=DurabilityPolicy.TRANSIENT_LOCAL,
        deadline=Duration(nanoseconds=200_000_000), liveliness=LivelinessPolicy.MANUAL_BY_TOPIC,
        liveliness_lease_duration=Duration(seconds=1),
    )  # fmt: skip
    node.create_publisher(Image, "plain", 1)
    node.create_publisher(Image, "demanding", demanding)
    graph.spin_until(lambda: node.count_publishers("plain") and node.count_publishers("demanding"), "for the graph")
    plain, strict = (Endpoint.of(node.get_publishers_info_by_topic(topic)[0]) for topic in ("plain", "demanding"))
    assert plain == Endpoint("/camera", IMAGE)
    assert strict == Endpoint("/camera", IMAGE, "best_effort", "transient_local", 0.2, "manual_by_topic", 1.0)
    assert not strict.withholds(Endpoint("/node", IMAGE, "best_effort"))
    assert plain.withholds(strict) == (
        "durability (offered volatile, asked for transient_local) and liveliness (offered automatic, asked for "
        "manual_by_topic) and deadline (offered inf s, asked for 0.2 s) and liveliness lease (offered inf s, asked for "
        "1 s)"
    )


def obstacle(*publishers, topic="/image", kind=IMAGE, others=None):
    asked = Endpoint("/node", kind, "reliable")
    return find_obstacle(topic, asked, publishers, lambda other: {(others or {}).get(other)})


def test_obstacles_told_apart():
    assert obstacle(Endpoint("/a", IMAGE)) is None
    assert obstacle() is None
    assert obstacle(others={"/image/compressed": IMAGE}) is None
    assert obstacle(others={"/image/compressed": COMPRESSED}).what == "transport"
    modest, other = Endpoint("/a", IMAGE, "best_effort"), Endpoint("/b", COMPRESSED)
    assert (obstacle(modest).what, obstacle(other).what) == ("quality", "type")
    assert obstacle(modest, Endpoint("/c", IMAGE)) is None
    both = obstacle(other, modest)
    assert (both.what, both.kind) == ("quality", IMAGE)
    assert "/b publishes" in both.cause
    assert "the camera /a offers less" in both.cause
    assert "take a topic of images" in obstacle(Endpoint("/lidar", f"{SENSOR}PointCloud2")).remedy
