# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""A node's outputs and its cameras' images, as messages hold them, put together to what is shown of a frame.

The messages' classes may be rclpy's or those of `rosbags`, as for `frames.message_layout`.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from rt_panoptic_ros.errors import InvalidInputError
from rt_panoptic_ros.frames.matching import StampMatcher
from rt_panoptic_ros.frames.message_layout import decode_message, stamp_ns
from rt_panoptic_ros.frames.pixel_encodings import to_rgb
from rt_panoptic_ros.model.class_table import parse_published_table
from rt_panoptic_ros.viewing.recorder import ViewedFrame, ViewedObject

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from rt_panoptic_ros.model.class_table import ClassTable
    from rt_panoptic_ros.viewing.recorder import ViewRecorder

FRAME = ("semantic", "instance", "detections")
"""Outputs that are shown together, with the image that they are of."""
IMAGE, POINTS, CLASS_NAMES = "image", "points", "class_names"

_WAITING = 64  # frames of a camera: those of several cameras may come to each of them
_MOST_POINTS = 40_000  # of a cloud: some 0.6 MB a frame
_MOST_STEP = 1 << 16  # bytes from point to point


class OutputView:
    """Shows frames as soon as all of their messages are there.

    Attributes:
        skipped: {why: how many} messages that could not be shown.
    """

    def __init__(self, recorder: ViewRecorder, cameras: Mapping[str, Collection[str]]) -> None:
        """Prepare.

        Args:
            recorder: What shows them.
            cameras: {name: what comes of each of its frames, of `FRAME` and `IMAGE`}.
        """
        self._recorder = recorder
        self._matchers = {camera: StampMatcher(tuple(parts), _WAITING) for camera, parts in cameras.items()}
        self.skipped: dict[str, int] = {}

    @property
    def cameras(self) -> tuple[str, ...]:
        """The cameras' names."""
        return tuple(self._matchers)

    def add(self, camera: str, part: str, message: Any, time_ns: int) -> None:
        """Take a message; an image may be offered to cameras that it is not of.

        Args:
            camera: Whose it is; of the class names, any.
            part: Of `FRAME`, or one of the three others.
            message: The message.
            time_ns: When it came.
        """
        try:
            if part == CLASS_NAMES:
                self._recorder.show_classes(read_class_names(message.data))
            elif part == POINTS:
                self._recorder.add_points(camera, stamp_ns(message.header), *read_points(message))
            else:
                header = message.header
                parts = self._matchers[camera].add(part, (stamp_ns(header), header.frame_id), message)
                if parts is not None:
                    self._recorder.add(camera, _frame(parts, stamp_ns(header), time_ns))
        except InvalidInputError as error:
            self.skipped[str(error)] = self.skipped.get(str(error), 0) + 1


def _frame(parts: Mapping[str, Any], stamp: int, time_ns: int) -> ViewedFrame:
    """Return what is shown of a frame's messages, the last of which came at `time_ns`.

    Raises:
        InvalidInputError: An image is broken, or not what its topic says.
    """
    image = parts.get(IMAGE)
    detections = parts["detections"].detections if "detections" in parts else ()
    return ViewedFrame(
        stamp,
        image=None if image is None else to_rgb(decode_message(image)),
        semantic=_labels(parts.get("semantic"), "mono8"),
        instance=_labels(parts.get("instance"), "mono16"),
        objects=list(map(viewed_object, detections)),
        timings_ms={"stamp to outputs": (time_ns - stamp) / 1e6},
    )


def _labels(message: Any, encoding: str) -> np.ndarray | None:
    """Return an image of ids, (H, W) uint8 or uint16; None of None.

    Raises:
        InvalidInputError: It has another encoding, or not as many bytes as it says.
    """
    if message is None:
        return None
    kind = np.dtype(np.uint16 if encoding == "mono16" else np.uint8)
    height, width, step = int(message.height), int(message.width), int(message.step)
    data = np.frombuffer(message.data, np.uint8)
    if message.encoding != encoding or step < width * kind.itemsize or len(data) != height * step or not data.size:
        raise InvalidInputError(
            f"expected an image of ids as {encoding} of height x step bytes, got '{message.encoding:.20}' of "
            f"{height} x {step} px with {len(data)} bytes: the frame is not shown"
        )
    row = np.ascontiguousarray(data.reshape(height, step)[:, : width * kind.itemsize])
    ids: np.ndarray = row.view(kind.newbyteorder(">" if message.is_bigendian else "<")).astype(kind, copy=False)
    return ids


def viewed_object(detection: Any) -> ViewedObject:
    """Return what is shown of a PanopticDetection, or of anything with its fields."""
    region = detection.mask_box
    left, top = int(region.x_offset), int(region.y_offset)
    box = left, top, left + int(region.width), top + int(region.height)
    return ViewedObject(int(detection.instance_id), str(detection.class_name), float(detection.score), box)


def read_class_names(text: str) -> ClassTable:
    """Return the classes that a node's class names tell of.

    Raises:
        InvalidInputError: The text is not such a table.
    """
    try:
        document = json.loads(text)
    except (RecursionError, ValueError) as error:
        raise InvalidInputError(f"expected class names as JSON, got '{text[:60]}': {error}") from None
    return parse_published_table(document)


def read_points(cloud: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the points of a sensor_msgs/PointCloud2 that are there, at most some ten thousand, evenly spread.

    Returns:
        (n, 3) float32 x, y, z in m, and (n, 3) uint8 RGB.

    Raises:
        InvalidInputError: It has no x, y, z and rgb, or not as many bytes as it says.
    """
    offsets = {one.name: int(one.offset) for one in cloud.fields}
    height, width, step, row_step = int(cloud.height), int(cloud.width), int(cloud.point_step), int(cloud.row_step)
    data = np.frombuffer(cloud.data, np.uint8)
    names = ("x", "y", "z", "rgb")
    whole = len(data) == height * row_step and row_step >= width * step and step < _MOST_STEP
    if not whole or not all(4 <= offsets.get(name, step) + 4 <= step for name in names):
        raise InvalidInputError(
            f"expected points with {', '.join(names)} in their {step} bytes and height x row_step bytes, got "
            f"{', '.join(offsets)} in {height} rows of {row_step} bytes with {len(data)} bytes: they are not shown"
        )
    order = ">" if cloud.is_bigendian else "<"
    kind = np.dtype(
        {
            "names": names, "formats": [f"{order}f4"] * 3 + [f"{order}u4"],
            "offsets": [offsets[name] for name in names], "itemsize": step,
        }
    )  # fmt: skip
    every = max(1, math.ceil(math.sqrt(height * width / _MOST_POINTS)))
    rows = data.reshape(height, row_step)[::every, : width * step] if data.size else data.reshape(0, width * step)
    points = np.ascontiguousarray(rows).view(kind)[:, ::every].ravel()
    positions = np.stack([points[name] for name in names[:3]], axis=1).astype(np.float32)
    rgb = np.stack([points["rgb"] >> shift & 0xFF for shift in (16, 8, 0)], axis=1).astype(np.uint8)
    there = np.isfinite(positions).all(axis=1)
    return positions[there], rgb[there]
