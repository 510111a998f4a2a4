"""Mask construction (Eq. 5-7, 14): which query boxes each point of the stride-4 grid belongs to.

At a grid point, the pixel's own box comes from the level that levelness picks; its agreement with a query box, times
the probability of the query's class, is the mask probability. What is exact and saves work is done:

- Where the four corners of a stride-8 cell share their best class k, and class c stays below it by more than
  -log(threshold) at all four, c's probability stays below the threshold everywhere between. If that holds for all c,
  only query boxes of class k are compared, and k's probability is at least 1 / (1 + (N - 1) exp(-margin)), which
  decides most points without a softmax.
- A query box is only compared where its class can reach the threshold, and a probability is only computed where the
  agreement, which it can only lower, reaches it.
- What is needed of a point between points (softmax normalizer and box) is computed when it is first asked for.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import warp as wp

from rt_panoptic_ros.panoptic.bands import launch_rows
from rt_panoptic_ros.panoptic.sampling import (
    Bits,
    Sample,
    bilinear,
    box_iou,
    lerp2,
    published_similarity,
    sample_at,
    source_position,
    word_with_bit,
)
from rt_panoptic_ros.records import DenseDetections, MaskMembership, QueryBoxes
from rt_panoptic_ros.settings import MAX_DETECTIONS

if TYPE_CHECKING:
    from rt_panoptic_ros.settings import MaskSettings

wp.set_module_options({"enable_backward": False})

_LEVELS = wp.constant(wp.int32(5))
_LOG_MARGIN = 1e-3  # far above the rounding of logits, so that culling by them never changes a result
_SURELY = wp.constant(wp.float32(1.001))  # above 1 by more than rounding


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


@wp.struct
class GroupedQueries:
    """The query boxes that take part, by class."""

    boxes: wp.array(dtype=wp.vec4)  # (K,) xyxy network px
    starts: wp.array(dtype=wp.int32)  # (T + 1,): where the members of each thing begin
    members: wp.array(dtype=wp.int32)  # (K,): rows of `boxes`
    thing_ids: wp.array(dtype=wp.int32)  # (T,)
    threshold: wp.float32  # of the mask probability


@wp.func
def _semantic_sample(field: DenseField, gy: wp.int32, gx: wp.int32) -> Sample:
    """Where stride-4 grid point (gy, gx) lies on the stride-8 grid."""
    height = field.logits.shape[1]
    width = field.logits.shape[2]
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
def _level_box(field: DenseField, level: wp.int32, gy: wp.int32, gx: wp.int32) -> wp.vec4:
    rows = field.dense_boxes.shape[0]
    columns = field.dense_boxes.shape[1]
    if level == 0:
        return _box_from(field.offsets0, gy, gx, rows, columns)
    if level == 1:
        return _box_from(field.offsets1, gy, gx, rows, columns)
    if level == 2:
        return _box_from(field.offsets2, gy, gx, rows, columns)
    if level == 3:
        return _box_from(field.offsets3, gy, gx, rows, columns)
    return _box_from(field.offsets4, gy, gx, rows, columns)


@wp.func
def _own_box(field: DenseField, gy: wp.int32, gx: wp.int32) -> wp.vec4:
    """The point's own box, from the level of highest levelness (Eq. 14)."""
    best = int(0)
    top = field.levelness[1, gy, gx]
    for level in range(1, _LEVELS):
        value = field.levelness[level + 1, gy, gx]
        if value > top:
            top = value
            best = level
    return _level_box(field, best, gy, gx)


@wp.func
def _fill_point(field: DenseField, gy: wp.int32, gx: wp.int32) -> None:
    """Compute the point's softmax normalizer and, with levelness, its own box."""
    s = _semantic_sample(field, gy, gx)
    highest = bilinear(field.logits, 0, s)
    for c in range(1, field.logits.shape[0]):
        highest = wp.max(highest, bilinear(field.logits, c, s))
    total = float(0.0)
    for c in range(field.logits.shape[0]):
        total += wp.exp(bilinear(field.logits, c, s) - highest)
    own = wp.vec4()
    if field.use_levelness:
        own = _own_box(field, gy, gx)
    field.dense_boxes[gy, gx] = own
    field.log_normalizer[gy, gx] = highest + wp.log(total)


@wp.func
def _log_probability(field: DenseField, gy: wp.int32, gx: wp.int32, class_id: wp.int32) -> wp.float32:
    """Logarithm of a class's probability at a filled grid point (Eq. 2)."""
    return bilinear(field.logits, class_id, _semantic_sample(field, gy, gx)) - field.log_normalizer[gy, gx]


@wp.func
def _box_similarity(field: DenseField, own: wp.vec4, query: wp.vec4) -> wp.float32:
    if field.use_published_similarity:
        return published_similarity(own, query)
    return box_iou(own, query)


@wp.func
def _similarity(field: DenseField, own: wp.vec4, gy: wp.int32, gx: wp.int32, query: wp.vec4) -> wp.float32:
    """Agreement of the point's own box with a query box (Eq. 6); without levelness the best of all levels (A23)."""
    if field.use_levelness:
        return _box_similarity(field, own, query)
    best = _box_similarity(field, _level_box(field, 0, gy, gx), query)
    for level in range(1, _LEVELS):
        best = wp.max(best, _box_similarity(field, _level_box(field, level, gy, gx), query))
    return best


@wp.func
def mask_probability(field: DenseField, gy: wp.int32, gx: wp.int32, class_id: wp.int32, query: wp.vec4) -> wp.float32:
    """Mask probability of a query box at a grid point (Eq. 5).

    Threads that come to a point at once write the same five numbers. One that sees only some of another's still finds a
    NaN among them and writes them itself, so no order of the writes is assumed.
    """
    seen = field.dense_boxes[gy, gx]
    if wp.isnan(field.log_normalizer[gy, gx] + seen[0] + seen[1] + seen[2] + seen[3]):
        _fill_point(field, gy, gx)
    own = field.dense_boxes[gy, gx]
    return wp.exp(_log_probability(field, gy, gx, class_id)) * _similarity(field, own, gy, gx, query)


@wp.kernel
def _find_peaks(
    first_row: wp.int32,
    band: wp.int32,
    logits: wp.array3d(dtype=wp.float32),
    thing_ids: wp.array(dtype=wp.int32),
    peaks: wp.array2d(dtype=wp.uint8),
    margins: wp.array2d(dtype=wp.float32),
    thing_tops: wp.array2d(dtype=wp.float32),
) -> None:
    """Per stride-8 cell: the best class (lowest id on ties), its lead over the second, and the best thing's logit."""
    row, x = wp.tid()
    y = first_row + row
    best = int(0)
    top = logits[0, y, x]
    second = float(-wp.inf)
    for c in range(1, logits.shape[0]):
        value = logits[c, y, x]
        second = wp.max(second, wp.min(value, top))
        if value > top:
            best = c
        top = wp.max(top, value)
    thing = logits[thing_ids[0], y, x]
    for i in range(1, thing_ids.shape[0]):
        thing = wp.max(thing, logits[thing_ids[i], y, x])
    peaks[y, x] = wp.uint8(best)
    margins[y, x] = top - second
    thing_tops[y, x] = thing


@wp.kernel
def _group_by_class(
    scores: wp.array(dtype=wp.float32),
    labels: wp.array(dtype=wp.int32),
    count: wp.array(dtype=wp.int32),
    score_threshold: wp.float32,
    starts: wp.array(dtype=wp.int32),  # (T + 1,)
    members: wp.array(dtype=wp.int32),
    active: wp.array(dtype=wp.int32),
) -> None:
    """List the query boxes of each thing class; those below the score threshold take no part."""
    taking_part = int(0)
    for j in range(count[0]):
        if scores[j] >= score_threshold:
            taking_part = j + 1
    active[0] = taking_part
    filled = int(0)
    for label in range(starts.shape[0] - 1):
        starts[label] = filled
        for j in range(taking_part):
            if labels[j] == label:
                members[filled] = j
                filled += 1
    starts[starts.shape[0] - 1] = filled


@wp.func
def _members_of_peak(
    field: DenseField, queries: GroupedQueries, gy: wp.int32, gx: wp.int32, label: wp.int32, margin: wp.float32
) -> Bits:
    """The query boxes that a point belongs to where only thing `label`, the best class by `margin`, can have any."""
    found = Bits()
    first = queries.starts[label]
    last = queries.starts[label + 1]
    if first == last:
        return found
    own = wp.vec4()
    if field.use_levelness:
        own = _own_box(field, gy, gx)
    least = 1.0 / (1.0 + wp.float32(field.logits.shape[0] - 1) * wp.exp(-margin))
    for i in range(first, last):
        j = queries.members[i]
        agreement = _similarity(field, own, gy, gx, queries.boxes[j])
        if agreement >= queries.threshold:
            inside = least * agreement >= queries.threshold * _SURELY
            if not inside:
                class_id = queries.thing_ids[label]
                inside = mask_probability(field, gy, gx, class_id, queries.boxes[j]) >= queries.threshold
            if inside:
                found[j >> 5] = word_with_bit(found[j >> 5], j & 31)
    return found


@wp.func
def _things_are_far(
    field: DenseField,
    peaks: wp.array2d(dtype=wp.uint8),
    thing_tops: wp.array2d(dtype=wp.float32),
    gy: wp.int32,
    gx: wp.int32,
    reach: wp.float32,
) -> wp.bool:
    """Whether every thing's logit lies more than `reach` below another class's at a point."""
    s = _semantic_sample(field, gy, gx)
    # The interpolation of the cells' best things is at least that of any single thing.
    things = lerp2(
        thing_tops[s.y0, s.x0], thing_tops[s.y0, s.x1], thing_tops[s.y1, s.x0], thing_tops[s.y1, s.x1], s.wy, s.wx
    )  # fmt: skip
    top = wp.max(
        bilinear(field.logits, wp.int32(peaks[s.y0, s.x0]), s), bilinear(field.logits, wp.int32(peaks[s.y0, s.x1]), s)
    )
    bottom = wp.max(
        bilinear(field.logits, wp.int32(peaks[s.y1, s.x0]), s), bilinear(field.logits, wp.int32(peaks[s.y1, s.x1]), s)
    )
    return wp.max(top, bottom) - things > reach


@wp.func
def _members_of_any(
    field: DenseField, queries: GroupedQueries, gy: wp.int32, gx: wp.int32, reach: wp.float32
) -> Bits:  # fmt: skip
    """The query boxes that a point belongs to, of all classes."""
    found = Bits()
    _fill_point(field, gy, gx)
    own = field.dense_boxes[gy, gx]
    for label in range(queries.thing_ids.shape[0]):
        if queries.starts[label] < queries.starts[label + 1]:
            log_probability = _log_probability(field, gy, gx, queries.thing_ids[label])
            if log_probability >= -reach:
                probability = wp.exp(log_probability)
                for i in range(queries.starts[label], queries.starts[label + 1]):
                    j = queries.members[i]
                    if probability * _similarity(field, own, gy, gx, queries.boxes[j]) >= queries.threshold:
                        found[j >> 5] = word_with_bit(found[j >> 5], j & 31)
    return found


@wp.kernel
def _find_members(
    first_row: wp.int32,
    band: wp.int32,
    field: DenseField,
    queries: GroupedQueries,
    peaks: wp.array2d(dtype=wp.uint8),
    margins: wp.array2d(dtype=wp.float32),
    thing_tops: wp.array2d(dtype=wp.float32),
    things_of: wp.array(dtype=wp.int32),  # per class: its place among the things, or -1
    active: wp.array(dtype=wp.int32),
    reach: wp.float32,  # a class this far below another surely stays below the threshold
    bits: wp.array2d(dtype=Bits),
) -> None:
    """Set the bits of the query boxes whose mask probability reaches the threshold at the grid point (Eq. 7).

    A thread looks at the up to four points between the same four stride-8 cells.
    """
    row, x = wp.tid()
    y = first_row + row
    y0 = wp.max(y - 1, 0)
    x0 = wp.max(x - 1, 0)
    y1 = wp.min(y, peaks.shape[0] - 1)
    x1 = wp.min(x, peaks.shape[1] - 1)
    peak = peaks[y0, x0]
    alike = peak == peaks[y0, x1] and peak == peaks[y1, x0] and peak == peaks[y1, x1]
    margin = wp.min(wp.min(margins[y0, x0], margins[y0, x1]), wp.min(margins[y1, x0], margins[y1, x1]))
    only_peak = alike and margin > reach
    label = things_of[wp.int32(peak)]
    possible = active[0] > 0
    if only_peak:
        possible = possible and label >= 0
    for gy in range(wp.max(2 * y - 1, 0), wp.min(2 * y + 1, bits.shape[0])):
        for gx in range(wp.max(2 * x - 1, 0), wp.min(2 * x + 1, bits.shape[1])):
            field.log_normalizer[gy, gx] = wp.nan
            field.dense_boxes[gy, gx] = wp.vec4(wp.nan, wp.nan, wp.nan, wp.nan)
            found = Bits()
            if possible:
                if only_peak:
                    found = _members_of_peak(field, queries, gy, gx, label, margin)
                elif not _things_are_far(field, peaks, thing_tops, gy, gx, reach):
                    found = _members_of_any(field, queries, gy, gx, reach)
            bits[gy, gx] = found


class MaskConstructor:
    """Holds the buffers for one set of output shapes; `construct` is a function of its arguments only."""

    def __init__(self, dense: DenseDetections, thing_ids: tuple[int, ...]) -> None:
        """Allocate for outputs of the shapes and the device of `dense`; `thing_ids` are the things' class ids."""
        device = dense.semantic_logits.device
        self._device = device
        height, width = dense.semantic_logits.shape[1:]
        grid = (2 * height, 2 * width)
        self._thing_ids = wp.array(thing_ids, dtype=wp.int32, device=device)
        places = [thing_ids.index(c) if c in thing_ids else -1 for c in range(dense.semantic_logits.shape[0])]
        self._things_of = wp.array(places, dtype=wp.int32, device=device)
        self._peaks = wp.zeros((height, width), dtype=wp.uint8, device=device)
        self._margins = wp.zeros((height, width), dtype=wp.float32, device=device)
        self._thing_tops = wp.zeros((height, width), dtype=wp.float32, device=device)
        self._starts = wp.zeros(len(thing_ids) + 1, dtype=wp.int32, device=device)
        self._members = wp.zeros(MAX_DETECTIONS, dtype=wp.int32, device=device)
        self._no_levelness = wp.zeros((0, 0, 0), dtype=wp.float32, device=device)
        self._bits = wp.zeros(grid, dtype=Bits, device=device)
        self._log_normalizer = wp.zeros(grid, dtype=wp.float32, device=device)
        self._dense_boxes = wp.zeros(grid, dtype=wp.vec4, device=device)
        self._active = wp.zeros(1, dtype=wp.int32, device=device)

    def construct(
        self, dense: DenseDetections, queries: QueryBoxes, settings: MaskSettings, *, score_threshold: float = 0.0
    ) -> MaskMembership:
        """Return the membership of the grid points, valid until the next call.

        Args:
            dense: The network's outputs.
            queries: The query boxes.
            settings: Similarity and threshold.
            score_threshold: Query boxes below it take no part.
        """
        device = self._device
        launch_rows(
            _find_peaks, self._peaks.shape, device=device,
            inputs=[dense.semantic_logits, self._thing_ids], outputs=[self._peaks, self._margins, self._thing_tops],
        )  # fmt: skip
        wp.launch(
            _group_by_class, 1, device=device,
            inputs=[queries.scores, queries.labels, queries.count, score_threshold],
            outputs=[self._starts, self._members, self._active],
        )  # fmt: skip
        field = self._field(dense, settings)
        grouped = GroupedQueries()
        grouped.boxes, grouped.threshold = queries.boxes, settings.mask_threshold
        grouped.starts, grouped.members, grouped.thing_ids = self._starts, self._members, self._thing_ids
        rows, columns = self._peaks.shape
        launch_rows(
            _find_members, (rows + 1, columns + 1), device=device,
            inputs=[field, grouped, self._peaks, self._margins, self._thing_tops, self._things_of, self._active,
                    _LOG_MARGIN - math.log(settings.mask_threshold)],
            outputs=[self._bits],
        )  # fmt: skip
        return MaskMembership(self._bits, self._active, self._peaks, field, settings.mask_threshold)

    def _field(self, dense: DenseDetections, settings: MaskSettings) -> DenseField:
        field = DenseField()
        field.logits = dense.semantic_logits
        field.levelness = self._no_levelness if dense.levelness_logits is None else dense.levelness_logits
        for level, offsets in enumerate(dense.box_offsets):
            setattr(field, f"offsets{level}", offsets)
        field.log_normalizer = self._log_normalizer
        field.dense_boxes = self._dense_boxes
        field.use_levelness = dense.levelness_logits is not None
        field.use_published_similarity = settings.similarity == "giou"
        return field
