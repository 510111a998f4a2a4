# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Where the camera's pixels lie on a stride-4 or stride-8 grid of the network's input, and filling those of a cell."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import warp as wp

from rt_panoptic_ros.panoptic.launching import StructSlot

if TYPE_CHECKING:
    from rt_panoptic_ros.records import ImageGeometry


@wp.struct
class PixelMap:
    """Pixels by grid cell: those between grid points i and i + 1, as a range, and their place in between.

    Row range i ends where i + 1 begins; the last cell reaches to the image's end, where edges repeat.
    """

    row_starts: wp.array(dtype=wp.int32)  # (rows + 1,): first image row of each cell row
    column_starts: wp.array(dtype=wp.int32)  # (columns + 1,)
    row_weights: wp.array(dtype=wp.float32)  # (H,) in [0, 1): share of the cell's lower grid point
    column_weights: wp.array(dtype=wp.float32)  # (W,)


def make_pixel_map(geometry: ImageGeometry, stride: int, grid: tuple[int, int], device: wp.Device) -> wp.array:
    """Return the map of the camera's pixels onto a grid of (rows, columns) points, `stride` network px apart."""
    rows, row_weights = axis_positions(geometry.camera_height, geometry.scale_y / stride, grid[0])
    columns, column_weights = axis_positions(geometry.camera_width, geometry.scale_x / stride, grid[1])
    fields = {
        "row_starts": wp.array(np.searchsorted(rows, np.arange(grid[0] + 1)), dtype=wp.int32, device=device),
        "column_starts": wp.array(np.searchsorted(columns, np.arange(grid[1] + 1)), dtype=wp.int32, device=device),
        "row_weights": wp.array(row_weights, dtype=wp.float32, device=device),
        "column_weights": wp.array(column_weights, dtype=wp.float32, device=device),
    }
    return StructSlot(PixelMap, device).hold(fields)


def axis_positions(pixels: int, scale: float, points: int) -> tuple[np.ndarray, np.ndarray]:
    """Return, for each pixel along one axis, the grid point at or before it and the weight of the next.

    Args:
        pixels: Number of pixels.
        scale: Grid points per pixel.
        points: Number of grid points.

    Returns:
        Indices (pixels,) int32 in 0..points - 1, weights (pixels,) float32 in [0, 1).
    """
    position = (np.arange(pixels, dtype=np.float32) + np.float32(0.5)) * np.float32(scale) - np.float32(0.5)
    position = np.clip(position, 0, points - 1)
    index = position.astype(np.int32)
    return index, position - index


@wp.struct
class Cell:
    """The pixels of a cell: rows top to bottom - 1, columns left to right - 1."""

    top: wp.int32
    bottom: wp.int32
    left: wp.int32
    right: wp.int32


@wp.func
def cell_at(pixels: wp.array(dtype=PixelMap), y: wp.int32, x: wp.int32) -> Cell:
    """Return the pixels of cell (y, x)."""
    cell = Cell()
    cell.top = pixels[0].row_starts[y]
    cell.bottom = pixels[0].row_starts[y + 1]
    cell.left = pixels[0].column_starts[x]
    cell.right = pixels[0].column_starts[x + 1]
    return cell


@wp.func
def part_of(cell: Cell, part: wp.int32, parts: wp.int32) -> Cell:
    """Return one of so many parts of a cell, of whole rows."""
    rows = cell.bottom - cell.top
    piece = cell
    piece.top = cell.top + rows * part / parts
    piece.bottom = cell.top + rows * (part + 1) / parts
    return piece


# C++ for both devices: the compiler vectorises it, unlike Warp's own loops. A GPU stores several bytes at once only
# where they are aligned.
@wp.func_native("""
const unsigned long long eight = 0x0101010101010101ull * value;
for (int row = cell.top; row < cell.bottom; ++row) {
    unsigned char* p = (unsigned char*)image.data + (size_t)row * image.strides[0] + cell.left;
    int left = cell.right - cell.left;
#if defined(__CUDA_ARCH__)
    while (left > 0) {
        const int aligned = (size_t)p & 3 ? (size_t)p & 1 ? 1 : 2 : 4;
        const int bytes = left >= aligned ? aligned : left >= 2 && aligned >= 2 ? 2 : 1;
        if (bytes == 4)
            *(unsigned int*)p = (unsigned int)eight;
        else if (bytes == 2)
            *(unsigned short*)p = (unsigned short)eight;
        else
            *p = value;
        p += bytes;
        left -= bytes;
    }
#endif
    for (; left >= 8; left -= 8, p += 8)
        memcpy(p, &eight, 8);
    for (; left >= 4; left -= 4, p += 4)
        memcpy(p, &eight, 4);
    for (; left > 0; --left)
        *p++ = value;
}
""")
def fill_cell(image: wp.array2d(dtype=wp.uint8), cell: Cell, value: wp.uint8) -> None:
    """Write a value into the pixels of a cell of a contiguous image."""
