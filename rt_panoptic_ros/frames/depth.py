# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""How depth lies in messages, and which depth belongs to which image."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np

from rt_panoptic_ros.errors import InvalidInputError
from rt_panoptic_ros.frames.message_layout import check_frame_id
from rt_panoptic_ros.frames.pixel_encodings import shown

if TYPE_CHECKING:
    from collections.abc import Callable

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
    check_frame_id(msg)
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
    """Gives frames their depth by stamp: the nearest one, if it is near enough.

    A frame waits until no nearer depth can come, that is until one has its own stamp or a later one, as stamps of depth
    rise; an urgent one only until any is near enough. When more frames wait than are kept, the oldest takes the nearest
    that is there. A frame for which none is near enough goes without.
    """

    def __init__(
        self, frames_kept: int = 1, depths_kept: int = 8, is_urgent: Callable[[Frame], bool] = lambda _: False
    ) -> None:
        """Begin without; at most so many of the newest are kept."""
        self._frames_kept, self._is_urgent = frames_kept, is_urgent
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
        return self.settled()

    def add_depth(self, stamp_ns: int, depth: Depth) -> list[tuple[Frame, Depth | None]]:
        """Take a depth; return the same."""
        self._depths.append((stamp_ns, depth))
        return self.settled()

    def settled(self) -> list[tuple[Frame, Depth | None]]:
        """Return the same, as frames may have become urgent."""
        settled: list[tuple[Frame, Depth | None]] = []
        still: deque[tuple[int, int, Frame]] = deque()
        newest_ns = self.newest_ns()
        for place, (stamp_ns, slack_ns, frame) in enumerate(self._waiting):
            depth = self._nearest(stamp_ns, slack_ns)
            is_final = newest_ns is not None and newest_ns >= stamp_ns
            is_surplus = place < len(self._waiting) - self._frames_kept
            if is_final or is_surplus or (depth is not None and self._is_urgent(frame)):
                settled.append((frame, depth))
            else:
                still.append((stamp_ns, slack_ns, frame))
        self._waiting = still
        return settled

    def end(self) -> list[tuple[Frame, Depth | None]]:
        """Forget all; return the frames that waited, with the nearest depth that is there."""
        settled = [(frame, self._nearest(stamp_ns, slack_ns)) for stamp_ns, slack_ns, frame in self._waiting]
        self._waiting.clear()
        self._depths.clear()
        return settled

    def offset_ns(self, stamp_ns: int) -> int | None:
        """Return by how much the stamp that is nearest to one is later, None without depth."""
        return min((stamp - stamp_ns for stamp, _ in self._depths), key=abs, default=None)

    def newest_ns(self) -> int | None:
        """Return the latest stamp of depth that is kept, None without depth."""
        return max((stamp_ns for stamp_ns, _ in self._depths), default=None)

    def _nearest(self, stamp_ns: int, slack_ns: int) -> Depth | None:
        near = [known for known in self._depths if abs(known[0] - stamp_ns) <= slack_ns]
        return min(near, key=lambda known: abs(known[0] - stamp_ns))[1] if near else None
