# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Opens a dataset by its name."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from rt_panoptic_ros.datasets.camvid import CamVid
from rt_panoptic_ros.datasets.cityscapes import Cityscapes
from rt_panoptic_ros.datasets.coco import CocoPanoptic
from rt_panoptic_ros.datasets.coco_instances import CocoInstances
from rt_panoptic_ros.datasets.views import Completed, Part, Relabelled
from rt_panoptic_ros.errors import InvalidInputError, require
from rt_panoptic_ros.model.label_map import LabelMap, read_label_map

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rt_panoptic_ros.datasets.base import PanopticDataset

_DATASETS: dict[str, Callable[[Path, str], PanopticDataset]] = {
    "cityscapes": Cityscapes,
    "coco": CocoPanoptic,
    "camvid": CamVid,
    "coco_panoptic": lambda root, split: CocoPanoptic(root, split, own_categories=True),
    "coco_instances": CocoInstances,
}
DATASETS = tuple(_DATASETS)

_PART = re.compile(r"(?P<split>[^\[]*)(\[(?P<first>\d+%?)?:(?P<end>\d+%?)?\])?")


def open_dataset(
    name: str, root: Path, split: str, *, label_map: str | LabelMap | None = None, complete: bool | None = None
) -> PanopticDataset:
    """Return a split of the dataset in folder `root`, or a part of one.

    Args:
        name: One of `DATASETS`.
        root: The folder that the dataset's own documentation calls its root.
        split: As the dataset calls it: train, val, test; train2017, val2017 for COCO. A part of it is SPLIT[FIRST:END]
            in images or, with %, in percent of them, rounded down: FIRST is among them, END is not. Left out, they are
            the split's own ends: train[:80%], train[80%:], train[100:200].
        label_map: What its classes become: a label map, the path of one or the name of a shipped one; None keeps them.
        complete: Whether all objects are labelled, so that void pixels hold none (`PanopticSample.complete`); None
            leaves that to the dataset, all of which say no.

    Raises:
        InvalidInputError: No such dataset, a file of its layout is missing (the message shows the layout), the part has
            no image, or the label map can't be read or names none of its classes.
    """
    if name not in _DATASETS:
        raise InvalidInputError(f"expected a dataset named one of {', '.join(DATASETS)}, got '{name}'")
    expected = "a split as NAME, or a part of it as NAME[:80%], NAME[80%:] or NAME[100:200]"
    match = _PART.fullmatch(split)
    if match is None:
        raise InvalidInputError(f"expected {expected}, got '{split}'")
    dataset = _DATASETS[name](root, match["split"])
    if match["split"] != split:
        first = _place(match["first"] or "0", len(dataset))
        end = _place(match["end"] or "100%", len(dataset))
        require(first < end, expected, f"'{split}', which has none of the {len(dataset)} images")
        dataset = Part(dataset, range(first, end))
    if complete is not None:
        dataset = Completed(dataset, complete)
    if label_map:
        dataset = Relabelled(dataset, label_map if isinstance(label_map, LabelMap) else read_label_map(label_map))
    return dataset


def _place(text: str, count: int) -> int:
    """Return a place among `count` images from its number or percentage."""
    return min(count, int(text[:-1]) * count // 100 if text.endswith("%") else int(text))
