# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
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


@pytest.mark.parametrize(
    ("part", "stems"),
    [
        ("[:]", "0 1 2"), ("[:67%]", "0 1"), ("[67%:]", "2"), ("[:66%]", "0"), ("[66%:]", "1 2"), ("[1:]", "1 2"),
        ("[1:2]", "1"), ("[50%:9]", "1 2"),
    ],
)  # fmt: skip
def test_a_part_of_a_split_is_written_behind_its_name(tiny_camvid: Path, part: str, stems: str) -> None:
    dataset = open_dataset("camvid", tiny_camvid, f"train{part}")
    assert [dataset[index].stem for index in range(len(dataset))] == stems.split()
    whole = open_dataset("camvid", tiny_camvid, "train")
    assert (dataset.classes, dataset.instance_note) == (whole.classes, whole.instance_note)


@pytest.mark.parametrize("share", [0, 1, 33, 50, 80, 99, 100])
def test_what_is_held_out_is_all_that_is_not_learned(tiny_camvid: Path, share: int) -> None:
    parts = [f"train[:{share}%]", f"train[{share}%:]"]
    empty = [part for part, images in zip(parts, (3 * share // 100, 3 - 3 * share // 100), strict=True) if not images]
    sizes = {part: len(open_dataset("camvid", tiny_camvid, part)) for part in parts if part not in empty}
    assert sum(sizes.values()) == 3
    for part in empty:
        with pytest.raises(InvalidInputError, match="which has none of the 3 images"):
            open_dataset("camvid", tiny_camvid, part)


@pytest.mark.parametrize("part", ["[", "[80%]", "[-20%:]", "[:80 %]", "[a:b]", "[:80%", "[::2]"])
def test_parts_that_are_none(tiny_camvid: Path, part: str) -> None:
    with pytest.raises(InvalidInputError, match=r"expected a split as NAME, or a part of it as NAME\[:80%\]"):
        open_dataset("camvid", tiny_camvid, f"train{part}")
