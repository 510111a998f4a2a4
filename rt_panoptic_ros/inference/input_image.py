# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Brings a camera's image to the network's input: resizing, padding, colour order."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

from rt_panoptic_ros.errors import InvalidInputError
from rt_panoptic_ros.frames.pixel_encodings import to_rgb
from rt_panoptic_ros.records import CameraImage, ImageGeometry

if TYPE_CHECKING:
    from rt_panoptic_ros.model.bundle import InputSpec

MAX_NETWORK_MEGAPIXELS = 16
"""Of an input whose size nobody has chosen: a network takes some hundred bytes of memory for each of its pixels."""

_CHANNELS = {"rgb": 3, "bgr": 3, "rgba": 4, "bgra": 4, "mono": None}


def check_image(image: CameraImage) -> None:
    """Check an image's dtype, axes and channels.

    Raises:
        InvalidInputError: Not uint8, empty, or without the channels of its colour order.
    """
    pixels, channels = image.pixels, _CHANNELS[image.color_order]
    shape = "(H, W)" if channels is None else f"(H, W, {channels})"
    fits = pixels.ndim == 2 if channels is None else pixels.ndim == 3 and pixels.shape[2] == channels
    if not fits or pixels.dtype != np.uint8 or pixels.size == 0:
        raise InvalidInputError(
            f"expected a {image.color_order} image as uint8 {shape}, got {pixels.dtype} {pixels.shape}"
        )


def plan_geometry(camera_size: tuple[int, int], spec: InputSpec, network_size: tuple[int, int] | None) -> ImageGeometry:
    """Return how images of `camera_size` lie in the network's input.

    Args:
        camera_size: (height, width) px.
        spec: The bundle's input.
        network_size: (height, width) px in place of the bundle's `size`; None keeps that.

    Raises:
        InvalidInputError: The model takes images as they come, and these are too large for that.
    """
    height, width = camera_size
    if network_size is None and spec.size is None and height * width > MAX_NETWORK_MEGAPIXELS * 10**6:
        raise InvalidInputError(
            f"expected images of at most {MAX_NETWORK_MEGAPIXELS} megapixels, as the model takes them as they come, "
            f"got height {height} and width {width}: set network_size"
        )
    target = network_size or spec.size or camera_size
    content = target
    if spec.fit == "pad":
        scale = min(target[0] / height, target[1] / width)
        content = (max(1, round(height * scale)), max(1, round(width * scale)))
    padded = [-(-side // spec.size_divisor) * spec.size_divisor for side in target]
    return ImageGeometry(height, width, *content, *padded)


def prepare_input(image: CameraImage, geometry: ImageGeometry, spec: InputSpec) -> np.ndarray:
    """Return the network's input: uint8 RGB of the geometry's network size, contiguous.

    Resizing is bilinear, by area where the image shrinks; padding has the mean's colour. An RGB image of the right
    size is returned as it is, without a copy.
    """
    pixels = image.pixels
    height, width = geometry.content_size
    if geometry.camera_size != geometry.content_size:
        shrinks = height < geometry.camera_height or width < geometry.camera_width
        pixels = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    pixels = to_rgb(CameraImage(pixels, image.color_order))
    if geometry.network_size != geometry.content_size:
        below, right = geometry.network_height - height, geometry.network_width - width
        pixels = cv2.copyMakeBorder(pixels, 0, below, 0, right, cv2.BORDER_CONSTANT, value=spec.fill_rgb)
    return np.ascontiguousarray(pixels)
