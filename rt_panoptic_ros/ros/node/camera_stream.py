"""One camera of the node: its subscription, what becomes of its frames, the ids of its objects, its outputs."""

from __future__ import annotations

import threading
import time
import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rclpy.impl.implementation_singleton import rclpy_implementation

from rt_panoptic_ros.errors import InvalidInputError, first_line
from rt_panoptic_ros.frames.message_layout import stamp_ns
from rt_panoptic_ros.panoptic.tracking import InstanceTracker
from rt_panoptic_ros.ros.node.camera_subscription import CameraSubscription
from rt_panoptic_ros.ros.node.diagnostics import CameraHealth, CameraWatch
from rt_panoptic_ros.ros.node.rate_limit import RateLimit

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from rclpy.node import Node
    from sensor_msgs.msg import CompressedImage, Image
    from std_msgs.msg import Header

    from rt_panoptic_ros.records import PanopticResult
    from rt_panoptic_ros.ros.node.diagnostics import Finding
    from rt_panoptic_ros.ros.node.frame_statistics import FrameStatistics
    from rt_panoptic_ros.ros.node.node_settings import NodeSettings, Periods
    from rt_panoptic_ros.ros.node.outputs import PanopticOutputs

LOG_PERIOD_S = 5.0
"""How often at most the same kind of trouble is logged."""


@dataclass(frozen=True, slots=True)
class ArrivedImage:
    """A camera's image that waits for its turn."""

    stream: CameraStream
    msg: Image | CompressedImage
    arrival_s: float  # monotonic
    taken_before: int = 0  # images of the stream that were taken at their turn before this one was fetched


class CameraStream:
    """Holds what belongs to one camera while the node is configured."""

    def __init__(
        self,
        node: Node,
        name: str,
        topic: str,
        settings: Callable[[], NodeSettings],
        periods: Periods,
        outputs: PanopticOutputs,
        statistics: FrameStatistics,
        deliver: Callable[[ArrivedImage, bool], bool],
    ) -> None:
        """Keep what is given; `follow` receives.

        Args:
            node: The node.
            name: Of the camera; empty for the only one.
            topic: Of its images, as `CameraSubscription` takes it.
            settings: Tells the node's settings now.
            periods: See `CameraSubscription`.
            outputs: Where its results go.
            statistics: Of its frames.
            deliver: Takes an image over, or, where told so, only if it replaces one that waits; returns whether it
                did replace one.

        Raises:
            InvalidInputError: ROS can't have a topic of that name.
        """
        self.name = name
        self.outputs = outputs
        self.statistics = statistics
        self._node = node
        self._settings = settings
        self._deliver = deliver
        self._rate_limit = RateLimit()
        self._watch = CameraWatch(periods.silence_s)
        self._tracker = InstanceTracker()
        self._forget_tracks = threading.Event()
        try:
            self.subscription = CameraSubscription(
                node, topic, settings(), periods, self.receive, lambda number: statistics.count("lost", number)
            )
        except rclpy_implementation.RCLError as error:
            raise InvalidInputError(
                f"expected the topic of camera '{name}' to be a name that ROS can have, such as /{name}/image_raw, got "
                f"'{topic}' ({first_line(error)}): correct the parameter cameras"
            ) from None

    def follow(self, demand: bool) -> None:
        """Receive images while there is demand."""
        if demand != self.subscription.subscribed:
            self.statistics.pause()
        self.subscription.follow(demand)

    def receive(self, msg: Image | CompressedImage) -> bool:
        """Hand an image over that the executor fetched; return whether it replaced one that waited."""
        now_s = time.monotonic()
        try:
            self.statistics.arrive(now_s, self.age_ms(msg.header))
            admitted = self._rate_limit.admits(now_s, self._settings().max_rate_hz)
            replaced = self._deliver(ArrivedImage(self, msg, now_s, self.subscription.taken_before), not admitted)
        except Exception:
            self.fail()
            return False
        if replaced:
            self.statistics.count("dropped")
            self.statistics.pause()  # until the next is fetched, others may come and go
        elif not admitted:
            self.statistics.count("skipped")
        return replaced

    def newest(self, image: ArrivedImage) -> ArrivedImage | None:
        """Return the camera's newest image at the turn of one that waited, None if a newer one had its turn already.

        Called by the worker thread, which takes what the middleware holds while the executor may be fetching.
        """
        msg = self.subscription.take_newest()
        if msg is not None:
            now_s = time.monotonic()
            self.statistics.count("dropped")
            self.statistics.pause()  # when it came is not known
            self.statistics.arrive(now_s, self.age_ms(msg.header))
            self.statistics.pause()
            return ArrivedImage(self, msg, now_s)
        if image.taken_before < self.subscription.taken:
            self.statistics.count("dropped")
            return None
        return image

    def age_ms(self, header: Header) -> float:
        """Return how long ago a stamp was, by the node's clock; any stamp, before 1970 as well."""
        return float(self._node.get_clock().now().nanoseconds - stamp_ns(header)) / 1e6

    def fail(self) -> None:
        """Count a frame that met the error being handled, and tell of it."""
        self.statistics.count("failed")
        self._node.get_logger().error(
            f"frame of {self.subscription.topic} failed with an unexpected error:\n{traceback.format_exc()}",
            throttle_duration_sec=LOG_PERIOD_S,
        )

    def forget_tracks(self) -> None:
        """Have ids begin with 1 again from the next image on."""
        self._forget_tracks.set()

    def track(self, header: Header, result: PanopticResult, *, tracking: bool) -> np.ndarray | None:
        """Return the objects' lasting ids, in the worker thread; None without tracking."""
        if self._forget_tracks.is_set() or not tracking:
            self._forget_tracks.clear()
            self._tracker.reset()
        return self._tracker.update(result, stamp_ns(header)) if tracking else None

    def health(self, now_s: float, *, active: bool) -> tuple[CameraHealth, Finding]:
        """Return the camera's state for one report, and what is to be told of it."""
        subscription = self.subscription
        health = CameraHealth(
            name=self.name,
            topic=subscription.topic,
            subscribed=subscription.subscribed,
            publishers=len(subscription.publishers()),
            silence_s=subscription.silence_s(),
            report=self.statistics.report(now_s),
            obstacle=subscription.warn_of_silence(),
            outputs=self.outputs.topics(),
        )
        return health, self._watch.judge(health, active=active)
