# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The script for NVIDIA's ros2_benchmark: its names are the node's, whether or not ros2_benchmark is installed."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType, SimpleNamespace

import pytest
from conftest import ROOT
from rclpy.serialization import serialize_message

from rt_panoptic_ros.frames.outputs import OUTPUTS
from rt_panoptic_ros.ros.conversions import output_classes

SCRIPT = ROOT / "scripts" / "ros2_benchmark_panoptic.py"
LAUNCH_FILE = ROOT / "launch" / "panoptic.launch.py"
NAMESPACE = "/r2b"


class Recorded:
    """Stands in for an action of launch, or for a record of ros2_benchmark: it holds what it was made with."""

    def __init__(self, *arguments, **fields):
        self.arguments = arguments
        vars(self).update(fields)


class RecordedBenchmark:
    """Stands in for ROS2BenchmarkTest."""

    @classmethod
    def generate_namespace(cls, *tokens):
        return "/".join([NAMESPACE, *tokens])

    @staticmethod
    def generate_test_description(actions):
        return actions


def recorded(name):
    """Return what a module of a distribution has under any name but those that Python itself looks for."""
    if name.startswith("__"):
        raise AttributeError(name)
    return Recorded


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem.replace(".", "_"), path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def stand_ins(monkeypatch):
    """Have what comes with a ROS distribution alone be imported as `Recorded`."""
    names = (
        "launch", "launch.actions", "launch.launch_description", "launch.launch_description_sources",
        "launch.substitutions", "launch_ros", "launch_ros.actions", "launch_ros.descriptions", "ros2_benchmark",
    )  # fmt: skip
    for name in names:
        module = ModuleType(name)
        module.__getattr__ = recorded
        monkeypatch.setitem(sys.modules, name, module)
    sys.modules["ros2_benchmark"].ROS2BenchmarkTest = RecordedBenchmark


def test_its_names_are_those_of_the_node(stand_ins, fake_node):
    script, launch_file = load(SCRIPT), load(LAUNCH_FILE)
    bag_topic, include, container = script.generate_test_description()
    arguments = dict(include.launch_arguments)
    assert set(arguments) <= set(launch_file.GENERAL)
    assert bag_topic.arguments == ("bag_topic",)
    node = fake_node(
        f"__ns:={arguments['namespace']}", f"__node:={arguments['node_name']}", f"image:={arguments['image_topic']}"
    )
    node.trigger_configure()
    loader, playback, *monitors = container.composable_node_descriptions

    def topic(component, name):
        return f"{component.namespace}/{dict(component.remappings)[name]}"

    assert topic(playback, "input0") == node.streams[0].topic
    assert topic(playback, "buffer/input0") == f"{loader.namespace}/{loader.remappings[0][1]}"
    published = dict(node.get_publisher_names_and_types_by_node(node.get_name(), node.get_namespace()))
    for monitor in monitors:
        (parameters,) = monitor.parameters
        assert published[topic(monitor, "output")] == [parameters["monitor_data_format"]]
    services = [f"monitor_node{monitor.parameters[0]['monitor_index']}" for monitor in monitors]
    configured = script.TestPanopticNode.config.monitor_info_list
    assert [info.arguments[0] for info in configured] == services


def test_a_monitor_finds_an_images_number_in_the_outputs(stand_ins):
    for output in load(SCRIPT).MONITORED:
        message = output_classes([output])[output]()
        message.header.stamp.sec = 0x01020304
        # MonitorNode::GenericMonitorSubscriberCallback reads the four bytes behind the encapsulation's header.
        assert int.from_bytes(serialize_message(message)[4:8], "little") == 0x01020304, OUTPUTS[output].type


def test_it_waits_for_the_active_node(stand_ins, fake_node, graph):
    script = load(SCRIPT)
    test = SimpleNamespace(node=graph.node("Controller"), fail=pytest.fail)
    test.generate_namespace = script.TestPanopticNode.generate_namespace
    node = fake_node(f"__ns:={NAMESPACE}")
    node.trigger_configure()
    script.LOADING_S = 0.1
    with pytest.raises(pytest.fail.Exception, match=r"expected panoptic_node to be active within 0\.1 s"):
        script.TestPanopticNode.pre_benchmark_hook(test)
    node.trigger_activate()
    script.LOADING_S = 60.0
    script.TestPanopticNode.pre_benchmark_hook(test)


def test_ros2_benchmark_takes_it(monkeypatch):
    reason = "ros2_benchmark is not installed: it is built in a workspace of a ROS distribution"
    benchmark = pytest.importorskip("ros2_benchmark", reason=reason)
    monkeypatch.setattr(benchmark.ROS2BenchmarkTest, "set_idle_resource_utilization", lambda: None)  # waits 10 s
    script = load(SCRIPT)
    config = script.TestPanopticNode.config
    known = vars(benchmark.ROS2BenchmarkConfig())
    assert set(vars(config)) == set(known)
    assert [info.service_name for info in config.monitor_info_list] == ["monitor_node0", "monitor_node1"]
    kinds = [type(entity).__name__ for entity in script.generate_test_description().entities]
    assert kinds == ["DeclareLaunchArgument", "IncludeLaunchDescription", "ComposableNodeContainer", "TimerAction"]
