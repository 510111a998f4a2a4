# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""What `geometry` computes, plainly: one object and one point after the other, in float64."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from rt_panoptic_ros.geometry import box_kernel
from rt_panoptic_ros.geometry.boxes import IDENTITY, Transform
from rt_panoptic_ros.geometry.cloud import POINT

if TYPE_CHECKING:
    from rt_panoptic_ros.geometry.intrinsics import Intrinsics

_SPREAD = 1 / (0.6745 * math.sqrt(6))


def cloud(
    depth: np.ndarray, rgb: np.ndarray, semantic: np.ndarray, instance: np.ndarray, confidence: np.ndarray,
    intrinsics: Intrinsics,
) -> np.ndarray:  # fmt: skip
    """Return the organised cloud, (H, W) of POINT; see `geometry.cloud.fill_cloud`."""
    v, u = np.indices(depth.shape)
    z = depth / 1000 if depth.dtype == np.uint16 else depth.astype(np.float64)
    z = np.where(np.isfinite(z) & (z > 0), z, np.nan)
    result = np.zeros(depth.shape, POINT)
    result["x"], result["y"] = (u - intrinsics.cx) * z / intrinsics.fx, (v - intrinsics.cy) * z / intrinsics.fy
    result["z"] = z
    red, green, blue = rgb.astype(np.uint32).transpose(2, 0, 1)
    result["rgb"] = red << 16 | green << 8 | blue
    result["class"], result["instance"], result["confidence"] = semantic, instance, confidence
    return result


def object_box(
    depth: np.ndarray, own: np.ndarray, mask_box: np.ndarray, intrinsics: Intrinsics, transform: Transform = IDENTITY
) -> np.ndarray | None:
    """Return the ends of an object's box, (3 axes, low and high), or None; see `geometry.boxes`.

    Args:
        depth: (H, W) float32 in m, NaN where there is none.
        own: (H, W) bool: the object's pixels.
        mask_box: (4,) of them: x_min, y_min, x_max, y_max.
        intrinsics: Of these pixels.
        transform: To the frame of whose axes the box is.
    """
    left, top, right, bottom = mask_box.tolist()
    stride = math.ceil(math.sqrt((right - left + 1) * (bottom - top + 1) / box_kernel.SAMPLES))
    # In float32 up to the groups, as what is a jump must be one for both.
    full = np.pad(np.where(own, depth, np.float32(np.nan)), 1, constant_values=np.nan)

    def at(places: np.ndarray, dy: int = 0, dx: int = 0) -> np.ndarray:
        return full[places[:, 0] + 1 + dy, places[:, 1] + 1 + dx]

    v, u = np.mgrid[top : bottom + 1 : stride, left : right + 1 : stride].reshape(2, -1)
    places = np.stack([v, u], 1)
    places = places[np.isfinite(at(places))]
    if len(places) < box_kernel.LEAST_PIXELS:
        return None
    jump = (
        np.float32(20)
        * _ranked(at(places)[::4], (len(places) + 3) // 4 // 2)
        / np.float32(min(intrinsics.fx, intrinsics.fy))
    )
    changes = np.abs(at(places, dx=1) - at(places))[::4]
    changes = changes[np.isfinite(changes)]
    if len(changes):
        jump = max(jump, np.float32(8) * _ranked(changes, len(changes) // 2))

    flies = np.zeros(len(places), bool)
    for one, other in (((0, -1), (0, 1)), ((-1, 0), (1, 0))):
        differences = [np.abs(at(places, *step) - at(places)) for step in (one, other)]
        jumps = np.any([difference > jump for difference in differences], axis=0)
        flies |= jumps & ~np.any([difference <= jump for difference in differences], axis=0)
    places = places[~flies]
    if len(places) < box_kernel.LEAST_PIXELS:
        return None

    z = at(places)
    width = max(jump * np.float32(stride), np.ptp(z) / np.float32(box_kernel.BINS - 1), np.float32(1e-6))
    bins = ((z - z.min()) / width).astype(int)
    counts = np.bincount(bins)
    groups, group = [], []
    for number, count in enumerate([*counts.tolist(), 0]):
        if count > len(z) // 500:
            group.append(number)
        else:
            groups.append(group)
            group = []
    largest = max(groups, key=lambda group: counts[group].sum() if group else 0)
    places = places[np.isin(bins, largest)]
    if len(places) < box_kernel.LEAST_PIXELS:
        return None

    z = at(places)
    second = np.abs(at(places, dx=-1) - 2 * z + at(places, dx=1))[::4]
    second = second[np.isfinite(second)]
    noise = _SPREAD * float(_ranked(second, len(second) // 2)) if len(second) else 0.0
    u = places[:, 1] + stride * (np.arange(len(z)) * 0.75487767 % 1 - 0.5)
    v = places[:, 0] + stride * (np.arange(len(z)) * 0.56984029 % 1 - 0.5)
    rays = np.stack([(u - intrinsics.cx) / intrinsics.fx, (v - intrinsics.cy) / intrinsics.fy, np.ones(len(z))], 1)
    points = (rays * z[:, None]) @ transform.rotation.T + transform.translation
    last = len(z) - 1
    one, two, four = (last + 100) // 200, (last + 50) // 100, (last + 25) // 50
    ends = []
    for axis, along in enumerate(transform.rotation):
        ordered = np.sort(points[:, axis])
        low, high = ordered[one], ordered[-1 - one]
        tail = noise * abs((rays @ along).mean())
        low += _inside(ordered[two] - low, ordered[four] - ordered[two], tail)
        high -= _inside(high - ordered[-1 - two], ordered[-1 - two] - ordered[-1 - four], tail)
        ends.append((min(low, (low + high) / 2), max(high, (low + high) / 2)))
    return np.array(ends)


def _inside(near: float, far: float, noise: float) -> float:
    beyond = near / (max(far / near, 1.4142) - 1) if near > 0 else 0.0
    return noise * 3.18 * min(1.0, noise * 0.522 / max(near + far, 1e-9)) ** 1.5 - beyond


def _ranked(values: np.ndarray, rank: int) -> np.floating:
    ranked: np.floating = np.sort(values)[rank]
    return ranked
