"""`rt-panoptic bench cameras`: several cameras on one engine, then one of them flooding.

The node is real and runs as a process of its own. This process plays the cameras and listens to every camera's
semantics and detections.
"""

from __future__ import annotations

import math
import os
import shutil
import struct
import tempfile
import threading
import time
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.serialization import serialize_message
from sensor_msgs.msg import Image
from std_msgs.msg import Header
from tqdm import tqdm

from rt_panoptic_ros.errors import InvalidInputError, UnavailableError
from rt_panoptic_ros.frames.message_layout import stamp_ns
from rt_panoptic_ros.frames.sources import open_source
from rt_panoptic_ros.ros import qos
from rt_panoptic_ros.ros.benchmark.latency_benchmark import DOMAIN
from rt_panoptic_ros.ros.benchmark.latency_benchmark_driver import memory_mb
from rt_panoptic_ros.ros.conversions import image_to_msg, output_classes
from rt_panoptic_ros.ros.node.frame_statistics import percentiles_ms
from rt_panoptic_ros.ros.processes import exit_on_sigterm, local_environment, running

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rt_panoptic_ros.ros.processes import Process

_FRAMES = 16  # different images, played again and again
_PATIENCE_S = 120.0  # for the first answer: the node compiles its kernels before
_WARMUP_S = 5.0
_STAMP, _STAMP_PLACE = struct.Struct("<iI"), 4  # of a serialised image, behind the encapsulation's four bytes
_TOPICS = output_classes(("semantic", "detections"))


@dataclass(frozen=True, slots=True)
class CamerasBenchmark:
    """What is to be measured."""

    source: str  # of the images
    parameters: dict[str, object]  # of the node
    cameras: int = 3
    rate_hz: float = 15.0
    flood_hz: float = 200.0  # of the first camera in the second phase; 0 for none
    seconds: float = 300.0  # of the first phase; the second takes a fifth of it

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            InvalidInputError: One that cannot be measured with.
        """
        for name, value, least, most in (
            ("--cameras", self.cameras, 2, 16), ("--rate", self.rate_hz, 0.1, 1000),
            ("--flood", self.flood_hz, 0, 1000), ("--seconds", self.seconds, 5, 86400),
        ):  # fmt: skip
            if not least <= value <= most:
                raise InvalidInputError(f"expected {name} to be from {least:g} to {most:g}, got {value:g}")

    @property
    def names(self) -> list[str]:
        """The cameras' names."""
        return [f"camera{number}" for number in range(1, self.cameras + 1)]


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
        """Return the figures that matter: spread of the shares, age in engine times, change of the others' rates."""
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
    os.environ.update(local_environment(os.environ, DOMAIN))
    exit_on_sigterm()
    with open_source(benchmark.source) as source:
        frames = [frame.image for frame in islice(source, _FRAMES)]
    namespace = f"/bench_{os.getpid()}"
    topics = ",".join(f"{name}={namespace}/{name}/image" for name in benchmark.names)
    folder = Path(tempfile.mkdtemp(prefix="rt_panoptic_bench_cameras_"))
    parameters = {**benchmark.parameters, "cameras": topics, "image_reliability": "reliable"}
    height, width = frames[0].shape[:2]
    parameters["camera_size"] = f"{height}x{width}"
    with running("node", "panoptic_node", parameters, os.environ, folder) as process:
        context = Context()
        rclpy.init(args=[], context=context)
        player = _Player(benchmark, namespace, frames, process, context)
        try:
            player.warm_up()
            calm = player.play(benchmark.seconds, benchmark.rate_hz)
            flood = player.play(benchmark.seconds / 5, benchmark.flood_hz) if benchmark.flood_hz else None
            subject = f"{benchmark.cameras} cameras of {height}x{width} at {benchmark.rate_hz:g} Hz"
            report = CamerasReport(f"{subject} for {benchmark.seconds:g} s", calm, flood, player.said)
        finally:
            player.close()
            rclpy.shutdown(context=context)
    shutil.rmtree(folder)  # where something failed, it stays: the error names the log in it
    return report


@dataclass
class _Tally:
    """What happened to one camera in one phase."""

    sent: int = 0
    ages_ms: list[float] = field(default_factory=list)
    parts: dict[int, int] = field(default_factory=dict)  # stamp: outputs still awaited


class _Player(Node):
    """The cameras and the listener."""

    def __init__(
        self,
        benchmark: CamerasBenchmark,
        namespace: str,
        frames: Sequence[np.ndarray],
        process: Process,
        context: Context,
    ) -> None:
        super().__init__("cameras", context=context, start_parameter_services=False)
        self._rates_hz = dict.fromkeys(benchmark.names, benchmark.rate_hz)
        self._process = process
        # Serialised once, as Python takes several times as long for it as a camera's driver would.
        self._images = {name: cycle([_serialised(frame, name) for frame in frames]) for name in benchmark.names}
        self._tallies = {name: _Tally() for name in benchmark.names}
        self.said: dict[str, str] = {}
        profile = qos.stream("reliable")
        self._cameras = {
            name: self.create_publisher(Image, f"{namespace}/{name}/image", profile) for name in benchmark.names
        }
        for name in benchmark.names:
            for output, kind in _TOPICS.items():
                self.create_subscription(
                    kind, f"/panoptic_node/{name}/{output}", partial(self._on_output, name), profile
                )
        self.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, qos.diagnostics())
        self._executor = SingleThreadedExecutor(context=context)
        self._executor.add_node(self)
        # Timers of the executor would cost as much for a flood as its images.
        self._lock = threading.Lock()
        self._listener = threading.Thread(target=self._executor.spin, name="listener")
        self._listener.start()

    def warm_up(self) -> None:
        """Play until every camera is answered, and a little longer.

        Raises:
            UnavailableError: Some camera is not.
        """
        self._run(_PATIENCE_S, lambda: all(tally.ages_ms for tally in self._tallies.values()))
        silent = [name for name, tally in self._tallies.items() if not tally.ages_ms]
        if silent:
            raise UnavailableError(
                f"expected answers to {', '.join(silent)} within {_PATIENCE_S:g} s, got none: "
                f"{self._process.last_words()}"
            )
        self._run(_WARMUP_S, lambda: False)

    def play(self, seconds: float, first_hz: float) -> PhaseFigures:
        """Play for some seconds, the first camera at a rate of its own, and return what happened."""
        self._rates_hz[next(iter(self._rates_hz))] = first_hz
        for tally in self._tallies.values():
            tally.sent, tally.ages_ms = 0, []
        memory = []
        begin_s = time.monotonic()
        with tqdm(total=round(seconds), desc="playing", unit="s", leave=False) as bar:

            def tick() -> bool:
                elapsed_s = int(time.monotonic() - begin_s)
                if elapsed_s > bar.n:
                    bar.update(elapsed_s - bar.n)
                    memory.append(memory_mb(self._process, "VmRSS"))
                return False

            self._run(seconds, tick)
        elapsed_s = time.monotonic() - begin_s
        figures = {}
        for name, tally in self._tallies.items():
            p50, p95 = percentiles_ms(np.array(tally.ages_ms)) if tally.ages_ms else (np.nan, np.nan)
            longest = max(tally.ages_ms, default=np.nan)
            figures[name] = CameraFigures(
                tally.sent / elapsed_s, len(tally.ages_ms) / elapsed_s, p50, p95, float(longest)
            )
        answered = sum(len(tally.ages_ms) for tally in self._tallies.values())
        # The first after a tenth of the time, when everything has been in use for a while.
        growth_mb = memory[-1] - memory[len(memory) // 10]
        return PhaseFigures(figures, 1e3 * elapsed_s / max(answered, 1), growth_mb)

    def close(self) -> None:
        """Leave the graph."""
        self._executor.shutdown()
        self._listener.join()
        self.destroy_node()

    def _run(self, seconds: float, done: Callable[[], bool]) -> None:
        begin_s = now_s = time.monotonic()
        due_s = {name: begin_s + number / 100 for number, name in enumerate(self._rates_hz)}
        while now_s < begin_s + seconds and not done():
            self._process.check_running()
            name = min(due_s, key=due_s.__getitem__)
            time.sleep(max(0.0, due_s[name] - now_s))
            self._send(name)
            now_s = time.monotonic()
            # A multiple of the period, so lateness doesn't add up; a missed one is left out.
            periods = max(1, math.ceil((now_s - due_s[name]) * self._rates_hz[name]))
            due_s[name] += periods / self._rates_hz[name]

    def _send(self, name: str) -> None:
        camera, tally = self._cameras[name], self._tallies[name]
        if not camera.get_subscription_count():
            return
        image = next(self._images[name])
        stamp = self.get_clock().now().to_msg()
        _STAMP.pack_into(image, _STAMP_PLACE, stamp.sec, stamp.nanosec)
        with self._lock:
            tally.parts[stamp_ns(Header(stamp=stamp))] = len(_TOPICS)
        camera.publish(bytes(image))
        tally.sent += 1

    def _on_output(self, name: str, message: Any) -> None:
        tally, stamp = self._tallies[name], stamp_ns(message.header)
        with self._lock:
            tally.parts[stamp] -= 1
            if not tally.parts[stamp]:
                tally.ages_ms.append((self.get_clock().now().nanoseconds - stamp) / 1e6)
                for older in [key for key in tally.parts if key <= stamp]:
                    del tally.parts[older]

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        self.said = {item.key: item.value for item in message.status[0].values}


def _serialised(frame: np.ndarray, camera: str) -> bytearray:
    return bytearray(serialize_message(image_to_msg(frame, "rgb8", Header(frame_id=camera))))
