# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The Fast DDS profile for large images, and how processes are told of it. Knows no ROS: launch files use it too."""

from __future__ import annotations

import os
import shlex
from typing import TYPE_CHECKING

from rt_panoptic_ros.resources import share_directory

if TYPE_CHECKING:
    from collections.abc import Mapping

PROFILE_VARIABLES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")
"""Where Fast DDS looks for its profile: up to Jazzy, and from Kilted on."""

_SMALL = 100_000  # bytes; what Fast DDS's default buffers carry several of


def shipped_profile() -> str:
    """Return the path of the profile that carries large images."""
    return str(share_directory() / "config" / "fastdds_large_images.xml")


def _variables(environment: Mapping[str, str]) -> tuple[str, ...]:
    """Return those that the environment's ROS distribution reads, both if it names none; newer ones warn of the old."""
    old, new = PROFILE_VARIABLES
    distribution = environment.get("ROS_DISTRO")
    return PROFILE_VARIABLES if not distribution else (old,) if distribution in ("humble", "jazzy") else (new,)


def profile_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that bring the shipped profile, or none where the user has chosen one."""
    chosen = any(environment.get(name) for name in PROFILE_VARIABLES)
    return {} if chosen else dict.fromkeys(_variables(environment), shipped_profile())


def mend_loss(rmw: str, sender: str, largest: int) -> tuple[str, tuple[str, ...]]:
    """Return words and commands that keep messages from being lost in transport.

    Args:
        rmw: The middleware.
        sender: What sends them, in words.
        largest: Bytes of the largest that arrived, 0 if none did.
    """
    if 0 < largest < _SMALL:
        return (
            "They are too small for the middleware's buffers to be the cause: look for a weak network or a machine "
            "without idle time between the two",
            ("top", "ping -c 20 HOST_OF_THE_CAMERA"),
        )
    if "fastrtps" not in rmw:
        words = f"Enlarge the buffers for large messages of {rmw or 'the middleware'} on both machines"
        return words, ("sudo sysctl -w net.core.rmem_max=2147483647",)
    words = (
        "Fast DDS loses large images by default, and it is the sender's profile that counts: in the terminal of "
        f"{sender}, choose the shipped one and start it again"
    )
    return words, tuple(f"export {variable}={shlex.quote(shipped_profile())}" for variable in _variables(os.environ))
