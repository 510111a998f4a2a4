# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The node's surroundings in a soak: its cameras, a listener to each, visiting listeners, who asks its services."""

from __future__ import annotations

import time
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.srv import SetParametersAtomically
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from sensor_msgs.msg import Image
from std_srvs.srv import SetBool, Trigger

from rt_panoptic_ros.frames.message_layout import stamp_ns
from rt_panoptic_ros.ros import qos
from rt_panoptic_ros.ros.conversions import output_classes
from rt_panoptic_ros.ros.soak.cameras import Participant

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from rt_panoptic_ros.ros.processes import Process
    from rt_panoptic_ros.ros.soak.cameras import SoakCamera
    from rt_panoptic_ros.ros.soak.record import Record

    Script = Generator[float, None, None]
    """What is done beside playing cameras; it gives for how many seconds it is to be left alone, again and again."""

TICK_S = 0.01
_ANSWER_S = 120.0  # for a request, which was lost if it takes longer: a model is loaded in less on a busy machine too
_GIVE_UP_S = 10.0  # for labels after a fault
_OUTPUTS = output_classes()
_TRANSITIONS = {
    "configure": (Transition.TRANSITION_CONFIGURE, "inactive"),
    "activate": (Transition.TRANSITION_ACTIVATE, "active"),
    "deactivate": (Transition.TRANSITION_DEACTIVATE, "inactive"),
    "cleanup": (Transition.TRANSITION_CLEANUP, "unconfigured"),
}
"""{transition: its number, the state behind it}"""


class SoakGraph:
    """Plays the cameras and hears what comes of them while a script disturbs it all; one thread does everything.

    Attributes:
        calm: Whether nothing disturbs the node now.
        hindrance: What last kept frames from being labelled, for messages.
    """

    def __init__(
        self, process: Process, prefix: str, cameras: Sequence[SoakCamera], record: Record, log: Callable[[str], None]
    ) -> None:
        """Join the graph.

        Args:
            process: The node's.
            prefix: Its fully qualified name.
            cameras: Those that it has.
            record: What is seen is entered there.
            log: Is told of every event.
        """
        self.cameras, self.record, self.log, self.prefix = cameras, record, log, prefix
        self.calm, self.hindrance = False, "the start"
        self.active = self.enabled = self.published = False  # what frames need besides, as far as asked for
        self.ages_ms: list[float] = []  # of what was answered since they were taken
        self.python_blocks = 0
        self._process = process
        self._owed_s: dict[str, float] = {}  # by camera that can be labelled but was not yet, since when
        self._calm_ns = 0  # since when it is calm
        self._context = Context()
        rclpy.init(args=[], context=self._context)
        self._node = rclpy.create_node("soak", context=self._context, start_parameter_services=False)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        client = self._node.create_client
        self._change = client(ChangeState, f"{prefix}/change_state")
        self._state = client(GetState, f"{prefix}/get_state")
        self._set = client(SetParametersAtomically, f"{prefix}/set_parameters_atomically")
        self._enable, self._reset = client(SetBool, f"{prefix}/enable"), client(Trigger, f"{prefix}/reset_tracking")
        self._node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, qos.diagnostics())
        self._listeners: list[Any] = []
        self._resident = Participant("resident")

    def close(self) -> None:
        """Leave the graph."""
        for camera in self.cameras:
            camera.leave()
        self._resident.close()
        self._executor.shutdown()
        self._node.destroy_node()
        rclpy.shutdown(context=self._context)

    # Time -------------------------------------------------------------------------------------------------------------

    def play(self, script: Script, every_second: Callable[[], None]) -> None:
        """Play until the script ends.

        Raises:
            UnavailableError: The node's process ended.
        """
        sample_s = time.monotonic() + 1.0
        for pause_s in script:
            wake_s = time.monotonic() + pause_s
            while (now_s := time.monotonic()) < wake_s:
                for camera in self.cameras:
                    camera.play(now_s)
                if now_s >= sample_s:
                    self._process.check_running()
                    every_second()
                    sample_s += 1.0
                self._watch(now_s)
                due_s = min(sample_s, wake_s, *(camera.due_s for camera in self.cameras))
                self._executor.spin_once(timeout_sec=min(max(due_s - time.monotonic(), 0.0), TICK_S))

    def _watch(self, now_s: float) -> None:
        """Keep since when each camera's frames ought to be labelled; what takes for ever counts as a long time."""
        ready = self.active and self.enabled and self.published and bool(self._listeners)
        for camera in self.cameras:
            if (discovery_s := camera.discovery_s(wanted=ready)) is not None:
                self.log(f"{camera.name} and the node found each other after {discovery_s:.2f} s")
                self.record.discoveries_s.append(discovery_s)
            if not (ready and camera.sends_whole):
                self._owed_s[camera.name] = -1.0  # not yet
            elif self._owed_s.get(camera.name) == -1.0:
                self._owed_s[camera.name] = now_s
            elif (owed_s := self._owed_s.get(camera.name)) is not None and now_s - owed_s > _GIVE_UP_S:
                self._recover(camera, now_s)

    def _recover(self, camera: SoakCamera, now_s: float) -> None:
        seconds = now_s - self._owed_s.pop(camera.name)
        self.log(f"{camera.name} is labelled again after {seconds:.2f} s")
        self.record.recoveries_s.append((f"{self.hindrance} ({camera.name})", seconds))

    def begin_calm(self) -> None:
        """Count frames from now on as undisturbed."""
        self.calm, self._calm_ns = True, time.time_ns()

    # What comes from the node -----------------------------------------------------------------------------------------

    def listen(self) -> None:
        """Listen to each camera's labels."""
        profile = qos.stream("reliable")
        self._listeners = [
            self._node.create_subscription(
                Image, f"{self.prefix}/{camera.name}/semantic", partial(self._on_labels, camera), profile
            )
            for camera in self.cameras
        ]

    def stop_listening(self) -> None:
        """Stop that."""
        for listener in self._listeners:
            self._node.destroy_subscription(listener)
        self._listeners = []

    def visit(self, outputs: Sequence[str], seconds: float) -> Script:
        """Have another listener come to all cameras' outputs of these names, take nothing, and go."""
        with closing(Participant("visitor")) as visitor:
            yield from self._subscribed(visitor, outputs, seconds)

    def want(self, outputs: Sequence[str], seconds: float) -> Script:
        """Have a listener want them that the middleware has found long ago, so that none waits for that."""
        yield from self._subscribed(self._resident, outputs, seconds)

    def _subscribed(self, listener: Participant, outputs: Sequence[str], seconds: float) -> Script:
        subscriptions = [
            listener.node.create_subscription(
                _OUTPUTS[name], f"{self.prefix}/{camera.name}/{name}", lambda _: None, qos.stream("reliable")
            )
            for name in outputs
            for camera in self.cameras
        ]
        yield seconds
        for subscription in subscriptions:
            listener.node.destroy_subscription(subscription)

    def _on_labels(self, camera: SoakCamera, message: Image) -> None:
        now_ns, sent_ns = time.time_ns(), stamp_ns(message.header)
        age_ms = (now_ns - sent_ns) / 1e6
        self.ages_ms.append(age_ms)
        if self.calm and sent_ns > self._calm_ns:
            self.record.calm_ms.append(age_ms)
        owed_s, now_s = self._owed_s.get(camera.name, -1.0), time.monotonic()
        if owed_s >= 0 and now_s - age_ms / 1e3 > owed_s:
            self._recover(camera, now_s)

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        node = message.status[0]
        if node.name != f"{self.prefix.lstrip('/')}: panoptic":  # another program's
            return
        values = {item.key: item.value for item in node.values}
        self.python_blocks = int(values["Python blocks"])
        for key in ("callbacks failed", "frames failed"):
            self.record.faults[key] = int(values[key])

    # What is asked of the node ----------------------------------------------------------------------------------------

    def wait_for_node(self) -> Script:
        """Wait until its services can be asked; not for ever, then the first request is lost."""
        deadline_s = time.monotonic() + _ANSWER_S
        while not self._change.service_is_ready() and time.monotonic() < deadline_s:
            yield TICK_S

    def change(self, name: str, *, allowed: bool = True) -> Script:
        """Ask for a transition, and look that its state is reached; one that is not allowed must leave the state."""
        number, reached = _TRANSITIONS[name]
        if allowed:
            self.active = False
        self.record.transitions += 1
        answer = yield from self._ask(self._change, ChangeState.Request(transition=Transition(id=number)), name)
        if answer is not None and answer.success != allowed:
            self._lose(f"expected {name} to be {'done' if allowed else 'refused'}, got success: {answer.success}")
        if not allowed:
            return
        answer = yield from self._ask(self._state, GetState.Request(), "get_state")
        if answer is not None and answer.current_state.label != reached:
            self._lose(f"expected the state {reached} behind {name}, got {answer.current_state.label}")
        self.active = reached == "active"

    def set(self, values: dict[str, Any], *, valid: bool = True) -> Script:
        """Set parameters."""
        parameters = [Parameter(name, value=value).to_parameter_msg() for name, value in values.items()]
        request = SetParametersAtomically.Request(parameters=parameters)
        answer = yield from self._ask(self._set, request, f"setting {values}")
        if answer is not None and answer.result.successful != valid:
            result = answer.result
            self._lose(
                f"expected {values} to be {'set' if valid else 'refused'}, got {result.successful}: {result.reason}"
            )
        if "enabled_outputs" in values and valid:
            self.published = "semantic" in values["enabled_outputs"].split(",")

    def enable(self, enabled: bool) -> Script:
        """Have the node work or pause."""
        self.enabled = False
        yield from self._ask(self._enable, SetBool.Request(data=enabled), f"~/enable {enabled}")
        self.enabled = enabled

    def reset_tracking(self) -> Script:
        """Have the ids begin anew."""
        yield from self._ask(self._reset, Trigger.Request(), "~/reset_tracking")

    def _ask(self, client: Any, request: Any, name: str) -> Generator[float, None, Any]:
        """Ask a service and return its answer, None if that is lost."""
        self.record.requests += 1
        future, begin_s = client.call_async(request), time.monotonic()
        while not future.done():
            if time.monotonic() - begin_s > _ANSWER_S:
                client.remove_pending_request(future)
                self._lose(f"expected an answer to {name} within {_ANSWER_S:g} s, got none")
                return None
            yield TICK_S
        return future.result()

    def _lose(self, words: str) -> None:
        self.log(words)
        self.record.lost.append(words)
