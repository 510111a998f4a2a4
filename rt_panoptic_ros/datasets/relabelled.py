"""Labels in other classes: ground truth and results by a label map."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from rt_panoptic_ros.datasets.base import PanopticDataset, PanopticSample

if TYPE_CHECKING:
    from rt_panoptic_ros.model.label_map import LabelMap


class Relabelled(PanopticDataset):
    """A dataset in the classes of a label map.

    A thing that becomes stuff is no object any more, and one that is dropped is void. Stuff that becomes a thing has
    its class without an object, as a thing's pixels that belong to none.
    """

    def __init__(self, dataset: PanopticDataset, label_map: LabelMap) -> None:
        """Look the classes up.

        Raises:
            InvalidInputError: None of the dataset's classes is named in the map.
        """
        self.classes = label_map.table(dataset.classes)
        self.instance_note = dataset.instance_note
        self._dataset = dataset
        self._new_ids = label_map.new_ids(dataset.classes)

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._dataset)

    def __getitem__(self, index: int) -> PanopticSample:
        """Return the image at `index`; see `PanopticDataset`."""
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
            boxes=None if sample.boxes is None else sample.boxes[stays],
        )
