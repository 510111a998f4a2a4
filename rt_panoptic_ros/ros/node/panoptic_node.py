"""The lifecycle node: camera images in, panoptic labels out.

Configure loads and warms the engine, activate subscribes, deactivate stops, cleanup frees. The executor's thread serves
services and leaves each camera's newest image for the worker thread, which owns the pipeline: transitions and frames
are its work, one after the other.
"""

from __future__ import annotations

import concurrent.futures
import threading
import time
import traceback
from typing import TYPE_CHECKING, Any

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.clock import Clock, ClockType
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.lifecycle import LifecycleNode, TransitionCallbackReturn
from std_srvs.srv import SetBool, Trigger

from rt_panoptic_ros.drawing.overlay import warm_overlay
from rt_panoptic_ros.errors import CancelledError, InvalidInputError, RtPanopticError, first_line
from rt_panoptic_ros.frames.message_layout import decode_message, stamp_ns
from rt_panoptic_ros.labeller import FrameLabeller
from rt_panoptic_ros.panoptic.class_filter import parse_class_names
from rt_panoptic_ros.pipeline import PanopticPipeline, open_pipeline
from rt_panoptic_ros.progress import observing
from rt_panoptic_ros.ros import qos
from rt_panoptic_ros.ros.node import diagnostics
from rt_panoptic_ros.ros.node.camera_stream import LOG_PERIOD_S, ArrivedImage, CameraStream
from rt_panoptic_ros.ros.node.frame_statistics import FrameStatistics, Latencies
from rt_panoptic_ros.ros.node.frame_worker import FrameWorker
from rt_panoptic_ros.ros.node.node_settings import NodeSettings, parse_cameras, parse_outputs, structure_of
from rt_panoptic_ros.ros.node.outputs import ModelTopics, PanopticOutputs
from rt_panoptic_ros.ros.node.parameters import NodeParameters
from rt_panoptic_ros.ros.node.transitions import serve_transitions, state_of
from rt_panoptic_ros.ros.spinning import run_node
from rt_panoptic_ros.ros.text_arguments import texts_kept
from rt_panoptic_ros.settings import parse_size

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from rclpy.lifecycle import LifecycleState
    from rclpy.timer import Timer

    from rt_panoptic_ros.model.class_table import ClassTable

DEMAND_PERIOD_S = 0.2
"""How often subscribers are looked for: events that tell of them exist only since Iron."""

END_S = 0.5
"""How long an end waits for the work at hand, of which no library's call can be interrupted."""


class PanopticNode(LifecycleNode):
    """Labels the cameras' newest images, one camera after the other, again and again."""

    def __init__(
        self,
        *,
        finished: threading.Event | None = None,
        pipeline_factory: Callable[..., PanopticPipeline] = open_pipeline,
        **node_options: Any,
    ) -> None:
        """Declare the parameters; everything else is acquired by configuring.

        Args:
            finished: Set when the node has done what the parameter build_only asks for.
            pipeline_factory: Opens the pipeline, with the arguments of `open_pipeline`.
            node_options: For rclpy's node, such as namespace, context or parameter_overrides.

        Raises:
            InvalidInputError: A parameter was given a value that it cannot have.
        """
        super().__init__("panoptic_node", automatically_declare_parameters_from_overrides=True, **node_options)
        self._open_pipeline = pipeline_factory
        self._finished = finished
        self._exit_status = 0
        self._ending = threading.Event()
        self._enabled = True
        self._worker = FrameWorker(self._process, "panoptic worker", lambda image, _: image.stream.fail())
        # Of the worker thread alone:
        self._pipeline: PanopticPipeline | None = None
        self._labeller: FrameLabeller | None = None  # labels with the pipeline
        self._model_topics: ModelTopics | None = None
        self._built_for: dict[str, object] | None = None
        # Changed by the worker thread, whole; read by the executor's:
        self._active = False
        self._classes: ClassTable | None = None
        self._engine = "none loaded"
        self._busy_with = ""
        self._problem = ""
        self._latencies = Latencies()
        # Used by both, under the lock:
        self._lock = threading.RLock()
        self._streams: list[CameraStream] = []
        self._statistics: dict[str, FrameStatistics] = {}  # by camera; a camera's outlives its stream
        self._demand_timer: Timer | None = None
        # Of the executor's thread:
        self._callback_watch = diagnostics.CallbackWatch()
        self._node_parameters = NodeParameters(self, lambda: self._active, self._wanted_classes)
        # Of steady time: with simulated time, nothing would be told while it stands still.
        self._steady_clock = Clock(clock_type=ClockType.STEADY_TIME)
        serve_transitions(self, self._worker)
        self.create_service(Trigger, "~/reset_tracking", self._on_reset_tracking)
        self.create_service(SetBool, "~/enable", self._on_enable)
        self._diagnostics_publisher = self.create_publisher(DiagnosticArray, "/diagnostics", qos.diagnostics())
        self.create_timer(diagnostics.PERIOD_S, self._publish_diagnostics, clock=self._steady_clock)

    @property
    def settings(self) -> NodeSettings:
        """The node's settings now."""
        return self._node_parameters.settings

    @property
    def cut_off(self) -> bool:
        """Whether the node was finished while a library's call was still at work, which goes on."""
        return self._ending.is_set() and self._worker.alive

    def start(self) -> None:
        """Have the node configured and activated, unless the parameter autostart leaves that to someone else.

        With build_only, it is only configured, and finishes.
        """
        if self.settings.build_only or self.settings.autostart:
            self._worker.submit(self._start)

    def outlive(self, error: Exception) -> None:
        """Count an error that a callback met, and tell of it."""
        self._callback_watch.errors += 1
        words = "".join(traceback.format_exception(type(error), error, error.__traceback__))
        self.get_logger().error(f"a callback failed:\n{words}", throttle_duration_sec=LOG_PERIOD_S)

    def finish(self) -> int:
        """Shut down, whatever the state; return the exit status.

        What is loading gives up, and a frame at hand is finished, if that takes no longer than `END_S`.
        """
        self._ending.set()
        ended = self._worker.submit(self._finish)
        if not concurrent.futures.wait([ended], END_S / 8).done:
            self.get_logger().info(f"ending: waiting for {self._busy_with or 'the work at hand'}")
            if not concurrent.futures.wait([ended], END_S * 7 / 8).done:
                self.get_logger().warning("ended without waiting any longer, since that call can't be interrupted")
                return self._exit_status
        ended.result()
        self._worker.stop()
        self._publish_diagnostics()
        return self._exit_status

    def _start(self) -> None:
        try:
            configured = self.trigger_configure() == TransitionCallbackReturn.SUCCESS
            if configured and not self.settings.build_only:
                self.trigger_activate()
        except rclpy_implementation.RCLError as error:  # someone else was quicker
            self.get_logger().warning(f"not started by itself, as its state had changed: {first_line(error)}")
            configured = False
        if self.settings.build_only:
            self._exit_status = int(not configured)
            if self._finished is not None:
                self._finished.set()

    def _finish(self) -> None:
        if state_of(self) != "finalized":
            self.trigger_shutdown()

    # Transitions ------------------------------------------------------------------------------------------------------

    def on_configure(self, _state: LifecycleState) -> TransitionCallbackReturn:
        """Load and warm the engine, offer the topics."""
        return self._attempt("configure", self._acquire, self._release)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Begin to work; what was set since configuring is acquired anew before."""

        def activate() -> None:
            if self._built_for != structure_of(self.settings):
                self._release()
                self._acquire()
            self._check_ending()
            LifecycleNode.on_activate(self, state)  # enables the publishers
            self._begin()
            self.get_logger().info(self._summary())

        return self._attempt("activate", activate, self._end)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop, with the frame at hand finished."""
        self._worker.run(self._end)
        return super().on_deactivate(state)

    def on_cleanup(self, _state: LifecycleState) -> TransitionCallbackReturn:
        """Free everything that configuring acquired."""
        self._worker.run(self._release)
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, _state: LifecycleState) -> TransitionCallbackReturn:
        """Stop and free everything."""
        self._worker.run(self._stop)
        return TransitionCallbackReturn.SUCCESS

    def on_error(self, _state: LifecycleState) -> TransitionCallbackReturn:
        """Free everything, so that the node can be configured again."""
        self._worker.run(self._stop)
        return TransitionCallbackReturn.SUCCESS

    def _attempt(self, name: str, transition: Callable[[], None], undo: Callable[[], None]) -> TransitionCallbackReturn:
        try:
            self._worker.run(transition)
        except CancelledError:
            self._worker.run(undo)
            self.get_logger().info(f"called off: {name}, as the node was told to end")
            return TransitionCallbackReturn.FAILURE
        except RtPanopticError as error:
            self._worker.run(undo)
            self._problem = f"cannot {name}: {error}"
            self.get_logger().error(self._problem)
            return TransitionCallbackReturn.FAILURE
        except Exception as error:  # rclpy would swallow it
            self._problem = f"cannot {name}, since an unexpected {type(error).__name__} came: {error}"
            self.get_logger().error(f"{self._problem}\n{traceback.format_exc()}")
            return TransitionCallbackReturn.ERROR
        self._problem = ""
        return TransitionCallbackReturn.SUCCESS

    def _acquire(self) -> None:
        settings = self.settings
        if not settings.model:
            raise InvalidInputError(
                "expected the parameter model to be the path of a model bundle or the name of one that comes with the "
                "package, got nothing: start with `-p model:=PATH`, or set it and configure again"
            )
        begin_s = time.monotonic()
        self._busy_with = f"loading {settings.model}"
        try:
            with observing(self._tell_step):
                self._load(settings)
        finally:
            self._busy_with = ""
        assert self._pipeline is not None
        self._wanted_classes(settings)  # a name that this model doesn't have is said now
        self._node_parameters.follow(self._pipeline)
        with self._lock:
            cameras = parse_cameras(settings.cameras)
            self._model_topics = ModelTopics(self, cameras)
            for name, topic in (cameras or {"": "image"}).items():
                statistics = self._statistics.setdefault(name, FrameStatistics(time.monotonic()))
                outputs = PanopticOutputs(self, f"~/{name}" if name else "~", settings.output_reliability)
                self._streams.append(CameraStream(self, name, topic, outputs, statistics))
        topics = [stream.topic for stream in self._streams]
        if len(set(topics)) < len(topics):
            raise InvalidInputError(f"expected every camera to have a topic of its own, got {', '.join(topics)}")
        self._built_for = structure_of(settings)
        self._latencies.clear()
        took_s = time.monotonic() - begin_s
        self.get_logger().info(f"ready: {self._engine}, loading and warm-up took {took_s:.1f} s")

    def _load(self, settings: NodeSettings) -> None:
        """Open the pipeline, and warm all that a listener can ask for."""
        self._pipeline = self._open_pipeline(
            settings.model,
            backend=settings.backend,
            device=settings.device,
            precision=settings.precision,
            network_size=parse_size("network_size", settings.network_size),
            settings=self._node_parameters.given,
        )
        self._labeller = FrameLabeller(self._pipeline)
        self._pipeline.prepare(parse_size("camera_size", settings.camera_size))
        if settings.build_only and not self._pipeline.loaded:
            raise InvalidInputError(
                f"expected network_size or camera_size with build_only, as {settings.model} takes images of any size, "
                "got neither: set one of them"
            )
        self._classes, self._engine = self._pipeline.classes, self._pipeline.describe()
        warm_overlay(self._pipeline.classes)

    def _tell_step(self, words: str) -> None:
        """Keep what loading is busy with, or call it off: from whatever thread builds."""
        self._check_ending()
        self._busy_with = words

    def _check_ending(self) -> None:
        if self._ending.is_set():
            raise CancelledError("the node was told to end")

    def _stop(self) -> None:
        self._end()
        self._release()

    def _release(self) -> None:
        self._built_for = None
        self._node_parameters.unfollow()
        with self._lock:
            while self._streams:
                self._streams.pop().outputs.destroy()
            if self._model_topics is not None:
                self._model_topics.destroy()
                self._model_topics = None
        self._classes, self._engine = None, "none loaded"
        self._labeller = None
        if self._pipeline is not None:
            self._pipeline.close()
            self._pipeline = None

    def _begin(self) -> None:
        assert self._pipeline is not None and self._model_topics is not None  # noqa: PT018 - configured before
        assert self._labeller is not None
        self._labeller.reset_tracking()
        settings, stages = self._node_parameters.now()
        self._model_topics.publish(self._pipeline.classes, stages.masks.score_threshold)
        with self._lock:
            for stream in self._streams:
                stream.begin(settings, lambda: self.settings.max_rate_hz, self._deliver)
            self._active = True
            self._demand_timer = self.create_timer(DEMAND_PERIOD_S, self._follow_demand, clock=self._steady_clock)
            self._follow_demand()

    def _end(self) -> None:
        with self._lock:
            self._active = False
            if self._demand_timer is not None:
                self.destroy_timer(self._demand_timer)
                self._demand_timer = None
            for stream in self._streams:
                stream.end()
        for image in self._worker.clear():
            image.stream.statistics.count("dropped")

    def _summary(self) -> str:
        """Return one line on what the node does now."""
        settings = self.settings
        when = "while someone listens" if settings.lazy else "all the time"
        subscribed = ", ".join(stream.subscription.topic for stream in self._streams if stream.subscription is not None)
        enabled = parse_outputs(settings.enabled_outputs)
        published = ", ".join(topic for stream in self._streams for topic in stream.outputs.topics(enabled).values())
        return (
            f"active: {self._engine}; receives {subscribed} ({settings.image_reliability}) {when}; "
            f"publishes {published or 'nothing'} ({settings.output_reliability})"
        )

    # A frame's way ----------------------------------------------------------------------------------------------------

    def _follow_demand(self) -> None:
        """Receive each camera's images only while someone wants what is made of them."""
        settings = self.settings
        enabled = parse_outputs(settings.enabled_outputs)
        with self._lock:
            for stream in self._streams if self._active else ():
                stream.follow(self._enabled and (not settings.lazy or bool(stream.outputs.wanted(enabled))))

    def _deliver(self, image: ArrivedImage, only_replace: bool) -> bool:
        """Leave an image for the worker; return whether it replaced one that waited."""
        return self._worker.put(image, image.stream, only_replace=only_replace)

    def _process(self, waiting: ArrivedImage) -> None:
        """Give a camera its turn, in the worker thread."""
        if not self._active or waiting.stream not in self._streams:  # it arrived while the node was deactivated
            waiting.stream.statistics.count("dropped")
            return
        image = waiting.stream.newest(waiting)
        if image is None:
            return
        try:
            with observing(self._tell_step):  # the first image of a size may have an engine loaded
                stages_ms = self._label(image)
        except RtPanopticError as error:
            image.stream.statistics.count("refused")
            self.get_logger().warning(f"frame refused: {error}", throttle_duration_sec=LOG_PERIOD_S)
            return
        finally:
            self._busy_with = ""
        self._note(image, stages_ms)

    def _label(self, image: ArrivedImage) -> dict[str, float]:
        """Convert, run, convert, publish; return what each stage took, ms."""
        pipeline, labeller, stream, header = self._pipeline, self._labeller, image.stream, image.msg.header
        assert pipeline is not None and labeller is not None  # noqa: PT018 - while the node is active
        settings, stages = self._node_parameters.now()
        start_s = time.perf_counter()
        pixels = decode_message(image.msg)
        wanted = stream.outputs.wanted(parse_outputs(settings.enabled_outputs))
        decoded_s = time.perf_counter()
        frame = labeller.label(
            pixels,
            stamp_ns(header),
            camera=stream.name,
            class_ids=self._wanted_classes(settings),
            tracking=settings.tracking,
            confidence="confidence" in wanted,
            settings=stages,
        )
        self._engine = pipeline.describe()
        labelled_s = time.perf_counter()
        stream.outputs.publish(wanted, frame, header, settings.overlay_opacity, settings.palette)
        published_s = time.perf_counter()
        return {
            "decode": (decoded_s - start_s) * 1e3,
            **frame.timings_ms,
            "publish": (published_s - labelled_s) * 1e3,
        }

    def _note(self, image: ArrivedImage, stages_ms: Mapping[str, float]) -> None:
        """Enter a frame that has been published, and its stages, in the ledger."""
        self._latencies.add(stages_ms)
        since_arrival_ms, age_ms = (time.monotonic() - image.arrival_s) * 1e3, image.stream.age_ms(image.msg.header)
        image.stream.statistics.finish(since_arrival_ms, age_ms)

    def _wanted_classes(self, settings: NodeSettings) -> frozenset[int] | None:
        """Return the ids of the classes whose objects are wanted, None for all or without a model."""
        return None if self._classes is None else parse_class_names(settings.object_classes, self._classes)

    def _on_reset_tracking(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        if (labeller := self._labeller) is not None:
            labeller.reset_tracking()
        response.success, response.message = True, "ids begin with 1 again from the next image on"
        return response

    def _on_enable(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        self._enabled = request.data
        response.success, response.message = True, "enabled" if request.data else "disabled until enabled again"
        return response

    # Health -----------------------------------------------------------------------------------------------------------

    def _publish_diagnostics(self) -> None:
        now_s = time.monotonic()
        health = diagnostics.NodeHealth(
            state=state_of(self),
            engine=self._engine,
            enabled=self._enabled,
            building=self._busy_with,
            problem=self._problem,
            callback_errors=self._callback_watch.errors,
            trouble=self._callback_watch.judge(),
        )
        with self._lock:
            cameras = [stream.health(now_s, active=self._active) for stream in self._streams]
        stamp = self.get_clock().now().to_msg()
        self._diagnostics_publisher.publish(
            diagnostics.diagnostic_array(
                self.get_fully_qualified_name().lstrip("/"), stamp, health, cameras, self._latencies.percentiles()
            )
        )


def main(args: Sequence[str] | None = None) -> int:
    """Run the node as a process."""
    with texts_kept(args, NodeSettings) as kept:
        return run_node(lambda finished: PanopticNode(finished=finished), kept)
