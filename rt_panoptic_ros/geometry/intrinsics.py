# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""How pixels of the outputs lie in space: a sensor_msgs/CameraInfo, whoever's class holds it, for images of any size.

As in image_geometry's PinholeCameraModel, P, K and the region of interest count pixels of the whole sensor, before
binning. An output of another size than the camera's image has its pixels' centres at (u + 0.5) s - 0.5, as nearest
neighbours have. Colour and the depth aligned to it are taken as rectified: distortion is not undone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rt_panoptic_ros.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import Self


_MOST_DISTORTION = 64  # coefficients, or characters of their model's name; OpenCV has 14
_MOST = 1e6  # px, of a focal length or a principal point


@dataclass(frozen=True, slots=True)
class Intrinsics:
    """A pinhole camera: the point (x, y, z) is seen at u = fx x / z + cx, v = fy y / z + cy, px."""

    fx: float
    fy: float
    cx: float
    cy: float

    @classmethod
    def of(cls, info: Any, image_size: tuple[int, int], size: tuple[int, int]) -> Self:
        """Return those of an output's pixels: P's where the camera has a P, else K's.

        Args:
            info: The camera's sensor_msgs/CameraInfo.
            image_size: (height, width) of its images, px.
            size: (height, width) of the output, px.

        Raises:
            InvalidInputError: The camera is not calibrated, or the info is of images of another size.
        """
        matrix = info.p if info.p[0] > 0 else info.k
        columns = len(matrix) // 3
        fx, fy, cx, cy = (float(matrix[place]) for place in (0, columns + 1, 2, columns + 2))
        if not (0 < fx < _MOST and 0 < fy < _MOST and abs(cx) < _MOST and abs(cy) < _MOST):
            raise InvalidInputError(
                f"expected a camera_info with focal lengths above 0, got P with {info.p[0]:g} and {info.p[5]:g}, K "
                f"with {info.k[0]:g} and {info.k[4]:g}: calibrate the camera, or have its driver load the calibration"
            )
        (scale_x, scale_y), (shift_x, shift_y) = _to_output(info, image_size, size)
        return cls(fx * scale_x, fy * scale_y, cx * scale_x + shift_x, cy * scale_y + shift_y)


def scaled_info(info: Any, image_size: tuple[int, int], size: tuple[int, int]) -> dict[str, Any]:
    """Return the fields of a camera_info that differ for an output: none where it has the camera image's size.

    Else width, height, K and P are the output's, and binning and region of interest are in them.

    Args:
        info: The camera's sensor_msgs/CameraInfo.
        image_size: (height, width) of its images, px.
        size: (height, width) of the output, px.

    Raises:
        InvalidInputError: The info is of images of another size.
    """
    scales, shifts = _to_output(info, image_size, size)
    if size == image_size:
        return {}
    change = np.array([[scales[0], 0, shifts[0]], [0, scales[1], shifts[1]], [0, 0, 1]])
    k, p = (np.asarray(matrix, np.float64) for matrix in (info.k, info.p))
    return {
        "height": size[0], "width": size[1], "binning_x": 0, "binning_y": 0,
        "k": (change @ k.reshape(3, 3)).reshape(-1), "p": (change @ p.reshape(3, 4)).reshape(-1),
    }  # fmt: skip


def _to_output(
    info: Any, image_size: tuple[int, int], size: tuple[int, int]
) -> tuple[Sequence[float], Sequence[float]]:
    """Return (x, y) scales and shifts from pixels of the sensor to those of an output."""
    if max(len(info.d), len(info.distortion_model)) > _MOST_DISTORTION:
        raise InvalidInputError(
            f"expected a camera_info with at most {_MOST_DISTORTION} distortion coefficients, got {len(info.d)} and a "
            f"model's name of {len(info.distortion_model)} characters: calibrate the camera"
        )
    roi = info.roi
    binning = max(info.binning_y, 1), max(info.binning_x, 1)
    seen = (roi.height or info.height) // binning[0], (roi.width or info.width) // binning[1]
    if seen != image_size:
        raise InvalidInputError(
            "expected a camera_info for images of {}x{} px, got one for {}x{} (height x width, with its region of "
            "interest and binning): remap camera_info to the one beside the images".format(*image_size, *seen)
        )
    scales, shifts = [], []
    for axis, offset in ((1, roi.x_offset), (0, roi.y_offset)):
        scale = size[axis] / image_size[axis]
        scales.append(scale / binning[axis])
        shifts.append((0.5 - offset / binning[axis]) * scale - 0.5)
    return scales, shifts
