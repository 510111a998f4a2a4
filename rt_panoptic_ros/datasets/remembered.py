"""Keeps what was read from a small data set in memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rt_panoptic_ros.datasets.base import PanopticDataset

if TYPE_CHECKING:
    from rt_panoptic_ros.datasets.base import PanopticSample


@dataclass
class Memory:
    """Room that several data sets share."""

    room: int  # bytes that are left for pixels


class Remembered(PanopticDataset):
    """A data set whose samples are decoded once as long as there is room; others are read each time.

    The first ones stay: where images come in random order, dropping the oldest for the newest gains nothing. Processes
    that are forked share what was read before.
    """

    def __init__(self, dataset: PanopticDataset, memory: Memory) -> None:
        """Remember nothing yet, and later as long as `memory` has room."""
        self.classes, self.instance_note = dataset.classes, dataset.instance_note
        self._dataset = dataset
        self._memory = memory
        self._samples: dict[int, PanopticSample] = {}

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._dataset)

    def __getitem__(self, index: int) -> PanopticSample:
        """Return the image at `index`, which nobody may change; see `PanopticDataset`."""
        sample = self._samples.get(index)
        if sample is None:
            sample = self._dataset[index]
            size = sum(pixels.nbytes for pixels in (sample.image, sample.semantic, sample.instance))
            if size <= self._memory.room:
                self._memory.room -= size
                self._samples[index] = sample
        return sample
