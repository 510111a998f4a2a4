# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""What became of a camera's frames, how long they took, and the camera's rhythm, for the node's diagnostics."""

from __future__ import annotations

import threading
from collections import Counter, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

WINDOW = 100
"""Latest frames that percentiles are taken over."""

LATE_SHARE = 0.5
"""Share of late frames from which there are too many."""

FUTURE_MS = -50.0
"""Age at arrival below which the clocks of camera and node differ."""

OUTCOMES = (
    "received",  # arrived here; those that gave way to newer ones in the middleware are not counted
    "processed",  # labelled; outputs published to whoever listens
    "late",  # of those, labelled later after arrival than the next image of the camera comes
    "undefined",  # of those, labelled in parts only, as the network gave values that are no finite numbers
    "dropped",  # replaced by a newer frame before their turn
    "skipped",  # beyond max_rate_hz
    "refused",  # not an image that the node can use
    "failed",  # an unexpected error
    "lost",  # sent, but lost in transport, as far as the middleware noticed
)
"""What frames are counted by, from the node's start on."""

DEPTH_OUTCOMES = (
    "located",  # outputs made with depth were published
    "without depth",  # none came whose stamp is near enough before the next frame
    "misaligned",  # the depth is of another size than the image and the outputs
    "depth refused",  # not a depth image that the node can use
    "uncalibrated",  # no camera_info, or none that fits
    "untransformed",  # no transform to the target frame
)
"""What those frames are counted by besides of which an output is made from depth or camera_info."""

UNLOCATED = "objects without depth"
"""What objects are counted by that ~/detections_3d leaves out."""

_RHYTHM = 10  # intervals between arrivals from which a camera's period is known

FrameCounts = Counter[str]  # {outcome: frames}
Percentiles = dict[str, tuple[float, float]]  # {what: (p50, p95)}


@dataclass(frozen=True)
class FrameReport:
    """What happened to one camera's frames, up to now and since the report before."""

    counts: FrameCounts
    since_last: FrameCounts
    elapsed_s: float  # since the report before
    causes: Mapping[str, str]  # {outcome: why the latest frame had it}, where that was said
    input_hz: float  # frames received since the report before
    rate_hz: float  # frames processed since the report before
    period_ms: float | None  # between arrivals, as far as it is known
    latencies_ms: Percentiles


class Latencies:
    """The latest times by name; any thread adds, any reads."""

    def __init__(self) -> None:
        """Begin without times."""
        self._lock = threading.Lock()
        self._windows: dict[str, deque[float]] = {}

    def add(self, times_ms: Mapping[str, float]) -> None:
        """Add one frame's times."""
        with self._lock:
            for name, time_ms in times_ms.items():
                self._windows.setdefault(name, deque(maxlen=WINDOW)).append(time_ms)

    def percentiles(self) -> Percentiles:
        """Return median and 95th percentile of the latest times."""
        with self._lock:
            arrays = {name: np.array(window) for name, window in self._windows.items()}
        return {name: percentiles_ms(array) for name, array in arrays.items()}


class FrameStatistics:
    """What is known of one camera's frames: any thread counts, one asks for reports."""

    def __init__(self, now_s: float) -> None:
        """Start counting at `now_s`, of the clock that all times given here are of."""
        self._lock = threading.Lock()
        self._counts: FrameCounts = Counter()
        self._reported: FrameCounts = Counter()
        self._causes: dict[str, str] = {}
        self._reported_s = now_s
        self._arrived_s: float | None = None
        self._intervals_s: deque[float] = deque(maxlen=WINDOW)
        self._latencies = Latencies()

    def count(self, outcome: str, number: int = 1, cause: str = "") -> None:
        """Add frames of one of `OUTCOMES`, and keep why they had it."""
        with self._lock:
            self._counts[outcome] += number
            self._causes[outcome] = cause

    def arrive(self, now_s: float, age_ms: float) -> None:
        """Count a frame that arrives at `now_s`, `age_ms` after its stamp."""
        with self._lock:
            self._counts["received"] += 1
            if self._arrived_s is not None:
                self._intervals_s.append(now_s - self._arrived_s)
            self._arrived_s = now_s
        self._latencies.add({"age at arrival": age_ms})

    def pause(self) -> None:
        """Forget when the last frame came, as the next one need not follow it."""
        with self._lock:
            self._arrived_s = None

    def finish(self, since_arrival_ms: float, since_stamp_ms: float) -> None:
        """Count a frame whose outputs have been published."""
        period_ms = self._period_ms()
        self.count("processed")
        if period_ms is not None and since_arrival_ms > period_ms:
            self.count("late")
        self._latencies.add({"arrival to outputs": since_arrival_ms, "stamp to outputs": since_stamp_ms})

    def counts(self) -> FrameCounts:
        """Return the frames of each outcome up to now."""
        with self._lock:
            return self._counts.copy()

    def report(self, now_s: float) -> FrameReport:
        """Return what happened up to now and since the report before."""
        counts = self.counts()
        since_last = counts.copy()
        since_last.subtract(self._reported)
        elapsed_s = now_s - self._reported_s
        self._reported, self._reported_s = counts, now_s
        input_hz, rate_hz = (
            since_last[outcome] / elapsed_s if elapsed_s > 0 else 0.0 for outcome in ("received", "processed")
        )
        with self._lock:
            causes = {outcome: cause for outcome, cause in self._causes.items() if cause}
        period_ms, latencies_ms = self._period_ms(), self._latencies.percentiles()
        return FrameReport(counts, since_last, elapsed_s, causes, input_hz, rate_hz, period_ms, latencies_ms)

    def _period_ms(self) -> float | None:
        with self._lock:
            intervals = np.array(self._intervals_s)
        return 1e3 * float(np.median(intervals)) if len(intervals) >= _RHYTHM else None


def percentiles_ms(values: np.ndarray) -> tuple[float, float]:
    """Return the median and the 95th percentile of at least one value."""
    p50, p95 = np.percentile(values, (50, 95))
    return float(p50), float(p95)
