# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""A small data set is read once."""

from __future__ import annotations

import numpy as np

from rt_panoptic_ros.datasets.base import PanopticDataset, PanopticSample
from rt_panoptic_ros.datasets.views import Memory, Remembered
from rt_panoptic_ros.model.class_table import load_class_table


class Counted(PanopticDataset):
    """Three images of 10 x 10 px, 800 bytes with their labels; counts what is read."""

    classes = load_class_table("camvid")
    instance_note = "pseudo"

    def __init__(self) -> None:
        self.read: list[int] = []

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> PanopticSample:
        self.read.append(index)
        image, labels = np.full((10, 10, 3), index, np.uint8), np.zeros((10, 10), np.uint8)
        return PanopticSample(
            str(index), index, image, labels, labels.astype(np.int32), labels[0, :0], labels[0, :0] > 0
        )


def test_each_image_is_read_once() -> None:
    counted = Counted()
    remembered = Remembered(counted, Memory(2400))
    assert [remembered[index].image_id for index in (2, 0, 1, 2, 0, 1)] == [2, 0, 1, 2, 0, 1]
    assert counted.read == [2, 0, 1]
    assert (len(remembered), remembered.classes, remembered.instance_note) == (3, Counted.classes, "pseudo")


def test_the_first_ones_stay_where_there_is_no_room_for_all() -> None:
    counted = Counted()
    remembered = Remembered(counted, Memory(1700))
    for index in (0, 1, 2, 0, 1, 2):
        assert remembered[index].image_id == index
    assert counted.read == [0, 1, 2, 2]
