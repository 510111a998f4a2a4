# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""What a soak records of the node every second, and the trends and faults that it fails for. Knows no ROS."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

MOST_MEMORY_GROWTH_MB = 1.0
"""An hour, of what is resident and the process's own."""
MOST_COUNT_GROWTH = 1.0
"""An hour, of threads, file handles and shared memory segments."""
MOST_LATENCY_SPREAD = 3.0
"""The 99th percentile of the latencies in calm over their median."""
MOST_RECOVERY_S = 1.0
"""From the moment when all that hindered a camera's frames is gone until one that it sent then is labelled.

Where the camera's process started anew, that is when the middleware has brought it and the node together.
"""

_WARM_UP_SHARE, _WARM_UP_MOST_S = 0.25, 900.0  # of a soak, in which memory may grow
_LEAST_POINTS = 5  # stretches of calm that a line through them needs
_CONFIDENCE = 1.96  # standard errors to each side hold the true slope in 95 cases of 100


@dataclass(frozen=True, slots=True)
class Sample:
    """The node's last second."""

    time_s: float  # since the soak began
    calm: bool  # nothing disturbed the node in all of it
    answered: int  # frames
    p50_ms: float  # latency of these, from a frame's stamp to its labels' arrival; not a number where there were none
    p99_ms: float
    resident_mb: float  # without pages of files, such as libraries, which the kernel drops and reads again as it likes
    python_blocks: int  # pieces of memory that Python's own allocator has given out (sys.getallocatedblocks)
    threads: int
    handles: int  # open files and sockets
    segments: int  # shared memory segments that are mapped


@dataclass(frozen=True, slots=True)
class Trend:
    """A line through a figure over time."""

    at_begin: float
    per_hour: float
    margin: float  # to each side, an hour: 95 % confidence

    def __str__(self) -> str:
        return f"{self.per_hour:+.2f} ± {self.margin:.2f} an hour from {self.at_begin:.1f}"

    def exceeds(self, bound_per_hour: float) -> bool:
        """Return whether the figure surely grows faster than that: what is left to chance is no finding."""
        return self.per_hour - self.margin > bound_per_hour


@dataclass
class Record:
    """All that a soak saw."""

    samples: list[Sample] = field(default_factory=list)
    calm_ms: list[float] = field(default_factory=list)  # latency of each frame that was sent in calm
    recoveries_s: list[tuple[str, float]] = field(default_factory=list)  # camera and what had hindered it; how long
    discoveries_s: list[float] = field(default_factory=list)  # until the middleware had a restarted camera matched
    requests: int = 0  # transitions, parameters, services
    lost: list[str] = field(default_factory=list)  # requests that were not answered, or not as they should be
    transitions: int = 0
    faults: dict[str, int] = field(default_factory=dict)  # unexpected errors that the node told of, by kind
    disturbances: dict[str, int] = field(default_factory=dict)  # how often each came
    ended: str = ""  # why the node's process ended, where it did

    def calm_points(self) -> list[Sample]:
        """Return the middle sample of each calm stretch behind the warm-up.

        Every stretch begins in the same state, so they can be compared: what is between them is the disturbances'.
        """
        if not self.samples:
            return []
        begin_s = min(_WARM_UP_SHARE * self.samples[-1].time_s, _WARM_UP_MOST_S)
        return [stretch[len(stretch) // 2] for stretch in _stretches(self.samples) if stretch[0].time_s >= begin_s]

    def trends(self) -> dict[str, Trend]:
        """Return the trend of each figure of the process over the calm stretches; empty if those are too few."""
        points = self.calm_points()
        if len(points) < _LEAST_POINTS:
            return {}
        times_s = [point.time_s for point in points]
        names = ("resident_mb", "python_blocks", "threads", "handles", "segments")
        return {name: fit_trend(times_s, [getattr(point, name) for point in points]) for name in names}

    def failures(self) -> list[str]:
        """Return one sentence for each thing that must not be."""
        return [words for holds, words in self._criteria() if not holds]

    def _criteria(self) -> Iterator[tuple[bool, str]]:
        yield not self.ended, self.ended
        trends = self.trends()
        bounds = {"resident_mb": MOST_MEMORY_GROWTH_MB} | dict.fromkeys(
            ("threads", "handles", "segments"), MOST_COUNT_GROWTH
        )
        for name, bound in bounds.items() if trends else ():
            trend = trends[name]
            yield (
                not trend.exceeds(bound),
                f"expected {name} to grow by less than {bound:g} an hour, got {trend}",
            )
        for lost in self.lost:
            yield False, lost
        p50, p99 = percentiles(self.calm_ms, 50, 99)
        yield bool(self.calm_ms), "expected frames that were labelled in calm, got none: make --minutes more"
        yield (
            not p99 > MOST_LATENCY_SPREAD * p50,
            f"expected a latency p99 of at most {MOST_LATENCY_SPREAD:g} times p50 over the {len(self.calm_ms)} frames "
            f"sent in calm, got {p99:.1f} ms beside {p50:.1f} ms: the node stalls, or the machine was busy",
        )
        late = [(cause, seconds) for cause, seconds in self.recoveries_s if seconds > MOST_RECOVERY_S]
        for cause, seconds in late:
            yield False, f"expected labels within {MOST_RECOVERY_S:g} s after {cause}, got them after {seconds:.2f} s"
        for kind, number in self.faults.items():
            yield not number, f"expected no {kind}, got {number}: see the node's log"

    def summary(self) -> dict[str, Any]:
        """Return the figures as plain data."""
        p50, p99 = percentiles(self.calm_ms, 50, 99)
        seconds = [seconds for _, seconds in self.recoveries_s]
        recovery_p50, recovery_p99 = percentiles(seconds, 50, 99)
        return {
            "seconds": round(self.samples[-1].time_s) if self.samples else 0,
            "frames_labelled": sum(sample.answered for sample in self.samples),
            "frames_labelled_in_calm": len(self.calm_ms),
            "calm_p50_ms": round(p50, 2),
            "calm_p99_ms": round(p99, 2),
            "recoveries": len(seconds),
            "recovery_p50_s": round(recovery_p50, 3),
            "recovery_p99_s": round(recovery_p99, 3),
            "recovery_longest_s": round(max(seconds, default=0.0), 3),
            "discovery_p50_s": round(percentiles(self.discoveries_s, 50)[0], 3),
            "discovery_longest_s": round(max(self.discoveries_s, default=0.0), 3),
            "transitions": self.transitions,
            "requests": self.requests,
            "disturbances": self.disturbances,
            "calm_stretches_behind_warm_up": len(self.calm_points()),
            "trends": {name: asdict(trend) for name, trend in self.trends().items()},
            "failures": self.failures(),
        }

    def format(self) -> str:
        """Return it as text for a terminal, without the failures."""
        figures = {name: value for name, value in self.summary().items() if name not in ("trends", "failures")}
        figures["disturbances"] = sum(self.disturbances.values())
        lines = [f"{name}: {value}" for name, value in figures.items()]
        lines += [f"{name}: {trend}" for name, trend in self.trends().items()]
        return "\n".join(lines)


def fit_trend(times_s: Sequence[float], values: Sequence[float]) -> Trend:
    """Return the line of least squares through values over time, of at least three points."""
    hours = np.asarray(times_s) / 3600
    hours = hours - hours[0]
    slope, offset = np.polyfit(hours, values, 1)
    residuals = np.asarray(values) - (slope * hours + offset)
    spread = np.sum((hours - hours.mean()) ** 2)
    error = np.sqrt(np.sum(residuals**2) / (len(hours) - 2) / spread)
    return Trend(float(offset), float(slope), float(_CONFIDENCE * error))


def percentiles(values: Sequence[float], *which: float) -> list[float]:
    """Return percentiles; zeros of nothing."""
    return [float(value) for value in np.percentile(values, which)] if values else [0.0] * len(which)


def _stretches(samples: Iterable[Sample]) -> list[list[Sample]]:
    """Return the runs of calm samples."""
    runs: list[list[Sample]] = [[]]
    for sample in samples:
        if sample.calm:
            runs[-1].append(sample)
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if run]


def process_figures(pid: int) -> dict[str, Any]:
    """Return what Linux tells of a process: its fields of `Sample`.

    Raises:
        OSError: The process has ended.
    """
    process = Path(f"/proc/{pid}")
    status = dict(line.split(":", 1) for line in (process / "status").read_text(encoding="utf-8").splitlines())
    if "RssAnon" not in status:
        raise ProcessLookupError(f"expected a process {pid} that runs, got one that has ended")
    paths = {line.split(maxsplit=5)[-1] for line in (process / "maps").read_text(encoding="utf-8").splitlines()}
    return {
        "resident_mb": sum(int(status[name].split()[0]) for name in ("RssAnon", "RssShmem")) * 1024 / 1e6,
        "threads": int(status["Threads"]),
        "handles": sum(1 for _ in (process / "fd").iterdir()),
        "segments": sum(path.startswith("/dev/shm/") for path in paths),
    }
