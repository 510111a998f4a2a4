# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""How depth lies in messages, and which depth belongs to which image."""

from __future__ import annotations

from collections import deque
from typing import Any, Generic, TypeVar

import numpy as np

from rt_panoptic_ros.errors import InvalidInputError
from rt_panoptic_ros.frames.pixel_encodings import shown

Frame = TypeVar("Frame")
Depth = TypeVar("Depth")

ENCODINGS = {"16uc1": "u2", "mono16": "u2", "32fc1": "f4"}
"""{encoding in lower case: type of its numbers}; of 16 bits they are mm, of 32 m."""


def decode_depth(msg: Any) -> np.ndarray:
    """Return the pixels of a depth image's message, (H, W), viewed where they lie if they are of this machine's order.

    Args:
        msg: A sensor_msgs/Image, whoever's class holds it; padded rows and either byte order.

    Returns:
        uint16 in mm, or float32 in m.

    Raises:
        InvalidInputError: Not depth, or inconsistent.
    """
    kind = ENCODINGS.get(msg.encoding.strip().lower())
    if kind is None:
        raise InvalidInputError(
            f"expected depth as 16UC1 (mm) or 32FC1 (m), got '{shown(msg.encoding)}': remap depth to the depth image "
            "that is aligned to the colour image, as it is (image_transport republishes compressedDepth as raw)"
        )
    height, width, step, size = msg.height, msg.width, msg.step, int(kind[1])
    if min(height, width) < 1 or step < width * size or len(msg.data) != height * step:
        raise InvalidInputError(
            f"expected depth of {height}x{width} px in rows of at least {width * size} bytes, got {len(msg.data)} "
            f"bytes with a step of {step}: the depth is skipped"
        )
    pixels: np.ndarray = np.ndarray(
        (height, width), ">" + kind if msg.is_bigendian else "<" + kind, buffer=msg.data, strides=(step, size)
    )
    return pixels.astype(pixels.dtype.newbyteorder("="), copy=False)


class DepthMatcher(Generic[Frame, Depth]):
    """Gives frames their depth by stamp, each in its turn, as soon as it is there.

    Of the depths that are there when a frame comes it gets the one with the nearest stamp, if that is near enough; else
    the first that comes and is. A frame goes without when a depth has come that is too late for it, or more frames
    wait than are kept; stamps of depth rise.
    """

    def __init__(self, frames_kept: int = 1, depths_kept: int = 8) -> None:
        """Begin without; at most so many of the newest are kept."""
        self._frames_kept = frames_kept
        self._waiting: deque[tuple[int, int, Frame]] = deque()  # stamp and slack, ns
        self._depths: deque[tuple[int, Depth]] = deque(maxlen=depths_kept)

    def add_frame(self, stamp_ns: int, slack_ns: int, frame: Frame) -> list[tuple[Frame, Depth | None]]:
        """Take a frame; return those that now have their depth, or go without, the oldest first.

        Args:
            stamp_ns: Its stamp.
            slack_ns: By how much that of its depth may differ; 0 for not at all.
            frame: It, or what stands for it.
        """
        self._waiting.append((stamp_ns, slack_ns, frame))
        return self._settled()

    def add_depth(self, stamp_ns: int, depth: Depth) -> list[tuple[Frame, Depth | None]]:
        """Take a depth; return the same."""
        self._depths.append((stamp_ns, depth))
        return self._settled()

    def end(self) -> list[tuple[Frame, Depth | None]]:
        """Forget all; return the frames that waited."""
        waiting, self._waiting = self._waiting, deque()
        self._depths.clear()
        return [(frame, None) for _, _, frame in waiting]

    def offset_ns(self, stamp_ns: int) -> int | None:
        """Return by how much the stamp that is nearest to one is later, None without depth."""
        return min((stamp - stamp_ns for stamp, _ in self._depths), key=abs, default=None)

    def _settled(self) -> list[tuple[Frame, Depth | None]]:
        settled: list[tuple[Frame, Depth | None]] = []
        still: deque[tuple[int, int, Frame]] = deque()
        for place, (stamp_ns, slack_ns, frame) in enumerate(self._waiting):
            nearest = min(self._depths, key=lambda known: abs(known[0] - stamp_ns), default=None)
            if nearest is not None and abs(nearest[0] - stamp_ns) <= slack_ns:
                settled.append((frame, nearest[1]))
            elif (self._depths and self._depths[-1][0] > stamp_ns + slack_ns) or place < len(
                self._waiting
            ) - self._frames_kept:
                settled.append((frame, None))
            else:
                still.append((stamp_ns, slack_ns, frame))
        self._waiting = still
        return settled
