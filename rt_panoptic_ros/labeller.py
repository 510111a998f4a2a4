# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The one way from a camera image to its labels, which the node, bags, `predict` and `view` share.

an image message ─ frames.message_layout.decode_message ─► CameraImage
  ─ FrameLabeller.label: pipeline, label groups, class filter, tracking, output size ─► LabelledFrame
  ─► messages (`ros/node/outputs.py`, `bags/messages.py`) or files (`commands/predict.py`), or
      what a viewer shows (`commands/view.py`)
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import cv2
import numpy as np

from rt_panoptic_ros.drawing.overlay import painted, render_overlay
from rt_panoptic_ros.frames.pixel_encodings import to_rgb
from rt_panoptic_ros.panoptic.class_filter import keep_classes, looked_up, parse_class_names, relabel
from rt_panoptic_ros.panoptic.resizing import resized
from rt_panoptic_ros.panoptic.tracking import InstanceTracker, with_ids
from rt_panoptic_ros.records import LABELS, VOID
from rt_panoptic_ros.settings import OVERLAY_OPACITY, PALETTES

if TYPE_CHECKING:
    from collections.abc import Collection, Hashable

    from rt_panoptic_ros.model.class_table import ClassTable
    from rt_panoptic_ros.model.label_map import LabelMap
    from rt_panoptic_ros.pipeline import PanopticPipeline
    from rt_panoptic_ros.records import CameraImage, PanopticResult
    from rt_panoptic_ros.settings import PostprocessSettings


@dataclass(frozen=True, slots=True)
class OutputStyle:
    """What the images made of labels depend on besides them."""

    opacity: float = OVERLAY_OPACITY  # share of the class colours in the overlay, 0 to 1
    palette: str = PALETTES[0]  # the overlay's colours, see `render_overlay`
    mask_classes: frozenset[int] | None = None  # whose pixels the mask has; None for all things

    @classmethod
    def of(cls, opacity: float, palette: str, mask_classes: str, classes: ClassTable) -> OutputStyle:
        """Return the style with the classes of comma-separated names, of things or stuff; empty for all things.

        Raises:
            InvalidInputError: A name is not that of a class.
        """
        return cls(opacity, palette, parse_class_names(mask_classes, classes, "mask_classes", stuff=True))


@dataclass(frozen=True, slots=True)
class LabelledFrame:
    """A camera image and what all that is told of it is made from."""

    image: CameraImage
    result: PanopticResult  # objects of the wanted classes, under their final ids; of `size`
    classes: ClassTable  # what the labels mean
    tracked: bool  # whether an id is the same object's in all frames of the camera; else ids count from 1 in each
    timings_ms: dict[str, float]  # by stage
    size: tuple[int, int]  # (height, width) of all that is made of the labels, px

    def pixels(self, output: str, style: OutputStyle) -> np.ndarray:
        """Return one of the outputs that are images of fixed encodings (`frames.outputs`), of `size`.

        Args:
            output: Its name; the frame must have the images that it is made from.
            style: What it looks like.
        """
        result, classes = self.result, self.classes
        if output == "semantic":
            return result.semantic if classes.as_published else looked_up(result.semantic, classes.published)
        if output == "overlay":
            return self._overlay(style)
        if output == "mask":
            return looked_up(result.semantic, 255 * self.masked(style).astype(np.uint8))
        if output == "semantic_color":
            return painted(classes.colors, result.semantic)
        if output == "panoptic":
            panoptic = looked_up(result.semantic, classes.categories)
            panoptic |= result.instance.astype(np.int32) << 16
            return panoptic
        image: np.ndarray = getattr(result, output)
        return image

    def masked(self, style: OutputStyle) -> np.ndarray:
        """Return whether the mask has a class's pixels, (256,) bool by class id."""
        masked = np.zeros(VOID + 1, bool)
        masked[list(self.classes.thing_ids if style.mask_classes is None else style.mask_classes)] = True
        return masked

    def _overlay(self, style: OutputStyle) -> np.ndarray:
        """Return the labels (both of their images) drawn over the image, (H, W, 3) uint8 RGB; see `render_overlay`."""
        image = np.ascontiguousarray(to_rgb(self.image))
        if image.shape[:2] != self.size:
            method = cv2.INTER_AREA if math.prod(self.size) < math.prod(image.shape[:2]) else cv2.INTER_LINEAR
            image = cv2.resize(image, self.size[::-1], interpolation=method)
        return render_overlay(image, self.result, self.classes, style.opacity, style.palette)


class FrameLabeller:
    """Labels the frames of some cameras with one pipeline; not safe for use by several threads at once.

    Attributes:
        classes: What the labels mean: the model's classes, or what a label map makes of them.
    """

    def __init__(self, pipeline: PanopticPipeline, label_map: LabelMap | None = None) -> None:
        """Begin without tracks; the pipeline stays the caller's to close.

        Raises:
            InvalidInputError: The label map doesn't fit the model's classes.
        """
        self._pipeline = pipeline
        self.classes = label_map.table(pipeline.classes) if label_map else pipeline.classes
        self._new_ids = label_map.new_ids(pipeline.classes) if label_map else None
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
        output_size: tuple[int, int] | None = None,
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
            output_size: (height, width) of the labels, px, by nearest neighbour; None for the image's.
            settings: Of the post-processing, for this frame; None for the pipeline's.

        Raises:
            InvalidInputError: Not an image that the model can take.
            UnavailableError: The backend can't be had here (only with the first image of a size).
        """
        size = output_size or image.pixels.shape[:2]
        is_resized = size != image.pixels.shape[:2]
        # Objects are followed by their masks, and at another size have other ones; a class filter reads but the table.
        needed = images | {"instance"} if tracking or is_resized else images
        result = self._pipeline(image, settings=settings, images=needed)
        timings_ms = dict(self._pipeline.timings_ms)
        begin_s = time.perf_counter()
        # Which objects there are, and their ids, is found in the table; then the image is written anew once, if at all.
        if self._new_ids is not None:
            result = relabel(result, self._new_ids, self.classes.thing_ids)
        if class_ids is not None:
            result = keep_classes(result, class_ids)
        ids = None
        if tracking:
            ids = self.tracker(camera).update(result, stamp_ns)
        else:
            self._trackers.pop(camera, None)
        if is_resized:
            result, kept = resized(result, size)
            ids = None if ids is None else ids[kept]
        if "instance" not in images:
            result = replace(result, instance=np.empty((0, 0), np.uint16))
        if ids is None and (class_ids is not None or self._new_ids is not None or is_resized):
            ids = np.arange(1, len(result.detections) + 1, dtype=np.uint16)
        if ids is not None:
            result = with_ids(result, ids)
        if tracking:
            timings_ms["tracking"] = (time.perf_counter() - begin_s) * 1e3
        return LabelledFrame(image, result, self.classes, tracking, timings_ms, size)

    def tracker(self, camera: Hashable) -> InstanceTracker:
        """Return what follows a camera's objects."""
        return self._trackers.setdefault(camera, InstanceTracker())

    def reset_tracking(self) -> None:
        """Forget the objects of all cameras; any thread may say so, and it holds from the next frame on."""
        self._trackers.clear()
