"""The kernels of panoptic fusion (see `fusion`), and what they share.

Between grid points, masks and logits are bilinear, and bilinear values are convex combinations of the four corners:
where all corners agree, so do all pixels of the cell, and only the other cells are interpolated.
"""

from __future__ import annotations

import warp as wp

from rt_panoptic_ros.panoptic.cell_pixels import fill_cell, fill_cell16, paint_best_classes
from rt_panoptic_ros.panoptic.dense_field import DenseField, mask_probability
from rt_panoptic_ros.panoptic.pixel_map import PixelMap
from rt_panoptic_ros.panoptic.sampling import (
    WORDS,
    Bits,
    Sample,
    has_bit,
    lerp2,
    lowest_bit,
    no_bits,
)

wp.set_module_options({"enable_backward": False})

_NOBODY = wp.constant(wp.uint8(0))
_ONE = wp.constant(wp.uint8(1))
_SEVERAL = wp.constant(wp.uint8(2))
NO_OWNER = wp.constant(wp.uint8(255))  # owner of a pixel that no detection holds


@wp.struct
class MaskView:
    """The masks of a frame, at grid points and between them, as `claim`, `release` and `render_masks` read them."""

    field: wp.array(dtype=DenseField)
    bits: wp.array2d(dtype=Bits)
    boxes: wp.array(dtype=wp.vec4)
    labels: wp.array(dtype=wp.int32)
    thing_ids: wp.array(dtype=wp.int32)
    active: wp.array(dtype=wp.int32)
    threshold: wp.float32
    pixels: wp.array(dtype=PixelMap)  # of the stride-4 grid


@wp.func
def _between(corners: wp.vec4, wy: wp.float32, wx: wp.float32) -> wp.float32:
    return lerp2(corners[0], corners[1], corners[2], corners[3], wy, wx)


@wp.kernel
def paint_semantics(
    first_row: wp.int32,
    band: wp.int32,
    logits: wp.array3d(dtype=wp.float32),  # (N, h, w)
    peaks: wp.array2d(dtype=wp.uint8),  # (h, w)
    pixels: wp.array(dtype=PixelMap),  # of the stride-8 grid
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
        fill_cell(semantic, pixels, y, x, wp.uint8(p00))
        return
    paint_best_classes(logits, s, wp.vec4i(p00, p01, p10, p11), pixels, semantic)


@wp.func
def _corner_probabilities(frame: wp.array(dtype=MaskView), y: wp.int32, x: wp.int32, j: wp.int32) -> wp.vec4:
    """Mask probabilities of detection j at the four corners of stride-4 cell (y, x): 00, 01, 10, 11."""
    below = wp.min(y + 1, frame[0].bits.shape[0] - 1)
    right = wp.min(x + 1, frame[0].bits.shape[1] - 1)
    field = frame[0].field
    class_id = frame[0].thing_ids[frame[0].labels[j]]
    query = frame[0].boxes[j]
    return wp.vec4(
        mask_probability(field, y, x, class_id, query), mask_probability(field, y, right, class_id, query),
        mask_probability(field, below, x, class_id, query), mask_probability(field, below, right, class_id, query),
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
    frame: wp.array(dtype=MaskView),
    owner: wp.array2d(dtype=wp.uint8),  # of the pixels of held cells
    held: wp.array2d(dtype=wp.uint8),  # per stride-4 cell: _NOBODY, _ONE detection owns all its pixels, or _SEVERAL
    totals: wp.array2d(dtype=wp.int32),  # (bands, detections): pixels of each mask
    frees: wp.array2d(dtype=wp.int32),  # of those, pixels that no better detection holds
) -> None:
    """Give each pixel of a stride-4 cell to its best detection."""
    cell_row, x = wp.tid()
    y = first_row + cell_row
    anywhere = _any_corner(frame[0].bits, y, x)
    if no_bits(anywhere):
        held[y, x] = _NOBODY
        return
    everywhere = _all_corners(frame[0].bits, y, x)
    pixels = frame[0].pixels
    top = pixels[0].row_starts[y]
    bottom = pixels[0].row_starts[y + 1]
    left = pixels[0].column_starts[x]
    right = pixels[0].column_starts[x + 1]
    size = (bottom - top) * (right - left)
    first = int(255)
    for word in range(WORDS):
        full = everywhere[word]
        while full != wp.uint32(0):
            j = 32 * word + lowest_bit(full)
            wp.atomic_add(totals, band, j, size)
            first = wp.min(first, j)
            full = full & (full - wp.uint32(1))
    fill_cell(owner, pixels, y, x, wp.uint8(first))
    mixed = bool(False)
    for word in range(WORDS):
        part = anywhere[word] & ~everywhere[word]
        while part != wp.uint32(0):
            j = 32 * word + lowest_bit(part)
            mixed = True
            corners = _corner_probabilities(frame, y, x, j)
            count = int(0)
            for row in range(top, bottom):
                for column in range(left, right):
                    if _inside(
                        corners, pixels[0].row_weights[row], pixels[0].column_weights[column], frame[0].threshold
                    ):
                        count += 1
                        if j < wp.int32(owner[row, column]):
                            owner[row, column] = wp.uint8(j)
            wp.atomic_add(totals, band, j, count)
            part = part & (part - wp.uint32(1))
    held[y, x] = wp.where(mixed, _SEVERAL, _ONE)
    if mixed:
        for row in range(top, bottom):
            for column in range(left, right):
                holder = wp.int32(owner[row, column])
                if holder != 255:
                    wp.atomic_add(frees, band, holder, 1)
    else:
        wp.atomic_add(frees, band, first, size)


@wp.func
def _over_bands(counts: wp.array2d(dtype=wp.int32), j: wp.int32) -> wp.int32:
    """The sum of what the bands counted for detection j."""
    total = counts[0, j]
    for band in range(1, counts.shape[0]):
        total += counts[band, j]
    return total


@wp.kernel
def find_dropped(
    totals: wp.array2d(dtype=wp.int32),
    active: wp.array(dtype=wp.int32),
    overlap_threshold: wp.float32,
    frees: wp.array2d(dtype=wp.int32),
    state: wp.array(dtype=wp.int32),  # next detection to look at; the one just dropped
    dropping: wp.array(dtype=wp.int32),  # whether one was just dropped
) -> None:
    """Walk down the scores to the next detection that is claimed for more than the threshold."""
    found = int(-1)
    j = state[0]
    last = active[0]
    while j < last and found < 0:
        total = _over_bands(totals, j)
        if wp.float32(total - _over_bands(frees, j)) > overlap_threshold * wp.float32(total):
            found = j
            for band in range(frees.shape[0]):
                frees[band, j] = 0  # its pixels are handed on by `release`
        j += 1
    state[0] = j
    state[1] = found
    dropping[0] = wp.where(found >= 0, 1, 0)


@wp.func
def _at_any_corner(bits: wp.array2d(dtype=Bits), y: wp.int32, x: wp.int32, j: wp.int32) -> wp.bool:
    """Whether detection j holds a corner of stride-4 cell (y, x)."""
    below = wp.min(y + 1, bits.shape[0] - 1)
    right = wp.min(x + 1, bits.shape[1] - 1)
    word = j >> 5
    anywhere = bits[y, x][word] | bits[y, right][word] | bits[below, x][word] | bits[below, right][word]
    return ((anywhere >> wp.uint32(j & 31)) & wp.uint32(1)) != wp.uint32(0)


@wp.kernel
def release(
    first_row: wp.int32,
    band: wp.int32,
    frame: wp.array(dtype=MaskView),
    held: wp.array2d(dtype=wp.uint8),
    state: wp.array(dtype=wp.int32),
    owner: wp.array2d(dtype=wp.uint8),
    frees: wp.array2d(dtype=wp.int32),
) -> None:
    """Hand the pixels of the detection just dropped to the next one whose mask holds them."""
    cell_row, x = wp.tid()
    y = first_row + cell_row
    dropped = state[1]
    if held[y, x] == _NOBODY:
        return
    if not _at_any_corner(frame[0].bits, y, x, dropped):
        return
    held[y, x] = _SEVERAL
    anywhere = _any_corner(frame[0].bits, y, x)
    everywhere = _all_corners(frame[0].bits, y, x)
    pixels = frame[0].pixels
    for row in range(pixels[0].row_starts[y], pixels[0].row_starts[y + 1]):
        for column in range(pixels[0].column_starts[x], pixels[0].column_starts[x + 1]):
            if wp.int32(owner[row, column]) == dropped:
                heir = int(255)
                for j in range(dropped + 1, frame[0].active[0]):
                    if has_bit(everywhere, j):
                        heir = j
                        break
                    if has_bit(anywhere, j):
                        corners = _corner_probabilities(frame, y, x, j)
                        if _inside(
                            corners, pixels[0].row_weights[row], pixels[0].column_weights[column], frame[0].threshold
                        ):
                            heir = j
                            break
                owner[row, column] = wp.uint8(heir)
                if heir != 255:
                    wp.atomic_add(frees, band, heir, 1)


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
        if j < active[0] and _over_bands(frees, j) > 0:
            numbered += 1
            ids[j] = numbered


@wp.func
def _record(
    band: wp.int32, holder: wp.int32, top: wp.int32, bottom: wp.int32, left: wp.int32, right: wp.int32,
    mask_boxes: wp.array3d(dtype=wp.int32),
) -> None:  # fmt: skip
    """Widen the box of a detection's visible pixels to hold a rectangle of them; all sides inclusive."""
    wp.atomic_min(mask_boxes, band, holder, 0, left)
    wp.atomic_min(mask_boxes, band, holder, 1, top)
    wp.atomic_max(mask_boxes, band, holder, 2, right)
    wp.atomic_max(mask_boxes, band, holder, 3, bottom)


@wp.kernel
def paint_instances(
    first_row: wp.int32,
    band: wp.int32,
    owner: wp.array2d(dtype=wp.uint8),
    held: wp.array2d(dtype=wp.uint8),
    ids: wp.array(dtype=wp.int32),
    labels: wp.array(dtype=wp.int32),
    thing_ids: wp.array(dtype=wp.int32),
    pixels: wp.array(dtype=PixelMap),  # of the stride-4 grid
    semantic: wp.array2d(dtype=wp.uint8),
    instance: wp.array2d(dtype=wp.uint16),
    mask_boxes: wp.array3d(dtype=wp.int32),  # (bands, detections, 4): x_min, y_min, x_max, y_max, inclusive
) -> None:
    """Write the ids and classes of instances where there are any."""
    cell_row, x = wp.tid()
    y = first_row + cell_row
    if held[y, x] == _NOBODY:
        return
    left = pixels[0].column_starts[x]
    right = pixels[0].column_starts[x + 1]
    top = pixels[0].row_starts[y]
    bottom = pixels[0].row_starts[y + 1]
    if held[y, x] == _ONE:
        if top < bottom and left < right:
            only = wp.int32(owner[top, left])
            fill_cell(semantic, pixels, y, x, wp.uint8(thing_ids[labels[only]]))
            fill_cell16(instance, pixels, y, x, wp.uint16(ids[only]))
            _record(band, only, top, bottom - 1, left, right - 1, mask_boxes)
        return
    for row in range(top, bottom):
        previous = int(255)
        begin = left
        for column in range(left, right):
            holder = wp.int32(owner[row, column])
            if holder != previous:
                if previous != 255:
                    _record(band, previous, row, row, begin, column - 1, mask_boxes)
                previous = holder
                begin = column
            if holder != 255:
                instance[row, column] = wp.uint16(ids[holder])
                semantic[row, column] = wp.uint8(thing_ids[labels[holder]])
        if previous != 255:
            _record(band, previous, row, row, begin, right - 1, mask_boxes)


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
def render_masks(frame: wp.array(dtype=MaskView), masks: wp.array3d(dtype=wp.uint8)) -> None:  # (n, H, W)
    """Mark the pixels of each detection's whole mask (Eq. 7)."""
    j, y, x = wp.tid()
    if has_bit(_any_corner(frame[0].bits, y, x), j):
        filled = has_bit(_all_corners(frame[0].bits, y, x), j)
        corners = wp.vec4()
        if not filled:
            corners = _corner_probabilities(frame, y, x, j)
        pixels = frame[0].pixels
        for row in range(pixels[0].row_starts[y], pixels[0].row_starts[y + 1]):
            for column in range(pixels[0].column_starts[x], pixels[0].column_starts[x + 1]):
                wy = pixels[0].row_weights[row]
                if filled or _inside(corners, wy, pixels[0].column_weights[column], frame[0].threshold):
                    masks[j, row, column] = wp.uint8(1)
