# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Looks at a running graph for a bounded time: what nodes, services and topics tell, and what arrives here."""

from __future__ import annotations

import os
import time
from collections import defaultdict, deque
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.srv import GetState
from rcl_interfaces.msg import Log
from rcl_interfaces.srv import GetParameters
from rclpy.executors import SingleThreadedExecutor
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.node import NodeNameNonExistentError
from rclpy.parameter import Parameter, parameter_value_to_python
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.utilities import get_rmw_implementation_identifier
from sensor_msgs.msg import CompressedImage, Image
from tqdm import tqdm

from rt_panoptic_ros.errors import InvalidInputError, first_line
from rt_panoptic_ros.frames.outputs import OUTPUTS
from rt_panoptic_ros.ros.conversions import output_classes
from rt_panoptic_ros.ros.doctor.graph import CameraSeen, GraphSeen, ImagesSeen, NodeSeen, OutputSeen, Status
from rt_panoptic_ros.ros.doctor.listening import ImageListener, OutputListener
from rt_panoptic_ros.ros.endpoints import COMPRESSED, IMAGE, Endpoint, is_name
from rt_panoptic_ros.ros.logs import find_log_directory
from rt_panoptic_ros.ros.node.diagnostics import OUTPUT_TOPIC
from rt_panoptic_ros.ros.node.node_settings import NodeSettings, Periods
from rt_panoptic_ros.settings import settings_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from rclpy.node import Node

_ENVIRONMENT = ("ROS_DOMAIN_ID", "ROS_AUTOMATIC_DISCOVERY_RANGE")  # told in any case, and if set:
_ENVIRONMENT_IF_SET = ("ROS_LOCALHOST_ONLY", "ROS_STATIC_PEERS", "ROS_DISCOVERY_SERVER", "RMW_IMPLEMENTATION")
_OWN_NAME = "panoptic_doctor_"  # and a number: several may look at once, and none counts as a listener
_OVERLAP = 0.75  # of their period: reports that come more often than this are of two nodes
_SPIN_S = 0.1
_WARN = 30  # level of rcl_interfaces/msg/Log
_MARK = "/reset_tracking"  # a service that only a panoptic node has
_REPORT = "diagnostic_msgs/msg/DiagnosticArray"
_OF_IMAGES_ALONE = frozenset(name for name, output in OUTPUTS.items() if not output.inputs)
_DETECTIONS = OUTPUTS["detections"].type
_MESSAGES = {IMAGE: Image, COMPRESSED: CompressedImage, _DETECTIONS: output_classes(["detections"])["detections"]}
_COST = {"confidence": 1, "overlay": 2}  # of making an output that nobody has asked for yet
_PARAMETERS = [*(one.name for one in settings_of(NodeSettings)), "use_sim_time"]


@dataclass(frozen=True)
class Waits:
    """How long the doctor waits for a graph to tell of itself, in seconds."""

    discovery_s: float = 10.0  # after which there is no node: Fast DDS may miss a new process's first announcements
    settle_s: float = 3.2  # in which further nodes may be discovered: its participants announce themselves every 3 s
    answer_s: float = 5.0  # after which a node that does not answer is busy or gone
    last_report_s: float = 3.0  # in which the reports, at 1 Hz, are waited for that cover all the time of listening


def examine(seconds: float, wanted: str = "", ros_arguments: Sequence[str] = (), waits: Waits = Waits()) -> GraphSeen:
    """Look at the graph of this terminal.

    Args:
        seconds: How long images and outputs are listened to.
        wanted: Name of the only panoptic node to look at, in full or its last part; empty for all.
        ros_arguments: What ROS is told on the command line, from --ros-args on.
        waits: For a graph that is known to be quick, shorter ones.

    Raises:
        InvalidInputError: `ros_arguments` are none.
    """
    find_log_directory()
    context = rclpy.Context()
    try:
        rclpy.init(args=list(ros_arguments), context=context)
    except rclpy_implementation.RCLError as error:
        raise InvalidInputError(
            f"expected valid arguments after --ros-args, got some that are not: {first_line(error)}"
        ) from None
    with ExitStack() as stack:
        stack.callback(rclpy.shutdown, context=context)
        node = rclpy.create_node(
            f"{_OWN_NAME}{os.getpid()}",
            context=context,
            enable_rosout=False,
            start_parameter_services=False,
            # Its name would hold the number, and no security policy could name it.
            parameter_overrides=[Parameter("start_type_description_service", value=False)],
        )
        stack.callback(node.destroy_node)
        executor = SingleThreadedExecutor(context=context)
        stack.callback(executor.shutdown)
        executor.add_node(node)
        return _Examination(node, executor, wanted, waits).run(seconds)


class _Question:
    """Asks a service once, as soon as it is there."""

    def __init__(self, node: Node, kind: Any, service: str, request: Any) -> None:
        self._client = node.create_client(kind, service)
        self._request = request
        self._future: Any = None

    def answer(self) -> Any:
        """Return the answer, None until it is there."""
        if self._future is None and self._client.service_is_ready():
            self._future = self._client.call_async(self._request)
        return self._future.result() if self._future is not None and self._future.done() else None


class _Told:
    """What a node has told; of any node, as some prove to be panoptic ones later."""

    def __init__(self) -> None:
        self.reports: dict[str, Status] = {}  # the latest, by part: panoptic, camera or camera NAME
        self.before: dict[str, Status] = {}  # those from before listening began
        self.times_s: list[float] = []  # when it reported
        self.log: deque[str] = deque(maxlen=5)
        self.questions: tuple[_Question, ...] = ()  # for its state and its parameters

    def answers(self) -> tuple[Any, Any]:
        """Return the answers to the questions for state and parameters, None until they are there."""
        state, parameters = [question.answer() for question in self.questions] or (None, None)
        return state, parameters

    @property
    def reports_overlap(self) -> bool:
        """Whether reports come so often that they are of more than one node."""
        times_s = self.times_s
        return len(times_s) > 3 and (times_s[-1] - times_s[0]) / (len(times_s) - 1) < _OVERLAP * Periods.diagnostics_s


class _Examination:
    """The doctor's node, its questions, and what they brought."""

    def __init__(self, node: Node, executor: SingleThreadedExecutor, wanted: str, waits: Waits) -> None:
        self._node, self._executor, self._wanted, self._waits = node, executor, wanted, waits
        self._told: dict[str, _Told] = defaultdict(_Told)  # by full name
        self._listeners: dict[str, OutputListener] = {}  # by topic
        self._report_topics: set[str] = set()
        self._read_reports("/diagnostics")
        # What was said before is wanted too, as far as the publishers keep it.
        kept = QoSProfile(
            depth=100, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL
        )
        node.create_subscription(Log, "/rosout", self._on_log, kept)

    def run(self, seconds: float) -> GraphSeen:
        """Find the nodes, listen, and return all that was seen."""
        begin_s = time.monotonic()
        self._spin(self._waits.discovery_s, "looking for panoptic nodes", lambda: bool(self._found()))

        def settled() -> bool:
            answered = [self._answered(name) for name in self._found()]
            return all(answered) and _since(begin_s) > self._waits.settle_s

        self._spin(self._waits.answer_s, "asking them", settled)
        names = self._found()
        for told in self._told.values():
            told.before = dict(told.reports)
        active = [node for node in map(self._seen, names) if node.state == "active"]
        starts_s = {node.name: self._told[node.name].times_s[-1:] for node in active}
        for node in active:
            self._listen(node)
        if active:
            begin_s = time.monotonic()
            until_s = begin_s + seconds
            self._spin(
                seconds + self._waits.last_report_s,
                f"listening to {', '.join(self._listeners) or '/diagnostics'}",
                lambda: all(max(self._told[node.name].times_s, default=0.0) > until_s for node in active),
            )
        # The counts are those between two reports.
        spans_s = [self._told[name].times_s[-1] - start_s for name, times_s in starts_s.items() for start_s in times_s]
        return self._graph(names, max(spans_s, default=_since(begin_s)))

    def _spin(self, limit_s: float, words: str, enough: Callable[[], bool]) -> None:
        begin_s = time.monotonic()
        form = "{desc}: {n:.0f} of at most {total:.0f} s"
        with tqdm(total=limit_s, desc=words, leave=False, bar_format=form, disable=None) as bar:
            while (passed_s := _since(begin_s)) < limit_s and not enough():
                self._executor.spin_once(timeout_sec=_SPIN_S)
                bar.update(passed_s - bar.n)

    # What is told --------------------------------------------------------------------------------------------------

    def _read_reports(self, topic: str) -> None:
        if topic not in self._report_topics:
            self._report_topics.add(topic)
            self._node.create_subscription(DiagnosticArray, topic, self._on_diagnostics, 50)

    def _find_reports(self, name: str) -> None:
        """Listen to a node's reports where it sends them: the topic may be remapped."""
        space, _, own_name = name.rpartition("/")
        try:
            topics = self._node.get_publisher_names_and_types_by_node(own_name, space or "/")
        except NodeNameNonExistentError:  # it is not known yet, or no longer
            return
        for topic, kinds in topics:
            if _REPORT in kinds:
                self._read_reports(topic)

    def _on_diagnostics(self, array: DiagnosticArray) -> None:
        for status in array.status:
            node, found, part = status.name.rpartition(": ")
            values = {item.key: item.value for item in status.values}
            if found and is_name(f"/{node}") and _is_fit(part, values):
                told = self._told[f"/{node}"]
                told.reports[part] = Status(int.from_bytes(status.level, "little"), status.message, values)
                if part == "panoptic":
                    told.times_s.append(time.monotonic())

    def _on_log(self, log: Log) -> None:
        if log.level >= _WARN:
            self._told["/" + log.name.replace(".", "/")].log.append(log.msg)

    def _panoptic_nodes(self) -> list[str]:
        """Return the panoptic nodes' full names, by what they serve and what they tell."""
        services = {name for name, _ in self._node.get_service_names_and_types()}
        serving = {name.removesuffix(_MARK) for name in services if name.endswith(_MARK)}
        telling = {name for name, told in self._told.items() if "panoptic" in told.reports}
        return sorted({name for name in serving if f"{name}/get_state" in services} | telling)

    def _found(self) -> list[str]:
        """Return those that are looked for."""
        return [name for name in self._panoptic_nodes() if self._wanted in ("", name, name.rpartition("/")[2])]

    def _answered(self, name: str) -> bool:
        """Return whether a node has told all it is asked for; ask it when it is new."""
        told = self._told[name]
        if not told.questions:
            parameters = GetParameters.Request(names=_PARAMETERS)
            told.questions = (
                _Question(self._node, GetState, f"{name}/get_state", GetState.Request()),
                _Question(self._node, GetParameters, f"{name}/get_parameters", parameters),
            )
        if "panoptic" not in told.reports:
            self._find_reports(name)
        return None not in told.answers() and "panoptic" in told.reports

    # What is connected, and what arrives ---------------------------------------------------------------------------

    def _listen(self, node: NodeSeen) -> None:
        """Subscribe to a node's cameras, and to some outputs, so that a lazy node works."""
        for camera in node.cameras:
            if any(publisher.kind == node.expects for publisher in camera.publishers):
                self._add_listener(ImageListener, node.expects, camera.topic)
            # The small detections, and an image if there is one: preferably what others listen to as well.
            outputs = sorted(camera.outputs, key=lambda output: (not output.subscribers, _COST.get(output.name, 0)))
            for kind in (_DETECTIONS, IMAGE):
                fit = [
                    output
                    for output in outputs
                    if output.publisher.kind == kind and output.name in node.enabled & _OF_IMAGES_ALONE
                ]
                if fit:
                    self._add_listener(OutputListener, kind, fit[0].topic)

    def _add_listener(self, listener: type[OutputListener], kind: str, topic: str) -> None:
        if topic not in self._listeners:  # cameras may be shared
            self._listeners[topic] = listener(self._node, _MESSAGES[kind], topic)

    def _seen(self, name: str) -> NodeSeen:
        """Return a node, as far as it has told of itself and the graph shows it."""
        told = self._told[name]
        state, parameters = told.answers()
        values = [] if parameters is None else [parameter_value_to_python(value) for value in parameters.values]
        report = told.reports.get("panoptic", Status())
        return NodeSeen(
            name,
            state=str(state.current_state.label) if state else report.values.get("state", ""),
            parameters=dict(zip(_PARAMETERS, values, strict=True)) if len(values) == len(_PARAMETERS) else {},
            status=report,
            cameras=tuple(self._camera(name, part) for part in told.reports if part != "panoptic"),
            namesakes=max(self._everyone().count(name) - 1, 0),
            reports_overlap=told.reports_overlap,
            log=tuple(told.log),
        )

    def _camera(self, name: str, part: str) -> CameraSeen:
        """Return the camera that a part of a node's reports is about.

        Which topics are its own the node alone knows, as they may be remapped: it names them in its report. Who is on
        them the graph alone knows: the node's own endpoint is the one of its name. Of two nodes of that name, which is
        a fault of its own, it is the first; and an output that no such endpoint publishes is not there (any more).
        """
        told = self._told[name]
        report = told.reports[part]
        topic = report.values.get("topic", "")
        places = {key.removesuffix(OUTPUT_TOPIC): at for key, at in report.values.items() if key.endswith(OUTPUT_TOPIC)}
        outputs = []
        for output, place in places.items():
            own = [publisher for publisher in self._publishers(place) if publisher.node == name]
            listener = self._listeners.get(place)
            counts = (None, 0) if listener is None else (listener.received, listener.lost)
            if own:
                outputs.append(OutputSeen(output, place, own[0], tuple(self._subscriptions(place)), *counts))
        images = self._listeners.get(topic)
        return CameraSeen(
            name=part.removeprefix("camera").strip(),
            topic=topic,
            publishers=tuple(self._publishers(topic)),
            subscription=next((one for one in self._subscriptions(topic) if one.node == name), None),
            images=images.seen() if isinstance(images, ImageListener) else ImagesSeen(),
            outputs=tuple(outputs),
            before=told.before.get(part, Status()),
            after=report,
        )

    def _publishers(self, topic: str) -> list[Endpoint]:
        return [Endpoint.of(info) for info in self._node.get_publishers_info_by_topic(topic)]

    def _subscriptions(self, topic: str) -> list[Endpoint]:
        """Return the subscriptions of all but doctors."""
        endpoints = map(Endpoint.of, self._node.get_subscriptions_info_by_topic(topic))
        return [endpoint for endpoint in endpoints if not _is_doctor(endpoint.node)]

    def _everyone(self) -> list[str]:
        return [f"{space.rstrip('/')}/{name}" for name, space in self._node.get_node_names_and_namespaces()]

    def _graph(self, names: list[str], seconds: float) -> GraphSeen:
        """Put together what was seen."""
        panoptic = self._panoptic_nodes()
        image_topics = {
            topic: kind
            for topic, kinds in self._node.get_topic_names_and_types()
            for kind in (IMAGE, COMPRESSED)
            if kind in kinds
            and any(publisher.kind == kind and publisher.node not in panoptic for publisher in self._publishers(topic))
        }
        named = [*_ENVIRONMENT, *(name for name in _ENVIRONMENT_IF_SET if name in os.environ)]
        return GraphSeen(
            nodes=tuple(map(self._seen, names)),
            wanted=self._wanted,
            others=tuple(sorted(name for name in set(self._everyone()) - set(names) if not _is_doctor(name))),
            image_topics=image_topics,
            clock_publishers=self._node.count_publishers("/clock"),
            rmw=get_rmw_implementation_identifier(),
            environment={name: os.environ.get(name) for name in named},
            seconds=seconds,
        )


def _is_fit(part: str, values: Mapping[str, str]) -> bool:
    """Return whether a part of a report can be a node's: anybody may report, and users run what is made of it."""
    is_camera = part == "camera" or part.startswith("camera ")
    topics = [values.get("topic", "")] if is_camera else []
    topics += [value for key, value in values.items() if key.endswith(OUTPUT_TOPIC)]
    return (is_camera or part == "panoptic") and all(map(is_name, topics))


def _is_doctor(name: str) -> bool:
    return name.rpartition("/")[2].startswith(_OWN_NAME)


def _since(begin_s: float) -> float:
    return time.monotonic() - begin_s
