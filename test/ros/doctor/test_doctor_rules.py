# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The doctor's rules on made-up records: each fault is named with its remedy, and root causes come alone."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rt_panoptic_ros.ros.doctor.graph import (
    ERROR,
    OK,
    WARN,
    CameraSeen,
    GraphSeen,
    ImagesSeen,
    NodeSeen,
    OutputSeen,
    Status,
)
from rt_panoptic_ros.ros.doctor.node_rules import diagnose
from rt_panoptic_ros.ros.doctor.verdicts import format_report
from rt_panoptic_ros.ros.endpoints import COMPRESSED, IMAGE, Endpoint

DETECTIONS = "rt_panoptic_ros/msg/PanopticDetectionArray"
NAME = "/robot/front"


def status(level=OK, message="", **frames):
    counts = {f"frames {outcome}": str(number) for outcome, number in frames.items()}
    return Status(level, message, {"state": "active", "enabled": "True", "age at arrival p50 (ms)": "4.0", **counts})


OUTPUT = OutputSeen(
    "detections", f"{NAME}/detections", Endpoint(NAME, DETECTIONS), (Endpoint("/planner", DETECTIONS),), 50
)
CAMERA = CameraSeen(
    name="",
    topic="/image",
    publishers=(Endpoint("/camera", IMAGE),),
    subscription=Endpoint(NAME, IMAGE, "best_effort"),
    images=ImagesSeen(received=50, rate_hz=10.0, layout="rgb8 640x480", largest=921600, age_ms=3.0),
    outputs=(OUTPUT,),
    before=status(received=100, processed=100),
    after=status(received=150, processed=150),
)
NODE = NodeSeen(NAME, "active", {"use_sim_time": False}, status(), (CAMERA,))
GRAPH = GraphSeen((NODE,), image_topics={"/image": IMAGE}, rmw="rmw_fastrtps_cpp", seconds=5.0)


def told(camera=CAMERA, node=NODE, graph=GRAPH, **parameters):
    """Return the verdicts on the healthy graph but for what is given."""
    node = replace(node, cameras=(camera,), parameters={**node.parameters, **parameters})
    return diagnose(replace(graph, nodes=(node,)))


def first(camera=CAMERA, node=NODE, graph=GRAPH, **parameters):
    verdict = told(camera, node, graph, **parameters)[0]
    assert verdict.is_fault
    assert verdict.node == NAME
    return verdict


def after(**frames):
    return replace(CAMERA, after=status(**{"received": 150, "processed": 150, **frames}))


def test_health_is_no_verdict():
    assert told() == []
    assert format_report([], GRAPH).startswith(
        f"{NAME}: healthy\n  /image: 50 images of rgb8 640x480, 0.9 MB, at 10.0 Hz"
    )


def test_each_policy_that_keeps_messages_away_is_named():
    modest, greedy = Endpoint("/a", IMAGE, "best_effort"), Endpoint("/b", IMAGE, "reliable", "transient_local", 0.1)
    assert modest.withholds(modest) == greedy.withholds(modest) == ""
    assert modest.withholds(greedy) == (
        "reliability (offered best_effort, asked for reliable) and durability (offered volatile, asked for "
        "transient_local) and deadline (offered inf s, asked for 0.1 s)"
    )


def test_a_node_that_tells_nothing():
    verdict = first(node=replace(NODE, state="", status=Status()))
    assert "lifecycle service does not answer" in verdict.cause


@pytest.mark.parametrize("state", ["deactivating", "shuttingdown", "errorprocessing"])
def test_a_transition_is_no_state_to_be_mended(state):
    (verdict,) = told(node=replace(NODE, state=state, status=replace(status(), values={"state": state})))
    assert verdict.cause == f"It is {state} at this moment."


def test_a_finalized_node_that_tells_nothing_more_is_explained():
    verdict = first(node=replace(NODE, state="finalized", status=Status()))
    assert "no transition leads out" in verdict.cause
    assert verdict.commands == ("ros2 run rt_panoptic_ros panoptic_node --ros-args -r __ns:=/robot -r __node:=front",)


def test_who_left_a_node_inactive_is_said_by_autostart():
    node = replace(NODE, state="inactive", status=replace(status(), values={"state": "inactive"}))
    assert first(node=node).cause == "It is inactive, since somebody deactivated it."
    words = "It is inactive, since autostart is false, or somebody deactivated it."
    assert first(node=node, autostart=False).cause == words


def test_namesakes_are_a_fault_if_both_live_and_else_a_note():
    (verdict,) = told(node=replace(NODE, namesakes=1, reports_overlap=True))
    assert verdict.cause.startswith(f"2 nodes are called {NAME}")
    (verdict,) = told(node=replace(NODE, namesakes=1))
    assert not verdict.is_fault
    assert told(node=replace(NODE, reports_overlap=True)) == []  # some came late, and the next in time


def test_of_two_publishers_the_one_that_fits_is_asked():
    other = Endpoint("/stranger", COMPRESSED)
    camera = replace(CAMERA, publishers=(other, *CAMERA.publishers))
    (verdict,) = told(camera)
    assert "/stranger publishes" in verdict.cause
    assert not verdict.is_fault
    silent = replace(after(received=100, processed=100), publishers=camera.publishers, images=ImagesSeen())
    assert first(silent).cause.startswith("/camera is there as publisher of /image but sent nothing")


def test_what_arrives_is_not_withheld():
    """Some middleware is laxer than DDS."""
    asking = Endpoint(NAME, IMAGE, "reliable")
    camera = replace(CAMERA, subscription=asking, publishers=(Endpoint("/camera", IMAGE, "best_effort"),))
    assert told(camera) == []


@pytest.mark.parametrize("state", ["unconfigured", "configuring"])
def test_an_engine_being_built_is_told_before_the_state(state):
    words = replace(status(WARN, "building the engine: 40 %"), values={"state": "unconfigured"})
    assert "building the engine: 40 %" in first(node=replace(NODE, state=state, status=words)).cause


@pytest.mark.parametrize(
    ("problem", "command"),
    [
        ("cannot configure: expected a model bundle at 'x', found none", f"ros2 param set {NAME} model street_lite0"),
        ("cannot configure: expected a CUDA GPU for device cuda, found none", "nvidia-smi"),
        ("cannot configure: expected object_classes to be known", f"ros2 param list {NAME}"),
    ],
)
def test_why_configuring_failed_decides_the_remedy(problem, command):
    node = replace(NODE, state="unconfigured", status=replace(status(ERROR, problem), values={"state": "unconfigured"}))
    verdict = first(node=node)
    assert problem in verdict.cause
    assert verdict.commands[0] == command
    assert verdict.commands[-2:] == (f"ros2 lifecycle set {NAME} configure", f"ros2 lifecycle set {NAME} activate")


def test_a_node_that_is_not_active_is_not_blamed_for_missing_outputs():
    camera = replace(CAMERA, publishers=(), images=ImagesSeen())
    node = replace(NODE, state="inactive", status=replace(status(), values={"state": "inactive"}))
    (verdict,) = told(camera, node)
    assert verdict.commands == (f"ros2 lifecycle set {NAME} activate",)


def test_another_topic_is_taken_under_the_nodes_own_name():
    camera = replace(CAMERA, publishers=(), images=ImagesSeen())
    graph = replace(GRAPH, image_topics={"/depth": IMAGE, "/x/compressed": COMPRESSED, "/y": IMAGE})
    verdict = first(camera, graph=graph)
    assert "/y, /depth, /x/compressed" in verdict.cause
    start = "ros2 run rt_panoptic_ros panoptic_node --ros-args -r __ns:=/robot -r __node:=front"
    assert verdict.commands == (f"{start} -r image:=/y",)
    verdict = first(camera, graph=replace(graph, image_topics={"/x/compressed": COMPRESSED}))
    assert verdict.commands == (f"{start} -r image:=/x -p image_transport:=compressed",)


def test_one_of_several_cameras_is_mended_through_the_parameter():
    camera = replace(CAMERA, name="rear", topic="/old", publishers=(), images=ImagesSeen())
    verdict = first(camera, graph=replace(GRAPH, image_topics={"/y": IMAGE}), cameras="front=/f,rear=/old")
    assert verdict.commands[1] == f"ros2 param set {NAME} cameras front=/f,rear=/y"


def test_raw_images_are_found_where_compressed_ones_were_expected():
    asking = Endpoint(NAME, COMPRESSED, "best_effort")
    camera = replace(CAMERA, topic="/image/compressed", publishers=(), subscription=asking, images=ImagesSeen())
    verdict = first(camera, image_transport="compressed")
    assert f"ros2 param set {NAME} image_transport raw" in verdict.commands


def test_a_topic_that_was_named_with_its_transport():
    camera = replace(CAMERA, topic="/x/compressed", publishers=(Endpoint("/camera", COMPRESSED),), images=ImagesSeen())
    assert first(camera).commands[0].endswith("-r image:=/x -p image_transport:=compressed")


def test_publishers_that_only_the_node_sees():
    values = {**CAMERA.after.values, "camera publishers": "1"}
    camera = replace(CAMERA, publishers=(), after=replace(CAMERA.after, values=values))
    assert "none is seen from here" in first(camera).cause


def test_images_that_reach_the_doctor_but_not_the_node():
    verdict = first(after(received=100, processed=100))
    assert "arrived here within 5 s, but none at the node" in verdict.cause


@pytest.mark.parametrize(
    ("frames", "largest", "words"),
    [
        ({"lost": 30}, 921600, "export FASTRTPS_DEFAULT_PROFILES_FILE="),
        ({"lost": 30}, 9000, "top"),
        ({"lost": 30, "received": 100}, 0, "export FASTRTPS_DEFAULT_PROFILES_FILE="),
    ],
)
def test_lost_images_are_mended_at_the_sender(frames, largest, words):
    camera = after(**frames)
    verdict = first(replace(camera, images=replace(camera.images, largest=largest)))
    assert "lost in transport" in verdict.cause
    assert verdict.commands[0].startswith(words)


def test_a_single_lost_image_is_no_fault():
    assert told(after(lost=1)) == []


def test_other_middleware_has_another_remedy():
    verdict = first(after(lost=30), graph=replace(GRAPH, rmw="rmw_cyclonedds_cpp"))
    assert "rmw_cyclonedds_cpp" in verdict.remedy
    assert "sysctl" in verdict.commands[0]


@pytest.mark.parametrize(
    ("age_ms", "parameters", "clocks", "words"),
    [
        (-60.0, {}, 0, "0.06 s in the future"),
        (1500.0, {}, 0, "1.50 s old when they arrive"),
        (-3.6e6 * 5, {}, 1, "5.0 h in the future by the node's clock, which is the time of day, while somebody"),
        (-1.7e12, {"use_sim_time": True}, 0, "19676 days in the future by the node's clock, which stands still"),
        (-1.7e12, {"use_sim_time": True}, 1, "while /camera stamps by another clock"),
    ],
)
def test_stamps_of_another_clock(age_ms, parameters, clocks, words):
    values = {**CAMERA.after.values, "age at arrival p50 (ms)": str(age_ms)}
    camera = replace(CAMERA, after=replace(CAMERA.after, values=values))
    assert words in first(camera, graph=replace(GRAPH, clock_publishers=clocks), **parameters).cause


def test_small_ages_are_no_fault():
    for age_ms in (-40.0, 900.0):
        values = {**CAMERA.after.values, "age at arrival p50 (ms)": str(age_ms)}
        assert told(replace(CAMERA, after=replace(CAMERA.after, values=values))) == []


def test_late_frames_are_a_fault_from_half_of_them_on():
    assert told(after(late=20)) == []
    assert "26 of 50 frames were labelled later" in first(after(late=26)).cause


def test_several_faults_of_frames_are_all_told_before_notes():
    camera = after(received=250, processed=101, late=1, refused=5, failed=3, skipped=20)
    verdicts = told(replace(camera, outputs=(replace(OUTPUT, subscribers=()),)))
    assert [verdict.is_fault for verdict in verdicts] == [True, True, True, False, False]
    words = ("failed", "refused", "late", "max_rate_hz", "Nobody")
    assert all(word in verdict.cause for word, verdict in zip(words, verdicts, strict=True))


def test_outputs_that_do_not_come_for_no_known_reason():
    verdict = first(replace(CAMERA, outputs=(replace(OUTPUT, received=0),)), replace(NODE, log=("a hint",)))
    assert "nothing came on /robot/front/detections within 5 s" in verdict.cause
    assert verdict.remedy == "Its log says: a hint"


def test_what_only_the_node_knows_is_passed_on():
    verdict = first(node=replace(NODE, status=status(WARN, "something new")))
    assert "something new" in verdict.cause


def test_parameters_that_were_not_told_are_said_to_be_assumed():
    (verdict,) = told(node=replace(NODE, parameters={}))
    assert "taken to be the defaults" in verdict.cause
    assert not verdict.is_fault


@pytest.mark.parametrize(
    ("given", "commands"),
    [
        ({}, ("max_rate_hz 1.6",)),
        ({"precision": "float32"}, ("precision int8", "max_rate_hz 1.6")),
        ({"backend": "openvino", "precision": "int8"}, ("max_rate_hz 1.6",)),
        ({"precision": "int8", "max_rate_hz": 5.0}, ("max_rate_hz 1.6",)),
        ({"precision": "int8", "max_rate_hz": 1.0}, ()),
    ],
)
def test_an_overloaded_node_is_given_less_than_what_it_labels(given, commands):
    """Ten frames in five seconds, all late."""
    camera = replace(CAMERA, after=status(received=150, processed=110, late=10, dropped=40))
    verdict = first(camera, **given)
    assert "10 of 10 frames were labelled later than the next image of /image came" in verdict.cause
    sets = tuple(command for command in verdict.commands if "param set" in command)
    assert sets == tuple(f"ros2 param set {NAME} {words}" for words in commands)
    assert ("int8" in verdict.remedy) == (given.get("precision") == "float32")
    tunes = f"rt-panoptic tune --model {NODE.setting('model')}" in verdict.commands
    assert tunes == (given.get("precision") != "float32" and "backend" not in given)
