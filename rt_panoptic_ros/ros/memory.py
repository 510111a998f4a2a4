"""How the C library keeps the memory of image-sized buffers."""

from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_LARGEST_KEPT = 32 << 20  # bytes; glibc takes no more
_MOST_KEPT = 256 << 20  # bytes that stay free at the heap's end


def keep_image_buffers() -> None:
    """Let glibc reuse freed buffers of up to 32 MB instead of giving them back and asking for them with each image.

    Otherwise each image of 1024x2048 costs over 4,000 page faults. Call it before threads start. Other C libraries
    have no such setting and are left as they are.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGEST_KEPT)
        mallopt(_M_TRIM_THRESHOLD, _MOST_KEPT)
