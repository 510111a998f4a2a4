# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Data sets that show another one differently: a part of it, its labels in other classes, from memory."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from rt_panoptic_ros.datasets.base import PanopticDataset, PanopticSample

if TYPE_CHECKING:
    from rt_panoptic_ros.model.label_map import LabelMap


class View(PanopticDataset):
    """Another data set's images; each kind of view changes some of it."""

    def __init__(self, dataset: PanopticDataset) -> None:
        """Show `dataset`."""
        self.classes, self.instance_note = dataset.classes, dataset.instance_note
        self._dataset = dataset

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._dataset)

    def __getitem__(self, index: int) -> PanopticSample:
        """Return the image at `index` of this view; see `PanopticDataset`."""
        return self._dataset[index]


class Part(View):
    """Images of a data set from one place in its order to another, such as those held out for looking at.

    Neighbours stay together, since the frames of a video resemble each other: a random choice would look at what was
    all but learned.
    """

    def __init__(self, dataset: PanopticDataset, indices: range) -> None:
        """Take the images at `indices`."""
        super().__init__(dataset)
        self._indices = indices

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> PanopticSample:
        return self._dataset[self._indices[index]]


class Completed(View):
    """A data set of which is known whether all objects are labelled (`PanopticSample.complete`)."""

    def __init__(self, dataset: PanopticDataset, complete: bool) -> None:
        """Say whether they are."""
        super().__init__(dataset)
        self._complete = complete

    def __getitem__(self, index: int) -> PanopticSample:
        return replace(self._dataset[index], complete=self._complete)


class Relabelled(View):
    """A data set in the classes of a label map.

    A thing that becomes stuff is no object any more, and one that is dropped is void. Stuff that becomes a thing has
    its class without an object, as a thing's pixels that belong to none.
    """

    def __init__(self, dataset: PanopticDataset, label_map: LabelMap) -> None:
        """Look the classes up.

        Raises:
            InvalidInputError: None of the data set's classes is named in the map.
        """
        super().__init__(dataset)
        self.classes = label_map.table(dataset.classes)
        self._new_ids = label_map.new_ids(dataset.classes)

    def __getitem__(self, index: int) -> PanopticSample:
        sample = self._dataset[index]
        classes = self._new_ids[sample.instance_classes]
        stays = np.isin(classes, self.classes.thing_ids)
        numbers = np.append(0, np.where(stays, np.cumsum(stays), 0)).astype(np.int32)
        return replace(
            sample,
            semantic=self._new_ids.take(sample.semantic),
            instance=numbers.take(sample.instance),
            instance_classes=classes[stays],
            instance_crowd=sample.instance_crowd[stays],
            boxes=sample.boxes[stays],
        )


@dataclass
class Memory:
    """Room that several data sets share."""

    room: int  # bytes that are left for pixels


class Remembered(View):
    """A data set whose samples, which nobody may change, are decoded once as long as there is room.

    The first ones stay: where images come in random order, dropping the oldest for the newest gains nothing. Processes
    that are forked share what was read before.
    """

    def __init__(self, dataset: PanopticDataset, memory: Memory) -> None:
        """Remember nothing yet, and later as long as `memory` has room."""
        super().__init__(dataset)
        self._memory = memory
        self._samples: dict[int, PanopticSample] = {}

    def __getitem__(self, index: int) -> PanopticSample:
        sample = self._samples.get(index)
        if sample is None:
            sample = self._dataset[index]
            size = sum(pixels.nbytes for pixels in (sample.image, sample.semantic, sample.instance))
            if size <= self._memory.room:
                self._memory.room -= size
                self._samples[index] = sample
        return sample
