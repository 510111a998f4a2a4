# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Who publishes on a camera's topic, and what keeps the images from the node, as the graph tells it. Knows no ROS.

The node's log, its diagnostics and the doctor all say what is said here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

IMAGE, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"

_ENDLESS_S = 9e9  # what middleware writes for a duration without end is above, some 292 years


def is_name(text: str) -> bool:
    """Return whether a text that came over the graph can be the full name of a node or a topic."""
    return re.fullmatch(r"(/[A-Za-z_][A-Za-z0-9_]*)+", text) is not None


@dataclass(frozen=True)
class Endpoint:
    """A publisher or a subscription of a topic."""

    node: str  # full name
    kind: str  # of the messages, such as sensor_msgs/msg/Image
    reliability: str = "reliable"  # or best_effort
    durability: str = "volatile"  # or transient_local
    deadline_s: float = float("inf")
    liveliness: str = "automatic"  # or manual_by_topic
    lease_s: float = float("inf")  # of the liveliness

    @classmethod
    def of(cls, info: Any) -> Endpoint:
        """Return what one of rclpy's `TopicEndpointInfo` tells."""
        profile = info.qos_profile
        return cls(
            f"{info.node_namespace.rstrip('/')}/{info.node_name}",
            info.topic_type,
            profile.reliability.name.lower(),
            profile.durability.name.lower(),
            _seconds(profile.deadline),
            profile.liveliness.name.lower(),
            _seconds(profile.liveliness_lease_duration),
        )

    def withholds(self, asking: Endpoint) -> str:
        """Return the policies for which this publisher's messages never reach a subscription; empty if they do."""
        pairs = (
            ("reliability", self.reliability, asking.reliability, "best_effort", "reliable"),
            ("durability", self.durability, asking.durability, "volatile", "transient_local"),
            ("liveliness", self.liveliness, asking.liveliness, "automatic", "manual_by_topic"),
        )
        found = [
            f"{policy} (offered {offered}, asked for {asked})"
            for policy, offered, asked, less, more in pairs
            if (offered, asked) == (less, more)
        ]
        times = (
            ("deadline", self.deadline_s, asking.deadline_s),
            ("liveliness lease", self.lease_s, asking.lease_s),
        )
        found += [
            f"{policy} (offered {offered:g} s, asked for {asked:g} s)"
            for policy, offered, asked in times
            if offered > asked
        ]
        return " and ".join(found)


@dataclass(frozen=True)
class Obstacle:
    """What keeps all images of a topic from the node."""

    what: Literal["transport", "type", "quality"]
    cause: str
    remedy: str
    kind: str  # of what is published


def find_obstacle(
    topic: str, asked: Endpoint, publishers: Sequence[Endpoint], kinds_on: Callable[[str], Collection[str | None]]
) -> Obstacle | None:
    """Return why none of a topic's publishers can reach the node; None if one can, or for lack of publishers alone.

    Args:
        topic: The resolved name of what the node subscribes to.
        asked: The node's subscription.
        publishers: All of the topic.
        kinds_on: Returns what another topic's publishers publish.
    """
    if not publishers:
        return _other_transport(topic, asked.kind, kinds_on)
    refused = {publisher: why_apart(topic, asked, publisher) for publisher in publishers}
    if not all(refused.values()):
        return None
    cause = "; ".join(dict.fromkeys(refused.values()))
    if any(publisher.kind == asked.kind for publisher in publishers):
        remedy = "set the node's parameter image_reliability to best_effort, which receives from every camera"
        return Obstacle("quality", cause, remedy, asked.kind)
    kind = publishers[0].kind
    if kind == COMPRESSED and topic.endswith("/compressed"):
        remedy = "name the topic without /compressed, and set the node's parameter image_transport to compressed"
    elif kind == COMPRESSED:
        remedy = (
            "have the camera publish them under /compressed, where image_transport has them, and set the node's "
            "parameter image_transport to compressed"
        )
    elif kind == IMAGE:
        remedy = f"have the node take the images as they are: its parameter image_transport raw, its topic {topic}"
    else:
        remedy = "have the node take a topic of images"
    return Obstacle("type", cause, remedy, kind)


def why_apart(topic: str, asked: Endpoint, publisher: Endpoint) -> str:
    """Return why a publisher's messages can't reach the node, a clause; empty if they can."""
    if publisher.kind != asked.kind:
        return f"{publisher.node} publishes {publisher.kind} on {topic}, where the node expects {asked.kind}"
    policies = publisher.withholds(asked)
    return policies and f"the camera {publisher.node} offers less on {topic} than the node asks for: {policies}"


def _other_transport(topic: str, kind: str, kinds_on: Callable[[str], Collection[str | None]]) -> Obstacle | None:
    if kind == IMAGE:
        other, other_kind, how, transport = f"{topic}/compressed", COMPRESSED, "as JPEG or PNG", "compressed"
    else:
        other, other_kind, how, transport = topic.removesuffix("/compressed"), IMAGE, "as they are", "raw"
    if other_kind not in kinds_on(other):
        return None
    return Obstacle(
        "transport",
        f"nobody publishes on {topic}, but {other} has the images {how}",
        f"set the node's parameter image_transport to {transport}",
        other_kind,
    )


def _seconds(duration: Any) -> float:
    seconds: float = duration.nanoseconds / 1e9
    return seconds if 0 < seconds < _ENDLESS_S else float("inf")  # zero stands for a policy left alone
