"""Datasets by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from rt_panoptic_ros.datasets.opening import DATASETS, open_dataset
from rt_panoptic_ros.errors import InvalidInputError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("name", DATASETS)
def test_each_dataset_shows_its_layout_when_the_root_is_wrong(name: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"^expected (\w+) as ROOT/.*, got no .*nowhere") as caught:
        open_dataset(name, tmp_path / "nowhere", "train")
    assert "\n" not in str(caught.value)


def test_an_unknown_name_is_answered_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(
        InvalidInputError, match="one of cityscapes, coco, camvid, coco_panoptic, coco_instances, got 'kitti'"
    ):
        open_dataset("kitti", tmp_path, "train")
