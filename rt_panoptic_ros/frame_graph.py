"""A frame's work on the device as one graph: launched with a single call, once it has been captured."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import warp as wp

if TYPE_CHECKING:
    from collections.abc import Callable

_LOG = logging.getLogger(__name__)


class FrameGraph:
    """Captures work and launches it again, as long as it would be the same work."""

    def __init__(self, device: str) -> None:
        """Start without a graph, for `device`."""
        self._device = device
        self._graph: wp.Graph = None
        self._of: object = None  # what was captured
        self._impossible = False

    def holds(self, work: object) -> bool:
        """Return whether the graph is of `work`, anything that tells one from another by equality."""
        return self._graph is not None and self._of == work

    def launch(self) -> None:
        """Enqueue the graph."""
        wp.capture_launch(self._graph)

    def capture(self, work: object, enqueue: Callable[[], None]) -> None:
        """Capture what `enqueue` launches, after it has run at least once, as the graph of `work`.

        Where the driver can't, it is said once, and there is no graph from then on.
        """
        if self._impossible:
            return
        self._graph = None
        try:
            with wp.ScopedCapture(device=self._device) as capture:
                enqueue()
        except Exception as error:  # of Warp, the driver or the engine: of many kinds
            self._impossible = True
            _LOG.warning("frames are launched kernel by kernel, as they could not be captured as a graph: %s", error)
            return
        self._graph, self._of = capture.graph, work
