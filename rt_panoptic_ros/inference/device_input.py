# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Brings a camera's image to the network's input on the device, from the camera's own bytes.

The host copies them into pinned memory and no more; colour order, resizing and padding are a kernel's, part of the
frame's graph, with the results of `input_image.prepare_input`, which are OpenCV's.
"""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING

import numpy as np
import warp as wp

from rt_panoptic_ros.warp_runtime import load_kernels

if TYPE_CHECKING:
    from rt_panoptic_ros.model.bundle import InputSpec
    from rt_panoptic_ros.records import CameraImage, ImageGeometry

wp.set_module_options({"enable_backward": False, "fuse_fp": False})  # without fused products: the CPU's bits

_RGB_OF = {"rgb": (0, 1, 2), "bgr": (2, 1, 0), "rgba": (0, 1, 2), "bgra": (2, 1, 0), "mono": (0, 0, 0)}
"""The channels that red, green and blue are of each colour order."""

_COEF = 2048
"""OpenCV's weights of a bilinear resizing are multiples of 1/2048."""

_QUARTER = 0.25 * (1 + 2.0**-18)
"""A quarter, after which halves are rounded up, as OpenCV does in these cases, where it rounds to even in others."""


def load_input(device: wp.Device | str) -> None:
    """Load the kernel; see `load_kernels`."""
    load_kernels((sys.modules[__name__],), device)


class DeviceInput:
    """Holds the buffers for images of one geometry and number of channels, and the weights of their resizing."""

    def __init__(self, geometry: ImageGeometry, channels: int, spec: InputSpec, target: wp.array) -> None:
        """Allocate on the device of `target` and, pinned, on the host.

        Args:
            geometry: How the camera's image lies in the network's input.
            channels: Bytes of a pixel: 1, 3 or 4.
            spec: The bundle's input.
            target: (H, W, 3) uint8 RGB, what `launch` fills: of the geometry's network size.
        """
        load_input(target.device)
        device, size = target.device, geometry.camera_height * geometry.camera_width * channels
        # The channels of red, green and blue lie behind the pixels, so that one graph serves rgb8 and bgr8.
        self._staged = wp.zeros(size + 3, dtype=wp.uint8, device="cpu", pinned=device.is_cuda)
        self._pixels = self._staged.numpy()[:size].reshape(*geometry.camera_size, channels)
        self._rgb = self._staged.numpy()[size:]
        self._uploaded = wp.empty_like(self._staged, device=device, pinned=False)
        bilinear, scale, *weights = resizing_weights(geometry)
        self._arguments = (
            self._uploaded, wp.vec3i(*geometry.camera_size, channels), bilinear, scale,
            *(wp.array(array, device=device) for array in weights), wp.vec3ub(*spec.fill_rgb),
        )  # fmt: skip
        self._target = target

    def stage(self, image: CameraImage) -> None:
        """Copy an image, whose rows may be padded, to where `launch` takes it from; a launch before must be done."""
        self._pixels[:] = image.pixels.reshape(self._pixels.shape)
        self._rgb[:] = _RGB_OF[image.color_order]

    def launch(self) -> None:
        """Enqueue the upload of what is staged, and the kernel that fills the target."""
        wp.copy(self._uploaded, self._staged)
        target = self._target
        wp.launch(fill_input, target.shape[:2], inputs=self._arguments, outputs=[target], device=target.device)


def resizing_weights(geometry: ImageGeometry) -> tuple[bool, float, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return how OpenCV resizes the camera's image to the content: as INTER_AREA where it shrinks, else INTER_LINEAR.

    Where one axis shrinks and the other grows, INTER_AREA is a bilinear resizing with other positions.

    Returns:
        Whether it is bilinear; what weighted sums are multiplied by; then, for rows and for columns, the first camera
        pixel of each content pixel, (n,) int32 from -1, and the weights of that one and the next ones, (taps, n)
        float32.
    """
    axes = list(zip(geometry.camera_size, geometry.content_size, strict=True))
    if any(camera < content for camera, content in axes):
        shrinks = any(camera > content for camera, content in axes)
        rows, columns = (_bilinear_weights(*axis, by_cell=shrinks) for axis in axes)
        return True, _QUARTER, *rows, *columns
    scales = [1 / (content / camera) for camera, content in axes]
    whole = all(abs(scale - round(scale)) < sys.float_info.epsilon for scale in scales)
    rows, columns = (_area_weights(*axis, whole=whole) for axis in axes)
    if not whole:
        return False, 1.0, *rows, *columns
    return False, _QUARTER if scales == [2, 2] else 1 / math.prod(scales), *rows, *columns


def _area_weights(camera: int, content: int, *, whole: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return first pixels and weights: what each content pixel's cell, [begin, begin + scale), covers of camera pixels.

    As shares of the cell or, where cells consist of whole pixels, as 1.
    """
    scale = 1 / (content / camera)
    begin = np.arange(content) * scale
    first = np.floor(begin).astype(np.int32)
    pixels = first + np.arange(math.ceil(scale) + 1)[:, None]
    covered = np.minimum(begin + scale, pixels + 1) - np.maximum(begin, pixels)
    covered[covered <= 1e-3] = 0  # as OpenCV leaves slivers out
    weights = (np.rint(covered) if whole else covered / np.minimum(scale, camera - begin)).astype(np.float32)
    return first, weights[weights.any(axis=1)]


def _bilinear_weights(camera: int, content: int, *, by_cell: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return first pixels and weights: between centres or, by cell, so that a pixel inside of one is taken whole."""
    index, scale = np.arange(content), 1 / (content / camera)
    if by_cell:
        first = np.floor(index * scale)
        second = ((index + 1) - (first + 1) * (content / camera)).astype(np.float32)
        second = np.where(second <= 0, 0, second - np.floor(second))
    else:
        position = ((index + 0.5) * scale - 0.5).astype(np.float32)
        first = np.floor(position)
        second = position - first
    weights = np.rint(np.stack([1 - second, second]).astype(np.float32) * _COEF)
    return first.astype(np.int32), weights.astype(np.float32)


@wp.kernel
def fill_input(
    pixels: wp.array(dtype=wp.uint8),
    shape: wp.vec3i,
    bilinear: wp.bool,
    scale: wp.float32,
    first_rows: wp.array(dtype=wp.int32),
    row_weights: wp.array2d(dtype=wp.float32),
    first_columns: wp.array(dtype=wp.int32),
    column_weights: wp.array2d(dtype=wp.float32),
    fill: wp.vec3ub,
    target: wp.array3d(dtype=wp.uint8),
) -> None:
    """Resize the camera's pixels, (H, W, C) of `shape` with the channels of red, green, blue behind, and pad."""
    y, x = wp.tid()
    if y >= first_rows.shape[0] or x >= first_columns.shape[0]:
        for c in range(3):
            target[y, x, c] = fill[c]
        return
    rgb = pixels.shape[0] - 3
    red, green, blue = wp.int32(pixels[rgb]), wp.int32(pixels[rgb + 1]), wp.int32(pixels[rgb + 2])
    total = wp.vec3(0.0, 0.0, 0.0)
    for i in range(row_weights.shape[0]):
        start = wp.clamp(first_rows[y] + i, 0, shape[0] - 1) * shape[1]
        along = wp.vec3(0.0, 0.0, 0.0)
        for j in range(column_weights.shape[0]):
            at = (start + wp.clamp(first_columns[x] + j, 0, shape[1] - 1)) * shape[2]
            r, g, b = pixels[at + red], pixels[at + green], pixels[at + blue]
            along += column_weights[j, x] * wp.vec3(wp.float32(r), wp.float32(g), wp.float32(b))
        total += weighted(row_weights[i, y], along, bilinear)
    for c in range(3):
        target[y, x, c] = wp.uint8(wp.rint(total[c] * scale))


@wp.func
def weighted(weight: wp.float32, along: wp.vec3, bilinear: wp.bool) -> wp.vec3:
    """Return weight * along; of a bilinear resizing in quarters of a level, cut off where OpenCV does, for its bits."""
    if not bilinear:
        return weight * along
    quarters = wp.vec3()
    for c in range(3):
        quarters[c] = wp.float32((wp.int32(weight) * (wp.int32(along[c]) >> 4)) >> 16)
    return quarters
