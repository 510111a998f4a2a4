"""Looks at a running graph for a bounded time: what nodes, services and topics tell, and what arrives here."""

from __future__ import annotations

import os
import time
from collections import defaultdict, deque
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.srv import GetState
from rcl_interfaces.msg import Log
from rcl_interfaces.srv import GetParameters
from rclpy.executors import SingleThreadedExecutor
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.node import NodeNameNonExistentError
from rclpy.parameter import parameter_value_to_python
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.utilities import get_rmw_implementation_identifier
from sensor_msgs.msg import CompressedImage, Image
from tqdm import tqdm

from rt_panoptic_ros.errors import InvalidInputError, first_line
from rt_panoptic_ros.msg import PanopticDetectionArray
from rt_panoptic_ros.ros.doctor.listening import ImageListener, OutputListener
from rt_panoptic_ros.ros.doctor.records import (
    CameraSeen,
    GraphSeen,
    ImagesSeen,
    NodeSeen,
    OutputSeen,
    Status,
)
from rt_panoptic_ros.ros.endpoints import COMPRESSED, IMAGE, Endpoint
from rt_panoptic_ros.ros.logs import find_log_directory
from rt_panoptic_ros.ros.node.diagnostics import OUTPUT_TOPIC
from rt_panoptic_ros.ros.node.node_settings import NodeSettings, Periods, parse_outputs
from rt_panoptic_ros.settings import settings_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from rclpy.node import Node

    _Listener = ImageListener | OutputListener
    _Reports = dict[tuple[str, str], Status]  # by node and part: panoptic, camera or camera NAME

_ENVIRONMENT = ("ROS_DOMAIN_ID", "ROS_AUTOMATIC_DISCOVERY_RANGE")
_ENVIRONMENT_IF_SET = ("ROS_LOCALHOST_ONLY", "ROS_STATIC_PEERS", "ROS_DISCOVERY_SERVER", "RMW_IMPLEMENTATION")
_OWN_NAME = "panoptic_doctor_"  # and a number: several may look at once, and none counts as a listener
_DISCOVERY_S = 10.0  # after which there is no node: Fast DDS may miss a new process's first announcements
_SETTLE_S = 3.2  # in which further nodes may be discovered: its participants announce themselves every 3 s
_ANSWER_S = 5.0  # after which a node that does not answer is busy or gone
_LAST_WORDS_S = 3.0  # in which the reports, at 1 Hz, are waited for that cover all the time of listening
_OVERLAP = 0.75  # of their period: reports that come more often than this are of two nodes
_SPIN_S = 0.1
_WARN = 30  # level of rcl_interfaces/msg/Log
_MARK = "/reset_tracking"  # a service that only a panoptic node has
_REPORT = "diagnostic_msgs/msg/DiagnosticArray"
_OUTPUT_KINDS = {"rt_panoptic_ros/msg/PanopticDetectionArray": PanopticDetectionArray, IMAGE: Image}
_COST = {"confidence": 1, "overlay": 2}  # of making an output that nobody has asked for yet
_PARAMETERS = [*(one.name for one in settings_of(NodeSettings)), "use_sim_time"]


def examine(seconds: float, wanted: str = "", ros_arguments: Sequence[str] = ()) -> GraphSeen:
    """Look at the graph of this terminal.

    Args:
        seconds: How long images and outputs are listened to.
        wanted: Name of the only panoptic node to look at, in full or its last part; empty for all.
        ros_arguments: What ROS is told on the command line, from --ros-args on.

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
    try:
        node = rclpy.create_node(
            f"{_OWN_NAME}{os.getpid()}", context=context, enable_rosout=False, start_parameter_services=False
        )
        executor = SingleThreadedExecutor(context=context)
        executor.add_node(node)
        try:
            return _Examination(node, executor, wanted).run(seconds)
        finally:
            executor.shutdown()
            node.destroy_node()
    finally:
        rclpy.shutdown(context=context)


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


class _Examination:
    """The doctor's node, its questions, and what they brought."""

    def __init__(self, node: Node, executor: SingleThreadedExecutor, wanted: str) -> None:
        self._node, self._executor, self._wanted = node, executor, wanted
        self._names: list[str] = []  # of the nodes that are looked at
        self._reports: _Reports = {}  # the latest
        self._reported_s: dict[str, list[float]] = defaultdict(list)  # when, by node
        self._log: dict[str, deque[str]] = defaultdict(lambda: deque(maxlen=5))
        self._states: dict[str, _Question] = {}
        self._parameters: dict[str, _Question] = {}
        self._report_topics: set[str] = set()
        self._hear_reports("/diagnostics")
        # What was said before is wanted too, as far as the publishers keep it.
        kept = QoSProfile(
            depth=100, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL
        )
        node.create_subscription(Log, "/rosout", self._on_log, kept)

    def run(self, seconds: float) -> GraphSeen:
        """Find the nodes, listen, and return all that was seen."""
        begin_s = time.monotonic()
        self._spin(_DISCOVERY_S, "looking for panoptic nodes", lambda: bool(self._found()))

        def settled() -> bool:
            answered = [self._answered(name) for name in self._found()]
            return all(answered) and _since(begin_s) > _SETTLE_S

        self._spin(_ANSWER_S, "asking them", settled)
        self._names = self._found()
        before = dict(self._reports)
        before_s = {name: times_s[-1] for name, times_s in self._reported_s.items()}
        cameras = {name: self._cameras(name, before) for name in self._names if self._state(name) == "active"}
        listeners: dict[str, _Listener] = {}
        for name, seen in cameras.items():
            for topic, listen in self._to_hear(name, seen):
                if topic not in listeners:  # cameras may be shared
                    listeners[topic] = listen()
        if cameras:
            begin_s = time.monotonic()
            until_s = time.monotonic() + seconds
            self._spin(
                seconds + _LAST_WORDS_S,
                f"listening to {', '.join(listeners) or '/diagnostics'}",
                lambda: all(max(self._reported_s[name], default=0.0) > until_s for name in cameras),
            )
        # The counts are those between two reports.
        spans_s = [self._reported_s[name][-1] - before_s[name] for name in cameras if name in before_s]
        return self._seen(before, listeners, max(spans_s, default=_since(begin_s)))

    def _spin(self, limit_s: float, words: str, enough: Callable[[], bool]) -> None:
        begin_s = time.monotonic()
        form = "{desc}: {n:.0f} of at most {total:.0f} s"
        with tqdm(total=limit_s, desc=words, leave=False, bar_format=form, disable=None) as bar:
            while (passed_s := _since(begin_s)) < limit_s and not enough():
                self._executor.spin_once(timeout_sec=_SPIN_S)
                bar.update(passed_s - bar.n)

    # What is told --------------------------------------------------------------------------------------------------

    def _hear_reports(self, topic: str) -> None:
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
                self._hear_reports(topic)

    def _on_diagnostics(self, array: DiagnosticArray) -> None:
        for status in array.status:
            node, found, part = status.name.rpartition(": ")
            if found and (part in ("panoptic", "camera") or part.startswith("camera ")):
                level = int.from_bytes(status.level, "little")
                values = {item.key: item.value for item in status.values}
                self._reports[f"/{node}", part] = Status(level, status.message, values)
                if part == "panoptic":
                    self._reported_s[f"/{node}"].append(time.monotonic())

    def _on_log(self, log: Log) -> None:
        if log.level >= _WARN:
            self._log[log.name].append(log.msg)

    def _found(self, *, all_of_them: bool = False) -> list[str]:
        """Return the panoptic nodes' full names, by what they serve and what they tell."""
        services = {name for name, _ in self._node.get_service_names_and_types()}
        serving = {name.removesuffix(_MARK) for name in services if name.endswith(_MARK)}
        telling = {node for node, part in self._reports if part == "panoptic"}
        names = sorted({name for name in serving if f"{name}/get_state" in services} | telling)
        return [name for name in names if all_of_them or self._wanted in ("", name, name.rpartition("/")[2])]

    def _answered(self, name: str) -> bool:
        """Return whether a node has told all it is asked for; ask it when it is new."""
        if name not in self._states:
            self._states[name] = _Question(self._node, GetState, f"{name}/get_state", GetState.Request())
            request = GetParameters.Request(names=_PARAMETERS)
            self._parameters[name] = _Question(self._node, GetParameters, f"{name}/get_parameters", request)
        if (name, "panoptic") not in self._reports:
            self._find_reports(name)
        told = self._states[name].answer() is not None and self._parameters[name].answer() is not None
        return told and (name, "panoptic") in self._reports

    def _state(self, name: str) -> str:
        answer = self._states[name].answer() if name in self._states else None
        report = self._reports.get((name, "panoptic"))
        return str(answer.current_state.label) if answer else report.values.get("state", "") if report else ""

    def _settings(self, name: str) -> dict[str, Any]:
        answer = self._parameters[name].answer() if name in self._parameters else None
        values = [] if answer is None else [parameter_value_to_python(value) for value in answer.values]
        return dict(zip(_PARAMETERS, values, strict=True)) if len(values) == len(_PARAMETERS) else {}

    def _reports_overlap(self, name: str) -> bool:
        """Return whether reports of a name come so often that they are of more than one node."""
        times_s = self._reported_s[name]
        return len(times_s) > 3 and (times_s[-1] - times_s[0]) / (len(times_s) - 1) < _OVERLAP * Periods.diagnostics_s

    # What is connected ---------------------------------------------------------------------------------------------

    def _cameras(self, name: str, before: _Reports) -> list[CameraSeen]:
        """Return a node's cameras, as far as the graph shows them."""
        reports = {
            part: status for (node, part), status in self._reports.items() if node == name and part != "panoptic"
        }
        cameras = []
        for part, after in reports.items():
            camera = part.removeprefix("camera").strip()
            places = {
                key.removesuffix(OUTPUT_TOPIC): place
                for key, place in after.values.items()
                if key.endswith(OUTPUT_TOPIC)
            }
            topic = after.values.get("topic", "")
            subscriptions = [endpoint for endpoint in self._subscriptions(topic) if endpoint.node == name]
            cameras.append(
                CameraSeen(
                    name=camera,
                    topic=topic,
                    publishers=tuple(self._publishers(topic)),
                    subscription=subscriptions[0] if subscriptions else None,
                    outputs=tuple(
                        OutputSeen(output, place, publisher, tuple(self._subscriptions(place)))
                        for output, place in places.items()
                        for publisher in [own for own in self._publishers(place) if own.node == name][:1]
                    ),
                    before=before.get((name, part)),
                    after=after,
                )
            )
        return cameras

    def _publishers(self, topic: str) -> list[Endpoint]:
        return [Endpoint.of(info) for info in self._node.get_publishers_info_by_topic(topic)]

    def _subscriptions(self, topic: str) -> list[Endpoint]:
        """Return the subscriptions of all but doctors."""
        endpoints = map(Endpoint.of, self._node.get_subscriptions_info_by_topic(topic))
        return [endpoint for endpoint in endpoints if not _is_doctor(endpoint.node)]

    # What arrives --------------------------------------------------------------------------------------------------

    def _to_hear(self, name: str, cameras: Sequence[CameraSeen]) -> Iterator[tuple[str, Callable[[], _Listener]]]:
        """Yield topics and what subscribes to them: a node's cameras, and some outputs, so that a lazy node works."""
        node = NodeSeen(name, parameters=self._settings(name))
        kind, message = (COMPRESSED, CompressedImage) if node.takes_compressed else (IMAGE, Image)
        enabled = parse_outputs(node.setting("enabled_outputs"))
        for camera in cameras:
            if any(publisher.kind == kind for publisher in camera.publishers):
                yield camera.topic, partial(ImageListener, self._node, message, camera.topic)
            # The small detections, and an image if there is one: preferably what others listen to as well.
            outputs = sorted(camera.outputs, key=lambda output: (not output.subscribers, _COST.get(output.name, 0)))
            for wanted, output_message in _OUTPUT_KINDS.items():
                fit = [o for o in outputs if o.publisher.kind == wanted and o.name in enabled]
                if fit:
                    yield fit[0].topic, partial(OutputListener, self._node, output_message, fit[0].topic)

    def _seen(self, before: _Reports, listeners: Mapping[str, _Listener], seconds: float) -> GraphSeen:
        """Put together what was seen."""
        everyone = [f"{space.rstrip('/')}/{name}" for name, space in self._node.get_node_names_and_namespaces()]
        nodes = []
        for name in self._names:
            cameras = []
            for camera in self._cameras(name, before):
                images = listeners.get(camera.topic)
                heard = [(output, listeners.get(output.topic)) for output in camera.outputs]
                outputs = [
                    output if listener is None else replace(output, received=listener.received, lost=listener.lost)
                    for output, listener in heard
                ]
                seen = images.seen() if isinstance(images, ImageListener) else ImagesSeen()
                cameras.append(replace(camera, images=seen, outputs=tuple(outputs)))
            nodes.append(
                NodeSeen(
                    name, self._state(name), self._settings(name), self._reports.get((name, "panoptic")),
                    tuple(cameras), max(everyone.count(name) - 1, 0), self._reports_overlap(name),
                    tuple(self._log[name.strip("/").replace("/", ".")]),
                )
            )  # fmt: skip
        panoptic = set(self._found(all_of_them=True))
        others = set(everyone) - {node.name for node in nodes}
        image_topics = {
            topic: kind
            for topic, kinds in self._node.get_topic_names_and_types()
            for kind in (IMAGE, COMPRESSED)
            if kind in kinds
            and any(publisher.kind == kind and publisher.node not in panoptic for publisher in self._publishers(topic))
        }
        environment: dict[str, str | None] = {name: os.environ.get(name) for name in _ENVIRONMENT}
        environment |= {name: os.environ[name] for name in _ENVIRONMENT_IF_SET if name in os.environ}
        return GraphSeen(
            nodes=tuple(nodes),
            wanted=self._wanted,
            others=tuple(sorted(name for name in others if not _is_doctor(name))),
            image_topics=image_topics,
            clock_publishers=self._node.count_publishers("/clock"),
            rmw=get_rmw_implementation_identifier(),
            environment=environment,
            seconds=seconds,
        )


def _is_doctor(name: str) -> bool:
    return name.rpartition("/")[2].startswith(_OWN_NAME)


def _since(begin_s: float) -> float:
    return time.monotonic() - begin_s
