"""Launches kernels on the CPU in bands of rows over several threads; Warp itself uses one thread there.

Warp releases Python's lock while a kernel runs, so bands run truly beside each other: measured on two cores, a kernel's
time halves. On a GPU a kernel is launched whole, as band 0.
"""

from __future__ import annotations

import functools
import math
import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import warp as wp

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_BANDS = 4
"""More would wait for memory; and some cores should stay free for the rest of the robot."""

LEAST_CELLS = 4096
"""Of a band: less is not worth waking a thread beside the engine's, which still spin (measured at 480x640)."""


def band_count(device: wp.Device) -> int:
    """Return how many bands kernels on `device` run in at most: the number of slots for what they count."""
    return min(MAX_BANDS, len(os.sched_getaffinity(0))) if device.is_cpu else 1


def launch_rows(
    kernel: wp.Kernel,
    shape: Sequence[int],
    *,
    device: wp.Device,
    inputs: Sequence[Any],
    outputs: Sequence[Any] = (),
    least_cells: int = LEAST_CELLS,
) -> None:
    """Launch a kernel over `shape`, whose first axis are rows that don't depend on each other.

    Args:
        kernel: Its first arguments are the first row of the band, to be added to its own, and the band's number.
        shape: Rows, and further axes.
        device: Where.
        inputs: The kernel's further arguments.
        outputs: And those that it writes.
        least_cells: Cells of the shape that are worth a band of their own.
    """
    rows = shape[0]
    bands = max(1, min(band_count(device), math.prod(shape) // least_cells))
    starts = [rows * band // bands for band in range(bands + 1)]

    def launch(first: int, last: int, band: int) -> None:
        wp.launch(
            kernel, (last - first, *shape[1:]), device=device, inputs=[first, band, *inputs], outputs=list(outputs)
        )

    others = [_threads().submit(launch, starts[band], starts[band + 1], band) for band in range(1, bands)]
    launch(starts[0], starts[1], 0)
    for other in others:
        other.result()


@functools.cache
def _threads() -> ThreadPoolExecutor:
    """Return the process's threads for further bands, made when first needed."""
    return ThreadPoolExecutor(MAX_BANDS - 1, "bands")
