# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Launches the panoptic node.

ros2 launch rt_panoptic_ros panoptic.launch.py image_topic:=/camera/image_raw model:=PATH

Every setting of the node is an argument; `--show-args` lists them. One that is left empty keeps what `params_file`
says, and without a file the node's own default (for post-processing: the model's).
"""

import os
from dataclasses import dataclass

from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
from launch_ros.actions import LifecycleNode

from launch import LaunchContext, LaunchDescription
from rt_panoptic_ros.ros.node.node_settings import NodeSettings, beside
from rt_panoptic_ros.ros.transport import profile_environment
from rt_panoptic_ros.settings import PostprocessSettings, setting, settings_of

GENERAL = {
    "image_topic": ("/camera/image_raw", "Topic of the camera's images (sensor_msgs/Image)."),
    "camera_info_topic": (
        "",
        "Topic of its calibration; empty for camera_info beside the images, /camera/camera_info.",
    ),
    "depth_topic": (
        "",
        "Topic of the depth aligned to its images; empty for depth beside the images, /camera/depth. RealSense: "
        "/camera/camera/aligned_depth_to_color/image_raw with align_depth.enable:=true; ZED: "
        "/zed/zed_node/depth/depth_registered; OAK: /oak/stereo/image_raw.",
    ),
    "node_name": ("panoptic_node", "Name of the node; its outputs are under it."),
    "namespace": ("", "Namespace of the node."),
    "enclave": ("", "SROS 2 enclave of the node, such as /panoptic/node (docs/security.md); empty for none."),
    "params_file": ("", "YAML file of the node's parameters, such as config/panoptic.yaml; empty for none."),
    "log_level": ("info", "Least severe messages that are logged: debug, info, warn, error or fatal."),
}


@dataclass(frozen=True)
class Respawn:
    """What happens when the node's process ends by itself."""

    respawn: bool = setting(
        False, "Start the node anew when its process ends, as after a hang (see watchdog_s) or a crash."
    )
    respawn_delay: float = setting(1.0, "Seconds before it is started anew.", minimum=0.0, maximum=3600.0)


SETTINGS = {one.name: one for one in (*settings_of(NodeSettings), *settings_of(PostprocessSettings))}


def generate_launch_description() -> LaunchDescription:
    """Return the arguments, the transport's profile, and the node."""
    arguments = [
        DeclareLaunchArgument(name, default_value=default, description=description)
        for name, (default, description) in GENERAL.items()
    ]
    for one in (*settings_of(Respawn), *settings_of(NodeSettings)):
        default = f"'{one.default}'" if isinstance(one.default, str) else str(one.default).lower()
        description = f"{one.description} If left empty: {default}."
        arguments.append(DeclareLaunchArgument(one.name, default_value="", description=description))
    for one in settings_of(PostprocessSettings):
        description = f"{one.description} If left empty: the model's own."
        arguments.append(DeclareLaunchArgument(one.name, default_value="", description=description))
    profile = [SetEnvironmentVariable(name, path) for name, path in profile_environment(os.environ).items()]
    return LaunchDescription([*arguments, *profile, OpaqueFunction(function=_node)])


def _node(context: LaunchContext) -> list[LifecycleNode]:
    """Return the node with the given arguments in the types that its parameters have.

    Raises:
        InvalidInputError: An argument has a value that its parameter cannot have.
    """
    given = context.launch_configurations
    topics = {name: given[f"{name}_topic"] or beside(given["image_topic"], name) for name in ("camera_info", "depth")}
    again = Respawn(**{one.name: one.parsed(given[one.name]) for one in settings_of(Respawn) if given[one.name]})
    enclave = ["--enclave", given["enclave"]] if given["enclave"] else []
    parameters = {name: SETTINGS[name].parsed(given[name]) for name in SETTINGS if given[name]}
    return [
        LifecycleNode(
            package="rt_panoptic_ros",
            executable="panoptic_node",
            name=given["node_name"],
            namespace=given["namespace"],
            parameters=[*([given["params_file"]] if given["params_file"] else []), parameters],
            remappings=[("image", given["image_topic"]), *topics.items()],
            arguments=["--ros-args", "--log-level", given["log_level"], *enclave],
            respawn=again.respawn,
            respawn_delay=again.respawn_delay,
            output="screen",
        )
    ]
