"""The one way from a camera image to its labels, which the node, bags and `predict` share.

an image message ─ frames.message_layout.decode_message ─► CameraImage
  ─ FrameLabeller.label: pipeline, class filter, tracking ─► LabelledFrame
  ─► messages (`ros/node/outputs.py`, `bags/messages.py`) or files (`commands/predict.py`)
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from rt_panoptic_ros.drawing.overlay import render_overlay
from rt_panoptic_ros.frames.pixel_encodings import to_rgb
from rt_panoptic_ros.panoptic.class_filter import keep_classes
from rt_panoptic_ros.panoptic.tracking import InstanceTracker, with_ids
from rt_panoptic_ros.records import LABELS

if TYPE_CHECKING:
    from collections.abc import Collection, Hashable

    from rt_panoptic_ros.model.class_table import ClassTable
    from rt_panoptic_ros.pipeline import PanopticPipeline
    from rt_panoptic_ros.records import CameraImage, PanopticResult
    from rt_panoptic_ros.settings import PostprocessSettings


@dataclass(frozen=True, slots=True)
class LabelledFrame:
    """A camera image and what all that is told of it is made from."""

    image: CameraImage
    result: PanopticResult  # objects of the wanted classes, under their final ids
    classes: ClassTable  # what the labels mean
    tracked: bool  # whether an id is the same object's in all frames of the camera; else ids count from 1 in each
    timings_ms: dict[str, float]  # by stage

    def overlay(self, opacity: float, palette: str) -> np.ndarray:
        """Return the labels (both of their images) drawn over the image, (H, W, 3) uint8 RGB; see `render_overlay`."""
        image = np.ascontiguousarray(to_rgb(self.image))
        return render_overlay(image, self.result, self.classes, opacity, palette)


class FrameLabeller:
    """Labels the frames of some cameras with one pipeline; not safe for use by several threads at once."""

    def __init__(self, pipeline: PanopticPipeline) -> None:
        """Begin without tracks; the pipeline stays the caller's to close."""
        self._pipeline = pipeline
        self._trackers: dict[Hashable, InstanceTracker] = {}

    def label(
        self,
        image: CameraImage,
        stamp_ns: int,
        *,
        camera: Hashable = "",
        class_ids: Collection[int] | None = None,
        tracking: bool = False,
        images: frozenset[str] = LABELS,
        settings: PostprocessSettings | None = None,
    ) -> LabelledFrame:
        """Label a camera's next frame.

        Args:
            image: Its pixels.
            stamp_ns: Its stamp.
            camera: Whose it is: each camera's objects are tracked on their own.
            class_ids: The classes whose objects are told of; None for all. The semantics keep all classes.
            tracking: Keep an object's id from frame to frame; a frame without forgets the camera's objects.
            images: Those of `records.IMAGES` that are wanted.
            settings: Of the post-processing, for this frame; None for the pipeline's.

        Raises:
            InvalidInputError: Not an image that the model can take.
            UnavailableError: The backend can't be had here (only with the first image of a size).
        """
        # Objects are followed by their masks; a class filter reads no more than the table.
        needed = images | {"instance"} if tracking else images
        result = self._pipeline(image, settings=settings, images=needed)
        timings_ms = dict(self._pipeline.timings_ms)
        begin_s = time.perf_counter()
        # Which objects there are, and their ids, is found in the table; then the image is written anew once, if at all.
        if class_ids is not None:
            result = keep_classes(result, class_ids)
        if tracking:
            ids = self.tracker(camera).update(result, stamp_ns)
            if "instance" not in images:
                result = replace(result, instance=np.empty((0, 0), np.uint16))
            result = with_ids(result, ids)
            timings_ms["tracking"] = (time.perf_counter() - begin_s) * 1e3
        else:
            self._trackers.pop(camera, None)
            if class_ids is not None:
                result = with_ids(result, np.arange(1, len(result.detections) + 1, dtype=np.uint16))
        return LabelledFrame(image, result, self._pipeline.classes, tracking, timings_ms)

    def tracker(self, camera: Hashable) -> InstanceTracker:
        """Return what follows a camera's objects."""
        return self._trackers.setdefault(camera, InstanceTracker())

    def reset_tracking(self) -> None:
        """Forget the objects of all cameras; any thread may say so, and it holds from the next frame on."""
        self._trackers.clear()
