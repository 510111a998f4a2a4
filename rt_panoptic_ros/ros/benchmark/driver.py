# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""What the ROS benchmarks share: a driver that plays cameras to nodes of other processes and sees what they answer."""

from __future__ import annotations

import itertools
import math
import os
import shutil
import struct
import tempfile
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.serialization import serialize_message
from sensor_msgs.msg import Image
from std_msgs.msg import Header
from tqdm import tqdm

from rt_panoptic_ros.errors import InvalidInputError, UnavailableError
from rt_panoptic_ros.frames.matching import StampMatcher
from rt_panoptic_ros.frames.message_layout import stamp_ns
from rt_panoptic_ros.ros import qos
from rt_panoptic_ros.ros.conversions import image_to_msg, output_classes
from rt_panoptic_ros.ros.processes import exit_on_sigterm, local_environment

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import numpy as np
    from rclpy.time import Time

    from rt_panoptic_ros.ros.processes import Process

DOMAIN = "86"
"""ROS domain of the benchmarks, unless the environment names one."""

_OUTPUTS = output_classes(("semantic", "instance", "detections"))
_WARMUP = 5
"""Frames answered in full before counting begins: discovery is done at both ends, and caches are warm."""
_PATIENCE_S = 120.0
"""For the first of them: the node compiles its kernels before."""
_LAST_ANSWER_S = 10.0
"""For the outputs of the last frame, which were lost if they take longer."""
_POLL_S = 0.1  # how often processes are looked after
_MEMORY_HZ = 10.0  # about how often a process's memory is looked at: it costs too much for each image of a flood
_STAMP, _STAMP_PLACE = struct.Struct("<iI"), 4  # of a serialised image, behind the encapsulation's four bytes


class Answer(NamedTuple):
    """All outputs of a frame."""

    age_ms: float  # from the image's stamp to the arrival of the last output
    objects: int


@dataclass(eq=False)
class Camera:
    """A camera that the driver plays, and what it saw of it."""

    name: str
    topic: str  # of its images
    prefix: str  # what its output topics begin with
    process: Process  # of the node that answers
    sent_ns: list[int] = field(default_factory=list)  # stamps of the frames that count
    answers: dict[int, Answer] = field(default_factory=dict)  # by stamp, ns; also to frames that don't count
    resident_mb: list[float] = field(default_factory=list)  # of the process, evenly spread over the frames that count

    def reset(self) -> None:
        """Begin anew with what is seen."""
        self.sent_ns, self.answers, self.resident_mb = [], {}, []

    def answered_ns(self) -> list[int]:
        """Return the stamps of the frames that count and were answered."""
        return [stamp for stamp in self.sent_ns if stamp in self.answers]

    def memory_growth_mb(self) -> float:
        """Return what the process's memory has grown by since a tenth of the frames: by then, all had been in use."""
        return self.resident_mb[-1] - self.resident_mb[(len(self.resident_mb) - 1) // 10]


class FrameDriver:
    """Plays cameras from this thread, while another listens to their outputs.

    Attributes:
        diagnostics: What a node last said on /diagnostics.
    """

    def __init__(self, cameras: Sequence[Camera], images: Sequence[np.ndarray], outputs: Sequence[str]) -> None:
        """Offer the images and subscribe to the outputs.

        Args:
            cameras: Those that can be played.
            images: (H, W, 3) uint8 RGB, played again and again.
            outputs: Names of those that belong to a complete answer; detections is one of them.
        """
        self.diagnostics: dict[str, str] = {}
        self._context = Context()
        rclpy.init(args=[], context=self._context)
        self._node = rclpy.create_node("driver", context=self._context, start_parameter_services=False)
        # Serialised once, as Python takes several times as long for it as a camera's driver would.
        serialized = [bytearray(serialize_message(image_to_msg(image, "rgb8", Header()))) for image in images]
        self._images = itertools.cycle(serialized)
        # Reliable, as most cameras' drivers offer and most listeners ask: what the subjects ask and offer counts.
        profile = qos.stream("reliable")
        self._publishers = {camera: self._node.create_publisher(Image, camera.topic, profile) for camera in cameras}
        self._answered = threading.Condition()
        for camera in cameras:
            matcher = StampMatcher(outputs)
            for output in outputs:
                receive = partial(self._on_output, camera, matcher, output)
                self._node.create_subscription(_OUTPUTS[output], f"{camera.prefix}/{output}", receive, profile)
        self._node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, qos.diagnostics())
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        # The executor's timers would cost as much for a fast camera as its images, so it only listens.
        self._listener = threading.Thread(target=self._executor.spin, name="listener")
        self._listener.start()

    def play(self, rates_hz: Mapping[Camera, float], *, frames: float = math.inf, seconds: float = math.inf) -> float:
        """Warm up, then send frames that count, so many or for so long, and wait for the last ones' outputs.

        Args:
            rates_hz: The cameras to play, and how many images a second each sends.
            frames: Of all cameras together.
            seconds: From the first frame that counts on.

        Returns:
            How long frames that count were sent, s.

        Raises:
            UnavailableError: A process ended, or gave no outputs while warming up.
        """
        self._warm_up(rates_hz)
        begin_s, sent = time.monotonic(), 0
        expected = min(frames, seconds * sum(rates_hz.values()))
        with tqdm(total=round(expected), desc="frames", unit="frame", leave=False) as bar:
            for camera in self._due(rates_hz, seconds):
                if len(camera.sent_ns) % max(1, round(rates_hz[camera] / _MEMORY_HZ)) == 0:
                    camera.resident_mb.append(memory_mb(camera.process, "VmRSS"))
                stamp = self._send(camera)
                if stamp is not None:
                    camera.sent_ns.append(stamp)
                    bar.update()
                    sent += 1
                if sent >= frames:
                    break
        elapsed_s = time.monotonic() - begin_s
        # A node may leave out a frame for a newer one, so the last one's outputs are the last to come.
        last = [(camera, camera.sent_ns[-1]) for camera in rates_hz if camera.sent_ns]
        with self._answered:
            self._answered.wait_for(lambda: all(stamp in camera.answers for camera, stamp in last), _LAST_ANSWER_S)
        return elapsed_s

    def close(self) -> None:
        """Leave the graph."""
        self._executor.shutdown()
        self._listener.join()
        self._node.destroy_node()
        rclpy.shutdown(context=self._context)

    def _warm_up(self, rates_hz: Mapping[Camera, float]) -> None:
        """Play frames that don't count until some of each camera's were answered."""
        before = {camera: len(camera.answers) for camera in rates_hz}
        answered = dict.fromkeys(rates_hz, 0)
        for due in self._due(rates_hz, _PATIENCE_S):
            answered = {camera: len(camera.answers) - number for camera, number in before.items()}
            if min(answered.values()) >= _WARMUP:
                return
            self._send(due)
        camera, number = min(answered.items(), key=lambda item: item[1])
        raise UnavailableError(
            f"expected {_WARMUP} frames answered by the {camera.process.name} on {camera.prefix} within "
            f"{_PATIENCE_S:g} s, got {number}: lower --rate, or see what it says: {camera.process.log_tail()}"
        )

    def _due(self, rates_hz: Mapping[Camera, float], seconds: float) -> Iterator[Camera]:
        """Give each camera when its next frame is due, for some seconds; fails when a process has ended."""
        begin_s = time.monotonic()
        due_s = {camera: begin_s + 1 / rate + number / 100 for number, (camera, rate) in enumerate(rates_hz.items())}
        while (now_s := time.monotonic()) < begin_s + seconds:
            camera = min(due_s, key=due_s.__getitem__)
            camera.process.check_running()
            if now_s < due_s[camera]:
                time.sleep(min(due_s[camera] - now_s, _POLL_S))
                continue
            yield camera
            # A multiple of the period, so lateness doesn't add up; a missed one is left out.
            late_s = time.monotonic() - due_s[camera]
            due_s[camera] += max(1, math.ceil(late_s * rates_hz[camera])) / rates_hz[camera]

    def _send(self, camera: Camera) -> int | None:
        """Send a camera's next image, if someone listens; return its stamp, ns."""
        publisher = self._publishers[camera]
        if not publisher.get_subscription_count():
            return None
        image = next(self._images)
        stamp = self._node.get_clock().now()
        publisher.publish(stamped(image, stamp))
        return int(stamp.nanoseconds)

    def _on_output(self, camera: Camera, matcher: StampMatcher, output: str, message: Any) -> None:
        now_ns = self._node.get_clock().now().nanoseconds
        stamp = stamp_ns(message.header)
        outputs = matcher.add(output, stamp, message)
        if outputs is not None:
            with self._answered:
                camera.answers[stamp] = Answer((now_ns - stamp) / 1e6, len(outputs["detections"].detections))
                self._answered.notify()

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        self.diagnostics = {item.key: item.value for item in message.status[0].values}


def stamped(image: bytearray, stamp: Time) -> bytes:
    """Return a serialised image with another stamp, which is also written into `image`."""
    _STAMP.pack_into(image, _STAMP_PLACE, *stamp.seconds_nanoseconds())
    return bytes(image)


@contextmanager
def benchmark_folder(name: str) -> Iterator[Path]:
    """Give a folder for the processes' logs, and prepare this process; where something fails, the folder stays.

    The error names the log in it.
    """
    # Of this process too: its part of the graph reads domain, range and transport there.
    os.environ.update(local_environment(os.environ, DOMAIN))
    exit_on_sigterm()
    folder = Path(tempfile.mkdtemp(prefix=f"rt_panoptic_bench_{name}_"))
    yield folder
    shutil.rmtree(folder)


def memory_mb(process: Process, entry: str) -> float:
    """Return an entry of Linux's /proc/PID/status, MB: VmRSS, resident now, or VmHWM, the most that ever was.

    Raises:
        UnavailableError: The process ended.
    """
    process.check_running()
    lines = Path(f"/proc/{process.popen.pid}/status").read_text(encoding="utf-8").splitlines()
    kilobytes = next(line.split()[1] for line in lines if line.startswith(f"{entry}:"))
    return int(kilobytes) * 1024 / 1e6


def check_option(option: str, value: float, expectation: str, *, holds: bool) -> None:
    """Raise `InvalidInputError` for an option's value that cannot be measured with."""
    if not holds:
        raise InvalidInputError(f"expected {option} to be {expectation}, got {value:g}")
