# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The programs as processes of their own, as on a robot: player, node and recorder, on real frames."""

from __future__ import annotations

import json
import signal

import cv2
import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rt_panoptic_ros.msg import PanopticDetectionArray
from sensor_msgs.msg import Image

from rt_panoptic_ros.ros import qos
from rt_panoptic_ros.ros.conversions import image_to_msg

OUTPUTS = {"semantic": Image, "instance": Image, "detections": PanopticDetectionArray}


class Listener:
    """Collects what topics bring."""

    def __init__(self, graph, **kinds):
        self.graph = graph
        self.node = graph.node("listener")
        self.got = {}
        self.listen(**kinds)
        self.values = {}
        self.node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, qos.diagnostics())

    def listen(self, **kinds):
        for topic, kind in kinds.items():
            name = "image" if topic == "image" else f"/panoptic_node/{topic}"
            self.got[topic] = []
            self.node.create_subscription(kind, name, self.got[topic].append, qos.stream("reliable"))

    def begin_playing(self):
        """Let a player begin that waits for two subscribers: the node, and this when the node has found the player.

        Each end finds the other in its own time; what is sent until then is lost.
        """
        self.await_value("camera publishers", "1")
        self.listen(image=Image)

    def _on_diagnostics(self, message):
        for status in message.status:
            self.values = {item.key: item.value for item in status.values}

    def await_value(self, key, expected):
        self.graph.spin_until(
            lambda: self.values.get(key) == expected, f"for {key} to be {expected}:", lambda: self.values
        )


@pytest.mark.slow
def test_from_image_to_outputs_in_separate_processes(graph, programs, small_bundle, real_frames, tmp_path):
    listener = Listener(graph, **OUTPUTS)
    programs.start("panoptic_node", model=small_bundle.path, network_size="96x128", image_reliability="reliable")
    programs.start("record_outputs", out=tmp_path / "recording", silence_s=3.0)
    listener.await_value("subscribed to camera", "True")
    programs.start(
        "play_images", source=real_frames, rate_hz=3.0, frame_id="front camera", summary=tmp_path / "p.json",
        wait_for_subscribers=2,
    )  # fmt: skip
    listener.begin_playing()
    graph.spin_until(lambda: len(listener.got["image"]) == 8, "for the images")
    listener.await_value("frames received", "8")
    processed = lambda: len(listener.got["detections"]) + int(listener.values["frames dropped"])  # noqa: E731
    graph.spin_until(lambda: processed() == 8, "for the outputs")

    assert programs.wait("play_images") == 0
    assert json.loads((tmp_path / "p.json").read_text())["frames"] == 8
    assert programs.wait("record_outputs") == 0, programs.log("record_outputs")
    assert programs.stop("panoptic_node", signal.SIGTERM) == 0, programs.log("panoptic_node")

    images = {(m.header.stamp.sec, m.header.stamp.nanosec): m for m in listener.got["image"]}
    assert len(images) == 8
    by_stamp = [{(m.header.stamp.sec, m.header.stamp.nanosec): m for m in listener.got[topic]} for topic in OUTPUTS]
    assert by_stamp[0].keys() == by_stamp[1].keys() == by_stamp[2].keys() <= images.keys()
    assert by_stamp[0]
    for stamp in by_stamp[0]:
        image, (semantic, instance, detections) = images[stamp], (outputs[stamp] for outputs in by_stamp)
        assert semantic.header == instance.header == detections.header == image.header
        assert image.header.frame_id == "front camera"
        sizes = {(m.height, m.width) for m in (image, semantic, instance, detections)}
        assert sizes == {(image.height, image.width)}
        labels = np.frombuffer(instance.data, np.uint16)
        classes = np.frombuffer(semantic.data, np.uint8)
        areas = {d.instance_id: d.area for d in detections.detections}
        assert {number: np.count_nonzero(labels == number) for number in set(labels.tolist()) - {0}} == areas
        for found in detections.detections:
            assert set(classes[labels == found.instance_id]) == {found.class_id}

    summary = json.loads((tmp_path / "recording" / "summary.json").read_text())
    assert summary["frames"] == len(by_stamp[0])
    assert (summary["incomplete"], summary["ended_by"]) == (0, "silence")
    assert summary["node"]["frames received"] == "8"
    assert cv2.VideoCapture(summary["files"]["video"]).read()[0]
    assert cv2.imread(summary["files"]["contact_sheet"]) is not None


@pytest.mark.slow
@pytest.mark.parametrize("reliability", ["reliable", "best_effort"])
def test_large_frames_arrive_without_loss_with_the_shipped_profile(
    graph, programs, small_bundle, tmp_path, reliability
):
    source = tmp_path / "frames"
    source.mkdir()
    noise = np.random.default_rng(1).integers(0, 256, (64, 128, 3), dtype=np.uint8)
    for number in range(12):
        image = cv2.resize(np.roll(noise, number, 1), (2048, 1024), interpolation=cv2.INTER_NEAREST)
        cv2.imwrite(str(source / f"{number:02d}.bmp"), image)
    listener = Listener(graph)
    programs.start(
        "panoptic_node", model=small_bundle.path, network_size="64x128", image_reliability=reliability, lazy=False
    )
    listener.await_value("subscribed to camera", "True")
    # Slowly enough for a busy machine: an image that another one replaces in the middleware would not be counted.
    programs.start("play_images", source=source, rate_hz=3.0, wait_for_subscribers=2)
    listener.begin_playing()
    assert programs.wait("play_images") == 0
    assert "published 12 images" in programs.log("play_images")
    if reliability == "reliable":
        listener.await_value("frames received", "12")
    else:  # one may have taken another's place
        graph.spin_until(lambda: int(listener.values["frames received"]) >= 11, "for the frames")
    assert listener.values["frames lost"] == "0"


@pytest.mark.slow
def test_the_node_outlives_wrong_images_and_wrong_transitions(graph, programs, small_bundle):
    listener = Listener(graph, semantic=Image)
    camera = listener.node.create_publisher(Image, "image", qos.stream("reliable"))
    programs.start("panoptic_node", model=small_bundle.path, network_size="32x64", image_reliability="reliable")
    listener.await_value("subscribed to camera", "True")
    good = image_to_msg(np.zeros((32, 64, 3), np.uint8), "rgb8", Image().header)
    wrong = [Image(), Image(height=2, width=2, encoding="rgb8", step=6, data=bytes(5))]
    for encoding in ("purple7", "rgba8", "32FC3"):
        wrong.append(image_to_msg(np.zeros((4, 4, 3), np.uint8), encoding, Image().header))
    for number, image in enumerate(wrong, start=1):
        camera.publish(image)
        listener.await_value("frames refused", str(number))
    assert "frame refused: expected an image of at least 1x1 px, got height 0 and width 0" in programs.log(
        "panoptic_node"
    )

    # The state does not allow it; up to Jazzy, rclpy answers by an exception in the node.
    change = listener.node.create_client(ChangeState, "/panoptic_node/change_state")
    get = listener.node.create_client(GetState, "/panoptic_node/get_state")
    graph.spin_until(change.service_is_ready)
    graph.spin_until(get.service_is_ready)
    change.call_async(ChangeState.Request(transition=Transition(id=Transition.TRANSITION_ACTIVATE)))
    answer = get.call_async(GetState.Request())
    graph.spin_until(answer.done, "for the node's state")
    assert answer.result().current_state.label == "active"

    camera.publish(good)
    graph.spin_until(lambda: listener.got["semantic"], "for the good image's output")
    assert listener.got["semantic"][0].height == 32
    assert programs.stop("panoptic_node") == 0, programs.log("panoptic_node")


def test_a_wrong_source_ends_the_player_with_one_sentence(programs):
    programs.start("play_images", source="/nowhere/at/all.mp4")
    assert programs.wait("play_images") == 1
    assert "'/nowhere/at/all.mp4' does not exist" in programs.log("play_images")
    assert "Traceback" not in programs.log("play_images")


def test_plays_bgr_in_order_and_ends(graph, programs, tmp_path):
    for number in range(5):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.full((4, 6, 3), (number, 50, 100), np.uint8))
    listener = Listener(graph, image=Image)
    programs.start("play_images", source=tmp_path, rate_hz=50.0, encoding="bgr8")
    assert_ends(programs, "play_images")
    graph.spin_until(lambda: len(listener.got["image"]) == 5, "for the images")
    assert [bytes(m.data[:3]) for m in listener.got["image"]] == [bytes((number, 50, 100)) for number in range(5)]
    stamps = [m.header.stamp.sec * 10**9 + m.header.stamp.nanosec for m in listener.got["image"]]
    assert stamps == sorted(set(stamps))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_recorder_without_frames_still_writes_its_summary(programs, graph, tmp_path, number):
    node = graph.node("watcher")
    programs.start("record_outputs", out=tmp_path / "r", node="/somewhere/node")
    graph.spin_until(lambda: node.count_subscribers("/somewhere/node/overlay"), "for the recorder")
    assert programs.stop("record_outputs", number) == 1
    summary = json.loads((tmp_path / "r" / "summary.json").read_text())
    assert (summary["frames"], summary["ended_by"], summary["files"]) == (0, "signal", {})
    assert "no complete set" in programs.log("record_outputs")


@pytest.mark.slow
def test_a_node_that_cannot_start_waits_to_be_mended(graph, programs, small_bundle):
    listener = Listener(graph)
    programs.start("panoptic_node", model="/nowhere")
    listener.await_value("state", "unconfigured")
    assert "cannot configure: expected a model bundle" in programs.log("panoptic_node")
    assert programs.stop("panoptic_node") == 0


def assert_ends(programs, program):
    assert programs.wait(program) == 0, programs.log(program)


def test_build_only_loads_the_engine_and_ends(programs, small_bundle):
    programs.start("panoptic_node", model=small_bundle.path, network_size="64x96", build_only=True)
    assert programs.wait("panoptic_node") == 0
    log = programs.log("panoptic_node")
    assert "in float32 on cpu at 64x96, as auto chose, loading and warm-up took" in log
    programs.start("panoptic_node", model=small_bundle.path, build_only=True)
    assert programs.wait("panoptic_node") == 1
    assert "expected network_size or camera_size with build_only" in programs.log("panoptic_node")
    programs.start("panoptic_node", model=small_bundle.path, network_size="64x96", backend="tensorrt", build_only=True)
    assert programs.wait("panoptic_node") == 1
    assert "expected a CUDA GPU for the tensorrt backend" in programs.log("panoptic_node")


def test_help_is_printed_and_nothing_started(programs):
    programs.start("panoptic_node", "--help")
    assert programs.wait("panoptic_node") == 0
    assert "usage: " in programs.log("panoptic_node")
    assert "ready" not in programs.log("panoptic_node")
