# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Depth and camera_info beside the images: what the node makes of them, and what it says when they are missing."""

from __future__ import annotations

import array
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from geometry_msgs.msg import TransformStamped
from node_cases import FAILURE, Camera, activated, counts, picture, set_parameters, value
from rclpy.task import Future
from sensor_msgs.msg import CameraInfo, Image, PointCloud2

from rt_panoptic_ros.geometry.cloud import POINT
from rt_panoptic_ros.ros import qos
from rt_panoptic_ros.ros.conversions import image_to_msg, output_classes
from rt_panoptic_ros.ros.node.camera_stream import CameraStream
from rt_panoptic_ros.ros.node.node_settings import Periods

SIZE = 6, 8
CLASSES = output_classes()
IMPATIENT = Periods(diagnostics_s=0.2, silence_s=0.0)


def depth_of(number: int, pixels: np.ndarray, encoding: str = "16UC1", late_ns: int = 0, frame: str | None = None):
    """Return depth for `picture(number)`, stamped later than it."""
    header = picture(number).header
    header.stamp.nanosec -= 500_000_000 - late_ns
    if frame is not None:
        header.frame_id = frame
    return image_to_msg(pixels, encoding, header)


def image(number: int, size=SIZE):
    """Return a picture whose stamp has room before and behind it."""
    msg = picture(number, size)
    msg.header.stamp.nanosec -= 500_000_000
    return msg


def info_of(size=SIZE, **fields):
    height, width = size
    return CameraInfo(
        height=height, width=width, k=[10.0, 0.0, 3.5, 0.0, 20.0, 2.5, 0.0, 0.0, 1.0],
        p=[10.0, 0.0, 3.5, 0.0, 0.0, 20.0, 2.5, 0.0, 0.0, 0.0, 1.0, 0.0], **fields,
    )  # fmt: skip


class DepthCamera(Camera):
    """A camera that sends depth and camera_info too, and a listener to what is made of them."""

    def __init__(self, graph, topics=("points",), name=""):
        super().__init__(graph, (), name)
        beside = f"/{name}/" if name else ""
        outputs = f"/panoptic_node/{name}".rstrip("/")
        self.depth = self.node.create_publisher(Image, f"{beside}depth", qos.stream("reliable"))
        self.info = self.node.create_publisher(CameraInfo, f"{beside}camera_info", qos.stream("reliable"))
        self.received = {topic: [] for topic in topics}
        for topic in topics:
            self.node.create_subscription(
                CLASSES[topic], f"{outputs}/{topic}", self.received[topic].append, qos.stream("reliable")
            )

    def connected(self, *publishers):
        for publisher in (self.publisher, *(publishers or (self.depth, self.info))):
            self.graph.spin_until(publisher.get_subscription_count, "for the node to subscribe")
        return self

    def send_info(self, node, msg=None):
        """Send a camera_info, and wait until the node has it."""
        self.info.publish(info_of() if msg is None else msg)
        self.graph.spin_until(lambda: node.streams[0].depth._info is not None, "for the node to have camera_info")


@pytest.fixture
def log(monkeypatch):
    """The warnings that the node's cameras have told."""
    told = []
    tell = CameraStream.tell

    def remember(stream, subject, words):
        told.extend([] if subject in stream._told else [words])
        tell(stream, subject, words)

    monkeypatch.setattr(CameraStream, "tell", remember)
    return told


def await_count(graph, node, outcome, number=1, camera=""):
    graph.spin_until(lambda: node.statistics[camera].counts()[outcome] >= number, f"for {number} {outcome}")


def cloud_of(msg: PointCloud2) -> np.ndarray:
    return np.frombuffer(msg.data, POINT).reshape(msg.height, msg.width)


def test_points_are_where_depth_says_and_have_the_labels(graph, fake_node):
    node = activated(fake_node())
    camera = DepthCamera(graph, ("points", "semantic")).connected()
    camera.send_info(node)
    millimetres = np.full(SIZE, 2000, np.uint16)
    millimetres[0, 0] = 0
    camera.depth.publish(depth_of(5, millimetres))
    camera.send(image(5))
    camera.await_outputs(1)
    msg = camera.received["points"][0]
    assert msg.header == image(5).header
    assert (msg.height, msg.width, msg.point_step, msg.row_step, msg.is_dense) == (6, 8, 20, 160, False)
    cloud = cloud_of(msg)
    assert np.isnan([cloud[0, 0][axis] for axis in "xyz"]).all()
    v, u = np.indices(SIZE)
    seen = millimetres > 0
    np.testing.assert_allclose(cloud["z"][seen], 2.0)
    np.testing.assert_allclose(cloud["x"][seen], ((u - 3.5) / 10 * 2)[seen], rtol=1e-6)
    np.testing.assert_allclose(cloud["y"][seen], ((v - 2.5) / 20 * 2)[seen], rtol=1e-6)
    assert (cloud["rgb"] == 0x050505).all()
    assert (cloud["class"] == 5).all()
    assert (cloud["confidence"] == 250).all()
    np.testing.assert_array_equal(cloud["instance"], np.where(u < 4, 1, 0))


@pytest.mark.parametrize("first", ["image", "depth"])
def test_whichever_comes_first_waits_for_the_other(graph, fake_node, first):
    node = activated(fake_node(depth_slack_s=0.02))
    camera = DepthCamera(graph, ("points", "semantic")).connected()
    camera.send_info(node)
    depth = depth_of(3, np.full(SIZE, 1.5, np.float32), "32FC1", late_ns=15_000_000)
    if first == "image":
        camera.send(image(3))
        graph.spin_until(lambda: camera.received["semantic"], "for the labels, which wait for nothing")
        assert not camera.received["points"]
        camera.depth.publish(depth)
    else:
        camera.depth.publish(depth)
        graph.spin_until(lambda: node.streams[0].depth._matcher._depths, "for the depth")
        camera.send(image(3))
    camera.await_outputs(1)
    assert cloud_of(camera.received["points"][0])["z"] == pytest.approx(1.5)
    assert node.statistics[""].counts()["located"] == 1


@pytest.mark.parametrize(("sync", "late_ns"), [("exact", 1), ("approximate", 20_000_001), ("approximate", -20_000_001)])
def test_depth_of_another_stamp_is_not_taken(graph, fake_node, log, sync, late_ns):
    node = activated(fake_node(periods=IMPATIENT, depth_sync=sync))
    camera = DepthCamera(graph, ("points", "semantic")).connected()
    camera.send_info(node)
    camera.depth.publish(depth_of(3, np.ones(SIZE, np.uint16), late_ns=late_ns))
    graph.spin_until(lambda: node.streams[0].depth._matcher._depths, "for the depth")
    camera.send(image(3))
    graph.spin_until(lambda: camera.received["semantic"], "for the labels")
    for frames in range(2, 6):  # take the place of one that may still wait
        camera.send(image(2))
        graph.spin_until(lambda frames=frames: counts(node).processed >= frames, "for the labels")
    await_count(graph, node, "without depth")
    assert not camera.received["points"]
    assert counts(node).processed >= 1
    words = "20.0 ms older" if late_ns < 0 else f"{late_ns / 1e6:+.1f} ms"
    assert any(words in line and ("exact" in line) == (sync == "exact") for line in log)


def test_a_frame_waits_for_depth_that_comes_after_the_next_image(graph, fake_node):
    node = activated(fake_node(depth_sync="exact"))
    camera = DepthCamera(graph, ("points", "semantic")).connected()
    camera.send_info(node)
    for number in (9, 8):  # of which the later stamp comes second
        camera.send(image(number))
        graph.spin_until(lambda number=number: counts(node).processed > 9 - number, "for the labels")
    for number in (9, 8):
        camera.depth.publish(depth_of(number, np.full(SIZE, 100 * number, np.uint16)))
        camera.await_outputs(10 - number)
        cloud = camera.received["points"][-1]
        assert cloud.header == image(number).header
        assert cloud_of(cloud)["z"] == pytest.approx(number / 10)
    assert node.statistics[""].counts()["without depth"] == 0


def test_depth_filtered_is_the_depth_without_the_masks_pixels(graph, fake_node):
    activated(fake_node(mask_classes="road"))
    camera = DepthCamera(graph, ("depth_filtered",))
    camera.connected(camera.depth)
    pixels = np.arange(1, 49, dtype=np.uint16).reshape(SIZE)
    image_ = image(3)
    gradient = np.tile(np.arange(8, dtype=np.uint8), (6, 1))  # the fake pipeline's class
    image_.data = array.array("B", np.repeat(gradient[..., None], 3, 2).tobytes())
    camera.depth.publish(depth_of(3, pixels))
    camera.send(image_)
    camera.await_outputs(1)
    msg = camera.received["depth_filtered"][0]
    assert (msg.header, msg.encoding, msg.step) == (image_.header, "16UC1", 16)
    np.testing.assert_array_equal(np.frombuffer(msg.data, np.uint16).reshape(SIZE), np.where(gradient == 3, 0, pixels))


def test_all_outputs_have_the_output_size(graph, fake_node):
    node = activated(fake_node(output_size="3x4"))
    camera = DepthCamera(graph, ("points", "depth_filtered", "camera_info")).connected()
    camera.send_info(node)
    camera.depth.publish(depth_of(3, np.full(SIZE, 2000, np.uint16)))
    camera.send(image(3))
    camera.await_outputs(1)
    info, cloud = camera.received["camera_info"][0], cloud_of(camera.received["points"][0])
    assert (info.header, info.height, info.width) == (image(3).header, 3, 4)
    assert list(info.k) == [5.0, 0.0, 1.5, 0.0, 10.0, 1.0, 0.0, 0.0, 1.0]
    assert cloud.shape == (3, 4)
    np.testing.assert_allclose(cloud["x"][0], (np.arange(4) - 1.5) / 5 * 2)
    assert (camera.received["depth_filtered"][0].height, camera.received["depth_filtered"][0].width) == (3, 4)


def test_camera_info_is_the_cameras_where_the_size_is_its_own(graph, fake_node):
    node = activated(fake_node())
    camera = DepthCamera(graph, ("camera_info",))
    camera.connected(camera.info)
    assert not camera.depth.get_subscription_count()  # nobody needs it
    sent = info_of(distortion_model="plumb_bob", d=[0.1, 0.2, 0.0, 0.0, 0.0])
    camera.send_info(node, sent)
    camera.send(image(3))
    camera.await_outputs(1)
    sent.header = image(3).header
    assert camera.received["camera_info"][0] == sent


@pytest.mark.parametrize(
    ("sent", "outcome", "words"),
    [
        ({"depth": np.ones((3, 4), np.uint16)}, "misaligned", "6x8 px, got 3x4"),
        ({"depth": np.ones((6, 8), np.uint8), "encoding": "8UC1"}, "depth refused", "32FC1 (m), got '8UC1'"),
        ({"info": info_of((12, 16))}, "uncalibrated", "images of 6x8 px, got one for 12x16"),
        ({"info": CameraInfo(height=6, width=8)}, "uncalibrated", "calibrate the camera"),
        ({"info": None}, "uncalibrated", "no camera_info arrives"),
    ],
    ids=["size", "encoding", "another camera's", "none calibrated", "no info"],
)  # fmt: skip
def test_what_cannot_be_used_is_counted_and_told_once(graph, fake_node, log, sent, outcome, words):
    node = activated(fake_node(periods=IMPATIENT))
    camera = DepthCamera(graph, ("points", "semantic")).connected()
    info = sent.get("info", info_of())
    if info is not None:
        camera.send_info(node, info)
    depth = sent.get("depth", np.ones(SIZE, np.uint16))
    for number in (9, 8):
        camera.depth.publish(depth_of(number, depth, sent.get("encoding", "16UC1")))
        camera.send(image(number))
        await_count(graph, node, outcome, 10 - number)
    assert len([line for line in log if words in line]) == 1, log
    assert not camera.received["points"]
    graph.spin_until(lambda: len(camera.received["semantic"]) == 2, "for the labels, which come all the same")
    status = camera.await_report(lambda status: f"frames {outcome}" in status.message, index=1)
    assert value(status, f"frames {outcome}") == "2"


def test_another_frame_of_depth_is_told_and_taken(graph, fake_node, log):
    node = activated(fake_node())
    camera = DepthCamera(graph, ("points",)).connected()
    camera.send_info(node)
    camera.depth.publish(depth_of(3, np.ones(SIZE, np.uint16), frame="infra"))
    camera.send(image(3))
    camera.await_outputs(1)
    assert any("'infra'" in line and "'camera 3'" in line for line in log)


def test_inputs_are_subscribed_to_while_an_output_needs_them(graph, fake_node):
    activated(fake_node())
    camera = DepthCamera(graph, ("semantic",))
    camera.connected(camera.publisher)
    assert (camera.depth.get_subscription_count(), camera.info.get_subscription_count()) == (0, 0)
    listener = camera.node.create_subscription(PointCloud2, "/panoptic_node/points", lambda _: None, 1)
    camera.connected(camera.depth, camera.info)
    camera.node.destroy_subscription(listener)
    graph.spin_until(
        lambda: not camera.depth.get_subscription_count() and not camera.info.get_subscription_count(), "for the end"
    )


def test_several_cameras_have_depth_beside_their_images(graph, fake_node):
    node = activated(fake_node(cameras="front=/front/image,rear=/rear/image"))
    front, rear = (DepthCamera(graph, ("depth_filtered",), name) for name in ("front", "rear"))
    for distance, camera in ((1000, front), (2000, rear)):
        camera.connected(camera.depth)
        camera.depth.publish(depth_of(distance // 1000, np.full(SIZE, distance, np.uint16)))
        camera.send(image(distance // 1000))
        camera.await_outputs(1)
    assert [np.frombuffer(camera.received["depth_filtered"][0].data, np.uint16)[-1] for camera in (front, rear)] == [
        1000,
        2000,
    ]
    assert node.statistics["front"].counts()["located"] == 1


def test_parameters_of_depth_hold_at_once(graph, fake_node):
    node = activated(fake_node(depth_sync="exact"))
    camera = DepthCamera(graph, ("depth_filtered",))
    camera.connected(camera.depth)
    camera.depth.publish(depth_of(3, np.ones(SIZE, np.uint16), late_ns=1))
    graph.spin_until(lambda: node.streams[0].depth._matcher._depths, "for the depth")
    assert set_parameters(node, depth_sync="approximate", depth_slack_s=0.5).successful
    camera.send(image(3))
    camera.await_outputs(1)


# Boxes, with vision_msgs ----------------------------------------------------------------------------------------------

needs_vision_msgs = pytest.mark.skipif("detections_3d" not in CLASSES, reason="vision_msgs is not installed")

HALF_PIXEL_M = 0.1  # of the scene below


def seen(graph, node, size=(48, 64), topics=("detections_3d",)):
    """Send one image of a surface 2 m away; return the camera."""
    camera = DepthCamera(graph, topics).connected()
    camera.send_info(node, info_of(size))
    depth = np.full(size, 2000, np.uint16)
    camera.depth.publish(depth_of(3, depth))
    camera.send(image(3, size))
    return camera


@needs_vision_msgs
def test_objects_are_where_their_pixels_are(graph, fake_node):
    node = activated(fake_node())
    camera = seen(graph, node)
    camera.await_outputs(1)
    msg = camera.received["detections_3d"][0]
    assert msg.header == image(3).header
    (detection,) = msg.detections
    box, (result,) = detection.bbox, detection.results
    # The left half: 32 x 48 pixels at 2 m; fx 10, fy 20, cx 3.5, cy 2.5.
    assert [box.size.x, box.size.y, box.size.z] == pytest.approx([32 / 10 * 2, 48 / 20 * 2, 0], abs=HALF_PIXEL_M)
    assert [box.center.position.x, box.center.position.y] == pytest.approx([12 / 10 * 2, 21 / 20 * 2], abs=HALF_PIXEL_M)
    assert box.center.position.z == pytest.approx(2)
    assert box.center.orientation.w == 1
    assert (result.hypothesis.class_id, result.hypothesis.score, detection.id) == ("8", 0.75, "")
    assert result.pose.pose == box.center
    assert detection.header == msg.header


@needs_vision_msgs
def test_an_object_without_depth_is_counted_and_the_message_comes_all_the_same(graph, fake_node):
    node = activated(fake_node(tracking=True))
    camera = DepthCamera(graph, ("detections_3d",)).connected()
    camera.send_info(node)
    camera.depth.publish(depth_of(3, np.zeros(SIZE, np.uint16)))
    camera.send(image(3))
    camera.await_outputs(1)
    assert camera.received["detections_3d"][0].detections == []
    status = camera.await_report(lambda status: any(item.key == "objects without depth" for item in status.values), 1)
    assert value(status, "objects without depth") == "1"


class StandInBuffer:
    """tf2_ros' buffer, as far as the node uses it: https://docs.ros.org/en/jazzy/p/tf2_ros_py/."""

    def __init__(self):
        self.known, self.waiting = {}, []

    def lookup_transform(self, target, source, time):
        if (target, source) not in self.known:
            raise StandInError(f'"{target}" passed to lookupTransform argument target_frame does not exist.')
        return self.known[target, source]

    def wait_for_transform_async(self, target, source, time):
        future = Future()
        self.waiting.append(future)
        return future


class StandInError(Exception):
    pass


class StandInListener:
    def __init__(self, buffer, node):
        buffer.listener, self.heard = self, True

    def unregister(self):
        self.heard = False


@pytest.fixture
def tf2(monkeypatch):
    """The buffers of a stand-in for tf2_ros, which no wheel has."""
    buffers = []

    def make():
        buffers.append(StandInBuffer())
        return buffers[-1]

    module = SimpleNamespace(Buffer=make, TransformListener=StandInListener, TransformException=StandInError)
    monkeypatch.setitem(sys.modules, "tf2_ros", module)
    return buffers


@needs_vision_msgs
def test_boxes_are_along_the_target_frames_axes_once_the_transform_is_there(graph, fake_node, tf2, log):
    node = activated(fake_node(target_frame="base_link"))
    camera = seen(graph, node, topics=("detections_3d", "points"))
    graph.spin_until(lambda: tf2[0].waiting, "for the node to wait for the transform")
    assert camera.received["detections_3d"] == []
    # The camera looks ahead (x of base_link) from 1 m above: x right is -y there, y down is -z.
    transform = TransformStamped()
    rotation, translation = transform.transform.rotation, transform.transform.translation
    rotation.x, rotation.y, rotation.z, rotation.w = -0.5, 0.5, -0.5, 0.5
    translation.z = 1.0
    tf2[0].known["base_link", "camera 3"] = transform
    tf2[0].waiting[0].set_result(transform)
    camera.await_outputs(1)
    msg = camera.received["detections_3d"][0]
    box = msg.detections[0].bbox
    assert (msg.header.frame_id, msg.header.stamp) == ("base_link", image(3).header.stamp)
    center = box.center.position
    assert [center.x, center.y, center.z] == pytest.approx([2, -2.4, 1 - 2.1], abs=HALF_PIXEL_M)
    assert [box.size.x, box.size.y, box.size.z] == pytest.approx([0, 6.4, 4.8], abs=HALF_PIXEL_M)
    assert len(camera.received["points"]) == 1  # which waited for no transform
    assert node.statistics[""].counts()["located"] == 1
    node.trigger_deactivate()
    node.trigger_cleanup()
    assert not tf2[0].listener.heard


@needs_vision_msgs
def test_frames_without_a_transform_are_counted_and_told_once(graph, fake_node, tf2, log):
    node = activated(fake_node(target_frame="base_link"))
    camera = seen(graph, node, SIZE)
    graph.spin_until(lambda: tf2[0].waiting, "for the node to wait for the transform")
    for count, number in enumerate((2, 1), 1):
        camera.depth.publish(depth_of(number, np.full(SIZE, 2000, np.uint16)))
        camera.send(image(number))
        await_count(graph, node, "untransformed", count)
    assert len([words for words in log if "'camera 2'" in words and "base_link" in words]) == 1
    assert camera.received["detections_3d"] == []


def test_a_target_frame_without_tf2_is_one_sentence(fake_node, monkeypatch):
    monkeypatch.setitem(sys.modules, "tf2_ros", None)
    node = fake_node(target_frame="base_link")
    assert node.trigger_configure() == FAILURE
    assert "tf2-ros-py, or leave target_frame empty" in node.health.problem
