# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Mask construction (Eq. 5-7, 14): which query boxes each point of the stride-4 grid belongs to.

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

import math
from typing import TYPE_CHECKING

import warp as wp

from rt_panoptic_ros.panoptic.launching import HELD_CELLS, StructSlot, divided, launch, launch_blocks, launch_rows
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
from rt_panoptic_ros.panoptic.sampling import Bits, Level, bilinear, lerp2, word_with_bit
from rt_panoptic_ros.records import VOID, DenseDetections, MaskMembership, QueryBoxes
from rt_panoptic_ros.settings import MAX_DETECTIONS

if TYPE_CHECKING:
    from rt_panoptic_ros.settings import MaskSettings

wp.set_module_options({"enable_backward": False})

_POINTS = 4  # of the stride-4 grid by cell of the stride-8 grid
_VOID = wp.constant(wp.uint8(VOID))
_LOG_MARGIN = 1e-3  # far above the rounding of logits, so that culling by them never changes a result


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
    """Find, of each cell of a part of a row, what `_find_best_classes` says."""


@wp.kernel
def _find_best_classes(field: wp.array(dtype=MaskField), share: wp.int32) -> None:
    """Per stride-8 cell: the best class (lowest id on ties), its lead over the second, and the best thing's logit.

    A cell with a logit that is no finite number has no class: it is void, and no object lies at the points around it.
    A thread does `share` cells of a row.
    """
    y, part = wp.tid()
    _find_best(field, y, part * share, part * share + share)


@wp.kernel
def _group_by_thing(
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
    if first == last:
        return found
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


@wp.kernel
def _find_members(first_row: wp.int32, band: wp.int32, field: wp.array(dtype=MaskField), share: wp.int32) -> None:
    """Set the bits of the query boxes whose mask probability reaches the threshold at the grid point (Eq. 7).

    Stride-8 cell i lies between stride-4 points 2i and 2i + 1. A thread looks at `share` of the four points between the
    same four cells, fewer at the border, so that what the cells have in common (see above) is worked out once for them.
    """
    row, part, x = wp.tid()
    y = first_row + row
    best = field[0].best_classes
    leads = field[0].leads
    y0 = wp.max(y - 1, 0)
    x0 = wp.max(x - 1, 0)
    y1 = wp.min(y, best.shape[0] - 1)
    x1 = wp.min(x, best.shape[1] - 1)
    common = best[y0, x0]
    lead = wp.min(wp.min(leads[y0, x0], leads[y0, x1]), wp.min(leads[y1, x0], leads[y1, x1]))
    alike = common == best[y0, x1] and common == best[y1, x0] and common == best[y1, x1]
    decided = alike and lead > field[0].gap  # no class but the common one can reach the threshold
    label = field[0].things_of[wp.int32(common)]
    upper = wp.max(common, best[y0, x1])
    defined = wp.max(upper, wp.max(best[y1, x0], best[y1, x1])) < _VOID
    if not defined:
        field[0].undefined[1 + band] = 1
    possible = field[0].active[0] > 0 and defined
    least = float(0.0)
    if decided:
        possible = possible and label >= 0
        least = 1.0 / (1.0 + wp.float32(field[0].logits.shape[0] - 1) * wp.exp(-lead))
    bits = field[0].bits
    for point in range(part * share, part * share + share):
        gy = 2 * y - 1 + (point >> 1)
        gx = 2 * x - 1 + (point & 1)
        if gy >= 0 and gx >= 0 and gy < bits.shape[0] and gx < bits.shape[1]:
            field[0].log_normalizer[gy, gx] = wp.nan  # it is not filled yet
            found = Bits()
            if possible:
                if decided:
                    found = _members_of_thing(field, band, gy, gx, label, least)
                elif not _things_are_negligible(field, gy, gx):
                    found = _members_of_all(field, band, gy, gx)
            bits[gy, gx] = found


@wp.func_native("""
int columns[4];
for (int i = 0; i < 4; ++i)
    columns[i] = 4 * (left + i < 0 ? 0 : left + i < bits.shape[1] ? left + i : bits.shape[1] - 1);
unsigned int anywhere[4] = {0u, 0u, 0u, 0u}, everywhere[4] = {~0u, ~0u, ~0u, ~0u};
for (int i = 0; i < 4; ++i) {
    const int gy = top + i < 0 ? 0 : top + i < bits.shape[0] ? top + i : bits.shape[0] - 1;
    const unsigned int* row = (const unsigned int*)&wp::index(bits, gy, 0);
    for (int column : columns)
        for (int word = 0; word < 4; ++word) {
            anywhere[word] |= row[column + word];
            everywhere[word] &= row[column + word];
        }
}
bool alike = true;
for (int word = 0; word < 4; ++word)
    alike &= anywhere[word] == everywhere[word];
return alike;
""")
def _are_alike(bits: wp.array2d(dtype=Bits), top: wp.int32, left: wp.int32) -> bool:  # type: ignore[empty-body]
    """Return whether the 4x4 points from (top, left) on, as far as there are, are held by the same query boxes."""


@wp.func
def _is_asked_for(bits: wp.array2d(dtype=Bits), gy: wp.int32, gx: wp.int32) -> wp.bool:
    """Whether a mask ends in one of the four cells at a grid point."""
    above = wp.max(gy - 1, 0)
    left = wp.max(gx - 1, 0)
    upper = crosses_border(bits, above, left) or crosses_border(bits, above, gx)
    return upper or crosses_border(bits, gy, left) or crosses_border(bits, gy, gx)


@wp.kernel
def _fill_points(first_row: wp.int32, band: wp.int32, field: wp.array(dtype=MaskField), share: wp.int32) -> None:
    """Fill the points at cells in which a mask ends, for those who ask for probabilities between points.

    A thread looks at `share` of the four points (2y, 2x) to (2y + 1, 2x + 1), and at nothing more where no mask ends
    near them.
    """
    row, part, x = wp.tid()
    y = first_row + row
    bits = field[0].bits
    if _are_alike(bits, 2 * y - 1, 2 * x - 1):
        return
    for point in range(part * share, part * share + share):
        gy = 2 * y + (point >> 1)
        gx = 2 * x + (point & 1)
        if wp.isnan(field[0].log_normalizer[gy, gx]) and _is_asked_for(bits, gy, gx):
            fill_point(field, gy, gx)


class MaskConstructor:
    """Holds the buffers for one set of output shapes."""

    def __init__(self, dense: DenseDetections, thing_ids: tuple[int, ...]) -> None:
        """Allocate for outputs of the shapes and the device of `dense`; `thing_ids` are the things' class ids."""
        device = dense.semantic_logits.device
        _, height, width = dense.semantic_logits.shape
        self._cells, grid = (height, width), (2 * height, 2 * width)
        things_of = [thing_ids.index(c) if c in thing_ids else -1 for c in range(VOID + 1)]
        self._no_levelness = wp.zeros((0, 0, 0), dtype=wp.float32, device=device)
        self._buffers = {
            "thing_ids": wp.array(thing_ids, dtype=wp.int32, device=device),
            "things_of": wp.array(things_of, dtype=wp.int32, device=device),
            "active": wp.zeros(1, dtype=wp.int32, device=device),
            "starts": wp.zeros(len(thing_ids) + 1, dtype=wp.int32, device=device),
            "members": wp.zeros(MAX_DETECTIONS, dtype=wp.int32, device=device),
            "member_sides": wp.zeros((4, MAX_DETECTIONS + 8), dtype=wp.float32, device=device),
            "best_classes": wp.zeros(self._cells, dtype=wp.uint8, device=device),
            "leads": wp.zeros(self._cells, dtype=wp.float32, device=device),
            "best_things": wp.zeros(self._cells, dtype=wp.float32, device=device),
            "log_normalizer": wp.zeros(grid, dtype=wp.float32, device=device),
            "own_boxes": wp.zeros(grid, dtype=wp.vec4, device=device),
            "bits": wp.zeros(grid, dtype=Bits, device=device),
        }
        self._levels = StructSlot(Level, device)
        self._field = StructSlot(MaskField, device)

    def construct(self, dense: DenseDetections, queries: QueryBoxes, settings: MaskSettings) -> MaskMembership:
        """Return the membership of the grid points, valid until the next call.

        Args:
            dense: The network's outputs.
            queries: The query boxes.
            settings: Similarity and thresholds; query boxes below that of the score take no part.
        """
        membership = self.begin(dense, queries, settings)
        self.find_classes(membership)
        self.find_members(membership, queries, settings)
        return membership

    def begin(self, dense: DenseDetections, queries: QueryBoxes, settings: MaskSettings) -> MaskMembership:
        """Return what `find_classes` and then `find_members` fill; the query boxes need not be selected yet."""
        levelness = dense.levelness_logits
        field = self._field.hold(
            {
                **self._buffers,
                "logits": dense.semantic_logits,
                "levelness": self._no_levelness if levelness is None else levelness,
                "levels": self._levels.hold(*({"offsets": offsets} for offsets in dense.box_offsets)),
                "use_levelness": levelness is not None,
                "use_published_similarity": settings.similarity == "giou",
                "boxes": queries.boxes,
                "labels": queries.labels,
                "undefined": queries.undefined,
                "threshold": settings.mask_threshold,
                "gap": _LOG_MARGIN - math.log(settings.mask_threshold),
            }
        )
        return MaskMembership(self._buffers["best_classes"], self._buffers["active"], field)

    def find_classes(self, membership: MaskMembership) -> None:
        """Find the best classes of the stride-8 cells, for `find_members` and the semantics."""
        (rows, columns), parts = self._cells, divided(membership.field.device, self._cells[1])
        launch(_find_best_classes, (rows, parts), membership.field, columns // parts)

    def find_members(self, membership: MaskMembership, queries: QueryBoxes, settings: MaskSettings) -> None:
        """Find which query boxes each grid point belongs to, with the arguments of `begin`."""
        field, (rows, columns) = membership.field, self._cells
        launch_blocks(_group_by_thing, 1, field, queries.scores, queries.count, settings.score_threshold)
        parts = divided(field.device, _POINTS)
        launch_rows(_find_members, (rows + 1, parts, columns + 1), field, _POINTS // parts)
        launch_rows(_fill_points, (rows, parts, columns), field, _POINTS // parts, least_cells=HELD_CELLS)

    def in_use(self) -> list[object]:
        """Return what the last `construct` worked on and another may replace; see `QueryBoxSelector.in_use`."""
        return [self._levels.array, self._field.array]
