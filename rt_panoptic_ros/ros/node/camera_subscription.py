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

    from rt_panoptic_ros.ros.node.node_settings import NodeSettings, Periods


class Gate(MutuallyExclusiveCallbackGroup):
    """Lets the executor wait for a camera's images, except for a while after it was closed.

    All but `ask_to_open` is called by the executor, perhaps at the moment when another thread destroys it.
    """

    def __init__(self, node: Node, rest_s: float, on_fetch: Callable[[], None]) -> None:
        """Begin open; it stays closed for `rest_s` at most, and `on_fetch` is called before a message is taken."""
        super().__init__()
        self._node = node
        self._on_fetch = on_fetch
        self._closed = False
        self._timer = node.create_timer(rest_s, self.open, clock=Clock(clock_type=ClockType.STEADY_TIME))
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
        """Stay closed until it is opened, or for `rest_s`."""
        self._closed = True
        with suppress(rclpy_implementation.InvalidHandle):
            self._timer.reset()

    def open(self) -> None:
        """Open at once."""
        with suppress(rclpy_implementation.InvalidHandle):
            self._timer.cancel()
        self._closed = False

    def ask_to_open(self) -> None:
        """Have the executor open it; called by any thread."""
        if self._closed:
            with suppress(rclpy_implementation.InvalidHandle):
                self._guard.trigger()

    def destroy(self) -> None:
        """Take away what opens it; called by any thread."""
        self._node.destroy_timer(self._timer)
        self._node.destroy_guard_condition(self._guard)


class CameraSubscription:
    """Subscribes to a topic of images, or to what image_transport puts below it, while there is demand."""

    def __init__(
        self,
        node: Node,
        topic: str,
        settings: NodeSettings,
        periods: Periods,
        on_image: Callable[[Image | CompressedImage], bool],
        on_lost: Callable[[int], None],
    ) -> None:
        """Prepare; `follow` subscribes.

        Args:
            node: The node; its executor calls the two callbacks.
            topic: Of the images; it may be remapped.
            settings: Say in which transport and how reliably the images come.
            periods: Say how long a camera may be silent, and is left alone.
            on_image: Is given images; returns whether one that came before was still waiting. Then the camera is faster
                than the pipeline, and the next one is fetched after a rest or at the camera's turn: a flood of images
                costs no more than 25 Hz. Meanwhile the middleware keeps the newest alone, for `take_newest`.
            on_lost: Is given the number of images that the middleware found missing.
        """
        compressed = settings.image_transport == "compressed"
        self._node = node
        self._kind = CompressedImage if compressed else Image
        # As image_transport names it: where the base topic is remapped, what follows it stays; the whole may be, too.
        self._name = f"{node.resolve_topic_name(topic)}/compressed" if compressed else topic
        self.topic = str(node.resolve_topic_name(self._name))
        self._profile = qos.newest(settings.image_reliability)
        self._asked = Endpoint(
            node.get_fully_qualified_name(), COMPRESSED if compressed else IMAGE, settings.image_reliability
        )
        self._silence_s = periods.silence_s
        self._on_image = on_image
        self._on_lost = on_lost
        self._subscription: Subscription | None = None
        self.gate = Gate(node, periods.rest_s, self._note_fetch)
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
        if demand and not self.subscribed:
            self._silent_since_s = time.monotonic()
            self._any_received = False
            self.gate.open()
            self._subscription = subscribe_noticing_loss(
                self._node, self._kind, self._name, self._receive, self._profile, self.notice_loss, self.gate
            )
            self._node.get_logger().info(f"receiving images from {self.topic}")
        elif self.subscribed and not demand:
            self._unsubscribe()
            self._node.get_logger().info("nobody listens: stopped receiving images")

    def end(self) -> None:
        """Unsubscribe, and begin anew with what is told once."""
        self._unsubscribe()
        self._told.clear()

    def destroy(self) -> None:
        """Take away what ROS holds for it while it is not subscribed."""
        self.gate.destroy()

    def take_newest(self) -> Image | CompressedImage | None:
        """Return the newest that the middleware holds, None if it holds none, and go on receiving; for any thread."""
        msg = self._fetch()
        self.gate.ask_to_open()
        if msg is not None:
            self.taken += 1
            self._note_arrival(msg)
        return msg

    def silence_s(self) -> float:
        """Return the seconds since the last image, or since subscribing if none came; 0 while not subscribed."""
        return time.monotonic() - self._silent_since_s if self.subscribed else 0.0

    def publishers(self, topic: str | None = None) -> list[Endpoint]:
        """Return the publishers, of whatever type, of the camera's topic or another one."""
        infos = self._node.get_publishers_info_by_topic(topic or self.topic)
        return [Endpoint.of(info) for info in infos]

    def warn_of_silence(self) -> str:
        """Say, once each, why no image can arrive, or what may be wrong if nothing at all does; return the former."""
        silent = self.silence_s() > self._silence_s
        if not self.subscribed or (self._any_received and not silent):
            return ""
        publishers = self.publishers()
        obstacle = find_obstacle(
            self.topic, self._asked, publishers, lambda topic: {other.kind for other in self.publishers(topic)}
        )
        if obstacle is not None:
            words = f"{obstacle.cause}: {obstacle.remedy}"
            self._tell(obstacle.cause, words)
            return words
        if publishers and silent and not self._any_received:
            self._tell(
                "silence",
                f"{len(publishers)} publisher(s) on {self.topic}, but no image arrived within {self._silence_s:.0f} s: "
                f"they send nothing (`ros2 topic hz {self.topic}` would be silent too), or the images are lost in "
                f"transport. {self._mend_loss()}",
            )
        return ""

    def notice_loss(self, event: Any) -> None:
        """Tell of images that the middleware found missing: an event's `total_count` and `total_count_change`."""
        self._on_lost(event.total_count_change)
        symptom = f"images of {self.topic} are lost in transport ({event.total_count} so far)"
        self._tell("loss", f"{symptom}. {self._mend_loss()}")

    def _unsubscribe(self) -> None:
        if self._subscription is not None:
            self._node.destroy_subscription(self._subscription)
            self._subscription = None

    def _receive(self, msg: Image | CompressedImage) -> None:
        msg = self._fetch() or msg
        self._note_arrival(msg)
        self.gate.close()  # before the hand-over: the camera's turn may come in the middle of it
        if not self._on_image(msg):
            self.gate.open()

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
