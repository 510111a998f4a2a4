# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The quality of service of every topic, in one place; each keeps its last messages, as many as `depth` says."""

from __future__ import annotations

from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

_RELIABILITY = {"best_effort": ReliabilityPolicy.BEST_EFFORT, "reliable": ReliabilityPolicy.RELIABLE}


def stream(reliability: str) -> QoSProfile:
    """Return the profile of what is published from each image: its depth bridges a listener's short absences.

    Args:
        reliability: best_effort or reliable.
    """
    return QoSProfile(depth=5, reliability=_RELIABILITY[reliability])


def newest(reliability: str) -> QoSProfile:
    """Return the profile of a subscription that is asked for the newest image only.

    Fast DDS makes room for a reliable image when its first piece arrives: a depth of 1 would then hold no whole one.

    Args:
        reliability: best_effort or reliable.
    """
    return QoSProfile(depth=2 if reliability == "reliable" else 1, reliability=_RELIABILITY[reliability])


def side_input() -> QoSProfile:
    """Return the profile of a subscription to what comes beside images: it receives from every publisher."""
    return QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)


def latched() -> QoSProfile:
    """Return the profile of a topic whose last message also reaches those who subscribe later."""
    return QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)


def diagnostics() -> QoSProfile:
    """Return the profile that diagnostic aggregators expect."""
    return QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
