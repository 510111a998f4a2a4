# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""How colours look to people: luminance and CIELAB."""

from __future__ import annotations

import numpy as np

# IEC 61966-2-1: linear sRGB to CIE XYZ, and D65, its white.
_TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
_WHITE = _TO_XYZ.sum(axis=1)


def linear_rgb(colors: np.ndarray) -> np.ndarray:
    """Return linear RGB, (..., 3) in 0..1, of sRGB colours, (..., 3) in 0..255."""
    part = np.asarray(colors, np.float64) / 255
    linear: np.ndarray = np.where(part <= 0.04045, part / 12.92, ((part + 0.055) / 1.055) ** 2.4)
    return linear


def luminance(colors: np.ndarray) -> np.ndarray:
    """Return the relative luminance (WCAG 2), (...) in 0..1, of sRGB colours, (..., 3) in 0..255."""
    result: np.ndarray = linear_rgb(colors) @ _TO_XYZ[1]
    return result


def lab(colors: np.ndarray) -> np.ndarray:
    """Return CIELAB, (..., 3) with L in 0..100, of sRGB colours, (..., 3) in 0..255."""
    xyz = linear_rgb(colors) @ _TO_XYZ.T / _WHITE
    root = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    x, y, z = np.moveaxis(root, -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)
