# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The kernels of mask construction (see `masks`): which query boxes each point of the stride-4 grid belongs to.

At a grid point, the pixel's own box comes from the level that levelness picks; its agreement with a query box, times
the probability of the query's class, is the mask probability. What is exact and saves work is done:

- Logits between four stride-8 cells are means of theirs, weighted alike for all classes. So where the four share their
  best class k, which leads by at least d at each, k leads by at least d at every point between them. Then each other
  class has a probability of at most exp(-d): if that is below the threshold, only query boxes of class k are compared,
  as agreement is at most 1. And k's own probability is at least 1 / (1 + (N - 1) exp(-d)), which decides most points
  without a softmax.
- Elsewhere, where every thing's logit stays as far below some other class's, no query box is compared.
- A query box is only compared where its class can reach the threshold, and a probability is only computed where the
  agreement, which it can only lower, reaches it.
"""

from __future__ import annotations

import warp as wp

from rt_panoptic_ros.panoptic.mask_field import (
    ROUNDING,
    MaskField,
    crosses_border,
    fill_point,
    is_defined,
    log_probability,
    mask_probability,
    next_alike,
    own_box,
    semantic_sample,
    similarity,
)
from rt_panoptic_ros.panoptic.sampling import Bits, bilinear, lerp2, word_with_bit
from rt_panoptic_ros.records import VOID

wp.set_module_options({"enable_backward": False})

assert VOID == 255  # as the C++ below has it


@wp.func_native("""
const auto& logits = field.data->logits;
const auto& thing_ids = field.data->thing_ids;
#if defined(__CUDA_ARCH__)
const int SIDE = 1;  // others take the other cells
#else
const int SIDE = 16;  // a few vectors
#endif
for (int x = begin; x < end; x += SIDE) {
    const int columns = end - x < SIDE ? end - x : SIDE;
    float value[SIDE] = {}, top[SIDE], second[SIDE], total[SIDE], thing[SIDE];
    int best[SIDE];
    auto read = [&](int c) {
        const char* plane = (const char*)logits.data + (size_t)c * logits.strides[0];
        const float* row = (const float*)(plane + (size_t)y * logits.strides[1]) + x;
        if (columns == SIDE)
            for (int i = 0; i < SIDE; ++i)
                value[i] = row[i];
        else
            for (int i = 0; i < columns; ++i)
                value[i] = row[i];
    };
    for (int i = 0; i < SIDE; ++i) {
        top[i] = second[i] = thing[i] = -INFINITY;
        total[i] = 0.0f;
        best[i] = 0;
    }
    for (int c = 0; c < logits.shape[0]; ++c) {
        read(c);
        for (int i = 0; i < SIDE; ++i) {
            total[i] += value[i];
            const float beaten = value[i] > top[i] ? top[i] : value[i];
            second[i] = beaten > second[i] ? beaten : second[i];
            best[i] = value[i] > top[i] ? c : best[i];
            top[i] = value[i] > top[i] ? value[i] : top[i];
        }
    }
    for (int t = 0; t < thing_ids.shape[0]; ++t) {
        read(thing_ids.data[t]);
        for (int i = 0; i < SIDE; ++i)
            thing[i] = value[i] > thing[i] ? value[i] : thing[i];
    }
    for (int i = 0; i < columns; ++i) {
        const bool defined = isfinite(total[i]);
        wp::index(field.data->best_classes, y, x + i) = defined ? best[i] : 255;
        wp::index(field.data->leads, y, x + i) = defined ? top[i] - second[i] : 0.0f;
        wp::index(field.data->best_things, y, x + i) = thing[i];
    }
}
""")
def _find_best(field: wp.array(dtype=MaskField), y: wp.int32, begin: wp.int32, end: wp.int32) -> None:
    """Find, of each cell of a part of a row, what `find_best_classes` says."""


@wp.kernel
def find_best_classes(field: wp.array(dtype=MaskField), span: wp.int32) -> None:
    """Per stride-8 cell: the best class (lowest id on ties), its lead over the second, and the best thing's logit.

    A cell with a logit that is no finite number has no class: it is void, and no object lies at the points around it.
    A thread does `span` cells of a row.
    """
    y, place = wp.tid()
    _find_best(field, y, place * span, place * span + span)


@wp.kernel
def group_by_thing(
    threads: wp.int32,
    field: wp.array(dtype=MaskField),
    scores: wp.array(dtype=wp.float32),
    count: wp.array(dtype=wp.int32),
    score_threshold: wp.float32,
) -> None:
    """List the query boxes of each thing class, in one block; those below the score threshold take no part."""
    _, thread = wp.tid()
    taking_part = int(0)
    for j in range(count[0]):
        taking_part += wp.where(scores[j] >= score_threshold, 1, 0)  # scores fall
    labels = field[0].labels
    for j in range(thread, taking_part, threads):
        place = int(0)
        for other in range(taking_part):
            place += wp.where(labels[other] < labels[j] or (labels[other] == labels[j] and other < j), 1, 0)
        field[0].members[place] = j
        for side in range(4):
            field[0].member_sides[side, place] = field[0].boxes[j][side]
    for label in range(thread, field[0].starts.shape[0], threads):
        start = int(0)
        for other in range(taking_part):
            start += wp.where(labels[other] < label, 1, 0)
        field[0].starts[label] = start
    if thread == 0:
        field[0].active[0] = taking_part


@wp.func
def _members_of_thing(
    field: wp.array(dtype=MaskField), band: wp.int32, gy: wp.int32, gx: wp.int32, label: wp.int32, least: wp.float32
) -> Bits:
    """The query boxes that a point belongs to where only thing `label`, at least so probable, can have any."""
    found = Bits()
    first = field[0].starts[label]
    last = field[0].starts[label + 1]
    own = own_box(field, gy, gx)
    if not is_defined(own):
        field[0].undefined[1 + band] = 1
    threshold = field[0].threshold
    i = next_alike(field, own, first, last)
    while i < last:
        j = field[0].members[i]
        agreement = similarity(field, own, gy, gx, field[0].boxes[j])
        if agreement >= threshold:
            inside = least * agreement >= threshold * ROUNDING
            if not inside:
                if wp.isnan(field[0].log_normalizer[gy, gx]):
                    fill_point(field, gy, gx)
                inside = mask_probability(field, gy, gx, j) >= threshold
            if inside:
                found[j >> 5] = word_with_bit(found[j >> 5], j & 31)
        i = next_alike(field, own, i + 1, last)
    return found


@wp.func
def _things_are_negligible(field: wp.array(dtype=MaskField), gy: wp.int32, gx: wp.int32) -> wp.bool:
    """Whether every thing's logit lies so far below another class's that its probability misses the threshold."""
    s = semantic_sample(field, gy, gx)
    logits = field[0].logits
    best = field[0].best_classes
    things = field[0].best_things
    # Interpolating the cells' best things gives at least what any single thing has here.
    corners = wp.vec4(things[s.y0, s.x0], things[s.y0, s.x1], things[s.y1, s.x0], things[s.y1, s.x1])
    upper = wp.max(bilinear(logits, wp.int32(best[s.y0, s.x0]), s), bilinear(logits, wp.int32(best[s.y0, s.x1]), s))
    lower = wp.max(bilinear(logits, wp.int32(best[s.y1, s.x0]), s), bilinear(logits, wp.int32(best[s.y1, s.x1]), s))
    return wp.max(upper, lower) - lerp2(corners, s.wy, s.wx) > field[0].gap


@wp.func
def _members_of_all(field: wp.array(dtype=MaskField), band: wp.int32, gy: wp.int32, gx: wp.int32) -> Bits:
    """The query boxes that a point belongs to, of all classes."""
    found = Bits()
    fill_point(field, gy, gx)
    own = field[0].own_boxes[gy, gx]
    if not is_defined(own):
        field[0].undefined[1 + band] = 1
    for label in range(field[0].thing_ids.shape[0]):
        if field[0].starts[label] < field[0].starts[label + 1]:
            likelihood = log_probability(field, gy, gx, field[0].thing_ids[label])
            if likelihood >= -field[0].gap:
                probability = wp.exp(likelihood)
                last = field[0].starts[label + 1]
                i = next_alike(field, own, field[0].starts[label], last)
                while i < last:
                    j = field[0].members[i]
                    if probability * similarity(field, own, gy, gx, field[0].boxes[j]) >= field[0].threshold:
                        found[j >> 5] = word_with_bit(found[j >> 5], j & 31)
                    i = next_alike(field, own, i + 1, last)
    return found


@wp.func_native("""
const auto& f = *field.data;
const int last_row = f.best_classes.shape[0] - 1, last_column = f.best_classes.shape[1] - 1;
const int y0 = y > 0 ? y - 1 : 0, y1 = y < last_row ? y : last_row;
auto row = [](const auto& array, int r) { return (const char*)array.data + (size_t)r * array.strides[0]; };
const unsigned char* upper = (const unsigned char*)row(f.best_classes, y0);
const unsigned char* lower = (const unsigned char*)row(f.best_classes, y1);
const float* upper_leads = (const float*)row(f.leads, y0);
const float* lower_leads = (const float*)row(f.leads, y1);
const bool any_active = f.active.data[0] > 0;
for (; x < end; ++x) {
    const int x0 = x > 0 ? x - 1 : 0, x1 = x < last_column ? x : last_column;
    const unsigned char a = upper[x0], b = upper[x1], c = lower[x0], d = lower[x1];
    const bool defined = (a != 255) & (b != 255) & (c != 255) & (d != 255);
    if (!defined)
        f.undefined.data[1 + band] = 1;
    bool possible = any_active & defined;
    if (possible & (a == b) & (a == c) & (a == d)) {
        const bool decided = (upper_leads[x0] > f.gap) & (upper_leads[x1] > f.gap) & (lower_leads[x0] > f.gap)
            & (lower_leads[x1] > f.gap);
        const int label = f.things_of.data[a];
        if (decided)
            possible = label >= 0 && f.starts.data[label] < f.starts.data[label + 1];
    }
    if (possible)
        break;
    for (int point = first_point; point < last_point; ++point) {
        const int gy = 2 * y - 1 + (point >> 1), gx = 2 * x - 1 + (point & 1);
        if (gy >= 0 && gx >= 0 && gy < f.bits.shape[0] && gx < f.bits.shape[1]) {
            wp::index(f.log_normalizer, gy, gx) = NAN;
            for (int word = 0; word < 4; ++word)
                wp::index(f.bits, gy, gx)[word] = 0u;
        }
    }
}
return x;
""")
def _skip_empty(  # type: ignore[empty-body]
    field: wp.array(dtype=MaskField), band: wp.int32, y: wp.int32, x: wp.int32, end: wp.int32,
    first_point: wp.int32, last_point: wp.int32,
) -> int:  # fmt: skip
    """Return the first x from x on, or `end`, whose points may belong to query boxes; leave those before without any.

    They can't where no query box takes part, where a cell has no class, and where the class of all four cells, beside
    which no other reaches the threshold, has no query box.
    """


@wp.kernel
def find_members(
    first_row: wp.int32, band: wp.int32, field: wp.array(dtype=MaskField), share: wp.int32, span: wp.int32
) -> None:
    """Set the bits of the query boxes whose mask probability reaches the threshold at the grid point (Eq. 7).

    Stride-8 cell i lies between stride-4 points 2i and 2i + 1. A thread looks at `share` of the four points between the
    same four cells, fewer at the border, so that what the cells have in common (see above) is worked out once for them;
    and it does so for `span` such places of a row, one after the other.
    """
    row, part, place = wp.tid()
    y = first_row + row
    best = field[0].best_classes
    leads = field[0].leads
    y0 = wp.max(y - 1, 0)
    y1 = wp.min(y, best.shape[0] - 1)
    bits = field[0].bits
    end = place * span + span
    x = _skip_empty(field, band, y, place * span, end, part * share, part * share + share)
    while x < end:
        x0 = wp.max(x - 1, 0)
        x1 = wp.min(x, best.shape[1] - 1)
        common = best[y0, x0]
        lead = wp.min(wp.min(leads[y0, x0], leads[y0, x1]), wp.min(leads[y1, x0], leads[y1, x1]))
        alike = common == best[y0, x1] and common == best[y1, x0] and common == best[y1, x1]
        decided = alike and lead > field[0].gap  # no class but the common one can reach the threshold
        label = field[0].things_of[wp.int32(common)]
        least = 1.0 / (1.0 + wp.float32(field[0].logits.shape[0] - 1) * wp.exp(-lead))
        for point in range(part * share, part * share + share):
            gy = 2 * y - 1 + (point >> 1)
            gx = 2 * x - 1 + (point & 1)
            if gy >= 0 and gx >= 0 and gy < bits.shape[0] and gx < bits.shape[1]:
                field[0].log_normalizer[gy, gx] = wp.nan  # it is not filled yet
                found = Bits()
                if decided:
                    found = _members_of_thing(field, band, gy, gx, label, least)
                elif not _things_are_negligible(field, gy, gx):
                    found = _members_of_all(field, band, gy, gx)
                bits[gy, gx] = found
        x = _skip_empty(field, band, y, x + 1, end, part * share, part * share + share)


@wp.func_native("""
const unsigned int* rows[4];
for (int i = 0; i < 4; ++i) {
    const int gy = 2 * y - 1 + i, last = bits.shape[0] - 1;
    rows[i] = (const unsigned int*)&wp::index(bits, gy < 0 ? 0 : gy < last ? gy : last, 0);
}
int alike = 0;  // so many columns, up to the last one looked at, have the same in all rows
for (int column = 2 * x - 1, before = -1; x < end; ++column) {
    const int last = bits.shape[1] - 1, gx = column < 0 ? 0 : column < last ? column : last;
    const unsigned int* top = rows[0] + 4 * gx;
    unsigned int between_rows = 0u, to_the_left = 0u;
    for (int word = 0; word < 4; ++word) {
        for (int i = 1; i < 4; ++i)
            between_rows |= rows[i][4 * gx + word] ^ top[word];
        to_the_left |= before < 0 ? 0u : rows[0][4 * before + word] ^ top[word];
    }
    alike = between_rows ? 0 : to_the_left ? 1 : alike + 1;
    before = gx;
    if (column == 2 * x + 2) {
        if (alike < 4)
            return x;
        ++x;
    }
}
return x;
""")
def _next_border(bits: wp.array2d(dtype=Bits), y: wp.int32, x: wp.int32, end: wp.int32) -> int:  # type: ignore[empty-body]
    """Return the first cell from x on, or `end`, around which not all 4x4 points are held by the same query boxes.

    They are the points from (2y - 1, 2x - 1) to (2y + 2, 2x + 2), as far as there are.
    """


@wp.func
def _is_asked_for(bits: wp.array2d(dtype=Bits), gy: wp.int32, gx: wp.int32) -> wp.bool:
    """Whether a mask ends in one of the four cells at a grid point."""
    above = wp.max(gy - 1, 0)
    left = wp.max(gx - 1, 0)
    upper = crosses_border(bits, above, left) or crosses_border(bits, above, gx)
    return upper or crosses_border(bits, gy, left) or crosses_border(bits, gy, gx)


@wp.kernel
def fill_points(
    first_row: wp.int32, band: wp.int32, field: wp.array(dtype=MaskField), share: wp.int32, span: wp.int32
) -> None:
    """Fill the points at cells in which a mask ends, for those who ask for probabilities between points.

    A thread looks at `share` of the four points (2y, 2x) to (2y + 1, 2x + 1), and at nothing more where no mask ends
    near them; it does so for `span` such x, one after the other.
    """
    row, part, place = wp.tid()
    y = first_row + row
    bits = field[0].bits
    end = place * span + span
    x = _next_border(bits, y, place * span, end)
    while x < end:
        for point in range(part * share, part * share + share):
            gy = 2 * y + (point >> 1)
            gx = 2 * x + (point & 1)
            if wp.isnan(field[0].log_normalizer[gy, gx]) and _is_asked_for(bits, gy, gx):
                fill_point(field, gy, gx)
        x = _next_border(bits, y, x + 1, end)
