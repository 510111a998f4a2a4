# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""What the doctor saw of a graph. Knows no ROS, so that every rule can be tried without."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rt_panoptic_ros.ros.endpoints import COMPRESSED, IMAGE, Endpoint
from rt_panoptic_ros.ros.node.node_settings import NodeSettings, parse_outputs

if TYPE_CHECKING:
    from collections.abc import Mapping

OK, WARN, ERROR = 0, 1, 2
"""Levels of diagnostic_msgs/msg/DiagnosticStatus."""


@dataclass(frozen=True)
class Status:
    """One status of /diagnostics; without values where none came."""

    level: int = OK
    message: str = ""
    values: Mapping[str, str] = field(default_factory=dict)

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
    before: Status = Status()  # before the doctor listened
    after: Status = Status()  # and at the end

    def describe(self) -> str:
        """Return one line on what the doctor received."""
        images = self.images
        counts = [f"{output.received} of {output.topic}" for output in self.outputs if output.received is not None]
        return (
            f"{self.topic}: {images.received} images of {images.layout}, {images.largest / 1e6:.1f} MB, at "
            f"{images.rate_hz:.1f} Hz; outputs: {', '.join(counts) or 'not listened to'}"
        )

    def new(self, outcome: str) -> int:
        """Return how many frames had this outcome, a field of `FrameCounts`, while the doctor listened."""
        before, after = (status.number(f"frames {outcome}") for status in (self.before, self.after))
        return 0 if after is None else int(after - (before or 0.0))


@dataclass(frozen=True)
class NodeSeen:
    """A panoptic node."""

    name: str  # full name
    state: str = ""  # of its lifecycle; empty where neither its service nor /diagnostics tells
    parameters: Mapping[str, Any] = field(default_factory=dict)  # empty where its service does not answer
    status: Status = Status()
    cameras: tuple[CameraSeen, ...] = ()
    namesakes: int = 0  # other nodes of its full name that the graph knows
    reports_overlap: bool = False  # whether they come so often that they are of more than one node
    log: tuple[str, ...] = ()  # its warnings and errors of the last seconds, the newest last

    def setting(self, name: str) -> Any:
        """Return one of `NodeSettings`, the default where the node did not tell."""
        return self.parameters.get(name, getattr(NodeSettings(), name))

    @property
    def expects(self) -> str:
        """The type of its cameras' images."""
        return COMPRESSED if self.setting("image_transport") == "compressed" else IMAGE

    @property
    def enabled(self) -> frozenset[str]:
        """The outputs that it publishes."""
        return parse_outputs(self.setting("enabled_outputs"))


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
