# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The kernel that finds the ends of objects' boxes; `boxes` says how."""

from __future__ import annotations

import warp as wp

wp.set_module_options({"enable_backward": False})

SAMPLES = 4096
"""Pixels of an object's mask box that are looked at, at most; of larger ones, every second row and column or fewer."""

BINS = 1024
"""Of depth, among which gaps are looked for."""

LEAST_PIXELS = 16
"""With depth and of the object itself, that an object needs."""

_STEEPEST = wp.constant(wp.float32(20.0))  # change of a surface's depth from pixel to pixel, in widths of one: 87 deg
_NOISIEST = wp.constant(wp.float32(8.0))  # in medians of that change
_FINEST = wp.constant(wp.float32(1.0e-6))  # m, of a gap: depth may be any number
_RARE = wp.constant(500)  # one pixel of so many is no part of a surface
_SLOWEST = wp.constant(wp.float32(1.4142))  # growth of distances from an end with twice the quantile: at a corner
_SPREAD = wp.constant(wp.float32(0.6053))  # of normal noise, in medians of its second differences
_NORMAL_END, _NORMAL_STEP = wp.constant(wp.float32(3.18)), wp.constant(wp.float32(0.522))
# Where those quantiles of normal noise point to, and the distance from the least to the largest; in its deviations.

_STEP_U, _STEP_V = wp.constant(wp.float32(0.75487767)), wp.constant(wp.float32(0.56984029))
# Fractions of their multiples fill a square evenly.

_LEAST = wp.constant(LEAST_PIXELS)
_BINS = wp.constant(BINS)


@wp.struct
class Frame:
    """What objects are found in, and room for each."""

    depth: wp.array2d(dtype=wp.float32)  # (H, W) m, NaN where there is none
    instance: wp.array2d(dtype=wp.uint16)  # (H, W)
    ids: wp.array(dtype=wp.uint16)  # (n,)
    mask_boxes: wp.array2d(dtype=wp.int32)  # (n, 4) x_min, y_min, x_max, y_max, inclusive
    strides: wp.array(dtype=wp.int32)  # (n,): pixels from one that is looked at to the next
    camera: wp.vec4  # fx, fy, cx, cy
    rotation: wp.mat33
    translation: wp.vec3
    places: wp.array2d(dtype=wp.int32)  # (n, SAMPLES): y << 16 | x of an object's pixels that still count
    depths: wp.array2d(dtype=wp.float32)  # (n, SAMPLES): their depth
    values: wp.array2d(dtype=wp.float32)  # (3 n, SAMPLES): whatever a median or quantiles are wanted of, by axis
    tail: wp.array2d(dtype=wp.float32)  # (n, SAMPLES): their smallest
    bins: wp.array2d(dtype=wp.int32)  # (n, BINS)


@wp.func
def _depth_at(
    depth: wp.array2d(dtype=wp.float32),
    instance: wp.array2d(dtype=wp.uint16),
    number: wp.uint16,
    x: wp.int32,
    y: wp.int32,
) -> wp.float32:
    """Return an object's depth at a pixel, NaN where the pixel is another's, or none."""
    if x >= 0 and y >= 0 and y < depth.shape[0] and x < depth.shape[1] and instance[y, x] == number:
        return depth[y, x]
    return wp.float32(wp.nan)


@wp.func_native("""
float* v = (float*)((char*)values.data + (size_t)row * values.strides[0]);
int low = 0, high = count - 1;
while (low < high) {
    const float pivot = v[(low + high) / 2];
    int i = low, j = high;
    while (i <= j) {
        while (v[i] < pivot) ++i;
        while (v[j] > pivot) --j;
        if (i <= j) {
            const float other = v[i];
            v[i++] = v[j];
            v[j--] = other;
        }
    }
    if (rank <= j) high = j;
    else if (rank >= i) low = i;
    else break;
}
return v[rank];
""")
def _select(values: wp.array2d(dtype=wp.float32), row: wp.int32, count: wp.int32, rank: wp.int32) -> wp.float32:
    """Return the value of a rank among the first of a row, and put smaller ones before it and larger ones behind it."""


# C++, as the other: three quarters of the time would go into these two.
@wp.func_native("""
const float* v = (const float*)((const char*)values.data + (size_t)row * values.strides[0]);
float* t = (float*)((char*)tail.data + (size_t)n * tail.strides[0]);
int found = 0;
for (int i = 0; i < count; ++i) {
    const float value = sign * v[i];
    if (value <= limit)
        t[found++] = value;
}
return found;
""")
def _collect(
    values: wp.array2d(dtype=wp.float32), row: wp.int32, tail: wp.array2d(dtype=wp.float32), n: wp.int32,
    count: wp.int32, sign: wp.float32, limit: wp.float32,
) -> wp.int32:  # fmt: skip
    """Put those of a row's first values, times the sign, that are at most a limit into a row of `tail`; how many?"""


@wp.func
def _gather(frame: Frame, n: wp.int32) -> wp.int32:
    """Find an object's pixels with depth; return how many."""
    stride = frame.strides[n]
    count = int(0)
    for y in range(frame.mask_boxes[n, 1], frame.mask_boxes[n, 3] + 1, stride):
        for x in range(frame.mask_boxes[n, 0], frame.mask_boxes[n, 2] + 1, stride):
            z = _depth_at(frame.depth, frame.instance, frame.ids[n], x, y)
            if wp.isfinite(z):
                frame.places[n, count] = (y << 16) | x
                frame.depths[n, count] = z
                count += 1
    return count


@wp.func
def _jump(frame: Frame, n: wp.int32, count: wp.int32) -> wp.float32:
    """Return the change of depth from a pixel to the next, m, that is more than a surface's and its noise's."""
    some = (count + 3) / 4
    for i in range(some):
        frame.values[3 * n, i] = frame.depths[n, 4 * i]
    distance = _select(frame.values, 3 * n, some, some / 2)
    jump = _STEEPEST * distance / wp.min(frame.camera[0], frame.camera[1])
    changes = int(0)
    for i in range(0, count, 4):
        x, y = frame.places[n, i] & 0xFFFF, frame.places[n, i] >> 16
        change = wp.abs(_depth_at(frame.depth, frame.instance, frame.ids[n], x + 1, y) - frame.depths[n, i])
        if wp.isfinite(change):
            frame.values[3 * n, changes] = change
            changes += 1
    if changes > 0:
        jump = wp.max(jump, _NOISIEST * _select(frame.values, 3 * n, changes, changes / 2))
    return jump


@wp.func
def _flies(before: wp.float32, after: wp.float32, jump: wp.float32) -> wp.bool:
    """Return whether depth jumps to a neighbour of a row or column and goes on to none, given its changes to them."""
    return (before > jump or after > jump) and not (before <= jump or after <= jump)


@wp.func
def _keep_surfaces(frame: Frame, n: wp.int32, count: wp.int32, jump: wp.float32) -> wp.int32:
    """Drop an object's flying pixels; return how many are left."""
    kept = int(0)
    for i in range(count):
        x, y, z = frame.places[n, i] & 0xFFFF, frame.places[n, i] >> 16, float(frame.depths[n, i])
        before = wp.abs(_depth_at(frame.depth, frame.instance, frame.ids[n], x - 1, y) - z)
        after = wp.abs(_depth_at(frame.depth, frame.instance, frame.ids[n], x + 1, y) - z)
        above = wp.abs(_depth_at(frame.depth, frame.instance, frame.ids[n], x, y - 1) - z)
        below = wp.abs(_depth_at(frame.depth, frame.instance, frame.ids[n], x, y + 1) - z)
        if not (_flies(before, after, jump) or _flies(above, below, jump)):
            frame.places[n, kept] = frame.places[n, i]
            frame.depths[n, kept] = z
            kept += 1
    return kept


@wp.func
def _keep_largest_group(frame: Frame, n: wp.int32, count: wp.int32, gap: wp.float32) -> wp.int32:
    """Drop all but the largest of the groups that gaps in depth separate; return how many pixels are left."""
    nearest, farthest = float(wp.inf), float(0.0)
    for i in range(count):
        nearest = wp.min(nearest, frame.depths[n, i])
        farthest = wp.max(farthest, frame.depths[n, i])
    width = wp.max(wp.max(gap, (farthest - nearest) / float(_BINS - 1)), _FINEST)
    last = int((farthest - nearest) / width)
    for b in range(last + 1):
        frame.bins[n, b] = 0
    for i in range(count):
        frame.bins[n, int((frame.depths[n, i] - nearest) / width)] += 1
    size, begin, largest, first, end = int(0), int(0), int(0), int(0), int(0)
    for b in range(last + 1):
        if frame.bins[n, b] > count / _RARE:
            size += frame.bins[n, b]
        else:
            size = int(0)
            begin = b + 1
        if size > largest:
            largest = size
            first = begin
            end = b + 1
    kept = int(0)
    for i in range(count):
        b = int((frame.depths[n, i] - nearest) / width)
        if b >= first and b < end:
            frame.places[n, kept] = frame.places[n, i]
            frame.depths[n, kept] = frame.depths[n, i]
            kept += 1
    return kept


@wp.func
def _noise(frame: Frame, n: wp.int32, count: wp.int32) -> wp.float32:
    """Return the standard deviation of a surface's noise, m, from second differences along rows."""
    changes = int(0)
    for i in range(0, count, 4):
        x, y = frame.places[n, i] & 0xFFFF, frame.places[n, i] >> 16
        before = _depth_at(frame.depth, frame.instance, frame.ids[n], x - 1, y)
        after = _depth_at(frame.depth, frame.instance, frame.ids[n], x + 1, y)
        change = wp.abs(before - 2.0 * frame.depths[n, i] + after)
        if wp.isfinite(change):
            frame.values[3 * n, changes] = change
            changes += 1
    if changes == 0:
        return wp.float32(0.0)
    return _SPREAD * _select(frame.values, 3 * n, changes, changes / 2)


@wp.func
def _within(i: wp.int32, step: wp.float32) -> wp.float32:
    """Return a number of a sequence that fills -0.5 to 0.5 evenly."""
    return wp.frac(float(i) * step) - 0.5


@wp.func
def _ray(place: wp.int32, i: wp.int32, stride: wp.float32, camera: wp.vec4) -> wp.vec3:
    """Return a direction, with z = 1, within the area that a pixel stands for: so many fill the object evenly."""
    u = float(place & 0xFFFF) + stride * _within(i, _STEP_U)
    v = float(place >> 16) + stride * _within(i, _STEP_V)
    return wp.vec3((u - camera[2]) / camera[0], (v - camera[3]) / camera[1], 1.0)


@wp.func
def _inside(near: wp.float32, far: wp.float32, noise: wp.float32) -> wp.float32:
    """Return how far inside the least quantile an end is; below 0 outside.

    Where a share q of a surface is nearer to its end than h(q), and h grows by a constant factor with twice the q (2
    for a face along the axis, less for a corner or a curve), the end is h(q) = (h(2q) - h(q)) / (factor - 1) beyond.
    Noise adds all of its tail to a face across the axis, and next to nothing to one along it, which is spread wider.

    Args:
        near: h(2q) - h(q), m.
        far: h(4q) - h(2q), m.
        noise: Along the axis, m.
    """
    beyond = wp.float32(0.0)
    if near > 0.0:
        beyond = near / (wp.max(far / near, _SLOWEST) - 1.0)
    share = wp.min(1.0, noise * _NORMAL_STEP / wp.max(near + far, 1.0e-9))
    return noise * _NORMAL_END * share * wp.sqrt(share) - beyond


@wp.func
def _place_points(frame: Frame, n: wp.int32, count: wp.int32) -> wp.vec3:
    """Put the coordinates of an object's points into its rows of values; return how far depth moves them along each."""
    stride = float(frame.strides[n])
    lean = wp.vec3(0.0)
    for i in range(count):
        reach = frame.rotation * _ray(frame.places[n, i], i, stride, frame.camera)
        point = reach * float(frame.depths[n, i]) + frame.translation
        frame.values[3 * n, i] = point[0]
        frame.values[3 * n + 1, i] = point[1]
        frame.values[3 * n + 2, i] = point[2]
        lean += reach
    return wp.vec3(wp.abs(lean[0]), wp.abs(lean[1]), wp.abs(lean[2])) / float(count)


@wp.func
def _begin(
    values: wp.array2d(dtype=wp.float32), tail: wp.array2d(dtype=wp.float32), row: wp.int32, n: wp.int32,
    count: wp.int32, sign: wp.float32, noise: wp.float32,
) -> wp.float32:  # fmt: skip
    """Return where a row of an object's values, times the sign, begin."""
    last = count - 1
    one, two, four = (last + 100) / 200, (last + 50) / 100, (last + 25) / 50  # of 0.5, 1 and 2 %
    # Every sixteenth value tells below which some more than those are.
    some = (count + 15) / 16
    for i in range(some):
        tail[n, i] = sign * values[row, 16 * i]
    limit = _select(tail, n, some, wp.min(some - 1, four / 8 + 4))
    found = _collect(values, row, tail, n, count, sign, limit)
    if found <= four:
        found = _collect(values, row, tail, n, count, sign, wp.float32(wp.inf))
    at_four = _select(tail, n, found, four)
    at_two = _select(tail, n, four + 1, two)
    at_one = _select(tail, n, two + 1, one)
    return at_one + _inside(at_two - at_one, at_four - at_two, noise)


@wp.kernel
def find_ends(first: wp.int32, _band: wp.int32, frame: Frame, ends: wp.array3d(dtype=wp.float32)) -> None:
    """Find the ends (n, 3 axes, low and high) of objects, m; NaN where their depth doesn't suffice."""
    n = first + wp.tid()
    for axis in range(3):
        ends[n, axis, 0] = wp.float32(wp.nan)
        ends[n, axis, 1] = wp.float32(wp.nan)
    count = _gather(frame, n)
    if count < _LEAST:
        return
    jump = _jump(frame, n, count)
    count = _keep_surfaces(frame, n, count, jump)
    if count < _LEAST:
        return
    count = _keep_largest_group(frame, n, count, jump * float(frame.strides[n]))
    if count < _LEAST:
        return
    noise = _noise(frame, n, count)
    noises = noise * _place_points(frame, n, count)
    for axis in range(3):
        low = _begin(frame.values, frame.tail, 3 * n + axis, n, count, 1.0, noises[axis])
        high = -_begin(frame.values, frame.tail, 3 * n + axis, n, count, -1.0, noises[axis])
        middle = 0.5 * (low + high)
        ends[n, axis, 0] = wp.min(low, middle)
        ends[n, axis, 1] = wp.max(high, middle)
