# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Faults of what surrounds the node's process, started as its users start it: disks, memory, the model's folder.

They befall one process, one after the other.
"""

from __future__ import annotations

import resource
import shutil
import subprocess
from contextlib import contextmanager
from pathlib import Path

import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from lifecycle_msgs.msg import Transition
from node_cases import Camera, Labelling, call, picture, requested
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter

from rt_panoptic_ros.model.class_table import load_class_table
from rt_panoptic_ros.model.untrained import make_untrained_bundle


def failing(status, words):
    return status.level == DiagnosticStatus.ERROR and words in status.message


class Robot:
    """A node's process, with a model of its own and two small disks: for its caches and for its log."""

    def __init__(self, graph, programs, folder, bundle):
        self.graph, self.programs, self.folder = graph, programs, folder
        self.model, self.cache, self.logs = folder / "model", folder / "cache", folder / "log"
        shutil.copytree(bundle.path, self.model)
        self.programs.environment |= {"XDG_CACHE_HOME": str(self.cache), "ROS_LOG_DIR": str(self.logs)}
        self.camera = Camera(graph)
        self.labelling = Labelling(graph, None, self.camera)
        self.sizes = iter((32, 32 * width) for width in range(2, 99))  # each has a graph of its own

    def start(self):
        self.process = self.programs.start("panoptic_node", model=self.model, image_reliability="reliable")
        self.camera.connected()
        self.labelling.label(picture(1))

    def new_size(self):
        return picture(1, next(self.sizes))

    def said(self, words):
        return words in self.programs.log("panoptic_node")

    def change(self, transition):
        answer = requested(self.graph, self.camera.node, transition)
        self.graph.spin_until(answer.done, "for the transition")
        return answer.result().success

    def unload(self):
        for transition in (Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_CLEANUP):
            assert self.change(transition)
        count = self.camera.publisher.get_subscription_count
        self.graph.spin_until(lambda: not count(), "for the node to unsubscribe")  # else `label` takes it for the next

    def set_size(self, network_size):
        """Have the next configure load the network for one size."""
        value = Parameter("network_size", value=network_size).to_parameter_msg()
        request = SetParameters.Request(parameters=[value])
        answer = call(self.graph, self.camera.node, SetParameters, "/panoptic_node/set_parameters", request)
        assert answer.results[0].successful

    @contextmanager
    def short_of_memory(self, spare):
        """Let the process have no more than `spare` bytes beyond what it has."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        size = next(int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmSize"))
        before = resource.prlimit(self.process.pid, resource.RLIMIT_AS, (size + spare, resource.RLIM_INFINITY))
        try:
            yield
        finally:
            resource.prlimit(self.process.pid, resource.RLIMIT_AS, before)


def mount(folder, size):
    folder.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("small disks are mounted by root only")


@pytest.fixture(scope="module")
def robot(shared_graph, shared_programs, small_bundle, tmp_path_factory):
    robot = Robot(shared_graph, shared_programs, tmp_path_factory.mktemp("robot"), small_bundle)
    disks = [(robot.cache, "256m"), (robot.logs, "20m")]
    try:
        for folder, size in disks:
            mount(folder, size)
        robot.start()
        yield robot
    finally:
        robot.programs.close()
        for folder, _ in disks:
            subprocess.run(["umount", "-l", str(folder)], capture_output=True, check=False)


@pytest.mark.fault("cache's disk is full", "WARN in the log that names folder and reason; labels of every size")
def test_a_full_cache(robot, recovery):
    (robot.cache / "rest").write_bytes(bytes(shutil.disk_usage(robot.cache).free))
    with recovery("result"):
        robot.labelling.label(robot.new_size())
    assert robot.said("(No space left on device), so the next start makes it again")
    (robot.cache / "rest").unlink()


@pytest.mark.fault("cache becomes read-only", "likewise")
def test_a_cache_that_becomes_read_only(robot, recovery):
    subprocess.run(["mount", "-o", "remount,ro", str(robot.cache)], check=True)
    with recovery("result"):
        robot.labelling.label(robot.new_size())
    assert robot.said("(Read-only file system), so the next start makes it again")
    subprocess.run(["mount", "-o", "remount,rw", str(robot.cache)], check=True)


@pytest.mark.fault("cache is removed while the node runs", "labels; the folder is made again with the next graph")
def test_a_cache_that_is_removed(robot, recovery):
    shutil.rmtree(robot.cache / "rt_panoptic_ros")
    robot.labelling.label(picture(2))
    with recovery("result"):
        robot.labelling.label(robot.new_size())
    assert list((robot.cache / "rt_panoptic_ros" / "onnx").glob("*.onnx"))


@pytest.mark.fault("log's disk is full", "labels, and what is told on /diagnostics and /rosout; the file ends there")
def test_a_full_log(robot, recovery):
    (robot.logs / "rest").write_bytes(bytes(shutil.disk_usage(robot.logs).free))
    for number in range(3):
        robot.camera.send(picture(number, encoding="purple7"))
    robot.camera.await_report(lambda status: "frames refused" in status.message)
    with recovery("result"):
        robot.labelling.label(picture(3))
    (robot.logs / "rest").unlink()


@pytest.mark.fault("memory is short for a larger image", "that frame is refused with one sentence; others are labelled")
def test_an_image_that_needs_more_memory_than_there_is(robot, recovery):
    with robot.short_of_memory(32 << 20):
        robot.camera.send(picture(1, (2048, 2048)))
        robot.camera.await_report(lambda status: "frames refused: expected more memory to be free" in status.message)
        with recovery("result"):
            robot.labelling.label(picture(2))
    with recovery("result"):
        robot.labelling.label(robot.new_size())


@pytest.mark.fault(
    "model's folder is removed while the node runs", "labels; an image of a new size is refused with one sentence"
)
def test_a_model_that_is_removed(robot, recovery):
    robot.model.rename(robot.folder / "away")
    with recovery("result"):
        robot.labelling.label(picture(4))
    robot.camera.send(robot.new_size())
    robot.camera.await_report(lambda status: "frames refused: expected weights in" in status.message)
    (robot.folder / "away").rename(robot.model)
    with recovery("result"):
        robot.labelling.label(robot.new_size())


@pytest.mark.fault(
    "model is replaced while the node runs", "labels of the old one alone; the next configure takes the new one"
)
def test_a_model_that_is_replaced(robot, recovery, small_network):
    shutil.rmtree(robot.model)
    make_untrained_bundle(robot.model, network=small_network, classes=load_class_table("cityscapes"), size=None, seed=2)
    with recovery("result"):
        robot.labelling.label(picture(5))
    robot.camera.send(robot.new_size())  # the new weights are not the old card's
    robot.camera.await_report(lambda status: "with the SHA-256 of the card" in status.message)
    weights = robot.model / "weights.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1])
    robot.unload()
    robot.set_size("32x64")
    assert not robot.change(Transition.TRANSITION_CONFIGURE)
    with recovery("ERROR"):
        robot.camera.await_report(lambda status: failing(status, "with the SHA-256 of the card"))
    weights.write_bytes(content)
    assert robot.change(Transition.TRANSITION_CONFIGURE)
    assert robot.change(Transition.TRANSITION_ACTIVATE)
    with recovery("result"):
        robot.labelling.label(picture(5))


@pytest.mark.fault(
    "memory is short while loading", "configure fails with one sentence; it succeeds once there is enough"
)
def test_a_model_that_needs_more_memory_than_there_is(robot, recovery):
    robot.unload()
    robot.set_size("2048x2048")
    with robot.short_of_memory(32 << 20):
        assert not robot.change(Transition.TRANSITION_CONFIGURE)
        with recovery("ERROR"):
            robot.camera.await_report(
                lambda status: failing(status, "cannot configure: expected more memory to be free")
            )
    robot.set_size("32x64")
    assert robot.change(Transition.TRANSITION_CONFIGURE)
    assert robot.change(Transition.TRANSITION_ACTIVATE)
    with recovery("result"):
        robot.labelling.label(picture(6))
