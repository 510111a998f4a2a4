"""The kernels of panoptic fusion (see `fusion`), and what they share.

Between grid points, masks and logits are bilinear, and bilinear values are convex combinations of the four corners:
where all corners agree, so do all pixels of the cell, and only the other cells are interpolated.
"""

from __future__ import annotations

import warp as wp

from rt_panoptic_ros.panoptic.masks import DenseField, mask_probability
from rt_panoptic_ros.panoptic.pixel_map import PixelMap
from rt_panoptic_ros.panoptic.sampling import (
    WORDS,
    Bits,
    Sample,
    bilinear,
    fill_row,
    has_bit,
    lerp2,
    lowest_bit,
    no_bits,
)

wp.set_module_options({"enable_backward": False})

NO_OWNER = wp.constant(wp.uint8(255))  # owner of a pixel that no detection holds
_CANDIDATES = wp.constant(wp.int32(16))
_CandidateIds = wp.types.vector(length=16, dtype=wp.int32)
_CandidateValues = wp.types.matrix(shape=(16, 4), dtype=wp.float32)


@wp.struct
class MaskView:
    """The masks of a frame, at grid points and between them, as `claim`, `release` and `render_masks` read them."""

    field: DenseField
    bits: wp.array2d(dtype=Bits)
    boxes: wp.array(dtype=wp.vec4)
    labels: wp.array(dtype=wp.int32)
    thing_ids: wp.array(dtype=wp.int32)
    active: wp.array(dtype=wp.int32)
    threshold: wp.float32
    pixels: PixelMap  # of the stride-4 grid


@wp.func
def _corners(logits: wp.array3d(dtype=wp.float32), c: wp.int32, s: Sample) -> wp.vec4:
    return wp.vec4(logits[c, s.y0, s.x0], logits[c, s.y0, s.x1], logits[c, s.y1, s.x0], logits[c, s.y1, s.x1])


@wp.func
def _above(a: wp.vec4, b: wp.vec4) -> wp.bool:
    """Whether a class is above another at all four corners, and so at every pixel between them."""
    return a[0] > b[0] and a[1] > b[1] and a[2] > b[2] and a[3] > b[3]


@wp.func
def _between(corners: wp.vec4, wy: wp.float32, wx: wp.float32) -> wp.float32:
    return lerp2(corners[0], corners[1], corners[2], corners[3], wy, wx)


@wp.func
def _best_class(
    logits: wp.array3d(dtype=wp.float32),
    candidates: _CandidateIds,
    values: _CandidateValues,
    count: wp.int32,
    s: Sample,
) -> wp.int32:
    """The class of the highest logit at a pixel, among the candidates, or among all where they didn't fit."""
    best = int(0)
    top = float(-wp.inf)
    if count <= _CANDIDATES:
        for i in range(count):
            value = _between(values[i], s.wy, s.wx)
            if value > top:
                top = value
                best = candidates[i]
    else:
        for c in range(logits.shape[0]):
            value = bilinear(logits, c, s)
            if value > top:
                top = value
                best = c
    return best


@wp.kernel
def paint_semantics(
    first_row: wp.int32,
    band: wp.int32,
    logits: wp.array3d(dtype=wp.float32),  # (N, h, w)
    peaks: wp.array2d(dtype=wp.uint8),  # (h, w)
    pixels: PixelMap,  # of the stride-8 grid
    semantic: wp.array2d(dtype=wp.uint8),
) -> None:
    """Give each pixel of a stride-8 cell the class of the highest interpolated logit, the lowest id on ties."""
    cell_row, x = wp.tid()
    y = first_row + cell_row
    s = Sample()
    s.y0 = y
    s.x0 = x
    s.y1 = wp.min(y + 1, logits.shape[1] - 1)
    s.x1 = wp.min(x + 1, logits.shape[2] - 1)
    p00 = wp.int32(peaks[s.y0, s.x0])
    p01 = wp.int32(peaks[s.y0, s.x1])
    p10 = wp.int32(peaks[s.y1, s.x0])
    p11 = wp.int32(peaks[s.y1, s.x1])
    if p00 == p01 and p00 == p10 and p00 == p11:
        for row in range(pixels.row_starts[y], pixels.row_starts[y + 1]):
            fill_row(semantic, row, pixels.column_starts[x], pixels.column_starts[x + 1], wp.uint8(p00))
        return
    top00 = _corners(logits, p00, s)
    top01 = _corners(logits, p01, s)
    top10 = _corners(logits, p10, s)
    top11 = _corners(logits, p11, s)
    candidates = _CandidateIds()
    values = _CandidateValues()
    count = int(0)
    for c in range(logits.shape[0]):
        own = _corners(logits, c, s)
        beaten = _above(top00, own) or _above(top01, own) or _above(top10, own) or _above(top11, own)
        if not beaten:
            if count < _CANDIDATES:
                candidates[count] = c
                values[count] = own
            count += 1
    for row in range(pixels.row_starts[y], pixels.row_starts[y + 1]):
        s.wy = pixels.row_weights[row]
        for column in range(pixels.column_starts[x], pixels.column_starts[x + 1]):
            s.wx = pixels.column_weights[column]
            semantic[row, column] = wp.uint8(_best_class(logits, candidates, values, count, s))


@wp.func
def _corner_probabilities(masks: MaskView, y: wp.int32, x: wp.int32, j: wp.int32) -> wp.vec4:
    """Mask probabilities of detection j at the four corners of stride-4 cell (y, x): 00, 01, 10, 11."""
    below = wp.min(y + 1, masks.bits.shape[0] - 1)
    right = wp.min(x + 1, masks.bits.shape[1] - 1)
    class_id = masks.thing_ids[masks.labels[j]]
    query = masks.boxes[j]
    return wp.vec4(
        mask_probability(masks.field, y, x, class_id, query), mask_probability(masks.field, y, right, class_id, query),
        mask_probability(masks.field, below, x, class_id, query),
        mask_probability(masks.field, below, right, class_id, query),
    )  # fmt: skip


@wp.func
def _inside(corners: wp.vec4, wy: wp.float32, wx: wp.float32, threshold: wp.float32) -> wp.bool:
    """Eq. 7 at a pixel between four corners."""
    return _between(corners, wy, wx) >= threshold


@wp.func
def _any_corner(bits: wp.array2d(dtype=Bits), y: wp.int32, x: wp.int32) -> Bits:
    below = wp.min(y + 1, bits.shape[0] - 1)
    right = wp.min(x + 1, bits.shape[1] - 1)
    result = Bits()
    for word in range(4):
        result[word] = bits[y, x][word] | bits[y, right][word] | bits[below, x][word] | bits[below, right][word]
    return result


@wp.func
def _all_corners(bits: wp.array2d(dtype=Bits), y: wp.int32, x: wp.int32) -> Bits:
    below = wp.min(y + 1, bits.shape[0] - 1)
    right = wp.min(x + 1, bits.shape[1] - 1)
    result = Bits()
    for word in range(4):
        result[word] = bits[y, x][word] & bits[y, right][word] & bits[below, x][word] & bits[below, right][word]
    return result


@wp.kernel
def claim(  # noqa: PLR0912 - one pass over a cell
    first_row: wp.int32,
    band: wp.int32,
    masks: MaskView,
    owner: wp.array2d(dtype=wp.uint8),  # of the pixels of held cells
    held: wp.array2d(dtype=wp.uint8),  # per stride-4 cell: whether any mask reaches into it
    totals: wp.array2d(dtype=wp.int32),  # (bands, detections): pixels of each mask
    frees: wp.array2d(dtype=wp.int32),  # of those, pixels that no better detection holds
) -> None:
    """Give each pixel of a stride-4 cell to its best detection."""
    cell_row, x = wp.tid()
    y = first_row + cell_row
    anywhere = _any_corner(masks.bits, y, x)
    if no_bits(anywhere):
        held[y, x] = wp.uint8(0)
        return
    held[y, x] = wp.uint8(1)
    everywhere = _all_corners(masks.bits, y, x)
    pixels = masks.pixels
    top = pixels.row_starts[y]
    bottom = pixels.row_starts[y + 1]
    left = pixels.column_starts[x]
    right = pixels.column_starts[x + 1]
    size = (bottom - top) * (right - left)
    first = int(255)
    for word in range(WORDS):
        full = everywhere[word]
        while full != wp.uint32(0):
            j = 32 * word + lowest_bit(full)
            wp.atomic_add(totals, band, j, size)
            first = wp.min(first, j)
            full = full & (full - wp.uint32(1))
    for row in range(top, bottom):
        fill_row(owner, row, left, right, wp.uint8(first))
    mixed = bool(False)
    for word in range(WORDS):
        part = anywhere[word] & ~everywhere[word]
        while part != wp.uint32(0):
            j = 32 * word + lowest_bit(part)
            mixed = True
            corners = _corner_probabilities(masks, y, x, j)
            count = int(0)
            for row in range(top, bottom):
                for column in range(left, right):
                    if _inside(corners, pixels.row_weights[row], pixels.column_weights[column], masks.threshold):
                        count += 1
                        if j < wp.int32(owner[row, column]):
                            owner[row, column] = wp.uint8(j)
            wp.atomic_add(totals, band, j, count)
            part = part & (part - wp.uint32(1))
    if mixed:
        for row in range(top, bottom):
            for column in range(left, right):
                holder = wp.int32(owner[row, column])
                if holder != 255:
                    wp.atomic_add(frees, band, holder, 1)
    else:
        wp.atomic_add(frees, band, first, size)


@wp.kernel
def add_bands(totals: wp.array2d(dtype=wp.int32), frees: wp.array2d(dtype=wp.int32)) -> None:
    """Add what the bands counted into the first one's row, where all that follows looks."""
    j = wp.tid()
    for band in range(1, totals.shape[0]):
        totals[0, j] = totals[0, j] + totals[band, j]
        frees[0, j] = frees[0, j] + frees[band, j]


@wp.kernel
def find_dropped(
    totals: wp.array2d(dtype=wp.int32),
    active: wp.array(dtype=wp.int32),
    overlap_threshold: wp.float32,
    frees: wp.array2d(dtype=wp.int32),
    state: wp.array(dtype=wp.int32),  # next detection to look at; the one just dropped, or -1
) -> None:
    """Walk down the scores to the next detection that is claimed for more than the threshold."""
    found = int(-1)
    j = state[0]
    last = active[0]
    while j < last and found < 0:
        if wp.float32(totals[0, j] - frees[0, j]) > overlap_threshold * wp.float32(totals[0, j]):
            found = j
            frees[0, j] = 0  # its pixels are handed on by `release`
        j += 1
    state[0] = j
    state[1] = found


@wp.kernel
def release(
    masks: MaskView,
    held: wp.array2d(dtype=wp.uint8),
    state: wp.array(dtype=wp.int32),
    owner: wp.array2d(dtype=wp.uint8),
    frees: wp.array2d(dtype=wp.int32),
) -> None:
    """Hand the pixels of the detection just dropped to the next one whose mask holds them."""
    y, x = wp.tid()
    dropped = state[1]
    if dropped < 0 or held[y, x] == wp.uint8(0):
        return
    anywhere = _any_corner(masks.bits, y, x)
    if not has_bit(anywhere, dropped):
        return
    everywhere = _all_corners(masks.bits, y, x)
    pixels = masks.pixels
    for row in range(pixels.row_starts[y], pixels.row_starts[y + 1]):
        for column in range(pixels.column_starts[x], pixels.column_starts[x + 1]):
            if wp.int32(owner[row, column]) == dropped:
                heir = int(255)
                for j in range(dropped + 1, masks.active[0]):
                    if has_bit(everywhere, j):
                        heir = j
                        break
                    if has_bit(anywhere, j):
                        corners = _corner_probabilities(masks, y, x, j)
                        if _inside(corners, pixels.row_weights[row], pixels.column_weights[column], masks.threshold):
                            heir = j
                            break
                owner[row, column] = wp.uint8(heir)
                if heir != 255:
                    wp.atomic_add(frees, 0, heir, 1)


@wp.kernel
def number(
    frees: wp.array2d(dtype=wp.int32),
    active: wp.array(dtype=wp.int32),
    ids: wp.array(dtype=wp.int32),  # per detection: instance id, 0 for dropped and invisible ones
) -> None:
    """Number the visible detections 1, 2, 3, ... by falling score."""
    numbered = int(0)
    for j in range(ids.shape[0]):
        ids[j] = 0
        if j < active[0] and frees[0, j] > 0:
            numbered += 1
            ids[j] = numbered


@wp.func
def _record_run(
    band: wp.int32, holder: wp.int32, area: wp.int32, row: wp.int32, first: wp.int32, last: wp.int32,
    mask_boxes: wp.array3d(dtype=wp.int32),
) -> None:  # fmt: skip
    if area > 0 and holder != 255:
        wp.atomic_min(mask_boxes, band, holder, 0, first)
        wp.atomic_min(mask_boxes, band, holder, 1, row)
        wp.atomic_max(mask_boxes, band, holder, 2, last)
        wp.atomic_max(mask_boxes, band, holder, 3, row)


@wp.kernel
def paint_instances(
    first_row: wp.int32,
    band: wp.int32,
    owner: wp.array2d(dtype=wp.uint8),
    held: wp.array2d(dtype=wp.uint8),
    ids: wp.array(dtype=wp.int32),
    labels: wp.array(dtype=wp.int32),
    thing_ids: wp.array(dtype=wp.int32),
    pixels: PixelMap,  # of the stride-4 grid
    semantic: wp.array2d(dtype=wp.uint8),
    instance: wp.array2d(dtype=wp.uint16),
    mask_boxes: wp.array3d(dtype=wp.int32),  # (bands, detections, 4): x_min, y_min, x_max, y_max, inclusive
) -> None:
    """Write the ids and classes of instances where there are any."""
    cell_row, x = wp.tid()
    y = first_row + cell_row
    if held[y, x] == wp.uint8(0):
        return
    left = pixels.column_starts[x]
    right = pixels.column_starts[x + 1]
    for row in range(pixels.row_starts[y], pixels.row_starts[y + 1]):
        previous = int(255)
        begin = left
        for column in range(left, right):
            holder = wp.int32(owner[row, column])
            if holder != previous:
                _record_run(band, previous, column - begin, row, begin, column - 1, mask_boxes)
                previous = holder
                begin = column
            if holder != 255:
                instance[row, column] = wp.uint16(ids[holder])
                semantic[row, column] = wp.uint8(thing_ids[labels[holder]])
        _record_run(band, previous, right - begin, row, begin, right - 1, mask_boxes)


@wp.kernel
def count_classes(
    semantic: wp.array2d(dtype=wp.uint8),
    instance: wp.array2d(dtype=wp.uint16),
    class_areas: wp.array(dtype=wp.int32),  # pixels of each class outside instances
) -> None:
    """Count what is left to the semantics."""
    row, column = wp.tid()
    if instance[row, column] == wp.uint16(0):
        wp.atomic_add(class_areas, wp.int32(semantic[row, column]), 1)


@wp.kernel
def void_small_stuff(
    class_areas: wp.array(dtype=wp.int32),
    is_thing: wp.array(dtype=wp.uint8),
    stuff_area_min: wp.int32,
    instance: wp.array2d(dtype=wp.uint16),
    semantic: wp.array2d(dtype=wp.uint8),
) -> None:
    """Make the pixels of stuff classes void that cover less than the minimum."""
    row, column = wp.tid()
    c = wp.int32(semantic[row, column])
    if instance[row, column] == wp.uint16(0) and is_thing[c] == wp.uint8(0) and class_areas[c] < stuff_area_min:
        semantic[row, column] = NO_OWNER


@wp.kernel
def render_masks(view: MaskView, masks: wp.array3d(dtype=wp.uint8)) -> None:  # (n, H, W)
    """Mark the pixels of each detection's whole mask (Eq. 7)."""
    j, y, x = wp.tid()
    if has_bit(_any_corner(view.bits, y, x), j):
        filled = has_bit(_all_corners(view.bits, y, x), j)
        corners = wp.vec4()
        if not filled:
            corners = _corner_probabilities(view, y, x, j)
        pixels = view.pixels
        for row in range(pixels.row_starts[y], pixels.row_starts[y + 1]):
            for column in range(pixels.column_starts[x], pixels.column_starts[x + 1]):
                wy = pixels.row_weights[row]
                if filled or _inside(corners, wy, pixels.column_weights[column], view.threshold):
                    masks[j, row, column] = wp.uint8(1)
