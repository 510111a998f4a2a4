# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""What `rt-panoptic bench node` measures, each a process: the real node around a stand-in network, and a bare relay.

Both write down which frames came and how long the stages of each answer took.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rclpy.node import Node
from sensor_msgs.msg import Image, RegionOfInterest
from std_msgs.msg import Header

from rt_panoptic_ros.benchmark.measure import StageClock
from rt_panoptic_ros.benchmark.scenes import street_scene
from rt_panoptic_ros.frames.message_layout import stamp_ns
from rt_panoptic_ros.inference.backends import resolve_device
from rt_panoptic_ros.inference.base import Backend
from rt_panoptic_ros.model.architecture import NetworkConfig
from rt_panoptic_ros.model.bundle import InputSpec, ModelBundle
from rt_panoptic_ros.model.class_table import load_class_table
from rt_panoptic_ros.msg import PanopticDetection, PanopticDetectionArray
from rt_panoptic_ros.pipeline import PanopticPipeline
from rt_panoptic_ros.ros import qos
from rt_panoptic_ros.ros.conversions import image_to_msg
from rt_panoptic_ros.ros.node.camera_stream import ArrivedImage
from rt_panoptic_ros.ros.node.node_settings import NodeSettings
from rt_panoptic_ros.ros.node.panoptic_node import PanopticNode
from rt_panoptic_ros.ros.spinning import run_node
from rt_panoptic_ros.settings import PostprocessSettings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rt_panoptic_ros.records import DenseDetections
    from rt_panoptic_ros.ros.node.depth_input import DepthTurn

NODE_NAME, RELAY_NAME = "panoptic_node", "bare_relay"


@dataclass(frozen=True, slots=True)
class SubjectSettings:
    """What the benchmark tells a subject's process."""

    namespace: str  # ROS namespace of its topics
    log: str  # file for the `FrameLog`
    size: tuple[int, int]  # (height, width) of the camera's images, and of the network's input, px
    detections: int  # objects in every frame
    network_ms: float  # what the network would take


class FrameLog:
    """What became of each frame, a line each in a file: kept in memory, it would pass for a leak."""

    def __init__(self, path: str) -> None:
        """Begin the file; from then on, any thread may note."""
        self._file = Path(path).open("wb", buffering=0)  # noqa: SIM115 - open as long as the process

    def note(self, stamp_ns: int, stages_ms: Mapping[str, float] | None = None) -> None:
        """Note that a frame reached the callback, or, with what its stages took, that its outputs were published."""
        self._file.write(json.dumps([stamp_ns, stages_ms]).encode() + b"\n")


def read_log(path: Path) -> tuple[set[int], dict[int, dict[str, float]]]:
    """Return the stamps of the frames that came, and {stamp: stages in ms} of those that were answered."""
    notes = [json.loads(line) for line in path.read_bytes().splitlines()]
    # Those that were fetched at their turn did not pass the callback: only their answer tells that they came.
    return {stamp for stamp, _ in notes}, {stamp: stages_ms for stamp, stages_ms in notes if stages_ms is not None}


def spend_network_time(network_ms: float) -> None:
    """Let a network's time pass without using the CPU, as one on an accelerator does; this is no wait for anything.

    Nothing passes by default: a time that both subjects take alike draws their ratio towards 1, so the ratio is as
    strict as it can be without.
    """
    if network_ms > 0:
        time.sleep(network_ms / 1e3)


class StandInBackend(Backend):
    """Takes a network's time and gives a made-up street of Cityscapes' classes."""

    name = "stand-in"

    def __init__(
        self, subject: SubjectSettings, bundle: ModelBundle, network_size: tuple[int, int], device: str, precision: str,
        *, tf32: bool = False,
    ) -> None:  # fmt: skip
        """Make the scene, where a backend would be opened."""
        super().__init__(network_size, resolve_device(device), precision, tf32=tf32)
        self._network_ms = subject.network_ms
        self._scene = street_scene(
            network_size, subject.detections, classes=len(bundle.classes), thing_ids=bundle.classes.thing_ids,
            device=self.device,
        )  # fmt: skip

    def infer(self, image: np.ndarray) -> DenseDetections:  # noqa: ARG002 - it looks at nothing
        """Return the scene after the network's time."""
        spend_network_time(self._network_ms)
        return self._scene

    def close(self) -> None:
        """Free nothing."""


def stand_in_pipeline(
    subject: SubjectSettings, *, settings: Mapping[str, object], **arguments: Any
) -> PanopticPipeline:
    """Return a real pipeline at the camera's size whose network is a `StandInBackend`.

    Args:
        subject: Says the scene and the time.
        settings: Post-processing settings by name, over the defaults.
        arguments: `PanopticPipeline`'s other ones.
    """
    card = PostprocessSettings()
    bundle = ModelBundle(
        Path(), "stand-in", NetworkConfig(), load_class_table("cityscapes"), InputSpec(), card, weights_sha256=""
    )
    return PanopticPipeline(
        bundle,
        settings=card.replaced(settings),
        backend_opener=lambda _, *given, **tf32: StandInBackend(subject, *given, **tf32),
        **arguments,
    )


class MeasuredNode(PanopticNode):
    """The node as it is, with a stand-in network; it also notes what becomes of each frame."""

    def __init__(self, subject: SubjectSettings) -> None:
        """Make the node of a subject."""
        super().__init__(
            pipeline_factory=lambda _model, **arguments: stand_in_pipeline(subject, **arguments),
            namespace=subject.namespace,
        )
        self._log = FrameLog(subject.log)

    def _deliver(self, item: ArrivedImage | DepthTurn, only_replace: bool) -> bool:
        if isinstance(item, ArrivedImage):
            self._log.note(stamp_ns(item.msg.header))
        return super()._deliver(item, only_replace)

    def _note(self, image: ArrivedImage, stages_ms: Mapping[str, float]) -> None:
        """Enter a frame, with stages that add up to the time from its stamp to its publication."""
        super()._note(image, stages_ms)
        header = image.msg.header
        since_stamp, since_arrival = image.stream.age_ms(header), (time.monotonic() - image.arrival_s) * 1e3
        waits = {"receive": since_stamp - since_arrival, "hand_over": since_arrival - sum(stages_ms.values())}
        self._log.note(stamp_ns(header), {**waits, **stages_ms})


class BareRelay(Node):
    """The least that a Python node with these topics must do: take an image, send three messages made before."""

    def __init__(self, subject: SubjectSettings) -> None:
        """Make the messages, offer the topics and subscribe, with the panoptic node's quality of service."""
        super().__init__(RELAY_NAME, namespace=subject.namespace)
        defaults = NodeSettings()
        height, width = subject.size
        self._network_ms = subject.network_ms
        self._log = FrameLog(subject.log)
        objects = [
            PanopticDetection(
                instance_id=number, class_id=13, class_name="car", score=0.5, x_max=float(width), y_max=8.0,
                mask_box=RegionOfInterest(width=width, height=8), area=8 * width,
            )
            for number in range(1, subject.detections + 1)
        ]  # fmt: skip
        self._messages = {
            "semantic": image_to_msg(np.zeros(subject.size, np.uint8), "mono8", Header()),
            "instance": image_to_msg(np.zeros(subject.size, np.uint16), "mono16", Header()),
            "detections": PanopticDetectionArray(height=height, width=width, detections=objects),
        }
        profile = qos.stream(defaults.output_reliability)
        self._outputs = {
            topic: self.create_publisher(type(message), f"~/{topic}", profile)
            for topic, message in self._messages.items()
        }
        self.create_subscription(Image, "image", self._on_image, qos.newest(defaults.image_reliability))

    def start(self) -> None:
        """Nothing to begin: the subscription is made."""

    def finish(self) -> int:
        """Nothing to end."""
        return 0

    def _on_image(self, msg: Image) -> None:
        stamp = stamp_ns(msg.header)
        receive_ms = (self.get_clock().now().nanoseconds - stamp) / 1e6
        self._log.note(stamp)
        clock = StageClock()
        spend_network_time(self._network_ms)
        clock.end("network")
        for topic, message in self._messages.items():
            message.header = msg.header
            self._outputs[topic].publish(message)
        clock.end("publish")
        self._log.note(stamp, {"receive": receive_ms, **clock.stages_ms})


def run_subject(name: str, *settings: Any) -> int:
    """Run one of both as a process: the one of that name, by the values of its `SubjectSettings`."""
    subject = SubjectSettings(*settings)
    if name == NODE_NAME:
        return run_node(lambda _finished: MeasuredNode(subject))
    return run_node(lambda _finished: BareRelay(subject))
