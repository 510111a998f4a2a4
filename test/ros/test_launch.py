# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The launch files, where `launch` is installed: it comes with a ROS distribution, not from PyPI."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys

import pytest
from conftest import ROOT

launch = pytest.importorskip("launch", reason="launch is not installed: it comes with a ROS distribution")
pytest.importorskip("launch_ros", reason="launch_ros is not installed: it comes with a ROS distribution")

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus  # noqa: E402 - after the skips
from launch.actions import DeclareLaunchArgument, SetEnvironmentVariable  # noqa: E402
from launch_ros.actions import Node  # noqa: E402
from launch_ros.utilities import evaluate_parameters  # noqa: E402
from node_cases import Camera, Labelling, picture  # noqa: E402

from rt_panoptic_ros.ros import qos  # noqa: E402
from rt_panoptic_ros.ros.node.node_settings import NodeSettings  # noqa: E402
from rt_panoptic_ros.ros.transport import PROFILE_VARIABLES  # noqa: E402
from rt_panoptic_ros.settings import PostprocessSettings, settings_of  # noqa: E402

RUN = """
import sys
from launch import LaunchDescription, LaunchService
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource

arguments = [tuple(pair.split(":=", 1)) for pair in sys.argv[2:]]
include = IncludeLaunchDescription(PythonLaunchDescriptionSource(sys.argv[1]), launch_arguments=arguments)
service = LaunchService()
service.include_launch_description(LaunchDescription([include]))
sys.exit(service.run())
"""


def description(name):
    spec = importlib.util.spec_from_file_location("launch_file", ROOT / "launch" / name)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.generate_launch_description()


def test_every_setting_is_a_described_argument(monkeypatch):
    for name in (*PROFILE_VARIABLES, "ROS_DISTRO"):
        monkeypatch.delenv(name, raising=False)
    entities = description("panoptic.launch.py").entities
    arguments = {entity.name: entity for entity in entities if isinstance(entity, DeclareLaunchArgument)}
    names = {one.name for one in (*settings_of(NodeSettings), *settings_of(PostprocessSettings))}
    assert names | {
        "image_topic",
        "camera_info_topic",
        "depth_topic",
        "node_name",
        "namespace",
        "params_file",
        "log_level",
        "respawn",
        "respawn_delay",
    } == set(arguments)
    assert all(argument.description.endswith(".") for argument in arguments.values())
    assert sum(isinstance(entity, SetEnvironmentVariable) for entity in entities) == len(PROFILE_VARIABLES)


def test_a_profile_of_the_users_own_is_kept(monkeypatch):
    monkeypatch.setenv(PROFILE_VARIABLES[0], "/mine.xml")
    for name in ("panoptic.launch.py", "demo.launch.py"):
        assert not any(isinstance(entity, SetEnvironmentVariable) for entity in description(name).entities)


@pytest.mark.parametrize("text", ["0016", "0x10", "1e3", "true", "~", "[a]", "a: b", "1700000000000000000"])
def test_the_demos_source_is_the_text_that_was_given(text):
    context = launch.LaunchContext()
    context.launch_configurations.update(source=text, rate_hz="5", loop="false", image_topic="/image")
    (player,) = (entity for entity in description("demo.launch.py").entities if isinstance(entity, Node))
    (parameters,) = evaluate_parameters(context, player._Node__parameters)
    assert parameters == {"source": text, "rate_hz": 5.0, "loop": False}


@pytest.mark.slow
def test_the_demo_launch_file_brings_frames_to_an_active_node(graph, small_bundle, real_frames, tmp_path):
    states = []

    def on_diagnostics(message):
        states.extend({item.key: item.value for item in status.values} for status in message.status)

    graph.node("listener").create_subscription(DiagnosticArray, "/diagnostics", on_diagnostics, qos.diagnostics())
    arguments = [f"model:={small_bundle.path}", f"source:={real_frames}", "rviz:=false", "lazy:=false", "rate_hz:=5.0",
                 "network_size:=96x128", "namespace:=robot", "score_threshold:=0.25"]  # fmt: skip
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", RUN, str(ROOT / "launch" / "demo.launch.py"), *arguments],
            stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        try:
            graph.spin_until(lambda: states and int(states[-1]["frames processed"]) > 0, "for processed frames")
        finally:
            process.send_signal(signal.SIGINT)
            try:
                status = process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
    text = (tmp_path / "log").read_text()
    assert status == 0, text
    assert "receiving images from /camera/image_raw" in text
    assert "Traceback" not in text


@pytest.mark.slow
def test_a_node_that_hangs_is_started_anew_with_respawn(graph, small_bundle, tmp_path):
    broken = ROOT / "test" / "ros" / "faults" / "broken"  # its backend never answers a white image
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join([str(broken), os.environ.get("PYTHONPATH", "")]))
    arguments = [f"model:={small_bundle.path}", "network_size:=32x64", "image_topic:=/image", "watchdog_s:=2.0",
                 "image_reliability:=reliable", "respawn:=true", "respawn_delay:=0.1"]  # fmt: skip
    camera = Camera(graph)
    labelling = Labelling(graph, None, camera)
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", RUN, str(ROOT / "launch" / "panoptic.launch.py"), *arguments],
            env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        try:
            camera.connected()
            labelling.label(picture(1))
            camera.send(picture(255))
            camera.await_report(lambda status: status.level == DiagnosticStatus.ERROR and "stuck" in status.message)
            graph.spin_until(lambda: b"exit code 75" in (tmp_path / "log").read_bytes(), "for the process to end")
            got = camera.received["semantic"]
            got.clear()
            graph.spin_until(lambda: camera.send(picture(2)) or got, "for labels of the new process")
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
