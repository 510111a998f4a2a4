# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""One camera of the node: its subscription, what becomes of its frames, its outputs."""

from __future__ import annotations

import time
import traceback
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.utilities import get_rmw_implementation_identifier
from sensor_msgs.msg import CompressedImage, Image

from rt_panoptic_ros.errors import InvalidInputError, explained, first_line
from rt_panoptic_ros.frames.message_layout import stamp_ns
from rt_panoptic_ros.ros import qos
from rt_panoptic_ros.ros.endpoints import COMPRESSED, IMAGE, Endpoint, find_obstacle
from rt_panoptic_ros.ros.node.camera_subscription import Gate, forget_gone, subscribe_noticing_loss
from rt_panoptic_ros.ros.node.depth_input import DepthInput
from rt_panoptic_ros.ros.node.diagnostics import CameraHealth, CameraWatch
from rt_panoptic_ros.ros.node.node_settings import beside
from rt_panoptic_ros.ros.node.outputs import PanopticOutputs
from rt_panoptic_ros.ros.node.rate_limit import RateLimit
from rt_panoptic_ros.ros.transport import mend_loss

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from rclpy.lifecycle import LifecycleNode
    from rclpy.subscription import Subscription
    from std_msgs.msg import Header

    from rt_panoptic_ros.ros.node.depth_input import DepthTurn
    from rt_panoptic_ros.ros.node.depth_outputs import DepthOutputs
    from rt_panoptic_ros.ros.node.diagnostics import Finding
    from rt_panoptic_ros.ros.node.frame_statistics import FrameStatistics
    from rt_panoptic_ros.ros.node.node_settings import NodeSettings, Periods

LOG_PERIOD_S = 5.0
"""How often at most the same kind of trouble is logged."""


_MOST_TOLD = 64


@dataclass(frozen=True, slots=True)
class ArrivedImage:
    """A camera's image that waits for its turn."""

    stream: CameraStream
    msg: Image | CompressedImage
    arrival_s: float  # monotonic
    sent_ns: int = 0  # by its publisher's clock
    taken_before: int = 0  # images of the stream that were taken at their turn before this one was fetched


class CameraStream:
    """Receives one camera's images while there is demand, the newest only, and counts what becomes of them.

    The executor's thread fetches an image and has it wait; at the camera's turn, the worker's thread fetches the newest
    that the middleware holds by then.
    """

    def __init__(
        self,
        node: LifecycleNode,
        name: str,
        topic: str,
        settings: Callable[[], NodeSettings],
        periods: Periods,
        statistics: FrameStatistics,
        depth_outputs: DepthOutputs,
        deliver: Callable[[ArrivedImage | DepthTurn, bool], bool],
        give_way: Callable[[], None],
    ) -> None:
        """Offer the outputs and prepare to receive; `follow` subscribes.

        Args:
            node: The node.
            name: Of the camera; empty for the only one.
            topic: Of its images, or what image_transport puts those below; it may be remapped.
            settings: Tells the node's settings now.
            periods: Say how long the camera may be silent, and is left alone.
            statistics: Of its frames.
            depth_outputs: Makes what needs depth.
            deliver: Takes over an image, or what its depth has come for, or, where told so, only if it replaces one
                that waits; returns whether it did replace one.
            give_way: Is called when an image has been taken over and the executor would go on.

        Raises:
            InvalidInputError: ROS can't have a topic of that name.
        """
        self.name = name
        self.statistics = statistics
        self._node = node
        self._settings = settings
        self._silence_s = periods.silence_s
        self._deliver = deliver
        self._give_way = give_way
        self._rate_limit = RateLimit()
        self._watch = CameraWatch(periods)
        reliability, compressed = settings().image_reliability, settings().image_transport == "compressed"
        try:
            # As image_transport names it: where the base topic is remapped, what follows stays; the whole may be, too.
            self._name = f"{node.resolve_topic_name(topic)}/compressed" if compressed else topic
            self.topic = str(node.resolve_topic_name(self._name))
        except rclpy_implementation.RCLError as error:
            raise InvalidInputError(
                f"expected the topic of camera '{name}' to be a name that ROS can have, such as /{name}/image_raw, got "
                f"'{topic}' ({first_line(error)}): correct the parameter cameras"
            ) from None
        self.outputs = PanopticOutputs(node, f"~/{name}" if name else "~", settings().output_reliability)
        topics = {name: beside(topic, name) for name in ("depth", "camera_info")}
        self.depth = DepthInput(node, self, topics, depth_outputs, lambda turn: deliver(turn, False), periods.silence_s)
        self._kind = CompressedImage if compressed else Image
        self._asked = Endpoint(node.get_fully_qualified_name(), COMPRESSED if compressed else IMAGE, reliability)
        self._profile = qos.newest(reliability)
        self._subscription: Subscription | None = None
        self.gate = Gate(node, periods.rest_s, self._note_fetch)
        self._taken = 0  # images that were fetched at the camera's turn
        self._taken_before = 0  # as many when the executor began to fetch its last one
        self._taken_sent_ns = 0  # when the last of them was sent
        self._silent_since_s = time.monotonic()
        self._any_received = False
        self._largest = 0  # bytes
        self._told: set[str] = set()

    @property
    def subscribed(self) -> bool:
        """Whether images are received now."""
        return self._subscription is not None

    def follow(self, demand: bool, outputs: Collection[str] = ()) -> None:
        """Subscribe when there is demand, unsubscribe when there is none; likewise to what outputs need besides."""
        self.depth.follow(outputs if demand else ())
        if demand == self.subscribed:
            return
        self.statistics.pause()
        if demand:
            self._silent_since_s = time.monotonic()
            self._any_received = False
            self.gate.open()
            self._subscription = subscribe_noticing_loss(
                self._node, self._kind, self._name, self.receive, self._profile, self.notice_loss, self.gate
            )
            self._node.get_logger().info(f"receiving images from {self.topic}")
        else:
            self._unsubscribe()
            self._node.get_logger().info("nobody listens: stopped receiving images")

    def end(self) -> None:
        """Unsubscribe, and begin anew with what is told once."""
        self._unsubscribe()
        self.depth.end()
        self._told.clear()

    def destroy(self) -> None:
        """Take the outputs away, and what else ROS holds for it; not while it is subscribed."""
        self.outputs.destroy()
        self.gate.destroy()

    def receive(self, msg: Image | CompressedImage, info: Mapping[str, int]) -> None:
        """Have an image wait that the executor fetched, or a newer one that the middleware holds by now.

        `info` is what rclpy knows of the message besides, its `source_timestamp` in ns.

        If another one still waited, the camera is faster than the pipeline, and the next is fetched after a rest or at
        the camera's turn: a flood of images costs no more than 25 Hz. Meanwhile the middleware keeps the newest alone.
        """
        msg, sent_ns = self._fetch() or (msg, info["source_timestamp"])
        self.gate.close()  # before the hand-over: the camera's turn may come in the middle of it
        try:
            now_s = self._note_arrival(msg)
            admitted = self._rate_limit.admits(now_s, self._settings().max_rate_hz)
            replaced = self._deliver(ArrivedImage(self, msg, now_s, sent_ns, self._taken_before), not admitted)
        except Exception as error:
            self.fail(error)
        else:
            if replaced:
                self.statistics.count("dropped")
                self.statistics.pause()  # until the next is fetched, others may come and go
                return
            if not admitted:
                self.statistics.count("skipped")
        self.gate.open()
        self._give_way()

    def newest(self, image: ArrivedImage) -> ArrivedImage | None:
        """Return the camera's newest image at the turn of one that waited, None if a newer one had its turn already.

        Called by the worker thread, which takes what the middleware holds while the executor may be fetching.
        """
        fetched = self._fetch()
        self.gate.ask_to_open()
        if fetched is not None:
            msg, self._taken_sent_ns = fetched
            self._taken += 1
            self.statistics.count("dropped")
            self.statistics.pause()  # when it came is not known
            now_s = self._note_arrival(msg)
            self.statistics.pause()
            return ArrivedImage(self, msg, now_s)
        # Of what both threads fetched at the same time, either may have the newer one.
        if image.taken_before < self._taken and image.sent_ns < self._taken_sent_ns:
            self.statistics.count("dropped")
            return None
        return image

    def age_ms(self, header: Header) -> float:
        """Return how long ago a stamp was, by the node's clock; any stamp, before 1970 as well."""
        return float(self._node.get_clock().now().nanoseconds - stamp_ns(header)) / 1e6

    def fail(self, error: BaseException) -> None:
        """Count a frame that met an unexpected error, and tell of it."""
        self.statistics.count("failed", cause=f"{type(error).__name__}: {first_line(error)}")
        self._node.get_logger().error(
            f"frame of {self.topic} failed with an unexpected error:\n{''.join(traceback.format_exception(error))}",
            throttle_duration_sec=LOG_PERIOD_S,
        )

    def refuse(self, error: Exception) -> None:
        """Count a frame that can't be labelled, and tell why."""
        self.statistics.count("refused", cause=explained(error))
        self._node.get_logger().warning(f"frame refused: {explained(error)}", throttle_duration_sec=LOG_PERIOD_S)

    def health(self, now_s: float, *, active: bool) -> tuple[CameraHealth, Finding]:
        """Return the camera's state for one report, and what is to be told of it."""
        health = CameraHealth(
            name=self.name,
            topic=self.topic,
            subscribed=self.subscribed,
            publishers=len(self.publishers()),
            silence_s=self._silent_s(),
            report=self.statistics.report(now_s),
            obstacle=self._warn_of_silence(),
            outputs=self.outputs.topics(),
            inputs=self.depth.wanted(),
        )
        return health, self._watch.judge(health, active=active)

    def publishers(self, topic: str | None = None) -> list[Endpoint]:
        """Return the publishers, of whatever type, of the camera's topic or another one."""
        return [Endpoint.of(info) for info in self._node.get_publishers_info_by_topic(topic or self.topic)]

    def notice_loss(self, event: Any) -> None:
        """Count and tell of images that the middleware found missing: `total_count`, and `total_count_change` now."""
        remedy = self._mend_loss()
        self.statistics.count("lost", event.total_count_change, remedy)
        self.tell("loss", f"images of {self.topic} are lost in transport ({event.total_count} so far). {remedy}")

    def _unsubscribe(self) -> None:
        if self._subscription is not None:
            self._node.destroy_subscription(self._subscription)
            self._subscription = None
            forget_gone(self.gate)

    def _fetch(self) -> tuple[Image | CompressedImage, int] | None:
        """Return the newest that the middleware holds, and when it was sent, in ns."""
        subscription, newest = self._subscription, None
        if subscription is None:
            return None
        with suppress(rclpy_implementation.InvalidHandle), subscription.handle:  # unsubscribed at this moment
            for _ in range(self._profile.depth):
                taken = subscription.handle.take_message(subscription.msg_type, subscription.raw)
                if taken is None:
                    break
                newest = taken[0], taken[1]["source_timestamp"]
        return newest

    def _note_fetch(self) -> None:
        self._taken_before = self._taken

    def _note_arrival(self, msg: Image | CompressedImage) -> float:
        """Return the time of an image that arrives now."""
        now_s = time.monotonic()
        self._any_received, self._silent_since_s = True, now_s
        self._largest = max(self._largest, len(msg.data))
        self.statistics.arrive(now_s, self.age_ms(msg.header))
        return now_s

    def _silent_s(self) -> float:
        """Return the seconds since the last image, or since subscribing if none came; 0 while not subscribed."""
        return time.monotonic() - self._silent_since_s if self.subscribed else 0.0

    def _warn_of_silence(self) -> str:
        """Say, once each, why no image can arrive, or what may be wrong if nothing at all does; return the former."""
        silent = self._silent_s() > self._silence_s
        if not self.subscribed or (self._any_received and not silent):
            return ""
        publishers = self.publishers()
        obstacle = find_obstacle(
            self.topic, self._asked, publishers, lambda topic: {other.kind for other in self.publishers(topic)}
        )
        if obstacle is not None:
            words = f"{obstacle.cause}: {obstacle.remedy}"
            self.tell(obstacle.cause, words)
            return words
        if publishers and silent and not self._any_received:
            self.tell(
                "silence",
                f"{len(publishers)} publisher(s) on {self.topic}, but no image arrived within {self._silence_s:.0f} s: "
                f"they send nothing (`ros2 topic hz {self.topic}` would be silent too), or the images are lost in "
                f"transport. {self._mend_loss()}",
            )
        return ""

    def _mend_loss(self) -> str:
        words, commands = mend_loss(get_rmw_implementation_identifier(), "the camera's driver", self._largest)
        return f"{words}: {'; '.join(commands)}"

    def tell(self, subject: str, words: str) -> None:
        """Log a warning, once for each subject, and of no more than there can be without somebody making them up."""
        if subject not in self._told and len(self._told) < _MOST_TOLD:
            self._told.add(subject)
            self._node.get_logger().warning(words)
