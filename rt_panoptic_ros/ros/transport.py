"""The Fast DDS profile for large images, and how processes are told of it. Knows no ROS: launch files use it too."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rt_panoptic_ros.resources import share_directory

if TYPE_CHECKING:
    from collections.abc import Mapping

PROFILE_VARIABLES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")
"""Where Fast DDS looks for its profile: up to Jazzy, and from Kilted on."""


def shipped_profile() -> str:
    """Return the path of the profile that carries large images."""
    return str(share_directory() / "config" / "fastdds_large_images.xml")


def chosen_profiles(environment: Mapping[str, str]) -> list[str]:
    """Return the profiles that the environment names already."""
    return [environment[name] for name in PROFILE_VARIABLES if environment.get(name)]


def profile_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that bring the shipped profile, or none where the user has chosen one."""
    return {} if chosen_profiles(environment) else dict.fromkeys(PROFILE_VARIABLES, shipped_profile())
