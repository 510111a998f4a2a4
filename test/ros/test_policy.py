# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The programs are on the graph as the SROS 2 policy says, no less and no more, and open nothing beyond the graph."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections import Counter, defaultdict
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest
from node_cases import KINDS, Camera, activated
from rclpy.parameter import Parameter
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image

from rt_panoptic_ros.frames.outputs import FRAME_OUTPUTS, OUTPUTS
from rt_panoptic_ros.resources import share_directory
from rt_panoptic_ros.ros.node.node_settings import Periods
from rt_panoptic_ros.ros.tools.live_view import LiveView

POLICY = share_directory() / "config" / "security" / "panoptic.policy.xml"
IMAGE = "/camera/image_raw"
AS_LAUNCHED = [f"image:={IMAGE}", "depth:=/camera/depth", "camera_info:=/camera/camera_info"]
"""What the launch file remaps by default."""
RIGHTS = {"topic": ("publish", "subscribe"), "service": ("reply", "request"), "action": ("execute", "call")}
UNSEEN = {"/tf", "/tf_static"}
"""What only a node with target_frame has, for which these tests lack tf2."""
UNAVAILABLE = {f"/panoptic_node/{name}" for name, one in OUTPUTS.items() if one.optional and name not in KINDS}
IMAGES_ALONE = [
    name for name, one in OUTPUTS.items() if one.type == "sensor_msgs/msg/Image" and not (one.inputs or one.latched)
]
QUICK = Periods(diagnostics_s=0.1, demand_s=0.05)


def resolved(name, profile):
    """Return a policy's name in full: ~ is the node, and what has no slash before it lies in the namespace."""
    space = profile.get("ns").rstrip("/")
    return name if name.startswith("/") else f"{space}/{name.replace('~', profile.get('node'), 1)}"


def granted(enclave):
    """Return {(kind, right): names} of an enclave's policy, after checking that it has the schema's form."""
    root = ElementTree.parse(POLICY).getroot()
    assert (root.tag, root.attrib, [child.tag for child in root]) == ("policy", {"version": "0.2.0"}, ["enclaves"])
    rights = defaultdict(set)
    (profiles,) = root.findall(f"enclaves/enclave[@path='{enclave}']/profiles")
    for profile in profiles:
        assert (profile.tag, set(profile.attrib)) == ("profile", {"ns", "node"})
        for group in profile:
            kind = group.tag.removesuffix("s")
            assert kind in RIGHTS
            assert group.attrib.items() <= dict.fromkeys(RIGHTS[kind], "ALLOW").items()
            assert group.attrib
            names = [resolved(one.text, profile) for one in group]
            assert {one.tag for one in group} == {kind}
            for right in group.attrib:
                assert rights[kind, right].isdisjoint(names), "named twice"
                rights[kind, right] |= set(names)
    return dict(rights)


def used(watcher, name):
    """Return the same of a node on the graph."""
    queries = {
        ("topic", "publish"): watcher.get_publisher_names_and_types_by_node,
        ("topic", "subscribe"): watcher.get_subscriber_names_and_types_by_node,
        ("service", "reply"): watcher.get_service_names_and_types_by_node,
        ("service", "request"): watcher.get_client_names_and_types_by_node,
    }
    return {right: {topic for topic, _ in query(name, "/")} for right, query in queries.items()}


def held_equal(graph, watcher, enclave, name, *, unseen=()):
    """Wait for a program to be on the graph as the policy says, but for topics that only others' set-ups have."""
    absent = UNAVAILABLE.union(unseen)
    expected = defaultdict(set, {right: names - absent for right, names in granted(enclave).items()})

    def surplus_and_want():
        found = used(watcher, name)
        return {right: (found[right] - expected[right], expected[right] - found[right]) for right in found}

    equal = lambda: not any(map(any, surplus_and_want().values()))  # noqa: E731
    try:
        graph.spin_until(equal)
    except AssertionError:
        pytest.fail(f"{name} (has beyond the policy, has not): {surplus_and_want()}")


def test_node_and_view(graph, fake_node):
    watcher = graph.node("watcher")
    clock = watcher.create_publisher(Clock, "/clock", 1)
    node = activated(fake_node(*AS_LAUNCHED, periods=QUICK, use_sim_time=True))
    view = LiveView(
        threading.Event(), "panoptic_node", SimpleNamespace(frames=0), SimpleNamespace(is_open=True), "camera",
        context=graph.context, parameter_overrides=[Parameter("use_sim_time", value=True)],
    )  # fmt: skip
    graph.add(view)
    Camera(graph, [name for name in FRAME_OUTPUTS if name in KINDS])
    graph.spin_until(lambda: node.streams[0].subscribed and clock.get_subscription_count() > 1, "for the node")
    held_equal(graph, watcher, "/panoptic/node", "panoptic_node", unseen={f"{IMAGE}/compressed", *UNSEEN})
    held_equal(graph, watcher, "/panoptic/view", "panoptic_view", unseen={f"{IMAGE}/compressed"})


def test_doctor(graph, fake_node, programs):
    watcher = graph.node("watcher")
    activated(fake_node(*AS_LAUNCHED, periods=QUICK))
    watcher.create_publisher(Image, IMAGE, 1)
    command = [sys.executable, "-m", "rt_panoptic_ros", "doctor", "--seconds", "600"]
    with subprocess.Popen(command, env=programs.environment, stdout=subprocess.DEVNULL) as process:
        try:
            name = f"panoptic_doctor_{process.pid}"
            graph.spin_until(lambda: name in watcher.get_node_names(), "for the doctor")
            # Of the outputs it takes the detections and one image, which others may listen to already: any of these.
            others = [name for name in IMAGES_ALONE if name != "semantic"]
            assert granted("/panoptic/doctor")["topic", "subscribe"].issuperset(
                f"/panoptic_node/{one}" for one in others
            )
            unseen = {f"{IMAGE}/compressed", *(f"/panoptic_node/{one}" for one in others)}
            held_equal(graph, watcher, "/panoptic/doctor", name, unseen=unseen)
        finally:
            process.terminate()


def sockets(pid):
    """Count the sockets of a process by kind and state, as the kernel lists them; a TCP socket that listens has 0A."""
    held = {str(path.readlink()) for path in Path(f"/proc/{pid}/fd").iterdir()}
    states = Counter()
    for kind, inode, state in [*((name, 9, 3) for name in ("tcp", "tcp6", "udp", "udp6", "raw", "raw6")),
                               ("unix", 6, 5), ("packet", 8, 4)]:  # fmt: skip
        _, *rows = map(str.split, Path(f"/proc/{pid}/net/{kind}").read_text().splitlines())
        states.update((kind, row[state]) for row in rows if f"socket:[{row[inode]}]" in held)
    return states


@pytest.mark.slow
def test_processes_open_what_any_node_opens(graph, programs, small_bundle, real_frames, tmp_path):
    """Player and recorder are held equal to the policy; the sockets of all three are those of an empty node."""
    watcher = graph.node("watcher")
    command = [sys.executable, "-c", "import rclpy; rclpy.init(); node = rclpy.create_node('empty_node'); input()"]
    started = {
        "panoptic_node": programs.start("panoptic_node", "-r", AS_LAUNCHED[0], model=small_bundle.path, lazy=False),
        "image_player": programs.start(
            "play_images", "-r", AS_LAUNCHED[0], source=real_frames, use_sim_time=True, wait_for_subscribers=99
        ),
        "output_recorder": programs.start("record_outputs", out=tmp_path / "recording", use_sim_time=True),
    }
    with subprocess.Popen(command, env=programs.environment, stdin=subprocess.PIPE) as empty:
        for name in (*started, "empty_node"):
            graph.spin_until(lambda: name in watcher.get_node_names(), f"for {name}")  # noqa: B023
        for name in ("image_player", "output_recorder"):
            held_equal(graph, watcher, f"/panoptic/{name}", name)
        graph.spin_until(lambda: watcher.count_subscribers(IMAGE), "for the node to be active")
        expected = sockets(empty.pid)
        assert {kind for kind, _ in expected} == {"udp"}
        assert {name: sockets(process.pid) for name, process in started.items()} == dict.fromkeys(started, expected)
        empty.communicate(b"\n")


def test_compressed_images_are_asked_for_under_their_own_name(graph, fake_node):
    watcher = graph.node("watcher")
    activated(fake_node(*AS_LAUNCHED, periods=QUICK, image_transport="compressed", lazy=False))
    unseen = {IMAGE, "/camera/depth", "/camera/camera_info", "/clock", *UNSEEN}
    held_equal(graph, watcher, "/panoptic/node", "panoptic_node", unseen=unseen)


def test_all_programs_have_an_enclave():
    enclaves = [one.get("path") for one in ElementTree.parse(POLICY).iterfind("enclaves/enclave")]
    programs = ["node", "image_player", "output_recorder", "doctor", "view"]
    assert enclaves == [f"/panoptic/{name}" for name in programs]


def test_sros2_makes_certificates_and_permissions_of_it(tmp_path):
    """The same as `ros2 security generate_artifacts`, which checks the policy by sros2's schema."""
    pytest.importorskip("sros2", reason="sros2 is not installed: it comes with a ROS distribution")
    from sros2.api._artifact_generation import generate_artifacts

    generate_artifacts(tmp_path / "keystore", policy_files=[POLICY])
    names = {
        ("topic", "publish"): ("publish", "rt{}"),
        ("topic", "subscribe"): ("subscribe", "rt{}"),
        ("service", "reply"): ("publish", "rr{}Reply"),
        ("service", "request"): ("publish", "rq{}Request"),
    }
    for enclave in ElementTree.parse(POLICY).iterfind("enclaves/enclave"):
        folder = tmp_path / "keystore" / "enclaves" / enclave.get("path").lstrip("/")
        assert {"cert.pem", "key.pem", "governance.p7s", "permissions.p7s"} <= {path.name for path in folder.iterdir()}
        rules = ElementTree.parse(folder / "permissions.xml").getroot()
        assert {one.text for one in rules.iter("default")} == {"DENY"}
        for right, topics in granted(enclave.get("path")).items():
            kind, form = names[right]
            told = {one.text for one in rules.iterfind(f".//allow_rule/{kind}/topics/topic")}
            assert {form.format(topic) for topic in topics} <= told
