# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Decodes image files from memory: only whole ones of a bearable size, alike with every OpenCV."""

from __future__ import annotations

from typing import Literal

import cv2
import numpy as np

MAX_MEGAPIXELS = 256
"""Some cameras have 150; what claims more than this is damaged, or made to fill the memory."""

MAX_MESSAGE_MEGAPIXELS = 64
"""Of an image in a message: whoever is on the graph may send it. It is `settings.MAX_SIZE_MEGAPIXELS`."""

_PNG_BEGIN = b"\x89PNG\r\n\x1a\n"
_JPEG_BEGIN = b"\xff\xd8"
_TIFF_BEGIN: dict[bytes, Literal["little", "big"]] = {b"II*\0": "little", b"MM\0*": "big"}
_TIFF_SIDES = ((256, 322), (257, 323))  # tags of width and height, of the picture and of its tiles
_TIFF_SHORT = 3  # a number's type: of 2 bytes, not 4
_TIFF_ENTRIES = 256  # looked at
_JPEG_END = 0xD9
_JPEG_PIXELS_PER_BYTE = 8 * 64  # at most: a block of 8x8 takes a bit and more
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def decode_image_file(
    encoded: np.ndarray, flags: int, megapixels: int = MAX_MEGAPIXELS, *, others: bool = True
) -> np.ndarray | None:
    """Return the pixels of an image file.

    Args:
        encoded: (n,) uint8, the file's bytes.
        flags: OpenCV's `IMREAD_...`.
        megapixels: How many the image may have; it is looked up before anything is decoded.
        others: Whether it may be of another kind than JPEG, PNG and TIFF, whose size OpenCV alone knows.

    Returns:
        (H, W) or (H, W, C), channels in OpenCV's order; None for what is no image, damaged or cut off, or larger.
    """
    begin = encoded[:24].tobytes()
    size = (0, 0) if others else None
    if begin.startswith(_JPEG_BEGIN):
        size = _whole_jpeg_size(encoded)
    elif begin.startswith(_PNG_BEGIN):
        size = int.from_bytes(begin[16:20], "big"), int.from_bytes(begin[20:24], "big")
    elif (order := _TIFF_BEGIN.get(begin[:4])) is not None:
        size = _tiff_size(encoded, order)
    if not begin or size is None or size[0] * size[1] > megapixels * 10**6:
        return None
    try:
        pixels: np.ndarray | None = cv2.imdecode(encoded, flags)
    except cv2.error:  # such as a size that OpenCV refuses
        return None
    return pixels


def _tiff_size(encoded: np.ndarray, order: Literal["little", "big"]) -> tuple[int, int] | None:
    """Return the (width, height) in px of a TIFF's first picture or its tiles; None where none is told."""

    def number(place: int, length: int) -> int:
        return int.from_bytes(encoded[place : place + length].tobytes(), order)

    first, entries = number(4, 4) + 2, number(number(4, 4), 2)
    values: dict[int, int] = {}
    for place in range(first, first + 12 * min(entries, _TIFF_ENTRIES), 12):
        tag, value = number(place, 2), number(place + 8, 2 if number(place + 2, 2) == _TIFF_SHORT else 4)
        values[tag] = max(value, values.get(tag, 0))
    width, height = (max(values.get(tag, 0) for tag in tags) for tags in _TIFF_SIDES)
    return (width, height) if width and height else None


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
