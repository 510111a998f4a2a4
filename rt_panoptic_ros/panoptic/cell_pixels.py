"""Loops over the pixels of one grid cell, in C++ for both devices: the compiler vectorises them, unlike Warp's own."""

from __future__ import annotations

import warp as wp

from rt_panoptic_ros.panoptic.pixel_map import PixelMap
from rt_panoptic_ros.panoptic.sampling import Sample


@wp.func_native("""
const unsigned long long eight = 0x0101010101010101ull * value;
const int first = pixels.data->column_starts.data[x], columns = pixels.data->column_starts.data[x + 1] - first;
for (int row = pixels.data->row_starts.data[y]; row < pixels.data->row_starts.data[y + 1]; ++row) {
    unsigned char* p = (unsigned char*)image.data + (size_t)row * image.strides[0] + first;
    int left = columns;
    for (; left >= 8; left -= 8, p += 8)
        memcpy(p, &eight, 8);
    for (; left >= 4; left -= 4, p += 4)
        memcpy(p, &eight, 4);
    for (; left > 0; --left)
        *p++ = value;
}
""")
def fill_cell(
    image: wp.array2d(dtype=wp.uint8), pixels: wp.array(dtype=PixelMap), y: wp.int32, x: wp.int32, value: wp.uint8
) -> None:
    """Write a value into the pixels of cell (y, x) of a contiguous image."""


@wp.func_native("""
const int first = pixels.data->column_starts.data[x], last = pixels.data->column_starts.data[x + 1];
for (int row = pixels.data->row_starts.data[y]; row < pixels.data->row_starts.data[y + 1]; ++row) {
    unsigned short* p = (unsigned short*)((char*)image.data + (size_t)row * image.strides[0]);
    for (int column = first; column < last; ++column)
        p[column] = value;
}
""")
def fill_cell16(
    image: wp.array2d(dtype=wp.uint16), pixels: wp.array(dtype=PixelMap), y: wp.int32, x: wp.int32, value: wp.uint16
) -> None:
    """Likewise in an image of 16 bits."""


@wp.func_native("""
const int first = pixels.data->column_starts.data[x], last = pixels.data->column_starts.data[x + 1];
const float* weights = pixels.data->column_weights.data;
for (int row = pixels.data->row_starts.data[y]; row < pixels.data->row_starts.data[y + 1]; ++row) {
    unsigned char* p = (unsigned char*)image.data + (size_t)row * image.strides[0];
    const float wy = pixels.data->row_weights.data[row];
    const float left = (1.0f - wy) * corners[0] + wy * corners[2], right = (1.0f - wy) * corners[1] + wy * corners[3];
    for (int column = first; column < last; ++column)
        p[column] = (unsigned char)(255.0f * ((1.0f - weights[column]) * left + weights[column] * right) + 0.5f);
}
""")
def paint_shares(
    image: wp.array2d(dtype=wp.uint8), pixels: wp.array(dtype=PixelMap), y: wp.int32, x: wp.int32, corners: wp.vec4
) -> None:
    """Write shares, 0 to 1, interpolated between a cell's corners 00, 01, 10, 11, as 0 to 255."""


@wp.func_native("""
const int SIDE = 8;
auto corner = [&](int c, int i) {
    const char* plane = (const char*)logits.data + (size_t)c * logits.strides[0];
    return ((const float*)(plane + (size_t)(i < 2 ? s.y0 : s.y1) * logits.strides[1]))[i % 2 ? s.x1 : s.x0];
};
const float MARGIN = 1e-3f;
float tops[5][4];
for (int i = 0; i < 4; ++i) {
    for (int k = 0; k < 4; ++k)
        tops[k][i] = corner(peaks[k], i);
    tops[4][i] = 0.25f * (tops[0][i] + tops[1][i] + tops[2][i] + tops[3][i]) - MARGIN;
}
const int last_row = pixels.data->row_starts.data[s.y0 + 1], last_column = pixels.data->column_starts.data[s.x0 + 1];
for (int row = pixels.data->row_starts.data[s.y0]; row < last_row; row += SIDE)
    for (int column = pixels.data->column_starts.data[s.x0]; column < last_column; column += SIDE) {
        const int rows = last_row - row < SIDE ? last_row - row : SIDE;
        const int columns = last_column - column < SIDE ? last_column - column : SIDE;
        float wx[SIDE], top[SIDE][SIDE];
        int best[SIDE][SIDE];
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
                beaten |= (v00 < tops[k][0]) & (v01 < tops[k][1]) & (v10 < tops[k][2]) & (v11 < tops[k][3]);
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
def paint_best_classes(
    logits: wp.array3d(dtype=wp.float32),
    s: Sample,
    peaks: wp.vec4i,
    pixels: wp.array(dtype=PixelMap),
    semantic: wp.array2d(dtype=wp.uint8),
) -> None:
    """Give each pixel of a cell the class of the highest interpolated logit, the lowest id on ties.

    A class is left out that is below one of the corners' best classes at all four corners, and so at every pixel
    between them, or below the mean of the four, since at every pixel one of them reaches their mean.

    Args:
        logits: (N, h, w), contiguous along w.
        s: The cell's four corners.
        peaks: The best classes there.
        pixels: Of the logits' grid.
        semantic: (H, W) of the camera, written.
    """
