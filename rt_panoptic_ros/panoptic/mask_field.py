# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""What a frame's outputs say at a point of the stride-4 grid: its own box, and query boxes' mask probabilities (Eq. 5).

What mask probabilities need of a point, its softmax normalizer and its box, is computed once for those that need it.
"""

from __future__ import annotations

import warp as wp

from rt_panoptic_ros.panoptic.sampling import (
    Bits,
    Level,
    Sample,
    bilinear,
    box_around,
    box_iou,
    no_bits,
    published_similarity,
    sample_at,
    source_position,
)
from rt_panoptic_ros.records import STRIDES

wp.set_module_options({"enable_backward": False})

_LEVELS = wp.constant(wp.int32(len(STRIDES)))
ROUNDING = wp.constant(wp.float32(1.001))
"""A factor above 1 by more than rounding: what exceeds a limit by it does so however it is computed."""


@wp.struct
class MaskField:
    """A frame's network outputs and query boxes, and what is known of each cell and point, for all kernels of masks."""

    logits: wp.array3d(dtype=wp.float32)  # (N, h, w)
    levelness: wp.array3d(dtype=wp.float32)  # (6, 2h, 2w), or empty
    levels: wp.array(dtype=Level)  # strides 8 to 128
    use_levelness: wp.bool
    use_published_similarity: wp.bool
    thing_ids: wp.array(dtype=wp.int32)  # (T,)
    things_of: wp.array(dtype=wp.int32)  # (VOID + 1,): a class's index among the things, or -1

    boxes: wp.array(dtype=wp.vec4)  # (K,): of the queries, xyxy network px
    labels: wp.array(dtype=wp.int32)  # (K,): index among the things
    active: wp.array(dtype=wp.int32)  # (1,): so many query boxes take part, the first ones
    undefined: wp.array(dtype=wp.int32)  # of `QueryBoxes`
    starts: wp.array(dtype=wp.int32)  # (T + 1,): where the members of each thing begin
    members: wp.array(dtype=wp.int32)  # (K,): query boxes, thing after thing
    member_sides: wp.array2d(dtype=wp.float32)  # (4, K + 8): their left, top, right and bottom sides in that order

    best_classes: wp.array2d(dtype=wp.uint8)  # (h, w): of the highest logit; VOID where one is no finite number
    leads: wp.array2d(dtype=wp.float32)  # (h, w): of that logit over the second highest
    best_things: wp.array2d(dtype=wp.float32)  # (h, w): highest logit of a thing
    threshold: wp.float32  # of the mask probability
    gap: wp.float32  # a class whose logit is this far below another's has a probability below the threshold

    log_normalizer: wp.array2d(dtype=wp.float32)  # (2h, 2w), NaN where not computed
    own_boxes: wp.array2d(dtype=wp.vec4)  # (2h, 2w), of the points with a normalizer; empty boxes without levelness
    bits: wp.array2d(dtype=Bits)  # (2h, 2w): the query boxes that hold the point


@wp.func
def semantic_sample(field: wp.array(dtype=MaskField), gy: wp.int32, gx: wp.int32) -> Sample:
    """Where stride-4 grid point (gy, gx) lies on the stride-8 grid."""
    height = field[0].logits.shape[1]
    width = field[0].logits.shape[2]
    return sample_at(source_position(gy, 0.5), source_position(gx, 0.5), height, width)


@wp.func
def _level_box(field: wp.array(dtype=MaskField), level: wp.int32, gy: wp.int32, gx: wp.int32) -> wp.vec4:
    """The box that one level's offsets, upsampled to the grid, give at (gy, gx)."""
    offsets = field[0].levels[level].offsets
    y = source_position(gy, wp.float32(offsets.shape[1]) / wp.float32(field[0].own_boxes.shape[0]))
    x = source_position(gx, wp.float32(offsets.shape[2]) / wp.float32(field[0].own_boxes.shape[1]))
    s = sample_at(y, x, offsets.shape[1], offsets.shape[2])
    sides = wp.vec4(bilinear(offsets, 0, s), bilinear(offsets, 1, s), bilinear(offsets, 2, s), bilinear(offsets, 3, s))
    return box_around(4 * gx + 2, 4 * gy + 2, sides)


@wp.func
def own_box(field: wp.array(dtype=MaskField), gy: wp.int32, gx: wp.int32) -> wp.vec4:
    """The point's own box, from the level of highest levelness (Eq. 14); empty without levelness.

    It is made of NaN where a levelness is no finite number, and agrees with no query box then.
    """
    if not field[0].use_levelness:
        return wp.vec4()
    best = int(0)
    top = field[0].levelness[1, gy, gx]
    total = float(top)
    for level in range(1, _LEVELS):
        value = field[0].levelness[level + 1, gy, gx]
        total += value
        if value > top:
            top = value
            best = level
    return _level_box(field, best, gy, gx) + wp.vec4(0.0 * total)


@wp.func
def is_defined(box: wp.vec4) -> wp.bool:
    """Whether a box is made of finite numbers."""
    return wp.isfinite(box[0] + box[1] + box[2] + box[3])


@wp.func_native("""
auto value = [&](int c) {
    const char* plane = (const char*)logits.data + (size_t)c * logits.strides[0];
    const float* upper = (const float*)(plane + (size_t)s.y0 * logits.strides[1]);
    const float* lower = (const float*)(plane + (size_t)s.y1 * logits.strides[1]);
    return (1.0f - s.wy) * ((1.0f - s.wx) * upper[s.x0] + s.wx * upper[s.x1])
        + s.wy * ((1.0f - s.wx) * lower[s.x0] + s.wx * lower[s.x1]);
};
#if defined(__CUDA_ARCH__)
const auto& logit = value;  // an array of them would lie in a GPU thread's slow memory
#else
float values[256];
for (int c = 0; c < logits.shape[0]; ++c)
    values[c] = value(c);
const float* kept = values;
auto logit = [kept](int c) { return kept[c]; };
#endif
float highest = -INFINITY;
for (int c = 0; c < logits.shape[0]; ++c)
    highest = logit(c) > highest ? logit(c) : highest;
float total = 0.0f;
for (int c = 0; c < logits.shape[0]; ++c)
    if (logit(c) - highest > -25.0f)
        total += expf(logit(c) - highest);
return highest + logf(total);
""")
def _log_sum_exp(logits: wp.array3d(dtype=wp.float32), s: Sample) -> wp.float32:
    """Logarithm of the softmax's normalizer over at most 256 classes; 256 terms below e^-25 don't show."""


@wp.func
def fill_point(field: wp.array(dtype=MaskField), gy: wp.int32, gx: wp.int32) -> None:
    """Compute the point's softmax normalizer and its own box."""
    field[0].own_boxes[gy, gx] = own_box(field, gy, gx)
    field[0].log_normalizer[gy, gx] = _log_sum_exp(field[0].logits, semantic_sample(field, gy, gx))


@wp.func
def log_probability(field: wp.array(dtype=MaskField), gy: wp.int32, gx: wp.int32, class_id: wp.int32) -> wp.float32:
    """Logarithm of a class's probability at a filled grid point (Eq. 2)."""
    return bilinear(field[0].logits, class_id, semantic_sample(field, gy, gx)) - field[0].log_normalizer[gy, gx]


@wp.func
def _box_similarity(field: wp.array(dtype=MaskField), own: wp.vec4, query: wp.vec4) -> wp.float32:
    if field[0].use_published_similarity:
        return published_similarity(own, query)
    return box_iou(own, query)


@wp.func
def similarity(
    field: wp.array(dtype=MaskField), own: wp.vec4, gy: wp.int32, gx: wp.int32, query: wp.vec4
) -> wp.float32:
    """Agreement of the point's own box with a query box (Eq. 6); without levelness the best of all levels (A23)."""
    if field[0].use_levelness:
        return _box_similarity(field, own, query)
    best = _box_similarity(field, _level_box(field, 0, gy, gx), query)
    level = int(1)
    while level < _LEVELS:  # not unrolled: rarely needed, and five times the code
        best = wp.max(best, _box_similarity(field, _level_box(field, level, gy, gx), query))
        level += 1
    return best


@wp.func_native("""
if (!field.data->use_levelness)
    return first;
const auto& sides = field.data->member_sides;
const float* x0 = sides.data;
const float* y0 = (const float*)((const char*)x0 + sides.strides[0]);
const float* x1 = (const float*)((const char*)y0 + sides.strides[0]);
const float* y1 = (const float*)((const char*)x1 + sides.strides[0]);
const float threshold = field.data->threshold, area = (own[2] - own[0]) * (own[3] - own[1]);
auto may_agree = [&](int i) {
    const float left = x0[i] > own[0] ? x0[i] : own[0], right = x1[i] < own[2] ? x1[i] : own[2];
    const float top = y0[i] > own[1] ? y0[i] : own[1], bottom = y1[i] < own[3] ? y1[i] : own[3];
    const float width = right > left ? right - left : 0.0f, height = bottom > top ? bottom - top : 0.0f;
    const float common = width * height, united = area + (x1[i] - x0[i]) * (y1[i] - y0[i]) - common;
    return !(1.001f * (common + 1.0f) < threshold * (united + 1.0f));
};
#if defined(__CUDA_ARCH__)
while (first < last && !may_agree(first))
    ++first;
return first;
#else
for (; first < last; first += 8) {  // one vector
    int some[8], any = 0;
    for (int i = 0; i < 8; ++i)
        any |= some[i] = may_agree(first + i);
    if (any)
        for (int i = 0; i < 8; ++i)
            if (some[i])
                return first + i;
}
return first;
#endif
""")
def next_alike(  # type: ignore[empty-body]
    field: wp.array(dtype=MaskField), own: wp.vec4, first: wp.int32, last: wp.int32
) -> int:
    """Return the first member from `first` on whose box may agree enough with a point's own; `last` or more: none.

    With levelness, both measures are at most (common area + 1) / (area of the union + 1), which is compared, with
    `ROUNDING`, without a division. Without levelness, all are looked at.
    """


@wp.func
def mask_probability(field: wp.array(dtype=MaskField), gy: wp.int32, gx: wp.int32, j: wp.int32) -> wp.float32:
    """Mask probability of query box j at a filled grid point (Eq. 5)."""
    class_id = field[0].thing_ids[field[0].labels[j]]
    agreement = similarity(field, field[0].own_boxes[gy, gx], gy, gx, field[0].boxes[j])
    return wp.exp(log_probability(field, gy, gx, class_id)) * agreement


@wp.func
def held_anywhere(bits: wp.array2d(dtype=Bits), y: wp.int32, x: wp.int32) -> Bits:
    """The query boxes that hold a corner of stride-4 cell (y, x)."""
    below = wp.min(y + 1, bits.shape[0] - 1)
    right = wp.min(x + 1, bits.shape[1] - 1)
    return bits[y, x] | bits[y, right] | bits[below, x] | bits[below, right]


@wp.func
def held_everywhere(bits: wp.array2d(dtype=Bits), y: wp.int32, x: wp.int32) -> Bits:
    """The query boxes that hold all four corners of stride-4 cell (y, x)."""
    below = wp.min(y + 1, bits.shape[0] - 1)
    right = wp.min(x + 1, bits.shape[1] - 1)
    return bits[y, x] & bits[y, right] & bits[below, x] & bits[below, right]


@wp.func
def crosses_border(bits: wp.array2d(dtype=Bits), y: wp.int32, x: wp.int32) -> wp.bool:
    """Whether a mask ends in stride-4 cell (y, x): between its corners, then, probabilities are asked for."""
    return not no_bits(held_anywhere(bits, y, x) & ~held_everywhere(bits, y, x))
