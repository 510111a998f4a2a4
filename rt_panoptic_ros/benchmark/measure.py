"""Times two ways of doing the same work in turn, and says how they compare."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


@dataclass(frozen=True, slots=True)
class Comparison:
    """Medians of both ways, ms."""

    subject: str  # what was done, at which size, on which device
    median_ms: float
    twin_median_ms: float
    stages_ms: dict[str, float]  # medians of our stages
    twin_stages_ms: dict[str, float]
    details: dict[str, Any] = field(default_factory=dict)  # further figures by name

    @property
    def ratio(self) -> float:
        """How many times faster than the twin."""
        return self.twin_median_ms / self.median_ms

    def to_document(self) -> dict[str, Any]:
        """Return all of it as plain data."""
        return {
            "subject": self.subject,
            "median_ms": self.median_ms,
            "twin_median_ms": self.twin_median_ms,
            "ratio": self.ratio,
            "stages_ms": self.stages_ms,
            "twin_stages_ms": self.twin_stages_ms,
            **self.details,
        }

    def format(self) -> str:
        """Return it as text for a terminal."""
        lines = [
            self.subject,
            f"  ours {self.median_ms:10.2f} ms   {_stages(self.stages_ms)}",
            f"  twin {self.twin_median_ms:10.2f} ms   {_stages(self.twin_stages_ms)}",
            f"  {self.ratio:.2f} times as fast",
        ]
        return "\n".join(lines + [f"  {name}: {value}" for name, value in self.details.items()])


def compare(
    subject: str,
    ours: Callable[[], Mapping[str, float]],
    twin: Callable[[], Mapping[str, float]],
    *,
    seconds: float = 20.0,
    least: int = 5,
    warmup: int = 2,
    details: Mapping[str, Any] | None = None,
) -> Comparison:
    """Run both in turn and return the medians.

    Both have as many turns as fit into `seconds` of the slower one, but at least `least`; in each turn ours runs until
    it took about a tenth of the twin's time, so that both see the same noise of the machine.

    Args:
        subject: What is done.
        ours: Does it our way and returns the ms of each stage; it ends when the device has finished.
        twin: Does it plainly, likewise.
        seconds: About how long to measure.
        least: Turns at least.
        warmup: Runs of each before, not counted.
        details: Further figures.
    """
    for _ in range(warmup):
        ours()
    begin = time.perf_counter()
    for _ in range(warmup):
        twin()
    twin_s = (time.perf_counter() - begin) / max(warmup, 1)
    turns = max(least, min(200, int(seconds / max(twin_s, 1e-4))))
    samples: list[_Sample] = []
    twin_samples: list[_Sample] = []
    for _ in tqdm(range(turns), desc=subject, unit="turn", leave=False):
        spent = 0.0
        while spent == 0.0 or spent < 0.1 * twin_s:
            samples.append(_sample(ours))
            spent += samples[-1].total_ms / 1e3
        twin_samples.append(_sample(twin))
    return Comparison(
        subject,
        float(np.median([sample.total_ms for sample in samples])),
        float(np.median([sample.total_ms for sample in twin_samples])),
        median_stages([sample.stages_ms for sample in samples]),
        median_stages([sample.stages_ms for sample in twin_samples]),
        dict(details or {}),
    )


def median_stages(samples: list[dict[str, float]]) -> dict[str, float]:
    """Return the median of each stage, ms."""
    return {stage: float(np.median([sample[stage] for sample in samples])) for stage in samples[0]}


class StageClock:
    """Measures the stages of a piece of work, one after another."""

    def __init__(self) -> None:
        """Start the first stage."""
        self.stages_ms: dict[str, float] = {}
        self._begin = time.perf_counter()

    def end(self, stage: str) -> None:
        """End the stage that runs, adding to what it took before, and start the next."""
        now = time.perf_counter()
        self.stages_ms[stage] = self.stages_ms.get(stage, 0.0) + 1e3 * (now - self._begin)
        self._begin = now


@dataclass(frozen=True, slots=True)
class _Sample:
    total_ms: float
    stages_ms: dict[str, float]


def _sample(work: Callable[[], Mapping[str, float]]) -> _Sample:
    begin = time.perf_counter()
    stages = dict(work())
    return _Sample(1e3 * (time.perf_counter() - begin), stages)


def _stages(stages: Mapping[str, float]) -> str:
    return ", ".join(f"{stage} {value:.2f}" for stage, value in stages.items())
