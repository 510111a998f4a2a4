# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""One camera's depth and camera_info: received while an output needs them, and matched to its frames.

The executor's thread stores the newest messages and matches stamps; the worker's thread does the rest. A frame's turn
begins with `expect`, before it is labelled, so that its depth is kept however long that takes; with `publish` the
worker hands over the labels, and makes what it can of them at once. If depth isn't there yet, the turn waits, and comes
to the worker again as a turn of its own when it is; a newer frame takes its place. So it is with a transform, but there
newer frames go without for a while, since transforms may always be later than the next frame.
"""

from __future__ import annotations

import re
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sensor_msgs.msg import CameraInfo, Image

from rt_panoptic_ros.errors import InvalidInputError
from rt_panoptic_ros.frames.depth import DepthMatcher, decode_depth
from rt_panoptic_ros.frames.message_layout import stamp_ns
from rt_panoptic_ros.frames.outputs import inputs_of
from rt_panoptic_ros.geometry.located import LocatedFrame, MisalignedError
from rt_panoptic_ros.ros import qos
from rt_panoptic_ros.ros.conversions import camera_info_to_msg
from rt_panoptic_ros.ros.endpoints import Endpoint, why_apart
from rt_panoptic_ros.ros.node.camera_subscription import forget_gone

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from rclpy.lifecycle import LifecycleNode
    from rclpy.subscription import Subscription
    from std_msgs.msg import Header

    from rt_panoptic_ros.labeller import LabelledFrame, OutputStyle
    from rt_panoptic_ros.ros.node.camera_stream import CameraStream
    from rt_panoptic_ros.ros.node.depth_outputs import DepthOutputs
    from rt_panoptic_ros.ros.node.node_settings import NodeSettings

_KINDS = {"depth": Image, "camera_info": CameraInfo}
_TYPES = {"depth": "sensor_msgs/msg/Image", "camera_info": "sensor_msgs/msg/CameraInfo"}
_WAITING = 4  # frames at most: some drivers send depth later than the next image
_PATIENCE_S = 0.5  # with a transform, before a newer frame takes a waiting one's place

ALIGNED = (
    "remap depth to the depth that is aligned to the colour image (RealSense with align_depth.enable:=true: "
    "/camera/camera/aligned_depth_to_color/image_raw; ZED: .../depth/depth_registered; OAK: .../stereo/image_raw)"
)


@dataclass(eq=False, slots=True)
class DepthTurn:
    """A frame that waits for its depth, or for a transform; until it is labelled, what stands for it."""

    stream: CameraStream
    header: Header
    settings: NodeSettings
    wanted: frozenset[str] = frozenset()
    frame: LabelledFrame | None = None
    style: OutputStyle | None = None
    depth: Image | None = None
    info: CameraInfo | None = None  # as it was when the turn began
    counted: set[str] = field(default_factory=set)  # the outcomes that it was counted by
    waiting_since_s: float = 0.0  # for a transform, monotonic


class DepthInput:
    """Receives a camera's depth and camera_info while an output that someone listens to needs them."""

    def __init__(
        self,
        node: LifecycleNode,
        stream: CameraStream,
        topics: dict[str, str],
        outputs: DepthOutputs,
        deliver: Callable[[DepthTurn], bool],
        silence_s: float,
    ) -> None:
        """Prepare to receive; `follow` subscribes.

        Args:
            node: The node.
            stream: The camera.
            topics: {depth, camera_info: topic}, which may be remapped.
            outputs: Makes and publishes what is made with depth.
            deliver: Has the worker give a turn that can go on to `go_on`, in place of another that waits for that, if
                any, and returns whether there was one; called by any thread.
            silence_s: How long an input may be missing before it is told.
        """
        self._node, self._stream, self._outputs, self._deliver = node, stream, outputs, deliver
        self._statistics = stream.statistics
        self._silence_s = silence_s
        self._names = topics
        self.topics = {name: str(node.resolve_topic_name(topic)) for name, topic in topics.items()}
        self._subscriptions: dict[str, Subscription] = {}
        self._since_s: dict[str, float] = {}  # of subscribing
        # Used by both threads, under the lock:
        self._lock = threading.Lock()
        self._matcher: DepthMatcher[DepthTurn, Image] = DepthMatcher(
            _WAITING, is_urgent=lambda turn: turn.frame is not None
        )
        self._info: CameraInfo | None = None
        self._waiting: DepthTurn | None = None  # has its depth, but no transform yet

    def follow(self, outputs: Collection[str]) -> None:
        """Subscribe to what some outputs need, and to nothing else."""
        needed = inputs_of(outputs)
        for name in self._names:
            if name in needed and name not in self._subscriptions:
                self._since_s[name] = time.monotonic()
                self._subscriptions[name] = self._node.create_subscription(
                    _KINDS[name], self._names[name], getattr(self, f"_receive_{name}"), qos.side_input()
                )
                self._node.get_logger().info(f"receiving {name} from {self.topics[name]}")
            elif name not in needed and name in self._subscriptions:
                self._node.destroy_subscription(self._subscriptions.pop(name))
                forget_gone(self._node.default_callback_group)
                self._forget(name)

    def wanted(self) -> dict[str, tuple[str, int]]:
        """Return {depth, camera_info: its topic and how many publish there} of those that are received now."""
        topics = {name: self.topics[name] for name in tuple(self._subscriptions)}
        return {name: (topic, self._node.count_publishers(topic)) for name, topic in topics.items()}

    def end(self) -> None:
        """Unsubscribe, and let go of what waits."""
        self.follow(())

    # In the worker's thread -------------------------------------------------------------------------------------------

    def expect(self, header: Header, wanted: frozenset[str], settings: NodeSettings) -> DepthTurn:
        """Begin a frame's turn: keep its depth, which may come while it is labelled."""
        turn = DepthTurn(self._stream, header, settings, wanted, info=self._info)
        if "depth" in inputs_of(wanted):
            slack_s = settings.depth_slack_s if settings.depth_sync == "approximate" else 0.0
            with self._lock:
                settled = self._matcher.add_frame(stamp_ns(header), round(slack_s * 1e9), turn)
                ready = _given(settled)
            self._hand_over(ready, settled)
        return turn

    def publish(self, turn: DepthTurn, frame: LabelledFrame, style: OutputStyle) -> dict[str, float]:
        """Publish what is made of a labelled frame with camera_info alone, and with its depth if that is there.

        Returns:
            See `go_on`.
        """
        if "camera_info" in turn.wanted:
            self._publish_info(turn, frame)
        if "depth" not in inputs_of(turn.wanted):
            return {}
        with self._lock:
            turn.frame, turn.style = frame, style
            settled = self._matcher.settled()
            ready = [other for other in _given(settled) if other is not turn]
            is_there = turn.depth is not None
        self._hand_over(ready, settled)
        return self.go_on(turn) if is_there else {}

    def go_on(self, turn: DepthTurn) -> dict[str, float]:
        """Make and publish what a frame's depth is needed for; return how long that took, ms, by stage."""
        begin_s = time.perf_counter()
        if not self._publish_located(turn):
            return {}
        self._statistics.count("located")
        return {"depth": (time.perf_counter() - begin_s) * 1e3}

    def _publish_located(self, turn: DepthTurn) -> bool:
        """Publish it; return whether all could be."""
        assert turn.frame is not None
        assert turn.style is not None
        assert turn.depth is not None
        try:
            located = LocatedFrame.of(turn.frame, decode_depth(turn.depth))
        except InvalidInputError as error:
            outcome = "misaligned" if isinstance(error, MisalignedError) else "depth refused"
            self._count(turn, outcome, f"{self.topics['depth']}: {error}")
            return False
        frames = turn.header.frame_id, turn.depth.header.frame_id
        if frames[0] != frames[1]:
            self._stream.tell(
                "depth's frame",
                f"depth of {self.topics['depth']} is of the frame '{frames[1]}', the image of '{frames[0]}': it is "
                f"taken for aligned to the image, pixel by pixel. If it isn't, {ALIGNED}",
            )
        if "depth_filtered" in turn.wanted:
            self._outputs.publish_filtered(turn, located)
        if not turn.wanted & {"points", "detections_3d"}:
            return True
        if (info := self._info or turn.info) is None:
            self._tell_of_missing_info(turn)
            return False
        try:
            intrinsics = located.intrinsics(info)
        except InvalidInputError as error:
            self._count(turn, "uncalibrated", f"{self.topics['camera_info']}: {error}")
            return False
        if "points" in turn.wanted:
            self._outputs.publish_points(turn, located, intrinsics)
        if "detections_3d" in turn.wanted:
            transform = self._outputs.transform(turn.header)
            if isinstance(transform, str):
                self._await_transform(turn, transform)
                return False
            if turn is self._waiting:
                self._waiting = None
            self._outputs.publish_detections(turn, located, intrinsics, transform)
        return True

    def _await_transform(self, turn: DepthTurn, reason: str) -> None:
        """Have a turn wait for a transform, if no other does already that may still get its own."""
        now_s, other = time.monotonic(), self._waiting
        words = f"no detections_3d for want of a transform: {reason}"
        if other is turn:  # it came, but is of no use any more
            self._waiting = None
        if other is turn or (other is not None and now_s - other.waiting_since_s < _PATIENCE_S):
            self._count(turn, "untransformed", words)
            return
        if other is not None:
            self._count(other, "untransformed", words)
        turn.wanted, turn.waiting_since_s = frozenset({"detections_3d"}), now_s
        self._waiting = turn
        self._outputs.await_transform(turn, lambda: self._hand_over([turn]))

    def _publish_info(self, turn: DepthTurn, frame: LabelledFrame) -> None:
        info = self._info or turn.info
        if info is None:
            self._tell_of_missing_info(turn)
            return
        try:
            msg = camera_info_to_msg(info, frame.image.pixels.shape[:2], frame.size, turn.header)
        except InvalidInputError as error:
            self._count(turn, "uncalibrated", f"{self.topics['camera_info']}: {error}")
        else:
            self._stream.outputs.publish_message("camera_info", msg)

    # In the executor's thread -----------------------------------------------------------------------------------------

    def _receive_depth(self, msg: Image) -> None:
        with self._lock:
            settled = self._matcher.add_depth(stamp_ns(msg.header), msg)
            ready = _given(settled)
        self._hand_over(ready, settled)

    def _receive_camera_info(self, msg: CameraInfo) -> None:
        self._info = msg

    def _hand_over(self, ready: list[DepthTurn], settled: Sequence[tuple[DepthTurn, Image | None]] = ()) -> None:
        """Have the worker go on with turns that can, and tell of those that are settled without depth; any thread."""
        for turn in ready:
            if self._deliver(turn):  # in place of an older one
                self._statistics.count("without depth")
        self._tell_of_missing([turn for turn, depth in settled if depth is None])

    # What is counted and told -----------------------------------------------------------------------------------------

    def _tell_of_missing(self, turns: list[DepthTurn]) -> None:
        for turn in turns:
            self._statistics.count("without depth")
            if not self._is_late("depth"):
                continue
            with self._lock:
                offset_ns = self._matcher.offset_ns(stamp_ns(turn.header))
            if offset_ns is None:
                self._stream.tell("depth", f"no depth arrives: {self._why_missing('depth')}")
                continue
            settings = turn.settings
            if offset_ns < 0 and abs(offset_ns) > 1e9 * settings.depth_slack_s and self._is_behind(turn):
                self._stream.tell(
                    "depth's delay",
                    f"depth of {self.topics['depth']} arrives too late, or no more: the newest is "
                    f"{-offset_ns / 1e6:.1f} ms older than an image after which {_WAITING} others have come. Have the "
                    "driver send it sooner, or take fewer images (max_rate_hz)",
                )
                continue
            if settings.depth_sync == "exact":
                taken = "depth_sync exact takes equal stamps alone: set it to approximate"
            else:
                taken = f"depth_slack_s takes up to {1e3 * settings.depth_slack_s:.0f} ms: set it higher"
            self._stream.tell(
                "depth's stamps",
                f"depth of {self.topics['depth']} arrives, but none for the image: the nearest is "
                f"{offset_ns / 1e6:+.1f} ms from it, and {taken}, or have the driver synchronise the two (RealSense: "
                "enable_sync:=true)",
            )

    def _is_behind(self, turn: DepthTurn) -> bool:
        """Return whether all depth that has come is of earlier images."""
        with self._lock:
            newest_ns = self._matcher.newest_ns()
        return newest_ns is None or newest_ns < stamp_ns(turn.header)

    def _tell_of_missing_info(self, turn: DepthTurn) -> None:
        words = ""
        if self._is_late("camera_info"):
            words = f"no camera_info arrives: {self._why_missing('camera_info')}"
        self._count(turn, "uncalibrated", words)

    def _why_missing(self, name: str) -> str:
        topic = self.topics[name]
        publishers = [Endpoint.of(info) for info in self._node.get_publishers_info_by_topic(topic)]
        remedy = ALIGNED if name == "depth" else "remap camera_info to the one beside the colour images"
        if not publishers:
            return f"nobody publishes on {topic}: {remedy}"
        asked = Endpoint(self._node.get_fully_qualified_name(), _TYPES[name], "best_effort")
        apart = [words for publisher in publishers if (words := why_apart(topic, asked, publisher))]
        if len(apart) == len(publishers):
            return f"{'; '.join(dict.fromkeys(apart))}: {remedy}"
        return f"{publishers[0].node} publishes on {topic}, but sends nothing, or it is lost in transport"

    def _is_late(self, name: str) -> bool:
        """Return whether an input has been subscribed to for so long that it should be there."""
        since_s = self._since_s.get(name)  # the executor's thread may take it away at any moment
        return since_s is not None and time.monotonic() - since_s > self._silence_s

    def _count(self, turn: DepthTurn, outcome: str, words: str) -> None:
        """Count a turn by an outcome, once, and tell of it, once for each kind of trouble."""
        if outcome not in turn.counted:
            turn.counted.add(outcome)
            self._statistics.count(outcome, cause=words)
        if words:
            self._stream.tell(re.sub(r"[\d.+-]+", "", words), words)

    def _forget(self, name: str) -> None:
        del self._since_s[name]
        with self._lock:
            if name == "depth":
                self._matcher.end()
                self._waiting = None
            else:
                self._info = None


def _given(settled: Sequence[tuple[DepthTurn, Image | None]]) -> list[DepthTurn]:
    """Give turns their depths, and return those that have labels too."""
    for turn, depth in settled:
        turn.depth = depth
    return [turn for turn, depth in settled if depth is not None and turn.frame is not None]
