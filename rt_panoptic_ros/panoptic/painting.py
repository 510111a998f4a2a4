# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The kernels that write the labels when it is settled whose each pixel is (see `fusion`)."""

from __future__ import annotations

import warp as wp

from rt_panoptic_ros.panoptic.fusion_kernels import NO_OWNER, ONE, Labelling
from rt_panoptic_ros.panoptic.mask_field import MaskField
from rt_panoptic_ros.panoptic.pixel_map import PixelMap, cell_at, fill_cell

wp.set_module_options({"enable_backward": False})


@wp.func_native("""
const int* value = &wp::index(boxes, band, j, side);
#if defined(__CUDA_ARCH__)
return *(volatile const int*)value;
#else
return __atomic_load_n(value, __ATOMIC_RELAXED);
#endif
""")
def _side_so_far(boxes: wp.array3d(dtype=wp.int32), band: wp.int32, j: wp.int32, side: wp.int32) -> int:  # type: ignore[empty-body]
    """Return one side of a box that other threads may be widening."""


@wp.func
def _widen(
    boxes: wp.array3d(dtype=wp.int32), band: wp.int32, j: wp.int32,
    top: wp.int32, bottom: wp.int32, left: wp.int32, right: wp.int32,
) -> None:  # fmt: skip
    """Widen the box of detection j's visible pixels to hold a rectangle of them; all sides inclusive."""
    if left < _side_so_far(boxes, band, j, 0):
        wp.atomic_min(boxes, band, j, 0, left)
    if top < _side_so_far(boxes, band, j, 1):
        wp.atomic_min(boxes, band, j, 1, top)
    if right > _side_so_far(boxes, band, j, 2):
        wp.atomic_max(boxes, band, j, 2, right)
    if bottom > _side_so_far(boxes, band, j, 3):
        wp.atomic_max(boxes, band, j, 3, bottom)


@wp.func_native("""
const unsigned char* row = &wp::index(held, y, 0);
while (x < end && row[x] == 0)
    ++x;
return x;
""")
def _next_held(held: wp.array2d(dtype=wp.uint8), y: wp.int32, x: wp.int32, end: wp.int32) -> int:  # type: ignore[empty-body]
    """Return the first cell from x on, or `end`, that is held by some."""


@wp.func
def _paint_cell(
    band: wp.int32, field: wp.array(dtype=MaskField), labelling: wp.array(dtype=Labelling), y: wp.int32, x: wp.int32
) -> None:
    """Do what `paint_instances` says for a cell that some hold."""
    owner = labelling[0].owner
    semantic = labelling[0].semantic
    instance = labelling[0].instance
    boxes = labelling[0].mask_boxes
    labels = field[0].labels
    thing_ids = field[0].thing_ids
    ids = labelling[0].ids
    cell = cell_at(labelling[0].pixels, y, x)
    if labelling[0].held[y, x] == ONE:
        if cell.top < cell.bottom and cell.left < cell.right:
            only = wp.int32(owner[cell.top, cell.left])
            if ids[only] != 0:
                fill_cell(semantic, cell, wp.uint8(thing_ids[labels[only]]))
                fill_cell(instance, cell, wp.uint8(ids[only]))
                _widen(boxes, band, only, cell.top, cell.bottom - 1, cell.left, cell.right - 1)
        return
    for row in range(cell.top, cell.bottom):
        previous = int(255)
        begin = cell.left
        for column in range(cell.left, cell.right):
            holder = wp.int32(owner[row, column])
            if holder != 255:  # noqa: SIM102  (Warp evaluates both sides of `and`)
                if ids[holder] == 0:
                    holder = 255
            if holder != previous:
                if previous != 255:
                    _widen(boxes, band, previous, row, row, begin, column - 1)
                begin = column
            previous = holder
            if holder != 255:
                instance[row, column] = wp.uint8(ids[holder])
                semantic[row, column] = wp.uint8(thing_ids[labels[holder]])
        if previous != 255:
            _widen(boxes, band, previous, row, row, begin, cell.right - 1)


@wp.kernel
def paint_instances(
    first_row: wp.int32, band: wp.int32, field: wp.array(dtype=MaskField), labelling: wp.array(dtype=Labelling),
    span: wp.int32,
) -> None:  # fmt: skip
    """Write the ids and classes of instances where there are any, and widen their boxes; `span` cells of a row."""
    row, place = wp.tid()
    y = first_row + row
    end = place * span + span
    x = _next_held(labelling[0].held, y, place * span, end)
    while x < end:
        _paint_cell(band, field, labelling, y, x)
        x = _next_held(labelling[0].held, y, x + 1, end)


@wp.kernel
def count_classes(pixels: wp.array(dtype=PixelMap), labelling: wp.array(dtype=Labelling)) -> None:
    """Count what is left to the semantics, by cells of the stride-8 grid."""
    y, x = wp.tid()
    cell = cell_at(pixels, y, x)
    run_class = int(0)
    run = int(0)  # pixels of this class since the last one of another
    for row in range(cell.top, cell.bottom):
        for column in range(cell.left, cell.right):
            if labelling[0].instance[row, column] == wp.uint8(0):
                pixel_class = wp.int32(labelling[0].semantic[row, column])
                if pixel_class != run_class and run > 0:
                    wp.atomic_add(labelling[0].class_areas, run_class, run)
                run = wp.where(pixel_class == run_class, run + 1, 1)
                run_class = pixel_class
    if run > 0:
        wp.atomic_add(labelling[0].class_areas, run_class, run)


@wp.kernel
def void_small_stuff(
    field: wp.array(dtype=MaskField),
    stuff_area_min: wp.int32,
    pixels: wp.array(dtype=PixelMap),
    labelling: wp.array(dtype=Labelling),
) -> None:
    """Make the pixels of stuff classes void that cover less than the minimum, by cells of the stride-8 grid."""
    y, x = wp.tid()
    cell = cell_at(pixels, y, x)
    semantic = labelling[0].semantic
    for row in range(cell.top, cell.bottom):
        for column in range(cell.left, cell.right):
            c = wp.int32(semantic[row, column])
            small_stuff = field[0].things_of[c] < 0 and labelling[0].class_areas[c] < stuff_area_min
            if small_stuff and labelling[0].instance[row, column] == wp.uint8(0):
                semantic[row, column] = NO_OWNER
