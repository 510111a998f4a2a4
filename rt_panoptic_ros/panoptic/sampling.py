# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Device functions shared by the kernels: bilinear sampling, boxes and their overlap, sets of detections.

Grids follow `align_corners=False`: cell i of a grid covers pixels around (i + 0.5) / scale, edges repeat.

A rule for all kernels here: never change a variable inside an `if` or `while` that tests it. Warp merges what the body
assigned by the condition's value after the body, so the assignments would be lost (seen with 1.19).
"""

from __future__ import annotations

import warp as wp

Bits = wp.types.vector(length=4, dtype=wp.uint32)
"""A set of up to 128 detections."""


@wp.struct
class Sample:
    """Where a bilinear sample lies: four cells and two weights."""

    y0: wp.int32
    y1: wp.int32
    x0: wp.int32
    x1: wp.int32
    wy: wp.float32
    wx: wp.float32


@wp.struct
class Level:
    """The boxes that one pyramid level proposes."""

    offsets: wp.array3d(dtype=wp.float32)  # (4, h, w): left, top, right, bottom, network px (Eq. 8)


@wp.func
def source_position(index: wp.int32, scale: wp.float32) -> wp.float32:
    """Return the source coordinate of target cell `index`; `scale` is source cells per target cell."""
    return wp.max((wp.float32(index) + 0.5) * scale - 0.5, 0.0)


@wp.func
def sample_at(y: wp.float32, x: wp.float32, height: wp.int32, width: wp.int32) -> Sample:
    """Return the sample at source coordinates (y, x), both >= 0, of a grid of height x width cells."""
    s = Sample()
    s.y0 = wp.min(wp.int32(y), height - 1)
    s.x0 = wp.min(wp.int32(x), width - 1)
    s.y1 = wp.min(s.y0 + 1, height - 1)
    s.x1 = wp.min(s.x0 + 1, width - 1)
    s.wy = y - wp.float32(s.y0)
    s.wx = x - wp.float32(s.x0)
    return s


@wp.func
def lerp2(corners: wp.vec4, wy: wp.float32, wx: wp.float32) -> wp.float32:
    """Interpolate four corners 00, 01, 10, 11."""
    return (1.0 - wy) * ((1.0 - wx) * corners[0] + wx * corners[1]) + wy * ((1.0 - wx) * corners[2] + wx * corners[3])


@wp.func
def bilinear(planes: wp.array3d(dtype=wp.float32), channel: wp.int32, s: Sample) -> wp.float32:
    """Sample one channel of (C, h, w)."""
    corners = wp.vec4(
        planes[channel, s.y0, s.x0], planes[channel, s.y0, s.x1],
        planes[channel, s.y1, s.x0], planes[channel, s.y1, s.x1],
    )  # fmt: skip
    return lerp2(corners, s.wy, s.wx)


@wp.func
def box_around(x: wp.int32, y: wp.int32, offsets: wp.vec4) -> wp.vec4:
    """Eq. 8 read backwards: the box, xyxy network px, whose sides lie left, top, right and bottom of a point."""
    cx = wp.float32(x)
    cy = wp.float32(y)
    return wp.vec4(cx - offsets[0], cy - offsets[1], cx + offsets[2], cy + offsets[3])


@wp.func
def box_area(box: wp.vec4) -> wp.float32:
    """Area of an xyxy box, px^2."""
    return (box[2] - box[0]) * (box[3] - box[1])


@wp.func
def intersection(a: wp.vec4, b: wp.vec4) -> wp.float32:
    """Area common to two xyxy boxes, px^2."""
    width = wp.max(wp.min(a[2], b[2]) - wp.max(a[0], b[0]), 0.0)
    height = wp.max(wp.min(a[3], b[3]) - wp.max(a[1], b[1]), 0.0)
    return width * height


@wp.func
def box_iou(a: wp.vec4, b: wp.vec4) -> wp.float32:
    """Intersection over union of two xyxy boxes; 0 where both are empty."""
    common = intersection(a, b)
    union = box_area(a) + box_area(b) - common
    if union <= 0.0:
        return 0.0
    return common / union


@wp.func
def published_similarity(a: wp.vec4, b: wp.vec4) -> wp.float32:
    """The authors' published agreement of two xyxy boxes: (I + 1)/(U + 1) - (C - U)/C, C the enclosing box's area."""
    common = intersection(a, b)
    union = box_area(a) + box_area(b) - common
    width = wp.max(a[2], b[2]) - wp.min(a[0], b[0])
    height = wp.max(a[3], b[3]) - wp.min(a[1], b[1])
    enclosing = width * height + 1.0e-7
    return (common + 1.0) / (union + 1.0) - (enclosing - union) / enclosing


@wp.func
def has_bit(bits: Bits, index: wp.int32) -> wp.bool:
    """Return whether `index` is in the set."""
    return ((bits[index >> 5] >> wp.uint32(index & 31)) & wp.uint32(1)) != wp.uint32(0)


@wp.func
def no_bits(bits: Bits) -> wp.bool:
    """Return whether the set is empty."""
    return (bits[0] | bits[1] | bits[2] | bits[3]) == wp.uint32(0)


@wp.func_native("""
for (int word = 0; word < 4; ++word) {
    const int from = after + 1 - 32 * word;
    const unsigned int left = from <= 0 ? bits[word] : from >= 32 ? 0u : bits[word] & (~0u << from);
    if (left)
#if defined(__CUDA_ARCH__)
        return 32 * word + __ffs(left) - 1;
#else
        return 32 * word + __builtin_ctz(left);
#endif
}
return -1;
""")
def next_bit(bits: Bits, after: wp.int32) -> int:  # type: ignore[empty-body]  # the text above is its body
    """Return the lowest number in the set above `after`, which is at least -1; -1 where there is none."""


@wp.func
def word_with_bit(word: wp.uint32, bit: wp.int32) -> wp.uint32:
    """Return `word` with bit `bit` set."""
    return word | (wp.uint32(1) << wp.uint32(bit))
