# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Outputs made with a bag's depth: frames wait in their order, each until its depth has come or can't come any more.

What becomes of a frame depends on the order of the bag's messages alone, so a run that goes on from a journal has every
frame wait again, those that the journal holds in name only.
"""

from __future__ import annotations

import struct
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from rosbags.serde import SerdeError

from rt_panoptic_ros.bags.journal import FrameRecord
from rt_panoptic_ros.bags.messages import message_store, serialised
from rt_panoptic_ros.errors import InvalidInputError, first_line
from rt_panoptic_ros.frames.depth import DepthMatcher, decode_depth
from rt_panoptic_ros.frames.message_layout import image_layout
from rt_panoptic_ros.frames.outputs import BAG_OUTPUTS, OUTPUTS, inputs_of
from rt_panoptic_ros.geometry.cloud import POINT, cloud_layout
from rt_panoptic_ros.geometry.intrinsics import scaled_info
from rt_panoptic_ros.geometry.located import LocatedFrame

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rt_panoptic_ros.bags.options import BagOptions
    from rt_panoptic_ros.geometry.boxes import BoxFinder
    from rt_panoptic_ros.geometry.intrinsics import Intrinsics
    from rt_panoptic_ros.labeller import LabelledFrame

DEPTH_IMAGE, CAMERA_INFO = "sensor_msgs/msg/Image", "sensor_msgs/msg/CameraInfo"

_WAITING = 8  # frames of a camera at most: some drivers send depth later than the next image
_DEPTH_REMEDY = "name the topic of depth that is aligned to the images with --depth"
_INFO_REMEDY = "name the topic of the images' calibration with --camera-info"


@dataclass(slots=True)
class PendingFrame:
    """A frame that is labelled, or, without labels, one that the journal holds or that was skipped."""

    record: FrameRecord | None  # what it gave without depth; None where the journal has it
    frame: LabelledFrame | None = None
    header: Any = None
    is_settled: bool = False


class FrameQueue:
    """One camera's frames."""

    def __init__(
        self,
        options: BagOptions,
        finder: BoxFinder | None,
        first_info: bytes | None,
        append: Callable[[FrameRecord], None],
    ) -> None:
        """Begin without frames.

        Args:
            options: Which outputs there are, of what look.
            finder: Finds objects' boxes, where they are wanted.
            first_info: The camera's first camera_info, which holds until another comes.
            append: Takes what a frame gave, in the frames' order.
        """
        self._options, self._finder, self._append = options, finder, append
        self._needs_depth = "depth" in inputs_of(options.outputs)
        self._matcher: DepthMatcher[PendingFrame, bytes] = DepthMatcher(_WAITING)
        self._frames: deque[PendingFrame] = deque()
        self._info = first_info

    def add_frame(self, data: bytes, pending: PendingFrame) -> None:
        """Take the next frame, whose image's message `data` is."""
        self._frames.append(pending)
        if self._needs_depth:
            slack_ns = round(self._options.depth_slack_s * 1e9)
            self._settle(self._matcher.add_frame(_stamp_ns(data), slack_ns, pending))
        else:
            self._settle([(pending, None)])

    def add_depth(self, data: bytes) -> None:
        """Take the next depth's message."""
        self._settle(self._matcher.add_depth(_stamp_ns(data), data))

    def add_info(self, data: bytes) -> None:
        """Take the next camera_info's message."""
        self._info = data

    def end(self) -> None:
        """Have all frames go without that still wait."""
        self._settle(self._matcher.end())

    def _settle(self, settled: list[tuple[PendingFrame, bytes | None]]) -> None:
        for pending, depth in settled:
            pending.is_settled = True
            if pending.frame is not None:
                assert pending.record is not None
                pending.record = self._completed(pending.record, pending.frame, pending.header, depth)
                pending.frame = None
        while self._frames and self._frames[0].is_settled:
            record = self._frames.popleft().record
            if record is not None:
                self._append(record)

    def _completed(self, record: FrameRecord, frame: LabelledFrame, header: Any, depth: bytes | None) -> FrameRecord:
        """Return what a frame gave with what its depth and its camera_info give, and why something is missing."""
        outputs, notes = dict(record.outputs), []
        wanted = [name for name in self._options.outputs if OUTPUTS[name].inputs]
        made = _Located(self._options, self._finder, frame, header, self._info, depth)
        for name in wanted:
            try:
                outputs[name] = made.message(name)
            except (InvalidInputError, SerdeError) as error:
                notes.append(f"{name}: {first_line(error)}")
        ordered = {name: outputs[name] for name in BAG_OUTPUTS if name in outputs}
        return FrameRecord(record.checksum, record.problem, ordered, record.state, "\n".join(notes))


class _Located:
    """Makes one frame's messages of those outputs."""

    def __init__(
        self,
        options: BagOptions,
        finder: BoxFinder | None,
        frame: LabelledFrame,
        header: Any,
        info: bytes | None,
        depth: bytes | None,
    ) -> None:
        self._options, self._finder, self._frame, self._header = options, finder, frame, header
        self._info_data, self._depth_data = info, depth
        self._located: LocatedFrame | None = None
        self._encoding = ""

    def message(self, output: str) -> memoryview:
        """Return one output.

        Raises:
            InvalidInputError: Depth or camera_info are missing, or can't be used.
            SerdeError: Their message is damaged.
        """
        make: Callable[[], memoryview] = getattr(self, f"_{output}")
        return make()

    def _camera_info(self) -> memoryview:
        info, frame = self._info(), self._frame
        fields = {name: getattr(info, name) for name in info.__dataclass_fields__ if not name.startswith("__")}
        image_size = frame.image.pixels.shape[:2]
        with _remedied(_INFO_REMEDY):
            fields |= {"header": self._header, **scaled_info(info, image_size, frame.size)}
        if frame.size != image_size:
            region: Any = message_store().types["sensor_msgs/msg/RegionOfInterest"]
            fields["roi"] = region(x_offset=0, y_offset=0, height=0, width=0, do_rectify=False)
        return serialised("camera_info", **fields)

    def _points(self) -> memoryview:
        located = self._with_depth()
        cloud = np.empty(self._frame.size, POINT)
        located.fill_cloud(cloud, self._intrinsics(located))
        field: Any = message_store().types["sensor_msgs/msg/PointField"]
        layout = cloud_layout(self._frame.size)
        layout["fields"] = [field(**one) for one in layout["fields"]]
        return serialised("points", header=self._header, data=cloud.reshape(-1).view(np.uint8), **layout)

    def _detections_3d(self) -> memoryview:
        assert self._finder is not None
        located = self._with_depth()
        types: Any = message_store().types
        point, vector = types["geometry_msgs/msg/Point"], types["geometry_msgs/msg/Vector3"]
        upright = types["geometry_msgs/msg/Quaternion"](x=0.0, y=0.0, z=0.0, w=1.0)
        messages = []
        for entry in located.detections(self._finder, self._intrinsics(located)):
            pose = types["geometry_msgs/msg/Pose"](point(*entry["center"].tolist()), upright)
            hypothesis = types["vision_msgs/msg/ObjectHypothesis"](class_id=entry["class_id"], score=entry["score"])
            uncertain = types["geometry_msgs/msg/PoseWithCovariance"](pose=pose, covariance=np.zeros(36))
            result = types["vision_msgs/msg/ObjectHypothesisWithPose"](hypothesis=hypothesis, pose=uncertain)
            box = types["vision_msgs/msg/BoundingBox3D"](center=pose, size=vector(*entry["size"].tolist()))
            messages.append(
                types["vision_msgs/msg/Detection3D"](header=self._header, results=[result], bbox=box, id=entry["id"])
            )
        return serialised("detections_3d", header=self._header, detections=messages)

    def _depth_filtered(self) -> memoryview:
        pixels = self._with_depth().filtered(self._options.model.style)
        data = pixels.reshape(-1).view(np.uint8)
        return serialised(
            "depth_filtered", header=self._header, encoding=self._encoding, data=data, **image_layout(pixels)
        )

    def _intrinsics(self, located: LocatedFrame) -> Intrinsics:
        info = self._info()
        with _remedied(_INFO_REMEDY):
            return located.intrinsics(info)

    def _info(self) -> Any:
        if self._info_data is None:
            raise InvalidInputError(f"expected a camera_info, the bag has none of the camera: {_INFO_REMEDY}")
        return message_store().deserialize_cdr(self._info_data, CAMERA_INFO)

    def _with_depth(self) -> LocatedFrame:
        if self._depth_data is None:
            raise InvalidInputError(
                f"expected depth within {1e3 * self._options.depth_slack_s:g} ms of the image's stamp, found none: a "
                "larger --depth-slack takes more, and --depth another topic"
            )
        if self._located is None:
            message: Any = message_store().deserialize_cdr(self._depth_data, DEPTH_IMAGE)
            with _remedied(_DEPTH_REMEDY):
                self._located, self._encoding = LocatedFrame.of(self._frame, decode_depth(message)), message.encoding
        return self._located


@contextmanager
def _remedied(remedy: str) -> Iterator[None]:
    """Have an error say what to do here, where nothing can be remapped and no driver be set."""
    try:
        yield
    except InvalidInputError as error:
        raise InvalidInputError(f"{first_line(error).partition(': ')[0]}: {remedy}") from error


def _stamp_ns(data: bytes) -> int:
    """Return the stamp, ns, of a serialised message that begins with a header, whatever follows; 0 if it is cut off."""
    if len(data) < 12:
        return 0
    seconds, nanoseconds = struct.unpack_from("<iI" if data[1] & 1 else ">iI", data, 4)
    return int(seconds) * 10**9 + int(nanoseconds)
