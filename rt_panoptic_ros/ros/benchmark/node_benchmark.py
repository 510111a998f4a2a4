# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""`rt-panoptic bench node`: what the ROS side of the node costs, beside a bare relay of messages of the same sizes.

The node's network is a stand-in that takes a fixed time, none by default; all else of the node is real. Node and relay
run as processes of their own, each gets frames in turn, and the driver in this process takes the time from an image's
stamp until the last of its outputs was received.
"""

from __future__ import annotations

import math
import os
from contextlib import ExitStack, closing
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rt_panoptic_ros.benchmark.measure import Comparison, median_stages
from rt_panoptic_ros.errors import InvalidInputError, UnavailableError
from rt_panoptic_ros.ros.benchmark.driver import Camera, FrameDriver, benchmark_folder, check_option, memory_mb
from rt_panoptic_ros.ros.benchmark.subjects import NODE_NAME, RELAY_NAME, SubjectSettings, read_log, run_subject
from rt_panoptic_ros.ros.node.frame_statistics import percentiles_ms
from rt_panoptic_ros.ros.processes import running

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

NOT_OWN = ("input", "network", "query_boxes", "masks", "fusion")
"""Stages that are the pipeline's, not the ROS side's."""

_OF_THE_RELAY = ("age_at_turn_p50_ms", "age_at_turn_p95_ms", "frames_sent", "frames_answered")
_OUTPUTS = ("semantic", "instance", "detections")
_FEWER = {"few_outputs": {"enabled_outputs": ",".join(_OUTPUTS)}}
_LEAST_ENDURANCE = 10


@dataclass(frozen=True, slots=True)
class NodeBenchmark:
    """What is to be measured."""

    size: tuple[int, int]  # (height, width) of the camera's images, px
    rate_hz: float
    frames: int  # in each round
    rounds: int
    detections: int
    network_ms: float

    def __post_init__(self) -> None:
        """Check the values."""
        check_option("--rate", self.rate_hz, "a number above 0 and up to 1000", holds=0 < self.rate_hz <= 1000)
        check_option("--frames", self.frames, "a whole number from 1", holds=self.frames >= 1)
        check_option("--rounds", self.rounds, "a whole number from 1", holds=self.rounds >= 1)
        check_option("--detections", self.detections, "a whole number up to 100", holds=0 <= self.detections <= 100)
        check_option("--network-ms", self.network_ms, "a number from 0", holds=0 <= self.network_ms < math.inf)

    def describe(self) -> str:
        """Return it in words."""
        height, width = self.size
        return f"{height}x{width} at {self.rate_hz:g} Hz, {self.detections} objects, network {self.network_ms:g} ms"


@dataclass(frozen=True, slots=True)
class Endurance:
    """How the node alone fared over many frames."""

    subject: str
    figures: dict[str, Any]
    stages_ms: dict[str, float]  # medians

    def to_document(self) -> dict[str, Any]:
        """Return all of it as plain data."""
        return {"subject": self.subject, **self.figures, "stages_ms": self.stages_ms}

    def format(self) -> str:
        """Return it as text for a terminal."""
        lines = [f"  {name}: {value}" for name, value in self.figures.items()]
        stages = ", ".join(f"{stage} {value:.2f}" for stage, value in self.stages_ms.items())
        return "\n".join([self.subject, *lines, f"  stages, ms: {stages}"])


def compare_node_with_relay(benchmark: NodeBenchmark) -> Comparison:
    """Measure node and relay in turn, in several rounds, and return the medians over all rounds.

    Its details hold two ratios: `node_over_relay` counts everything from an image's stamp on; `own_cost_over_relay`
    leaves out of each of the node's frames the pipeline's stages (`NOT_OWN`), and of the relay's the stand-in's time.
    `age_at_turn` is from an image's stamp until work on it began; the relay is a plain subscription of depth 1.

    Raises:
        UnavailableError: A process failed or gave no outputs.
    """
    node, relay = _measure(benchmark, {NODE_NAME: {}, RELAY_NAME: {}}, benchmark.frames, benchmark.rounds)
    return Comparison(
        f"node beside a bare relay, from an image's stamp to all outputs received: {benchmark.describe()}",
        node.median_ms,
        relay.median_ms,
        median_stages(node.stages_ms),
        median_stages(relay.stages_ms),
        {
            "node_over_relay": round(node.median_ms / relay.median_ms, 3),
            "own_cost_over_relay": round(node.own_cost_ms / relay.own_cost_ms, 3),
            "own_cost_leaves_out": list(NOT_OWN),
            **node.figures,
            **{f"relay_{name}": relay.figures[name] for name in _OF_THE_RELAY},
        },
    )


def compare_idle_outputs(benchmark: NodeBenchmark) -> Comparison:
    """Measure the node that offers all outputs, and itself offering none but those that are listened to, in turn.

    Its detail `all_over_few` is the ratio of their times from an image's stamp to all outputs received.

    Raises:
        UnavailableError: A process failed or gave no outputs.
    """
    every, few = _measure(benchmark, {NODE_NAME: {}, **_FEWER}, benchmark.frames, benchmark.rounds)
    return Comparison(
        f"all outputs offered (ours) beside {', '.join(_OUTPUTS)} alone: {benchmark.describe()}",
        every.median_ms,
        few.median_ms,
        median_stages(every.stages_ms),
        median_stages(few.stages_ms),
        {"all_over_few": round(every.median_ms / few.median_ms, 3)},
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
    (node,) = _measure(benchmark, {NODE_NAME: {}}, frames, 1)
    figures = {
        **node.figures,
        "sent_rate_hz": round(node.sent_rate_hz, 2),
        "median_ms": round(node.median_ms, 3),
    }
    return Endurance(f"node alone, {frames} frames: {benchmark.describe()}", figures, median_stages(node.stages_ms))


class Outcome:
    """What the driver and the subject itself saw of the frames that count.

    Attributes:
        stages_ms: Of each answered frame; they add up to its age.
        median_ms: Of the ages.
        own_cost_ms: Median of the ages without the stages `NOT_OWN`.
        figures: The other figures by name.
    """

    def __init__(self, camera: Camera, log: Path, peak_mb: float) -> None:
        """Join both.

        Args:
            camera: The driver's part; the last of its `resident_mb` was taken at the end.
            log: File that the subject wrote.
            peak_mb: The most memory that the subject ever had, MB.

        Raises:
            UnavailableError: No frame was answered.
        """
        sent, answered = set(camera.sent_ns), camera.answered_ns()
        if not answered:
            raise UnavailableError(
                f"expected outputs of the {camera.process.name} for some of {len(sent)} frames, got none: lower --rate"
            )
        came, stages_ms = read_log(log)
        arrived, processed = came & sent, stages_ms.keys() & sent
        ages_ms = {stamp: camera.answers[stamp].age_ms for stamp in answered}
        self.stages_ms = [
            {**stages_ms[stamp], "deliver": age - sum(stages_ms[stamp].values())} for stamp, age in ages_ms.items()
        ]
        self.median_ms = float(np.median(list(ages_ms.values())))
        own_costs_ms = [sum(ms for stage, ms in row.items() if stage not in NOT_OWN) for row in self.stages_ms]
        self.own_cost_ms = float(np.median(own_costs_ms))
        turns_ms = np.array([row["receive"] + row.get("hand_over", 0.0) for row in self.stages_ms])
        turn_p50, turn_p95 = percentiles_ms(turns_ms)
        self.figures = {
            "frames_sent": len(sent),
            "frames_received_by_node": len(arrived),
            "frames_not_received": len(sent - arrived),  # lost, or replaced in the middleware by a newer one
            "frames_dropped": len(arrived - processed),  # by the node, for a newer one
            "frames_answered": len(answered),
            "objects_per_frame": float(np.mean([camera.answers[stamp].objects for stamp in answered])),
            "own_cost_ms": round(self.own_cost_ms, 3),
            "age_at_turn_p50_ms": round(turn_p50, 1),
            "age_at_turn_p95_ms": round(turn_p95, 1),
            "peak_memory_mb": round(peak_mb, 1),
            "memory_growth_mb": round(camera.memory_growth_mb(), 1),
        }
        self._sent_ns = camera.sent_ns

    @property
    def sent_rate_hz(self) -> float:
        """The rate that the driver kept, of at least two frames."""
        return (len(self._sent_ns) - 1) * 1e9 / (self._sent_ns[-1] - self._sent_ns[0])


def _measure(
    benchmark: NodeBenchmark, subjects: Mapping[str, Mapping[str, str]], frames: int, rounds: int
) -> list[Outcome]:
    """Run {subject: its parameters} as processes, play to each in turn, and return what came of it, in their order."""
    height, width = benchmark.size
    noise = np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)
    with benchmark_folder("node") as folder:
        logs = [folder / f"{name}.jsonl" for name in subjects]
        with ExitStack() as stack:
            cameras = []
            for name, log in zip(subjects, logs, strict=True):
                namespace = f"/bench_{os.getpid()}_{name}"  # another benchmark at the same time is not disturbed
                subject = SubjectSettings(
                    namespace, str(log), benchmark.size, benchmark.detections, benchmark.network_ms
                )
                kind = RELAY_NAME if name == RELAY_NAME else NODE_NAME
                arguments = (kind, *astuple(subject))
                parameters = {"camera_size": f"{height}x{width}", **subjects[name]}
                process = stack.enter_context(running(name, run_subject, parameters, os.environ, folder, arguments))
                cameras.append(Camera(name, f"{namespace}/image", f"{namespace}/{kind}", process))
            driver = stack.enter_context(closing(FrameDriver(cameras, [noise], _OUTPUTS)))
            for number in range(rounds):
                for camera in cameras if number % 2 == 0 else cameras[::-1]:  # neither is always the first
                    driver.play({camera: benchmark.rate_hz}, frames=frames)
            for camera in cameras:
                camera.resident_mb.append(memory_mb(camera.process, "VmRSS"))
            peaks_mb = [memory_mb(camera.process, "VmHWM") for camera in cameras]
        for camera in cameras:
            if camera.process.popen.returncode != 0:
                raise camera.process.failure()
        return [Outcome(*seen) for seen in zip(cameras, logs, peaks_mb, strict=True)]
