# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Puts together the messages of one frame, which have its stamp and come on several topics in any order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence


class StampMatcher:
    """Collects the messages of one stamp until all topics have theirs.

    Attributes:
        incomplete: Sets given up, since others came after them; those of a bag that loops have old stamps again.
    """

    def __init__(self, topics: Sequence[str], capacity: int = 16) -> None:
        """Prepare for sets of one message from each of `topics`, at most `capacity` sets waiting."""
        self._topics = frozenset(topics)
        self._capacity = capacity
        self._waiting: dict[Hashable, dict[str, Any]] = {}  # by stamp; in the order in which they began
        self.incomplete = 0

    def add(self, topic: str, stamp: Hashable, message: Any) -> dict[str, Any] | None:
        """Take a message; return {topic: message} when it was the last that its stamp waited for."""
        if topic in self._waiting.get(stamp, ()):
            self._drop(stamp)
        parts = self._waiting.setdefault(stamp, {})
        parts[topic] = message
        if parts.keys() == self._topics:
            del self._waiting[stamp]
            return parts
        if len(self._waiting) > self._capacity:
            self._drop(next(iter(self._waiting)))
        return None

    def give_up(self) -> None:
        """Count what still waits as incomplete."""
        self.incomplete += len(self._waiting)
        self._waiting.clear()

    def _drop(self, stamp: Hashable) -> None:
        del self._waiting[stamp]
        self.incomplete += 1
