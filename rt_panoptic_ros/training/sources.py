# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Opens what a recipe learns from, and what is looked at meanwhile, all in the same classes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rt_panoptic_ros.datasets.opening import open_dataset
from rt_panoptic_ros.datasets.views import Relabelled
from rt_panoptic_ros.errors import require
from rt_panoptic_ros.model.class_table import united_classes
from rt_panoptic_ros.model.label_map import LabelMap

if TYPE_CHECKING:
    from pathlib import Path

    from rt_panoptic_ros.datasets.base import PanopticDataset
    from rt_panoptic_ros.model.class_table import ClassTable
    from rt_panoptic_ros.training.recipe import DataRecipe


def open_sources(data: DataRecipe, root: Path) -> list[PanopticDataset]:
    """Return the training splits of all sources, with one class table: the label map's, or all of theirs by name.

    Args:
        data: Names them.
        root: The folder that holds those of the sources.

    Raises:
        InvalidInputError: Missing or damaged data, or sources whose classes don't go together.
    """
    opened = [
        open_dataset(one.dataset, root / one.root, one.split, label_map=data.label_map, complete=one.complete)
        for one in data.all_sources
    ]
    for one, dataset in zip(data.all_sources, opened, strict=True):
        require(len(dataset) > 0, f"images to learn from in {one.dataset} {one.split}", f"none under {root / one.root}")
    classes = united_classes([dataset.classes for dataset in opened])
    return [_in_classes(dataset, classes) for dataset in opened]


def open_validation(data: DataRecipe, root: Path, classes: ClassTable) -> PanopticDataset:
    """Return the validation split in the classes of the sources.

    Raises:
        InvalidInputError: Missing or damaged data, or a class that no source has.
    """
    dataset = open_dataset(
        data.dataset, root / data.root, data.val_split, label_map=data.label_map, complete=data.complete
    )
    strange = [name for name in united_classes([classes, dataset.classes]).names if name not in classes.names]
    require(
        not strange,
        f"a val split with classes of what is learned ({', '.join(classes.names)})",
        f"{', '.join(strange)} in {data.dataset} {data.val_split}: name a data.label_map that drops or merges them",
    )
    return _in_classes(dataset, classes)


def _in_classes(dataset: PanopticDataset, classes: ClassTable) -> PanopticDataset:
    if dataset.classes.names == classes.names:
        return dataset
    return Relabelled(dataset, LabelMap(classes, ((),) * len(classes), keep=False))
