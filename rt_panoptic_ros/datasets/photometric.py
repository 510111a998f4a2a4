# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Random changes of colours and sharpness; labels stay as they are."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import cv2
import numpy as np
from scipy.special import ndtri

if TYPE_CHECKING:
    from rt_panoptic_ros.datasets.base import PanopticSample

_YIQ = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
_LUMA = np.array([0.299, 0.587, 0.114])  # weights of R, G and B in the grey value (ITU-R BT.601)


def color_jitter(
    sample: PanopticSample,
    rng: np.random.Generator,
    brightness: float,
    contrast: float,
    saturation: float,
    *,
    hue: float = 0.0,
    grey_probability: float = 0.0,
    gamma: float = 0.0,
) -> PanopticSample:
    """Return the sample in randomly changed colours, labels untouched.

    Brightness scales the colours, contrast their distance to the image's mean grey value, saturation their distance to
    the pixel's own grey value, in this order and with the values clipped to 0..255 at the end only; then hue turns the
    colours around grey (in YIQ), and gamma raises them to a power.

    Args:
        sample: The labelled image.
        rng: Source of the three factors.
        brightness: x of the range [1 - x, 1 + x] that the factor is drawn from, 0 to 1; 0 for no change.
        contrast: The same for contrast.
        saturation: The same for saturation.
        hue: Largest angle, degrees.
        grey_probability: Of saturation 0.
        gamma: x of the exponent's range [1 / (1 + x), 1 + x].
    """
    if brightness == contrast == saturation == hue == grey_probability == gamma == 0:
        return sample
    b, c, s = (rng.uniform(1 - x, 1 + x) for x in (brightness, contrast, saturation))
    if grey_probability and rng.random() < grey_probability:
        s = 0.0
    mean_grey = b * float(_LUMA @ cv2.mean(sample.image)[:3])
    # All but gamma are affine in the colour, so together they are one 3x4 matrix and one pass over the image.
    matrix = np.empty((3, 4))
    matrix[:, :3] = b * c * (s * np.eye(3) + (1 - s) * _LUMA)
    matrix[:, 3] = (1 - c) * mean_grey
    if hue:
        angle = np.radians(rng.uniform(-hue, hue))
        turn = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
        matrix = np.linalg.solve(_YIQ, turn @ _YIQ) @ matrix
    image = cv2.transform(sample.image, matrix)
    if gamma:
        exponent = (1 + gamma) ** rng.uniform(-1, 1)
        image = cv2.LUT(image, np.rint(255 * (np.arange(256) / 255) ** exponent).astype(np.uint8))
    return replace(sample, image=image)


def degrade(
    sample: PanopticSample, rng: np.random.Generator, blur: float, noise: float, jpeg_quality: int
) -> PanopticSample:
    """Return the sample as a worse camera would have taken it, labels untouched; each of the three with chance 1/2.

    Args:
        sample: The labelled image.
        rng: Source of all choices.
        blur: Largest standard deviation of a Gaussian blur, px; 0 for none.
        noise: Largest standard deviation of Gaussian noise, the same in all three colours, grey levels; 0 for none.
        jpeg_quality: Lowest quality of JPEG compression, 1 to 100; 100 for none.
    """
    image = sample.image
    if blur and rng.random() < 0.5:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.1, max(blur, 0.1)))
    if noise and rng.random() < 0.5:
        levels = np.rint(rng.uniform(0, noise) * ndtri((np.arange(256) + 0.5) / 256)).clip(-128, 127).astype(np.int8)
        grain = cv2.LUT(rng.integers(0, 256, image.shape[:2], np.uint8), levels)  # 20 times faster than normal numbers
        image = cv2.add(image, cv2.merge([grain] * 3), dtype=cv2.CV_8U)
    if jpeg_quality < 100 and rng.random() < 0.5:
        quality = int(rng.integers(jpeg_quality, 100))
        _, code = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
        decoded = cv2.imdecode(code, cv2.IMREAD_COLOR)
        assert decoded is not None, "OpenCV can't read what it wrote"
        image = cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)
    return sample if image is sample.image else replace(sample, image=image)
