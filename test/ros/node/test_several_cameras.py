# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Several cameras, one pipeline: fair turns, newest frames, and none disturbs another."""

from __future__ import annotations

import numpy as np
from node_cases import Camera, activated, counts, final_counts, picture, set_parameters, value
from rclpy.lifecycle import TransitionCallbackReturn
from sensor_msgs.msg import Image

from rt_panoptic_ros.ros.node.node_settings import Periods

CAMERAS = "front=/front/image,left=/left/image,rear=/rear/image"
NAMES = ("front", "left", "rear")


def three(graph, fake_node, **parameters):
    node = activated(fake_node(image_reliability="reliable", cameras=CAMERAS, **parameters))
    return node, {name: Camera(graph, ("semantic", "instance"), name).connected() for name in NAMES}


def first_bytes(pipeline):
    return [int(pixels.flat[0]) for pixels, _ in pipeline.seen]


def test_each_camera_has_its_own_outputs_with_its_own_headers(graph, fake_node):
    node, cameras = three(graph, fake_node)
    for number, camera in enumerate(cameras.values()):
        camera.send(picture(10 * number, size=(6, 8 + 2 * number)))
    for number, (name, camera) in enumerate(cameras.items()):
        camera.await_outputs(1)
        semantic, instance = camera.received["semantic"][0], camera.received["instance"][0]
        assert semantic.header == instance.header == picture(10 * number).header
        assert (semantic.width, set(semantic.data)) == (8 + 2 * number, {10 * number % 11})
        assert final_counts(node, name).processed == 1
    assert len(node.pipelines) == 1


def test_cameras_take_turns_with_their_newest_frames_however_fast_one_is(graph, fake_node):
    node, cameras = three(graph, fake_node)
    pipeline = node.pipelines[0]
    pipeline.gate.clear()
    cameras["front"].send(picture(0))
    graph.spin_until(lambda: pipeline.entered.acquire(blocking=False), "for the first frame")
    # While the pipeline is busy, the front camera floods and the others send two frames.
    for number in range(1, 41):
        cameras["front"].send(picture(number))
        graph.spin_until(lambda number=number: counts(node, "front").received == number + 1, "for the frame to arrive")
    for number in (1, 2):
        for base, name in ((100, "left"), (200, "rear")):
            cameras[name].send(picture(base + number))
            graph.spin_until(lambda name=name, number=number: counts(node, name).received == number, "for the frame")
    pipeline.gate.set()
    for name, outputs in (("front", 2), ("left", 1), ("rear", 1)):
        cameras[name].await_outputs(outputs)
    assert first_bytes(pipeline) == [0, 102, 202, 40]
    assert [counts(node, name).dropped for name in NAMES] == [39, 1, 1]


def test_a_camera_faster_than_the_pipeline_is_left_alone_for_a_while(graph, fake_node):
    node, cameras = three(graph, fake_node, periods=Periods(rest_s=3600.0))
    pipeline = node.pipelines[0]
    pipeline.gate.clear()
    for number in range(3):  # one is worked on, one waits, one replaces it
        cameras["front"].send(picture(number))
        graph.spin_until(lambda number=number: counts(node, "front").received == number + 1, "for the frame to arrive")
        if not number:
            graph.spin_until(lambda: pipeline.entered.acquire(blocking=False), "for the first frame")
    cameras["front"].send(picture(3), picture(4))
    for number in (1, 2):  # the others are not left alone
        cameras["rear"].send(picture(number))
        graph.spin_until(lambda number=number: counts(node, "rear").received == number, "for the other camera")
    assert counts(node, "front").received == 3
    node.streams[0].gate.open()
    graph.spin_until(lambda: counts(node, "front").received == 4, "for the next frame")
    pipeline.gate.set()
    cameras["front"].await_outputs(2)
    assert first_bytes(pipeline) == [0, 2, 4]  # 3 was never fetched


def test_a_camera_is_fetched_again_at_its_turn_however_long_it_would_be_left_alone(graph, fake_node):
    node, cameras = three(graph, fake_node, periods=Periods(rest_s=3600.0))
    pipeline, camera = node.pipelines[0], cameras["front"]
    pipeline.gate.clear()
    for number in range(3):  # one is worked on, one waits, one replaces it
        camera.send(picture(number))
        graph.spin_until(lambda number=number: counts(node, "front").received == number + 1, "for the frame to arrive")
        if not number:
            graph.spin_until(lambda: pipeline.entered.acquire(blocking=False), "for the first frame")
    pipeline.gate.set()
    camera.await_outputs(2)
    camera.send(picture(3))
    camera.await_outputs(3)
    assert first_bytes(pipeline) == [0, 2, 3]


def test_a_rate_limit_takes_the_newest_image_at_the_cameras_turn(graph, fake_node):
    node, cameras = three(graph, fake_node, max_rate_hz=0.001)
    pipeline = node.pipelines[0]
    pipeline.gate.clear()
    cameras["rear"].send(picture(0))
    graph.spin_until(lambda: pipeline.entered.acquire(blocking=False), "for the first frame")
    for number in (1, 2):
        cameras["front"].send(picture(number))
        graph.spin_until(lambda number=number: counts(node, "front").received == number, "for the frame")
    pipeline.gate.set()
    cameras["front"].await_outputs(1)
    cameras["front"].send(picture(3))
    graph.spin_until(lambda: counts(node, "front").skipped == 1, "for the rest to be skipped")
    assert first_bytes(pipeline) == [0, 2]
    assert counts(node, "front").dropped == 1


def test_a_camera_that_dies_or_sends_rubbish_leaves_the_others_alone(graph, fake_node):
    node, cameras = three(graph, fake_node)
    for number in range(3):
        cameras["left"].send(Image())
        cameras["front"].send(picture(number))
        cameras["front"].await_outputs(number + 1)
    graph.spin_until(lambda: counts(node, "left").refused == 3, "for the bad frames to be refused")
    cameras["rear"].node.destroy_publisher(cameras["rear"].publisher)
    for number in range(3, 6):
        cameras["front"].send(picture(number))
        cameras["front"].await_outputs(number + 1)
    now = final_counts(node, "front")
    assert (now.processed, now.dropped) == (6, 0)
    refused = cameras["front"].await_report(lambda status: value(status, "frames refused") == "3", index=2)
    assert refused.name == "panoptic_node: camera left"
    gone = cameras["front"].await_report(lambda status: "nobody publishes images on /rear/image" in status.message, 3)
    assert value(gone, "camera publishers") == "0"


def test_each_camera_is_received_only_while_someone_listens_to_it(graph, fake_node):
    node, cameras = three(graph, fake_node)
    for subscription in cameras["left"].subscriptions:
        cameras["left"].node.destroy_subscription(subscription)
    graph.spin_until(lambda: not cameras["left"].publisher.get_subscription_count(), "for the node to unsubscribe")
    cameras["front"].send(picture(1))
    cameras["front"].await_outputs(1)
    assert cameras["rear"].publisher.get_subscription_count() == 1
    assert counts(node, "left").received == 0


def test_every_camera_keeps_its_own_ids_and_rate(graph, fake_node):
    node, cameras = three(graph, fake_node, tracking=True, max_rate_hz=0.001)
    for number in (1, 2):
        for name in ("front", "rear"):
            cameras[name].send(picture(number))
            graph.spin_until(lambda name=name, number=number: counts(node, name).received == number, "for the frame")
            cameras[name].await_outputs(1)
    for name in ("front", "rear"):
        labels = np.frombuffer(cameras[name].received["instance"][0].data, np.uint16)
        assert set(labels) == {0, 1}
        now = final_counts(node, name)
        assert (now.processed, now.skipped) == (1, 1)


def test_the_cameras_change_while_inactive(graph, fake_node):
    node = activated(fake_node(image_reliability="reliable"))
    node.trigger_deactivate()
    assert set_parameters(node, cameras="only=/only/image").successful
    assert node.trigger_activate() == TransitionCallbackReturn.SUCCESS
    camera = Camera(graph, name="only").connected()
    camera.send(picture(3))
    camera.await_outputs(1)
    names = {publisher.topic_name for publisher in node.publishers}
    assert "/panoptic_node/only/semantic" in names
    assert "/panoptic_node/semantic" not in names
