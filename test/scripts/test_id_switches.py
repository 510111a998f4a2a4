# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Id switches, on a made-up drive whose answer can be counted by hand."""

from __future__ import annotations

import numpy as np

from rt_panoptic_ros.datasets.base import PanopticDataset, PanopticSample
from rt_panoptic_ros.model.class_table import load_class_table
from rt_panoptic_ros.records import CameraImage, DetectionTable, PanopticResult
from scripts.id_switches import Switches, count_id_switches, match_objects

CLASSES = load_class_table("camvid")
CAR, PEDESTRIAN = 8, 9


def result_of(boxes: list[tuple[int, int, int, int]], class_ids: list[int]) -> PanopticResult:
    """Return objects that are whole rectangles (left, top, right, bottom), ends included."""
    instance = np.zeros((20, 40), np.uint16)
    semantic = np.zeros((20, 40), np.uint8)
    for row, (left, top, right, bottom) in enumerate(boxes):
        instance[top : bottom + 1, left : right + 1] = row + 1
        semantic[top : bottom + 1, left : right + 1] = class_ids[row]
    corners = np.array(boxes, np.int32).reshape(-1, 4)
    areas = np.array([np.count_nonzero(instance == row + 1) for row in range(len(boxes))], np.uint32)
    table = DetectionTable(
        np.array(class_ids, np.uint8), np.ones(len(boxes), np.float32), corners.astype(np.float32), corners, areas
    )
    return PanopticResult(semantic, instance, table)


class Drive(PanopticDataset):
    """Two cars that move a little to the right in each frame."""

    classes = CLASSES

    def __len__(self) -> int:
        return 6

    def boxes(self, index: int) -> list[tuple[int, int, int, int]]:
        return [(2 + index, 2, 9 + index, 9), (22 + index, 2, 29 + index, 9)]

    def __getitem__(self, index: int) -> PanopticSample:
        labels = result_of(self.boxes(index), [CAR, CAR])
        image = np.full((20, 40, 3), index, np.uint8)
        return PanopticSample(
            str(index), index, image, labels.semantic, labels.instance.astype(np.int32),
            labels.detections.class_ids, np.zeros(2, bool),
        )  # fmt: skip


class SwappingPipeline:
    """Finds both cars, but lists them in another order in every second frame; misses the left one in frame 3."""

    def __call__(self, image: CameraImage) -> PanopticResult:
        index = int(image.pixels[0, 0, 0])
        boxes = Drive().boxes(index)
        if index == 3:
            boxes = boxes[1:]
        elif index % 2:
            boxes = boxes[::-1]
        return result_of(boxes, [CAR] * len(boxes))


def test_tracking_spares_the_switches_that_the_order_makes() -> None:
    report = count_id_switches(SwappingPipeline(), Drive(), progress=False)  # type: ignore[arg-type]
    assert (report.frames, report.matches, len(report.tracked.last)) == (6, 11, 2)
    assert report.tracked.switches == 0
    # Left car: 1 2 1 - 1 2; right car: 2 1 2 1 2 1.
    assert report.untracked.switches == 3 + 5
    assert report.untracked.per_object == 4.0
    assert "with tracking      0 switches, 0.00 per object" in report.format()


def test_a_switch_is_a_change_since_the_last_match() -> None:
    switches = Switches()
    switches.update(np.array([1, 2]), np.array([7, 8]))
    switches.update(np.array([1]), np.array([7]))
    switches.update(np.array([1, 2]), np.array([9, 8]))
    assert (switches.switches, switches.per_object) == (1, 0.5)
    assert np.isnan(Switches().per_object)


def test_matches_need_the_class_and_more_than_half_of_the_union() -> None:
    labels = result_of([(0, 0, 9, 9), (20, 0, 29, 9)], [CAR, PEDESTRIAN])
    half = result_of([(0, 0, 9, 4), (20, 0, 29, 5)], [CAR, PEDESTRIAN])  # IoU 0.5 and 0.6
    assert [rows.tolist() for rows in match_objects(labels, half)] == [[1], [1]]
    other = result_of([(0, 0, 9, 9), (20, 0, 29, 9)], [PEDESTRIAN, PEDESTRIAN])
    assert [rows.tolist() for rows in match_objects(labels, other)] == [[1], [1]]
    assert [len(rows) for rows in match_objects(labels, result_of([], []))] == [0, 0]
