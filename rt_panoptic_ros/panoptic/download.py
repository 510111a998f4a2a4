"""Results on their way from the device to the host."""

from __future__ import annotations

import numpy as np
import warp as wp


class Download:
    """Fetches a set of arrays, always the same; on a GPU into pinned memory, as part of a captured frame."""

    def __init__(self, arrays: dict[str, wp.array]) -> None:
        """Make room on the host for arrays of a device, by name."""
        self._arrays = arrays
        self._pinned = {
            name: wp.empty(array.shape, dtype=array.dtype, device="cpu", pinned=True)
            for name, array in arrays.items()
            if array.device.is_cuda
        }

    def enqueue(self) -> None:
        """Have the arrays copied after what has been launched so far."""
        for name, pinned in self._pinned.items():
            wp.copy(pinned, self._arrays[name])

    def views(self) -> dict[str, np.ndarray]:
        """Wait for the last `enqueue`; return the arrays, valid until the next one."""
        for array in self._arrays.values():
            if array.device.is_cuda:
                wp.synchronize_stream(wp.get_stream(array.device))
                break
        return {name: self._pinned.get(name, array).numpy() for name, array in self._arrays.items()}
