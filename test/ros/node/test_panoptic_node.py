# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The lifecycle node in this process, around a pipeline that computes nothing."""

from __future__ import annotations

import json
import re
import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import rclpy
from conftest import ROOT
from diagnostic_msgs.msg import DiagnosticStatus
from lifecycle_msgs.msg import Transition
from node_cases import (
    FAILURE,
    SUCCESS,
    TIMEOUT_S,
    Camera,
    activated,
    call,
    compressed_picture,
    counts,
    final_counts,
    picture,
    requested,
    set_parameters,
    value,
)  # fmt: skip
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header, String
from std_srvs.srv import SetBool, Trigger

from rt_panoptic_ros.drawing.palettes import recolored
from rt_panoptic_ros.errors import UnavailableError
from rt_panoptic_ros.frames.message_layout import decode_image
from rt_panoptic_ros.inference.engine_cache import EngineIdentity, cached_engine
from rt_panoptic_ros.ros import qos
from rt_panoptic_ros.ros.conversions import image_to_msg
from rt_panoptic_ros.ros.node.camera_stream import ArrivedImage
from rt_panoptic_ros.ros.node.node_settings import Periods
from rt_panoptic_ros.ros.node.transitions import state_of as state
from rt_panoptic_ros.settings import PALETTES


def test_every_output_has_the_images_header_bit_for_bit(graph, fake_node):
    node = activated(fake_node(image_reliability="reliable"))
    topics = "semantic", "instance", "detections", "confidence", "overlay"
    camera = Camera(graph, topics).connected()
    for number in (3, 200):
        camera.send(picture(number))
        camera.await_outputs(1)
        sent = picture(number)
        semantic, instance, detections, confidence, overlay = (camera.received[topic].pop() for topic in topics)
        for output in (semantic, instance, detections, confidence, overlay):
            assert output.header == sent.header
        assert set(semantic.data) == {number % 11}
        assert (confidence.encoding, set(confidence.data)) == ("mono8", {255 - number % 11})
        labels = np.frombuffer(instance.data, np.uint16).reshape(6, 8)
        assert np.array_equal(labels, np.tile([1] * 4 + [0] * 4, (6, 1)))
        assert (semantic.encoding, instance.encoding, overlay.encoding) == ("mono8", "mono16", "rgb8")
        assert (detections.height, detections.width, len(detections.detections)) == (6, 8, 1)
        assert decode_image(overlay).pixels.shape == (6, 8, 3)
    assert final_counts(node).processed == 2


def test_outputs_without_a_listener_are_not_built(graph, fake_node):
    node = activated(fake_node(image_reliability="reliable"))
    # Of such an instance image, neither its own message nor an overlay can be made.
    pipeline = node.pipelines[0]
    labelled = pipeline.label
    pipeline.label = lambda pixels: replace(labelled(pixels), instance=None)
    camera = Camera(graph, ("semantic", "detections")).connected()
    camera.send(picture(1))
    camera.await_outputs(1)
    now = final_counts(node)
    assert (now.processed, now.failed) == (1, 0)
    assert pipeline.asked == [{"semantic"}]
    subscription = camera.node.create_subscription(Image, "/panoptic_node/overlay", lambda _: None, 1)
    graph.spin_until(lambda: node.count_subscribers(subscription.topic_name), "for the listener")
    camera.send(picture(2))
    graph.spin_until(lambda: counts(node).failed, "for the overlay, which can't be made")


def test_class_names_reach_late_subscribers(graph, fake_node):
    activated(fake_node())
    got = []
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    graph.node("planner").create_subscription(String, "/panoptic_node/class_names", got.append, latched)
    graph.spin_until(lambda: got, "for the class names")
    assert '"pedestrian"' in got[0].data


def test_ten_lifecycles_leave_nothing_behind(graph, fake_node):
    node = fake_node(image_reliability="reliable")
    camera = Camera(graph)
    seen = []
    for number in range(10):
        activated(node)
        camera.connected()
        camera.send(picture(number))
        camera.await_outputs(number + 1)
        assert node.trigger_deactivate() == SUCCESS
        assert node.trigger_cleanup() == SUCCESS
        graph.spin_until(lambda: not camera.publisher.get_subscription_count(), "for the node to unsubscribe")
        seen.append(
            (
                threading.active_count(),
                sorted(publisher.topic_name for publisher in node.publishers),
                sorted(subscription.topic_name for subscription in node.subscriptions),
                len(list(node.timers)),
                len(list(node.waitables)),
                len(node._managed_entities),
            )
        )
        assert state(node) == "unconfigured"
    assert all(entry == seen[0] for entry in seen)
    assert [pipeline.closed for pipeline in node.pipelines] == [True] * 10


def test_reactivation_keeps_the_model(graph, fake_node):
    node = activated(fake_node())
    for _ in range(3):
        assert node.trigger_deactivate() == SUCCESS
        assert node.trigger_activate() == SUCCESS
    assert len(node.pipelines) == 1


def test_a_bad_model_fails_configure_with_the_reason_and_can_be_mended(graph, fake_node):
    node = fake_node(model="missing")
    assert node.trigger_configure() == FAILURE
    assert state(node) == "unconfigured"
    status = Camera(graph, ()).await_report(lambda status: status.level == DiagnosticStatus.ERROR)
    assert "cannot configure: expected a model bundle at 'missing'" in status.message
    assert set_parameters(node, model="mended").successful
    activated(node)
    assert node.pipelines[-1].model == "mended"


def test_what_configuring_builds_is_told_on_diagnostics(graph, fake_node, tmp_path):
    seen = threading.Event()

    def build(progress):
        for share in (0.4, 0.8):
            progress(share)
        assert seen.wait(TIMEOUT_S)
        return b"engine"

    def prepare(camera_size):
        identity = EngineIdentity("fake", "0", "64x96", "float16", "tensorrt", "10.3", "GPU", "8.9", "")
        cached_engine(identity, build, tmp_path)

    fake_node(on_open=lambda pipeline: setattr(pipeline, "prepare", prepare))
    camera = Camera(graph, ())
    camera.await_report(lambda status: status.message == "unconfigured")
    answer = requested(graph, camera.node, Transition.TRANSITION_CONFIGURE)
    status = camera.await_report(lambda status: status.message.endswith("80 %"))
    seen.set()
    graph.spin_until(answer.done, "for configure's answer")
    assert answer.result().success
    assert status.message == "building the tensorrt engine of fake at 64x96 in float16: 80 %"
    assert status.level == DiagnosticStatus.WARN
    camera.await_report(lambda status: status.message == "inactive")


def test_no_model_says_so(fake_node):
    node = fake_node(model="")
    assert node.trigger_configure() == FAILURE
    assert "expected the parameter model" in node.health.problem


def test_an_unexpected_error_while_configuring_leaves_the_node_usable(fake_node):
    errors = [ZeroDivisionError("surprise")]

    def prepare(_camera_size):
        if errors:
            raise errors.pop()

    node = fake_node(on_open=lambda pipeline: setattr(pipeline, "prepare", prepare))
    assert node.trigger_configure() == TransitionCallbackReturn.ERROR
    assert state(node) == "unconfigured"
    assert node.pipelines[-1].closed
    activated(node)


def test_start_honours_autostart(graph, fake_node):
    node = fake_node()
    node.start()
    graph.spin_until(lambda: state(node) == "active", "for the node to start")


def test_start_leaves_the_lifecycle_to_others(graph, fake_node):
    node = fake_node(autostart=False)
    node.start()
    assert state(node) == "unconfigured"
    answer = requested(graph, graph.node("manager"), Transition.TRANSITION_CONFIGURE)
    graph.spin_until(answer.done, "for configure's answer")
    assert answer.result().success  # so nothing was done before it
    assert state(node) == "inactive"


def test_the_newest_frame_wins(graph, fake_node):
    node = activated(fake_node(image_reliability="reliable"))
    camera = Camera(graph).connected()
    pipeline = node.pipelines[0]
    pipeline.gate.clear()
    camera.send(picture(1))
    graph.spin_until(lambda: pipeline.entered.acquire(blocking=False), "for the first frame")
    # The executor goes on while the pipeline is busy.
    for number in (2, 3, 4):
        camera.send(picture(number))
        graph.spin_until(lambda number=number: counts(node).received == number, "for the frame to arrive")
    pipeline.gate.set()
    camera.await_outputs(2)
    assert [int(pixels[0, 0, 0]) for pixels, _ in pipeline.seen] == [1, 4]
    now = final_counts(node)
    assert (now.received, now.processed, now.dropped) == (4, 2, 2)


class Backlog:
    """Sends images to a node whose executor does not run meanwhile, and knows when they have reached the middleware."""

    def __init__(self, graph, kind, topic, reliability):
        self.graph, self.kind = graph, kind
        node = graph.node("camera")
        self.publisher = node.create_publisher(kind, topic, qos.stream(reliability))
        graph.spin_until(self.publisher.get_subscription_count, "for the node to subscribe")
        # Created after the node's, so served after it; of a node that no executor runs.
        self.witness_node = rclpy.create_node("witness", context=graph.context)
        self.witness = self.witness_node.create_subscription(kind, topic, lambda _: None, qos.stream("best_effort"))
        graph.spin_until(lambda: self.publisher.get_subscription_count() == 2, "for the witness")

    def send(self, *numbers):
        for number in numbers:
            message = picture(number) if self.kind is Image else compressed_picture(number)
            self.publisher.publish(message)
        deadline_s = time.monotonic() + TIMEOUT_S
        seen = None
        while seen is None or seen[0].header != message.header:
            assert time.monotonic() < deadline_s
            with self.witness.handle:
                seen = self.witness.handle.take_message(self.kind, False)

    def close(self):
        self.witness_node.destroy_node()


@pytest.fixture(params=["raw", "compressed"])
def backlog(graph, fake_node, request):
    """A node that labels image 0, for as long as its pipeline's gate is closed, and its camera."""

    def make(reliability):
        node = activated(fake_node(image_reliability=reliability, image_transport=request.param, lazy=False))
        node.pipelines[0].gate.clear()
        kind, topic = (Image, "image") if request.param == "raw" else (CompressedImage, "image/compressed")
        camera = Backlog(graph, kind, topic, reliability)
        request.addfinalizer(camera.close)
        camera.send(0)
        graph.spin_until(lambda: node.pipelines[0].entered.acquire(blocking=False), "for the first frame")
        return node, camera

    return make


@pytest.mark.parametrize("reliability", ["reliable", "best_effort"])
def test_of_a_backlog_only_the_newest_is_labelled(graph, backlog, reliability):
    """The executor is late: nothing was fetched while the pipeline was busy."""
    node, camera = backlog(reliability)
    camera.send(*range(1, 10))
    node.pipelines[0].gate.set()
    graph.spin_until(lambda: counts(node).processed == 2, "for the newest")
    camera.send(10)
    graph.spin_until(lambda: counts(node).processed == 3, "for the next")
    assert [int(pixels[0, 0, 0]) for pixels, _ in node.pipelines[0].seen] == [0, 9, 10]
    assert (counts(node).received, counts(node).lost) == (3, 0)


@pytest.mark.parametrize("reliability", ["reliable", "best_effort"])
def test_an_image_that_waits_is_no_longer_the_newest_at_its_turn(graph, backlog, reliability):
    """The camera is faster than the pipeline, so for a while the executor does not fetch its images."""
    node, camera = backlog(reliability)
    for number in (1, 2):
        camera.send(number)
        graph.spin_until(lambda number=number: counts(node).received == number + 1, "for the frame to arrive")
    camera.send(*range(3, 10))
    node.pipelines[0].gate.set()
    assert node.pipelines[0].entered.acquire(timeout=TIMEOUT_S)  # the executor does not run
    graph.spin_until(lambda: counts(node).processed == 2, "for the newest")
    assert [int(pixels[0, 0, 0]) for pixels, _ in node.pipelines[0].seen] == [0, 9]
    now = counts(node)
    assert (now.received, now.processed, now.dropped, now.lost) == (4, 2, 2, 0)


def test_a_subscription_that_ends_at_this_moment_has_no_newest_image(graph, fake_node):
    node = activated(fake_node(lazy=False))
    stream = node.streams[0]
    stream.gate.close()
    # As another thread does, while this one still sees it:
    node.destroy_subscription(next(one for one in node.subscriptions if one.topic_name == "/image"))
    stream.gate.destroy()
    assert stream.subscribed
    waiting = ArrivedImage(stream, picture(1), 0.0)
    assert stream.newest(waiting) is waiting
    stream.gate.close()
    stream.gate.open()


def test_deactivating_finishes_the_frame_at_hand(graph, fake_node):
    node = activated(fake_node(image_reliability="reliable"))
    camera = Camera(graph).connected()
    pipeline = node.pipelines[0]
    pipeline.gate.clear()
    camera.send(picture(1))
    graph.spin_until(lambda: pipeline.entered.acquire(blocking=False), "for the frame")
    stopper = threading.Thread(target=node.trigger_deactivate)
    stopper.start()
    pipeline.gate.set()
    stopper.join(TIMEOUT_S)
    assert (state(node), counts(node).processed) == ("inactive", 1)
    camera.await_outputs(1)


@pytest.mark.parametrize("bad", [picture(1, encoding="purple7"), picture(1, encoding="rgba8"), Image()])
def test_refuses_an_unfit_image_and_lives_on(graph, fake_node, bad):
    node = activated(fake_node(image_reliability="reliable"))
    camera = Camera(graph).connected()
    good = picture(5)
    for message in (bad, good):
        message.header.stamp = camera.node.get_clock().now().to_msg()
    camera.send(bad)
    camera.await_report(lambda status: status.level == DiagnosticStatus.WARN and "1 frames refused" in status.message)
    camera.send(good)
    camera.await_outputs(1)
    status = camera.await_report(lambda status: status.level == DiagnosticStatus.OK)
    assert (value(status, "frames refused"), value(status, "frames processed")) == ("1", "1")
    assert state(node) == "active"


@pytest.mark.parametrize("error", [ZeroDivisionError("surprise"), UnavailableError("expected a GPU, found none")])
def test_an_error_in_the_pipeline_is_reported_and_the_next_frame_processed(graph, fake_node, error):
    node = activated(fake_node(image_reliability="reliable"))
    camera = Camera(graph).connected()
    node.pipelines[0].error = error
    camera.send(picture(1))
    surprise = isinstance(error, ZeroDivisionError)
    level = DiagnosticStatus.ERROR if surprise else DiagnosticStatus.WARN
    camera.await_report(lambda status: status.level == level and "1 frames" in status.message)
    camera.send(picture(2))
    camera.await_outputs(1)
    now = final_counts(node)
    assert (now.failed, now.refused, now.processed) == (surprise, not surprise, 1)


def test_receives_images_only_while_someone_listens(graph, fake_node):
    activated(fake_node())
    camera = Camera(graph, ())
    listener = graph.node("listener")
    status = camera.await_report(lambda status: value(status, "state") == "active")
    assert status.message == "waiting for a subscriber"
    status = camera.await_report(lambda status: value(status, "subscribed to camera") == "False", index=1)
    assert (status.name, value(status, "topic")) == ("panoptic_node: camera", "/image")
    for _ in range(2):
        subscription = listener.create_subscription(
            Image, "/panoptic_node/overlay", lambda _: None, qos.stream("reliable")
        )
        camera.connected()
        listener.destroy_subscription(subscription)
        graph.spin_until(lambda: not camera.publisher.get_subscription_count(), "for the node to unsubscribe")


def test_lazy_can_be_turned_off_while_active(graph, fake_node):
    node = activated(fake_node(image_reliability="reliable"))
    camera = Camera(graph, ())
    assert set_parameters(node, lazy=False).successful
    camera.connected()
    camera.send(picture(1))
    graph.spin_until(lambda: counts(node).processed == 1, "for the frame")


def test_a_rate_limit_skips_frames(graph, fake_node):
    node = activated(fake_node(image_reliability="reliable", max_rate_hz=0.001))
    camera = Camera(graph).connected()
    for number in (1, 2, 3):
        camera.send(picture(number))
        graph.spin_until(lambda number=number: counts(node).received == number, "for the frame to arrive")
        camera.await_outputs(1)  # while it waits, the first would give way to newer ones
    now = final_counts(node)
    assert (now.processed, now.skipped) == (1, 2)


def test_names_the_remedy_once_when_frames_are_lost(graph, fake_node, capfd):
    node = activated(fake_node())
    Camera(graph).connected()

    for _ in range(2):
        node.streams[0].notice_loss(SimpleNamespace(total_count=5, total_count_change=2))
    assert counts(node).lost == 4
    output = "".join(capfd.readouterr())
    assert output.count("FASTRTPS_DEFAULT_PROFILES_FILE") == 1
    assert "fastdds_large_images.xml" in output


def test_names_the_remedy_when_nothing_arrives(graph, fake_node, capfd):
    node = activated(fake_node(periods=Periods(silence_s=0.0)))
    camera = Camera(graph).connected()
    graph.spin_until(node.streams[0].publishers, "for the camera to be seen")
    camera.await_report(lambda status: value(status, "camera publishers") == "1", index=1)
    assert "no image arrived within" in "".join(capfd.readouterr())


def test_compressed_images_are_decoded_and_broken_ones_skipped(graph, fake_node):
    camera = Camera(graph)
    publisher = camera.node.create_publisher(CompressedImage, "image/compressed", qos.stream("reliable"))
    node = activated(fake_node(image_transport="compressed"))
    graph.spin_until(publisher.get_subscription_count, "for the node to subscribe")
    whole = compressed_picture(7, (16, 24))
    publisher.publish(CompressedImage(header=picture(6).header, format="png", data=whole.data[:40]))
    graph.spin_until(lambda: counts(node).refused == 1, "for the broken frame to be refused")
    publisher.publish(whole)
    camera.await_outputs(1)
    assert camera.received["semantic"][0].header == whole.header
    np.testing.assert_array_equal(node.pipelines[0].seen[0][0], np.full((16, 24, 3), 7, np.uint8))
    assert final_counts(node).processed == 1


def test_ids_stay_with_tracking_until_they_are_reset(graph, fake_node):
    node = activated(fake_node(image_reliability="reliable", tracking=True))

    pipeline = node.pipelines[0]
    labelled = pipeline.label

    def on_either_side(pixels):
        """Put the one object on the right where the image is bright."""
        result = labelled(pixels)
        if pixels[0, 0, 0] < 100:
            return result
        table = replace(result.detections, mask_boxes=np.array([[4, 0, 7, 5]], np.int32))
        return replace(result, instance=np.ascontiguousarray(result.instance[:, ::-1]), detections=table)

    pipeline.label = on_either_side
    camera = Camera(graph, ("instance", "detections", "overlay")).connected()
    stamps = iter(range(10, 100))

    def ids_of(*sides, stamp=None):
        """Send an image for each side and return the object's ids."""
        ids = []
        for side in sides:
            header = Header(frame_id="front")
            header.stamp.sec = next(stamps) if stamp is None else stamp
            pixels = np.full((6, 8, 3), {"left": 0, "right": 200}[side], np.uint8)
            for got in camera.received.values():
                got.clear()
            camera.send(image_to_msg(pixels, "rgb8", header))
            camera.await_outputs(1)
            (entry,) = camera.received["detections"][0].detections
            assert set(camera.received["instance"][0].data) - {0} == {entry.instance_id}
            ids.append(entry.instance_id)
        return ids

    assert ids_of("left", "left", "right", "left", "right") == [1, 1, 2, 1, 2]
    assert call(graph, camera.node, Trigger, "/panoptic_node/reset_tracking", Trigger.Request()).success
    assert ids_of("right", "left") == [1, 2]
    assert set_parameters(node, tracking=False).successful
    assert ids_of("left") == [1]
    assert set_parameters(node, tracking=True).successful
    assert ids_of("right", "left") == [1, 2]
    assert ids_of("left", stamp=1) == [1]  # a bag that begins again


def test_the_class_filter_changes_between_frames_and_refuses_unknown_names(graph, fake_node):
    node = activated(fake_node(image_reliability="reliable"))
    camera = Camera(graph, ("instance", "detections", "semantic")).connected()

    def objects_of(number):
        for got in camera.received.values():
            got.clear()
        camera.send(picture(number))
        camera.await_outputs(1)
        assert set(camera.received["semantic"][0].data) == {number}
        return len(camera.received["detections"][0].detections), max(camera.received["instance"][0].data)

    thing = node.pipelines[0].classes.names[8]  # the class of every object of the fake
    assert objects_of(1) == (1, 1)
    assert set_parameters(node, object_classes=f"{thing}, pedestrian").successful
    assert objects_of(2) == (1, 1)
    assert set_parameters(node, object_classes="pedestrian").successful
    assert objects_of(3) == (0, 0)
    refused = set_parameters(node, object_classes="pedestrian,unicorn")
    assert not refused.successful
    assert "got 'unicorn'" in refused.reason
    assert node.settings.object_classes == "pedestrian"
    assert set_parameters(node, object_classes="").successful
    assert objects_of(4) == (1, 1)


def test_groups_sizes_and_masks_follow_at_once(graph, fake_node, tmp_path):
    groups = tmp_path / "groups.yaml"
    groups.write_text(
        "{name: groups, void: 0, unlisted: drop, classes: {"
        "open: {id: 40, thing: false, color: [1, 2, 3], of: [sky, road]}, "
        "mover: {id: 7, thing: true, color: [4, 5, 6], of: [car]}}}"
    )
    node = activated(fake_node(image_reliability="reliable", label_map=str(groups), mask_classes="open"))
    outputs = ("semantic", "panoptic", "mask", "semantic_color", "detections")
    camera = Camera(graph, outputs).connected()
    spaces, latched = [], QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    camera.node.create_subscription(String, "/panoptic_node/label_space", spaces.append, latched)
    graph.spin_until(lambda: spaces, "for the latched label space")
    assert "label: 40" in spaces[0].data

    def shown(number):
        for got in camera.received.values():
            got.clear()
        camera.send(picture(number))
        camera.await_outputs(1)
        parts = {name: got[0] for name, got in camera.received.items()}
        assert all(message.header == picture(number).header for message in parts.values())
        assert len({(message.height, message.width) for message in parts.values()}) == 1
        return parts

    parts = shown(0)  # all of the fake's pixels are sky, and its object is a car
    assert (parts["semantic"].height, set(parts["semantic"].data), set(parts["mask"].data)) == (6, {40}, {255})
    assert set(np.frombuffer(parts["panoptic"].data, np.int32)) == {40, 1 << 16 | 40}
    assert parts["semantic_color"].data[:3].tolist() == [1, 2, 3]
    (entry,) = parts["detections"].detections
    assert (entry.class_id, entry.class_name, entry.area) == (7, "mover", 24)
    assert set_parameters(node, output_size="3x4", mask_classes="").successful
    parts = shown(5)  # of no group
    assert (parts["semantic"].height, set(parts["semantic"].data), set(parts["mask"].data)) == (3, {0}, {0})
    assert set(np.frombuffer(parts["panoptic"].data, np.int32)) == {0, 1 << 16}
    assert parts["detections"].detections[0].area == 6
    assert set_parameters(node, mask_classes="car").reason.startswith(
        "expected mask_classes to be names of classes (open"
    )


def test_the_palette_changes_between_frames_and_the_class_table_does_not(graph, fake_node):
    node = activated(fake_node(image_reliability="reliable"))
    camera = Camera(graph, ("overlay",)).connected()
    tables = []
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    graph.node("planner").create_subscription(String, "/panoptic_node/class_names", tables.append, latched)

    def color():
        """Of a pixel without an object: class 0 over a black image."""
        camera.received["overlay"].clear()
        camera.send(picture(0))
        camera.await_outputs(1)
        return decode_image(camera.received["overlay"][0]).pixels[5, 7].tolist()

    classes = node.pipelines[0].classes
    expected = {
        palette: [round(0.5 * channel) for channel in recolored(classes, palette).classes[0].color]
        for palette in PALETTES
    }
    assert expected["dataset"] != expected["colorblind"]
    for palette in (*PALETTES, PALETTES[0]):
        assert set_parameters(node, palette=palette).successful
        assert color() == expected[palette]
    refused = set_parameters(node, palette="rainbow")
    assert not refused.successful
    assert "dataset, colorblind" in refused.reason
    graph.spin_until(lambda: tables, "for the class names")
    assert [json.loads(message.data) for message in tables] == [classes.to_document()]


def test_what_the_foxglove_layout_plots_is_on_diagnostics(graph, fake_node):
    activated(fake_node(image_reliability="reliable"))
    camera = Camera(graph).connected()
    camera.send(picture(1))
    camera.await_outputs(1)
    status = camera.await_report(lambda status: value(status, "frames processed") == "1")
    panels = json.loads((ROOT / "config" / "panoptic_foxglove.json").read_text())["configById"]
    health = panels["DiagnosticStatusPanel!health"]
    assert (health["selectedName"], health["selectedHardwareId"]) == (status.name, status.hardware_id)
    form = r'/diagnostics\.status\[:\]\{name=="(.+)"\}\.values\[:\]\{key=="(.+)"\}\.value'
    of_camera = camera.await_report(lambda status: value(status, "frames processed") == "1", index=1)
    plotted = {entry.name: entry for entry in (status, of_camera)}
    for line in panels["Plot!latency"]["paths"]:
        name, key = re.fullmatch(form, line["value"]).groups()
        assert float(value(plotted[name], key)) >= 0


def test_a_class_that_the_model_lacks_fails_configure(fake_node):
    node = fake_node(object_classes="unicorn")
    assert node.trigger_configure() == FAILURE
    assert "got 'unicorn'" in node.health.problem


def test_outputs_can_be_disabled_while_frames_flow(graph, fake_node):
    node = activated(fake_node(image_reliability="reliable"))
    camera = Camera(graph, ("semantic", "instance")).connected()
    camera.send(picture(1))
    camera.await_outputs(1)
    assert set_parameters(node, enabled_outputs="semantic").successful
    camera.send(picture(2))
    graph.spin_until(lambda: len(camera.received["semantic"]) == 2, "for the enabled output")
    assert set_parameters(node, enabled_outputs="instance, semantic").successful
    camera.send(picture(3))
    graph.spin_until(lambda: len(camera.received["instance"]) == 2, "for the output enabled again")
    assert [message.header for message in camera.received["instance"]] == [picture(1).header, picture(3).header]
    assert set_parameters(node, enabled_outputs="").successful
    graph.spin_until(lambda: not camera.publisher.get_subscription_count(), "for the node to unsubscribe")


def test_the_enable_service_pauses_and_resumes(graph, fake_node):
    node = activated(fake_node(image_reliability="reliable"))
    camera = Camera(graph).connected()
    for _ in range(2):
        assert call(graph, camera.node, SetBool, "/panoptic_node/enable", SetBool.Request(data=False)).success
        graph.spin_until(lambda: not camera.publisher.get_subscription_count(), "for the node to unsubscribe")
        camera.await_report(lambda status: status.message == "disabled by the service ~/enable")
        assert state(node) == "active"
        assert call(graph, camera.node, SetBool, "/panoptic_node/enable", SetBool.Request(data=True)).success
        camera.connected()
    camera.send(picture(1))
    camera.await_outputs(1)
    assert len(node.pipelines) == 1


def test_parameters_set_together_change_between_the_same_frames(graph, fake_node):
    """While images flow, two parameters that are set together are never seen one without the other."""
    node = activated(fake_node(image_reliability="reliable"))
    camera = Camera(graph, ("detections",)).connected()
    pipeline = node.pipelines[0]
    thing = pipeline.classes.names[8]  # the class of every object of the fake
    for number in range(40):
        values = [(0.25, thing), (0.75, "pedestrian")][number % 2]
        camera.send(picture(number))
        assert set_parameters(node, score_threshold=values[0], object_classes=values[1]).successful
        camera.await_outputs(number + 1)
    thresholds = [settings.masks.score_threshold for _, settings in pipeline.seen]
    objects = [len(array.detections) for array in camera.received["detections"]]
    assert set(thresholds[1:]) == {0.25, 0.75}
    assert all(count == (threshold != 0.75) for threshold, count in zip(thresholds, objects, strict=True))
