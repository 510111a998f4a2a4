# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""What arrives on a camera's topic and on a node's outputs, as the doctor itself receives it."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Any

import numpy as np
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image

from rt_panoptic_ros.errors import RtPanopticError
from rt_panoptic_ros.frames.message_layout import decode_message
from rt_panoptic_ros.ros.doctor.graph import ImagesSeen
from rt_panoptic_ros.ros.node.camera_subscription import subscribe_noticing_loss

if TYPE_CHECKING:
    from rclpy.node import Node

# What every publisher's offer satisfies.
_MODEST = QoSProfile(depth=20, reliability=ReliabilityPolicy.BEST_EFFORT)
_DECODED = 3  # compressed images of one format that are decoded, as each takes its time


class OutputListener:
    """Counts what arrives on a topic, and what is lost on its way."""

    def __init__(self, node: Node, kind: Any, topic: str) -> None:
        """Subscribe, asking for so little that every publisher offers it."""
        self.received = self.lost = 0
        subscribe_noticing_loss(node, kind, topic, self._on_message, _MODEST, self._on_loss)

    def _on_message(self, _msg: Any) -> None:
        self.received += 1

    def _on_loss(self, event: Any) -> None:
        self.lost = event.total_count


class ImageListener(OutputListener):
    """Looks at a camera's images, as the node would."""

    def __init__(self, node: Node, kind: Any, topic: str) -> None:
        """Subscribe as its base does."""
        self._span_s = (0.0, 0.0)  # when the first and the last arrived
        self._ages_ms: deque[float] = deque(maxlen=100)
        self._layout = ""
        self._largest = self._unstamped = 0
        self._judged: dict[tuple[object, ...], list[str]] = {}  # layout: why images are unfit, empty for fit ones
        super().__init__(node, kind, topic)

    def _on_message(self, msg: Image | CompressedImage) -> None:
        super()._on_message(msg)
        now_s = time.monotonic()
        self._span_s = (now_s if self.received == 1 else self._span_s[0], now_s)
        stamp = msg.header.stamp
        if stamp.sec == 0 and stamp.nanosec == 0:
            self._unstamped += 1
        else:
            self._ages_ms.append((time.time() - stamp.sec - stamp.nanosec / 1e9) * 1e3)
        self._largest = max(self._largest, len(msg.data))
        self._judge(msg)

    def _judge(self, msg: Image | CompressedImage) -> None:
        """Find out whether the node would refuse an image; raw ones of a known layout are alike."""
        key: tuple[object, ...]
        if isinstance(msg, CompressedImage):
            key, self._layout, trials = (msg.format,), msg.format, _DECODED
        else:
            key = (msg.encoding, msg.height, msg.width, msg.step, len(msg.data))
            self._layout, trials = f"{msg.encoding} {msg.width}x{msg.height}", 1
        found = self._judged.setdefault(key, [])
        if len(found) < trials:
            try:
                decode_message(msg)
                found.append("")
            except RtPanopticError as error:
                found.append(str(error))

    def seen(self) -> ImagesSeen:
        """Return what was seen up to now."""
        span_s = self._span_s[1] - self._span_s[0]
        reasons = [reason for found in self._judged.values() for reason in found]
        return ImagesSeen(
            received=self.received,
            lost=self.lost,
            rate_hz=(self.received - 1) / span_s if span_s > 0 else 0.0,
            layout=self._layout,
            largest=self._largest,
            why_unfit=reasons[-1] if reasons and all(reasons) else "",
            unstamped=self._unstamped,
            age_ms=float(np.median(self._ages_ms)) if self._ages_ms else None,
        )
