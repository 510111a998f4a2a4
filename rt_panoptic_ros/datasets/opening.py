"""Opens a dataset by its name."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from rt_panoptic_ros.datasets.base import PanopticDataset, PanopticSample
from rt_panoptic_ros.datasets.camvid import CamVid
from rt_panoptic_ros.datasets.cityscapes import Cityscapes
from rt_panoptic_ros.datasets.coco import CocoPanoptic
from rt_panoptic_ros.datasets.coco_instances import CocoInstances
from rt_panoptic_ros.datasets.part import open_part
from rt_panoptic_ros.datasets.relabelled import Relabelled
from rt_panoptic_ros.errors import InvalidInputError
from rt_panoptic_ros.model.label_map import LabelMap, read_label_map

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_DATASETS: dict[str, Callable[[Path, str], PanopticDataset]] = {
    "cityscapes": Cityscapes,
    "coco": CocoPanoptic,
    "camvid": CamVid,
    "coco_panoptic": partial(CocoPanoptic, own_categories=True),
    "coco_instances": CocoInstances,
}
DATASETS = tuple(_DATASETS)


def open_dataset(
    name: str, root: Path, split: str, *, label_map: str | LabelMap | None = None, complete: bool | None = None
) -> PanopticDataset:
    """Return a split of the dataset in folder `root`.

    Args:
        name: One of `DATASETS`.
        root: The folder that the dataset's own documentation calls its root.
        split: As the dataset calls it: train, val, test; train2017, val2017 for COCO. A part of it is train[:80%] or
            such (`open_part`).
        label_map: What its classes become: a label map, the path of one or the name of a shipped one; None keeps them.
        complete: Whether all objects are labelled, so that void pixels hold none (`PanopticSample.complete`); None
            leaves that to the dataset, all of which say no.

    Raises:
        InvalidInputError: No such dataset, a file of its layout is missing (the message shows the layout), or the label
            map can't be read or names none of its classes.
    """
    if name not in _DATASETS:
        raise InvalidInputError(f"expected a dataset named one of {', '.join(DATASETS)}, got '{name}'")
    dataset = open_part(split, partial(_DATASETS[name], root))
    if complete is not None:
        dataset = _Completed(dataset, complete)
    if label_map:
        dataset = Relabelled(dataset, label_map if isinstance(label_map, LabelMap) else read_label_map(label_map))
    return dataset


class _Completed(PanopticDataset):
    """A dataset of which is known whether all objects are labelled."""

    def __init__(self, dataset: PanopticDataset, complete: bool) -> None:
        self.classes, self.instance_note = dataset.classes, dataset.instance_note
        self._dataset, self._complete = dataset, complete

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> PanopticSample:
        return replace(self._dataset[index], complete=self._complete)
