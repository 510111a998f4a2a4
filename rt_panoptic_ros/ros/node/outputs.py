# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The node's output topics: each message is built only when someone listens to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sensor_msgs.msg import Image

from rt_panoptic_ros.frames.outputs import FRAME_OUTPUTS, OUTPUTS
from rt_panoptic_ros.ros import qos
from rt_panoptic_ros.ros.conversions import (
    class_names_to_msg,
    detections_2d_to_msg,
    detections_to_msg,
    image_to_msg,
    label_info_to_msg,
    label_space_to_msg,
    output_classes,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    import numpy as np
    from rclpy.lifecycle import LifecycleNode
    from std_msgs.msg import Header

    from rt_panoptic_ros.labeller import LabelledFrame, OutputStyle
    from rt_panoptic_ros.model.class_table import ClassTable

MESSAGE_CLASSES = output_classes()
"""{output: message class} of what can be published here."""


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
            name: node.create_lifecycle_publisher(MESSAGE_CLASSES[name], f"{prefix}/{name}", profile)
            for name in FRAME_OUTPUTS
            if name in MESSAGE_CLASSES
        }
        # Publishing serialises a message before it returns, so each of these is filled anew for every frame.
        self._images = {name: Image() for name in FRAME_OUTPUTS if OUTPUTS[name].encoding}

    def topics(self, enabled: Collection[str] = FRAME_OUTPUTS) -> dict[str, str]:
        """Return {output: resolved name of its topic} of those enabled."""
        publishers = self._publishers.items()
        return {name: str(publisher.topic_name) for name, publisher in publishers if name in enabled}

    def wanted(self, enabled: Collection[str]) -> frozenset[str]:
        """Return the outputs, of those enabled, that someone listens to."""
        publishers = self._publishers.items()
        return frozenset(
            name for name, publisher in publishers if name in enabled and publisher.get_subscription_count()
        )

    def publish(self, wanted: Collection[str], frame: LabelledFrame, header: Header, style: OutputStyle) -> None:
        """Publish one frame's labels with the camera image's own header.

        Args:
            wanted: The outputs to publish; the frame must have the images that they are made from.
            frame: The labels.
            header: The camera image's.
            style: What the images made of them look like.
        """
        publishers = self._publishers
        # The largest first: its listener unpacks it while the others are published. The overlay takes the longest.
        for name in ("panoptic", "instance", "semantic", "confidence", "mask", "semantic_color"):
            if name in wanted:
                self._publish_image(name, frame.pixels(name, style), header)
        if "detections" in wanted or "detections_2d" in wanted:
            detections = detections_to_msg(frame.result.detections, frame.classes, frame.size, header)
            if "detections" in wanted:
                publishers["detections"].publish(detections)
            if "detections_2d" in wanted:
                publishers["detections_2d"].publish(detections_2d_to_msg(detections, lasting_ids=frame.tracked))
        if "overlay" in wanted:
            self._publish_image("overlay", frame.pixels("overlay", style), header)

    def publish_message(self, name: str, msg: Any) -> None:
        """Publish one output, made elsewhere."""
        self._publishers[name].publish(msg)

    def _publish_image(self, name: str, pixels: np.ndarray, header: Header) -> None:
        self.publish_message(name, image_to_msg(pixels, OUTPUTS[name].encoding, header, self._images[name]))

    def destroy(self) -> None:
        """Take the topics away, and free the messages: the streams that hold all of it stand in circles for long."""
        for publisher in self._publishers.values():
            self._node.destroy_lifecycle_publisher(publisher)
        self._publishers.clear()
        self._images.clear()


class ModelTopics:
    """What the labels mean, on latched topics."""

    def __init__(self, node: LifecycleNode, cameras: Iterable[str]) -> None:
        """Create the publishers.

        Args:
            node: Its lifecycle enables them while it is active.
            cameras: Names of those whose outputs lie under a prefix: consumers look for a label info beside them.
        """
        self._node = node

        def publisher(output: str, prefix: str) -> Any:
            return node.create_lifecycle_publisher(MESSAGE_CLASSES[output], f"{prefix}/{output}", qos.latched())

        prefixes = ("~", *(f"~/{name}" for name in cameras)) if "label_info" in MESSAGE_CLASSES else ()
        self._class_names, self._label_space = publisher("class_names", "~"), publisher("label_space", "~")
        self._label_infos = [publisher("label_info", prefix) for prefix in prefixes]

    def publish(self, classes: ClassTable, score_threshold: float) -> None:
        """Publish the class table to present and future subscribers."""
        self._class_names.publish(class_names_to_msg(classes))
        self._label_space.publish(label_space_to_msg(classes))
        for publisher in self._label_infos:
            publisher.publish(label_info_to_msg(classes, score_threshold))

    def destroy(self) -> None:
        """Take the topics away."""
        for publisher in (self._class_names, self._label_space, *self._label_infos):
            self._node.destroy_lifecycle_publisher(publisher)
