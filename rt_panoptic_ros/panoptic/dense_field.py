"""What a frame's outputs say at a point of the stride-4 grid: its own box, and query boxes' mask probabilities (Eq. 5).

What is needed of a point between grid points (softmax normalizer and box) is computed when it is first asked for. The
functions take the field by address (see `structs.py`).
"""

from __future__ import annotations

import warp as wp

from rt_panoptic_ros.panoptic.sampling import (
    Sample,
    bilinear,
    box_area,
    box_iou,
    intersection,
    published_similarity,
    sample_at,
    source_position,
)

wp.set_module_options({"enable_backward": False})

_LEVELS = wp.constant(wp.int32(5))
SURELY = wp.constant(wp.float32(1.001))
"""A factor above 1 by more than rounding."""


@wp.struct
class DenseField:
    """The network's outputs and what is known of each grid point, for the device functions below."""

    logits: wp.array3d(dtype=wp.float32)  # (N, h, w)
    levelness: wp.array3d(dtype=wp.float32)  # (6, 2h, 2w), or empty
    offsets0: wp.array3d(dtype=wp.float32)  # (4, h, w)
    offsets1: wp.array3d(dtype=wp.float32)
    offsets2: wp.array3d(dtype=wp.float32)
    offsets3: wp.array3d(dtype=wp.float32)
    offsets4: wp.array3d(dtype=wp.float32)
    log_normalizer: wp.array2d(dtype=wp.float32)  # (2h, 2w), NaN where not yet computed
    dense_boxes: wp.array2d(dtype=wp.vec4)  # (2h, 2w), likewise; empty boxes without levelness
    use_levelness: wp.bool
    use_published_similarity: wp.bool


@wp.func
def semantic_sample(field: wp.array(dtype=DenseField), gy: wp.int32, gx: wp.int32) -> Sample:
    """Where stride-4 grid point (gy, gx) lies on the stride-8 grid."""
    height = field[0].logits.shape[1]
    width = field[0].logits.shape[2]
    return sample_at(source_position(gy, 0.5), source_position(gx, 0.5), height, width)


@wp.func
def _box_from(
    offsets: wp.array3d(dtype=wp.float32), gy: wp.int32, gx: wp.int32, rows: wp.int32, columns: wp.int32
) -> wp.vec4:
    """The box that one level's offsets, upsampled to the grid of rows x columns, give at (gy, gx); xyxy network px."""
    y = source_position(gy, wp.float32(offsets.shape[1]) / wp.float32(rows))
    x = source_position(gx, wp.float32(offsets.shape[2]) / wp.float32(columns))
    s = sample_at(y, x, offsets.shape[1], offsets.shape[2])
    center_x = wp.float32(4 * gx + 2)
    center_y = wp.float32(4 * gy + 2)
    return wp.vec4(
        center_x - bilinear(offsets, 0, s), center_y - bilinear(offsets, 1, s),
        center_x + bilinear(offsets, 2, s), center_y + bilinear(offsets, 3, s),
    )  # fmt: skip


@wp.func
def _level_box(field: wp.array(dtype=DenseField), level: wp.int32, gy: wp.int32, gx: wp.int32) -> wp.vec4:
    rows = field[0].dense_boxes.shape[0]
    columns = field[0].dense_boxes.shape[1]
    if level == 0:
        return _box_from(field[0].offsets0, gy, gx, rows, columns)
    if level == 1:
        return _box_from(field[0].offsets1, gy, gx, rows, columns)
    if level == 2:
        return _box_from(field[0].offsets2, gy, gx, rows, columns)
    if level == 3:
        return _box_from(field[0].offsets3, gy, gx, rows, columns)
    return _box_from(field[0].offsets4, gy, gx, rows, columns)


@wp.func
def own_box(field: wp.array(dtype=DenseField), gy: wp.int32, gx: wp.int32) -> wp.vec4:
    """The point's own box, from the level of highest levelness (Eq. 14)."""
    best = int(0)
    top = field[0].levelness[1, gy, gx]
    for level in range(1, _LEVELS):
        value = field[0].levelness[level + 1, gy, gx]
        if value > top:
            top = value
            best = level
    return _level_box(field, best, gy, gx)


@wp.func_native("""
float values[256];
float highest = -INFINITY;
for (int c = 0; c < logits.shape[0]; ++c) {
    const char* plane = (const char*)logits.data + (size_t)c * logits.strides[0];
    const float* upper = (const float*)(plane + (size_t)s.y0 * logits.strides[1]);
    const float* lower = (const float*)(plane + (size_t)s.y1 * logits.strides[1]);
    values[c] = (1.0f - s.wy) * ((1.0f - s.wx) * upper[s.x0] + s.wx * upper[s.x1])
        + s.wy * ((1.0f - s.wx) * lower[s.x0] + s.wx * lower[s.x1]);
    highest = values[c] > highest ? values[c] : highest;
}
float total = 0.0f;
for (int c = 0; c < logits.shape[0]; ++c)
    if (values[c] - highest > -25.0f)
        total += expf(values[c] - highest);
return highest + logf(total);
""")
def _log_sum_exp(logits: wp.array3d(dtype=wp.float32), s: Sample) -> wp.float32:
    """Logarithm of the softmax's normalizer over at most 256 classes; 256 terms below e^-25 don't show."""


@wp.func
def fill_point(field: wp.array(dtype=DenseField), gy: wp.int32, gx: wp.int32) -> None:
    """Compute the point's softmax normalizer and, with levelness, its own box."""
    s = semantic_sample(field, gy, gx)
    own = wp.vec4()
    if field[0].use_levelness:
        own = own_box(field, gy, gx)
    field[0].dense_boxes[gy, gx] = own
    field[0].log_normalizer[gy, gx] = _log_sum_exp(field[0].logits, s)


@wp.func
def log_probability(field: wp.array(dtype=DenseField), gy: wp.int32, gx: wp.int32, class_id: wp.int32) -> wp.float32:
    """Logarithm of a class's probability at a filled grid point (Eq. 2)."""
    return bilinear(field[0].logits, class_id, semantic_sample(field, gy, gx)) - field[0].log_normalizer[gy, gx]


@wp.func
def _box_similarity(field: wp.array(dtype=DenseField), own: wp.vec4, query: wp.vec4) -> wp.float32:
    if field[0].use_published_similarity:
        return published_similarity(own, query)
    return box_iou(own, query)


@wp.func
def similarity(
    field: wp.array(dtype=DenseField), own: wp.vec4, gy: wp.int32, gx: wp.int32, query: wp.vec4
) -> wp.float32:
    """Agreement of the point's own box with a query box (Eq. 6); without levelness the best of all levels (A23)."""
    if field[0].use_levelness:
        return _box_similarity(field, own, query)
    best = _box_similarity(field, _level_box(field, 0, gy, gx), query)
    for level in range(1, _LEVELS):
        best = wp.max(best, _box_similarity(field, _level_box(field, level, gy, gx), query))
    return best


@wp.func
def similarity_from(
    field: wp.array(dtype=DenseField), own: wp.vec4, gy: wp.int32, gx: wp.int32, query: wp.vec4, threshold: wp.float32
) -> wp.float32:
    """Likewise, but 0 where it surely stays below a threshold, which is mostly told without a division.

    With levelness, both measures are at most (common area + 1) / (area of the union + 1).
    """
    if field[0].use_levelness:
        common = intersection(own, query)
        union = box_area(own) + box_area(query) - common
        if SURELY * (common + 1.0) < threshold * (union + 1.0):
            return 0.0
    return similarity(field, own, gy, gx, query)


@wp.func
def mask_probability(
    field: wp.array(dtype=DenseField), gy: wp.int32, gx: wp.int32, class_id: wp.int32, query: wp.vec4
) -> wp.float32:
    """Mask probability of a query box at a grid point (Eq. 5).

    Threads that come to a point at once write the same five numbers. One that sees only some of another's still finds a
    NaN among them and writes them itself, so no order of the writes is assumed.
    """
    seen = field[0].dense_boxes[gy, gx]
    if wp.isnan(field[0].log_normalizer[gy, gx] + seen[0] + seen[1] + seen[2] + seen[3]):
        fill_point(field, gy, gx)
    own = field[0].dense_boxes[gy, gx]
    return wp.exp(log_probability(field, gy, gx, class_id)) * similarity(field, own, gy, gx, query)
