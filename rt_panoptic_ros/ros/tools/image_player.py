# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Plays a video, a folder of images or a camera device as a ROS image topic: `play_images`."""

from __future__ import annotations

import itertools
import json
import threading
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
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
    from collections.abc import Callable, Sequence

    from rt_panoptic_ros.frames.sources import Frame

RATE_HZ = 10.0
"""For sources that have no rate of their own."""

_POLL_S = 0.1  # how often subscribers are looked for
_setting = partial(setting, change=Change.STARTUP)


@dataclass(frozen=True, slots=True)
class PlayerSettings:
    """What a user can say about the player."""

    source: str = _setting("", "An image, a folder of images, a video, or a camera such as 0 or /dev/video0.")
    rate_hz: float = _setting(
        0.0, f"Images per second; 0 for the source's own times, or {RATE_HZ:g} a second where it has none.",
        minimum=0.0, maximum=1000.0,
    )  # fmt: skip
    loop: bool = _setting(False, "Start again at the end, for ever.")
    max_frames: int = _setting(0, "Images after which to end; 0 for no limit.", minimum=0, maximum=2**31 - 1)
    frame_id: str = _setting("camera", "Frame id of the images.")
    encoding: str = _setting("rgb8", "Encoding of the images.", choices=("rgb8", "bgr8"))
    reliability: str = _setting("reliable", "Reliability offered to subscribers.", choices=RELIABILITIES)
    wait_for_subscribers: int = _setting(1, "Subscribers to wait for before the first image.", minimum=0, maximum=1000)
    summary: str = _setting("", "JSON file to write at the end; empty for none.")


class ImagePlayer(Node):
    """Publishes each image at its time, stamped with that of its publication, and finishes after the last."""

    def __init__(
        self, finished: threading.Event, monotonic: Callable[[], float] = time.monotonic, **node_options: Any
    ) -> None:
        """Open the source.

        Args:
            finished: Set after the last image, or when the source fails; whoever sets it before ends the playing.
            monotonic: Tells the time that images come by, s.
            node_options: For rclpy's node.

        Raises:
            InvalidInputError: A parameter or the source is not valid.
            UnavailableError: The camera cannot be opened.
        """
        super().__init__("image_player", automatically_declare_parameters_from_overrides=True, **node_options)
        self.settings = declare_settings(self, PlayerSettings)
        if not self.settings.source:
            raise InvalidInputError(
                "expected the parameter source to name an image, a folder of images, a video or a camera, got nothing: "
                "start with `-p source:=PATH`"
            )
        self._finished = finished
        self._monotonic = monotonic
        self._source = open_source(self.settings.source, loop=self.settings.loop)
        self._source.on_broken = lambda error: self.get_logger().warning(f"image left out: {error}")
        self._timed = self._source.timed and not self.settings.rate_hz
        self._rate_hz = self.settings.rate_hz or self._source.rate_hz or RATE_HZ
        self._publisher = self.create_publisher(Image, "image", qos.stream(self.settings.reliability))
        self._msg = Image()
        self._last_s = 0.0  # of the source, of the image published last
        self._sent = 0
        self._failed = False
        self._thread = threading.Thread(target=self.play, name="player")

    def start(self) -> None:
        """Begin to play, in a thread of its own, as reading waits for a camera."""
        awaited = self.settings.wait_for_subscribers
        wait = f", waiting for {awaited} subscriber(s)" if awaited else ""
        self.get_logger().info(
            f"playing {self.settings.source} at {self._rate_hz:g} Hz on {self._publisher.topic_name}{wait}"
        )
        self._thread.start()

    def finish(self) -> int:
        """Close the source and say how many images were published; return the exit status."""
        self._finished.set()
        if self._thread.is_alive():
            self._thread.join()
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
                self._failed = True
        return int(self._failed)

    def play(self) -> None:
        """Publish all images, each at its time."""
        self._failed = True  # unless it comes to a good end
        try:
            while self._publisher.get_subscription_count() < self.settings.wait_for_subscribers:
                if self._finished.wait(_POLL_S):
                    break
            origin_s: float | None = None  # monotonic time at which the source's time was 0
            for frame in itertools.islice(self._source, self.settings.max_frames or None):
                time_s = frame.time_s if self._timed else self._sent / self._rate_hz
                now_s = self._monotonic()
                origin_s = now_s - time_s if origin_s is None else origin_s
                ahead_s = origin_s + time_s - now_s
                # Lateness of less than an image's period is made up for, more is not: no burst of images after a pause.
                origin_s += max(0.0, -ahead_s - (time_s - self._last_s))
                if self._finished.wait(max(0.0, ahead_s)):
                    break
                self.publish(frame)
                self._last_s = time_s
                self._sent += 1
            self._failed = False
        except RtPanopticError as error:
            self.get_logger().error(str(error))
        finally:
            self._finished.set()

    def publish(self, frame: Frame) -> None:
        """Publish an image with the present time as its stamp."""
        pixels = frame.image if self.settings.encoding == "rgb8" else cv2.cvtColor(frame.image, cv2.COLOR_RGB2BGR)
        header = Header(stamp=self.get_clock().now().to_msg(), frame_id=self.settings.frame_id)
        self._publisher.publish(image_to_msg(pixels, self.settings.encoding, header, self._msg))


def main(args: Sequence[str] | None = None) -> int:
    """Run the player as a process."""
    with texts_kept(args, PlayerSettings) as kept:
        return run_node(ImagePlayer, kept)
