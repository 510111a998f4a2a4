"""The node's output topics: each message is built only when someone listens to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from sensor_msgs.msg import Image
from std_msgs.msg import String

from rt_panoptic_ros.input_image import to_rgb
from rt_panoptic_ros.msg import PanopticDetectionArray
from rt_panoptic_ros.ros import qos
from rt_panoptic_ros.ros.conversions import (
    class_names_to_msg,
    confidence_to_msg,
    detections_to_msg,
    instance_to_msg,
    overlay_to_msg,
    semantic_to_msg,
)
from rt_panoptic_ros.tracking import with_ids
from rt_panoptic_ros.visualize import render_overlay

if TYPE_CHECKING:
    from rclpy.lifecycle import LifecycleNode
    from std_msgs.msg import Header

    from rt_panoptic_ros.class_table import ClassTable
    from rt_panoptic_ros.records import CameraImage, PanopticResult


class PanopticOutputs:
    """Publishes results; one thread at a time publishes frames."""

    def __init__(self, node: LifecycleNode, reliability: str) -> None:
        """Create the publishers.

        Args:
            node: Its lifecycle enables them while it is active.
            reliability: best_effort or reliable.
        """
        self._node = node
        profile = qos.stream(reliability)
        self._semantic = node.create_lifecycle_publisher(Image, "~/semantic", profile)
        self._instance = node.create_lifecycle_publisher(Image, "~/instance", profile)
        self._detections = node.create_lifecycle_publisher(PanopticDetectionArray, "~/detections", profile)
        self._confidence = node.create_lifecycle_publisher(Image, "~/confidence", profile)
        self._overlay = node.create_lifecycle_publisher(Image, "~/overlay", profile)
        self._class_names = node.create_lifecycle_publisher(String, "~/class_names", qos.latched())
        # Publishing serialises a message before it returns, so each of these is filled anew for every frame.
        self._semantic_msg = Image()
        self._instance_msg = Image()
        self._confidence_msg = Image()
        self._overlay_msg = Image()

    @property
    def _per_frame(self) -> tuple[object, ...]:
        return self._semantic, self._instance, self._detections, self._confidence, self._overlay

    def anyone_listens(self) -> bool:
        """Return whether an output that comes with every frame has a subscriber."""
        return any(publisher.get_subscription_count() for publisher in self._per_frame)  # type: ignore[attr-defined]

    @property
    def confidence_wanted(self) -> bool:
        """Whether someone listens to the confidence."""
        return bool(self._confidence.get_subscription_count())

    def publish_class_names(self, classes: ClassTable) -> None:
        """Publish the class table to present and future subscribers."""
        self._class_names.publish(class_names_to_msg(classes))

    def publish(
        self,
        image: CameraImage,
        result: PanopticResult,
        ids: np.ndarray | None,
        classes: ClassTable,
        header: Header,
        opacity: float,
        palette: str,
    ) -> None:
        """Publish one frame's result with the camera image's own header to those who listen.

        Args:
            image: The camera image, for the overlay.
            result: Its labels and objects.
            ids: (n,) uint16, the objects' lasting ids; None for their numbers in this image.
            classes: What the labels mean.
            header: The camera image's.
            opacity: Share of the class colours in the overlay, 0 to 1.
            palette: The overlay's colours, see `render_overlay`.
        """
        # The largest first: its listener unpacks it while the others are published.
        if self._instance.get_subscription_count():
            instance = result.instance if ids is None else with_ids(result.instance, ids)
            self._instance.publish(instance_to_msg(instance, header, self._instance_msg))
        if self._semantic.get_subscription_count():
            self._semantic.publish(semantic_to_msg(result.semantic, header, self._semantic_msg))
        if result.confidence is not None:
            self._confidence.publish(confidence_to_msg(result.confidence, header, self._confidence_msg))
        if self._detections.get_subscription_count():
            self._detections.publish(detections_to_msg(result.detections, classes, result.semantic.shape, header, ids))
        if self._overlay.get_subscription_count():
            overlay = render_overlay(np.ascontiguousarray(to_rgb(image)), result, classes, opacity, ids, palette)
            self._overlay.publish(overlay_to_msg(overlay, header, self._overlay_msg))

    def destroy(self) -> None:
        """Take the topics away."""
        for publisher in (*self._per_frame, self._class_names):
            self._node.destroy_lifecycle_publisher(publisher)
