# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The kernels of panoptic fusion (see `fusion`): masks between grid points, whose pixel is whose, the labels.

A mask probability between grid points is bilinear, a convex combination of those at the cell's four corners. So where
all four reach the threshold (`held_everywhere`), every pixel of the cell does, and where none does (not even
`held_anywhere`), none does; only what lies in between is interpolated (`_holds`).
"""

from __future__ import annotations

import warp as wp

from rt_panoptic_ros.panoptic.blocks import BLOCK_WORDS, block_memory, sync_block
from rt_panoptic_ros.panoptic.mask_field import MaskField, held_anywhere, held_everywhere, mask_probability
from rt_panoptic_ros.panoptic.pixel_map import Cell, PixelMap, cell_at, fill_cell
from rt_panoptic_ros.panoptic.sampling import has_bit, lerp2, next_bit, no_bits
from rt_panoptic_ros.settings import MAX_DETECTIONS

wp.set_module_options({"enable_backward": False})

NOBODY, ONE, SEVERAL = (wp.constant(wp.uint8(number)) for number in range(3))  # C++ that skips cells has 0 for NOBODY
NO_OWNER = wp.constant(wp.uint8(255))  # owner of a pixel that no detection holds
_CAPACITY = wp.constant(MAX_DETECTIONS)

# Where in the memory of the block that settles whose is what it lies: per detection, ...
_AREAS = wp.constant(0)  # pixels that it owns
_TOTALS = wp.constant(MAX_DETECTIONS)  # of its mask
_DROPPED = wp.constant(2 * MAX_DETECTIONS)  # ... and the next one to drop, _CAPACITY for none


@wp.struct
class Labelling:
    """Whose each camera pixel is, the images painted from that, and what is known of each detection on the way."""

    pixels: wp.array(dtype=PixelMap)  # of the stride-4 grid
    held: wp.array2d(dtype=wp.uint8)  # per stride-4 cell: NOBODY, ONE detection owns all its pixels, or SEVERAL
    contested: wp.array2d(dtype=wp.int32)  # (bands, cells): those cells, row x columns + column, that two or more hold
    contested_counts: wp.array(dtype=wp.int32)  # (bands,)
    owner: wp.array2d(dtype=wp.uint8)  # (H, W): of the pixels of held cells; dropped ones may own some still
    totals: wp.array2d(dtype=wp.int32)  # (bands, detections): pixels of each mask
    claimed: wp.array2d(dtype=wp.int32)  # (bands, detections): of those, pixels that it owns at first
    class_areas: wp.array(dtype=wp.int32)  # (VOID + 1,): pixels of each class outside instances
    counters: wp.array(dtype=wp.int32)  # all of these counts

    semantic: wp.array2d(dtype=wp.uint8)  # (H, W): class ids
    instance: wp.array2d(dtype=wp.uint8)  # (H, W): instance ids, 0 for none
    ids: wp.array(dtype=wp.int32)  # per detection: instance id, 0 for dropped and invisible ones
    areas: wp.array(dtype=wp.int32)  # per detection: pixels that it owns
    mask_boxes: wp.array3d(dtype=wp.int32)  # (bands, detections, 4): x_min, y_min, x_max, y_max of them, inclusive
    boxes: wp.array(dtype=wp.vec4)  # copies of what is in `QueryBoxes`, beside the rest of what the host gets
    scores: wp.array(dtype=wp.float32)
    labels: wp.array(dtype=wp.int32)
    undefined: wp.array(dtype=wp.int32)


@wp.kernel
def clear(labelling: wp.array(dtype=Labelling)) -> None:
    """Zero what is counted and empty the boxes, of which there are fewer."""
    i = wp.tid()
    labelling[0].counters[i] = 0
    boxes = labelling[0].mask_boxes
    if i < boxes.shape[0] * boxes.shape[1]:
        band = i / boxes.shape[1]
        j = i % boxes.shape[1]
        for side in range(2):
            boxes[band, j, side] = 2147483647
            boxes[band, j, side + 2] = -1


@wp.func
def _corner_probabilities(field: wp.array(dtype=MaskField), y: wp.int32, x: wp.int32, j: wp.int32) -> wp.vec4:
    """Mask probabilities of detection j at the four corners of stride-4 cell (y, x): 00, 01, 10, 11."""
    below = wp.min(y + 1, field[0].bits.shape[0] - 1)
    right = wp.min(x + 1, field[0].bits.shape[1] - 1)
    corners = wp.vec4()
    i = int(0)
    while i < 4:  # not unrolled: four times the code and the registers
        probability = mask_probability(field, wp.where(i < 2, y, below), wp.where(i % 2 == 0, x, right), j)
        corners = wp.vec4(
            wp.where(i == 0, probability, corners[0]), wp.where(i == 1, probability, corners[1]),
            wp.where(i == 2, probability, corners[2]), wp.where(i == 3, probability, corners[3]),
        )  # fmt: skip
        i += 1
    return corners


@wp.func
def _holds(
    corners: wp.vec4, pixels: wp.array(dtype=PixelMap), row: wp.int32, column: wp.int32, threshold: wp.float32
) -> wp.bool:
    """Eq. 7 at a pixel between four corners."""
    return lerp2(corners, pixels[0].row_weights[row], pixels[0].column_weights[column]) >= threshold


@wp.func
def _take(
    labelling: wp.array(dtype=Labelling), cell: Cell, j: wp.int32, corners: wp.vec4, threshold: wp.float32
) -> wp.int32:
    """Give detection j the pixels in its mask whose owner has a higher index; return how many pixels its mask has."""
    pixels = labelling[0].pixels
    owner = labelling[0].owner
    count = int(0)
    for row in range(cell.top, cell.bottom):
        for column in range(cell.left, cell.right):
            if _holds(corners, pixels, row, column, threshold):
                count += 1
                if j < wp.int32(owner[row, column]):
                    owner[row, column] = wp.uint8(j)
    return count


@wp.func_native("""
const auto& bits = field.data->bits;
const int below = y + 1 < bits.shape[0] ? y + 1 : y, last = bits.shape[1] - 1;
const unsigned int* upper = (const unsigned int*)&wp::index(bits, y, 0);
const unsigned int* lower = (const unsigned int*)&wp::index(bits, below, 0);
auto holds = [&](int column) {
    unsigned int any = 0u;
    for (int word = 0; word < 4; ++word)
        any |= upper[4 * column + word] | lower[4 * column + word];
    return any != 0u;
};
unsigned char* held = &wp::index(labelling.data->held, y, 0);
for (bool left = x < end && holds(x); x < end; ++x) {
    const bool right = holds(x < last ? x + 1 : last);
    if (left | right)
        return x;
    held[x] = 0;
    left = right;
}
return x;
""")
def _skip_unheld(  # type: ignore[empty-body]
    field: wp.array(dtype=MaskField), labelling: wp.array(dtype=Labelling), y: wp.int32, x: wp.int32, end: wp.int32
) -> int:
    """Return the first cell from x on, or `end`, of which a corner is held; those before are held by `NOBODY`."""


@wp.func
def _claim_cell(
    band: wp.int32, field: wp.array(dtype=MaskField), labelling: wp.array(dtype=Labelling), y: wp.int32, x: wp.int32
) -> None:
    """Do what `claim` says for a cell that some hold."""
    anywhere = held_anywhere(field[0].bits, y, x)
    if next_bit(anywhere, next_bit(anywhere, -1)) >= 0:
        slot = wp.atomic_add(labelling[0].contested_counts, band, 1)
        labelling[0].contested[band, slot] = y * labelling[0].held.shape[1] + x
    everywhere = held_everywhere(field[0].bits, y, x)
    owner = labelling[0].owner
    cell = cell_at(labelling[0].pixels, y, x)
    size = (cell.bottom - cell.top) * (cell.right - cell.left)
    first = next_bit(everywhere, -1)
    fill_cell(owner, cell, wp.uint8(first))  # -1 for none is NO_OWNER here
    j = int(first)
    while j >= 0:
        wp.atomic_add(labelling[0].totals, band, j, size)
        j = next_bit(everywhere, j)
    partly = anywhere & ~everywhere
    if no_bits(partly):
        labelling[0].held[y, x] = ONE
        wp.atomic_add(labelling[0].claimed, band, first, size)
        return
    labelling[0].held[y, x] = SEVERAL
    j = next_bit(partly, -1)
    while j >= 0:
        corners = _corner_probabilities(field, y, x, j)
        wp.atomic_add(labelling[0].totals, band, j, _take(labelling, cell, j, corners, field[0].threshold))
        j = next_bit(partly, j)
    run_owner = int(255)
    run = int(0)  # pixels of this owner since the last one of another
    for row in range(cell.top, cell.bottom):
        for column in range(cell.left, cell.right):
            pixel_owner = wp.int32(owner[row, column])
            if pixel_owner != run_owner and run_owner != 255:  # noqa: PLR1714  (Warp has no `in`)
                wp.atomic_add(labelling[0].claimed, band, run_owner, run)
            run = wp.where(pixel_owner == run_owner, run + 1, 1)
            run_owner = pixel_owner
    if run_owner != 255:
        wp.atomic_add(labelling[0].claimed, band, run_owner, run)


@wp.kernel
def claim(
    first_row: wp.int32, band: wp.int32, field: wp.array(dtype=MaskField), labelling: wp.array(dtype=Labelling),
    span: wp.int32,
) -> None:  # fmt: skip
    """Give each pixel of a stride-4 cell to its best detection, the lowest index, and count.

    Detections that hold all four corners are counted as a whole, and the best of them owns the cell at first. Those
    that hold some are interpolated, and take the pixels in their mask from owners of a higher index. A pixel thus ends
    with the lowest index that holds it, in whatever order they came. A thread does `span` cells of a row.
    """
    row, place = wp.tid()
    y = first_row + row
    end = place * span + span
    x = _skip_unheld(field, labelling, y, place * span, end)
    while x < end:
        _claim_cell(band, field, labelling, y, x)
        x = _skip_unheld(field, labelling, y, x + 1, end)


@wp.func
def _over_bands(counts: wp.array2d(dtype=wp.int32), j: wp.int32) -> wp.int32:
    """The sum of what the bands counted for detection j."""
    total = counts[0, j]
    for band in range(1, counts.shape[0]):
        total += counts[band, j]
    return total


@wp.func
def _hand_on(
    field: wp.array(dtype=MaskField),
    labelling: wp.array(dtype=Labelling),
    index: wp.int32,
    dropped: wp.int32,
    words: wp.array(dtype=wp.int32),  # of the block
) -> None:
    """Hand a contested cell's pixels of the detection just dropped to the next one whose mask holds them.

    That is the next owner by the sequential rule too: those of a lower index that weren't dropped don't hold the pixel,
    or they would own it, and those that were dropped get nothing. A pixel that no other holds stays its own.
    """
    held = labelling[0].held
    y = index / held.shape[1]
    x = index % held.shape[1]
    anywhere = held_anywhere(field[0].bits, y, x)
    if not has_bit(anywhere, dropped):
        return
    held[y, x] = SEVERAL
    everywhere = held_everywhere(field[0].bits, y, x)
    pixels = labelling[0].pixels
    owner = labelling[0].owner
    cell = cell_at(pixels, y, x)
    j = next_bit(anywhere, dropped)
    while j >= 0:
        whole = has_bit(everywhere, j)
        corners = wp.vec4()
        if not whole:
            corners = _corner_probabilities(field, y, x, j)
        count = int(0)
        for row in range(cell.top, cell.bottom):
            for column in range(cell.left, cell.right):
                if wp.int32(owner[row, column]) == dropped:  # noqa: SIM102  (Warp evaluates both sides of `and`)
                    if whole or _holds(corners, pixels, row, column, field[0].threshold):
                        owner[row, column] = wp.uint8(j)
                        count += 1
        wp.atomic_add(words, _AREAS + j, count)
        j = next_bit(anywhere, j)


@wp.kernel
def settle(
    threads: wp.int32,
    field: wp.array(dtype=MaskField),
    scores: wp.array(dtype=wp.float32),  # of the query boxes
    overlap_threshold: wp.float32,
    labelling: wp.array(dtype=Labelling),
    scratch: wp.array(dtype=wp.uint32),
) -> None:
    """Drop the detections of whose mask better ones own more than the threshold; number the visible: one block.

    Down the scores, each that is dropped hands its pixels on before the next is looked at. The visible get ids from 1.
    """
    block, thread = wp.tid()
    words = wp.array(ptr=block_memory(scratch, block), shape=(BLOCK_WORDS,), dtype=wp.int32)
    active = field[0].active[0]
    for i in range(thread, field[0].undefined.shape[0], threads):
        labelling[0].undefined[i] = field[0].undefined[i]
    for j in range(thread, _CAPACITY, threads):
        words[_AREAS + j] = _over_bands(labelling[0].claimed, j)
        words[_TOTALS + j] = _over_bands(labelling[0].totals, j)
        labelling[0].boxes[j] = field[0].boxes[j]
        labelling[0].scores[j] = scores[j]
        labelling[0].labels[j] = field[0].labels[j]
    if thread == 0:
        words[_DROPPED] = _CAPACITY
    sync_block()
    next_one = int(0)
    dropping = bool(True)
    while dropping:
        for j in range(next_one + thread, active, threads):
            total = words[_TOTALS + j]
            if wp.float32(total - words[_AREAS + j]) > overlap_threshold * wp.float32(total):
                wp.atomic_min(words, _DROPPED, j)
        sync_block()
        dropped = words[_DROPPED]
        sync_block()
        dropping = dropped < _CAPACITY
        if dropped < _CAPACITY:
            if thread == 0:
                words[_DROPPED] = _CAPACITY
                words[_AREAS + dropped] = 0
            for band in range(labelling[0].contested.shape[0]):
                for i in range(thread, labelling[0].contested_counts[band], threads):
                    _hand_on(field, labelling, labelling[0].contested[band, i], dropped, words)
            next_one = dropped + 1
            sync_block()
    for j in range(thread, _CAPACITY, threads):
        before = int(0)
        for other in range(wp.min(j, active)):
            before += wp.where(words[_AREAS + other] > 0, 1, 0)
        labelling[0].ids[j] = wp.where(j < active and words[_AREAS + j] > 0, before + 1, 0)
        labelling[0].areas[j] = words[_AREAS + j]


@wp.kernel
def render_masks(
    field: wp.array(dtype=MaskField),
    pixels: wp.array(dtype=PixelMap),  # of the stride-4 grid
    masks: wp.array3d(dtype=wp.uint8),  # (n, H, W)
) -> None:
    """Mark the pixels of each detection's whole mask (Eq. 7)."""
    j, y, x = wp.tid()
    if has_bit(held_anywhere(field[0].bits, y, x), j):
        filled = has_bit(held_everywhere(field[0].bits, y, x), j)
        corners = wp.vec4()
        if not filled:
            corners = _corner_probabilities(field, y, x, j)
        cell = cell_at(pixels, y, x)
        for row in range(cell.top, cell.bottom):
            for column in range(cell.left, cell.right):
                if filled or _holds(corners, pixels, row, column, field[0].threshold):
                    masks[j, row, column] = wp.uint8(1)
