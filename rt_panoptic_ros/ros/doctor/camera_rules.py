"""What may be wrong on the way from a camera through the node. Knows no ROS."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rt_panoptic_ros.ros.doctor.output_rules import judge_outputs
from rt_panoptic_ros.ros.doctor.records import LOST_SHARE, Verdict
from rt_panoptic_ros.ros.doctor.remedies import (
    do_without_gpu,
    lacks_gpu,
    see_log,
    set_parameters,
    take_camera,
)
from rt_panoptic_ros.ros.endpoints import COMPRESSED, IMAGE, Endpoint, find_obstacle, why_apart
from rt_panoptic_ros.ros.node.frame_statistics import FUTURE_MS, LATE_SHARE
from rt_panoptic_ros.ros.transport import mend_loss

if TYPE_CHECKING:
    from rt_panoptic_ros.ros.doctor.records import CameraSeen, GraphSeen, NodeSeen

PAST_MS = 1000.0
"""Age at arrival above which a stamp is of another clock: no camera takes so long."""

_FEW = 3  # images from which what did not happen to them is telling
_LISTED = 8
_BEARABLE = 0.8  # of the rate at which an overloaded node labels: leaves time to others


def judge_camera(node: NodeSeen, camera: CameraSeen, graph: GraphSeen) -> list[Verdict]:
    """Return what is wrong with one camera of an active node; what keeps all images away comes alone."""
    for gate in (_unseen, _obstacle, _no_publisher, _nothing_arrives, _unfit):
        verdict = gate(node, camera, graph)
        if verdict is not None:
            return [verdict]
    rules = (_partly_apart, _unstamped, _other_clock, _lost, _failed, _refused, _overloaded, _rate_limited)
    verdicts = [verdict for rule in rules if (verdict := rule(node, camera, graph)) is not None]
    return [*verdicts, *judge_outputs(node, camera, graph, explained=any(verdict.is_fault for verdict in verdicts))]


# What keeps all images away ---------------------------------------------------------------------------------------


def _unseen(_node: NodeSeen, camera: CameraSeen, _graph: GraphSeen) -> Verdict | None:
    counted = camera.after.number("camera publishers") if camera.after is not None else None
    if camera.publishers or not counted:
        return None
    return Verdict(
        f"The node counts {counted:.0f} publisher(s) of {camera.topic}, but none is seen from here.",
        "Look again, on the machine of the node",
        (f"ros2 topic info -v {camera.topic}",),
    )


def _obstacle(node: NodeSeen, camera: CameraSeen, graph: GraphSeen) -> Verdict | None:
    if camera.new("received") and camera.images.received:
        return None  # some middleware is laxer
    asked = _asked(node, camera)
    obstacle = find_obstacle(camera.topic, asked, camera.publishers, lambda topic: (graph.image_topics.get(topic),))
    if obstacle is None:
        return None
    commands: tuple[str, ...] = ("ros2 topic list -t | grep Image",)
    if obstacle.what == "quality":
        commands = set_parameters(node, image_reliability="best_effort")
    elif obstacle.what == "transport":
        commands = set_parameters(node, image_transport="raw" if obstacle.kind == IMAGE else "compressed")
    elif obstacle.kind == COMPRESSED and camera.topic.endswith("/compressed"):
        commands = take_camera(node, camera.name, camera.topic.removesuffix("/compressed"), "compressed")
    elif obstacle.kind == COMPRESSED:
        relay = f"ros2 run topic_tools relay {camera.topic} {camera.topic}/compressed"
        commands = (relay, *set_parameters(node, image_transport="compressed"))
    elif obstacle.kind == IMAGE:
        # The node puts /compressed after its topic, so that one can't be had by another transport alone.
        commands = take_camera(node, camera.name, camera.topic, "raw")
    return Verdict(_sentence(obstacle.cause), _capitalized(obstacle.remedy), commands)


def _no_publisher(node: NodeSeen, camera: CameraSeen, graph: GraphSeen) -> Verdict | None:
    if camera.publishers:
        return None
    # Of the kind that the node expects first; depth images have no colours.
    kind = _asked(node, camera).kind
    topics = sorted((other != kind, "depth" in topic, topic) for topic, other in graph.image_topics.items())
    if not topics:
        return Verdict(
            f"Nobody publishes on {camera.topic}, and the graph has no other topic of images.",
            "Start the camera's driver, with the ROS_DOMAIN_ID of this terminal, and look for its topic",
            ("ros2 topic list -t | grep Image",),
        )
    names = [topic for _, _, topic in topics]
    listed = ", ".join(names[:_LISTED]) + (f" and {len(names) - _LISTED} more" if len(names) > _LISTED else "")
    is_other, _, first = topics[0]
    transport = "compressed" if is_other != node.takes_compressed else "raw"
    return Verdict(
        f"Nobody publishes on {camera.topic}, where the node expects images. Topics of images here: {listed}.",
        "Have the node take one of them; where it has to be started again, with its other arguments as before",
        take_camera(node, camera.name, first.removesuffix("/compressed"), transport if is_other else ""),
    )


def _nothing_arrives(node: NodeSeen, camera: CameraSeen, graph: GraphSeen) -> Verdict | None:
    new = camera.new("received")
    if new or (camera.images.received and (camera.subscription is None or camera.after is None)):
        return None  # without a subscription the outputs' rules say why
    lost = max(camera.new("lost"), camera.images.lost)
    if lost:
        return Verdict(
            f"All images of {camera.topic} are lost in transport: {lost} within {graph.seconds:.0f} s.",
            *mend_loss(graph.rmw, f"the camera {_drivers(node, camera)}", camera.images.largest),
        )
    if 0 < camera.images.received < _FEW:
        return None  # the node may have got them after its report
    if camera.images.received:
        return Verdict(
            f"{camera.images.received} images of {camera.topic} ({camera.images.layout}) arrived here within "
            f"{graph.seconds:.0f} s, but none at the node.",
            *mend_loss(graph.rmw, f"the camera {_drivers(node, camera)}", camera.images.largest),
        )
    return Verdict(
        f"{_drivers(node, camera)} is there as publisher of {camera.topic} but sent nothing within "
        f"{graph.seconds:.0f} s.",
        "See whether the driver runs, has opened its device, or is paused, and whether images come anywhere",
        (f"ros2 topic hz {camera.topic}", f"ros2 node info {_driver(node, camera)}"),
    )


def _unfit(node: NodeSeen, camera: CameraSeen, graph: GraphSeen) -> Verdict | None:
    images = camera.images
    if not images.why_unfit:
        return None
    others = [topic for topic in graph.image_topics if topic != camera.topic]
    elsewhere = f" (other topics of images here: {', '.join(others[:_LISTED])})" if others else ""
    return Verdict(
        f"The images on {camera.topic} ({images.layout}) are none that the node can use: {images.why_unfit}.",
        f"Set the encoding in the driver, or take a topic of colour images{elsewhere}",
        (f"ros2 param list {_driver(node, camera)}",),
    )


# What spoils images -----------------------------------------------------------------------------------------------


def _partly_apart(node: NodeSeen, camera: CameraSeen, _graph: GraphSeen) -> Verdict | None:
    asked = _asked(node, camera)
    reasons = [why for publisher in camera.publishers if (why := why_apart(camera.topic, asked, publisher))]
    if len(reasons) in (0, len(camera.publishers)):
        return None
    return Verdict(
        _sentence("; ".join(dict.fromkeys(reasons))),
        "Only the images of others arrive; see whether it is meant to publish there",
        (f"ros2 topic info -v {camera.topic}",),
        is_fault=False,
    )


def _unstamped(node: NodeSeen, camera: CameraSeen, _graph: GraphSeen) -> Verdict | None:
    if not camera.images.unstamped:
        return None
    publisher = _driver(node, camera)
    return Verdict(
        f"{camera.images.unstamped} of {camera.images.received} images on {camera.topic} have a stamp of zero, so "
        "nothing can be matched with them by time.",
        f"Have {publisher} set header.stamp; look whether it has a parameter for it",
        (f"ros2 topic echo --once --field header {camera.topic}", f"ros2 param list {publisher}"),
    )


def _other_clock(node: NodeSeen, camera: CameraSeen, graph: GraphSeen) -> Verdict | None:
    simulated = bool(node.parameters.get("use_sim_time", False))
    age_ms = (
        camera.after.number("age at arrival p50 (ms)") if camera.after is not None and camera.new("received") else None
    )
    if age_ms is None and not simulated:
        age_ms = camera.images.age_ms
    if age_ms is None or FUTURE_MS <= age_ms <= PAST_MS or camera.images.unstamped:
        return None
    apart = f"{_duration(abs(age_ms))} {'in the future' if age_ms < 0 else 'old when they arrive'}"
    cause = f"The stamps of the images on {camera.topic} are {apart} by the node's clock"
    publisher = _driver(node, camera)
    if simulated and not graph.clock_publishers:
        return Verdict(
            f"{cause}, which stands still: use_sim_time is true, but nobody publishes /clock.",
            "Play the bag with its clock, or have the node use the time of day",
            ("ros2 bag play --clock 100 BAG", f"ros2 param set {node.name} use_sim_time false"),
        )
    if simulated:
        return Verdict(
            f"{cause}, which follows /clock (use_sim_time is true), while {publisher} stamps by another clock.",
            "Have both use the same: the camera the simulated time, or the node the time of day",
            (f"ros2 param set {publisher} use_sim_time true", f"ros2 param set {node.name} use_sim_time false"),
        )
    if graph.clock_publishers:
        return Verdict(
            f"{cause}, which is the time of day, while somebody publishes /clock: a bag or a simulation.",
            "Have the node use the simulated time",
            (f"ros2 param set {node.name} use_sim_time true",),
        )
    return Verdict(
        f"{cause}: the clocks of two machines differ, or a bag is played without its clock.",
        "For a camera, synchronise the machines; for a bag, play its clock and have the node use it",
        ("timedatectl timesync-status   # or: chronyc tracking", "ros2 bag play --clock 100 BAG",
         f"ros2 param set {node.name} use_sim_time true"),
    )  # fmt: skip


def _lost(node: NodeSeen, camera: CameraSeen, graph: GraphSeen) -> Verdict | None:
    lost, received = camera.new("lost"), camera.new("received")
    if lost <= LOST_SHARE * (lost + received):
        return None
    return Verdict(
        f"{lost} of {lost + received} images of {camera.topic} ({camera.images.layout or 'none seen here'}) were lost "
        f"in transport within {graph.seconds:.0f} s.",
        *mend_loss(graph.rmw, f"the camera {_drivers(node, camera)}", camera.images.largest),
    )


def _failed(node: NodeSeen, camera: CameraSeen, graph: GraphSeen) -> Verdict | None:
    failed = camera.new("failed")
    if not failed:
        return None
    return Verdict(
        f"{failed} frames failed with an unexpected error within {graph.seconds:.0f} s.", *see_log(node, "failed")
    )


def _refused(node: NodeSeen, camera: CameraSeen, graph: GraphSeen) -> Verdict | None:
    refused = camera.new("refused")
    if not refused:
        return None
    words, commands = see_log(node, "refused")
    if lacks_gpu(words):
        commands = do_without_gpu(node)
    cause = f"{refused} frames of {camera.topic} were refused within {graph.seconds:.0f} s."
    return Verdict(cause, words, commands)


def _overloaded(node: NodeSeen, camera: CameraSeen, graph: GraphSeen) -> Verdict | None:
    processed, late = camera.new("processed"), camera.new("late")
    others = sum(camera.new(fate) for fate in ("refused", "failed", "skipped"))
    ease = _less_work(node, processed / graph.seconds)
    if not processed and not others and camera.new("received") >= _FEW:
        return Verdict(
            f"{camera.new('received')} images of {camera.topic} arrived, but none was labelled within "
            f"{graph.seconds:.0f} s: the first image of a size loads the engine, or a frame takes longer than that.",
            *ease,
        )
    if late <= LATE_SHARE * processed:
        return None
    status = camera.after
    figures = [
        f"{key} {status.values[name]} ms"
        for key, name in (("period", "period (ms)"), ("median time", "arrival to outputs p50 (ms)"))
        if status is not None and name in status.values
    ]
    return Verdict(
        f"{late} of {processed} frames were labelled later than the next image of {camera.topic} came, and "
        f"{camera.new('dropped')} were dropped for newer ones: the machine is overloaded ({', '.join(figures)}).",
        *ease,
    )


def _rate_limited(node: NodeSeen, camera: CameraSeen, graph: GraphSeen) -> Verdict | None:
    skipped = camera.new("skipped")
    if not skipped:
        return None
    limit = node.setting("max_rate_hz")
    return Verdict(
        f"max_rate_hz is {limit}, so {skipped} of {camera.new('received')} images were skipped within "
        f"{graph.seconds:.0f} s.",
        "Raise it, or take all",
        set_parameters(node, max_rate_hz="0.0"),
        is_fault=not camera.new("processed"),
    )


def _less_work(node: NodeSeen, rate_hz: float) -> tuple[str, tuple[str, ...]]:
    """Return what eases a node that labels at `rate_hz` only, and the commands that do it."""
    words, commands = "take a smaller model or a faster machine", list[str]()
    if node.setting("precision") == "float32":
        words = "give the node less work (int8 needs a model with ranges, as the shipped one has)"
        commands += set_parameters(node, precision="int8")
    limit_hz, bearable_hz = float(node.setting("max_rate_hz")), max(0.1, round(_BEARABLE * rate_hz, 1))
    if not 0 < limit_hz <= bearable_hz:
        commands += set_parameters(node, max_rate_hz=str(bearable_hz))
    return f"Lower the camera's rate, or {words}", tuple(commands)


def _duration(time_ms: float) -> str:
    seconds = time_ms / 1e3
    days = seconds / 86400
    return f"{seconds:.2f} s" if seconds < 3600 else f"{seconds / 3600:.1f} h" if days < 3 else f"{days:.0f} days"


def _drivers(node: NodeSeen, camera: CameraSeen) -> str:
    """Return the nodes whose images can reach the node, all publishers where there are none."""
    asked = _asked(node, camera)
    fitting = [publisher for publisher in camera.publishers if not why_apart(camera.topic, asked, publisher)]
    return " and ".join(dict.fromkeys(publisher.node for publisher in fitting or camera.publishers))


def _driver(node: NodeSeen, camera: CameraSeen) -> str:
    return _drivers(node, camera).partition(" ")[0]


def _asked(node: NodeSeen, camera: CameraSeen) -> Endpoint:
    """Return the node's subscription, or, while it has none, what it would be."""
    kind = COMPRESSED if node.takes_compressed else IMAGE
    return camera.subscription or Endpoint(node.name, kind, node.setting("image_reliability"))


def _sentence(clause: str) -> str:
    return f"{_capitalized(clause)}."


def _capitalized(words: str) -> str:
    return words[:1].upper() + words[1:]
