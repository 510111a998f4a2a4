"""The node's subscription to its camera: on demand, the newest image only, and watchful of frames that vanish."""

from __future__ import annotations

import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.utilities import get_rmw_implementation_identifier
from sensor_msgs.msg import CompressedImage, Image

from rt_panoptic_ros.ros import qos
from rt_panoptic_ros.ros.endpoints import COMPRESSED, IMAGE, Endpoint, find_obstacle
from rt_panoptic_ros.ros.node.diagnostics import SILENCE_S
from rt_panoptic_ros.ros.transport import mend_loss

try:
    from rclpy.event_handler import SubscriptionEventCallbacks, UnsupportedEventTypeError
except ImportError:  # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks, UnsupportedEventTypeError

if TYPE_CHECKING:
    from collections.abc import Callable

    from rclpy.callback_groups import CallbackGroup
    from rclpy.node import Node
    from rclpy.qos import QoSProfile
    from rclpy.subscription import Subscription

REST_S = 0.04
"""How long at most a camera that is faster than the engine is left alone after each image."""


class _Gate(MutuallyExclusiveCallbackGroup):
    """Lets the executor wait for a camera's images, except after it was closed."""

    def __init__(self, node: Node, on_fetch: Callable[[], None]) -> None:
        super().__init__()
        self._node = node
        self._on_fetch = on_fetch  # called before the executor takes a message
        self._closed = False
        self._timer = node.create_timer(REST_S, self.open, clock=Clock(clock_type=ClockType.STEADY_TIME))
        self._timer.cancel()
        self._guard = node.create_guard_condition(self.open)

    def can_execute(self, entity: Any) -> bool:
        """Return whether the executor may wait for an entity of this group."""
        return not self._closed and super().can_execute(entity)

    def beginning_execution(self, entity: Any) -> bool:
        """Return whether the executor may fetch what an entity of this group holds, and call its callback."""
        self._on_fetch()
        return bool(super().beginning_execution(entity))

    def close(self) -> None:
        """Stay closed until it is opened, for `REST_S` at most; called by the executor."""
        self._closed = True
        with suppress(rclpy_implementation.InvalidHandle):  # another thread destroys it at this moment
            self._timer.reset()

    def open(self) -> None:
        """Open at once; called by the executor."""
        with suppress(rclpy_implementation.InvalidHandle):
            self._timer.cancel()
        self._closed = False

    def ask_to_open(self) -> None:
        """Have the executor open it; called by any thread."""
        if self._closed:
            with suppress(rclpy_implementation.InvalidHandle):
                self._guard.trigger()

    def destroy(self) -> None:
        """Take away what opens it."""
        self._node.destroy_timer(self._timer)
        self._node.destroy_guard_condition(self._guard)


class CameraSubscription:
    """Subscribes to a topic of images, or to what image_transport puts below it, while there is demand."""

    def __init__(
        self,
        node: Node,
        topic: str,
        transport: str,
        reliability: str,
        on_image: Callable[[Image | CompressedImage], bool],
        on_lost: Callable[[int], None],
    ) -> None:
        """Prepare; `follow` subscribes.

        Args:
            node: The node; its executor calls the two callbacks.
            topic: Of the images; it may be remapped.
            transport: raw or compressed.
            reliability: best_effort or reliable.
            on_image: Is given images; returns whether one that came before was still waiting. Then the camera is faster
                than the engine, and the next one is fetched after `REST_S` or at the camera's turn: a flood of images
                costs no more than 25 Hz. Meanwhile the middleware keeps the newest alone, for `take_newest`.
            on_lost: Is given the number of images that the middleware found missing.
        """
        self._node = node
        self._compressed = transport == "compressed"
        # As image_transport names it: where the base topic is remapped, what follows it stays; the whole may be, too.
        self._name = f"{node.resolve_topic_name(topic)}/compressed" if self._compressed else topic
        self.topic = str(node.resolve_topic_name(self._name))
        self._profile = qos.newest(reliability)
        kind = COMPRESSED if self._compressed else IMAGE
        self._asked = Endpoint(node.get_fully_qualified_name(), kind, reliability)
        self._on_image = on_image
        self._on_lost = on_lost
        self._subscription: Subscription | None = None
        self._gate: _Gate | None = None
        self._silent_since_s = time.monotonic()
        self._any_received = False
        self._largest = 0  # bytes
        self.taken = 0
        """How many images `take_newest` returned."""
        self.taken_before = 0
        """As many when the executor began to fetch the last image that it gave: one taken since is newer."""
        self._told: set[str] = set()

    @property
    def subscribed(self) -> bool:
        """Whether images are received now."""
        return self._subscription is not None

    def follow(self, demand: bool) -> None:
        """Subscribe when there is demand, unsubscribe when there is none."""
        if demand == self.subscribed:
            return
        if demand:
            self._silent_since_s = time.monotonic()
            self._any_received = False
            self._subscription = self._subscribe()
            self._node.get_logger().info(f"receiving images from {self.topic}")
        else:
            self.close()
            self._node.get_logger().info("nobody listens: stopped receiving images")

    def close(self) -> None:
        """Unsubscribe."""
        if self._subscription is not None:
            self._node.destroy_subscription(self._subscription)
            self._subscription = None
        if self._gate is not None:
            self._gate.destroy()
            self._gate = None

    def take_newest(self) -> Image | CompressedImage | None:
        """Return the newest that the middleware holds, None if it holds none, and go on receiving; for any thread."""
        gate, msg = self._gate, self._fetch()
        if gate is not None:
            gate.ask_to_open()
        if msg is not None:
            self.taken += 1
            self._note_arrival(msg)
        return msg

    def silence_s(self) -> float:
        """Return the seconds since the last image, or since subscribing if none came; 0 while not subscribed."""
        return time.monotonic() - self._silent_since_s if self.subscribed else 0.0

    def publisher_count(self) -> int:
        """Return how many publishers the camera's topic has, of whatever type."""
        return len(self._publishers(self.topic))

    def warn_of_silence(self) -> str:
        """Say, once each, why no image can arrive, or what may be wrong if nothing at all does; return the former."""
        if not self.subscribed or (self._any_received and self.silence_s() <= SILENCE_S):
            return ""
        publishers = self._publishers(self.topic)
        obstacle = find_obstacle(
            self.topic, self._asked, publishers, lambda topic: {other.kind for other in self._publishers(topic)}
        )
        if obstacle is not None:
            words = f"{obstacle.cause}: {obstacle.remedy}"
            self._tell(obstacle.cause, words)
            return words
        if publishers and not self._any_received and self.silence_s() > SILENCE_S:
            self._tell(
                "silence",
                f"{len(publishers)} publisher(s) on {self.topic}, but no image arrived within {SILENCE_S:.0f} s: they "
                f"send nothing (`ros2 topic hz {self.topic}` would be silent too), or the images are lost in "
                f"transport. {self._mend_loss()}",
            )
        return ""

    def _publishers(self, topic: str) -> list[Endpoint]:
        return [Endpoint.of(info) for info in self._node.get_publishers_info_by_topic(topic)]

    def _subscribe(self) -> Subscription:
        kind = CompressedImage if self._compressed else Image
        self._gate = _Gate(self._node, self._note_fetch)
        return subscribe_noticing_loss(
            self._node, kind, self._name, self._receive, self._profile, self._notice_loss, self._gate
        )

    def _receive(self, msg: Image | CompressedImage) -> None:
        gate = self._gate
        msg = self._fetch() or msg
        self._note_arrival(msg)
        if gate is not None:
            gate.close()  # before the hand-over: the camera's turn may come in the middle of it
        if not self._on_image(msg) and gate is not None:
            gate.open()

    def _fetch(self) -> Image | CompressedImage | None:
        subscription, newest = self._subscription, None
        if subscription is None:
            return None
        with suppress(rclpy_implementation.InvalidHandle), subscription.handle:  # unsubscribed at this moment
            for _ in range(self._profile.depth):
                taken = subscription.handle.take_message(subscription.msg_type, subscription.raw)
                if taken is None:
                    break
                newest = taken[0]
        return newest

    def _note_fetch(self) -> None:
        self.taken_before = self.taken

    def _note_arrival(self, msg: Image | CompressedImage) -> None:
        self._any_received = True
        self._silent_since_s = time.monotonic()
        self._largest = max(self._largest, len(msg.data))

    def _notice_loss(self, event: Any) -> None:
        self._on_lost(event.total_count_change)
        symptom = f"images of {self.topic} are lost in transport ({event.total_count} so far)"
        self._tell("loss", f"{symptom}. {self._mend_loss()}")

    def _mend_loss(self) -> str:
        words, commands = mend_loss(get_rmw_implementation_identifier(), "the camera's driver", self._largest)
        return f"{words}: {'; '.join(commands)}"

    def _tell(self, subject: str, words: str) -> None:
        if subject not in self._told:
            self._told.add(subject)
            self._node.get_logger().warning(words)


def subscribe_noticing_loss(
    node: Node,
    kind: Any,
    topic: str,
    on_message: Callable[[Any], None],
    profile: QoSProfile,
    on_loss: Callable[[Any], None],
    group: CallbackGroup | None = None,
) -> Subscription:
    """Return a subscription that tells of messages that the middleware finds missing, where that can tell.

    Args:
        node: The node; its executor calls the two callbacks.
        kind: The messages' class.
        topic: Their topic.
        on_message: Is given every message.
        profile: The quality of service.
        on_loss: Is given an event with `total_count` and `total_count_change`.
        group: Says when the executor may wait for messages; None for the node's own.
    """
    create = partial(node.create_subscription, kind, topic, on_message, profile, callback_group=group)
    try:
        return create(event_callbacks=SubscriptionEventCallbacks(message_lost=on_loss))
    except UnsupportedEventTypeError:  # of this middleware; silence is still noticed
        return create()
