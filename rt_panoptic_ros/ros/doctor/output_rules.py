"""What may be wrong on the way from the node to those who listen to it. Knows no ROS."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rt_panoptic_ros.frames.outputs import FRAME_OUTPUTS
from rt_panoptic_ros.ros.doctor.records import LOST_SHARE, Verdict
from rt_panoptic_ros.ros.doctor.remedies import see_log, set_parameters
from rt_panoptic_ros.ros.node.node_settings import parse_outputs
from rt_panoptic_ros.ros.transport import mend_loss

if TYPE_CHECKING:
    from rt_panoptic_ros.ros.doctor.records import CameraSeen, GraphSeen, NodeSeen, OutputSeen


def judge_outputs(node: NodeSeen, camera: CameraSeen, graph: GraphSeen, *, explained: bool) -> list[Verdict]:
    """Return what is wrong with one camera's outputs.

    Args:
        node: The node.
        camera: The camera.
        graph: The graph.
        explained: Whether a fault is known already that may keep outputs from coming.
    """
    found = [verdict for output in camera.outputs for verdict in _judge_output(node, output, graph)]
    listened = [output for output in camera.outputs if output.received is not None]
    came = any(output.received for output in listened) if listened else camera.new("processed") > 0
    lost = any(output.lost for output in listened)
    if not came and not lost and not explained:
        where = ", ".join(output.topic for output in listened) or "the outputs"
        found.insert(0, Verdict(
            f"Images arrive and the node is active, but nothing came on {where} within {graph.seconds:.0f} s.",
            *see_log(node),
        ))  # fmt: skip
    if not any(output.subscribers for output in camera.outputs):
        rests = ", so it rests but while this doctor listens (lazy)" if node.setting("lazy") else ""
        of = f" of camera {camera.name}" if camera.name else ""
        found.append(Verdict(f"Nobody listens to the outputs{of}{rests}.", is_fault=False))
    return found


def _judge_output(node: NodeSeen, output: OutputSeen, graph: GraphSeen) -> list[Verdict]:
    verdicts = []
    enabled = parse_outputs(node.setting("enabled_outputs"))
    if output.subscribers and output.name not in enabled:
        names = ",".join(name for name in FRAME_OUTPUTS if name in enabled or name == output.name)
        verdicts.append(Verdict(
            f"{output.subscribers[0].node} listens to {output.topic}, which enabled_outputs leaves out.",
            "Enable it",
            set_parameters(node, enabled_outputs=names),
        ))  # fmt: skip
    for subscriber in output.subscribers:
        if subscriber.kind != output.publisher.kind:
            verdicts.append(Verdict(
                f"{subscriber.node} expects {subscriber.kind} on {output.topic}, which is {output.publisher.kind}.",
                "Have it subscribe with that type, or to another output",
                (f"ros2 topic info -v {output.topic}",),
            ))  # fmt: skip
        elif words := output.publisher.withholds(subscriber):
            verdicts.append(_demands_more(node, output, subscriber.node, words))
    received = output.received or 0
    if output.lost > LOST_SHARE * (output.lost + received):
        verdicts.append(Verdict(
            f"{output.lost} of {output.lost + received} messages of {output.topic} were lost on their way here within "
            f"{graph.seconds:.0f} s.",
            *mend_loss(graph.rmw, f"the node {node.name}", 0),
        ))  # fmt: skip
    return verdicts


def _demands_more(node: NodeSeen, output: OutputSeen, subscriber: str, words: str) -> Verdict:
    cause = f"{subscriber} receives nothing on {output.topic}, as it asks for more than the node offers: {words}."
    if words.startswith("reliability"):
        return Verdict(cause, "Have the node offer more", set_parameters(node, output_reliability="reliable"))
    return Verdict(cause, f"Have {subscriber} ask for durability volatile, liveliness automatic and no deadline", (
        f"ros2 topic info -v {output.topic}",
    ))  # fmt: skip
