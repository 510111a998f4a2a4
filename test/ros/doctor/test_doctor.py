# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The doctor on real graphs with real faults: the first thing it says is the cause, and how to mend it."""

from __future__ import annotations

import array
import os
import re
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
import warp as wp
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from node_cases import FAILURE, Camera, activated, call, set_parameters, value
from rcl_interfaces.msg import Log
from rclpy.duration import Duration
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, LivelinessPolicy, QoSProfile
from rosgraph_msgs.msg import Clock
from rt_panoptic_ros.msg import PanopticDetectionArray
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header
from std_srvs.srv import SetBool

from rt_panoptic_ros.errors import UnavailableError
from rt_panoptic_ros.frames.outputs import FRAME_OUTPUTS
from rt_panoptic_ros.ros import qos
from rt_panoptic_ros.ros.conversions import image_to_msg
from rt_panoptic_ros.ros.doctor.node_rules import diagnose
from rt_panoptic_ros.ros.doctor.observation import Waits, examine
from rt_panoptic_ros.ros.doctor.verdicts import format_report
from rt_panoptic_ros.ros.node.panoptic_node import PanopticNode
from rt_panoptic_ros.ros.transport import PROFILE_VARIABLES, profile_environment

TIMEOUT_S = 60.0
SECONDS = 1.0
QUICK = Waits(settle_s=0.5)  # all nodes of this process are discovered together
IN_VAIN = Waits(discovery_s=4.0)  # participants announce themselves every 3 s

DEACTIVATE, ACTIVATE = (f"ros2 lifecycle set /panoptic_node {word}" for word in ("deactivate", "activate"))


@pytest.fixture
def stranger(graph):
    """A node of a participant of its own, as one can't have two types on a topic; the doctor may find it late."""
    other = type(graph)()
    yield other.node("stranger")
    other.close()


@pytest.fixture
def without_gpu(graph, small_bundle):
    """Start a node with a real pipeline that is to compute on a GPU that this machine lacks."""
    if wp.is_cuda_available():
        pytest.skip("there is a GPU")

    def start(**given):
        values = {"model": str(small_bundle.path), "device": "cuda", **given}
        overrides = [Parameter(name, value=value) for name, value in values.items()]
        node = graph.add(PanopticNode(context=graph.context, parameter_overrides=overrides))
        assert node.trigger_configure() == FAILURE

    return start


def see_doctor(graph, seconds=SECONDS, waits=QUICK, **options):
    """Return all verdicts of a doctor that looks at the graph while it lives on."""
    with ThreadPoolExecutor(1) as pool:
        seen = pool.submit(examine, seconds, waits=waits, **options)
        graph.spin_until(seen.done, "for the doctor")
    verdicts = diagnose(seen.result())
    print(format_report(verdicts, seen.result()))
    return verdicts


def first_fault(graph, **options):
    verdict = see_doctor(graph, **options)[0]
    assert verdict.is_fault
    return verdict


class Driver:
    """A camera that sends images by itself, spoilt as told."""

    def __init__(self, graph, topic="image", *, kind=Image, reliability="reliable", encoding="rgb8", ahead_s=0.0,
                 stamped=True, period_s=0.05, silent=False, name="camera"):  # fmt: skip
        self.node = graph.node(name)
        self.ahead, self.stamped, self.kind = Duration(nanoseconds=int(ahead_s * 1e9)), stamped, kind
        self.pixels = np.full((48, 64, 3), 7, np.uint8)
        self.encoding = encoding
        self.publisher = self.node.create_publisher(kind, topic, qos.stream(reliability))
        if not silent:
            self.node.create_timer(period_s, self.send)

    def send(self):
        header = Header(frame_id="camera")
        if self.stamped:
            header.stamp = (self.node.get_clock().now() + self.ahead).to_msg()
        if self.kind is CompressedImage:
            content = array.array("B", cv2.imencode(".png", self.pixels)[1].tobytes())
            self.publisher.publish(CompressedImage(header=header, format="png", data=content))
        else:
            self.publisher.publish(image_to_msg(self.pixels, self.encoding, header))


def planner(graph):
    """A node that wants the detections."""
    profile = qos.stream("best_effort")
    graph.node("planner").create_subscription(
        PanopticDetectionArray, "/panoptic_node/detections", lambda _: None, profile
    )


def test_healthy(graph, fake_node):
    activated(fake_node())
    Driver(graph)
    planner(graph)
    assert see_doctor(graph) == []


def test_healthy_with_compressed_images_of_two_cameras(graph, fake_node):
    activated(fake_node(cameras="front=/front/image,rear=/rear/image", image_transport="compressed"))
    for name in ("front", "rear"):
        Driver(graph, f"/{name}/image/compressed", kind=CompressedImage, name=name)
    verdicts = see_doctor(graph)
    assert [verdict.is_fault for verdict in verdicts] == [False, False]  # nobody listens to either


def test_what_anybody_reports_becomes_no_command_and_speaks_to_no_terminal(graph, fake_node, capsys):
    fake_node(autostart=False, model="missing").trigger_configure()
    forger = graph.node("forger")
    reports = forger.create_publisher(DiagnosticArray, "/diagnostics", qos.diagnostics())
    hostile = "\x1b]0;owned\x07\x1b[2J\r\n$(reboot)"
    values = {"topic": "/a; reboot", "semantic topic": "/b`reboot`", "state": hostile}
    status = [
        DiagnosticStatus(
            level=DiagnosticStatus.ERROR, name=f"{node}: {part}", message=hostile,
            values=[KeyValue(key=key, value=one) for key, one in values.items()],
        )
        for node in ("x; reboot", "panoptic_node", "$(reboot)/y") for part in ("panoptic", "camera", "camera $(reboot)")
    ]  # fmt: skip
    logs = forger.create_publisher(Log, "/rosout", 10)
    forger.create_timer(0.05, lambda: reports.publish(DiagnosticArray(status=status)))
    forger.create_timer(0.05, lambda: logs.publish(Log(level=40, name="panoptic_node", msg=hostile)))
    verdicts = see_doctor(graph)
    assert {verdict.node for verdict in verdicts} <= {"", "/panoptic_node"}
    assert verdicts
    assert not any("reboot" in command for verdict in verdicts for command in verdict.commands)
    assert all(line.isprintable() for line in capsys.readouterr().out.split("\n") if "[panoptic_node]" not in line)


def test_remapped_topics_are_followed(graph, fake_node, capsys):
    rules = ("image/compressed:=/cam/jpegs", "~/detections:=/found/objects", "~/semantic:=/found/labels")
    activated(fake_node(*rules, "/diagnostics:=/health", image_transport="compressed"))
    Driver(graph, "/cam/jpegs", kind=CompressedImage)
    listener = graph.node("planner")
    listener.create_subscription(PanopticDetectionArray, "/found/objects", lambda _: None, 1)
    assert see_doctor(graph) == []
    report = capsys.readouterr().out
    assert re.search(r"/cam/jpegs: \d+ images of png.*outputs: \d+ of /found/labels, \d+ of /found/objects", report)
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    listener.create_subscription(Image, "/found/labels", lambda _: None, latched)
    assert "/planner receives nothing on /found/labels" in first_fault(graph).cause


def test_each_of_several_cameras_has_its_remapped_outputs(graph, fake_node):
    activated(fake_node("~/rear/detections:=/found", cameras="front=/front/image,rear=/rear/image"))
    for name in ("front", "rear"):
        Driver(graph, f"/{name}/image", name=name)
    listener = graph.node("planner")
    listener.create_subscription(PanopticDetectionArray, "/found", lambda _: None, 1)
    (verdict,) = see_doctor(graph)
    assert "Nobody listens to the outputs of camera front" in verdict.cause


def test_nobody_listening_is_said_and_no_fault(graph, fake_node):
    activated(fake_node())
    Driver(graph)
    (verdict,) = see_doctor(graph)
    assert not verdict.is_fault
    assert "Nobody listens to the outputs, so it rests but while this doctor listens (lazy)" in verdict.cause


def test_no_node(graph):
    Driver(graph, "/camera/image_raw")
    verdict = first_fault(graph, waits=IN_VAIN)
    assert re.search(r"no panoptic node on this graph within [4-9] s", verdict.cause)
    assert "1 other node(s): /camera" in verdict.cause
    assert f"ROS_DOMAIN_ID = {os.environ['ROS_DOMAIN_ID']}" in verdict.cause
    assert "ROS_AUTOMATIC_DISCOVERY_RANGE = LOCALHOST" in verdict.cause
    assert verdict.commands[0] == "ros2 launch rt_panoptic_ros panoptic.launch.py image_topic:=/camera/image_raw"


def test_no_node_of_that_name(graph, fake_node):
    fake_node()
    verdict = first_fault(graph, waits=IN_VAIN, wanted="/robot/panoptic_node")
    assert "no node called /robot/panoptic_node" in verdict.cause
    assert "/panoptic_node" in verdict.cause.split("other node(s)")[1]


def test_not_configured(graph, fake_node):
    fake_node(autostart=False).start()
    verdict = first_fault(graph)
    assert verdict.cause.startswith("It is unconfigured")
    assert verdict.commands == ("ros2 lifecycle set /panoptic_node configure", ACTIVATE)


def test_deactivated(graph, fake_node):
    activated(fake_node()).trigger_deactivate()
    verdict = first_fault(graph)
    assert verdict.cause.startswith("It is inactive")
    assert verdict.commands == (ACTIVATE,)


def test_cleaned_up_and_shut_down(graph, fake_node):
    node = activated(fake_node())
    node.trigger_deactivate()
    node.trigger_cleanup()
    verdict = first_fault(graph)
    assert verdict.cause == "It is unconfigured, since somebody cleaned it up."
    node.trigger_shutdown()
    verdict = first_fault(graph)
    assert "It is finalized: somebody shut it down" in verdict.cause
    assert verdict.commands == ("ros2 run rt_panoptic_ros panoptic_node --ros-args",)


def test_two_nodes_of_one_name(graph, fake_node):
    for camera in ("/front", "/rear"):
        activated(fake_node(f"image:={camera}"))
        Driver(graph, camera, name=camera[1:])
    planner(graph)
    verdict = first_fault(graph, seconds=2.0)
    assert verdict.cause.startswith("2 nodes are called /panoptic_node:")
    assert verdict.commands[-1].endswith("panoptic_node --ros-args -r __node:=panoptic_node_2")


def test_another_kind_of_node_of_the_same_name_is_noted(graph, fake_node):
    activated(fake_node())
    Driver(graph)
    planner(graph)
    graph.node("panoptic_node")
    verdicts = see_doctor(graph)  # the other may answer the question for parameters
    words = "The graph knows 2 nodes called /panoptic_node, of which one alone reports"
    assert any(words in verdict.cause for verdict in verdicts)
    assert all("another node has this one's name" in verdict.cause for verdict in verdicts if verdict.is_fault)


def test_nodes_of_one_name_in_two_namespaces_are_healthy(graph, fake_node):
    for space in ("/front", "/rear"):
        activated(fake_node(f"__ns:={space}", lazy=False))
        Driver(graph, f"{space}/image", name=space[1:])
    verdicts = see_doctor(graph, seconds=2.0)
    assert [verdict.is_fault for verdict in verdicts] == [False, False]  # nobody listens to either


def test_a_missing_model(graph, fake_node):
    assert fake_node(model="missing").trigger_configure() == FAILURE
    verdict = first_fault(graph)
    assert "It is unconfigured: cannot configure: expected a model bundle at 'missing', found none" in verdict.cause
    assert verdict.commands[0] == "ros2 param set /panoptic_node model street_lite0"
    assert verdict.commands[-1] == ACTIVATE


@pytest.mark.parametrize("given", [{"network_size": "64x96"}, {}])  # {}: the engine itself comes with the first image
def test_a_gpu_that_is_not_there(graph, without_gpu, given):
    without_gpu(**given)
    verdict = first_fault(graph)
    assert "It is unconfigured: cannot configure: expected a CUDA GPU for device cuda, found none" in verdict.cause
    assert "device is cuda" in verdict.cause
    assert verdict.commands[:2] == ("nvidia-smi", "ros2 param set /panoptic_node device auto")


def test_a_gpu_that_is_missed_by_the_first_image(graph, fake_node, monkeypatch):
    node = activated(fake_node(device="cuda"))

    def misses_it(self, image, **options):
        raise UnavailableError("expected a CUDA GPU for device cuda, found none: check `nvidia-smi`, or choose cpu")

    monkeypatch.setattr(type(node.pipelines[0]), "__call__", misses_it)
    Driver(graph)
    verdict = first_fault(graph)
    assert "frames of /image were refused" in verdict.cause
    assert "expected a CUDA GPU for device cuda, found none" in verdict.remedy
    assert verdict.commands[:3] == ("nvidia-smi", DEACTIVATE, "ros2 param set /panoptic_node device auto")


BUILDER = """
import sys, threading
from pathlib import Path
from types import SimpleNamespace
from rt_panoptic_ros.errors import UnavailableError
from rt_panoptic_ros.frames.outputs import FRAME_OUTPUTS
from rt_panoptic_ros.inference.engine_cache import EngineIdentity, cached_engine
from rt_panoptic_ros.model.class_table import load_class_table
from rt_panoptic_ros.ros.node.panoptic_node import PanopticNode
from rt_panoptic_ros.ros.spinning import run_node

done = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), done.set()), daemon=True).start()

def build(progress):
    while not done.wait(0.2):
        progress(0.4)
    raise UnavailableError("told to stop")

def prepare(camera_size):
    identity = EngineIdentity("fake", "0", "64x96", "float16", "tensorrt", "10.3", "GPU", "8.9", "")
    cached_engine(identity, build, Path(sys.argv[1]))

classes = load_class_table("camvid")
fake = SimpleNamespace(classes=classes, prepare=prepare, close=lambda: None, describe=lambda: "fake")
pipeline = lambda *_, **__: fake
run_node(lambda finished: PanopticNode(finished=finished, pipeline_factory=pipeline))
"""


def test_an_engine_that_is_being_built(graph, programs, tmp_path):
    """In a process of its own, whose services do not answer meanwhile."""
    reports = Camera(graph, ())
    process = subprocess.Popen(
        [sys.executable, "-c", BUILDER, str(tmp_path)], env=programs.environment, stdin=subprocess.PIPE
    )
    try:
        reports.await_report(lambda status: status.message.endswith("40 %"))
        verdict = first_fault(graph, waits=Waits())
        assert "building the tensorrt engine of fake at 64x96 in float16: 40 %" in verdict.cause
        assert verdict.remedy.startswith("Wait")
    finally:
        process.stdin.close()
        reports.await_report(lambda status: "told to stop" in status.message)
        process.terminate()
        assert process.wait(TIMEOUT_S) == 0


def test_disabled_by_the_service(graph, fake_node):
    activated(fake_node())
    driver = Driver(graph)
    planner(graph)
    assert call(graph, driver.node, SetBool, "/panoptic_node/enable", SetBool.Request(data=False)).success
    verdict = first_fault(graph)
    assert "disabled" in verdict.cause
    assert verdict.commands == ("ros2 service call /panoptic_node/enable std_srvs/srv/SetBool '{data: true}'",)


def test_nobody_publishes_on_the_camera_topic(graph, fake_node):
    activated(fake_node())
    Driver(graph, "/front/image_raw")
    Driver(graph, "/front/depth", encoding="16UC1", name="depth")
    verdict = first_fault(graph)
    assert verdict.cause.startswith("Nobody publishes on /image,")
    assert "/front/image_raw, /front/depth" in verdict.cause
    assert verdict.commands == ("ros2 run rt_panoptic_ros panoptic_node --ros-args -r image:=/front/image_raw",)


RELIABLE, BEST_EFFORT = qos.stream("reliable"), qos.stream("best_effort")
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
ALIVE = QoSProfile(depth=1, liveliness=LivelinessPolicy.MANUAL_BY_TOPIC)
UNFIT = r"64x48\) are none that the node can use: expected"

# {namespace: (the node's parameters, its camera, the cause, the commands; X ... Y stands for X, set Y, activate)}
CAMERAS = {
    "jpegs": (
        {}, {"topic": "image/compressed", "kind": CompressedImage},
        "/jpegs/image/compressed has the images as JPEG or PNG", ["deactivate ... image_transport compressed"],
    ),
    "modest": (
        {"image_reliability": "reliable"}, {"reliability": "best_effort"},
        r"The camera /camera_of_modest offers less on /modest/image .*"
        r"reliability \(offered best_effort, asked for reliable\)",
        ["deactivate ... image_reliability best_effort"],
    ),
    "silent": (
        {}, {"silent": True}, "/camera_of_silent is there as publisher of /silent/image but sent nothing",
        ["ros2 topic hz /silent/image", "ros2 node info /camera_of_silent"],
    ),
    "unstamped": (
        {}, {"stamped": False}, "images on /unstamped/image have a stamp of zero",
        ["ros2 topic echo --once --field header /unstamped/image", "ros2 param list /camera_of_unstamped"],
    ),
    "ahead": (
        {}, {"ahead_s": 5.0},
        r"are [45]\.\d\d s in the future by the node's clock: the clocks of two machines differ",
        ["timedatectl timesync-status   # or: chronyc tracking", "ros2 bag play --clock 100 BAG",
         "ros2 param set /ahead/panoptic_node use_sim_time true"],
    ),
    "simulated": (
        {"use_sim_time": True}, {}, "use_sim_time is true, but nobody publishes /clock",
        ["ros2 bag play --clock 100 BAG", "ros2 param set /simulated/panoptic_node use_sim_time false"],
    ),
    "purple": ({}, {"encoding": "purple7"}, f"purple7 {UNFIT}", ["ros2 param list /camera_of_purple"]),
    "depth": ({}, {"encoding": "32FC1"}, f"32FC1 {UNFIT}", ["ros2 param list /camera_of_depth"]),
}  # fmt: skip


def verdicts_by_namespace(graph, namespaces, **options):
    verdicts = see_doctor(graph, **options)
    return {space: [one for one in verdicts if one.node == f"/{space}/panoptic_node"] for space in namespaces}


def commands_of(space, short):
    """Return commands in full; those that set a parameter of a node that must not be active are given in one."""
    node, found = f"/{space}/panoptic_node", []
    for command in short:
        before, is_setting, setting = command.partition("deactivate ... ")
        found += [f"ros2 lifecycle set {node} deactivate", f"ros2 param set {node} {setting}",
                  f"ros2 lifecycle set {node} activate"] if is_setting else [before]  # fmt: skip
    return tuple(found)


def test_what_is_wrong_with_a_camera_is_the_first_that_is_said(graph, fake_node):
    for space, (parameters, camera, _, _) in CAMERAS.items():
        activated(fake_node(f"__ns:=/{space}", **parameters))
        options = {"topic": "image", **camera}
        Driver(graph, f"/{space}/{options.pop('topic')}", name=f"camera_of_{space}", period_s=0.1, **options)
    told = verdicts_by_namespace(graph, CAMERAS, seconds=2.0)
    for space, (_, _, cause, commands) in CAMERAS.items():
        verdict = told[space][0]
        assert verdict.is_fault
        assert re.search(cause, verdict.cause)
        assert verdict.commands == commands_of(space, commands)


# {namespace: (the node's parameters, output, its listener's type and profile, the cause, remedy, commands)}
LISTENERS = {
    "all_off": (
        {"enabled_outputs": ""}, "detections", PanopticDetectionArray, BEST_EFFORT, "enabled_outputs is empty",
        "Name the outputs",
        [f"ros2 param set /all_off/panoptic_node enabled_outputs {','.join(FRAME_OUTPUTS)}"],
    ),
    "off": (
        {"enabled_outputs": "semantic"}, "detections", PanopticDetectionArray, BEST_EFFORT,
        "/listener_of_off listens to /off/panoptic_node/detections, which enabled_outputs leaves out", "Enable it",
        ["ros2 param set /off/panoptic_node enabled_outputs semantic,detections"],
    ),
    "alive": (
        {}, "semantic", Image, ALIVE, r"liveliness \(offered automatic, asked for manual_by_topic\)",
        "Have /listener_of_alive ask for", ["ros2 topic info -v /alive/panoptic_node/semantic"],
    ),
    "modest": (
        {"output_reliability": "best_effort"}, "detections", PanopticDetectionArray, RELIABLE,
        r"/listener_of_modest receives nothing on /modest/panoptic_node/detections.*"
        r"reliability \(offered best_effort, asked for reliable\)",
        "Have the node offer more", ["deactivate ... output_reliability reliable"],
    ),
    "latched": (
        {}, "semantic", Image, LATCHED,
        r"/listener_of_latched receives nothing on /latched/panoptic_node/semantic.*"
        r"durability \(offered volatile, asked for transient_local\)",
        "Have /listener_of_latched ask for durability volatile",
        ["ros2 topic info -v /latched/panoptic_node/semantic"],
    ),
}  # fmt: skip


def test_why_a_listener_receives_nothing_is_all_that_is_said(graph, fake_node):
    for space, (parameters, output, kind, profile, *_) in LISTENERS.items():
        activated(fake_node(f"__ns:=/{space}", **parameters))
        Driver(graph, f"/{space}/image", name=f"camera_of_{space}", period_s=0.1)
        listener = graph.node(f"listener_of_{space}")
        listener.create_subscription(kind, f"/{space}/panoptic_node/{output}", lambda _: None, profile)
    told = verdicts_by_namespace(graph, LISTENERS, seconds=2.0)
    for space, (*_, cause, remedy, commands) in LISTENERS.items():
        (verdict,) = told[space]
        assert verdict.is_fault
        assert re.search(cause, verdict.cause)
        assert verdict.remedy.startswith(remedy)
        assert verdict.commands == commands_of(space, commands)


def test_other_types_than_the_nodes(graph, fake_node, stranger):
    """On its camera's topic, alone and beside a camera, and on an output's."""
    namespaces = ("alone", "beside", "output")
    for space in namespaces:
        activated(fake_node(f"__ns:=/{space}"))
        if space != "alone":
            Driver(graph, f"/{space}/image", name=f"camera_of_{space}")
        if space != "output":
            stranger.create_publisher(CompressedImage, f"/{space}/image", 1)
    graph.node("planner").create_subscription(
        PanopticDetectionArray, "/beside/panoptic_node/detections", lambda _: None, BEST_EFFORT
    )
    stranger.create_subscription(Image, "/output/panoptic_node/detections", lambda _: None, 1)
    told = verdicts_by_namespace(graph, namespaces, waits=Waits())
    alone = told["alone"][0]
    assert alone.is_fault
    assert "/stranger publishes sensor_msgs/msg/CompressedImage on /alone/image" in alone.cause
    assert alone.commands[0] == "ros2 run topic_tools relay /alone/image /alone/image/compressed"
    assert "ros2 param set /alone/panoptic_node image_transport compressed" in alone.commands
    (beside,) = told["beside"]
    assert not beside.is_fault
    assert "/stranger publishes sensor_msgs/msg/CompressedImage on /beside/image" in beside.cause
    output = told["output"][0]
    assert output.is_fault
    assert "/stranger expects sensor_msgs/msg/Image on /output/panoptic_node/detections" in output.cause


def test_a_bag_with_its_clock_and_a_node_without_simulated_time(graph, fake_node):
    activated(fake_node())
    driver = Driver(graph, ahead_s=-86400.0 * 30)
    clock = driver.node.create_publisher(Clock, "/clock", 1)
    driver.node.create_timer(0.1, lambda: clock.publish(Clock()))
    verdict = first_fault(graph)
    assert "30 days old when they arrive by the node's clock, which is the time of day" in verdict.cause
    assert verdict.commands == ("ros2 param set /panoptic_node use_sim_time true",)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sender", "size"),
    [("/image_player", (1024, 2048)), ("/image_player", (2048, 4096)), ("/panoptic_node", (1024, 2048))],
)
def test_large_images_without_the_profile_are_lost(graph, programs, small_bundle, tmp_path, sender, size):
    """By Fast DDS's defaults most images of some megabytes vanish between processes; the sender is to mend it."""
    cv2.imwrite(str(tmp_path / "frame.bmp"), np.random.default_rng(1).integers(0, 256, (*size, 3), np.uint8))
    reports = Camera(graph, ())
    reports.node.destroy_publisher(reports.publisher)
    environment = programs.environment
    without = {name: text for name, text in environment.items() if name not in PROFILE_VARIABLES}
    programs.environment = without if sender == "/panoptic_node" else environment
    programs.start("panoptic_node", model=small_bundle.path, network_size="64x128", lazy=False)
    reports.await_report(lambda status: value(status, "subscribed to camera") == "True", index=1)
    programs.environment = without if sender == "/image_player" else environment
    programs.start("play_images", source=tmp_path / "frame.bmp", rate_hz=5.0, loop=True)
    reports.await_report(
        lambda status: {value(status, f"frames {outcome}") for outcome in ("received", "lost")} != {"0"}, index=1
    )
    looks = (see_doctor(graph, 3.0, Waits()) for _ in range(5))  # a loss is noticed when a later message arrives
    lost = next(verdict for verdicts in looks for verdict in verdicts if "lost" in verdict.cause)
    assert lost.is_fault
    assert f"in the terminal of the {'node' if sender == '/panoptic_node' else 'camera'} {sender}" in lost.remedy
    name, path = next(iter(profile_environment(without).items()))
    assert lost.commands[0] == f"export {name}={path}"


def test_a_rate_limit_that_lets_nothing_through(graph, fake_node):
    node = activated(fake_node(max_rate_hz=0.001))
    Driver(graph)
    planner(graph)
    graph.spin_until(lambda: node.pipelines[0].seen, "for the one frame of these 1000 s")
    verdict = first_fault(graph)
    assert "max_rate_hz is 0.001" in verdict.cause
    assert verdict.commands == ("ros2 param set /panoptic_node max_rate_hz 0.0",)
    assert set_parameters(node, max_rate_hz=5.0).successful
    verdicts = see_doctor(graph)
    assert [verdict.is_fault for verdict in verdicts] == [False]
    assert "max_rate_hz is 5.0" in verdicts[0].cause


@pytest.mark.parametrize("outcome", ["refused", "failed"])
def test_frames_that_the_pipeline_cannot_label(graph, fake_node, monkeypatch, outcome):
    node = activated(fake_node())
    error = {"refused": "expected a GPU with free memory", "failed": "surprise"}[outcome]

    def fail(*_, **__):
        raise {"refused": UnavailableError, "failed": ZeroDivisionError}[outcome](error)

    monkeypatch.setattr(type(node.pipelines[0]), "__call__", fail)
    Driver(graph)
    planner(graph)
    verdict = first_fault(graph)
    assert outcome in verdict.cause
    assert error in verdict.remedy  # from the node's log


def test_a_machine_that_cannot_keep_up(graph, fake_node, monkeypatch):
    node = activated(fake_node())
    kind = type(node.pipelines[0])
    label = kind.__call__
    never = threading.Event()
    monkeypatch.setattr(kind, "__call__", lambda *image, **options: never.wait(0.15) or label(*image, **options))
    Driver(graph)
    planner(graph)
    verdict = first_fault(graph, seconds=2.0)
    assert re.search(r"overloaded \(period \d+.\d+ ms, median time [1-9]\d\d.\d+ ms\)", verdict.cause)
    assert verdict.commands[:2] == ("rt-panoptic tune --model fake", DEACTIVATE)


def test_a_pipeline_that_never_returns(graph, fake_node):
    node = activated(fake_node())
    node.pipelines[0].gate.clear()
    Driver(graph)
    planner(graph)
    verdict = first_fault(graph)
    assert re.search(r"but none was labelled within \d s", verdict.cause)
    node.pipelines[0].gate.set()


def run_command(graph, *arguments):
    """Return the exit status and the output of the command line in a process of its own."""
    command = [sys.executable, *arguments, "--seconds", "1"]
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(subprocess.run, command, capture_output=True, text=True, check=False, timeout=TIMEOUT_S)
        graph.spin_until(done.done, "for the command")
    return done.result().returncode, done.result().stdout


def test_the_command_line_tells_and_its_status_says_whether_there_are_faults(graph, fake_node):
    node = activated(fake_node())
    driver = Driver(graph)
    planner(graph)
    status, report = run_command(graph, "-m", "rt_panoptic_ros", "doctor")
    assert (status, report.splitlines()[0]) == (0, "/panoptic_node: healthy"), report
    assert call(graph, driver.node, SetBool, "/panoptic_node/enable", SetBool.Request(data=False)).success
    as_ros2_run = "import sys; from rt_panoptic_ros.cli import main_of_doctor; sys.exit(main_of_doctor())"
    status, report = run_command(graph, "-c", as_ros2_run, "--node", node.get_name())
    assert (status, report.splitlines()[0]) == (1, "/panoptic_node: 1 fault(s)"), report
    assert "ros2 service call /panoptic_node/enable" in report
