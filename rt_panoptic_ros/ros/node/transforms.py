# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Transforms to the node's target frame, from tf2; imported only where one is set."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from rclpy.time import Time

from rt_panoptic_ros.errors import UnavailableError
from rt_panoptic_ros.geometry.boxes import Transform

if TYPE_CHECKING:
    from collections.abc import Callable

    from rclpy.node import Node
    from std_msgs.msg import Header


class TargetFrame:
    """Says how frames lie in the target frame at their images' stamps."""

    def __init__(self, node: Node, name: str) -> None:
        """Listen to the robot's transforms.

        Raises:
            UnavailableError: tf2's Python package is not installed.
        """
        try:
            import tf2_ros
        except ImportError as error:
            raise UnavailableError(
                f"expected tf2_ros for the parameter target_frame, got {error}: install ros-$ROS_DISTRO-tf2-ros-py, or "
                "leave target_frame empty for boxes along the axes of the camera's optical frame"
            ) from error
        self.name = name
        self._missing: type[Exception] = tf2_ros.TransformException
        self._buffer = tf2_ros.Buffer()
        self._listener = tf2_ros.TransformListener(self._buffer, node)
        self._futures: dict[str, Any] = {}  # by camera

    def transform(self, header: Header) -> Transform | str:
        """Return the transform from a header's frame at its stamp, or why there is none."""
        try:
            found = self._buffer.lookup_transform(self.name, header.frame_id, Time.from_msg(header.stamp)).transform
        except self._missing as error:
            return f"{error} (from '{header.frame_id}' to target_frame '{self.name}', at the image's stamp)"
        rotation, translation = found.rotation, found.translation
        return Transform.of_quaternion(
            (rotation.x, rotation.y, rotation.z, rotation.w), np.array([translation.x, translation.y, translation.z])
        )

    def when_there(self, camera: str, header: Header, then: Callable[[], object]) -> None:
        """Call `then` once the transform of a header is there; only for the last one that a camera asked for."""
        if (other := self._futures.pop(camera, None)) is not None:
            other.cancel()
        future = self._buffer.wait_for_transform_async(self.name, header.frame_id, Time.from_msg(header.stamp))
        self._futures[camera] = future
        future.add_done_callback(lambda future: None if future.cancelled() else then())

    def close(self) -> None:
        """Stop listening."""
        for future in self._futures.values():
            future.cancel()
        self._listener.unregister()
