"""What may be wrong with a node as a whole, the root cause alone; the cameras' rules follow. Knows no ROS."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from rt_panoptic_ros.resources import DEFAULT_MODEL
from rt_panoptic_ros.ros.doctor.camera_rules import judge_camera
from rt_panoptic_ros.ros.doctor.records import ERROR, WARN, Verdict
from rt_panoptic_ros.ros.doctor.remedies import (
    do_without_gpu,
    lacks_gpu,
    lifecycle,
    restart,
    see_log,
    set_parameters,
)
from rt_panoptic_ros.ros.endpoints import IMAGE
from rt_panoptic_ros.ros.node.node_settings import NodeSettings, parse_outputs

if TYPE_CHECKING:
    from rt_panoptic_ros.ros.doctor.records import GraphSeen, NodeSeen


def diagnose(graph: GraphSeen) -> list[Verdict]:
    """Return what is wrong on a graph, and what is worth saying: node by node, root causes first."""
    if not graph.nodes:
        return [_no_node(graph)]
    return [replace(verdict, node=node.name) for node in graph.nodes for verdict in _judge_node(node, graph)]


def _judge_node(node: NodeSeen, graph: GraphSeen) -> list[Verdict]:
    for rule in (_namesakes, _finalized, _mute, _building, _not_active, _disabled, _no_outputs):
        verdict = rule(node, graph)
        if verdict is not None:
            return [verdict]
    verdicts = [] if node.parameters else [_unanswered(node)]
    verdicts += [_namesakes_that_may_be_gone(node)] if node.namesakes else []
    verdicts += [verdict for camera in node.cameras for verdict in judge_camera(node, camera, graph)]
    # Stable: faults first, but otherwise in the rules' order.
    verdicts.sort(key=lambda verdict: not verdict.is_fault)
    status = node.status
    if status is not None and status.level >= WARN and not any(verdict.is_fault for verdict in verdicts):
        verdicts.insert(0, Verdict(f"The node itself says: {status.message}", *see_log(node)))
    return verdicts


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


def _namesakes(node: NodeSeen, _graph: GraphSeen) -> Verdict | None:
    if not (node.namesakes and node.reports_overlap):
        return None
    return Verdict(
        f"{1 + node.namesakes} nodes are called {node.name}: their outputs and reports mix, and a request reaches "
        "either.",
        "End all but one, or start each under a name of its own",
        (f"ros2 node list | grep {node.name}", restart(replace(node, name=f"{node.name}_2"))),
    )


def _namesakes_that_may_be_gone(node: NodeSeen) -> Verdict:
    return Verdict(
        f"The graph knows {1 + node.namesakes} nodes called {node.name}, of which one alone reports: another was "
        "killed some seconds ago, or is no panoptic node.",
        "See whether it is still there in half a minute", ("ros2 node list",), is_fault=False,
    )  # fmt: skip


def _finalized(node: NodeSeen, _graph: GraphSeen) -> Verdict | None:
    if node.state != "finalized":
        return None
    return Verdict(
        "It is finalized: somebody shut it down, and no transition leads out of that.",
        "End its process, where that still runs, and start it again with its arguments as before",
        (restart(node),),
    )


def _mute(node: NodeSeen, graph: GraphSeen) -> Verdict | None:
    if node.status is not None:
        return None
    said = f"Its lifecycle is {node.state}" if node.state else "Its lifecycle service does not answer"
    return Verdict(
        f"{said}, and no status of it came on /diagnostics within {graph.seconds:.0f} s: it loads a model, hangs, or "
        "was killed some seconds ago and is still known to the graph.",
        "See whether its process runs, what it said last, and whether it is still there in half a minute",
        ("pgrep -af panoptic_node", "ros2 node list"),
    )


def _building(node: NodeSeen, _graph: GraphSeen) -> Verdict | None:
    status = node.status
    if status is None or status.values.get("state") == "active":
        return None
    # Of a node that is not active, only work on its engine is a warning.
    if status.level != WARN and node.state not in ("configuring", "activating"):
        return None
    return Verdict(
        f"Its engine is not ready: {status.message if status.level == WARN else node.state}. It goes on by itself.",
        "Wait; provision an engine ahead next time",
        (
            "ros2 topic echo /diagnostics",
            f"ros2 run rt_panoptic_ros panoptic_node --ros-args -p build_only:=true -p model:={node.setting('model')}",
        ),
    )


def _not_active(node: NodeSeen, _graph: GraphSeen) -> Verdict | None:
    if node.state == "active":
        return None
    steps = {"unconfigured": ["configure", "activate"], "inactive": ["activate"]}.get(node.state)
    if steps is None:
        return Verdict(f"It is {node.state} at this moment.", "Look again", (f"ros2 lifecycle get {node.name}",))
    status = node.status
    problem = status.message if status is not None and status.level == ERROR else ""
    if not problem:
        undone = "deactivated it" if node.state == "inactive" else "cleaned it up"
        why = f"somebody {undone}" if node.setting("autostart") else f"autostart is false, or somebody {undone}"
        return Verdict(f"It is {node.state}, since {why}.", "Activate it", lifecycle(node, *steps))
    cause = f"It is {node.state}: {problem}."
    if "model bundle" in problem:
        return Verdict(
            cause, f"Give it a model that exists here, such as the shipped one (now: {node.setting('model')})",
            set_parameters(node, model=DEFAULT_MODEL),
        )  # fmt: skip
    if lacks_gpu(problem):
        asked = ", ".join(f"{name} is {node.setting(name)}" for name in ("device", "backend"))
        return Verdict(
            f"{cause} ({asked})", "See whether the GPU is there, or let the node do without",
            do_without_gpu(node),
        )  # fmt: skip
    return Verdict(
        cause, "Set what it names (`ros2 param set` while it is not active), then go on",
        (f"ros2 param list {node.name}", *lifecycle(node, *steps)),
    )  # fmt: skip


def _unanswered(node: NodeSeen) -> Verdict:
    return Verdict(
        "Its parameter services did not answer, so its parameters are taken to be the defaults here.",
        commands=(f"ros2 param dump {node.name}",), is_fault=False,
    )  # fmt: skip


def _disabled(node: NodeSeen, _graph: GraphSeen) -> Verdict | None:
    if node.status is None or node.status.values.get("enabled") != "False":
        return None
    return Verdict(
        "It was disabled through its service ~/enable.",
        "Enable it again",
        (f"ros2 service call {node.name}/enable std_srvs/srv/SetBool '{{data: true}}'",),
    )


def _no_outputs(node: NodeSeen, _graph: GraphSeen) -> Verdict | None:
    if parse_outputs(node.setting("enabled_outputs")):
        return None
    return Verdict(
        "Its parameter enabled_outputs is empty, so it publishes nothing.",
        "Name the outputs that you want",
        set_parameters(node, enabled_outputs=NodeSettings().enabled_outputs),
    )
