"""The quality of service of every topic, in one place."""

from __future__ import annotations

from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy

_RELIABILITY = {"best_effort": ReliabilityPolicy.BEST_EFFORT, "reliable": ReliabilityPolicy.RELIABLE}


def stream(reliability: str) -> QoSProfile:
    """Return the profile of camera images and of what is computed from each.

    The executor empties the queue at once, the newest frame wins behind it: depth only bridges its short absences.

    Args:
        reliability: best_effort or reliable.
    """
    return QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=5, reliability=_RELIABILITY[reliability])


def latched() -> QoSProfile:
    """Return the profile of a topic whose last message also reaches those who subscribe later."""
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=1,
        reliability=ReliabilityPolicy.RELIABLE,
        durability=DurabilityPolicy.TRANSIENT_LOCAL,
    )


def diagnostics() -> QoSProfile:
    """Return the profile that diagnostic aggregators expect."""
    return QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=1, reliability=ReliabilityPolicy.RELIABLE)
