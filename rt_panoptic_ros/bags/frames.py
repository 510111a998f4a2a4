"""Labels the frames of a bag's cameras, one after the other."""

from __future__ import annotations

import io
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
from rosbags.serde import SerdeError

from rt_panoptic_ros.bags.journal import FrameRecord
from rt_panoptic_ros.bags.messages import camera_image, frame_messages, read_image_message
from rt_panoptic_ros.errors import InvalidInputError, first_line
from rt_panoptic_ros.frames.message_layout import stamp_ns
from rt_panoptic_ros.panoptic.class_filter import keep_classes
from rt_panoptic_ros.panoptic.tracking import InstanceTracker
from rt_panoptic_ros.pipeline import PanopticPipeline, open_pipeline

if TYPE_CHECKING:
    from rt_panoptic_ros.bags.options import BagOptions


class FrameLabeller:
    """Makes output messages of image messages; the engine is loaded with the first one."""

    def __init__(self, options: BagOptions) -> None:
        """Begin without a camera."""
        self._options = options
        self._pipeline: PanopticPipeline | None = None
        self._trackers: dict[int, InstanceTracker] = {}

    def restore(self, camera: int, state: bytes) -> None:
        """Go on behind the frame of a camera whose record has `state`."""
        if self._options.tracking:
            self._trackers[camera] = tracker = InstanceTracker()
            with np.load(io.BytesIO(state), allow_pickle=False) as arrays:
                tracker.restore(arrays)

    def label(self, camera: int, data: bytes, message_type: str) -> FrameRecord:
        """Return what a camera's next frame gives; one that is broken or not a camera's gives why it is skipped.

        Args:
            camera: Its number.
            data: The serialised message.
            message_type: The message's type.

        Raises:
            UnavailableError: The engine can't be had here.
        """
        options, model = self._options, self._options.model
        tracker = self._trackers.setdefault(camera, InstanceTracker()) if options.tracking else None
        checksum = zlib.crc32(data)
        try:
            message = read_image_message(data, message_type)
            image = camera_image(message)
        except (InvalidInputError, SerdeError) as error:
            return FrameRecord(checksum, problem=first_line(error), state=_kept(tracker))
        if self._pipeline is None:
            self._pipeline = open_pipeline(**options.pipeline)
        result = self._pipeline(image, confidence="confidence" in options.outputs)
        if model.wanted_classes is not None:
            result = keep_classes(result, model.wanted_classes)
        ids = tracker.update(result, stamp_ns(message.header)) if tracker else None
        messages = frame_messages(options.outputs, image, result, ids, model.bundle.classes, message.header)
        return FrameRecord(checksum, outputs=messages, state=_kept(tracker))

    def describe(self) -> str:
        """Return what labelled the frames; nothing where there was none to label."""
        return self._pipeline.describe() if self._pipeline else ""

    def close(self) -> None:
        """Free the engine."""
        if self._pipeline is not None:
            self._pipeline.close()


def _kept(tracker: InstanceTracker | None) -> bytes:
    """Return a tracker's state for a file."""
    if tracker is None:
        return b""
    file = io.BytesIO()
    arrays: dict[str, Any] = tracker.state()
    np.savez(file, **arrays)
    return file.getvalue()
