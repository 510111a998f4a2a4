"""Plays a video, a folder of images or a camera device as a ROS image topic: `play_images`."""

from __future__ import annotations

import itertools
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
from rclpy.clock import Clock, ClockType
from rclpy.duration import Duration
from rclpy.node import Node
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from rt_panoptic_ros.errors import InvalidInputError, RtPanopticError, UnavailableError
from rt_panoptic_ros.files import output_path
from rt_panoptic_ros.frames.sources import open_source
from rt_panoptic_ros.ros import qos
from rt_panoptic_ros.ros.conversions import image_to_msg
from rt_panoptic_ros.ros.node.node_settings import RELIABILITIES
from rt_panoptic_ros.ros.node.parameters import declare_settings
from rt_panoptic_ros.ros.spinning import run_node
from rt_panoptic_ros.ros.text_arguments import texts_kept
from rt_panoptic_ros.settings import Change, setting

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterator, Sequence

    from rclpy.timer import Timer

    from rt_panoptic_ros.frames.sources import Frame

RATE_HZ = 10.0
"""For sources that have no rate of their own."""


@dataclass(frozen=True, slots=True)
class PlayerSettings:
    """What a user can say about the player."""

    source: str = setting(
        "", "An image, a folder of images, a video, or a camera such as 0 or /dev/video0.", Change.STARTUP
    )
    rate_hz: float = setting(
        0.0,
        f"Images per second; 0 for the source's own times, or {RATE_HZ:g} a second where it has none.",
        Change.STARTUP,
        minimum=0.0,
        maximum=1000.0,
    )
    loop: bool = setting(False, "Start again at the end, for ever.", Change.STARTUP)
    max_frames: int = setting(
        0, "Images after which to end; 0 for no limit.", Change.STARTUP, minimum=0, maximum=2**31 - 1
    )
    frame_id: str = setting("camera", "Frame id of the images.", Change.STARTUP)
    encoding: str = setting("rgb8", "Encoding of the images.", Change.STARTUP, choices=("rgb8", "bgr8"))
    reliability: str = setting("reliable", "Reliability offered to subscribers.", Change.STARTUP, choices=RELIABILITIES)
    wait_for_subscribers: int = setting(
        1, "Subscribers to wait for before the first image.", Change.STARTUP, minimum=0, maximum=1000
    )
    summary: str = setting("", "JSON file to write at the end; empty for none.", Change.STARTUP)


class ImagePlayer(Node):
    """Publishes each image at its time, stamped with that of its publication, and finishes after the last."""

    def __init__(self, finished: threading.Event, **node_options: Any) -> None:
        """Open the source.

        Args:
            finished: Set after the last image, or when the source fails.
            node_options: For rclpy's node.

        Raises:
            InvalidInputError: A parameter or the source is not valid.
            UnavailableError: The camera cannot be opened.
        """
        super().__init__("image_player", automatically_declare_parameters_from_overrides=True, **node_options)
        self.settings = declare_settings(self, PlayerSettings)
        self._finished = finished
        if not self.settings.source:
            raise InvalidInputError(
                "expected the parameter source to name an image, a folder of images, a video or a camera, got nothing: "
                "start with `-p source:=PATH`"
            )
        self._source = open_source(self.settings.source, loop=self.settings.loop)
        self._source.on_broken = lambda error: self.get_logger().warning(f"image left out: {error}")
        self._timed = self._source.timed and not self.settings.rate_hz
        self._rate_hz = self.settings.rate_hz or self._source.rate_hz or RATE_HZ
        self._frames: Iterator[Frame] = itertools.islice(self._source, self.settings.max_frames or None)
        self._publisher = self.create_publisher(Image, "image", qos.stream(self.settings.reliability))
        self._msg = Image()
        self._timer: Timer | None = None
        self._held: Frame | None = None  # decoded, and not due yet
        self._origin_s = 0.0  # monotonic time at which the source's time was 0
        self._last_s = 0.0  # of the source, of the image published last
        self._sent = 0
        self._status = 0

    def start(self) -> None:
        """Begin to play."""
        # The timer's due times are multiples of its period, so lateness doesn't add up; a missed one is left out.
        self._timer = self.create_timer(1 / self._rate_hz, self._tick, clock=Clock(clock_type=ClockType.STEADY_TIME))
        awaited = self.settings.wait_for_subscribers
        wait = f", waiting for {awaited} subscriber(s)" if awaited else ""
        self.get_logger().info(
            f"playing {self.settings.source} at {self._rate_hz:g} Hz on {self._publisher.topic_name}{wait}"
        )

    def finish(self) -> int:
        """Close the source and say how many images were published; return the exit status."""
        # What was published last may not have left this process.
        self._publisher.wait_for_all_acked(Duration(seconds=2))
        self._source.close()
        self.get_logger().info(f"published {self._sent} images")
        if self.settings.summary:
            rate_hz = (self._sent - 1) / self._last_s if self._timed and self._last_s else self._rate_hz
            try:
                with output_path(Path(self.settings.summary)) as path:
                    path.write_text(json.dumps({"frames": self._sent, "rate_hz": rate_hz}) + "\n", encoding="utf-8")
            except UnavailableError as error:
                self.get_logger().error(str(error))
                self._status = 1
        return self._status

    def _tick(self) -> None:
        if self._finished.is_set():
            return
        if not self._sent and self._publisher.get_subscription_count() < self.settings.wait_for_subscribers:
            return
        try:
            frame = self._held or next(self._frames, None)
        except RtPanopticError as error:
            self.get_logger().error(str(error))
            self._status = 1
            frame = None
        if frame is None:
            self._finished.set()
            return
        self._held = frame if self._timed and self._wait_for(frame.time_s) else None
        if self._held is not None:
            return
        self._last_s = frame.time_s
        pixels = frame.image if self.settings.encoding == "rgb8" else cv2.cvtColor(frame.image, cv2.COLOR_RGB2BGR)
        header = Header(stamp=self.get_clock().now().to_msg(), frame_id=self.settings.frame_id)
        self._publisher.publish(image_to_msg(pixels, self.settings.encoding, header, self._msg))
        self._sent += 1

    def _wait_for(self, time_s: float) -> bool:
        """Set the timer to a time of the source; return whether that is still to come."""
        assert self._timer is not None
        now_s = time.monotonic()
        if not self._sent:
            self._origin_s = now_s - time_s
        ahead_s = self._origin_s + time_s - now_s
        # Lateness of less than an image's period is made up for, more is not: no burst of images after a pause.
        self._origin_s += max(0.0, -ahead_s - (time_s - self._last_s))
        wait_ns = int(max(0.0, ahead_s) * 1e9)
        self._timer.timer_period_ns = wait_ns
        self._timer.reset()
        return wait_ns > 0


def main(args: Sequence[str] | None = None) -> int:
    """Run the player as a process."""
    with texts_kept(args, PlayerSettings) as kept:
        return run_node(ImagePlayer, kept)
