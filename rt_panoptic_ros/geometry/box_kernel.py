"""The kernel that finds the ends of objects' boxes; `boxes` says how."""

from __future__ import annotations

import warp as wp

SAMPLES = 4096
"""Pixels of an object's mask box that are looked at, at most."""

BINS = 1024
"""Of depth, among which gaps are looked for."""

LEAST_PIXELS = 16
"""With depth and of the object itself, that an object needs."""

_STEEPEST = wp.constant(wp.float32(20.0))  # change of a surface's depth from pixel to pixel, in widths of one: 87 deg
_NOISIEST = wp.constant(wp.float32(8.0))  # in medians of that change
_RARE = wp.constant(500)  # one pixel of so many is no part of a surface
_OUTER, _INNER = wp.constant(wp.float32(0.005)), wp.constant(wp.float32(0.02))  # quantiles
_SPREAD = wp.constant(wp.float32(0.6053))  # of normal noise, in medians of its second differences
_NORMAL_END, _NORMAL_STEP = wp.constant(wp.float32(2.75)), wp.constant(wp.float32(0.522))
# Where those quantiles of normal noise point to, and their distance; in standard deviations.

_LEAST = wp.constant(LEAST_PIXELS)
_BINS = wp.constant(BINS)


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
def select(values: wp.array2d(dtype=wp.float32), row: wp.int32, count: wp.int32, rank: wp.int32) -> wp.float32:
    """Return the value of a rank among the first of a row, which are put into another order."""


@wp.func
def _goes_on(change: wp.float32, jump: wp.float32) -> wp.int32:
    """Return 1 where depth goes on to a neighbour, -1 where it jumps, 0 where either has none."""
    if change <= jump:
        return 1
    if change > jump:
        return -1
    return 0


@wp.func
def _flies(before: wp.int32, after: wp.int32) -> wp.bool:
    """Return whether depth jumps to a neighbour of a row and goes on to none."""
    return wp.min(before, after) < 0 and wp.max(before, after) < 1


@wp.kernel
def find_ends(
    first: wp.int32,
    _band: wp.int32,
    depth: wp.array2d(dtype=wp.float32),  # (H, W) m, NaN where there is none
    instance: wp.array2d(dtype=wp.uint16),
    ids: wp.array(dtype=wp.uint16),
    mask_boxes: wp.array2d(dtype=wp.int32),
    strides: wp.array(dtype=wp.int32),  # pixels from one that is looked at to the next
    camera: wp.vec4,  # fx, fy, cx, cy
    rotation: wp.mat33,
    translation: wp.vec3,
    seen: wp.array2d(dtype=wp.float32),  # (n, SAMPLES): depth of the object's pixels, NaN elsewhere
    kept: wp.array2d(dtype=wp.float32),  # (n, SAMPLES): of those that are its surface
    values: wp.array2d(dtype=wp.float32),  # (n, SAMPLES)
    bins: wp.array2d(dtype=wp.int32),  # (n, BINS)
    ends: wp.array2d(dtype=wp.vec3),  # (n, 2): low and high, NaN where the depth doesn't suffice
) -> None:
    n = first + wp.tid()
    left, top, stride = mask_boxes[n, 0], mask_boxes[n, 1], strides[n]
    w = (mask_boxes[n, 2] - left) / stride + 1
    h = (mask_boxes[n, 3] - top) / stride + 1
    ends[n, 0] = wp.vec3(wp.nan)
    ends[n, 1] = wp.vec3(wp.nan)
    count = int(0)
    for y in range(h):
        for x in range(w):
            z = wp.float32(wp.nan)
            if instance[top + y * stride, left + x * stride] == ids[n]:
                z = depth[top + y * stride, left + x * stride]
            seen[n, y * w + x] = z
            if wp.isfinite(z):
                values[n, count] = z
                count += 1
    if count < _LEAST:
        return
    distance = select(values, n, count, count / 2)
    changes = int(0)
    for y in range(h):
        for x in range(1, w):
            change = wp.abs(seen[n, y * w + x] - seen[n, y * w + x - 1])
            if wp.isfinite(change):
                values[n, changes] = change
                changes += 1
    pixel = distance * wp.float32(stride) / wp.min(camera[0], camera[1])
    jump = _STEEPEST * pixel
    if changes > 0:
        jump = wp.max(jump, _NOISIEST * select(values, n, changes, changes / 2))
    count = int(0)
    nearest, farthest = float(wp.inf), float(0.0)
    for y in range(h):
        for x in range(w):
            i = y * w + x
            z = seen[n, i]
            before, after, above, below = int(0), int(0), int(0), int(0)
            if x > 0:
                before = _goes_on(wp.abs(z - seen[n, i - 1]), jump)
            if x < w - 1:
                after = _goes_on(wp.abs(z - seen[n, i + 1]), jump)
            if y > 0:
                above = _goes_on(wp.abs(z - seen[n, i - w]), jump)
            if y < h - 1:
                below = _goes_on(wp.abs(z - seen[n, i + w]), jump)
            if _flies(before, after) or _flies(above, below):
                z = wp.float32(wp.nan)
            kept[n, i] = z
            if wp.isfinite(z):
                count += 1
                nearest = wp.min(nearest, z)
                farthest = wp.max(farthest, z)
    if count < _LEAST:
        return
    width = wp.max(jump, (farthest - nearest) / float(_BINS - 1))
    last = int((farthest - nearest) / width)
    for b in range(last + 1):
        bins[n, b] = 0
    for i in range(h * w):
        if wp.isfinite(kept[n, i]):
            bins[n, int((kept[n, i] - nearest) / width)] += 1
    rare, size, begin, largest, largest_begin, largest_end = count / _RARE, int(0), int(0), int(0), int(0), int(0)
    for b in range(last + 1):
        if bins[n, b] > rare:
            size += bins[n, b]
        else:
            size = 0
            begin = b + 1
        if size > largest:
            largest = size
            largest_begin = begin
            largest_end = b
    if largest < _LEAST:
        return
    count = int(0)
    ray = wp.vec3(0.0)
    for i in range(h * w):
        z = kept[n, i]
        if wp.isfinite(z):
            b = int((z - nearest) / width)
            if b < largest_begin or b > largest_end:
                kept[n, i] = wp.float32(wp.nan)
            else:
                values[n, count] = z
                count += 1
                ray += _ray(i, w, left, top, stride, camera)
    ray = ray / float(count)
    distance = select(values, n, count, count / 2)
    changes = int(0)
    for y in range(h):
        for x in range(2, w):
            i = y * w + x
            change = wp.abs(kept[n, i] - 2.0 * kept[n, i - 1] + kept[n, i - 2])
            if wp.isfinite(change):
                values[n, changes] = change
                changes += 1
    noise = float(0.0)
    if changes > 0:
        noise = _SPREAD * select(values, n, changes, changes / 2)
    low, high = wp.vec3(0.0), wp.vec3(0.0)
    outer = int(wp.round(_OUTER * float(count - 1)))
    inner = int(wp.round(_INNER * float(count - 1)))
    for axis in range(3):
        along = rotation[axis]
        count = int(0)
        for i in range(h * w):
            if wp.isfinite(kept[n, i]):
                point = _ray(i, w, left, top, stride, camera) * kept[n, i]
                values[n, count] = wp.dot(along, point) + translation[axis]
                count += 1
        half_pixel = (wp.abs(along[0]) / camera[0] + wp.abs(along[1]) / camera[1]) * 0.5 * float(stride) * distance
        tail = noise * wp.abs(wp.dot(along, ray))
        lower = select(values, n, count, outer)
        upper = select(values, n, count, count - 1 - outer)
        lower_step = select(values, n, count, inner) - lower
        upper_step = upper - select(values, n, count, count - 1 - inner)
        begins = lower - half_pixel + _inside(lower_step, outer, inner, tail)
        stops = upper + half_pixel - _inside(upper_step, outer, inner, tail)
        low[axis] = wp.min(begins, 0.5 * (begins + stops))
        high[axis] = wp.max(stops, 0.5 * (begins + stops))
    ends[n, 0] = low
    ends[n, 1] = high


@wp.func
def _ray(
    i: wp.int32, w: wp.int32, left: wp.int32, top: wp.int32, stride: wp.int32, camera: wp.vec4
) -> wp.vec3:
    """Return the direction of a pixel that is looked at, with z = 1."""
    u, v = float(left + (i % w) * stride), float(top + (i / w) * stride)
    return wp.vec3((u - camera[2]) / camera[0], (v - camera[3]) / camera[1], 1.0)


@wp.func
def _inside(step: wp.float32, outer: wp.int32, inner: wp.int32, noise: wp.float32) -> wp.float32:
    """Return how far inside the outer quantile an end is; below 0 outside.

    A uniform distribution ends where its quantiles point to. Noise adds all of its tail to a face across the axis, and
    next to nothing to one along it, which is spread much wider.
    """
    points_to = float(0.0)
    if inner > outer:
        points_to = step * float(outer) / float(inner - outer)
    share = wp.min(1.0, noise * _NORMAL_STEP / wp.max(step, 1.0e-9))
    return noise * _NORMAL_END * share * wp.sqrt(share) - points_to
