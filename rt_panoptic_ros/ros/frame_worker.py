"""A thread that always works on the newest items: in each slot, a newer item replaces the one still waiting."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

Item = TypeVar("Item")


class FrameWorker(Generic[Item]):
    """Calls `work` with one item at a time, in a thread of its own; the slots take turns."""

    def __init__(self, work: Callable[[Item], None], name: str) -> None:
        """Start the thread.

        Args:
            work: Handles one item; it must handle its own errors.
            name: The thread's.
        """
        self._work = work
        self._changed = threading.Condition()
        self._waiting: dict[Hashable, Item] = {}
        self._turns: dict[Hashable, int] = {}  # slot: when it had its last turn
        self._turn = 0
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name=name)
        self._thread.start()

    def put(self, item: Item, slot: Hashable = None, *, only_replace: bool = False) -> bool:
        """Leave an item for the thread, without waiting; return whether it replaced one in its slot.

        Args:
            item: The item.
            slot: Its slot.
            only_replace: Leave it only if it replaces one.
        """
        with self._changed:
            replaced = slot in self._waiting
            if replaced or not only_replace:
                self._waiting[slot] = item
                self._changed.notify()
        return replaced

    def stop(self) -> list[Item]:
        """Let the thread finish the item at hand and end; return the items that waited and were dropped."""
        with self._changed:
            dropped = list(self._waiting.values())
            self._waiting.clear()
            self._stopping = True
            self._changed.notify()
        self._thread.join()
        return dropped

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._stopping or self._waiting)
                if self._stopping:
                    return
                slot = min(self._waiting, key=lambda slot: self._turns.get(slot, 0))  # the longest without a turn
                item = self._waiting.pop(slot)
                self._turn += 1
                self._turns[slot] = self._turn
            self._work(item)
            del item  # a frame of megabytes must not outlive its turn
