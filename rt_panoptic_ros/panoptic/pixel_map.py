"""Where the camera's pixels lie on a stride-4 or stride-8 grid of the network's input."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import warp as wp

from rt_panoptic_ros.panoptic.structs import in_memory

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
    result = PixelMap()
    rows, row_weights = axis_positions(geometry.camera_height, geometry.scale_y / stride, grid[0])
    columns, column_weights = axis_positions(geometry.camera_width, geometry.scale_x / stride, grid[1])
    result.row_starts = _starts(rows, grid[0], device)
    result.column_starts = _starts(columns, grid[1], device)
    result.row_weights = wp.array(row_weights, dtype=wp.float32, device=device)
    result.column_weights = wp.array(column_weights, dtype=wp.float32, device=device)
    return in_memory(PixelMap, result, device)


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


def _starts(indices: np.ndarray, points: int, device: wp.Device) -> wp.array:
    return wp.array(np.searchsorted(indices, np.arange(points + 1)), dtype=wp.int32, device=device)
