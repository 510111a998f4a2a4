"""Opens a dataset by its name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rt_panoptic_ros.datasets.camvid import CamVid
from rt_panoptic_ros.datasets.cityscapes import Cityscapes
from rt_panoptic_ros.datasets.coco import CocoPanoptic
from rt_panoptic_ros.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rt_panoptic_ros.datasets.base import PanopticDataset

_DATASETS: dict[str, Callable[[Path, str], PanopticDataset]] = {
    "cityscapes": Cityscapes,
    "coco": CocoPanoptic,
    "camvid": CamVid,
}
DATASETS = tuple(_DATASETS)


def open_dataset(name: str, root: Path, split: str) -> PanopticDataset:
    """Return a split of the dataset in folder `root`.

    Args:
        name: One of `DATASETS`.
        root: The folder that the dataset's own documentation calls its root.
        split: As the dataset calls it: train, val, test; train2017, val2017 for COCO.

    Raises:
        InvalidInputError: No such dataset, or a file of its layout is missing (the message shows the layout).
    """
    if name not in _DATASETS:
        raise InvalidInputError(f"expected a dataset named one of {', '.join(DATASETS)}, got '{name}'")
    return _DATASETS[name](root, split)
