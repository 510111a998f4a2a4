# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""A labelled frame with its depth: the outputs that the node and bags make of the two."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from rt_panoptic_ros.errors import InvalidInputError
from rt_panoptic_ros.frames.pixel_encodings import to_rgb
from rt_panoptic_ros.geometry.boxes import IDENTITY, BoxFinder, Transform
from rt_panoptic_ros.geometry.cloud import fill_cloud, metres
from rt_panoptic_ros.geometry.intrinsics import Intrinsics
from rt_panoptic_ros.panoptic.class_filter import looked_up
from rt_panoptic_ros.panoptic.resizing import nearest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rt_panoptic_ros.labeller import LabelledFrame, OutputStyle


class MisalignedError(InvalidInputError):
    """Depth is of another size than image and outputs."""


@dataclass(frozen=True, slots=True)
class LocatedFrame:
    """A frame and its depth, both of the frame's size."""

    frame: LabelledFrame
    depth: np.ndarray  # (H, W) uint16 in mm or float32 in m, contiguous
    metres: np.ndarray  # (H, W) float32: the same in m, NaN where there is none

    @classmethod
    def of(cls, frame: LabelledFrame, depth: np.ndarray) -> LocatedFrame:
        """Return a frame with depth of the camera image's size, which is resized with the labels, or of the outputs'.

        Raises:
            MisalignedError: It is of another size.
        """
        image_size, size = frame.image.pixels.shape[:2], depth.shape[:2]
        if size not in (image_size, frame.size):
            raise MisalignedError(
                "expected depth of the colour image's size {}x{} px{}, got {}x{} (height x width): have the driver "
                "align depth to colour (RealSense: align_depth.enable:=true), and remap depth to that topic".format(
                    *image_size, "" if frame.size == image_size else " or the outputs' {}x{}".format(*frame.size), *size
                )
            )
        depth = np.ascontiguousarray(nearest(depth, frame.size))
        return cls(frame, depth, metres(depth))

    def filtered(self, style: OutputStyle) -> np.ndarray:
        """Return the depth, 0 where the mask has pixels."""
        kept = looked_up(self.frame.result.semantic, (~self.frame.masked(style)).astype(np.uint8))
        filtered: np.ndarray = cv2.copyTo(self.depth, kept)
        return filtered

    def intrinsics(self, info: Any) -> Intrinsics:
        """Return those of its pixels, given the camera's sensor_msgs/CameraInfo; see `Intrinsics.of` for errors."""
        return Intrinsics.of(info, self.frame.image.pixels.shape[:2], self.frame.size)

    def fill_cloud(self, cloud: np.ndarray, intrinsics: Intrinsics) -> None:
        """Fill an organised cloud, (H, W) of `cloud.POINT`; the frame must have all its images."""
        result, classes = self.frame.result, self.frame.classes
        assert result.confidence is not None
        semantic = result.semantic if classes.as_published else looked_up(result.semantic, classes.published)
        rgb = nearest(to_rgb(self.frame.image), self.frame.size)
        fill_cloud(cloud, self.metres, rgb, semantic, result.instance, result.confidence, intrinsics)

    def detections(
        self, finder: BoxFinder, intrinsics: Intrinsics, transform: Transform = IDENTITY
    ) -> Iterator[dict[str, Any]]:
        """Give the objects that have enough depth, by rising id; the frame must have its instances.

        Returns:
            What vision_msgs' Detection3D says of each: id (empty where ids don't last), class_id, score, center and
            size, (3,) float64 each, in m.
        """
        table, classes = self.frame.result.detections, self.frame.classes
        found = finder.find(self.metres, self.frame.result.instance, table.ids, table.mask_boxes, intrinsics, transform)
        for place in np.argsort(table.ids[found.rows]).tolist():
            row = found.rows[place]
            yield {
                "id": str(table.ids[row]) if self.frame.tracked else "",
                "class_id": str(classes.published[table.class_ids[row]]),
                "score": float(table.scores[row]),
                "center": found.centers[place],
                "size": found.sizes[place],
            }
