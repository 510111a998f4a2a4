"""What the doctor saw of a graph, and what it concludes. Knows no ROS, so that every rule can be tried without."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rt_panoptic_ros.ros.node.node_settings import NodeSettings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rt_panoptic_ros.ros.endpoints import Endpoint

OK, WARN, ERROR = 0, 1, 2
"""Levels of diagnostic_msgs/msg/DiagnosticStatus."""

LOST_SHARE = 0.02
"""Share of messages lost in transport from which that is a fault: a loaded machine loses one now and then."""


@dataclass(frozen=True)
class Status:
    """One status of /diagnostics."""

    level: int
    message: str
    values: Mapping[str, str]

    def number(self, key: str) -> float | None:
        """Return a value as a number, None where there is none."""
        try:
            return float(self.values[key])
        except (KeyError, ValueError):
            return None


@dataclass(frozen=True)
class ImagesSeen:
    """What the doctor itself received on a camera's topic."""

    received: int = 0
    lost: int = 0  # as far as the middleware noticed
    rate_hz: float = 0.0
    layout: str = ""  # such as rgb8 640x480
    largest: int = 0  # bytes of an image's data
    why_unfit: str = ""  # if the node can use none of them
    unstamped: int = 0  # with a stamp of zero
    age_ms: float | None = None  # median at arrival, by the wall clock here


@dataclass(frozen=True)
class OutputSeen:
    """One of a node's output topics."""

    name: str  # such as semantic
    topic: str  # it may be remapped
    publisher: Endpoint
    subscribers: tuple[Endpoint, ...] = ()  # but for doctors
    received: int | None = None  # by the doctor; None where it did not listen
    lost: int = 0  # on their way to the doctor


@dataclass(frozen=True)
class CameraSeen:
    """One of a node's cameras."""

    name: str  # empty for the only one
    topic: str
    publishers: tuple[Endpoint, ...] = ()
    subscription: Endpoint | None = None  # the node's
    images: ImagesSeen = ImagesSeen()
    outputs: tuple[OutputSeen, ...] = ()
    before: Status | None = None  # its status before the doctor listened
    after: Status | None = None  # and at the end

    def describe(self) -> str:
        """Return one line on what the doctor received."""
        images = self.images
        heard = [f"{output.received} of {output.topic}" for output in self.outputs if output.received is not None]
        return (
            f"{self.topic}: {images.received} images of {images.layout}, {images.largest / 1e6:.1f} MB, at "
            f"{images.rate_hz:.1f} Hz; outputs: {', '.join(heard) or 'not listened to'}"
        )

    def new(self, fate: str) -> int:
        """Return how many frames had this fate, a field of `FrameCounts`, while the doctor listened."""
        counts = [status.number(f"frames {fate}") if status else None for status in (self.before, self.after)]
        return 0 if counts[1] is None else int(counts[1] - (counts[0] or 0.0))


@dataclass(frozen=True)
class NodeSeen:
    """A panoptic node."""

    name: str  # full name
    state: str = ""  # of its lifecycle; empty where neither its service nor /diagnostics tells
    parameters: Mapping[str, Any] = field(default_factory=dict)  # empty where its service does not answer
    status: Status | None = None
    cameras: tuple[CameraSeen, ...] = ()
    namesakes: int = 0  # other nodes of its full name that the graph knows
    reports_overlap: bool = False  # whether they come so often that they are of more than one node
    log: tuple[str, ...] = ()  # its warnings and errors of the last seconds, the newest last

    def setting(self, name: str) -> Any:
        """Return one of `NodeSettings`, the default where the node did not tell."""
        return self.parameters.get(name, getattr(NodeSettings(), name))

    @property
    def takes_compressed(self) -> bool:
        """Whether its cameras' images are to come compressed."""
        return bool(self.setting("image_transport") == "compressed")


@dataclass(frozen=True)
class GraphSeen:
    """The graph, as far as it matters here."""

    nodes: tuple[NodeSeen, ...] = ()
    wanted: str = ""  # name of the only node to look at; empty for all
    others: tuple[str, ...] = ()  # full names of all other nodes, but for doctors
    image_topics: Mapping[str, str] = field(default_factory=dict)  # {topic: kind} that somebody else publishes
    clock_publishers: int = 0
    rmw: str = ""
    environment: Mapping[str, str | None] = field(default_factory=dict)  # what steers discovery here, None if unset
    seconds: float = 0.0  # the doctor listened for


@dataclass(frozen=True)
class Verdict:
    """One thing that is wrong, or worth saying."""

    cause: str
    remedy: str = ""  # in words
    commands: tuple[str, ...] = ()  # that do it
    is_fault: bool = True
    node: str = ""  # that it is about, empty for the graph


def format_report(verdicts: list[Verdict], graph: GraphSeen) -> str:
    """Return the verdicts for eyes, node by node, faults numbered, and what is worth saying after them."""
    lines = []
    for node in (None, *graph.nodes):
        own = [verdict for verdict in verdicts if verdict.node == ("" if node is None else node.name)]
        faults = [verdict for verdict in own if verdict.is_fault]
        if node is not None:
            lines.append(f"{node.name}: {'healthy' if not faults else f'{len(faults)} fault(s)'}")
            lines += [f"  {camera.describe()}" for camera in node.cameras if camera.images.received]
        for number, verdict in enumerate(faults, start=1):
            lines += _paragraph(f"{number}. ", verdict)
        for verdict in own:
            lines += [] if verdict.is_fault else _paragraph("note: ", verdict)
    return "\n".join(lines)


def _paragraph(label: str, verdict: Verdict) -> list[str]:
    lines = [f"  {label}{verdict.cause}"]
    if verdict.remedy:
        lines.append(f"     {verdict.remedy}{':' if verdict.commands else '.'}")
    return [*lines, *(f"       {command}" for command in verdict.commands)]
