"""What `rt-panoptic bench node` measures, each a process: the real node around a stand-in network, and a bare relay.

Both write down which frames came and how long the stages of each answer took.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rclpy.node import Node
from rclpy.time import Time
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
from rt_panoptic_ros.ros.node.node_settings import NodeSettings
from rt_panoptic_ros.ros.node.panoptic_node import PanopticNode
from rt_panoptic_ros.ros.spinning import run_node
from rt_panoptic_ros.settings import PostprocessSettings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rt_panoptic_ros.records import DenseDetections
    from rt_panoptic_ros.ros.node.camera_stream import ArrivedImage

NODE_NAME, RELAY_NAME = "panoptic_node", "bare_relay"

_CLASSES = "cityscapes"


@dataclass(frozen=True, slots=True)
class SubjectSettings:
    """What the benchmark tells a subject's process."""

    namespace: str  # ROS namespace of its topics
    size: tuple[int, int]  # (height, width) of the camera's images, and of the network's input, px
    detections: int  # objects in every frame
    network_ms: float  # what the network would take
    record: str  # file for the `FrameRecord`

    def to_word(self) -> str:
        """Return it as one word of a command line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_word(cls, word: str) -> SubjectSettings:
        """Return what `to_word` gave."""
        document = json.loads(word)
        return cls(**{**document, "size": tuple(document["size"])})


class FrameRecord:
    """What became of each frame, a line each in a file: kept in memory, it would pass for a leak."""

    def __init__(self, path: Path) -> None:
        """Begin the file; from then on, any thread may note."""
        self._file = path.open("wb")

    def arrive(self, stamp_ns: int) -> None:
        """Note that the frame of a stamp reached the callback."""
        self._write({"arrived_ns": stamp_ns})

    def answer(self, stamp_ns: int, stages_ms: Mapping[str, float]) -> None:
        """Note that the outputs of a frame were published, and how long its stages took."""
        self._write({"answered_ns": stamp_ns, "stages_ms": stages_ms})

    def close(self) -> None:
        """Finish the file."""
        self._file.close()

    def _write(self, document: Mapping[str, object]) -> None:
        self._file.write(json.dumps(document).encode() + b"\n")


def read_record(path: Path) -> tuple[set[int], dict[int, dict[str, float]]]:
    """Return the stamps of the frames that arrived, and {stamp: stages in ms} of those that were answered."""
    arrived: set[int] = set()
    stages_ms: dict[int, dict[str, float]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        document = json.loads(line)
        if "arrived_ns" in document:
            arrived.add(document["arrived_ns"])
        else:
            stages_ms[document["answered_ns"]] = document["stages_ms"]
    return arrived | stages_ms.keys(), stages_ms  # those that were fetched at their turn did not pass the callback


def take_networks_time(network_ms: float) -> None:
    """Let a network's time pass without using the CPU, as one on an accelerator does; this is no wait for anything.

    Nothing passes by default: a time that both subjects take alike draws their ratio towards 1, so the ratio is as
    strict as it can be without.
    """
    if network_ms > 0:
        time.sleep(network_ms / 1e3)


class StandInBackend(Backend):
    """Takes a network's time and gives a made-up street."""

    name = "stand-in"

    def __init__(  # gets a scene instead of loading an engine
        self, scene: DenseDetections, network_size: tuple[int, int], device: str, precision: str, network_ms: float
    ) -> None:
        self._scene, self._network_ms = scene, network_ms
        self.network_size, self.device, self.precision = network_size, device, precision

    def infer(self, image: np.ndarray) -> DenseDetections:  # noqa: ARG002 - it looks at nothing
        """Return the scene after the network's time."""
        take_networks_time(self._network_ms)
        return self._scene

    def close(self) -> None:
        """Free nothing."""


class MeasuredNode(PanopticNode):
    """The node as it is, with a stand-in network; it also notes what becomes of each frame."""

    def __init__(self, subject: SubjectSettings) -> None:
        """Make the node of a subject."""

        def open_pipeline(_model: str, **arguments: Any) -> PanopticPipeline:
            return stand_in_pipeline(subject, **arguments)

        super().__init__(pipeline_factory=open_pipeline, namespace=subject.namespace)
        self._record = FrameRecord(Path(subject.record))

    def finish(self) -> int:
        """Shut down and finish the record."""
        status = super().finish()
        self._record.close()
        return status

    def _deliver(self, image: ArrivedImage, only_replace: bool) -> bool:
        self._record.arrive(stamp_ns(image.msg.header))
        return super()._deliver(image, only_replace)

    def _note(self, image: ArrivedImage, stages_ms: Mapping[str, float]) -> None:
        """Enter a frame, with stages that add up to the time from its stamp to its publication."""
        super()._note(image, stages_ms)
        header = image.msg.header
        since_stamp, since_arrival = image.stream.age_ms(header), (time.monotonic() - image.arrival_s) * 1e3
        waits = {"receive": since_stamp - since_arrival, "hand_over": since_arrival - sum(stages_ms.values())}
        self._record.answer(stamp_ns(header), {**waits, **stages_ms})


class BareRelay(Node):
    """The least that a Python node with these topics must do: take an image, send three messages made before."""

    def __init__(self, subject: SubjectSettings) -> None:
        """Make the messages, offer the topics and subscribe, with the panoptic node's quality of service."""
        super().__init__(RELAY_NAME, namespace=subject.namespace)
        defaults = NodeSettings()
        height, width = subject.size
        self._network_ms = subject.network_ms
        self._record = FrameRecord(Path(subject.record))
        self._messages = {
            "semantic": image_to_msg(np.zeros(subject.size, np.uint8), "mono8", Header()),
            "instance": image_to_msg(np.zeros(subject.size, np.uint16), "mono16", Header()),
            "detections": PanopticDetectionArray(
                height=height, width=width, detections=[_detection(i + 1, width) for i in range(subject.detections)]
            ),
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
        """Finish the record."""
        self._record.close()
        return 0

    def _on_image(self, msg: Image) -> None:
        age = self.get_clock().now() - Time.from_msg(msg.header.stamp, clock_type=self.get_clock().clock_type)
        self._record.arrive(stamp_ns(msg.header))
        clock = StageClock()
        take_networks_time(self._network_ms)
        clock.end("network")
        for topic, message in self._messages.items():
            message.header = msg.header
            self._outputs[topic].publish(message)
        clock.end("publish")
        self._record.answer(stamp_ns(msg.header), {"receive": age.nanoseconds / 1e6, **clock.stages_ms})


def stand_in_pipeline(
    subject: SubjectSettings, *, settings: Mapping[str, object], **arguments: Any
) -> PanopticPipeline:
    """Return a real pipeline of Cityscapes' classes at the camera's size whose network is a `StandInBackend`.

    Args:
        subject: Says the scene and the time.
        settings: Post-processing settings by name, over the defaults.
        arguments: `PanopticPipeline`'s other ones.
    """
    classes = load_class_table(_CLASSES)
    card = PostprocessSettings()
    bundle = ModelBundle(
        path=Path(), name="stand-in", network=NetworkConfig(), classes=classes, input=InputSpec(), settings=card,
        weights_sha256="", about={},
    )  # fmt: skip

    def open_stand_in(
        _name: str, _bundle: ModelBundle, size: tuple[int, int], device: str, precision: str
    ) -> StandInBackend:
        where = resolve_device(device)
        scene = street_scene(size, subject.detections, classes=len(classes), thing_ids=classes.thing_ids, device=where)
        return StandInBackend(scene, size, where, precision, subject.network_ms)

    return PanopticPipeline(bundle, settings=card.replaced(settings), backend_opener=open_stand_in, **arguments)


def _detection(instance_id: int, width: int) -> PanopticDetection:
    return PanopticDetection(
        instance_id=instance_id, class_id=13, class_name="car", score=0.5, x_max=float(width), y_max=8.0,
        mask_box=RegionOfInterest(width=width, height=8), area=8 * width,
    )  # fmt: skip


def run_measured_node() -> int:
    """Run the node as a process, by the settings in the first word of its command line."""
    subject = SubjectSettings.from_word(sys.argv[1])
    return run_node(lambda _finished: MeasuredNode(subject))


def run_bare_relay() -> int:
    """Run the relay as a process, by the settings in the first word of its command line."""
    subject = SubjectSettings.from_word(sys.argv[1])
    return run_node(lambda _finished: BareRelay(subject))
