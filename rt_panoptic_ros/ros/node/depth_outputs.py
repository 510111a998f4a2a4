# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""What is made of labels and depth, for all cameras: the worker's thread makes one frame's at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sensor_msgs.msg import Image, PointCloud2
from std_msgs.msg import Header

from rt_panoptic_ros.geometry.boxes import IDENTITY, BoxFinder, Transform
from rt_panoptic_ros.ros.conversions import detections_3d_to_msg, image_to_msg, points_to_msg
from rt_panoptic_ros.ros.node.frame_statistics import UNLOCATED
from rt_panoptic_ros.ros.node.transforms import TargetFrame

if TYPE_CHECKING:
    from collections.abc import Callable

    from rclpy.node import Node

    from rt_panoptic_ros.geometry.intrinsics import Intrinsics
    from rt_panoptic_ros.geometry.located import LocatedFrame
    from rt_panoptic_ros.ros.node.depth_input import DepthTurn


class DepthOutputs:
    """Makes and publishes the outputs that depth is needed for; `DepthInput` says when."""

    def __init__(self, node: Node, target_frame: str) -> None:
        """Load what boxes are found with, and listen to transforms if there is a target frame.

        Raises:
            UnavailableError: There is no tf2 for the target frame, or no room for a kernel.
        """
        self._finder = BoxFinder()
        self._target = TargetFrame(node, target_frame) if target_frame else None
        # Publishing serialises a message before it returns, so each of these is filled anew for every frame.
        self._points, self._filtered = PointCloud2(), Image()

    def publish_filtered(self, turn: DepthTurn, located: LocatedFrame) -> None:
        """Publish the depth without the mask's pixels."""
        assert turn.depth is not None
        assert turn.style is not None
        pixels = located.filtered(turn.style)
        msg = image_to_msg(pixels, turn.depth.encoding, turn.header, self._filtered)
        turn.stream.outputs.publish_message("depth_filtered", msg)

    def publish_points(self, turn: DepthTurn, located: LocatedFrame, intrinsics: Intrinsics) -> None:
        """Publish the organised cloud."""
        msg, cloud = points_to_msg(located.frame.size, turn.header, self._points)
        located.fill_cloud(cloud, intrinsics)
        turn.stream.outputs.publish_message("points", msg)

    def publish_detections(
        self, turn: DepthTurn, located: LocatedFrame, intrinsics: Intrinsics, transform: Transform
    ) -> None:
        """Publish the objects' boxes, and count the objects that have too little depth for one."""
        found = list(located.detections(self._finder, intrinsics, transform))
        turn.stream.statistics.count(UNLOCATED, len(located.frame.result.detections) - len(found))
        frame_id = turn.header.frame_id if self._target is None else self._target.name
        msg = detections_3d_to_msg(found, Header(stamp=turn.header.stamp, frame_id=frame_id))
        turn.stream.outputs.publish_message("detections_3d", msg)

    def transform(self, header: Header) -> Transform | str:
        """Return the transform to the frame along whose axes the boxes are, or why there is none."""
        return IDENTITY if self._target is None else self._target.transform(header)

    def await_transform(self, turn: DepthTurn, then: Callable[[], object]) -> None:
        """Call `then` once a turn's transform is there."""
        assert self._target is not None
        self._target.when_there(turn.stream.name, turn.header, then)

    def close(self) -> None:
        """Stop listening to transforms, and free the messages."""
        if self._target is not None:
            self._target.close()
        self._points, self._filtered = PointCloud2(), Image()
