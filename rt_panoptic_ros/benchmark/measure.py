# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Times two ways of doing the same work in turn, and says how they compare; a GPU's time apart from the host's."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import warp as wp
from tqdm import tqdm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence


class StageClock:
    """Measures the stages of a piece of work, one after another."""

    def __init__(self, device: str = "cpu") -> None:
        """Start the first stage; each ends when `device` has finished."""
        self.stages_ms: dict[str, float] = {}
        self._device = device
        self._begin = time.perf_counter()

    def end(self, stage: str) -> None:
        """End the stage that runs, adding to what it took before, and start the next."""
        if self._device != "cpu":
            wp.synchronize_device(self._device)
        now = time.perf_counter()
        self.stages_ms[stage] = self.stages_ms.get(stage, 0.0) + 1e3 * (now - self._begin)
        self._begin = now

    @contextmanager
    def stage(self, stage: str) -> Iterator[None]:
        """Surround a stage that ends with the block."""
        yield
        self.end(stage)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Medians of both ways, ms."""

    subject: str  # what was done, at which size, on which device
    median_ms: float
    reference_median_ms: float
    stages_ms: dict[str, float]  # medians of our stages
    reference_stages_ms: dict[str, float]
    details: dict[str, Any] = field(default_factory=dict)  # further figures by name

    @property
    def ratio(self) -> float:
        """How many times faster than the reference."""
        return self.reference_median_ms / self.median_ms

    def to_document(self) -> dict[str, Any]:
        """Return all of it as plain data."""
        document = asdict(self)
        details = document.pop("details")
        return {**document, "ratio": self.ratio, **details}

    def format(self) -> str:
        """Return it as text for a terminal."""
        lines = [self.subject]
        for name, median_ms, stages_ms in (
            ("ours", self.median_ms, self.stages_ms),
            ("reference", self.reference_median_ms, self.reference_stages_ms),
        ):
            stages = ", ".join(f"{stage} {value:.2f}" for stage, value in stages_ms.items())
            lines.append(f"  {name:9} {median_ms:10.2f} ms   {stages}")
        lines.append(f"  {self.ratio:.2f} times as fast")
        for name, value in self.details.items():
            parts = value.items() if isinstance(value, dict) else ()
            lines.append(f"  {name}: {', '.join(f'{part} {ms:.3f}' for part, ms in parts) or value}")
        return "\n".join(lines)


def compare(
    subject: str,
    ours: Callable[[StageClock], object],
    reference: Callable[[StageClock], object],
    *,
    device: str = "cpu",
    seconds: float = 20.0,
    least: int = 5,
    warmup: int = 2,
    details: Mapping[str, Any] | None = None,
) -> Comparison:
    """Run both in turn and return the medians.

    Both have as many turns as fit into `seconds` of the slower one, but at least `least`; in each turn ours runs until
    it took about a tenth of the reference's time, so that both see the same noise of the machine.

    Args:
        subject: What is done.
        ours: Does it our way, and tells the clock when a stage ends.
        reference: Does it plainly, likewise.
        device: Both have ended when it has finished.
        seconds: About how long to measure.
        least: Turns at least.
        warmup: Runs of each before, not counted.
        details: Further figures.
    """

    def sample(work: Callable[[StageClock], object]) -> tuple[float, dict[str, float]]:
        total, clock = StageClock(device), StageClock(device)
        work(clock)
        total.end("total")
        return total.stages_ms["total"], clock.stages_ms

    for _ in range(warmup):
        sample(ours)
    reference_ms = sum(sample(reference)[0] for _ in range(warmup)) / max(warmup, 1)
    turns = max(least, min(200, int(1e3 * seconds / max(reference_ms, 0.1))))
    samples, reference_samples = [], []
    for _ in tqdm(range(turns), desc=subject, unit="turn", leave=False):
        spent_ms = 0.0
        while spent_ms == 0.0 or spent_ms < 0.1 * reference_ms:
            samples.append(sample(ours))
            spent_ms += samples[-1][0]
        reference_samples.append(sample(reference))
    totals, stages = zip(*samples, strict=True)
    reference_totals, reference_stages = zip(*reference_samples, strict=True)
    return Comparison(
        subject,
        float(np.median(totals)),
        float(np.median(reference_totals)),
        median_stages(stages),
        median_stages(reference_stages),
        dict(details or {}),
    )


def median_stages(samples: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the median of each stage, ms."""
    return {stage: float(np.median([sample[stage] for sample in samples])) for stage in samples[0]}


def graph_times(frame: Callable[[], object], repeats: int = 50) -> dict[str, float]:
    """Return the medians of a frame that launches one captured graph and waits for its results, ms.

    `frame` is all of it by the host's clock, `device` the graph between two CUDA events, and `host` what the first has
    beyond the second: images prepared and staged, the launch, results read. On the CPU, where the graph is work of
    the host, there are no events, and all of the frame counts as the device's.
    """
    samples = []
    for _ in range(repeats):
        wp.timing_begin(cuda_filter=wp.TIMING_GRAPH)
        begin = time.perf_counter()
        frame()
        frame_ms = 1e3 * (time.perf_counter() - begin)
        device_ms = sum(graph.elapsed for graph in wp.timing_end()) or frame_ms
        samples.append({"frame": frame_ms, "device": device_ms, "host": frame_ms - device_ms})
    return median_stages(samples)
