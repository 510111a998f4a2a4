# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Where objects are: the box around the visible surface of each, from its own pixels' depth.

A mask has pixels that aren't its object's: background seen through it or beside its outline, and flying pixels, which
depth cameras put between the two. So, of an object's pixels with depth,

1. those are dropped whose depth jumps to a neighbour and goes on to none on the other side: by more than a surface's
   that is seen at 87 degrees, or than noise does;
2. of the groups that a gap in depth separates, the one with the most pixels is kept;
3. along each axis an end is where the distribution's quantiles point to, less what the noise adds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import warp as wp

from rt_panoptic_ros.geometry import box_kernel
from rt_panoptic_ros.panoptic.launching import launch_rows
from rt_panoptic_ros.warp_runtime import load_kernels

if TYPE_CHECKING:
    from rt_panoptic_ros.geometry.intrinsics import Intrinsics


@dataclass(frozen=True, slots=True)
class Transform:
    """From the camera's optical frame to another: rotation @ point + translation."""

    rotation: np.ndarray  # (3, 3) float64
    translation: np.ndarray  # (3,) float64, m

    @classmethod
    def of_quaternion(cls, quaternion: tuple[float, float, float, float], translation: np.ndarray) -> Transform:
        """Return that of a quaternion (x, y, z, w) of any length but zero, and a translation (3,) in m."""
        x, y, z, w = np.asarray(quaternion) / np.linalg.norm(quaternion)
        cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
        return cls(np.eye(3) + 2 * (w * cross + cross @ cross), np.asarray(translation, np.float64))


IDENTITY = Transform(np.eye(3), np.zeros(3))


@dataclass(frozen=True, slots=True)
class ObjectBoxes:
    """Boxes of the objects that have enough depth, along the axes of one frame, m."""

    rows: np.ndarray  # (n,) int64: of the object among those asked for
    centers: np.ndarray  # (n, 3) float64
    sizes: np.ndarray  # (n, 3) float64


class BoxFinder:
    """Finds the boxes of frames' objects; holds buffers, and isn't safe for use by several threads at once."""

    def __init__(self) -> None:
        """Load the kernel.

        Raises:
            UnavailableError: There is no room for it.
        """
        load_kernels([box_kernel], "cpu")
        self._buffers: tuple[wp.array, ...] = ()
        self._capacity = 0

    def find(
        self,
        depth: np.ndarray,
        instance: np.ndarray,
        ids: np.ndarray,
        mask_boxes: np.ndarray,
        intrinsics: Intrinsics,
        transform: Transform = IDENTITY,
    ) -> ObjectBoxes:
        """Return the boxes of objects; those with less than `box_kernel.LEAST_PIXELS` of depth are left out.

        Args:
            depth: (H, W) float32 in m, NaN where there is none.
            instance: (H, W) uint16: id of the object that a pixel belongs to.
            ids: (n,) uint16, of the objects.
            mask_boxes: (n, 4) int32: their pixels' x_min, y_min, x_max, y_max, inclusive.
            intrinsics: Of these pixels.
            transform: To the frame of whose axes the boxes are.
        """
        count = len(ids)
        if count == 0:
            return ObjectBoxes(np.zeros(0, np.int64), np.zeros((0, 3)), np.zeros((0, 3)))
        sides = mask_boxes[:, 2:] - mask_boxes[:, :2] + 1
        frame = box_kernel.Frame()
        frame.depth, frame.instance = _shared(depth, wp.float32), _shared(instance, wp.uint16)
        frame.ids, frame.mask_boxes = _shared(ids, wp.uint16), _shared(mask_boxes, wp.int32)
        frame.strides = _shared(
            np.ceil(np.sqrt(sides.prod(axis=1, dtype=np.int64) / box_kernel.SAMPLES)).astype(np.int32), wp.int32
        )
        frame.camera = wp.vec4(intrinsics.fx, intrinsics.fy, intrinsics.cx, intrinsics.cy)
        frame.rotation, frame.translation = wp.mat33(transform.rotation), wp.vec3(transform.translation)
        frame.places, frame.depths, frame.values, frame.tail, frame.bins = self._room(count)
        ends = np.empty((count, 3, 2), np.float32)
        launch_rows(box_kernel.find_ends, (count,), frame, _shared(ends, wp.float32), least_cells=2)
        rows = np.flatnonzero(np.isfinite(ends[:, 0, 0]))
        low, high = ends[rows].astype(np.float64).transpose(2, 0, 1)
        return ObjectBoxes(rows, (low + high) / 2, high - low)

    def _room(self, count: int) -> tuple[wp.array, ...]:
        """Return the kernel's memory for so many objects."""
        if count > self._capacity:
            self._capacity = count
            samples, bins = box_kernel.SAMPLES, box_kernel.BINS
            shapes = (
                ((count, samples), wp.int32), ((count, samples), wp.float32), ((3 * count, samples), wp.float32),
                ((count, samples), wp.float32), ((count, bins), wp.int32),
            )  # fmt: skip
            self._buffers = tuple(wp.empty(shape, dtype=dtype, device="cpu") for shape, dtype in shapes)
        return self._buffers


def _shared(array: np.ndarray, dtype: Any) -> wp.array:
    """Return an array for a kernel, in the same memory if it is contiguous."""
    return wp.array(np.ascontiguousarray(array), dtype=dtype, device="cpu", copy=False)
