# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""What may be wrong on the way from a camera through the node to those who listen to it. Knows no ROS."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from rt_panoptic_ros.frames.outputs import FRAME_OUTPUTS
from rt_panoptic_ros.ros.doctor.verdicts import Verdict, is_loss, lacks_gpu
from rt_panoptic_ros.ros.endpoints import COMPRESSED, IMAGE, find_obstacle, why_apart
from rt_panoptic_ros.ros.node.diagnostics import INPUT_PUBLISHERS
from rt_panoptic_ros.ros.node.frame_statistics import DEPTH_OUTCOMES, FUTURE_MS, LATE_SHARE
from rt_panoptic_ros.ros.transport import mend_loss

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rt_panoptic_ros.ros.doctor.graph import OutputSeen
    from rt_panoptic_ros.ros.doctor.verdicts import Case, Remedy

_PAST_MS = 1000.0  # age at arrival above which a stamp is of another clock: no camera takes so long
_FEW = 3  # images from which what did not happen to them is telling
_LISTED = 8
_BEARABLE = 0.8  # of the rate at which an overloaded node labels: leaves time to others


def judge_camera(case: Case) -> list[Verdict]:
    """Return what is wrong with one camera of an active node and its outputs."""
    # The first of these that has something to say explains all that others would say, and comes alone.
    if no_images := case.first_told((_unseen, _obstacle, _no_publisher, _nothing_arrives, _unfit)):
        return no_images
    rules = (_partly_apart, _unstamped, _other_clock, _lost, _failed, _refused, _overloaded, _rate_limited)
    verdicts = case.told(rules)
    if not any(verdict.is_fault for verdict in verdicts):  # which might keep outputs from coming
        verdicts += _none_comes(case)
    verdicts += case.told((_lacks_input, _unlocated))
    for output in case.camera.outputs:
        for rule in (_switched_off, _withheld, _lost_on_its_way):
            verdicts += rule(case, output)
    return [*verdicts, *_nobody_listens(case)]


# What keeps all images away ---------------------------------------------------------------------------------------


def _unseen(case: Case) -> Iterator[Verdict]:
    counted = case.camera.after.number("camera publishers")
    if counted and not case.camera.publishers:
        yield Verdict(
            f"The node counts {counted:.0f} publisher(s) of {case.camera.topic}, but none is seen from here.",
            "Look again, on the machine of the node",
            (f"ros2 topic info -v {case.camera.topic}",),
        )


def _obstacle(case: Case) -> Iterator[Verdict]:
    camera, topics = case.camera, case.graph.image_topics
    if camera.new("received") and camera.images.received:
        return  # some middleware is laxer
    found = find_obstacle(camera.topic, case.asked, camera.publishers, lambda topic: (topics.get(topic),))
    if found is None:
        return
    commands: tuple[str, ...] = ("ros2 topic list -t | grep Image",)
    if found.what == "quality":
        commands = case.set_parameters(image_reliability="best_effort")
    elif found.what == "transport":
        commands = case.set_parameters(image_transport="raw" if found.kind == IMAGE else "compressed")
    elif found.kind == COMPRESSED and camera.topic.endswith("/compressed"):
        commands = case.take_camera(camera.topic.removesuffix("/compressed"), "compressed")
    elif found.kind == COMPRESSED:
        relay = f"ros2 run topic_tools relay {camera.topic} {camera.topic}/compressed"
        commands = (relay, *case.set_parameters(image_transport="compressed"))
    elif found.kind == IMAGE:
        # The node puts /compressed after its topic, so that one can't be had by another transport alone.
        commands = case.take_camera(camera.topic, "raw")
    yield Verdict(f"{_capitalized(found.cause)}.", _capitalized(found.remedy), commands)


def _no_publisher(case: Case) -> Iterator[Verdict]:
    camera = case.camera
    if camera.publishers:
        return
    # Of the kind that the node expects first; depth images have no colours.
    topics = sorted(
        (kind != case.asked.kind, "depth" in topic, topic) for topic, kind in case.graph.image_topics.items()
    )
    if not topics:
        yield Verdict(
            f"Nobody publishes on {camera.topic}, and the graph has no other topic of images.",
            "Start the camera's driver, with the ROS_DOMAIN_ID of this terminal, and look for its topic",
            ("ros2 topic list -t | grep Image",),
        )
        return
    listed = ", ".join(topic for _, _, topic in topics[:_LISTED])
    more = f" and {len(topics) - _LISTED} more" if len(topics) > _LISTED else ""
    is_other, _, first = topics[0]
    transport = "compressed" if is_other != (case.node.expects == COMPRESSED) else "raw"
    yield Verdict(
        f"Nobody publishes on {camera.topic}, where the node expects images. Topics of images here: {listed}{more}.",
        "Have the node take one of them; where it has to be started again, with its other arguments as before",
        case.take_camera(first.removesuffix("/compressed"), transport if is_other else ""),
    )


def _nothing_arrives(case: Case) -> Iterator[Verdict]:
    camera, images = case.camera, case.camera.images
    if camera.new("received") or (images.received and (camera.subscription is None or not camera.after.values)):
        return  # without a subscription the outputs' rules say why
    if lost := max(camera.new("lost"), images.lost):
        cause = f"All images of {camera.topic} are lost in transport: {lost} {case.within}."
        yield Verdict(cause, *case.mend_camera_loss())
    elif images.received >= _FEW:  # the node may have got fewer after its report
        yield Verdict(
            f"{images.received} images of {camera.topic} ({images.layout}) arrived here {case.within}, but none at the "
            "node.",
            *case.mend_camera_loss(),
        )
    elif not images.received:
        yield Verdict(
            f"{' and '.join(case.drivers)} is there as publisher of {camera.topic} but sent nothing {case.within}.",
            "See whether the driver runs, has opened its device, or is paused, and whether images come anywhere",
            (f"ros2 topic hz {camera.topic}", f"ros2 node info {case.driver}"),
        )


def _unfit(case: Case) -> Iterator[Verdict]:
    camera, images = case.camera, case.camera.images
    if images.why_unfit:
        others = [topic for topic in case.graph.image_topics if topic != camera.topic]
        elsewhere = f" (other topics of images here: {', '.join(others[:_LISTED])})" if others else ""
        yield Verdict(
            f"The images on {camera.topic} ({images.layout}) are none that the node can use: {images.why_unfit}.",
            f"Set the encoding in the driver, or take a topic of colour images{elsewhere}",
            (f"ros2 param list {case.driver}",),
        )


# What spoils images -----------------------------------------------------------------------------------------------


def _partly_apart(case: Case) -> Iterator[Verdict]:
    camera = case.camera
    reasons = [why for publisher in camera.publishers if (why := why_apart(camera.topic, case.asked, publisher))]
    if 0 < len(reasons) < len(camera.publishers):
        yield Verdict(
            f"{_capitalized('; '.join(dict.fromkeys(reasons)))}.",
            "Only the images of others arrive; see whether it is meant to publish there",
            (f"ros2 topic info -v {camera.topic}",),
            is_fault=False,
        )


def _unstamped(case: Case) -> Iterator[Verdict]:
    topic, images = case.camera.topic, case.camera.images
    if images.unstamped:
        yield Verdict(
            f"{images.unstamped} of {images.received} images on {topic} have a stamp of zero, so nothing can be "
            "matched with them by time.",
            f"Have {case.driver} set header.stamp; look whether it has a parameter for it",
            (f"ros2 topic echo --once --field header {topic}", f"ros2 param list {case.driver}"),
        )


def _other_clock(case: Case) -> Iterator[Verdict]:
    node, camera = case.node, case.camera
    simulated, has_clock = bool(node.parameters.get("use_sim_time", False)), bool(case.graph.clock_publishers)
    age_ms = camera.after.number("age at arrival p50 (ms)") if camera.new("received") else None
    if age_ms is None and not simulated:
        age_ms = camera.images.age_ms
    if age_ms is None or FUTURE_MS <= age_ms <= _PAST_MS or camera.images.unstamped:
        return
    apart = f"{_duration(abs(age_ms))} {'in the future' if age_ms < 0 else 'old when they arrive'}"
    set_node = f"ros2 param set {node.name} use_sim_time"
    if simulated and not has_clock:
        why = ", which stands still: use_sim_time is true, but nobody publishes /clock"
        remedy = "Play the bag with its clock, or have the node use the time of day"
        commands = ["ros2 bag play --clock 100 BAG", f"{set_node} false"]
    elif simulated:
        why = f", which follows /clock (use_sim_time is true), while {case.driver} stamps by another clock"
        remedy = "Have both use the same: the camera the simulated time, or the node the time of day"
        commands = [f"ros2 param set {case.driver} use_sim_time true", f"{set_node} false"]
    elif has_clock:
        why = ", which is the time of day, while somebody publishes /clock: a bag or a simulation"
        remedy = "Have the node use the simulated time"
        commands = [f"{set_node} true"]
    else:
        why = ": the clocks of two machines differ, or a bag is played without its clock"
        remedy = "For a camera, synchronise the machines; for a bag, play its clock and have the node use it"
        synchronise = "timedatectl timesync-status   # or: chronyc tracking"
        commands = [synchronise, "ros2 bag play --clock 100 BAG", f"{set_node} true"]
    cause = f"The stamps of the images on {camera.topic} are {apart} by the node's clock{why}."
    yield Verdict(cause, remedy, tuple(commands))


def _lost(case: Case) -> Iterator[Verdict]:
    camera, lost, received = case.camera, case.camera.new("lost"), case.camera.new("received")
    if is_loss(lost, received):
        yield Verdict(
            f"{lost} of {lost + received} images of {camera.topic} ({camera.images.layout or 'none seen here'}) were "
            f"lost in transport {case.within}.",
            *case.mend_camera_loss(),
        )


def _failed(case: Case) -> Iterator[Verdict]:
    if number := case.camera.new("failed"):
        yield Verdict(f"{number} frames failed with an unexpected error {case.within}.", *case.see_log("failed"))


def _refused(case: Case) -> Iterator[Verdict]:
    if number := case.camera.new("refused"):
        words, commands = case.see_log("refused")
        commands = case.do_without_gpu() if lacks_gpu(words) else commands
        yield Verdict(f"{number} frames of {case.camera.topic} were refused {case.within}.", words, commands)


def _overloaded(case: Case) -> Iterator[Verdict]:
    camera, new = case.camera, case.camera.new
    if new("received") >= _FEW and not any(map(new, ("processed", "refused", "failed", "skipped"))):
        yield Verdict(
            f"{new('received')} images of {camera.topic} arrived, but none was labelled {case.within}: the first image "
            "of a size sets the backend up, or a frame takes longer than that.",
            *_less_work(case),
        )
    elif new("late") > LATE_SHARE * new("processed"):
        names, values = {"period": "period (ms)", "median time": "arrival to outputs p50 (ms)"}, camera.after.values
        figures = ", ".join(f"{words} {values[name]} ms" for words, name in names.items() if name in values)
        yield Verdict(
            f"{new('late')} of {new('processed')} frames were labelled later than the next image of {camera.topic} "
            f"came, and {new('dropped')} were dropped for newer ones: the machine is overloaded ({figures}).",
            *_less_work(case),
        )


def _rate_limited(case: Case) -> Iterator[Verdict]:
    if skipped := case.camera.new("skipped"):
        yield Verdict(
            f"max_rate_hz is {case.node.setting('max_rate_hz')}, so {skipped} of {case.camera.new('received')} images "
            f"were skipped {case.within}.",
            "Raise it, or take all",
            case.set_parameters(max_rate_hz="0.0"),
            is_fault=not case.camera.new("processed"),
        )


# What keeps outputs from listeners -------------------------------------------------------------------------------


def _none_comes(case: Case) -> Iterator[Verdict]:
    listened = [output for output in case.camera.outputs if output.received is not None]
    came = any(output.received for output in listened) if listened else case.camera.new("processed") > 0
    if not came and not any(output.lost for output in listened):
        where = ", ".join(output.topic for output in listened) or "the outputs"
        cause = f"Images arrive and the node is active, but nothing came on {where} {case.within}."
        yield Verdict(cause, *case.see_log())


def _lacks_input(case: Case) -> Iterator[Verdict]:
    for name in ("depth", "camera_info"):
        if case.camera.after.number(f"{name}{INPUT_PUBLISHERS}") == 0:
            topic = case.camera.after.values.get(f"{name} input", name)
            yield Verdict(
                f"An output that someone listens to is made from {name}, but nobody publishes on {topic}.",
                f"Remap {name} to the camera's: depth aligned to the colour image, camera_info beside that",
                (f"ros2 topic list -t | grep -i {'depth' if name == 'depth' else 'CameraInfo'}",),
            )


def _unlocated(case: Case) -> Iterator[Verdict]:
    for outcome in DEPTH_OUTCOMES[1:]:
        if frames := case.camera.new(outcome):
            yield Verdict(f"{frames} frames were {outcome} {case.within}.", *case.see_log())


def _switched_off(case: Case, output: OutputSeen) -> Iterator[Verdict]:
    enabled = case.node.enabled
    if output.subscribers and output.name not in enabled:
        yield Verdict(
            f"{output.subscribers[0].node} listens to {output.topic}, which enabled_outputs leaves out.",
            "Enable it",
            case.set_parameters(
                enabled_outputs=",".join(name for name in FRAME_OUTPUTS if name in {*enabled, output.name})
            ),
        )


def _withheld(case: Case, output: OutputSeen) -> Iterator[Verdict]:
    topic, publisher = output.topic, output.publisher
    look = (f"ros2 topic info -v {topic}",)
    for subscriber in output.subscribers:
        who, policies = subscriber.node, publisher.withholds(subscriber)
        if subscriber.kind != publisher.kind:
            cause = f"{who} expects {subscriber.kind} on {topic}, which is {publisher.kind}."
            yield Verdict(cause, "Have it subscribe with that type, or to another output", look)
        elif policies:
            cause = f"{who} receives nothing on {topic}, as it asks for more than the node offers: {policies}."
            if policies.startswith("reliability"):
                yield Verdict(cause, "Have the node offer more", case.set_parameters(output_reliability="reliable"))
            else:
                remedy = f"Have {who} ask for durability volatile, liveliness automatic and no deadline"
                yield Verdict(cause, remedy, look)


def _lost_on_its_way(case: Case, output: OutputSeen) -> Iterator[Verdict]:
    received = output.received or 0
    if is_loss(output.lost, received):
        yield Verdict(
            f"{output.lost} of {output.lost + received} messages of {output.topic} were lost on their way here "
            f"{case.within}.",
            *mend_loss(case.graph.rmw, f"the node {case.node.name}", 0),
        )


def _nobody_listens(case: Case) -> Iterator[Verdict]:
    if not any(output.subscribers for output in case.camera.outputs):
        rests = ", so it rests but while this doctor listens (lazy)" if case.node.setting("lazy") else ""
        of = f" of camera {case.camera.name}" if case.camera.name else ""
        yield Verdict(f"Nobody listens to the outputs{of}{rests}.", is_fault=False)


# What to do, and words --------------------------------------------------------------------------------------------


def _less_work(case: Case) -> Remedy:
    """Return what gives an overloaded node less work: a rate below that at which it labels, and a faster network."""
    words, commands = "take a smaller model or a faster machine", list[str]()
    precision = case.node.setting("precision")
    if "auto" in (precision, case.node.setting("backend")) and precision != "float32":
        words = "have it measured what auto should be here (OpenVINO installed, where there is no GPU), and load that"
        commands.append(f"rt-panoptic tune --model {shlex.quote(case.node.setting('model'))}")
        commands += case.lifecycle("deactivate", "cleanup", "configure", "activate")
    elif precision == "float32":
        words = "give the node less work (int8 needs a model with ranges, as the shipped one has)"
        commands += case.set_parameters(precision="int8")
    limit_hz = float(case.node.setting("max_rate_hz"))
    bearable_hz = max(0.1, round(_BEARABLE * case.camera.new("processed") / case.graph.seconds, 1))
    if not 0 < limit_hz <= bearable_hz:
        commands += case.set_parameters(max_rate_hz=str(bearable_hz))
    return f"Lower the camera's rate, or {words}", tuple(commands)


def _duration(time_ms: float) -> str:
    seconds = time_ms / 1e3
    days = seconds / 86400
    return f"{seconds:.2f} s" if seconds < 3600 else f"{seconds / 3600:.1f} h" if days < 3 else f"{days:.0f} days"


def _capitalized(words: str) -> str:
    return words[:1].upper() + words[1:]
