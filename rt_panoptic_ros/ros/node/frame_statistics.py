"""A ledger of the frames that pass through the node, for its diagnostics: fates, times, the camera's rhythm."""

from __future__ import annotations

import threading
from collections import deque
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

_RHYTHM = 10  # intervals between arrivals from which a camera's period is known

Percentiles = dict[str, tuple[float, float]]  # {what: (p50, p95)}


@dataclass
class FrameCounts:
    """Frames since the node was started, by fate."""

    received: int = 0  # arrived here; those that gave way to newer ones in the middleware are not counted
    processed: int = 0  # labelled; outputs published to whoever listens
    late: int = 0  # of those, labelled later after arrival than the next image of the camera comes
    dropped: int = 0  # replaced by a newer frame before their turn
    skipped: int = 0  # beyond max_rate_hz
    refused: int = 0  # not an image that the node can use
    failed: int = 0  # an unexpected error
    lost: int = 0  # sent, but lost in transport, as far as the middleware noticed


@dataclass(frozen=True)
class FrameReport:
    """What happened to one camera's frames, up to now and since the report before."""

    counts: FrameCounts
    since_last: FrameCounts
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

    def clear(self) -> None:
        """Begin anew, for another model."""
        with self._lock:
            self._windows.clear()

    def percentiles(self) -> Percentiles:
        """Return median and 95th percentile of the latest times."""
        with self._lock:
            arrays = {name: np.array(window) for name, window in self._windows.items()}
        return {name: percentiles_ms(array) for name, array in arrays.items()}


class FrameStatistics:
    """One camera's ledger: counts from any thread, reports to one."""

    def __init__(self, now_s: float) -> None:
        """Start counting at `now_s`, of the clock that all times given here are of."""
        self._lock = threading.Lock()
        self._counts = FrameCounts()
        self._reported = FrameCounts()
        self._reported_s = now_s
        self._arrived_s: float | None = None
        self._intervals_s: deque[float] = deque(maxlen=WINDOW)
        self.latencies = Latencies()

    def count(self, fate: str, number: int = 1) -> None:
        """Add frames of one fate, a field of `FrameCounts`."""
        with self._lock:
            setattr(self._counts, fate, getattr(self._counts, fate) + number)

    def arrive(self, now_s: float, age_ms: float) -> None:
        """Count a frame that arrives at `now_s`, `age_ms` after its stamp."""
        with self._lock:
            self._counts.received += 1
            if self._arrived_s is not None:
                self._intervals_s.append(now_s - self._arrived_s)
            self._arrived_s = now_s
        self.latencies.add({"age at arrival": age_ms})

    def pause(self) -> None:
        """Forget when the last frame came, as the next one need not follow it."""
        with self._lock:
            self._arrived_s = None

    def finish(self, since_arrival_ms: float, since_stamp_ms: float) -> None:
        """Count a frame whose outputs have been published."""
        period_ms = self._period_ms()
        with self._lock:
            self._counts.processed += 1
            self._counts.late += period_ms is not None and since_arrival_ms > period_ms
        self.latencies.add({"arrival to outputs": since_arrival_ms, "stamp to outputs": since_stamp_ms})

    def report(self, now_s: float) -> FrameReport:
        """Return what happened up to now and since the report before."""
        with self._lock:
            counts = FrameCounts(**vars(self._counts))
        since = FrameCounts(**{fate: number - getattr(self._reported, fate) for fate, number in vars(counts).items()})
        elapsed_s = now_s - self._reported_s
        self._reported, self._reported_s = counts, now_s
        return FrameReport(
            counts,
            since,
            since.received / elapsed_s if elapsed_s > 0 else 0.0,
            since.processed / elapsed_s if elapsed_s > 0 else 0.0,
            self._period_ms(),
            self.latencies.percentiles(),
        )

    def _period_ms(self) -> float | None:
        with self._lock:
            intervals = np.array(self._intervals_s)
        return 1e3 * float(np.median(intervals)) if len(intervals) >= _RHYTHM else None


def percentiles_ms(values: np.ndarray) -> tuple[float, float]:
    """Return the median and the 95th percentile of at least one value."""
    p50, p95 = np.percentile(values, (50, 95))
    return float(p50), float(p95)
