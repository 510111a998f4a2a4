# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""`rt-panoptic bench cameras`: several cameras on one model, then one of them flooding.

The node is real and runs as a process of its own. This process plays the cameras and listens to every camera's
semantics and detections.
"""

from __future__ import annotations

import os
from contextlib import closing
from dataclasses import asdict, dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from rt_panoptic_ros.frames.sources import open_source
from rt_panoptic_ros.ros.benchmark.driver import Camera, FrameDriver, benchmark_folder, check_option
from rt_panoptic_ros.ros.node import panoptic_node
from rt_panoptic_ros.ros.node.frame_statistics import percentiles_ms
from rt_panoptic_ros.ros.processes import running

if TYPE_CHECKING:
    from collections.abc import Mapping

_FRAMES = 16  # different images, played again and again
_WARMUP_S = 5.0


@dataclass(frozen=True, slots=True)
class CamerasBenchmark:
    """What is to be measured."""

    source: str  # of the images
    parameters: dict[str, object]  # of the node
    cameras: int
    rate_hz: float
    flood_hz: float  # of the first camera in the second phase; 0 for none
    seconds: float  # of the first phase; the second takes a fifth of it

    def __post_init__(self) -> None:
        """Check the values."""
        for option, value, least, most in (
            ("--cameras", self.cameras, 2, 16), ("--rate", self.rate_hz, 0.1, 1000),
            ("--flood", self.flood_hz, 0, 1000), ("--seconds", self.seconds, 5, 86400),
        ):  # fmt: skip
            check_option(option, value, f"from {least:g} to {most:g}", holds=least <= value <= most)


@dataclass(frozen=True, slots=True)
class CameraFigures:
    """How one camera fared in one phase."""

    sent_hz: float
    answered_hz: float
    age_p50_ms: float  # from an image's stamp to the arrival of its last output
    age_p95_ms: float
    age_max_ms: float


@dataclass(frozen=True, slots=True)
class PhaseFigures:
    """One phase."""

    cameras: dict[str, CameraFigures]
    engine_ms: float  # time between two answers of the node, whichever camera's
    memory_growth_mb: float

    def format(self, title: str) -> str:
        """Return a table for a terminal."""
        lines = [f"{title}: {self.engine_ms:.1f} ms an answer, memory {self.memory_growth_mb:+.1f} MB"]
        lines.append(f"  {'':10}{'sent, Hz':>10}{'answered':>10}{'age p50':>10}{'p95':>8}{'max, ms':>9}")
        lines += [
            f"  {name:10}{row.sent_hz:10.1f}{row.answered_hz:10.2f}{row.age_p50_ms:10.0f}{row.age_p95_ms:8.0f}"
            f"{row.age_max_ms:9.0f}"
            for name, row in self.cameras.items()
        ]
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class CamerasReport:
    """All of it."""

    subject: str
    calm: PhaseFigures
    flood: PhaseFigures | None
    node: dict[str, str]  # what the node last said on /diagnostics

    def to_document(self) -> dict[str, Any]:
        """Return all of it as plain data."""
        return {**asdict(self), **self.summary()}

    def summary(self) -> dict[str, float]:
        """Return the figures that matter: spread of the shares, age in answer times, change of the others' rates."""
        rates = [row.answered_hz for row in self.calm.cameras.values()]
        ages = [row.age_p95_ms for row in self.calm.cameras.values()]
        figures = {
            "largest_share_over_smallest": max(rates) / min(rates),
            "age_p95_in_engine_times": max(ages) / self.calm.engine_ms,
        }
        if self.flood is not None:
            others = list(self.calm.cameras)[1:]
            figures["others_rate_while_flooded"] = min(
                self.flood.cameras[name].answered_hz / self.calm.cameras[name].answered_hz for name in others
            )
        return {name: round(value, 3) for name, value in figures.items()}

    def format(self) -> str:
        """Return it as text for a terminal."""
        parts = [self.subject, self.calm.format("all alike")]
        if self.flood is not None:
            parts.append(self.flood.format("the first floods"))
        return "\n".join([*parts, *(f"{name}: {value}" for name, value in self.summary().items())])


def bench_cameras(benchmark: CamerasBenchmark) -> CamerasReport:
    """Run the node with several cameras and return what became of their images.

    Raises:
        InvalidInputError: The source can't be read.
        UnavailableError: The node failed or gave no outputs.
    """
    with open_source(benchmark.source) as source:
        frames = [frame.image for frame in islice(source, _FRAMES)]
    height, width = frames[0].shape[:2]
    names = [f"camera{number}" for number in range(1, benchmark.cameras + 1)]
    topics = {name: f"/bench_{os.getpid()}/{name}/image" for name in names}
    parameters = {
        **benchmark.parameters,
        "cameras": ",".join(f"{name}={topic}" for name, topic in topics.items()),
        "camera_size": f"{height}x{width}",
        "image_reliability": "reliable",
    }
    with (
        benchmark_folder("cameras") as folder,
        running("node", panoptic_node.main, parameters, os.environ, folder) as process,
    ):
        cameras = [Camera(name, topic, f"/panoptic_node/{name}", process) for name, topic in topics.items()]
        rates_hz = dict.fromkeys(cameras, benchmark.rate_hz)
        with closing(FrameDriver(cameras, frames, ("semantic", "detections"))) as driver:
            driver.play(rates_hz, seconds=_WARMUP_S)
            calm = _phase(driver, rates_hz, benchmark.seconds)
            flooding = {**rates_hz, cameras[0]: benchmark.flood_hz}
            flood = _phase(driver, flooding, benchmark.seconds / 5) if benchmark.flood_hz else None
    subject = f"{benchmark.cameras} cameras of {height}x{width} at {benchmark.rate_hz:g} Hz for {benchmark.seconds:g} s"
    return CamerasReport(subject, calm, flood, driver.diagnostics)


def _phase(driver: FrameDriver, rates_hz: Mapping[Camera, float], seconds: float) -> PhaseFigures:
    """Play for some seconds and return what happened."""
    for camera in rates_hz:
        camera.reset()
    elapsed_s = driver.play(rates_hz, seconds=seconds)
    figures, answers = {}, 0
    for camera in rates_hz:
        ages_ms = np.array([camera.answers[stamp].age_ms for stamp in camera.answered_ns()])
        answers += len(ages_ms)
        p50, p95, longest = (*percentiles_ms(ages_ms), ages_ms.max()) if len(ages_ms) else (np.nan,) * 3
        figures[camera.name] = CameraFigures(
            len(camera.sent_ns) / elapsed_s, len(ages_ms) / elapsed_s, p50, p95, float(longest)
        )
    return PhaseFigures(figures, 1e3 * elapsed_s / max(answers, 1), next(iter(rates_hz)).memory_growth_mb())
