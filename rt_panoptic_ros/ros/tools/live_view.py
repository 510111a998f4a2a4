# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""A running node before eyes: subscribes to what its reports on /diagnostics say that it publishes, and shows that."""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING, Any

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.clock import Clock, ClockType
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.node import Node
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import String

from rt_panoptic_ros.errors import InvalidInputError, first_line
from rt_panoptic_ros.ros import qos
from rt_panoptic_ros.ros.conversions import output_classes
from rt_panoptic_ros.ros.endpoints import Endpoint, is_name
from rt_panoptic_ros.ros.node.diagnostics import OUTPUT_TOPIC
from rt_panoptic_ros.ros.spinning import run_node
from rt_panoptic_ros.viewing.outputs import CLASS_NAMES, FRAME, IMAGE, POINTS, OutputView

if TYPE_CHECKING:
    import threading
    from collections.abc import Mapping, Sequence

    from rclpy.qos import QoSProfile

    from rt_panoptic_ros.viewing.recorder import ViewRecorder
    from rt_panoptic_ros.viewing.viewers import Viewer

_CLASSES = output_classes()
_WATCH_PERIOD_S = 0.2
_PATIENCE_S = 10.0  # after which it is said that nothing comes, and again
_STAGE = re.compile(r"(.+) p50 \(ms\)")


class LiveView(Node):
    """Shows what a panoptic node publishes, until its window is closed.

    Attributes:
        reports: How many reports of it came.
    """

    def __init__(
        self,
        finished: threading.Event,
        node: str,
        recorder: ViewRecorder,
        viewer: Viewer,
        single: str,
        **node_options: Any,
    ) -> None:
        """Wait for the node's reports.

        Args:
            finished: Set when the viewer is closed.
            node: The node's name.
            recorder: What its frames are given to.
            viewer: What shows them.
            single: What a camera is called that is alone.
            node_options: For rclpy's node.

        Raises:
            InvalidInputError: That can't be a node's name.
        """
        super().__init__("panoptic_view", **node_options)
        self._finished, self._recorder, self._viewer, self._single = finished, recorder, viewer, single
        try:
            self._name = self.resolve_topic_name(node)
        except (rclpy_implementation.RCLError, ValueError) as error:
            raise InvalidInputError(
                f"expected --node to name a node such as panoptic_node, got '{node}': {first_line(error)}"
            ) from None
        self.reports = 0
        self._view: OutputView | None = None
        self._shown = 0  # frames, when it was last looked
        self.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, qos.diagnostics())
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(_WATCH_PERIOD_S, self._watch, clock=steady)
        self.create_timer(_PATIENCE_S, self._say_what_is_missing, clock=steady)

    def start(self) -> None:
        """Say what is awaited."""
        self.get_logger().info(f"waiting for reports of {self._name} on /diagnostics")

    def finish(self) -> int:
        """Say what could not be shown; return the exit status: 1 where nothing was."""
        for reason, number in ({} if self._view is None else self._view.skipped).items():
            self.get_logger().warning(f"left out {number} messages: {reason}")
        return 0 if self._recorder.frames else 1

    def _on_diagnostics(self, array: DiagnosticArray) -> None:
        own = f"{self._name.lstrip('/')}: "
        reports = {
            status.name.removeprefix(own): {item.key: item.value for item in status.values}
            for status in array.status
            if status.name.startswith(own)
        }
        cameras = {
            part: values
            for part, values in reports.items()
            if re.match(r"camera\b", part) and is_name(values.get("topic", ""))
        }
        if not cameras:
            return
        self.reports += 1
        if self._view is None:
            self._view = self._subscribe(cameras)
        panoptic = reports.get("panoptic", {})
        stages = {key[1]: float(ms) for name, ms in panoptic.items() if (key := _STAGE.fullmatch(name))}
        for camera in self._view.cameras if self._recorder.frames else ():
            self._recorder.add_timings(camera, stages)

    def _subscribe(self, reports: Mapping[str, Mapping[str, str]]) -> OutputView:
        """Subscribe to what the node says it publishes, {part of its report, camera or camera NAME: values}."""
        topics: list[tuple[str, str, str, Any]] = []
        parts = {}
        for part, values in reports.items():
            camera = part.removeprefix("camera").strip() or self._single
            image = values["topic"]
            topics.append((camera, IMAGE, image, CompressedImage if image.endswith("/compressed") else Image))
            places = {name: values.get(f"{name}{OUTPUT_TOPIC}") for name in (*FRAME, POINTS) if name in _CLASSES}
            outputs = {name: place for name, place in places.items() if place and is_name(place)}
            topics += [(camera, name, place, _CLASSES[name]) for name, place in outputs.items()]
            parts[camera] = {IMAGE, *FRAME}.intersection({IMAGE, *outputs})
        view = OutputView(self._recorder, parts)
        for camera, output, topic, kind in topics:
            self.create_subscription(kind, topic, partial(self._on_message, view, camera, output), self._profile(topic))
        names = f"{self._name}/{CLASS_NAMES}"
        self.create_subscription(String, names, partial(self._on_message, view, "", CLASS_NAMES), qos.latched())
        self.get_logger().info(f"showing {', '.join(topic for _, _, topic, _ in topics)}")
        return view

    def _profile(self, topic: str) -> QoSProfile:
        """Return as much as all publishers of a topic offer: best effort loses large images on a network."""
        offers = {Endpoint.of(info).reliability for info in self.get_publishers_info_by_topic(topic)}
        return qos.stream("reliable" if offers == {"reliable"} else "best_effort")

    def _on_message(self, view: OutputView, camera: str, output: str, message: Any) -> None:
        view.add(camera, output, message, self.get_clock().now().nanoseconds)

    def _watch(self) -> None:
        if not self._viewer.is_open:
            self._finished.set()

    def _say_what_is_missing(self) -> None:
        frames, self._shown = self._recorder.frames - self._shown, self._recorder.frames
        if not frames:
            what = f"reports of {self._name} on /diagnostics" if self._view is None else "frames with all their outputs"
            self.get_logger().warning(
                f"expected {what}, none came for {_PATIENCE_S:g} s: `rt-panoptic doctor --node {self._name}` says why"
            )


def view_node(node: str, recorder: ViewRecorder, viewer: Viewer, single: str, ros_arguments: Sequence[str]) -> int:
    """Show what a running node publishes until its viewer is closed or a signal comes; return the exit status.

    Args:
        node: Its name.
        recorder: What its frames are given to.
        viewer: What shows them.
        single: What a camera is called that is alone.
        ros_arguments: What ROS is told on the command line, from --ros-args on.
    """
    return run_node(lambda finished: LiveView(finished, node, recorder, viewer, single), ros_arguments)
