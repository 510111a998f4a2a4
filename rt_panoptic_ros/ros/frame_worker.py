"""A thread that always works on the newest item: one slot, where a newer item replaces the one still waiting."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

Item = TypeVar("Item")


class FrameWorker(Generic[Item]):
    """Calls `work` with the newest item, one at a time, in a thread of its own."""

    def __init__(self, work: Callable[[Item], None], name: str) -> None:
        """Start the thread.

        Args:
            work: Handles one item; it must handle its own errors.
            name: The thread's.
        """
        self._work = work
        self._changed = threading.Condition()
        self._waiting: Item | None = None
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name=name)
        self._thread.start()

    def put(self, item: Item) -> bool:
        """Leave an item for the thread, without waiting; return whether it replaced one that was still waiting."""
        with self._changed:
            replaced = self._waiting is not None
            self._waiting = item
            self._changed.notify()
        return replaced

    def stop(self) -> bool:
        """Let the thread finish the item at hand and end; return whether a waiting item was dropped."""
        with self._changed:
            dropped = self._waiting is not None
            self._waiting = None
            self._stopping = True
            self._changed.notify()
        self._thread.join()
        return dropped

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._stopping or self._waiting is not None)
                if self._stopping:
                    return
                item, self._waiting = self._waiting, None
            self._work(item)  # type: ignore[arg-type]  # an item waits when the thread wakes without stopping
            del item  # a frame of megabytes must not outlive its turn
