# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The class of every pixel, and how sure it is: the semantic logits and their best probability between grid points."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import warp as wp

from rt_panoptic_ros.panoptic.launching import Packed, divided, launch_rows
from rt_panoptic_ros.panoptic.pixel_map import Cell, PixelMap, cell_at, fill_cell, make_pixel_map, part_of
from rt_panoptic_ros.records import VOID

if TYPE_CHECKING:
    from rt_panoptic_ros.records import DenseDetections, ImageGeometry

wp.set_module_options({"enable_backward": False})

_VOID = wp.constant(wp.int32(VOID))
ROW_PARTS = 8  # of a stride-8 cell, each a thread's on a GPU


@wp.func_native("""
auto corner = [&](int c, int i) {
    const char* plane = (const char*)logits.data + (size_t)c * logits.strides[0];
    return ((const float*)(plane + (size_t)(i < 2 ? y0 : y1) * logits.strides[1]))[i % 2 ? x1 : x0];
};
// Of each corner's best class, and of their mean: the logits at the four corners.
const float ROUNDING = 1e-3f;
float rivals[5][4];
for (int i = 0; i < 4; ++i) {
    for (int k = 0; k < 4; ++k)
        rivals[k][i] = corner(best_classes[k], i);
    rivals[4][i] = 0.25f * (rivals[0][i] + rivals[1][i] + rivals[2][i] + rivals[3][i]) - ROUNDING;
}
// A block of pixels at a time: what is best so far stays in registers, and a row of it is one vector.
const int SIDE = 8;
#if defined(__CUDA_ARCH__)
const int HEIGHT = 1;  // a thread has few registers, and others take the other rows
#else
const int HEIGHT = 8;
#endif
for (int row = cell.top; row < cell.bottom; row += HEIGHT)
    for (int column = cell.left; column < cell.right; column += SIDE) {
        const int rows = cell.bottom - row < HEIGHT ? cell.bottom - row : HEIGHT;
        const int columns = cell.right - column < SIDE ? cell.right - column : SIDE;
        float wx[SIDE], top[HEIGHT][SIDE];
        int best[HEIGHT][SIDE];
        for (int i = 0; i < SIDE; ++i)
            wx[i] = i < columns ? pixels.data->column_weights.data[column + i] : 0.0f;
        for (int r = 0; r < rows; ++r)
            for (int i = 0; i < SIDE; ++i) {
                top[r][i] = -INFINITY;
                best[r][i] = 0;
            }
        for (int c = 0; c < logits.shape[0]; ++c) {
            const float v00 = corner(c, 0), v01 = corner(c, 1), v10 = corner(c, 2), v11 = corner(c, 3);
            bool beaten = false;
            for (int k = 0; k < 5; ++k)
                beaten |= (v00 < rivals[k][0]) & (v01 < rivals[k][1]) & (v10 < rivals[k][2]) & (v11 < rivals[k][3]);
            if (beaten)
                continue;
            float upper[SIDE], lower[SIDE];
            for (int i = 0; i < SIDE; ++i) {
                upper[i] = (1.0f - wx[i]) * v00 + wx[i] * v01;
                lower[i] = (1.0f - wx[i]) * v10 + wx[i] * v11;
            }
            for (int r = 0; r < rows; ++r) {
                const float wy = pixels.data->row_weights.data[row + r];
                for (int i = 0; i < SIDE; ++i) {
                    const float value = (1.0f - wy) * upper[i] + wy * lower[i];
                    best[r][i] = value > top[r][i] ? c : best[r][i];
                    top[r][i] = value > top[r][i] ? value : top[r][i];
                }
            }
        }
        for (int r = 0; r < rows; ++r) {
            unsigned char* out = (unsigned char*)semantic.data + (size_t)(row + r) * semantic.strides[0] + column;
            for (int i = 0; i < columns; ++i)
                out[i] = (unsigned char)best[r][i];
        }
    }
""")
def _paint_best_classes(
    logits: wp.array3d(dtype=wp.float32),  # (N, h, w), contiguous along w
    y0: wp.int32,  # the cell's four corners
    y1: wp.int32,
    x0: wp.int32,
    x1: wp.int32,
    best_classes: wp.vec4i,  # at the corners 00, 01, 10, 11
    pixels: wp.array(dtype=PixelMap),
    cell: Cell,
    semantic: wp.array2d(dtype=wp.uint8),
) -> None:
    """Give each pixel of a cell the class of the highest interpolated logit, the lowest id on ties.

    A class is left out where it can't win: if it is below one of the corners' best classes at all four corners, so it
    is at every pixel, as all classes are interpolated with the same weights. Likewise if it is below the mean of those
    best classes, since at every pixel one of them reaches their mean.
    """


@wp.kernel
def paint_semantics(
    first_row: wp.int32,
    band: wp.int32,
    logits: wp.array3d(dtype=wp.float32),  # (N, h, w)
    best_classes: wp.array2d(dtype=wp.uint8),  # (h, w)
    pixels: wp.array(dtype=PixelMap),  # of the stride-8 grid
    semantic: wp.array2d(dtype=wp.uint8),
    parts: wp.int32,
) -> None:
    """Give each pixel of a stride-8 cell the class of the highest interpolated logit, the lowest id on ties.

    Between cells of which one has no class, there is none. A thread does one of so many parts of a cell.
    """
    cell_row, part, x = wp.tid()
    y = first_row + cell_row
    below = wp.min(y + 1, logits.shape[1] - 1)
    right = wp.min(x + 1, logits.shape[2] - 1)
    best = wp.vec4i(
        wp.int32(best_classes[y, x]), wp.int32(best_classes[y, right]),
        wp.int32(best_classes[below, x]), wp.int32(best_classes[below, right]),
    )  # fmt: skip
    cell = part_of(cell_at(pixels, y, x), part, parts)
    if wp.max(best) == _VOID:
        fill_cell(semantic, cell, wp.uint8(_VOID))
        return
    if best[0] == best[1] and best[0] == best[2] and best[0] == best[3]:
        fill_cell(semantic, cell, wp.uint8(best[0]))
        return
    _paint_best_classes(logits, y, below, x, right, best, pixels, cell, semantic)


@wp.kernel
def _find_certainties(
    first_row: wp.int32,
    band: wp.int32,
    logits: wp.array3d(dtype=wp.float32),  # (N, h, w)
    certainties: wp.array2d(dtype=wp.float32),  # (h, w)
) -> None:
    """The softmax probability of each stride-8 cell's best class (Eq. 2)."""
    row, x = wp.tid()
    y = first_row + row
    top = logits[0, y, x]
    for c in range(1, logits.shape[0]):
        top = wp.max(top, logits[c, y, x])
    total = float(0.0)
    for c in range(logits.shape[0]):
        total += wp.exp(logits[c, y, x] - top)
    certainties[y, x] = wp.where(total >= 1.0, 1.0 / total, 0.0)  # 0 where a logit is no finite number


@wp.func_native("""
const float* weights = pixels.data->column_weights.data;
for (int row = cell.top; row < cell.bottom; ++row) {
    unsigned char* p = (unsigned char*)image.data + (size_t)row * image.strides[0];
    const float wy = pixels.data->row_weights.data[row];
    const float left = (1.0f - wy) * corners[0] + wy * corners[2], right = (1.0f - wy) * corners[1] + wy * corners[3];
    for (int column = cell.left; column < cell.right; ++column)
        p[column] = (unsigned char)(255.0f * ((1.0f - weights[column]) * left + weights[column] * right) + 0.5f);
}
""")
def _paint_shares(
    image: wp.array2d(dtype=wp.uint8), pixels: wp.array(dtype=PixelMap), cell: Cell, corners: wp.vec4
) -> None:
    """Write shares, 0 to 1, interpolated between a cell's corners 00, 01, 10, 11, as 0 to 255."""


@wp.kernel
def _paint_confidence(
    first_row: wp.int32,
    band: wp.int32,
    certainties: wp.array2d(dtype=wp.float32),
    pixels: wp.array(dtype=PixelMap),  # of the stride-8 grid
    confidence: wp.array2d(dtype=wp.uint8),
    parts: wp.int32,
) -> None:
    """Interpolate the cells' certainties to the camera's pixels; a thread does one of so many parts of a cell."""
    row, part, x = wp.tid()
    y = first_row + row
    below = wp.min(y + 1, certainties.shape[0] - 1)
    right = wp.min(x + 1, certainties.shape[1] - 1)
    corners = wp.vec4(certainties[y, x], certainties[y, right], certainties[below, x], certainties[below, right])
    _paint_shares(confidence, pixels, part_of(cell_at(pixels, y, x), part, parts), corners)


class ConfidencePainter:
    """Paints how sure the semantics are, for planners that weigh it; holds the buffers for one geometry."""

    def __init__(self, dense: DenseDetections, geometry: ImageGeometry) -> None:
        """Allocate for outputs of the shapes and the device of `dense`, and the camera's size."""
        device = dense.semantic_logits.device
        self._cells = dense.semantic_logits.shape[1:]
        self._pixels = make_pixel_map(geometry, 8, self._cells, device)
        self._certainties = wp.zeros(self._cells, dtype=wp.float32, device=device)
        self._image = Packed({"confidence": (geometry.camera_size, wp.uint8)}, device)

    def launch(self, dense: DenseDetections) -> None:
        """Enqueue the work and its download."""
        (rows, columns), parts = self._cells, divided(self._certainties.device, ROW_PARTS)
        launch_rows(_find_certainties, self._cells, dense.semantic_logits, self._certainties)
        launch_rows(
            _paint_confidence, (rows, parts, columns), self._certainties, self._pixels,
            self._image.arrays["confidence"], parts,
        )  # fmt: skip
        self._image.enqueue("confidence", "confidence")

    def result(self) -> np.ndarray:
        """Wait for the last `launch`; return (H, W) uint8 at the camera's size, 255 for certainty."""
        confidence: np.ndarray = self._image.host()["confidence"].copy()
        return confidence
