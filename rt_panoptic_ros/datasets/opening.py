"""Opens a dataset by its name."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from rt_panoptic_ros.datasets.base import PanopticDataset, PanopticSample
from rt_panoptic_ros.datasets.camvid import CamVid
from rt_panoptic_ros.datasets.cityscapes import Cityscapes
from rt_panoptic_ros.datasets.coco import CocoPanoptic
from rt_panoptic_ros.datasets.coco_instances import CocoInstances
from rt_panoptic_ros.datasets.relabelled import Relabelled
from rt_panoptic_ros.errors import InvalidInputError, require
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
        split: As the dataset calls it: train, val, test; train2017, val2017 for COCO. A part of it is written behind
            it, in its order: default[:80%], default[80%:].
        label_map: What its classes become: a label map, the path of one or the name of a shipped one; None keeps them.
        complete: Whether all objects are labelled, so that void pixels hold none (`PanopticSample.complete`); None
            leaves that to the dataset, all of which say no.

    Raises:
        InvalidInputError: No such dataset, a file of its layout is missing (the message shows the layout), no image is
            in that part of the split, or the label map can't be read or names none of its classes.
    """
    if name not in _DATASETS:
        raise InvalidInputError(f"expected a dataset named one of {', '.join(DATASETS)}, got '{name}'")
    whole, first, last = _parsed(split)
    dataset = _DATASETS[name](root, whole)
    images = range(len(dataset))[len(dataset) * first // 100 : len(dataset) * last // 100]
    require(
        len(images) > 0 or whole == split, f"a part of {len(dataset)} images such as {whole}[:80%]", f"none by {split}"
    )
    if complete is not None or len(images) < len(dataset):
        dataset = _View(dataset, images, complete)
    if label_map:
        dataset = Relabelled(dataset, label_map if isinstance(label_map, LabelMap) else read_label_map(label_map))
    return dataset


def _parsed(split: str) -> tuple[str, int, int]:
    """Return a split's name and the part of it that is meant, first and last percent: 0 and 100 where it isn't said."""
    match = re.fullmatch(r"(.+)\[(?:(\d+)%)?:(?:(\d+)%)?\]", split)
    return (match[1], int(match[2] or 0), int(match[3] or 100)) if match else (split, 0, 100)


class _View(PanopticDataset):
    """Some images of a dataset, of which may be known whether all objects are labelled."""

    def __init__(self, dataset: PanopticDataset, images: range, complete: bool | None) -> None:
        self.classes, self.instance_note = dataset.classes, dataset.instance_note
        self._dataset, self._images, self._complete = dataset, images, complete

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> PanopticSample:
        sample = self._dataset[self._images[index]]
        return sample if self._complete is None else replace(sample, complete=self._complete)
