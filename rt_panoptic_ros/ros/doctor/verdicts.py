# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""What the doctor concludes, and what its rules share: who is named, what to do, by which commands. Knows no ROS."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rt_panoptic_ros.errors import printable
from rt_panoptic_ros.ros.doctor.graph import CameraSeen, GraphSeen, NodeSeen
from rt_panoptic_ros.ros.endpoints import Endpoint, why_apart
from rt_panoptic_ros.ros.node.node_settings import NodeSettings, parse_cameras
from rt_panoptic_ros.ros.transport import mend_loss
from rt_panoptic_ros.settings import Change, settings_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    Rule = Callable[["Case"], Iterator["Verdict"]]
    Remedy = tuple[str, tuple[str, ...]]  # in words, and the commands that do it

_CHANGES = {one.name: one.change for one in settings_of(NodeSettings)}
_LOST_SHARE = 0.02  # of messages, from which loss is a fault: a loaded machine loses one now and then

_NO_CAMERA = CameraSeen("", "")


@dataclass(frozen=True)
class Verdict:
    """One thing that is wrong, or worth saying."""

    cause: str
    remedy: str = ""  # in words
    commands: tuple[str, ...] = ()  # that do it
    is_fault: bool = True
    node: str = ""  # that it is about, empty for the graph


@dataclass(frozen=True)
class Case:
    """What a rule looks at: a node, and for a camera's rules one of its cameras."""

    graph: GraphSeen
    node: NodeSeen
    camera: CameraSeen = _NO_CAMERA

    def told(self, rules: Iterable[Rule]) -> list[Verdict]:
        """Return all verdicts of some rules."""
        return [verdict for rule in rules for verdict in rule(self)]

    def first_told(self, rules: Iterable[Rule]) -> list[Verdict]:
        """Return the first verdict alone, if there is one: of rules about what explains everything after it."""
        return next(([verdict] for rule in rules for verdict in rule(self)), [])

    # Who is named, and when ----------------------------------------------------------------------------------------

    @property
    def within(self) -> str:
        """How long the doctor listened, in words."""
        return f"within {self.graph.seconds:.0f} s"

    @property
    def asked(self) -> Endpoint:
        """The node's subscription to the camera, or, while it has none, what it would be."""
        return self.camera.subscription or Endpoint(
            self.node.name, self.node.expects, self.node.setting("image_reliability")
        )

    @property
    def drivers(self) -> list[str]:
        """The nodes whose images can reach the node; all publishers where there are none."""
        publishers = self.camera.publishers
        fitting = [one for one in publishers if not why_apart(self.camera.topic, self.asked, one)]
        return list(dict.fromkeys(publisher.node for publisher in fitting or publishers))

    @property
    def driver(self) -> str:
        """The first of them, of a camera that has publishers."""
        return self.drivers[0]

    # What to do ----------------------------------------------------------------------------------------------------

    def lifecycle(self, *transitions: str) -> tuple[str, ...]:
        """Return the commands for transitions such as configure."""
        return tuple(f"ros2 lifecycle set {self.node.name} {transition}" for transition in transitions)

    def activate(self) -> tuple[str, ...]:
        """Return the commands that activate a node which is inactive or unconfigured."""
        return self.lifecycle(*(["activate"] if self.node.state == "inactive" else ["configure", "activate"]))

    def set_parameters(self, **values: str) -> tuple[str, ...]:
        """Return the commands that set parameters in the node's state, and activate it where it has to be."""
        commands = tuple(
            f"ros2 param set {self.node.name} {name} {shlex.quote(value)}" for name, value in values.items()
        )
        if all(_CHANGES.get(name) is not Change.INACTIVE for name in values):
            return commands
        if self.node.state == "active":
            return (*self.lifecycle("deactivate"), *commands, *self.lifecycle("activate"))
        return (*commands, *self.activate())

    def restart(self, *arguments: str) -> str:
        """Return the command that starts the node anew under its name with ROS arguments such as -r image:=/camera."""
        namespace, _, name = self.node.name.rpartition("/")
        named = [] if name == "panoptic_node" else [f"-r __node:={name}"]
        placed = [f"-r __ns:={namespace}"] if namespace else []
        return " ".join(["ros2 run rt_panoptic_ros panoptic_node --ros-args", *placed, *named, *arguments])

    def take_camera(self, topic: str, transport: str = "") -> tuple[str, ...]:
        """Return the commands that have the node take the camera's images from another topic.

        Args:
            topic: Without the /compressed that image_transport puts behind it.
            transport: raw or compressed; empty to leave it.
        """
        cameras = parse_cameras(str(self.node.parameters.get("cameras", "")))
        values = {"image_transport": transport} if transport else {}
        if self.camera.name in cameras:
            cameras[self.camera.name] = topic
            return self.set_parameters(cameras=",".join(map("=".join, cameras.items())), **values)
        return (self.restart(f"-r image:={topic}", *(f"-p {name}:={value}" for name, value in values.items())),)

    def do_without_gpu(self) -> tuple[str, ...]:
        """Return the commands that look for the GPU, and that let the node work without."""
        return ("nvidia-smi", *self.set_parameters(device="auto", backend="auto"))

    def mend_camera_loss(self) -> Remedy:
        """Return what keeps the camera's images from being lost in transport."""
        return mend_loss(self.graph.rmw, f"the camera {' and '.join(self.drivers)}", self.camera.images.largest)

    def see_log(self, about: str = "") -> Remedy:
        """Return the newest that the node's log says about something, and the command that shows more."""
        lines = next((text.strip().splitlines() for text in reversed(self.node.log) if about in text), [])
        # Of a traceback, the two lines that tell.
        words = f"Its log says: {' ... '.join(dict.fromkeys((lines[0], lines[-1])))}" if lines else "Its log says more"
        return words, ("ros2 topic echo /rosout",)


def is_loss(lost: int, received: int) -> bool:
    """Return whether so many messages were lost in transport that it is a fault."""
    return lost > _LOST_SHARE * (lost + received)


def lacks_gpu(problem: str) -> bool:
    """Return whether what the node says is about a GPU, or an engine that needs one."""
    return any(word in problem for word in ("CUDA", "GPU", "TensorRT", "tensorrt"))


def format_report(verdicts: list[Verdict], graph: GraphSeen) -> str:
    """Return the verdicts of `diagnose` for eyes: node by node, faults numbered, then what is worth saying."""
    lines = _paragraphs(verdicts, "")
    for node in graph.nodes:
        faults = [verdict for verdict in verdicts if verdict.is_fault and verdict.node == node.name]
        lines.append(f"{node.name}: {f'{len(faults)} fault(s)' if faults else 'healthy'}")
        lines += [f"  {camera.describe()}" for camera in node.cameras if camera.images.received]
        lines += _paragraphs(verdicts, node.name)
    # What came over the graph must not speak to the terminal.
    return "\n".join(map(printable, lines))


def _paragraphs(verdicts: list[Verdict], node: str) -> list[str]:
    lines = []
    for number, verdict in enumerate((one for one in verdicts if one.node == node), start=1):
        lines.append(f"  {f'{number}.' if verdict.is_fault else 'note:'} {verdict.cause}")
        if verdict.remedy:
            lines.append(f"     {verdict.remedy}{':' if verdict.commands else '.'}")
        lines += [f"       {command}" for command in verdict.commands]
    return lines
