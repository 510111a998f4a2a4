"""The kernels of panoptic fusion (see `fusion`): masks between grid points, whose pixel is whose, the labels.

A mask probability between grid points is bilinear, a convex combination of those at the cell's four corners. So where
all four reach the threshold (`_at_all_corners`), every pixel of the cell does, and where none does (not even
`_at_any_corner`), none does; only what lies in between is interpolated (`_holds`).
"""

from __future__ import annotations

import warp as wp

from rt_panoptic_ros.panoptic.mask_field import MaskField, mask_probability
from rt_panoptic_ros.panoptic.pixel_map import Cell, PixelMap, cell_at, fill_cell, fill_cell16
from rt_panoptic_ros.panoptic.sampling import WORDS, Bits, has_bit, lerp2, lowest_bit, no_bits

wp.set_module_options({"enable_backward": False})

_NOBODY = wp.constant(wp.uint8(0))
_ONE = wp.constant(wp.uint8(1))
_SEVERAL = wp.constant(wp.uint8(2))
NO_OWNER = wp.constant(wp.uint8(255))  # owner of a pixel that no detection holds


@wp.struct
class Labelling:
    """Whose each camera pixel is, the images painted from that, and what is known of each detection on the way."""

    pixels: wp.array(dtype=PixelMap)  # of the stride-4 grid
    held: wp.array2d(dtype=wp.uint8)  # per stride-4 cell: _NOBODY, _ONE detection owns all its pixels, or _SEVERAL
    owner: wp.array2d(dtype=wp.uint8)  # (H, W): of the pixels of held cells
    semantic: wp.array2d(dtype=wp.uint8)  # (H, W): class ids
    instance: wp.array2d(dtype=wp.uint16)  # (H, W): instance ids, 0 for none
    totals: wp.array2d(dtype=wp.int32)  # (bands, detections): pixels of each mask
    areas: wp.array2d(dtype=wp.int32)  # (bands, detections): of those, pixels that it owns
    mask_boxes: wp.array3d(dtype=wp.int32)  # (bands, detections, 4): x_min, y_min, x_max, y_max of them, inclusive
    ids: wp.array(dtype=wp.int32)  # per detection: instance id, 0 for dropped and invisible ones
    state: wp.array(dtype=wp.int32)  # next detection to look at; the one just dropped
    dropping: wp.array(dtype=wp.int32)  # (1,): whether one was just dropped
    class_areas: wp.array(dtype=wp.int32)  # pixels of each class outside instances


@wp.func
def _at_any_corner(bits: wp.array2d(dtype=Bits), y: wp.int32, x: wp.int32) -> Bits:
    """The detections that hold a corner of stride-4 cell (y, x)."""
    below = wp.min(y + 1, bits.shape[0] - 1)
    right = wp.min(x + 1, bits.shape[1] - 1)
    return bits[y, x] | bits[y, right] | bits[below, x] | bits[below, right]


@wp.func
def _at_all_corners(bits: wp.array2d(dtype=Bits), y: wp.int32, x: wp.int32) -> Bits:
    """The detections that hold all four corners of stride-4 cell (y, x)."""
    below = wp.min(y + 1, bits.shape[0] - 1)
    right = wp.min(x + 1, bits.shape[1] - 1)
    return bits[y, x] & bits[y, right] & bits[below, x] & bits[below, right]


@wp.func
def _corner_probabilities(field: wp.array(dtype=MaskField), y: wp.int32, x: wp.int32, j: wp.int32) -> wp.vec4:
    """Mask probabilities of detection j at the four corners of stride-4 cell (y, x): 00, 01, 10, 11."""
    below = wp.min(y + 1, field[0].bits.shape[0] - 1)
    right = wp.min(x + 1, field[0].bits.shape[1] - 1)
    return wp.vec4(
        mask_probability(field, y, x, j), mask_probability(field, y, right, j),
        mask_probability(field, below, x, j), mask_probability(field, below, right, j),
    )  # fmt: skip


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


@wp.kernel
def claim(
    first_row: wp.int32, band: wp.int32, field: wp.array(dtype=MaskField), labelling: wp.array(dtype=Labelling)
) -> None:
    """Give each pixel of a stride-4 cell to its best detection, the lowest index, and count.

    Detections that hold all four corners are counted as a whole, and the best of them owns the cell at first. Those
    that hold some are interpolated, and take the pixels in their mask from owners of a higher index. A pixel thus ends
    with the lowest index that holds it, in whatever order they came.
    """
    cell_row, x = wp.tid()
    y = first_row + cell_row
    anywhere = _at_any_corner(field[0].bits, y, x)
    if no_bits(anywhere):
        labelling[0].held[y, x] = _NOBODY
        return
    everywhere = _at_all_corners(field[0].bits, y, x)
    owner = labelling[0].owner
    cell = cell_at(labelling[0].pixels, y, x)
    size = (cell.bottom - cell.top) * (cell.right - cell.left)
    first = int(255)
    for word in range(WORDS):
        full = everywhere[word]
        while full != wp.uint32(0):
            j = 32 * word + lowest_bit(full)
            wp.atomic_add(labelling[0].totals, band, j, size)
            first = wp.min(first, j)
            full = full & (full - wp.uint32(1))  # without its lowest bit
    fill_cell(owner, cell, wp.uint8(first))
    if no_bits(anywhere & ~everywhere):
        labelling[0].held[y, x] = _ONE
        wp.atomic_add(labelling[0].areas, band, first, size)
        return
    labelling[0].held[y, x] = _SEVERAL
    for word in range(WORDS):
        part = anywhere[word] & ~everywhere[word]
        while part != wp.uint32(0):
            j = 32 * word + lowest_bit(part)
            corners = _corner_probabilities(field, y, x, j)
            wp.atomic_add(labelling[0].totals, band, j, _take(labelling, cell, j, corners, field[0].threshold))
            part = part & (part - wp.uint32(1))
    for row in range(cell.top, cell.bottom):
        for column in range(cell.left, cell.right):
            if owner[row, column] != NO_OWNER:
                wp.atomic_add(labelling[0].areas, band, wp.int32(owner[row, column]), 1)


@wp.func
def _over_bands(counts: wp.array2d(dtype=wp.int32), j: wp.int32) -> wp.int32:
    """The sum of what the bands counted for detection j."""
    total = counts[0, j]
    for band in range(1, counts.shape[0]):
        total += counts[band, j]
    return total


@wp.kernel
def find_dropped(
    field: wp.array(dtype=MaskField), overlap_threshold: wp.float32, labelling: wp.array(dtype=Labelling)
) -> None:
    """Walk down the scores to the next detection of whose mask better ones own more than the threshold."""
    areas = labelling[0].areas
    found = int(-1)
    j = labelling[0].state[0]
    last = field[0].active[0]
    while j < last and found < 0:
        total = _over_bands(labelling[0].totals, j)
        if wp.float32(total - _over_bands(areas, j)) > overlap_threshold * wp.float32(total):
            found = j
            for band in range(areas.shape[0]):
                areas[band, j] = 0  # its pixels are handed on by `release`
        j += 1
    labelling[0].state[0] = j
    labelling[0].state[1] = found
    labelling[0].dropping[0] = wp.where(found >= 0, 1, 0)


@wp.kernel
def release(
    first_row: wp.int32, band: wp.int32, field: wp.array(dtype=MaskField), labelling: wp.array(dtype=Labelling)
) -> None:
    """Hand the pixels of the detection just dropped to the next one whose mask holds them.

    That is the next owner by the sequential rule too: those of a lower index that weren't dropped don't hold the pixel,
    or they would own it, and those that were dropped get nothing.
    """
    cell_row, x = wp.tid()
    y = first_row + cell_row
    dropped = labelling[0].state[1]
    if labelling[0].held[y, x] == _NOBODY:
        return
    anywhere = _at_any_corner(field[0].bits, y, x)
    if not has_bit(anywhere, dropped):
        return
    labelling[0].held[y, x] = _SEVERAL
    everywhere = _at_all_corners(field[0].bits, y, x)
    pixels = labelling[0].pixels
    owner = labelling[0].owner
    cell = cell_at(pixels, y, x)
    for row in range(cell.top, cell.bottom):
        for column in range(cell.left, cell.right):
            if wp.int32(owner[row, column]) == dropped:
                next_owner = int(255)
                for j in range(dropped + 1, field[0].active[0]):
                    if has_bit(everywhere, j):
                        next_owner = j
                        break
                    if has_bit(anywhere, j):
                        corners = _corner_probabilities(field, y, x, j)
                        if _holds(corners, pixels, row, column, field[0].threshold):
                            next_owner = j
                            break
                owner[row, column] = wp.uint8(next_owner)
                if next_owner != 255:
                    wp.atomic_add(labelling[0].areas, band, next_owner, 1)


@wp.kernel
def number(field: wp.array(dtype=MaskField), labelling: wp.array(dtype=Labelling)) -> None:
    """Number the visible detections 1, 2, 3, ... by falling score."""
    numbered = int(0)
    for j in range(labelling[0].ids.shape[0]):
        labelling[0].ids[j] = 0
        if j < field[0].active[0] and _over_bands(labelling[0].areas, j) > 0:
            numbered += 1
            labelling[0].ids[j] = numbered


@wp.func
def _widen(
    boxes: wp.array3d(dtype=wp.int32), band: wp.int32, j: wp.int32,
    top: wp.int32, bottom: wp.int32, left: wp.int32, right: wp.int32,
) -> None:  # fmt: skip
    """Widen the box of detection j's visible pixels to hold a rectangle of them; all sides inclusive."""
    wp.atomic_min(boxes, band, j, 0, left)
    wp.atomic_min(boxes, band, j, 1, top)
    wp.atomic_max(boxes, band, j, 2, right)
    wp.atomic_max(boxes, band, j, 3, bottom)


@wp.kernel
def paint_instances(
    first_row: wp.int32, band: wp.int32, field: wp.array(dtype=MaskField), labelling: wp.array(dtype=Labelling)
) -> None:
    """Write the ids and classes of instances where there are any, and widen their boxes."""
    cell_row, x = wp.tid()
    y = first_row + cell_row
    held = labelling[0].held[y, x]
    if held == _NOBODY:
        return
    owner = labelling[0].owner
    semantic = labelling[0].semantic
    instance = labelling[0].instance
    boxes = labelling[0].mask_boxes
    cell = cell_at(labelling[0].pixels, y, x)
    if held == _ONE:
        if cell.top < cell.bottom and cell.left < cell.right:
            only = wp.int32(owner[cell.top, cell.left])
            fill_cell(semantic, cell, wp.uint8(field[0].thing_ids[field[0].labels[only]]))
            fill_cell16(instance, cell, wp.uint16(labelling[0].ids[only]))
            _widen(boxes, band, only, cell.top, cell.bottom - 1, cell.left, cell.right - 1)
        return
    labels = field[0].labels
    thing_ids = field[0].thing_ids
    ids = labelling[0].ids
    for row in range(cell.top, cell.bottom):
        previous = int(255)
        begin = cell.left
        for column in range(cell.left, cell.right):
            holder = wp.int32(owner[row, column])
            if holder != previous:
                if previous != 255:
                    _widen(boxes, band, previous, row, row, begin, column - 1)
                previous = holder
                begin = column
            if holder != 255:
                instance[row, column] = wp.uint16(ids[holder])
                semantic[row, column] = wp.uint8(thing_ids[labels[holder]])
        if previous != 255:
            _widen(boxes, band, previous, row, row, begin, cell.right - 1)


@wp.kernel
def count_classes(labelling: wp.array(dtype=Labelling)) -> None:
    """Count what is left to the semantics."""
    row, column = wp.tid()
    if labelling[0].instance[row, column] == wp.uint16(0):
        wp.atomic_add(labelling[0].class_areas, wp.int32(labelling[0].semantic[row, column]), 1)


@wp.kernel
def void_small_stuff(
    field: wp.array(dtype=MaskField), stuff_area_min: wp.int32, labelling: wp.array(dtype=Labelling)
) -> None:
    """Make the pixels of stuff classes void that cover less than the minimum."""
    row, column = wp.tid()
    c = wp.int32(labelling[0].semantic[row, column])
    small_stuff = field[0].things_of[c] < 0 and labelling[0].class_areas[c] < stuff_area_min
    if small_stuff and labelling[0].instance[row, column] == wp.uint16(0):
        labelling[0].semantic[row, column] = NO_OWNER


@wp.kernel
def render_masks(
    field: wp.array(dtype=MaskField),
    pixels: wp.array(dtype=PixelMap),  # of the stride-4 grid
    masks: wp.array3d(dtype=wp.uint8),  # (n, H, W)
) -> None:
    """Mark the pixels of each detection's whole mask (Eq. 7)."""
    j, y, x = wp.tid()
    if has_bit(_at_any_corner(field[0].bits, y, x), j):
        filled = has_bit(_at_all_corners(field[0].bits, y, x), j)
        corners = wp.vec4()
        if not filled:
            corners = _corner_probabilities(field, y, x, j)
        cell = cell_at(pixels, y, x)
        for row in range(cell.top, cell.bottom):
            for column in range(cell.left, cell.right):
                if filled or _holds(corners, pixels, row, column, field[0].threshold):
                    masks[j, row, column] = wp.uint8(1)
