# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Plays a video, a folder of images or a camera to the panoptic node, and shows it in rviz2 where that is installed.

ros2 launch rt_panoptic_ros demo.launch.py source:=/path/to/video.mp4 model:=PATH; the arguments of panoptic.launch.py
can be given here too.
"""

import os

from ament_index_python.packages import PackageNotFoundError, get_package_prefix
from launch.actions import (
    DeclareLaunchArgument,
    IncludeLaunchDescription,
    LogInfo,
    OpaqueFunction,
    SetEnvironmentVariable,
)
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from rt_panoptic_ros.resources import share_directory
from rt_panoptic_ros.ros.transport import profile_environment

PACKAGE = "rt_panoptic_ros"
PLAYER = {
    "source": (str, None, "A video, a folder of images, an image, or a camera such as 0 or /dev/video0."),
    "rate_hz": (float, "0.0", "Images per second; 0 for the source's own rate."),
    "loop": (bool, "true", "Start again at the end, for ever."),
}


def generate_launch_description() -> LaunchDescription:
    """Return the player, the node and rviz2."""
    arguments = [
        DeclareLaunchArgument(name, default_value=default, description=description)
        for name, (_, default, description) in PLAYER.items()
    ]
    rviz = DeclareLaunchArgument("rviz", default_value="true", description="Show rviz2, where it is installed.")
    # The player sends the large images, so it needs the profile as much as the node.
    profile = [SetEnvironmentVariable(name, path) for name, path in profile_environment(os.environ).items()]
    node = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(str(share_directory() / "launch" / "panoptic.launch.py"))
    )
    player = Node(
        package=PACKAGE,
        executable="play_images",
        # Each in its type: without, launch takes a folder 0016 for the number 14.
        parameters=[
            {name: ParameterValue(LaunchConfiguration(name), value_type=kind) for name, (kind, *_) in PLAYER.items()}
        ],
        remappings=[("image", LaunchConfiguration("image_topic"))],
        output="screen",
    )
    return LaunchDescription([*arguments, rviz, *profile, node, player, OpaqueFunction(function=_rviz)])


def _rviz(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    if context.launch_configurations["rviz"].lower() != "true":
        return []
    try:
        get_package_prefix("rviz2")
    except PackageNotFoundError:
        return [LogInfo(msg="rviz2 is not installed here: look at the topics with other tools, or pass rviz:=false")]
    layout = str(share_directory() / "config" / "panoptic.rviz")
    return [Node(package="rviz2", executable="rviz2", arguments=["-d", layout], output="log")]
