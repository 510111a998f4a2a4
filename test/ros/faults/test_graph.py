# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Faults of those around the node: listeners, clients, clocks, namesakes, and what ends ROS under it."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import pytest
import rclpy
from diagnostic_msgs.msg import DiagnosticStatus
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from node_cases import (
    Camera,
    Labelling,
    activated,
    call,
    called,
    counts,
    picture,
    set_parameters,
)
from rcl_interfaces.msg import Parameter as ParameterMessage
from rcl_interfaces.msg import ParameterType, ParameterValue
from rcl_interfaces.srv import GetParameters, SetParametersAtomically
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image

from rt_panoptic_ros.ros import qos
from rt_panoptic_ros.ros.node.node_settings import Periods

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR


@pytest.fixture
def labelling(graph, fake_node):
    """A node whose pipeline computes nothing, and its camera."""
    node = activated(fake_node(image_reliability="reliable", periods=Periods(diagnostics_s=0.1)))
    return Labelling(graph, node, Camera(graph).connected())


@pytest.mark.fault("listener with a callback that never returns", "all others get every result")
def test_a_listener_that_takes_nothing_holds_nobody_up(labelling, recovery, graph):
    stuck = rclpy.create_node("stuck", context=graph.context)  # no executor runs it
    reliable = partial(QoSProfile, reliability=ReliabilityPolicy.RELIABLE)
    profiles = reliable(depth=1), reliable(history=HistoryPolicy.KEEP_ALL)
    taken = [
        stuck.create_subscription(Image, "/panoptic_node/semantic", lambda _: None, profile) for profile in profiles
    ]
    graph.spin_until(lambda: labelling.node.count_subscribers(taken[0].topic_name) == 3, "for the listeners")
    for number in range(30):
        labelling.label(picture(number, (120, 160)))
    with recovery("result"):
        labelling.label(picture(30))
    assert counts(labelling.node).failed == 0
    stuck.destroy_node()


LISTENER = """
import rclpy
from sensor_msgs.msg import Image
rclpy.init()
node = rclpy.create_node("frozen")
node.create_subscription(Image, "/panoptic_node/semantic", lambda _: None, 1)
rclpy.spin(node)
"""


@pytest.mark.fault("listener's process frozen (SIGSTOP), then killed", "all others get every result")
def test_a_frozen_listener_holds_nobody_up(labelling, recovery, graph):
    count = lambda: labelling.node.count_subscribers("/panoptic_node/semantic")  # noqa: E731
    with subprocess.Popen([sys.executable, "-c", LISTENER]) as process:
        try:
            graph.spin_until(lambda: count() == 2, "for the listener")
            labelling.label(picture(1))
            process.send_signal(signal.SIGSTOP)
            for number in range(30):
                labelling.label(picture(number, (120, 160)))
        finally:
            process.kill()
    with recovery("result"):
        labelling.label(picture(30))
    assert counts(labelling.node).failed == 0


@pytest.mark.fault("listener that comes and goes 100 times", "all others get every result; nothing of it stays")
def test_a_listener_that_comes_and_goes_leaves_nothing_behind(labelling, recovery, graph):
    def parts():
        return threading.active_count(), len(list(labelling.node.waitables)), len(list(Path("/proc/self/fd").iterdir()))

    listener, before = graph.node("listener"), parts()
    for number in range(100):
        overlay = listener.create_subscription(Image, "/panoptic_node/overlay", lambda _: None, qos.stream("reliable"))
        if number % 10 == 0:
            labelling.label(picture(number))
        listener.destroy_subscription(overlay)
    with recovery("result"):
        labelling.label(picture(100))
    assert counts(labelling.node).failed == 0
    assert parts() == before


@pytest.mark.fault("client that goes away before its answer", "the next client is answered; no callback fails")
def test_a_client_that_goes_away_is_outlived(labelling, recovery, graph):
    for name, kind, request in (
        ("get_parameters", GetParameters, GetParameters.Request(names=["model"])),
        ("change_state", ChangeState, ChangeState.Request(transition=Transition(id=200))),
    ):
        hasty = graph.node("hasty")
        called(graph, hasty, kind, f"/panoptic_node/{name}", request)
        graph.executor.remove_node(hasty)
        graph.nodes.remove(hasty)
        hasty.destroy_node()
        answer = call(graph, graph.node("patient"), kind, f"/panoptic_node/{name}", request)
        assert answer is not None
    with recovery("result"):
        labelling.label(picture(1))
    assert labelling.node.health.callback_errors == 0


@pytest.mark.fault("100 changes of parameters at once", "each is answered; images are labelled meanwhile")
def test_a_flood_of_parameters_is_answered(labelling, recovery, graph):
    client = labelling.camera.node.create_client(
        SetParametersAtomically, "/panoptic_node/set_parameters_atomically", qos_profile=QoSProfile(depth=100)
    )
    graph.spin_until(client.service_is_ready, "for the service")

    def request(value):
        content = ParameterValue(type=ParameterType.PARAMETER_DOUBLE, double_value=value)
        return SetParametersAtomically.Request(parameters=[ParameterMessage(name="mask_threshold", value=content)])

    answers = []
    for number in range(100):
        answers.append(client.call_async(request((-1.0, 0.3, 0.4, 0.5)[number % 4])))
        if number % 20 == 0:
            labelling.label(picture(number % 200))
    with recovery("result"):
        labelling.label(picture(201))
    graph.spin_until(lambda: all(answer.done() for answer in answers), "for the answers")
    assert [answer.result().result.successful for answer in answers] == [False, True, True, True] * 25
    assert labelling.node.stages.masks.mask_threshold == 0.5


@pytest.mark.fault("two nodes of one name", "labelled; WARN: give each a name of its own; ERROR after 30 s")
def test_a_namesake_is_told(labelling, recovery, graph):
    camera, words = labelling.camera, "another node has this one's name"
    namesake = rclpy.create_node("panoptic_node", context=graph.context)
    with recovery("WARN"):
        camera.await_report(lambda status: status.level == WARN and words in status.message)
    labelling.label(picture(1))
    namesake.destroy_node()
    with recovery("OK"):
        camera.await_report(lambda status: words not in status.message)
    labelling.label(picture(2))


@pytest.mark.fault(
    "simulated time that starts late, stops, jumps a day back and forth",
    "labelled all the time; until it starts, WARN: have /clock published; reports go on every second",
)
def test_images_are_labelled_whatever_simulated_time_does(labelling, recovery, graph):
    def at(day):
        message = picture(1)
        message.header.stamp.sec, message.header.stamp.nanosec = 1_700_000_000 + day * 86_400, 0
        return message

    def tick(day):
        clock.publish(Clock(clock=at(day).header.stamp))
        graph.spin_until(lambda: labelling.node.get_clock().now().to_msg() == at(day).header.stamp, "for the time")

    camera, clock = labelling.camera, labelling.camera.node.create_publisher(Clock, "/clock", 10)
    assert set_parameters(labelling.node, use_sim_time=True).successful
    graph.spin_until(clock.get_subscription_count, "for the node to follow the time")
    labelling.send_until(lambda: at(0), lambda status: status.level == WARN and "/clock" in status.message)
    tick(0)
    labelling.send_until(lambda: at(0), lambda status: status.level == OK)
    for day in (0, -1, 1, 0):  # it stands still between
        tick(day)
        labelling.label(at(day))
        camera.await_report(lambda _: True)
    with recovery("result"):
        labelling.label(at(0))
    assert set_parameters(labelling.node, use_sim_time=False).successful
    assert counts(labelling.node).failed == 0


# What ends ROS under the node ----------------------------------------------------------------------------------------


@pytest.mark.fault(
    "ROS shut down while a frame is in the works", "the frame ends, the model is freed; the process ends"
)
def test_ros_shut_down_under_a_frame(labelling, recovery, graph, capfd):
    node, pipeline = labelling.node, labelling.node.pipelines[0]
    pipeline.gate.clear()
    labelling.camera.send(picture(1))
    graph.spin_until(lambda: pipeline.entered.acquire(blocking=False), "for the frame")
    with recovery("end"):
        graph.context.shutdown()
        pipeline.gate.set()
        assert node.finish() == 0
    assert pipeline.closed
    assert not node.cut_off
