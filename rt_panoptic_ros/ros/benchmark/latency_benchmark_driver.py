"""The camera and the listener of `rt-panoptic bench node`: sends stamped images, and sees when their outputs come."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rclpy.clock import Clock, ClockType
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from sensor_msgs.msg import Image
from std_msgs.msg import Header
from tqdm import tqdm

from rt_panoptic_ros.errors import UnavailableError
from rt_panoptic_ros.frames.message_layout import stamp_ns
from rt_panoptic_ros.ros import qos
from rt_panoptic_ros.ros.conversions import image_to_msg, output_classes
from rt_panoptic_ros.ros.tools.recording import StampMatcher

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rclpy.context import Context

    from rt_panoptic_ros.ros.processes import Process

TOPICS = output_classes(("semantic", "instance", "detections"))

_WARMUP = 5
"""Frames answered in full before counting begins: discovery is done at both ends, and caches are warm."""
_PATIENCE_S = 120.0
"""For the first of them: the node compiles its kernels before."""
_LAST_WORDS_S = 3.0
"""For the outputs of the last frame, which were lost if they take longer."""


@dataclass
class Subject:
    """A process under measurement, and what the driver saw of it."""

    namespace: str  # its camera topic is NAMESPACE/image
    node: str  # its output topics begin with NAMESPACE/NODE/
    process: Process
    sent_ns: list[int] = field(default_factory=list)  # stamps of the frames that count
    latencies_ms: dict[int, float] = field(default_factory=dict)  # stamp: until its last output came; all frames
    objects: dict[int, int] = field(default_factory=dict)  # stamp: detections in the answer
    resident_mb: list[float] = field(default_factory=list)  # of the process, before each frame that counts


class FrameDriver(Node):
    """Plays frames to one subject at a time and takes the time until all of a frame's outputs came."""

    def __init__(
        self, subjects: Sequence[Subject], *, size: tuple[int, int], rate_hz: float, total: int, context: Context
    ) -> None:
        """Offer the images and subscribe to the outputs.

        Args:
            subjects: Whom `play` will be called with.
            size: (height, width) of the images, px.
            rate_hz: Images per second.
            total: Frames that will be played in all, for the progress bar.
            context: An initialised one.
        """
        super().__init__("latency_driver", context=context, start_parameter_services=False)
        self._rate_hz = rate_hz
        self._progress = tqdm(total=total, desc="frames", unit="frame", leave=False)
        noise = np.random.default_rng(1).integers(0, 256, (*size, 3), dtype=np.uint8)
        self._image = image_to_msg(noise, "rgb8", Header())
        self._steady_clock = Clock(clock_type=ClockType.STEADY_TIME)
        self._cameras = {}
        self._matchers = {}
        self._subjects = list(subjects)
        for subject in subjects:
            # Reliable, as most cameras' drivers offer and most listeners ask: what the subjects ask and offer counts.
            profile = qos.stream("reliable")
            self._cameras[subject.namespace] = self.create_publisher(Image, f"{subject.namespace}/image", profile)
            self._matchers[subject.namespace] = StampMatcher(tuple(TOPICS))
            for topic, kind in TOPICS.items():
                name = f"{subject.namespace}/{subject.node}/{topic}"
                self.create_subscription(kind, name, partial(self._on_output, subject, topic), profile)
        self._executor = SingleThreadedExecutor(context=context)
        self._executor.add_node(self)

    def play(self, subject: Subject, frames: int) -> None:
        """Send frames that count, after some that don't, and wait for the last one's outputs.

        Raises:
            UnavailableError: A process ended, or gave no outputs at all.
        """
        warm = len(subject.latencies_ms) + _WARMUP
        self._send_until(subject, lambda: len(subject.latencies_ms) >= warm, counts=False, patience_s=_PATIENCE_S)
        missing = warm - len(subject.latencies_ms)
        if missing > 0:
            raise UnavailableError(
                f"expected {_WARMUP} frames answered by the {subject.process.name} within {_PATIENCE_S:g} s, got "
                f"{_WARMUP - missing}: lower --rate, or see what it says: {subject.process.last_words()}"
            )
        goal = len(subject.sent_ns) + frames
        self._send_until(subject, lambda: len(subject.sent_ns) >= goal, counts=True, patience_s=math.inf)
        # The subjects may leave out a frame for a newer one, so the last one's outputs are the last to come.
        self._spin_until(lambda: subject.sent_ns[-1] in subject.latencies_ms, _LAST_WORDS_S)

    def close(self) -> None:
        """Leave the graph."""
        self._progress.close()
        self._executor.shutdown()
        self.destroy_node()

    def _send_until(self, subject: Subject, condition: Callable[[], bool], *, counts: bool, patience_s: float) -> None:
        # The timer's due times are multiples of its period, so lateness doesn't add up.
        send = partial(self._send, subject, condition, counts)
        timer = self.create_timer(1 / self._rate_hz, send, clock=self._steady_clock)
        try:
            self._spin_until(condition, patience_s)
        finally:
            self.destroy_timer(timer)

    def _spin_until(self, condition: Callable[[], bool], patience_s: float) -> None:
        """Run callbacks until a condition holds or the time is over.

        Raises:
            UnavailableError: A process ended.
        """
        deadline_s = time.monotonic() + patience_s
        while not condition() and time.monotonic() < deadline_s:
            for subject in self._subjects:
                subject.process.check_running()
            self._executor.spin_once(timeout_sec=0.1)

    def _send(self, subject: Subject, condition: Callable[[], bool], counts: bool) -> None:
        camera = self._cameras[subject.namespace]
        if condition() or not camera.get_subscription_count():
            return
        if counts:
            subject.resident_mb.append(memory_mb(subject.process, "VmRSS"))
        self._image.header = Header(stamp=self.get_clock().now().to_msg(), frame_id="camera")
        if counts:
            subject.sent_ns.append(stamp_ns(self._image.header))
            self._progress.update()
        camera.publish(self._image)

    def _on_output(self, subject: Subject, topic: str, message: Any) -> None:
        now_ns = self.get_clock().now().nanoseconds
        stamp = stamp_ns(message.header)
        if topic == "detections":
            subject.objects[stamp] = len(message.detections)
        if self._matchers[subject.namespace].add(topic, stamp, None) is not None:
            subject.latencies_ms[stamp] = (now_ns - stamp) / 1e6


def memory_mb(process: Process, entry: str) -> float:
    """Return an entry of Linux's /proc/PID/status, MB: VmRSS, resident now, or VmHWM, the most that ever was.

    Raises:
        UnavailableError: The process ended.
    """
    process.check_running()
    lines = Path(f"/proc/{process.popen.pid}/status").read_text(encoding="utf-8").splitlines()
    kilobytes = next(line.split()[1] for line in lines if line.startswith(f"{entry}:"))
    return int(kilobytes) * 1024 / 1e6
