# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The thread that owns the pipeline: it does jobs one after the other and, between them, works on the newest frames.

Opening and closing the backend are such jobs: `PanopticNode._acquire` and `_release` (see `LoadedModel`).
"""

from __future__ import annotations

import sys
import threading
import traceback
from collections import deque
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

_LONGEST_WAY_S = 0.005
"""For which an item is given way to: about what a frame takes without its network, which needs no lock of Python's."""

Item = TypeVar("Item")
Result = TypeVar("Result")


class FrameWorker(Generic[Item]):
    """Calls `work` with one item at a time: in each slot, a newer item replaces the one still waiting.

    The slots take turns. Jobs (loading, stopping, freeing) come before items.
    """

    def __init__(
        self, work: Callable[[Item], None], name: str, on_error: Callable[[Item, BaseException], None]
    ) -> None:
        """Start the thread. It doesn't keep the process alive.

        Args:
            work: Handles one item.
            name: The thread's.
            on_error: Is told what `work` raised, whatever it is (a library's SystemExit too); the thread goes on.
        """
        self._work = work
        self._on_error = on_error
        self._changed = threading.Condition()
        self._jobs: deque[Callable[[], None]] = deque()
        self._waiting: dict[Hashable, Item] = {}
        self._turns: dict[Hashable, int] = {}  # slot: when it had its last turn
        self._turn = 0
        self._at_hand: tuple[int, Item] | None = None
        self._resting = False  # with nothing to do
        self._awoken = False  # by the last item put
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the thread has not ended."""
        return self._thread.is_alive()

    @property
    def at_hand(self) -> tuple[int, Item] | None:
        """Which item by number, from 1, is worked on now, and that item; None between items."""
        return self._at_hand

    def stack(self) -> str:
        """Return where the thread is in its code, the innermost call last."""
        frame = sys._current_frames().get(self._thread.ident or 0)
        return "".join(traceback.format_stack(frame)) if frame else "its end"

    def put(self, item: Item, slot: Hashable = None, *, only_replace: bool = False) -> bool:
        """Leave an item for the thread, if need be only in place of another; return whether it replaced one."""
        with self._changed:
            replaced = slot in self._waiting
            if replaced or not only_replace:
                self._waiting[slot] = item
                self._awoken, self._resting = self._resting, False
                self._changed.notify_all()
        return replaced

    def give_way(self) -> None:
        """Return when the item that was put last is done, if the thread was at rest till then, or after a few ms.

        Python lets only one of both go on at a time: whatever the caller did meanwhile would keep the item waiting.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._resting or self._stopping or not self._awoken, _LONGEST_WAY_S)

    def submit(self, job: Callable[[], Result]) -> Future[Result]:
        """Have the thread do a job as soon as it is done with what is at hand; return its result to come."""
        future: Future[Result] = Future()
        with self._changed:
            self._jobs.append(partial(_do, job, future))
            self._changed.notify_all()
        return future

    def run(self, job: Callable[[], Result]) -> Result:
        """Do a job in the thread and return its result; at once where the thread itself asks."""
        return job() if threading.current_thread() is self._thread else self.submit(job).result()

    def clear(self) -> list[Item]:
        """Take the items that wait."""
        with self._changed:
            waiting = list(self._waiting.values())
            self._waiting.clear()
            self._turns.clear()  # else it would keep slots, and all that they hold, that nobody uses any more
        return waiting

    def stop(self, timeout_s: float | None = None) -> bool:
        """Drop the items that wait, let the thread finish all else and end; return whether it has within the time."""
        with self._changed:
            self._waiting.clear()
            self._stopping = True
            self._changed.notify_all()
        self._thread.join(timeout_s)
        return not self.alive

    def _run(self) -> None:
        while (do := self._next()) is not None:
            do()
            del do  # a frame of megabytes must not outlive its turn

    def _next(self) -> Callable[[], None] | None:
        """Wait for what is to be done next and return it; None at the end."""
        with self._changed:
            self._resting = not (self._jobs or self._waiting)
            if self._resting:
                self._changed.notify_all()
            self._changed.wait_for(lambda: self._stopping or self._jobs or self._waiting)
            self._resting = False
            if self._jobs:
                return self._jobs.popleft()
            if self._stopping:
                return None
            slot = min(self._waiting, key=lambda slot: self._turns.get(slot, 0))  # the longest without a turn
            self._turn += 1
            self._turns[slot] = self._turn
            return partial(self._work_on, self._waiting.pop(slot))

    def _work_on(self, item: Item) -> None:
        self._at_hand = self._turn, item
        try:
            self._work(item)
        except BaseException as error:
            self._on_error(item, error)
        finally:
            self._at_hand = None


def _do(job: Callable[[], Result], future: Future[Result]) -> None:
    try:
        future.set_result(job())
    except BaseException as error:  # whoever waits must learn of it
        future.set_exception(error)
