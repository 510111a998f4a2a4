# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Signals in every state of the lifecycle, and calls that end ROS, in processes as users start them."""

from __future__ import annotations

import os
import signal

import pytest
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import GetState
from node_cases import Camera, Labelling, call, picture, requested
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import SetParametersAtomically
from std_msgs.msg import Empty

CONFIGURE, ACTIVATE, DEACTIVATE = (
    Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE, Transition.TRANSITION_DEACTIVATE,
)  # fmt: skip

HANGING = """
import pathlib, threading
from rt_panoptic_ros.inference import onnxruntime_backend

def hanging(call, file):
    def wrapper(*arguments, **options):
        if file.exists():
            file.with_suffix(".begun").touch()
            threading.Event().wait()
        return call(*arguments, **options)
    return wrapper

backend = onnxruntime_backend.OnnxRuntimeBackend
backend.__init__ = hanging(backend.__init__, pathlib.Path({file!r}))
backend.infer = hanging(backend.infer, pathlib.Path({file!r}))
"""


class Process:
    """A node's process that can be brought into any state and kept there: loading and labelling hang when told to."""

    def __init__(self, graph, programs, bundle, folder):
        self.graph, self.programs, self.bundle = graph, programs, bundle
        self.hang = folder / "hang"
        (folder / "sitecustomize.py").write_text(HANGING.format(file=str(self.hang)))
        programs.environment["PYTHONPATH"] += f"{os.pathsep}{folder}"
        self.camera = Camera(graph)

    def start(self, **parameters):
        return self.programs.start(
            "panoptic_node", model=self.bundle.path, backend="onnxruntime", network_size="32x64",
            image_reliability="reliable", **parameters,
        )  # fmt: skip

    def log(self):
        return self.programs.log("panoptic_node")

    def await_state(self, label):
        def is_there():
            answer = call(self.graph, self.camera.node, GetState, "/panoptic_node/get_state", GetState.Request())
            return answer.current_state.label == label

        self.graph.spin_until(is_there, f"for the state {label}", self.log)

    def await_hanging(self):
        self.graph.spin_until(self.hang.with_suffix(".begun").exists, "for the call that hangs")

    def bring(self, state):
        """Start a process and have it be in a state of the lifecycle, in the middle of a call that hangs if passing."""
        if state == "configuring":
            self.hang.touch()
        process = self.start(autostart=state in ("configuring", "active", "deactivating"))
        if state in ("inactive", "activating"):
            requested(self.graph, self.camera.node, CONFIGURE)
        if state == "activating":
            self.await_state("inactive")
            self.hang.touch()
            value = ParameterValue(type=ParameterType.PARAMETER_STRING, string_value="64x64")
            request = SetParametersAtomically.Request(parameters=[Parameter(name="network_size", value=value)])
            name = "/panoptic_node/set_parameters_atomically"
            assert call(self.graph, self.camera.node, SetParametersAtomically, name, request).result.successful
            requested(self.graph, self.camera.node, ACTIVATE)
        if state == "deactivating":
            self.camera.connected()
            self.hang.touch()
            self.camera.send(picture(1))
        if state in ("configuring", "activating", "deactivating"):
            self.await_hanging()
        if state == "deactivating":  # which begins when the frame at hand has ended
            requested(self.graph, self.camera.node, DEACTIVATE)
        self.await_state("active" if state == "deactivating" else state)
        return process


@pytest.fixture
def process(graph, programs, small_bundle, tmp_path):
    return Process(graph, programs, small_bundle, tmp_path)


ALL_STATES = "unconfigured", "configuring", "inactive", "activating", "active", "deactivating"


def states(*always):
    """Return all states for a test; the others of them for the long form alone."""
    marks = {state: () if state in always else pytest.mark.exhaustive for state in ALL_STATES}
    return pytest.mark.parametrize("state", [pytest.param(state, marks=marks[state]) for state in ALL_STATES])


@pytest.mark.slow
@states("deactivating")
@pytest.mark.parametrize(
    "number",
    [
        pytest.param(
            signal.SIGINT, marks=pytest.mark.fault("SIGINT, in every state", "ends with status 0, a hung call or not")
        ),
        pytest.param(signal.SIGTERM, marks=pytest.mark.fault("SIGTERM, in every state", "likewise")),
    ],
)
def test_a_process_that_is_asked_to_end_does(process, recovery, number, state):
    running = process.bring(state)
    with recovery("end"):
        running.send_signal(number)
        assert process.programs.wait("panoptic_node") == 0, process.log()
    assert "Traceback" not in process.log()


@pytest.mark.slow
@states("active")
@pytest.mark.fault(
    "SIGKILL, in every state", "a new process labels, without a person's help; WARN for 20 s: two of one name"
)
def test_a_process_begins_anew_after_one_that_was_killed(process, recovery, graph, state):
    process.bring(state)
    if state == "active":
        Labelling(graph, None, process.camera.connected()).label(picture(1))
    assert process.programs.stop("panoptic_node", signal.SIGKILL) == -signal.SIGKILL
    process.hang.unlink(missing_ok=True)
    camera = process.camera
    with recovery("result"):
        process.start()
        sent = iter(range(10_000))

        def labelled():
            camera.send(picture(next(sent) % 200))
            return camera.received["semantic"]

        camera.received["semantic"].clear()
        graph.spin_until(labelled, "for labels", process.log)
    assert process.programs.stop("panoptic_node") == 0
    assert "Traceback" not in process.log()


ENDING = """
import rclpy, rclpy.lifecycle
from std_msgs.msg import Empty

begin = rclpy.lifecycle.LifecycleNode.__init__

def __init__(node, *arguments, **options):
    begin(node, *arguments, **options)
    node.create_subscription(Empty, "/end", lambda _: {call}, 1)

rclpy.lifecycle.LifecycleNode.__init__ = __init__
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("call", "words"),
    [
        pytest.param(
            "node.executor.shutdown()", "the executor was shut down in this process",
            marks=pytest.mark.fault("executor shut down by a callback", "ends with status 1; the log says why"),
        ),
        pytest.param(
            "rclpy.shutdown()", "ROS was shut down in this process",
            marks=[
                pytest.mark.exhaustive,
                pytest.mark.fault("ROS shut down by a callback", "ends with status 1; the log says why"),
            ],
        ),
    ],
)  # fmt: skip
def test_a_callback_that_ends_ros_ends_the_process(programs, graph, recovery, tmp_path, call, words):
    (tmp_path / "sitecustomize.py").write_text(ENDING.format(call=call))
    programs.environment["PYTHONPATH"] += f"{os.pathsep}{tmp_path}"
    programs.start("panoptic_node", autostart=False)
    publisher = graph.node("ender").create_publisher(Empty, "/end", 1)
    graph.spin_until(publisher.get_subscription_count, "for the node")
    with recovery("end"):
        publisher.publish(Empty())
        assert programs.wait("panoptic_node") == 1
    log = programs.log("panoptic_node")
    assert f"ending, since a callback failed:\nRuntimeError: {words}" in log
    assert "Traceback" not in log
