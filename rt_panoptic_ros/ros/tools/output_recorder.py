# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Records what a panoptic node publishes and measures it: `record_outputs` writes a video, a sheet and a summary."""

from __future__ import annotations

import json
import queue
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.clock import Clock, ClockType
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.node import Node
from tqdm import tqdm

from rt_panoptic_ros.errors import InvalidInputError, UnavailableError, first_line
from rt_panoptic_ros.files import make_folder, output_path
from rt_panoptic_ros.frames.matching import StampMatcher
from rt_panoptic_ros.frames.message_layout import decode_image, stamp_ns
from rt_panoptic_ros.frames.pixel_encodings import to_rgb
from rt_panoptic_ros.ros import qos
from rt_panoptic_ros.ros.conversions import output_classes
from rt_panoptic_ros.ros.node.frame_statistics import percentiles_ms
from rt_panoptic_ros.ros.node.parameters import declare_settings
from rt_panoptic_ros.ros.spinning import run_node
from rt_panoptic_ros.ros.text_arguments import texts_kept
from rt_panoptic_ros.ros.tools.recording import write_pictures
from rt_panoptic_ros.settings import Change, setting

if TYPE_CHECKING:
    import threading
    from collections.abc import Sequence

TOPICS = output_classes(("semantic", "instance", "detections", "overlay"))

_WATCH_PERIOD_S = 0.1
_LOG_PERIOD_S = 5.0
_LAST_DIAGNOSTICS_S = 1.5  # how long after the last frame the node's diagnostics, at 1 Hz, are waited for
_QUEUE = 64  # overlays that may wait for the video's encoder
_ENOUGH = "max_frames"

_setting = partial(setting, change=Change.STARTUP)


@dataclass(frozen=True, slots=True)
class RecorderSettings:
    """What a user can say about the recorder."""

    node: str = _setting("panoptic_node", "Name of the node whose outputs are recorded.")
    out: str = _setting("out/recording", "Folder for overlay.mp4, overlay.png and summary.json.")
    max_frames: int = _setting(0, "Frames after which to end; 0 for no limit.", minimum=0, maximum=2**31 - 1)
    silence_s: float = _setting(
        5.0, "Seconds without a message after which to end, once frames have begun; 0 for never.",
        minimum=0.0, maximum=86400.0,
    )  # fmt: skip
    patience_s: float = _setting(
        0.0, "Seconds without a first message after which to give up; 0 for never.", minimum=0.0, maximum=86400.0
    )
    progress: bool = _setting(False, "Show a progress bar on standard error.")
    video_rate_hz: float = _setting(
        0.0, "Frames per second of the video; 0 for the camera's own, from its stamps.", minimum=0.0, maximum=240.0
    )


class OutputRecorder(Node):
    """Matches a node's outputs by their exact stamps, and finishes after enough frames or long silence.

    Attributes:
        messages: How many came, by topic.
    """

    def __init__(self, finished: threading.Event, **node_options: Any) -> None:
        """Subscribe.

        Args:
            finished: Set when the recording has ended by itself.
            node_options: For rclpy's node.

        Raises:
            InvalidInputError: A parameter is not valid.
            UnavailableError: The folder cannot be made.
        """
        super().__init__("output_recorder", automatically_declare_parameters_from_overrides=True, **node_options)
        self.settings = declare_settings(self, RecorderSettings)
        self._finished = finished
        self._ended_by = "signal"
        self._wait = _Wait("patience", time.monotonic(), self.settings.patience_s)
        self._matcher = StampMatcher(tuple(TOPICS))
        self.messages: Counter[str] = Counter()
        self._latencies_ms: list[float] = []  # from an image's stamp to the arrival of its last output
        self._first_s = self._last_s = 0.0  # arrivals of complete sets, monotonic
        self._objects = 0
        self._image_size: tuple[int, int] | None = None
        self._node_values: dict[str, str] = {}
        self._progress = tqdm(
            total=self.settings.max_frames or None, unit="frame", desc="recording", disable=not self.settings.progress
        )
        try:
            name = self.resolve_topic_name(self.settings.node)
        except (rclpy_implementation.RCLError, ValueError) as error:
            raise InvalidInputError(
                f"expected the parameter node to name a node such as panoptic_node, got '{self.settings.node}': "
                f"{first_line(error)}"
            ) from None
        self._status_name = f"{name.lstrip('/')}: panoptic"
        for topic, kind in TOPICS.items():
            self.create_subscription(kind, f"{name}/{topic}", partial(self._on_output, topic), qos.stream("reliable"))
        self.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, qos.diagnostics())
        self.create_timer(_WATCH_PERIOD_S, self._watch, clock=Clock(clock_type=ClockType.STEADY_TIME))
        # Last, as it starts a thread, which must not outlive a constructor that failed.
        out = Path(self.settings.out)
        try:
            make_folder(out)
        except OSError as error:
            raise UnavailableError(f"expected a folder to write into at {out}, got: {error.strerror}") from None
        # A thread of its own, so that encoding doesn't show in the latencies.
        self._pictures: queue.Queue[tuple[np.ndarray, float] | None] = queue.Queue(_QUEUE)
        writer = ThreadPoolExecutor(1, "picture writer")
        pictures = iter(self._pictures.get, None)
        self._written = writer.submit(write_pictures, pictures, out, self.settings.video_rate_hz)
        writer.shutdown(wait=False)  # as soon as it has written

    def start(self) -> None:
        """Say what is awaited."""
        self.get_logger().info(f"recording {', '.join(TOPICS)} of {self.settings.node} to {self.settings.out}")

    def finish(self) -> int:
        """Write the files; return the exit status: 1 where nothing was recorded or the pictures failed."""
        self._progress.close()
        self._matcher.give_up()
        self._pictures.put(None)
        files, problem = self._written.result()
        summary, out = self._summary(files), Path(self.settings.out)
        try:
            with output_path(out / "summary.json") as path:
                path.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
        except UnavailableError as error:
            problem = problem or str(error)
        if problem:
            self.get_logger().error(problem)
        if not self._latencies_ms:
            self.get_logger().error(
                f"expected outputs of {self.settings.node}, but no complete set of {', '.join(TOPICS)} came: "
                f"messages by topic {dict(self.messages)}; check that the node is active and receives images"
            )
            return 1
        latency = summary["latency_ms"]
        self.get_logger().info(
            f"recorded {summary['frames']} frames at {summary['rate_hz']:.1f} Hz, latency p50 {latency['p50']:.0f} ms, "
            f"p95 {latency['p95']:.0f} ms, in {out}"
        )
        return 1 if problem else 0

    def _on_output(self, topic: str, message: Any) -> None:
        if self._ended_by == _ENOUGH:
            return
        now_s = time.monotonic()
        self._wait = _Wait("silence", now_s, self.settings.silence_s)
        self.messages[topic] += 1
        stamp = stamp_ns(message.header)
        outputs = self._matcher.add(topic, stamp, message)
        if outputs is None:
            return
        try:
            overlay = to_rgb(decode_image(outputs["overlay"]))
        except InvalidInputError as error:
            self._matcher.incomplete += 1
            self.get_logger().warning(f"frame left out: {error}", throttle_duration_sec=_LOG_PERIOD_S)
            return
        self._latencies_ms.append((self.get_clock().now().nanoseconds - stamp) / 1e6)
        self._first_s, self._last_s = self._first_s or now_s, now_s
        self._objects += len(outputs["detections"].detections)
        self._image_size = outputs["detections"].height, outputs["detections"].width
        self._progress.update()
        self._pictures.put((overlay, stamp / 1e9))  # waits where the encoder is far behind
        if len(self._latencies_ms) == self.settings.max_frames:
            self._ended_by = _ENOUGH
            self._wait = _Wait(_ENOUGH, now_s, _LAST_DIAGNOSTICS_S)

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name == self._status_name:
                self._node_values = {item.key: item.value for item in status.values}
                if self._ended_by == _ENOUGH:
                    self._finished.set()

    def _watch(self) -> None:
        wait = self._wait
        if wait.limit_s and time.monotonic() - wait.since_s > wait.limit_s:
            self._ended_by = wait.ends_by
            self._finished.set()

    def _summary(self, files: dict[str, str]) -> dict[str, Any]:
        frames = len(self._latencies_ms)
        latency: dict[str, float] = {}
        if frames:
            p50, p95 = percentiles_ms(np.array(self._latencies_ms))
            latency = {"p50": p50, "p95": p95, "max": max(self._latencies_ms)}
        elapsed_s = self._last_s - self._first_s
        return {
            "frames": frames,  # complete sets
            "incomplete": self._matcher.incomplete,
            "messages": {topic: self.messages[topic] for topic in TOPICS},
            "rate_hz": (frames - 1) / elapsed_s if elapsed_s > 0 else 0.0,
            "latency_ms": latency,
            "objects": self._objects,
            "image_size": self._image_size,
            "ended_by": self._ended_by,
            "files": files,
            "node": self._node_values,  # what the node last said in its diagnostics
        }


class _Wait(NamedTuple):
    """What the recorder waits for, and how long before it ends."""

    ends_by: str
    since_s: float
    limit_s: float  # 0: for ever


def main(args: Sequence[str] | None = None) -> int:
    """Run the recorder as a process."""
    with texts_kept(args, RecorderSettings) as kept:
        return run_node(OutputRecorder, kept)
