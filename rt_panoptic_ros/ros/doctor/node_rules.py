# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""What may be wrong with a node as a whole, the root cause alone; the cameras' rules follow. Knows no ROS.

A rule is a function that is given a `Case` and yields its verdicts, none where it has nothing to say. A new one gets
its place in a list of `_judge_node` or `judge_camera`, and its test in test_doctor_rules.py.
"""

from __future__ import annotations

import shlex
from dataclasses import replace
from typing import TYPE_CHECKING

from rt_panoptic_ros.resources import DEFAULT_MODEL
from rt_panoptic_ros.ros.doctor.camera_rules import judge_camera
from rt_panoptic_ros.ros.doctor.graph import ERROR, WARN
from rt_panoptic_ros.ros.doctor.verdicts import Case, Verdict, lacks_gpu
from rt_panoptic_ros.ros.endpoints import IMAGE
from rt_panoptic_ros.ros.node.node_settings import NodeSettings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rt_panoptic_ros.ros.doctor.graph import GraphSeen


def diagnose(graph: GraphSeen) -> list[Verdict]:
    """Return what is wrong on a graph, and what is worth saying: node by node, root causes first."""
    if not graph.nodes:
        return [_no_node(graph)]
    return [replace(verdict, node=node.name) for node in graph.nodes for verdict in _judge_node(Case(graph, node))]


def _judge_node(case: Case) -> list[Verdict]:
    # The first of these that has something to say explains all that others would say, and comes alone.
    causes = (_namesakes, _finalized, _mute, _building, _not_active, _disabled, _no_outputs)
    if alone := case.first_told(causes):
        return alone
    verdicts = case.told((_unanswered, _namesakes_that_may_be_gone))
    for camera in case.node.cameras:
        verdicts += judge_camera(replace(case, camera=camera))
    if not any(verdict.is_fault for verdict in verdicts):
        verdicts += _own_words(case)
    # Stable: faults first, but otherwise in the rules' order.
    return sorted(verdicts, key=lambda verdict: not verdict.is_fault)


def _no_node(graph: GraphSeen) -> Verdict:
    here = [f"{name} {'unset' if value is None else f'= {value}'}" for name, value in graph.environment.items()]
    which = f"node called {graph.wanted}" if graph.wanted else "panoptic node"
    others = (
        f"{len(graph.others)} other node(s): {', '.join(graph.others[:8])}" if graph.others else "no other node either"
    )
    topic = next((topic for topic, kind in graph.image_topics.items() if kind == IMAGE), "/camera/image_raw")
    return Verdict(
        f"There is no {which} on this graph within {graph.seconds:.0f} s, and {others}. Seen from here with "
        f"{', '.join(here)}.",
        "Start it, or, if it runs, see that these variables are the same in its terminal as in this one",
        (f"ros2 launch rt_panoptic_ros panoptic.launch.py image_topic:={topic}", "env | grep -E '^(ROS|RMW)_'"),
    )


def _namesakes(case: Case) -> Iterator[Verdict]:
    node = case.node
    if node.namesakes and node.reports_overlap:
        other = replace(case, node=replace(node, name=f"{node.name}_2"))
        yield Verdict(
            f"{1 + node.namesakes} nodes are called {node.name}: their outputs and reports mix, and a request reaches "
            "either.",
            "End all but one, or start each under a name of its own",
            (f"ros2 node list | grep {node.name}", other.restart()),
        )


def _namesakes_that_may_be_gone(case: Case) -> Iterator[Verdict]:
    if case.node.namesakes:
        yield Verdict(
            f"The graph knows {1 + case.node.namesakes} nodes called {case.node.name}, of which one alone reports: "
            "another was killed some seconds ago, or is no panoptic node.",
            "See whether it is still there in half a minute",
            ("ros2 node list",),
            is_fault=False,
        )


def _finalized(case: Case) -> Iterator[Verdict]:
    if case.node.state == "finalized":
        yield Verdict(
            "It is finalized: somebody shut it down, and no transition leads out of that.",
            "End its process, where that still runs, and start it again with its arguments as before",
            (case.restart(),),
        )


def _mute(case: Case) -> Iterator[Verdict]:
    if not case.node.status.values:
        state = case.node.state
        said = f"Its lifecycle is {state}" if state else "Its lifecycle service does not answer"
        yield Verdict(
            f"{said}, and no status of it came on /diagnostics {case.within}: it loads a model, hangs, or was killed "
            "some seconds ago and is still known to the graph.",
            "See whether its process runs, what it said last, and whether it is still there in half a minute",
            ("pgrep -af panoptic_node", "ros2 node list"),
        )


def _building(case: Case) -> Iterator[Verdict]:
    node, status = case.node, case.node.status
    is_work = status.level == WARN  # of a node that is not active, only loading its model is a warning
    if status.values.get("state") != "active" and (is_work or node.state in ("configuring", "activating")):
        build = f"-p build_only:=true -p model:={shlex.quote(node.setting('model'))}"
        yield Verdict(
            f"Its engine is not ready: {status.message if is_work else node.state}. It goes on by itself.",
            "Wait; provision an engine ahead next time",
            ("ros2 topic echo /diagnostics", f"ros2 run rt_panoptic_ros panoptic_node --ros-args {build}"),
        )


def _not_active(case: Case) -> Iterator[Verdict]:
    node = case.node
    if node.state == "active":
        return
    if node.state not in ("unconfigured", "inactive"):
        yield Verdict(f"It is {node.state} at this moment.", "Look again", (f"ros2 lifecycle get {node.name}",))
        return
    problem = node.status.message if node.status.level == ERROR else ""
    cause = f"It is {node.state}: {problem}."
    if not problem:
        undone = "deactivated it" if node.state == "inactive" else "cleaned it up"
        why = f"somebody {undone}" if node.setting("autostart") else f"autostart is false, or somebody {undone}"
        yield Verdict(f"It is {node.state}, since {why}.", "Activate it", case.activate())
    elif "model bundle" in problem:
        remedy = f"Give it a model that exists here, such as the shipped one (now: {node.setting('model')})"
        yield Verdict(cause, remedy, case.set_parameters(model=DEFAULT_MODEL))
    elif lacks_gpu(problem):
        asked = ", ".join(f"{name} is {node.setting(name)}" for name in ("device", "backend"))
        remedy = "See whether the GPU is there, or let the node do without"
        yield Verdict(f"{cause} ({asked})", remedy, case.do_without_gpu())
    else:
        remedy = "Set what it names (`ros2 param set` while it is not active), then go on"
        yield Verdict(cause, remedy, (f"ros2 param list {node.name}", *case.activate()))


def _unanswered(case: Case) -> Iterator[Verdict]:
    if not case.node.parameters:
        yield Verdict(
            "Its parameter services did not answer, so its parameters are taken to be the defaults here.",
            commands=(f"ros2 param dump {case.node.name}",),
            is_fault=False,
        )


def _disabled(case: Case) -> Iterator[Verdict]:
    if case.node.status.values.get("enabled") == "False":
        yield Verdict(
            "It was disabled through its service ~/enable.",
            "Enable it again",
            (f"ros2 service call {case.node.name}/enable std_srvs/srv/SetBool '{{data: true}}'",),
        )


def _no_outputs(case: Case) -> Iterator[Verdict]:
    if not case.node.enabled:
        yield Verdict(
            "Its parameter enabled_outputs is empty, so it publishes nothing.",
            "Name the outputs that you want",
            case.set_parameters(enabled_outputs=NodeSettings().enabled_outputs),
        )


def _own_words(case: Case) -> Iterator[Verdict]:
    status = case.node.status
    if status.level >= WARN:
        yield Verdict(f"The node itself says: {status.message}", *case.see_log())
