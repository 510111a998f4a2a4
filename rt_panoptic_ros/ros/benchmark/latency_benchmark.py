"""`rt-panoptic bench node`: what the ROS side of the node costs, beside a bare relay of messages of the same sizes.

The node's network is a stand-in that takes a fixed time, none by default; all else of the node is real. Node and relay
run as processes of their own, each gets frames in turn, and the driver in this process takes the time from an image's
stamp until the last of its outputs was received.
"""

from __future__ import annotations

import math
import os
import shutil
import tempfile
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import rclpy
from rclpy.context import Context

from rt_panoptic_ros.benchmark.measure import Comparison, median_stages
from rt_panoptic_ros.errors import InvalidInputError, UnavailableError
from rt_panoptic_ros.ros.benchmark.latency_benchmark_driver import FrameDriver, Subject, memory_mb
from rt_panoptic_ros.ros.benchmark.latency_benchmark_subjects import NODE_NAME, RELAY_NAME, SubjectSettings, read_record
from rt_panoptic_ros.ros.node.frame_statistics import percentiles_ms
from rt_panoptic_ros.ros.processes import exit_on_sigterm, local_environment, running

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

DOMAIN = "86"
"""ROS domain of the benchmark, unless the environment names one."""

NOT_OWN = ("input", "network", "query_boxes", "masks", "fusion")
"""Stages that are the pipeline's, not the ROS side's."""

_MODULE = "latency_benchmark_subjects"
_MOST_DETECTIONS = 100
_LEAST_ENDURANCE = 10


@dataclass(frozen=True, slots=True)
class NodeBenchmark:
    """What is to be measured."""

    size: tuple[int, int]  # (height, width) of the camera's images, px
    rate_hz: float = 10.0
    frames: int = 100  # in each round
    rounds: int = 3
    detections: int = 10
    network_ms: float = 0.0

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            InvalidInputError: One that cannot be measured with.
        """
        expectations = {
            "--rate to be a number above 0 and up to 1000": (self.rate_hz, 0 < self.rate_hz <= 1000),
            "--frames to be a whole number from 1": (self.frames, self.frames >= 1),
            "--rounds to be a whole number from 1": (self.rounds, self.rounds >= 1),
            f"--detections to be a whole number up to {_MOST_DETECTIONS}": (
                self.detections, 0 <= self.detections <= _MOST_DETECTIONS,
            ),
            "--network-ms to be a number from 0": (
                self.network_ms, self.network_ms >= 0 and math.isfinite(self.network_ms),
            ),
        }  # fmt: skip
        for expectation, (value, holds) in expectations.items():
            if not holds:
                raise InvalidInputError(f"expected {expectation}, got {value:g}")

    def describe(self) -> str:
        """Return it in words."""
        height, width = self.size
        return f"{height}x{width} at {self.rate_hz:g} Hz, {self.detections} objects, network {self.network_ms:g} ms"


@dataclass(frozen=True, slots=True)
class Endurance:
    """How the node alone fared over many frames."""

    subject: str
    figures: dict[str, Any]
    stages_ms: dict[str, float] = field(default_factory=dict)  # medians

    def to_document(self) -> dict[str, Any]:
        """Return all of it as plain data."""
        return {"subject": self.subject, **self.figures, "stages_ms": self.stages_ms}

    def format(self) -> str:
        """Return it as text for a terminal."""
        lines = [f"  {name}: {value}" for name, value in self.figures.items()]
        return "\n".join(
            [
                self.subject,
                *lines,
                f"  stages, ms: {', '.join(f'{stage} {value:.2f}' for stage, value in self.stages_ms.items())}",
            ]
        )


def compare_node_with_relay(benchmark: NodeBenchmark) -> Comparison:
    """Measure node and relay in turn, in several rounds, and return the medians over all rounds.

    Its details hold two ratios: `node_over_relay` counts everything from an image's stamp on; `own_cost_over_relay`
    leaves out of each of the node's frames the pipeline's stages (`NOT_OWN`), and of the relay's the stand-in's time.
    `age_at_turn` is from an image's stamp until work on it began; the relay is a plain subscription of depth 1.

    Raises:
        UnavailableError: A process failed or gave no outputs.
    """
    node, relay = _measure(benchmark, (NODE_NAME, RELAY_NAME), benchmark.frames, benchmark.rounds)
    return Comparison(
        f"node beside a bare relay, from an image's stamp to all outputs received: {benchmark.describe()}",
        node.median_ms,
        relay.median_ms,
        median_stages(node.stages_ms),
        median_stages(relay.stages_ms),
        {
            "node_over_relay": round(node.median_ms / relay.median_ms, 3),
            "own_cost_over_relay": round(node.own_cost_ms / relay.own_cost_ms, 3),
            "own_cost_ms": round(node.own_cost_ms, 3),
            "own_cost_leaves_out": list(NOT_OWN),
            **node.ages,
            **{f"relay_{name}": value for name, value in relay.ages.items()},
            **node.counts,
            "relay_frames_sent": relay.counts["frames_sent"],
            "relay_frames_answered": relay.counts["frames_answered"],
            **node.memory,
        },
    )


def endure(benchmark: NodeBenchmark, frames: int) -> Endurance:
    """Send frames to the node alone and return what became of them, and of its memory.

    Raises:
        InvalidInputError: Less than 10 frames.
        UnavailableError: The node failed or gave no outputs.
    """
    if frames < _LEAST_ENDURANCE:
        raise InvalidInputError(
            f"expected --endurance to be a number of frames from {_LEAST_ENDURANCE}, as memory is compared with that "
            f"after a tenth of them, got {frames}"
        )
    (node,) = _measure(benchmark, (NODE_NAME,), frames, 1)
    figures = {
        **node.counts,
        "sent_rate_hz": round(node.sent_rate_hz, 2),
        "median_ms": round(node.median_ms, 3),
        "own_cost_ms": round(node.own_cost_ms, 3),
        **node.ages,
        **node.memory,
    }
    subject = f"node alone, {frames} frames: {benchmark.describe()}"
    return Endurance(subject, figures, median_stages(node.stages_ms))


class Outcome:
    """What the driver and the subject itself saw of the frames that count."""

    def __init__(self, subject: Subject, record: Path, peak_mb: float) -> None:
        """Join both.

        Args:
            subject: The driver's part; the last of its `resident_mb` was taken at the end.
            record: File that the subject wrote.
            peak_mb: The most memory that the subject ever had, MB.

        Raises:
            UnavailableError: No frame was answered.
        """
        sent, latencies_ms = set(subject.sent_ns), subject.latencies_ms
        answered = [stamp for stamp in subject.sent_ns if stamp in latencies_ms]
        if not answered:
            raise UnavailableError(
                f"expected outputs of the {subject.process.name} for some of {len(sent)} frames, got none: lower --rate"
            )
        arrived, stages_ms = read_record(record)
        arrived, processed = arrived & sent, stages_ms.keys() & sent
        self.stages_ms = [  # of each answered frame; they add up to its latency
            {**stages_ms[stamp], "deliver": latencies_ms[stamp] - sum(stages_ms[stamp].values())} for stamp in answered
        ]
        left_out = [sum(row.get(stage, 0.0) for stage in NOT_OWN) for row in self.stages_ms]
        own_costs = [latencies_ms[stamp] - other for stamp, other in zip(answered, left_out, strict=True)]
        self.median_ms = float(np.median([latencies_ms[stamp] for stamp in answered]))
        self.own_cost_ms = float(np.median(own_costs))
        ages_ms = np.array([row["receive"] + row.get("hand_over", 0.0) for row in self.stages_ms])
        age_p50, age_p95 = percentiles_ms(ages_ms)
        self.ages = {"age_at_turn_p50_ms": round(age_p50, 1), "age_at_turn_p95_ms": round(age_p95, 1)}
        self._sent_ns = subject.sent_ns
        self.counts = {
            "frames_sent": len(sent),
            "frames_received_by_node": len(arrived),
            "frames_not_received": len(sent - arrived),  # lost, or replaced in the middleware by a newer one
            "frames_dropped": len(arrived - processed),  # by the node, for a newer one
            "frames_answered": len(answered),
            "objects_per_frame": float(np.mean([subject.objects[stamp] for stamp in answered])),
        }
        # The first after a tenth of the frames, when everything has been in use for a while.
        early_mb = subject.resident_mb[(len(subject.resident_mb) - 1) // 10]
        self.memory = {
            "peak_memory_mb": round(peak_mb, 1),
            "memory_growth_mb": round(subject.resident_mb[-1] - early_mb, 1),
        }

    @property
    def sent_rate_hz(self) -> float:
        """The rate that the driver kept, of at least two frames."""
        return (len(self._sent_ns) - 1) * 1e9 / (self._sent_ns[-1] - self._sent_ns[0])


def _measure(benchmark: NodeBenchmark, names: Sequence[str], frames: int, rounds: int) -> list[Outcome]:
    """Run the subjects as processes, play to each in turn, and return what came of it, in the order of `names`."""
    # Of this process too: its part of the graph reads domain, range and transport there.
    os.environ.update(local_environment(os.environ, DOMAIN))
    exit_on_sigterm()
    folder = Path(tempfile.mkdtemp(prefix="rt_panoptic_bench_node_"))
    with ExitStack() as stack:
        subjects = [stack.enter_context(_subject(name, benchmark, folder)) for name in names]
        driver = stack.enter_context(_driver(benchmark, subjects, frames * rounds * len(names)))
        for _ in range(rounds):
            for subject in subjects:
                driver.play(subject, frames)
        peaks_mb = []
        for subject in subjects:
            subject.resident_mb.append(memory_mb(subject.process, "VmRSS"))
            peaks_mb.append(memory_mb(subject.process, "VmHWM"))
    outcomes = []
    for subject, name, peak_mb in zip(subjects, names, peaks_mb, strict=True):
        if subject.process.popen.returncode != 0:
            raise subject.process.failure()
        outcomes.append(Outcome(subject, _record(folder, name), peak_mb))
    shutil.rmtree(folder)  # where something failed, it stays: the error names the log in it
    return outcomes


@contextmanager
def _subject(name: str, benchmark: NodeBenchmark, folder: Path) -> Iterator[Subject]:
    namespace = f"/bench_{os.getpid()}_{name}"  # so that another benchmark at the same time is not disturbed
    settings = SubjectSettings(
        namespace, benchmark.size, benchmark.detections, benchmark.network_ms, str(_record(folder, name))
    )
    height, width = benchmark.size
    is_node = name == NODE_NAME
    with running(
        name,
        _MODULE,
        {"camera_size": f"{height}x{width}"} if is_node else {},
        os.environ,
        folder,
        function="run_measured_node" if is_node else "run_bare_relay",
        words=(settings.to_word(),),
    ) as process:
        yield Subject(namespace, name, process)


@contextmanager
def _driver(benchmark: NodeBenchmark, subjects: Sequence[Subject], total: int) -> Iterator[FrameDriver]:
    context = Context()
    rclpy.init(args=[], context=context)
    try:
        driver = FrameDriver(subjects, size=benchmark.size, rate_hz=benchmark.rate_hz, total=total, context=context)
        try:
            yield driver
        finally:
            driver.close()
    finally:
        rclpy.shutdown(context=context)


def _record(folder: Path, name: str) -> Path:
    return folder / f"{name}.jsonl"
