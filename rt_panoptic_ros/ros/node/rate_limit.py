# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Lets at most so many frames per second pass."""

from __future__ import annotations

# Of a period: how much earlier than due a frame may come. Cameras jitter, and a frame that is refused for coming a
# millisecond early is followed by a whole frame period of waiting.
_TOLERANCE = 0.1


class RateLimit:
    """Admits frames so that their rate never exceeds the limit for long, and meets it where there are enough."""

    def __init__(self) -> None:
        self._due_s = float("-inf")

    def admits(self, now_s: float, max_rate_hz: float) -> bool:
        """Return whether a frame that came at `now_s` may pass.

        Args:
            now_s: Monotonic time.
            max_rate_hz: The limit; 0 for none.
        """
        if max_rate_hz <= 0:
            return True
        period_s = 1 / max_rate_hz
        # A limit that was lower before must not hold back longer than a period of this one.
        self._due_s = min(self._due_s, now_s + (1 + _TOLERANCE) * period_s)
        if now_s < self._due_s - _TOLERANCE * period_s:
            return False
        self._due_s = max(self._due_s, now_s - _TOLERANCE * period_s) + period_s
        return True
