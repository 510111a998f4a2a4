# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Transitions of the node: what it answers while it loads, refuses, and gives up when it is told to end."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import threading
import time
import weakref

import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from node_cases import (
    FAILURE,
    SUCCESS,
    TIMEOUT_S,
    Camera,
    activated,
    call,
    counts,
    picture,
    requested,
    set_parameters,
    value,
)
from rcl_interfaces.srv import GetParameters
from rclpy.waitable import NumberOfEntities, Waitable
from std_srvs.srv import SetBool

from rt_panoptic_ros.ros.node.transitions import state_of as state
from rt_panoptic_ros.ros.spinning import spin


class SlowLoading:
    """Holds a node that opens a pipeline until it is let go."""

    def __init__(self):
        self.begun, self.go = threading.Event(), threading.Event()

    def __call__(self, _pipeline):
        self.begun.set()
        assert self.go.wait(TIMEOUT_S)


@pytest.fixture
def asker(graph):
    return graph.node("asker")


def test_services_answer_while_the_model_loads(graph, fake_node, asker):
    loading = SlowLoading()
    node = fake_node(on_open=loading)
    camera = Camera(graph, ())
    configured = requested(graph, asker, Transition.TRANSITION_CONFIGURE)
    graph.spin_until(loading.begun.is_set, "for loading to begin")
    activated_too = requested(graph, asker, Transition.TRANSITION_ACTIVATE)

    asked = call(graph, asker, GetState, "/panoptic_node/get_state", GetState.Request())
    assert asked.current_state.label == "configuring"
    values = call(
        graph, asker, GetParameters, "/panoptic_node/get_parameters", GetParameters.Request(names=["model"])
    ).values
    assert values[0].string_value == "fake"
    assert set_parameters(node, mask_threshold=0.65).successful
    assert call(graph, asker, SetBool, "/panoptic_node/enable", SetBool.Request(data=True)).success
    status = camera.await_report(lambda status: status.message == "loading fake")
    assert status.level == DiagnosticStatus.WARN
    assert not configured.done()

    loading.go.set()
    graph.spin_until(lambda: configured.done() and activated_too.done(), "for the transitions")
    assert (configured.result().success, activated_too.result().success) == (True, True)
    assert state(node) == "active"
    assert node.stages.masks.mask_threshold == 0.65  # set while it loaded


@pytest.mark.parametrize(
    "forbidden",
    [Transition.TRANSITION_ACTIVATE, Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_CLEANUP, 200],
)
def test_a_transition_that_the_state_forbids_is_answered(graph, fake_node, asker, forbidden):
    node = fake_node()
    answer = requested(graph, asker, forbidden)
    graph.spin_until(answer.done, "for the refusal")
    assert not answer.result().success
    assert state(node) == "unconfigured"
    activated(node)


def test_a_transition_of_an_unknown_label_is_answered(graph, fake_node, asker):
    fake_node()
    request = ChangeState.Request(transition=Transition(label="levitate"))
    assert not call(graph, asker, ChangeState, "/panoptic_node/change_state", request).success


def test_told_to_end_while_it_loads_the_node_never_activates(graph, fake_node):
    loading = SlowLoading()
    node = fake_node(on_open=loading)
    node.start()
    assert loading.begun.wait(TIMEOUT_S)
    ending = threading.Thread(target=node.finish)
    ending.start()
    graph.spin_until(node.ending.is_set, "for the node to be told")
    loading.go.set()
    ending.join(TIMEOUT_S)
    graph.spin_until(lambda: state(node) == "finalized", "for the node to end")
    assert not node.health.active
    assert all(pipeline.closed for pipeline in node.pipelines)


def test_a_call_that_cannot_be_interrupted_is_told_and_not_waited_for(graph, fake_node, capfd):
    loading = SlowLoading()
    node = fake_node(on_open=loading)
    node.start()
    assert loading.begun.wait(TIMEOUT_S)
    assert node.finish() == 0
    assert node.cut_off
    said = "".join(capfd.readouterr())
    assert "ending: waiting for loading fake" in said
    assert "ended without waiting any longer" in said
    loading.go.set()
    graph.spin_until(lambda: not node.cut_off, "for the call to end")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_process_in_the_middle_of_a_call_that_blocks(graph, programs, small_bundle, tmp_path, number):
    """Weights are read from a pipe that nobody writes to, so that reading them never ends."""
    weights = tmp_path / "weights"
    os.mkfifo(weights)
    (tmp_path / "sitecustomize.py").write_text(
        f"import safetensors.numpy\nsafetensors.numpy.load = lambda _: open({str(weights)!r}).read()\n"
    )
    programs.environment["PYTHONPATH"] += f"{os.pathsep}{tmp_path}"
    programs.environment["XDG_CACHE_HOME"] = str(tmp_path)  # where no graph is that would do without the weights
    programs.start("panoptic_node", model=small_bundle.path, network_size="32x64")
    pipe = []

    def being_read():
        with contextlib.suppress(OSError):  # ENXIO until somebody reads
            pipe.append(os.open(weights, os.O_WRONLY | os.O_NONBLOCK))
        return pipe

    graph.spin_until(being_read, "for the node to read the weights")
    try:
        assert programs.stop("panoptic_node", number) == 0
    finally:
        os.close(pipe[0])
    log = programs.log("panoptic_node")
    assert "ending: waiting for opening the model" in log
    assert "ended without waiting any longer" in log
    assert "active" not in log
    assert "Traceback" not in log


@pytest.mark.parametrize("cameras", ["front=/a/1b", "front=/a/b__,rear=/c/2", "front=image,rear=/image"])
def test_cameras_that_ros_cannot_have_are_refused_by_configure(graph, fake_node, cameras):
    node = fake_node(cameras=cameras, autostart=False)
    assert node.trigger_configure() == FAILURE
    camera = Camera(graph, ())
    status = camera.await_report(lambda status: status.level == DiagnosticStatus.ERROR)
    assert "cannot configure: expected" in status.message
    assert set_parameters(node, cameras="front=/front/image").successful
    activated(node)
    camera.await_report(lambda status: status.message == "waiting for a subscriber")


def test_a_finalized_node_says_so(graph, fake_node, asker):
    node = activated(fake_node())
    answer = requested(graph, asker, Transition.TRANSITION_ACTIVE_SHUTDOWN)
    graph.spin_until(answer.done, "for the answer")
    assert answer.result().success
    status = Camera(graph, ()).await_report(lambda status: "finalized" in status.message)
    assert {item.key: item.value for item in status.values}["state"] == "finalized"
    assert node.pipelines[0].closed
    refused = requested(graph, asker, Transition.TRANSITION_CONFIGURE)
    graph.spin_until(refused.done, "for the refusal")
    assert not refused.result().success


def test_an_image_that_arrives_while_the_node_is_deactivated_is_counted(graph, fake_node):
    node = activated(fake_node(image_reliability="reliable"))
    camera = Camera(graph).connected()
    stream = node.streams[0]
    assert node.trigger_deactivate() == SUCCESS
    stream.receive(picture(1), {"source_timestamp": 0})  # as the executor does with an image that it had taken before
    graph.spin_until(lambda: counts(node).dropped, "for its turn")
    assert (counts(node).received, counts(node).dropped, counts(node).processed) == (1, 1, 0)
    assert node.trigger_activate() == SUCCESS
    camera.connected()
    camera.send(picture(2))
    camera.await_outputs(1)


def spinning(graph, node, until):
    """Spin as a process does until it is asked to end or `until` holds; return (failures, whether it ended itself)."""
    stop, finished, failures = threading.Event(), threading.Event(), []
    spinner = threading.Thread(target=spin, args=(graph.executor, node, stop, finished, failures))
    spinner.start()
    deadline_s = time.monotonic() + TIMEOUT_S
    while not until() and not finished.wait(0.01):
        assert time.monotonic() < deadline_s
    stop.set()
    graph.executor.create_task(lambda: None)  # wakes it
    spinner.join(TIMEOUT_S)
    return failures, finished.is_set()


def test_a_callback_that_fails_is_told_and_outlived(graph, fake_node, capfd):
    node = activated(fake_node())
    timer = node.create_timer(0.01, lambda: 1 // 0)
    assert spinning(graph, node, lambda: node.health.callback_errors >= 3) == ([], False)
    node.destroy_timer(timer)
    said = "".join(capfd.readouterr())
    assert said.count("ZeroDivisionError") == 1  # once in a while
    camera = Camera(graph, ())
    status = camera.await_report(lambda status: status.level == DiagnosticStatus.ERROR)
    assert "callbacks failed with an unexpected error: ZeroDivisionError: integer division" in status.message
    assert int(value(status, "callbacks failed")) >= 3
    camera.await_report(lambda status: status.level == DiagnosticStatus.OK)


class DestroyedMeanwhile(Waitable):
    """What another thread destroyed after the executor had listed it, and before it could wait for it."""

    def __init__(self, node):
        super().__init__(node.default_callback_group)
        self.node, self.met = node, False

    def is_ready(self, _wait_set):
        return False

    def get_num_entities(self):
        return NumberOfEntities(num_gcs=1)

    def add_to_wait_set(self, _wait_set):
        guard = self.node.create_guard_condition(lambda: None)
        self.node.destroy_guard_condition(guard)
        self.node.remove_waitable(self)
        self.met = True
        with guard.handle:  # which raises, as an event of a subscription does
            pass


def test_an_entity_destroyed_while_the_executor_gathers_what_to_wait_for_is_no_failure(graph, fake_node):
    node = activated(fake_node())
    destroyed, calls = DestroyedMeanwhile(node), []
    timer = node.create_timer(0.01, lambda: calls.append(0))
    node.add_waitable(destroyed)
    assert spinning(graph, node, lambda: destroyed.met and len(calls) >= 3) == ([], False)
    assert node.health.callback_errors == 0
    guard = node.create_guard_condition(lambda: None)
    node.destroy_guard_condition(guard)
    node.destroy_timer(timer)
    timer = node.create_timer(0.01, guard.trigger)  # a callback that uses what is destroyed does fail
    assert spinning(graph, node, lambda: node.health.callback_errors) == ([], False)
    node.destroy_timer(timer)


def test_other_programs_end_with_the_error_in_the_log(graph, capfd):
    node = graph.node("player")
    node.create_timer(0.01, lambda: 1 // 0)
    (failure,), ended = spinning(graph, node, lambda: False)
    assert isinstance(failure, ZeroDivisionError)
    assert ended
    assert "ending, since a callback failed" in "".join(capfd.readouterr())


def test_what_was_acquired_before_is_freed(graph, fake_node):
    """Else a robot's node that is configured and cleaned up again and again, or idle in between, grows for ever."""
    node = fake_node()
    camera, gone, groups = Camera(graph, ("semantic",)), [], []
    for _ in range(4):
        activated(node)
        (stream,) = node.streams
        camera.connected().send(picture(5))
        camera.await_outputs(1)
        gone.append([weakref.ref(stream), *map(weakref.ref, stream.outputs._publishers.values())])
        del stream
        camera.received["semantic"].clear()
        assert node.trigger_deactivate() == SUCCESS
        assert node.trigger_cleanup() == SUCCESS
        graph.spin_until(lambda: not camera.publisher.get_subscription_count(), "for the node to unsubscribe")
        groups.append(len(node.default_callback_group.entities))
        gc.collect()  # a stream stands in a circle with its gate
    before = [ref() for refs in gone[:-1] for ref in refs]  # the executor may still hold what it waited for last
    assert before == [None] * len(before)
    assert groups[1] == groups[2] == groups[3]


def test_a_stream_that_is_subscribed_anew_keeps_nothing_of_before(graph, fake_node):
    node = activated(fake_node(lazy=False))
    (stream,) = node.streams
    entities = []
    for _ in range(4):
        graph.spin_until(lambda: stream.subscribed, "for it to subscribe")
        entities.append(len(stream.gate.entities))
        assert node.trigger_deactivate() == SUCCESS
        assert node.trigger_activate() == SUCCESS
    assert entities[1:] == entities[:1] * 3
