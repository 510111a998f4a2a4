"""Counts and latencies of the frames that pass through the node, for its diagnostics."""

from __future__ import annotations

import threading
from collections import defaultdict, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

WINDOW = 100
"""Latest frames that percentiles are taken over."""


@dataclass
class FrameCounts:
    """Frames since the node was started, by fate."""

    received: int = 0  # arrived here
    processed: int = 0  # labelled; outputs published to whoever listens
    dropped: int = 0  # replaced by a newer frame before their turn
    skipped: int = 0  # beyond max_rate_hz
    refused: int = 0  # not an image that the node can use
    failed: int = 0  # an unexpected error
    lost: int = 0  # sent, but lost in transport, as far as the middleware noticed


@dataclass(frozen=True)
class FrameReport:
    """What happened up to now and since the report before."""

    counts: FrameCounts
    since_last: FrameCounts
    rate_hz: float  # frames processed since the report before
    latencies_ms: dict[str, tuple[float, float]] = field(default_factory=dict)  # stage: (p50, p95)


class FrameStatistics:
    """Counts from any thread, reports to one."""

    def __init__(self, now_s: float) -> None:
        """Start counting at `now_s`, of the clock that `report` is called with."""
        self._lock = threading.Lock()
        self._counts = FrameCounts()
        self._reported = FrameCounts()
        self._reported_s = now_s
        self._latencies_ms: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=WINDOW))

    def count(self, fate: str, number: int = 1) -> None:
        """Add frames of one fate, a field of `FrameCounts`."""
        with self._lock:
            setattr(self._counts, fate, getattr(self._counts, fate) + number)

    def add_processed(self, latencies_ms: Mapping[str, float]) -> None:
        """Count one processed frame with its latencies by stage."""
        with self._lock:
            self._counts.processed += 1
            for stage, latency_ms in latencies_ms.items():
                self._latencies_ms[stage].append(latency_ms)

    def forget_latencies(self) -> None:
        """Start the percentiles anew, for another model."""
        with self._lock:
            self._latencies_ms.clear()

    def report(self, now_s: float) -> FrameReport:
        """Return what happened up to now and since the report before."""
        with self._lock:
            counts = FrameCounts(**vars(self._counts))
            latencies = {stage: np.array(values) for stage, values in self._latencies_ms.items()}
        since = FrameCounts(**{fate: number - getattr(self._reported, fate) for fate, number in vars(counts).items()})
        elapsed_s = now_s - self._reported_s
        self._reported, self._reported_s = counts, now_s
        percentiles = {stage: percentiles_ms(values) for stage, values in latencies.items()}
        return FrameReport(counts, since, since.processed / elapsed_s if elapsed_s > 0 else 0.0, percentiles)


def percentiles_ms(values: np.ndarray) -> tuple[float, float]:
    """Return the median and the 95th percentile of at least one value."""
    p50, p95 = np.percentile(values, (50, 95))
    return float(p50), float(p95)
