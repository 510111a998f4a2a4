# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""What colour-blind people see of colours, and how far colours lie apart to them: for pictures and tests."""

from __future__ import annotations

import numpy as np

from rt_panoptic_ros.drawing.color_vision import lab, linear_rgb

DEFICIENCIES = {
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}
"""Matrices on linear RGB for cones of one kind missing: Machado, Oliveira and Fernandes 2009, severity 1.0."""


def simulated(colors: np.ndarray, deficiency: str) -> np.ndarray:
    """Return sRGB colours, (..., 3) in 0..255, as people with one of the `DEFICIENCIES` see them; not rounded."""
    linear = np.clip(linear_rgb(colors) @ np.array(DEFICIENCIES[deficiency]).T, 0, 1)
    srgb: np.ndarray = 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return srgb


def closest_pair(colors: np.ndarray) -> float:
    """Return the least CIELAB distance (1976) between any two colours, to normal and to colour-blind people.

    Args:
        colors: (n, 3) sRGB in 0..255, n at least 2.
    """
    views = [lab(colors), *(lab(simulated(colors, deficiency)) for deficiency in DEFICIENCIES)]
    first, second = np.triu_indices(len(colors), 1)
    return min(float(np.linalg.norm(view[first] - view[second], axis=1).min()) for view in views)
