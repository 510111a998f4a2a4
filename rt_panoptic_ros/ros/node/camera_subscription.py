# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""How a camera's topic is subscribed to: noticing loss, and with a gate that keeps the executor from fetching."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.impl.implementation_singleton import rclpy_implementation

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


class Gate(ReentrantCallbackGroup):
    """Lets the executor wait for a camera's images, except for a while after it was closed.

    All but `ask_to_open` is called by the executor, perhaps at the moment when another thread destroys it. The group is
    not an exclusive one, since rclpy leaves that busy for ever when a message can't be taken.
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
        forget_gone(self._node.default_callback_group)


def forget_gone(group: CallbackGroup) -> None:
    """Take out of a group, after something was destroyed, what is gone: rclpy keeps a weak reference to it for ever.

    What the executor still holds at the moment is taken out the next time.
    """
    group.entities.difference_update([entity for entity in tuple(group.entities) if entity() is None])


def subscribe_noticing_loss(
    node: Node,
    kind: Any,
    topic: str,
    on_message: Callable[..., None],
    profile: QoSProfile,
    on_loss: Callable[[Any], None],
    group: CallbackGroup | None = None,
) -> Subscription:
    """Return a subscription that tells of messages that the middleware finds missing, where that can tell.

    Args:
        node: The node; its executor calls the two callbacks.
        kind: The messages' class.
        topic: Their topic.
        on_message: Is given every message, with what rclpy knows of it besides if it takes two arguments.
        profile: The quality of service.
        on_loss: Is given an event with `total_count` and `total_count_change`.
        group: Says when the executor may wait for messages; None for the node's own.
    """
    create = partial(node.create_subscription, kind, topic, on_message, profile, callback_group=group)
    try:
        return create(event_callbacks=SubscriptionEventCallbacks(message_lost=on_loss))
    except UnsupportedEventTypeError:  # of this middleware; silence is still noticed
        return create()
