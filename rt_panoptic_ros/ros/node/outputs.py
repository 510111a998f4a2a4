"""The node's output topics: each message is built only when someone listens to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from sensor_msgs.msg import Image
from std_msgs.msg import String

from rt_panoptic_ros.drawing.overlay import render_overlay
from rt_panoptic_ros.frames.pixel_encodings import to_rgb
from rt_panoptic_ros.msg import PanopticDetectionArray
from rt_panoptic_ros.panoptic.tracking import with_ids
from rt_panoptic_ros.ros import qos
from rt_panoptic_ros.ros.conversions import (
    class_names_to_msg,
    confidence_to_msg,
    detections_2d_to_msg,
    detections_to_msg,
    instance_to_msg,
    label_info_to_msg,
    overlay_to_msg,
    semantic_to_msg,
)

try:
    from vision_msgs.msg import Detection2DArray, LabelInfo
except ImportError:  # not of ROS's base installation: its topics are left out
    Detection2DArray = LabelInfo = None

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from rclpy.lifecycle import LifecycleNode
    from std_msgs.msg import Header

    from rt_panoptic_ros.model.class_table import ClassTable
    from rt_panoptic_ros.records import CameraImage, PanopticResult

KINDS: dict[str, Any] = {
    "semantic": Image,
    "instance": Image,
    "detections": PanopticDetectionArray,
    **({} if Detection2DArray is None else {"detections_2d": Detection2DArray}),
    "confidence": Image,
    "overlay": Image,
}
"""{output: message class} of what can be published here for every image."""


class PanopticOutputs:
    """Publishes one camera's results; one thread at a time publishes frames."""

    def __init__(self, node: LifecycleNode, prefix: str, reliability: str) -> None:
        """Create the publishers.

        Args:
            node: Its lifecycle enables them while it is active.
            prefix: What the topics are under, such as ~.
            reliability: best_effort or reliable.
        """
        self._node = node
        profile = qos.stream(reliability)
        self._publishers = {
            name: node.create_lifecycle_publisher(kind, f"{prefix}/{name}", profile) for name, kind in KINDS.items()
        }
        # Publishing serialises a message before it returns, so each of these is filled anew for every frame.
        self._images = {name: Image() for name, kind in KINDS.items() if kind is Image}

    def topics(self, enabled: Collection[str] = tuple(KINDS)) -> dict[str, str]:
        """Return {output: resolved name of its topic} of those enabled."""
        publishers = self._publishers.items()
        return {name: str(publisher.topic_name) for name, publisher in publishers if name in enabled}

    def wanted(self, enabled: Collection[str]) -> frozenset[str]:
        """Return the outputs, of those enabled, that someone listens to."""
        publishers = self._publishers.items()
        return frozenset(
            name for name, publisher in publishers if name in enabled and publisher.get_subscription_count()
        )

    def publish(
        self,
        wanted: Collection[str],
        image: CameraImage,
        result: PanopticResult,
        ids: np.ndarray | None,
        classes: ClassTable,
        header: Header,
        opacity: float,
        palette: str,
    ) -> None:
        """Publish one frame's result with the camera image's own header.

        Args:
            wanted: The outputs to publish; for the confidence, the result must have it.
            image: The camera image, for the overlay.
            result: Its labels and objects.
            ids: (n,) uint16, the objects' lasting ids; None for their numbers in this image.
            classes: What the labels mean.
            header: The camera image's.
            opacity: Share of the class colours in the overlay, 0 to 1.
            palette: The overlay's colours, see `render_overlay`.
        """
        publishers, images = self._publishers, self._images
        # The largest first: its listener unpacks it while the others are published.
        if "instance" in wanted:
            instance = result.instance if ids is None else with_ids(result.instance, ids)
            publishers["instance"].publish(instance_to_msg(instance, header, images["instance"]))
        if "semantic" in wanted:
            publishers["semantic"].publish(semantic_to_msg(result.semantic, header, images["semantic"]))
        if "confidence" in wanted:
            assert result.confidence is not None
            publishers["confidence"].publish(confidence_to_msg(result.confidence, header, images["confidence"]))
        if "detections" in wanted or "detections_2d" in wanted:
            detections = detections_to_msg(result.detections, classes, result.semantic.shape, header, ids)
            if "detections" in wanted:
                publishers["detections"].publish(detections)
            if "detections_2d" in wanted:
                publishers["detections_2d"].publish(detections_2d_to_msg(detections, lasting_ids=ids is not None))
        if "overlay" in wanted:
            overlay = render_overlay(np.ascontiguousarray(to_rgb(image)), result, classes, opacity, ids, palette)
            publishers["overlay"].publish(overlay_to_msg(overlay, header, images["overlay"]))

    def destroy(self) -> None:
        """Take the topics away."""
        for publisher in self._publishers.values():
            self._node.destroy_lifecycle_publisher(publisher)


class ModelTopics:
    """What the labels mean, on latched topics."""

    def __init__(self, node: LifecycleNode, cameras: Iterable[str]) -> None:
        """Create the publishers.

        Args:
            node: Its lifecycle enables them while it is active.
            cameras: Names of those whose outputs lie under a prefix: consumers look for a label info beside them.
        """
        self._node = node
        self._class_names = node.create_lifecycle_publisher(String, "~/class_names", qos.latched())
        prefixes = () if LabelInfo is None else ("~", *(f"~/{name}" for name in cameras))
        self._label_infos = [
            node.create_lifecycle_publisher(LabelInfo, f"{prefix}/label_info", qos.latched()) for prefix in prefixes
        ]

    def publish(self, classes: ClassTable, score_threshold: float) -> None:
        """Publish the class table to present and future subscribers."""
        self._class_names.publish(class_names_to_msg(classes))
        for publisher in self._label_infos:
            publisher.publish(label_info_to_msg(classes, score_threshold))

    def destroy(self) -> None:
        """Take the topics away."""
        for publisher in (self._class_names, *self._label_infos):
            self._node.destroy_lifecycle_publisher(publisher)
