# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""What a long piece of work is busy with, told to whoever asked for it, who may call it off."""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_observer: ContextVar[Callable[[str], None]] = ContextVar("observer of long work", default=lambda _words: None)


@contextmanager
def observing(tell: Callable[[str], None]) -> Iterator[None]:
    """Have `tell` called with a few words before each step of what this thread loads or builds.

    What `tell` raises ends the work between two steps, and comes out of it: `errors.CancelledError` calls it off. A
    TensorRT build calls `tell` from threads of its own, and stops as well.
    """
    token = _observer.set(tell)
    try:
        yield
    finally:
        _observer.reset(token)


def observer() -> Callable[[str], None]:
    """Return what this thread's steps are told to, for work that goes on in other threads."""
    return _observer.get()


def report(words: str) -> None:
    """Tell this thread's observer, if it has one, what is done next."""
    observer()(words)
