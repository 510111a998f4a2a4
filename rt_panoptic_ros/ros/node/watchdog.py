# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Notices, in the executor's thread, what only a new process mends, such as a library's call that doesn't return."""

from __future__ import annotations

import faulthandler
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import threading

    from rt_panoptic_ros.ros.node.camera_stream import ArrivedImage
    from rt_panoptic_ros.ros.node.depth_input import DepthTurn
    from rt_panoptic_ros.ros.node.diagnostics import NodeHealth
    from rt_panoptic_ros.ros.node.frame_worker import FrameWorker
    from rt_panoptic_ros.ros.node.node_settings import Periods

RESTART = os.EX_TEMPFAIL
"""Exit status, 75, of a process that can't go on, where a new one may."""

_ORDERLY_END_S = 10.0


class Watchdog:
    """Measures, from report to report, how long the worker has been at its frame, and tells where it is stuck."""

    def __init__(
        self,
        health: NodeHealth,
        worker: FrameWorker[ArrivedImage | DepthTurn],
        periods: Periods,
        ending: threading.Event,
    ) -> None:
        """Begin without a frame.

        Args:
            health: Where `look` tells what it sees: `stuck`, `fatal`.
            worker: Whose thread is watched.
            periods: How often reports come, and from when on a frame is told of.
            ending: Is set when the worker may end.
        """
        self._health, self._worker, self._periods, self._ending = health, worker, periods, ending
        self._seen = 0  # the number of the frame that was at hand at the last look
        self._looked_s = 0.0
        self._stuck_s = 0.0

    def look(self, now_s: float, limit_s: float, stage: str) -> None:
        """Tell of a frame that has been at hand for long, and from the limit on of a process that can't go on.

        Loading is left out, which says itself what it does and may take minutes; so is time in which nobody looked, as
        the process or the machine stood still.

        Args:
            now_s: Of a steady clock.
            limit_s: 0 for none.
            stage: Of the pipeline, that is done now; empty for none.
        """
        since_s, self._looked_s = min(now_s - self._looked_s, 2 * self._periods.diagnostics_s), now_s
        number, frame = self._worker.at_hand or (0, None)
        if frame is None or number != self._seen or self._health.busy_with:
            self._stuck_s = since_s = 0.0
        self._seen, self._stuck_s = number, self._stuck_s + since_s
        self._health.stuck = ""
        if frame is not None and self._stuck_s >= min(self._periods.stuck_s, limit_s or self._periods.stuck_s):
            where = f"the stage {stage}" if stage else "decoding or publishing"
            self._health.stuck = f"stuck for {self._stuck_s:.0f} s in {where} of an image of {frame.stream.topic}"
        if 0 < limit_s <= self._stuck_s:
            self._health.fatal = self._health.stuck
        elif not self._worker.alive and not self._ending.is_set():
            self._health.fatal = "the thread that labels has ended"

    def give_up(self, logger: Any) -> int:
        """Tell why the process ends and where the worker is; return the exit status. Even an end that hangs ends."""
        logger.fatal(
            f"{self._health.fatal}: this process ends with status {RESTART}, to be started anew (launch argument "
            f"respawn). The thread that labels is at\n{self._worker.stack()}"
        )
        faulthandler.dump_traceback_later(_ORDERLY_END_S, exit=True)
        return RESTART
