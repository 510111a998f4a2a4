"""Mask construction (Eq. 5-7, 14): which query boxes each point of the stride-4 grid belongs to.

At a grid point, the pixel's own box comes from the level that levelness picks; its agreement with a query box, times
the probability of the query's class, is the mask probability. What is exact and saves work is done:

- Where the four corners of a stride-8 cell share their best class k, and class c stays below it by more than
  -log(threshold) at all four, c's probability stays below the threshold everywhere between. If that holds for all c,
  only query boxes of class k are compared, and k's probability is at least 1 / (1 + (N - 1) exp(-margin)), which
  decides most points without a softmax.
- A query box is only compared where its class can reach the threshold, and a probability is only computed where the
  agreement, which it can only lower, reaches it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import warp as wp

from rt_panoptic_ros.panoptic.bands import launch_rows
from rt_panoptic_ros.panoptic.dense_field import (
    SURELY,
    DenseField,
    fill_point,
    log_probability,
    mask_probability,
    own_box,
    semantic_sample,
    similarity_from,
)
from rt_panoptic_ros.panoptic.sampling import Bits, bilinear, lerp2, word_with_bit
from rt_panoptic_ros.panoptic.structs import StructSlot
from rt_panoptic_ros.records import DenseDetections, MaskMembership, QueryBoxes
from rt_panoptic_ros.settings import MAX_DETECTIONS

if TYPE_CHECKING:
    from rt_panoptic_ros.settings import MaskSettings

wp.set_module_options({"enable_backward": False})

_LOG_MARGIN = 1e-3  # far above the rounding of logits, so that culling by them never changes a result


@wp.struct
class GroupedQueries:
    """The query boxes that take part, by class."""

    boxes: wp.array(dtype=wp.vec4)  # (K,) xyxy network px
    starts: wp.array(dtype=wp.int32)  # (T + 1,): where the members of each thing begin
    members: wp.array(dtype=wp.int32)  # (K,): rows of `boxes`
    thing_ids: wp.array(dtype=wp.int32)  # (T,)
    active: wp.array(dtype=wp.int32)
    threshold: wp.float32  # of the mask probability


@wp.struct
class Cells:
    """What is known of each stride-8 cell."""

    peaks: wp.array2d(dtype=wp.uint8)
    margins: wp.array2d(dtype=wp.float32)
    thing_tops: wp.array2d(dtype=wp.float32)
    things_of: wp.array(dtype=wp.int32)  # per class: its place among the things, or -1
    reach: wp.float32  # a class this far below another surely stays below the threshold


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
        beaten = wp.where(value > top, top, value)
        second = wp.where(beaten > second, beaten, second)
        best = wp.where(value > top, c, best)
        top = wp.where(value > top, value, top)
    thing = logits[thing_ids[0], y, x]
    for i in range(1, thing_ids.shape[0]):
        value = logits[thing_ids[i], y, x]
        thing = wp.where(value > thing, value, thing)
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
    field: wp.array(dtype=DenseField),
    queries: wp.array(dtype=GroupedQueries),
    gy: wp.int32,
    gx: wp.int32,
    label: wp.int32,
    margin: wp.float32,
) -> Bits:
    """The query boxes that a point belongs to where only thing `label`, the best class by `margin`, can have any."""
    found = Bits()
    first = queries[0].starts[label]
    last = queries[0].starts[label + 1]
    if first == last:
        return found
    own = wp.vec4()
    if field[0].use_levelness:
        own = own_box(field, gy, gx)
    least = 1.0 / (1.0 + wp.float32(field[0].logits.shape[0] - 1) * wp.exp(-margin))
    for i in range(first, last):
        j = queries[0].members[i]
        agreement = similarity_from(field, own, gy, gx, queries[0].boxes[j], queries[0].threshold)
        if agreement >= queries[0].threshold:
            inside = least * agreement >= queries[0].threshold * SURELY
            if not inside:
                class_id = queries[0].thing_ids[label]
                inside = mask_probability(field, gy, gx, class_id, queries[0].boxes[j]) >= queries[0].threshold
            if inside:
                found[j >> 5] = word_with_bit(found[j >> 5], j & 31)
    return found


@wp.func
def _things_are_far(
    field: wp.array(dtype=DenseField),
    peaks: wp.array2d(dtype=wp.uint8),
    thing_tops: wp.array2d(dtype=wp.float32),
    gy: wp.int32,
    gx: wp.int32,
    reach: wp.float32,
) -> wp.bool:
    """Whether every thing's logit lies more than `reach` below another class's at a point."""
    s = semantic_sample(field, gy, gx)
    # The interpolation of the cells' best things is at least that of any single thing.
    things = lerp2(
        thing_tops[s.y0, s.x0], thing_tops[s.y0, s.x1], thing_tops[s.y1, s.x0], thing_tops[s.y1, s.x1], s.wy, s.wx
    )  # fmt: skip
    top = wp.max(
        bilinear(field[0].logits, wp.int32(peaks[s.y0, s.x0]), s),
        bilinear(field[0].logits, wp.int32(peaks[s.y0, s.x1]), s),
    )
    bottom = wp.max(
        bilinear(field[0].logits, wp.int32(peaks[s.y1, s.x0]), s),
        bilinear(field[0].logits, wp.int32(peaks[s.y1, s.x1]), s),
    )
    return wp.max(top, bottom) - things > reach


@wp.func
def _members_of_any(
    field: wp.array(dtype=DenseField),
    queries: wp.array(dtype=GroupedQueries),
    gy: wp.int32,
    gx: wp.int32,
    reach: wp.float32,
) -> Bits:
    """The query boxes that a point belongs to, of all classes."""
    found = Bits()
    fill_point(field, gy, gx)
    own = field[0].dense_boxes[gy, gx]
    for label in range(queries[0].thing_ids.shape[0]):
        if queries[0].starts[label] < queries[0].starts[label + 1]:
            likelihood = log_probability(field, gy, gx, queries[0].thing_ids[label])
            if likelihood >= -reach:
                probability = wp.exp(likelihood)
                for i in range(queries[0].starts[label], queries[0].starts[label + 1]):
                    j = queries[0].members[i]
                    agreement = similarity_from(field, own, gy, gx, queries[0].boxes[j], queries[0].threshold)
                    if probability * agreement >= queries[0].threshold:
                        found[j >> 5] = word_with_bit(found[j >> 5], j & 31)
    return found


@wp.kernel
def _find_members(
    first_row: wp.int32,
    band: wp.int32,
    field: wp.array(dtype=DenseField),
    queries: wp.array(dtype=GroupedQueries),
    cells: wp.array(dtype=Cells),
    bits: wp.array2d(dtype=Bits),
) -> None:
    """Set the bits of the query boxes whose mask probability reaches the threshold at the grid point (Eq. 7).

    A thread looks at the up to four points between the same four stride-8 cells.
    """
    row, x = wp.tid()
    y = first_row + row
    peaks = cells[0].peaks
    margins = cells[0].margins
    reach = cells[0].reach
    y0 = wp.max(y - 1, 0)
    x0 = wp.max(x - 1, 0)
    y1 = wp.min(y, peaks.shape[0] - 1)
    x1 = wp.min(x, peaks.shape[1] - 1)
    peak = peaks[y0, x0]
    alike = peak == peaks[y0, x1] and peak == peaks[y1, x0] and peak == peaks[y1, x1]
    margin = wp.min(wp.min(margins[y0, x0], margins[y0, x1]), wp.min(margins[y1, x0], margins[y1, x1]))
    only_peak = alike and margin > reach
    label = cells[0].things_of[wp.int32(peak)]
    possible = queries[0].active[0] > 0
    if only_peak:
        possible = possible and label >= 0
    for gy in range(wp.max(2 * y - 1, 0), wp.min(2 * y + 1, bits.shape[0])):
        for gx in range(wp.max(2 * x - 1, 0), wp.min(2 * x + 1, bits.shape[1])):
            field[0].log_normalizer[gy, gx] = wp.nan
            field[0].dense_boxes[gy, gx] = wp.vec4(wp.nan, wp.nan, wp.nan, wp.nan)
            found = Bits()
            if possible:
                if only_peak:
                    found = _members_of_peak(field, queries, gy, gx, label, margin)
                elif not _things_are_far(field, peaks, cells[0].thing_tops, gy, gx, reach):
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
        self._field_slot = StructSlot(DenseField, device)
        self._queries_slot = StructSlot(GroupedQueries, device)
        self._cells_slot = StructSlot(Cells, device)

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
        field = self._field_slot.hold(self._field(dense, settings))
        grouped = GroupedQueries()
        grouped.boxes, grouped.threshold = queries.boxes, settings.mask_threshold
        grouped.starts, grouped.members, grouped.thing_ids = self._starts, self._members, self._thing_ids
        grouped.active = self._active
        cells = Cells()
        cells.peaks, cells.margins, cells.thing_tops = self._peaks, self._margins, self._thing_tops
        cells.things_of, cells.reach = self._things_of, _LOG_MARGIN - math.log(settings.mask_threshold)
        rows, columns = self._peaks.shape
        launch_rows(
            _find_members, (rows + 1, columns + 1), device=device,
            inputs=[field, self._queries_slot.hold(grouped), self._cells_slot.hold(cells)],
            outputs=[self._bits],
        )  # fmt: skip
        return MaskMembership(self._bits, self._active, self._peaks, field, settings.mask_threshold)

    def in_use(self) -> list[object]:
        """Return what the last `construct` worked on and another may replace; see `QueryBoxSelector.in_use`."""
        return [self._field_slot.array, self._queries_slot.array, self._cells_slot.array]

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
