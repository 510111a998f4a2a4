# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""A soak's cameras: each joins the graph as a driver's process would, sends what it is told to, leaves, returns."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

import rclpy
from rclpy.context import Context
from rclpy.serialization import serialize_message
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from rt_panoptic_ros.ros import qos
from rt_panoptic_ros.ros.benchmark.driver import stamped
from rt_panoptic_ros.ros.conversions import image_to_msg

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

WHOLE = ("rgb8", "bgr8", "mono8", "smaller", "larger")
BROKEN = ("cut data", "unknown encoding", "wrong step", "no data", "absurd size")


class Participant:
    """A process's place on the graph, but in this process: a node in a context of its own, which nobody spins."""

    def __init__(self, name: str) -> None:
        """Join the graph."""
        self._context = Context()
        rclpy.init(args=[], context=self._context)
        self.node = rclpy.create_node(name, context=self._context, start_parameter_services=False, enable_rosout=False)

    def close(self) -> None:
        """Leave the graph."""
        self.node.destroy_node()
        rclpy.shutdown(context=self._context)


class SoakCamera:
    """A camera's driver: sends one kind of message at a rate, and can leave the graph and come back."""

    def __init__(self, name: str, topic: str, rate_hz: float, phase: float, images: Sequence[np.ndarray]) -> None:
        """Join the graph.

        Args:
            name: Its name.
            topic: Of its images.
            rate_hz: Of its images in calm.
            phase: When in its period they come, as a share of it: cameras that come at once would wait for each other.
            images: (H, W, 3) uint8 RGB, sent again and again.
        """
        self.name, self.topic, self.calm_hz, self._phase = name, topic, rate_hz, phase
        self._messages = [messages_of(image) for image in images]
        self._sent = 0
        self._participant: Participant | None = None
        self.reset()

    def reset(self) -> None:
        """Be as in calm."""
        self.send("rgb8")
        if self._participant is None:
            self._participant = Participant(f"camera_{self.name}")
            self._publisher = self._participant.node.create_publisher(Image, self.topic, qos.stream("reliable"))
            self._joined_s: float | None = time.monotonic()
        self.pace(self.calm_hz)

    def send(self, kind: str) -> None:
        """Send messages of another kind from now on."""
        self._kind = kind

    def pace(self, rate_hz: float) -> None:
        """Send at another rate from now on; 0 is silence."""
        self._period_s = 1 / rate_hz if rate_hz else math.inf
        self.due_s = (time.monotonic() // self._period_s + 1 + self._phase) * self._period_s

    def discovery_s(self, *, wanted: bool) -> float | None:
        """Return, once, how long the middleware took to bring a camera that has joined the graph and the node together.

        Args:
            wanted: Whether the node wants its images now: it counts from then on.
        """
        if self._joined_s is None or self._participant is None:
            return None
        if not wanted:
            self._joined_s = time.monotonic()
        elif self._publisher.get_subscription_count():
            seconds, self._joined_s = time.monotonic() - self._joined_s, None
            return seconds
        return None

    @property
    def sends_whole(self) -> bool:
        """Whether what it sends now can be labelled: whole images, to a node that the middleware has found."""
        found = self._participant is not None and self._joined_s is None
        return found and self.due_s < math.inf and self._kind in WHOLE

    def leave(self) -> None:
        """Leave the graph, as a driver that ends does; `reset` lets it come back."""
        if self._participant is not None:
            self._participant.close()
            self._participant = None
            self.pace(0.0)

    def play(self, now_s: float) -> None:
        """Send an image if one is due."""
        if now_s < self.due_s or self._participant is None:
            return
        messages = self._messages[self._sent % len(self._messages)]
        self._sent += 1
        self._publisher.publish(stamped(messages[self._kind], self._participant.node.get_clock().now()))
        self.due_s += (
            max(1, math.ceil((now_s - self.due_s) / self._period_s)) * self._period_s
        )  # missed ones are left out


def messages_of(image: np.ndarray) -> dict[str, bytearray]:
    """Return {kind: serialised message} of an image (H, W, 3) uint8 RGB: what can be labelled, and what can't."""

    def message(pixels: np.ndarray, encoding: str, **wrong: Any) -> bytearray:
        msg = image_to_msg(pixels, encoding, Header(frame_id="camera"))
        for name, value in wrong.items():
            setattr(msg, name, value)
        return bytearray(serialize_message(msg))

    data = image.tobytes()
    return {
        "rgb8": message(image, "rgb8"),
        "bgr8": message(image[..., ::-1], "bgr8"),
        "mono8": message(image[..., 1], "mono8"),
        "smaller": message(image[::2, ::2], "rgb8"),
        "larger": message(image.repeat(2, 0).repeat(2, 1), "rgb8"),
        "cut data": message(image, "rgb8", data=data[: len(data) // 2]),
        "unknown encoding": message(image, "rgb7"),
        "wrong step": message(image, "rgb8", step=7),
        "no data": message(image, "rgb8", data=b""),
        "absurd size": message(image, "rgb8", width=10_000, height=10_000, step=30_000),
    }
