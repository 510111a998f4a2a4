# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The lifecycle node: camera images in, panoptic labels out.

Configure loads and warms the model, activate subscribes, deactivate stops, cleanup frees. The executor's thread serves
services and leaves each camera's newest image for the worker thread, which owns the model from its loading to its
closing (`loaded_model.py`): transitions and frames are its work, one after the other.
"""

from __future__ import annotations

import threading
import time
import traceback
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.clock import Clock, ClockType
from rclpy.duration import Duration
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.lifecycle import LifecycleNode, TransitionCallbackReturn
from std_srvs.srv import SetBool, Trigger

from rt_panoptic_ros.errors import CancelledError, InvalidInputError, RtPanopticError, first_line, is_out_of_memory
from rt_panoptic_ros.frames.message_layout import decode_message, stamp_ns
from rt_panoptic_ros.frames.outputs import images_of
from rt_panoptic_ros.pipeline import UNDEFINED, PanopticPipeline, open_pipeline
from rt_panoptic_ros.progress import observing
from rt_panoptic_ros.ros import qos
from rt_panoptic_ros.ros.node.camera_stream import LOG_PERIOD_S, ArrivedImage, CameraStream
from rt_panoptic_ros.ros.node.depth_input import DepthTurn
from rt_panoptic_ros.ros.node.depth_outputs import DepthOutputs
from rt_panoptic_ros.ros.node.diagnostics import NodeHealth, diagnostic_array
from rt_panoptic_ros.ros.node.frame_statistics import FrameStatistics, Latencies
from rt_panoptic_ros.ros.node.frame_worker import FrameWorker
from rt_panoptic_ros.ros.node.loaded_model import LoadedModel
from rt_panoptic_ros.ros.node.node_settings import NodeSettings, Periods, parse_cameras, parse_outputs
from rt_panoptic_ros.ros.node.outputs import ModelTopics
from rt_panoptic_ros.ros.node.parameters import NodeParameters
from rt_panoptic_ros.ros.node.transitions import attempt, has_namesake, serve_transitions, shut_down, state_of
from rt_panoptic_ros.ros.node.watchdog import Watchdog
from rt_panoptic_ros.ros.spinning import give_back_memory, run_node
from rt_panoptic_ros.ros.text_arguments import texts_kept
from rt_panoptic_ros.settings import parse_size

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from rclpy.lifecycle import LifecycleState

    from rt_panoptic_ros.settings import PostprocessSettings


class PanopticNode(LifecycleNode):
    """Labels the cameras' newest images, one camera after the other, again and again."""

    def __init__(
        self,
        *,
        finished: threading.Event | None = None,
        pipeline_factory: Callable[..., PanopticPipeline] = open_pipeline,
        periods: Periods | None = None,
        **node_options: Any,
    ) -> None:
        """Declare the parameters; everything else is acquired by configuring.

        Args:
            finished: Set when the node has done what the parameter build_only asks for, and when it can't go on and is
                to be started anew; without, it goes on telling so.
            pipeline_factory: Opens the pipeline, with the arguments of `open_pipeline`.
            periods: How long the node waits.
            node_options: For rclpy's node, such as namespace, context or parameter_overrides.

        Raises:
            InvalidInputError: A parameter was given a value that it cannot have.
        """
        super().__init__("panoptic_node", automatically_declare_parameters_from_overrides=True, **node_options)
        self._open_pipeline = pipeline_factory
        self._periods = periods or Periods()
        self._finished = finished
        self._exit_status = 0
        self.ending = threading.Event()  # set when the node is told to end
        self.health = NodeHealth()
        # Of the worker thread, which opens and closes all of it:
        self._acquired = ExitStack()
        self._model: LoadedModel | None = None
        self._model_topics: ModelTopics | None = None
        # Used by both threads, under the lock:
        self._lock = threading.RLock()
        self.streams: list[CameraStream] = []
        self.statistics: dict[str, FrameStatistics] = {}  # by camera; a camera's outlives its stream
        self._node_parameters = NodeParameters(self, lambda: self.health.active, self._check_settings)
        # Threads, which a node that refuses its parameters mustn't leave behind.
        self._worker = FrameWorker(self._process, "panoptic worker", self._fail)
        self._watchdog = Watchdog(self.health, self._worker, self._periods, self.ending)
        serve_transitions(self, self._worker)
        self.create_service(Trigger, "~/reset_tracking", self._on_reset_tracking)
        self.create_service(SetBool, "~/enable", self._on_enable)
        self._diagnostics_publisher = self.create_publisher(DiagnosticArray, "/diagnostics", qos.diagnostics())
        # Of steady time: with simulated time, nothing would be told while it stands still.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(self._periods.diagnostics_s, self._publish_diagnostics, clock=steady)
        self.create_timer(self._periods.demand_s, self._follow_demand, clock=steady)

    @property
    def settings(self) -> NodeSettings:
        """The node's settings now."""
        return self._node_parameters.settings

    @property
    def stages(self) -> PostprocessSettings:
        """The post-processing's settings now."""
        return self._node_parameters.now()[1]

    @property
    def cut_off(self) -> bool:
        """Whether the node was finished while a library's call was still at work, which goes on, or a GPU is lost."""
        return self.ending.is_set() and (self._worker.alive or bool(self.health.fatal))

    def start(self) -> None:
        """Have the node configured and activated, unless the parameter autostart leaves that to someone else.

        With build_only, it is only configured, and finishes.
        """
        if self.settings.build_only or self.settings.autostart:
            self._worker.submit(self._start)

    def outlive(self, error: BaseException) -> None:
        """Count an error that a callback met, and tell of it."""
        self.health.callback_errors += 1
        self.health.callback_error = f"{type(error).__name__}: {first_line(error)}"
        words = "".join(traceback.format_exception(error))
        self.get_logger().error(f"a callback failed:\n{words}", throttle_duration_sec=LOG_PERIOD_S)

    def finish(self) -> int:
        """Shut down, whatever the state; return the exit status.

        What is loading gives up, and a frame at hand is finished, if that doesn't take too long.
        """
        if not self._worker.alive:  # it was finished before
            return self._exit_status
        self.ending.set()
        ended = self._worker.submit(lambda: shut_down(self, self._release))
        if not self._worker.stop(self._periods.end_s / 8):
            self.get_logger().info(f"ending: waiting for {self.health.busy_with or 'the work at hand'}")
            if not self._worker.stop(self._periods.end_s * 7 / 8):
                self.get_logger().warning("ended without waiting any longer, since that call can't be interrupted")
                return self._exit_status
        ended.result()
        if self.context.ok():
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

    # Transitions, all done by the worker thread -----------------------------------------------------------------------

    def on_configure(self, _state: LifecycleState) -> TransitionCallbackReturn:
        """Load and warm the model, offer the topics."""
        return attempt(self, self._worker, "configure", self._acquire, self._release)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Begin to work; what was set since configuring is acquired anew before."""

        def activate() -> None:
            if self._model is None or not self._model.fits(self.settings):
                self._release()
                self._acquire()
            self._check_ending()
            LifecycleNode.on_activate(self, state)  # enables the publishers
            self._begin()
            self.get_logger().info(self._summary())

        return attempt(self, self._worker, "activate", activate, self._end)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop, with the frame at hand finished."""
        self._worker.run(self._end)
        return super().on_deactivate(state)

    def on_cleanup(self, _state: LifecycleState) -> TransitionCallbackReturn:
        """Stop, and free everything that configuring acquired."""
        self._worker.run(self._release)
        return TransitionCallbackReturn.SUCCESS

    on_shutdown = on_cleanup
    on_error = on_cleanup  # so that the node can be configured again

    def _acquire(self) -> None:
        settings, begin_s = self.settings, time.monotonic()
        self.health.busy_with = f"loading {settings.model}"
        try:
            with observing(self._tell_step):
                model = LoadedModel(settings, self._node_parameters.given, self._open_pipeline)
        finally:
            self.health.busy_with = ""
        self._acquired.callback(model.close)
        self._model = model
        self.health.model = model.pipeline.describe()
        self.health.fallback = model.pipeline.fallback
        self.health.stages = Latencies()  # another model's
        self._node_parameters.follow(model.pipeline.settings)
        depth = DepthOutputs(self, settings.target_frame)
        self._acquired.callback(depth.close)
        cameras = parse_cameras(settings.cameras)
        with self._lock:
            self._model_topics = ModelTopics(self, cameras)
            self._acquired.callback(self._model_topics.destroy)
            for name, topic in (cameras or {"": "image"}).items():
                statistics = self.statistics.setdefault(name, FrameStatistics(time.monotonic()))
                stream = CameraStream(
                    self, name, topic, lambda: self.settings, self._periods, statistics, depth, self._deliver,
                    self._worker.give_way,
                )  # fmt: skip
                self._acquired.callback(stream.destroy)
                self.streams.append(stream)
        topics = [stream.topic for stream in self.streams]
        if len(set(topics)) < len(topics):
            raise InvalidInputError(f"expected every camera to have a topic of its own, got {', '.join(topics)}")
        took_s = time.monotonic() - begin_s
        self.get_logger().info(f"ready: {self.health.model}, loading and warm-up took {took_s:.1f} s")

    def _tell_step(self, words: str) -> None:
        """Keep what loading is busy with, or call it off: from whatever thread builds."""
        self._check_ending()
        self.health.busy_with = words

    def _check_ending(self) -> None:
        if self.ending.is_set():
            raise CancelledError("the node was told to end")

    def _release(self) -> None:
        """Free what configuring acquired; the worker thread, which does so, closes the backend last."""
        self._end()
        with self._lock:
            self.streams = []
        self._model = self._model_topics = None
        self.health.model, self.health.fallback = "none loaded", ""
        self._acquired.close()
        give_back_memory()

    def _begin(self) -> None:
        assert self._model is not None and self._model_topics is not None  # noqa: PT018 - configured before
        self._model_topics.publish(self._model.classes, self.stages.masks.score_threshold)
        self._model.labeller.reset_tracking()
        with self._lock:
            self.health.active = True
            self._follow_demand()

    def _end(self) -> None:
        with self._lock:
            self.health.active = False
            for stream in self.streams:
                stream.end()
        for item in self._worker.clear():
            if isinstance(item, ArrivedImage):
                item.stream.statistics.count("dropped")

    def _summary(self) -> str:
        """Return one line on what the node does now."""
        settings = self.settings
        when = "while someone listens" if settings.lazy else "all the time"
        subscribed = ", ".join(stream.topic for stream in self.streams)
        enabled = parse_outputs(settings.enabled_outputs)
        published = ", ".join(topic for stream in self.streams for topic in stream.outputs.topics(enabled).values())
        return (
            f"active: {self.health.model}; receives {subscribed} ({settings.image_reliability}) {when}; "
            f"publishes {published or 'nothing'} ({settings.output_reliability})"
        )

    # A frame's way ----------------------------------------------------------------------------------------------------

    def _follow_demand(self) -> None:
        """Receive each camera's images only while someone wants what is made of them."""
        settings = self.settings
        enabled = parse_outputs(settings.enabled_outputs)
        with self._lock:
            for stream in self.streams if self.health.active else ():
                wanted = stream.outputs.wanted(enabled)
                stream.follow(self.health.enabled and (not settings.lazy or bool(wanted)), wanted)

    def _deliver(self, item: ArrivedImage | DepthTurn, only_replace: bool) -> bool:
        """Leave an image, or what its depth has come for, to the worker; return whether it replaced one that waited."""
        slot = item.stream if isinstance(item, ArrivedImage) else item.stream.depth
        return self._worker.put(item, slot, only_replace=only_replace)

    def _fail(self, waiting: ArrivedImage | DepthTurn, error: BaseException) -> None:
        """Count and tell of a frame that met an unexpected error, and see whether its GPU is lost by it."""
        waiting.stream.fail(error)
        if self._model is not None and (reason := self._model.pipeline.lost()):
            self.health.fatal = f"the GPU is lost to this process: {reason}"

    def _process(self, waiting: ArrivedImage | DepthTurn) -> None:
        """Give a camera its turn, in the worker thread."""
        is_late = not self.health.active or waiting.stream not in self.streams  # it arrived before a deactivation
        if isinstance(waiting, DepthTurn):
            self.health.stages.add({} if is_late else waiting.stream.depth.go_on(waiting))
            return
        if is_late:
            waiting.stream.statistics.count("dropped")
            return
        image = waiting.stream.newest(waiting)
        if image is None:
            return
        try:
            with observing(self._tell_step):  # the first image of a size may have a backend loaded
                self._label(image)
        except Exception as error:
            if not isinstance(error, RtPanopticError) and not is_out_of_memory(error):
                raise
            image.stream.refuse(error)
        finally:
            self.health.busy_with = ""

    def _label(self, image: ArrivedImage) -> None:
        """Convert, run, convert, publish; what depth is needed for comes last."""
        assert self._model is not None  # while the node is active
        model, stream, header = self._model, image.stream, image.msg.header
        settings, stages = self._node_parameters.now()
        start_s = time.perf_counter()
        pixels = decode_message(image.msg)
        wanted = stream.outputs.wanted(parse_outputs(settings.enabled_outputs))
        turn = stream.depth.expect(header, wanted, settings)
        decoded_s = time.perf_counter()
        frame = model.labeller.label(
            pixels,
            stamp_ns(header),
            camera=stream.name,
            class_ids=model.wanted_classes(settings),
            tracking=settings.tracking,
            images=images_of(wanted),
            output_size=parse_size("output_size", settings.output_size),
            settings=stages,
        )
        if frame.result.undefined:
            stream.statistics.count("undefined", cause=UNDEFINED)
        self.health.model = model.pipeline.describe()
        self.health.fallback = model.pipeline.fallback
        labelled_s = time.perf_counter()
        style = model.style(settings)
        stream.outputs.publish(wanted, frame, header, style)
        decode_ms, publish_ms = (decoded_s - start_s) * 1e3, (time.perf_counter() - labelled_s) * 1e3
        self._note(image, {"decode": decode_ms, **frame.timings_ms, "publish": publish_ms})
        self.health.stages.add(stream.depth.publish(turn, frame, style))

    def _note(self, image: ArrivedImage, stages_ms: Mapping[str, float]) -> None:
        """Count a frame that has been published, and keep how long its stages took."""
        self.health.stages.add(stages_ms)
        since_arrival_ms, age_ms = (time.monotonic() - image.arrival_s) * 1e3, image.stream.age_ms(image.msg.header)
        image.stream.statistics.finish(since_arrival_ms, age_ms)

    def _check_settings(self, settings: NodeSettings) -> None:
        """Check the settings that name classes, where their model is loaded; else activating does."""
        if (model := self._model) is not None and model.fits(settings):
            model.check(settings)

    def _on_reset_tracking(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        if (model := self._model) is not None:
            model.labeller.reset_tracking()
        response.success, response.message = True, "ids begin with 1 again from the next image on"
        return response

    def _on_enable(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        self.health.enabled = request.data
        response.success, response.message = True, "enabled" if request.data else "disabled until enabled again"
        return response

    # Health -----------------------------------------------------------------------------------------------------------

    def _publish_diagnostics(self) -> None:
        now_s = time.monotonic()
        limit_s = self.settings.watchdog_s if self._finished is not None else 0.0
        self._watchdog.look(now_s, limit_s, self._model.pipeline.stage if self._model is not None else "")
        with self._lock:
            cameras = [stream.health(now_s, active=self.health.active) for stream in self.streams]
        self.health.note_name(now_s, shared=has_namesake(self))
        name, stamp = self.get_fully_qualified_name().lstrip("/"), self.get_clock().now().to_msg()
        self._diagnostics_publisher.publish(diagnostic_array(name, state_of(self), stamp, self.health, cameras))
        if self.health.fatal and self._finished is not None and not self._finished.is_set():
            self._diagnostics_publisher.wait_for_all_acked(Duration(seconds=1.0))
            self._exit_status = self._watchdog.give_up(self.get_logger())
            self._finished.set()


def main(args: Sequence[str] | None = None) -> int:
    """Run the node as a process."""
    with texts_kept(args, NodeSettings) as kept:
        return run_node(lambda finished: PanopticNode(finished=finished), kept)
