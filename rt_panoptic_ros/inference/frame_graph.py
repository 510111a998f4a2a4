# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""A frame's work on the device as one graph: launched with a single call, once it has been captured."""

from __future__ import annotations

import logging
from collections import OrderedDict
from typing import TYPE_CHECKING

import warp as wp

if TYPE_CHECKING:
    from collections.abc import Callable

_LOG = logging.getLogger(__name__)

_KEPT = 8
"""Graphs at once, for what a node alternates between: the images wanted of each of some cameras of one geometry, seven
sets at most, under the settings that it has and those that it had a moment ago and may go back to."""


class FrameGraph:
    """Captures work and launches it again, as long as it would be the same work."""

    def __init__(self, device: str) -> None:
        """Start without a graph, for `device`."""
        self._device = device
        self._graphs: OrderedDict[object, tuple[wp.Graph, object]] = OrderedDict()  # by work, with what it reads
        self._impossible = False

    def holds(self, work: object) -> bool:
        """Return whether there is a graph of `work`, anything hashable that tells one from another."""
        return work in self._graphs

    def launch(self, work: object) -> None:
        """Enqueue the graph of `work`."""
        self._graphs.move_to_end(work)
        wp.capture_launch(self._graphs[work][0])

    def capture(self, work: object, enqueue: Callable[[], object]) -> None:
        """Capture what `enqueue` launches, once it has run, as the graph of `work`, and launch that for the first time.

        With its first launch Warp instantiates a graph, which takes milliseconds that no later frame shall wait for.
        What `enqueue` returns lives as long as the graph, which holds addresses only: all memory that it reads or
        writes. Where the driver can't capture, it is said once, and there is no graph from then on.
        """
        if self._impossible:
            return
        if len(self._graphs) == _KEPT:
            self._graphs.popitem(last=False)
        try:
            with wp.ScopedCapture(device=self._device) as capture:
                in_use = enqueue()
            wp.capture_launch(capture.graph)
            wp.synchronize_device(self._device)
        except Exception as error:  # of Warp, the driver or the backend: of many kinds
            self._impossible = True
            _LOG.warning("frames are launched kernel by kernel, as they could not be captured as a graph: %s", error)
            return
        self._graphs[work] = capture.graph, in_use
