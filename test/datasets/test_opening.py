"""Datasets by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from coco_cases import write_instances

from rt_panoptic_ros.datasets.opening import DATASETS, open_dataset
from rt_panoptic_ros.errors import InvalidInputError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("name", DATASETS)
def test_each_dataset_shows_its_layout_when_the_root_is_wrong(name: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"^expected (\w+) as ROOT/.*, got no .*nowhere") as caught:
        open_dataset(name, tmp_path / "nowhere", "train")
    assert "\n" not in str(caught.value)


def test_a_part_of_a_split_is_opened(tmp_path: Path) -> None:
    images = {f"{number}.png": tmp_path / f"{number}.png" for number in range(7)}
    write_instances(tmp_path / "result.json", images, [{"category_id": 1, "bbox": [1, 2, 3, 4]}])

    def stems(split: str) -> list[str]:
        return [sample.stem for sample in open_dataset("coco_instances", tmp_path, split)]

    assert stems("default[:50%]") + stems("default[50%:]") == stems("default") == list("0123456")
    assert stems("default[30%:60%]") == ["2", "3"]
    part = open_dataset("coco_instances", tmp_path, "default[80%:]", complete=True)
    assert (part[0].stem, part[-1].stem, part[0].complete) == ("5", "6", True)
    for split in ("default[60%:40%]", "default[:10%]"):
        with pytest.raises(InvalidInputError, match=r"as NAME\[:80%\].*got 'default\["):
            open_dataset("coco_instances", tmp_path, split)
    with pytest.raises(InvalidInputError, match=r"as NAME\[:80%\].*got 'default\[80\]'"):
        open_dataset("coco_instances", tmp_path, "default[80]")


def test_an_unknown_name_is_answered_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(
        InvalidInputError, match="one of cityscapes, coco, camvid, coco_panoptic, coco_instances, got 'kitti'"
    ):
        open_dataset("kitti", tmp_path, "train")
