# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Decodes image files from memory: only whole ones of a bearable size, alike with every OpenCV."""

from __future__ import annotations

import cv2
import numpy as np

MAX_MEGAPIXELS = 256
"""Some cameras have 150; what claims more than this is damaged, or made to fill the memory."""

_PNG_BEGIN = b"\x89PNG\r\n\x1a\n"
_JPEG_BEGIN = b"\xff\xd8"
_JPEG_END = 0xD9
_JPEG_PIXELS_PER_BYTE = 8 * 64  # at most: a block of 8x8 takes a bit and more
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def decode_image_file(encoded: np.ndarray, flags: int) -> np.ndarray | None:
    """Return the pixels of an image file.

    Args:
        encoded: (n,) uint8, the file's bytes.
        flags: OpenCV's `IMREAD_...`.

    Returns:
        (H, W) or (H, W, C), channels in OpenCV's order; None for what is no image, damaged or cut off, or of more than
        `MAX_MEGAPIXELS`.
    """
    begin = encoded[:24].tobytes()
    size: tuple[int, int] | None = (0, 0)  # OpenCV itself judges other kinds
    if begin.startswith(_JPEG_BEGIN):
        size = _whole_jpeg_size(encoded)
    elif begin.startswith(_PNG_BEGIN):
        size = int.from_bytes(begin[16:20], "big"), int.from_bytes(begin[20:24], "big")
    if not begin or size is None or size[0] * size[1] > MAX_MEGAPIXELS * 10**6:
        return None
    try:
        pixels: np.ndarray | None = cv2.imdecode(encoded, flags)
    except cv2.error:  # such as a size that OpenCV refuses
        return None
    return pixels


def _whole_jpeg_size(encoded: np.ndarray) -> tuple[int, int] | None:
    """Return a JPEG's (width, height) in px, None where its end is missing: up to 4.10, OpenCV makes that grey."""
    places = np.flatnonzero(encoded[:-1] == 0xFF)
    kinds = encoded[places + 1]
    # A stuffed 0xff of a scan isn't a marker; one for a restart doesn't end it.
    markers = (kinds > 0x01) & (kinds < 0xFF) & ((kinds < 0xD0) | (kinds > 0xD7))
    places, kinds = places[markers], kinds[markers]
    size, position = None, len(_JPEG_BEGIN)
    while (i := int(np.searchsorted(places, position))) < len(places):
        kind, position = int(kinds[i]), int(places[i]) + 2
        if kind == _JPEG_END:
            return size if size is not None and size[0] * size[1] <= _JPEG_PIXELS_PER_BYTE * len(encoded) else None
        if kind == _JPEG_BEGIN[1]:  # the next picture
            return None
        if kind in _JPEG_FRAMES:
            height, width = (int.from_bytes(encoded[position + j : position + j + 2].tobytes(), "big") for j in (3, 5))
            size = width, height
        position += int.from_bytes(encoded[position : position + 2].tobytes(), "big")  # over tables and thumbnails
    return None
