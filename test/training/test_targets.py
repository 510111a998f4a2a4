# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Target assignment against the paper's definitions, written out pixel by pixel."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from rt_panoptic_ros.datasets.base import PanopticSample
from rt_panoptic_ros.records import VOID
from rt_panoptic_ros.training.batches import collate, image_labels
from rt_panoptic_ros.training.targets import IGNORED_LEVEL, assign_targets, centerness, level_positions, pyramid_sizes

torch.set_num_threads(1)

STRIDES = (8, 16, 32, 64, 128)
THINGS = (3, 1)
RANGES = (24.0, 36.0, 48.0, 60.0)
INSIDE = ("foreground", "ignored", "levelness", "instance", "semantic")
AT_FOREGROUND = ("boxes", "offsets", "centerness", "channels", "objects", "masked")


def scene(seed: int, height: int, width: int, count: int, boxes: int = 0) -> PanopticSample:
    """Return a random scene; rectangles hide earlier ones; some are crowds, void, or of a thing but no object.

    The last `boxes` of its `count` objects are known by their box alone; where there are any, the seed also decides
    whether all objects are labelled.
    """
    rng = np.random.default_rng(seed)
    semantic = rng.choice([0, 2], (height, width)).astype(np.uint8)
    instance = np.zeros((height, width), np.int32)
    classes = rng.choice(THINGS, count).astype(np.uint8)

    def window() -> tuple[slice, slice]:
        top, left = rng.integers(0, height - 3), rng.integers(0, width - 3)
        bottom, right = rng.integers(top + 1, height + 1), rng.integers(left + 1, width + 1)
        return slice(top, bottom), slice(left, right)

    for row, class_id in enumerate(classes[: count - boxes], 1):
        place = window()
        semantic[place], instance[place] = class_id, row
    for value in (255, THINGS[0]):
        place = window()
        place = slice(place[0].start, place[0].start + 12), slice(place[1].start, place[1].start + 12)
        semantic[place], instance[place] = value, 0
    image = rng.integers(0, 256, (height, width, 3)).astype(np.uint8)
    sample = PanopticSample("scene", 0, image, semantic, instance, classes, rng.random(count) < 0.2)
    if boxes == 0:
        return sample
    corners = np.float32([np.nan, np.nan, np.nan, np.nan]).repeat(count).reshape(count, 4)
    corners[-boxes:, :2] = rng.uniform(0, (width - 8, height - 8), (boxes, 2))
    corners[-boxes:, 2:] = np.minimum(corners[-boxes:, :2] + rng.uniform(4, 50, (boxes, 2)), (width, height))
    return replace(sample, boxes=corners, complete=bool(seed % 2))


Box = tuple[float, float, float, float]
Object = tuple[int, int, Box, bool]


def objects_of(sample: PanopticSample, *, crowds: bool = False) -> list[Object]:
    """Return (number in the instance map, class, box, known by box) of each visible object that is no crowd, or is."""
    found: list[Object] = []
    for number, (class_id, crowd) in enumerate(zip(sample.instance_classes, sample.instance_crowd, strict=True), 1):
        y, x = np.nonzero(sample.instance == number)
        if crowd != crowds:
            continue
        if sample.by_box[number - 1]:
            found.append((number, int(class_id), tuple(sample.boxes[number - 1].tolist()), True))
        elif len(x):
            found.append((number, int(class_id), (x.min(), y.min(), x.max() + 1, y.max() + 1), False))
    return found


def holds(box: Box, x: int, y: int, share: float = 1.0) -> bool:
    x1, y1, x2, y2 = box
    center, half = ((x1 + x2) / 2, (y1 + y2) / 2), (share * (x2 - x1) / 2, share * (y2 - y1) / 2)
    return -half[0] <= x - center[0] < half[0] and -half[1] <= y - center[1] < half[1]


def look(
    sample: PanopticSample, objects: list[Object], x: int, y: int, supervision: str, core: float
) -> tuple[int | None, bool]:
    """Return the row of the object that pixel (x, y) belongs to, and whether nothing is known about it."""
    height, width = sample.semantic.shape
    if x >= width or y >= height:
        return None, True
    of_object = sample.instance[y, x] in [number for number, *_ in objects]
    if supervision == "mask" and of_object:
        return next(row for row, (number, *_) in enumerate(objects) if sample.instance[y, x] == number), False
    row, smallest, near = None, math.inf, False
    for index, (_, _, box, by_box) in enumerate(objects):
        area = (box[2] - box[0]) * (box[3] - box[1])
        if (by_box or supervision == "box") and holds(box, x, y):
            near = True
            if holds(box, x, y, core) and area < smallest:
                row, smallest = index, area
    if row is not None:
        return row, False
    near |= any(by_box and holds(box, x, y) for _, _, box, by_box in objects_of(sample, crowds=True))
    void = sample.semantic[y, x] == 255 and not sample.complete
    return None, bool(near or void or (sample.semantic[y, x] in THINGS and not of_object))


def expected(sample, level_sizes, supervision, ranges, padded, core=1.0):
    """Return what Section 4.1 asks for, as {field: list}."""
    bounds = (0.0, *ranges, math.inf)
    objects = objects_of(sample)
    want = {name: [] for name in (*INSIDE, *AT_FOREGROUND)}
    for level, (height, width) in enumerate(level_sizes):
        z = STRIDES[level]
        for j in range(height):
            for i in range(width):
                x, y = z // 2 + i * z, z // 2 + j * z
                row, unknown = look(sample, objects, x, y, supervision, core)
                x1, y1, x2, y2 = objects[row][2] if row is not None else (0, 0, 0, 0)
                l, t, r, b = x - x1, y - y1, x2 - x, y2 - y  # noqa: E741
                foreground = row is not None and bounds[level] <= max(l, t, r, b) <= bounds[level + 1]
                want["foreground"].append(foreground)
                want["ignored"].append(unknown)
                want["boxes"].append((x1, y1, x2, y2))
                want["offsets"].append((l, t, r, b))
                product = min(l, r) / max(l, r) * min(t, b) / max(t, b) if foreground else 0
                want["centerness"].append(math.sqrt(product))
                want["channels"].append(THINGS.index(objects[row][1]) if foreground else 0)
                want["objects"].append(row if foreground else 0)
                want["masked"].append(not objects[row][3] if foreground else True)
    numbers = [number for number, *_ in objects]
    for j in range(2 * level_sizes[0][0]):
        for i in range(2 * level_sizes[0][1]):
            x, y = 2 + 4 * i, 2 + 4 * j
            row, unknown = look(sample, objects, x, y, supervision, core)
            value = IGNORED_LEVEL if unknown else 0
            if row is not None:
                x1, y1, x2, y2 = objects[row][2]
                reach = max(x - x1, y - y1, x2 - x, y2 - y)
                value = next(1 + level for level in range(5) if bounds[level] <= reach <= bounds[level + 1])
            want["levelness"].append(value)
            inside = y < sample.instance.shape[0] and x < sample.instance.shape[1]
            number = sample.instance[y, x] if inside else 0
            want["instance"].append(1 + numbers.index(number) if number in numbers else 0)
            if row is not None and objects[row][3]:
                want["instance"][-1] = -1
    semantic = np.full(padded, 255)
    semantic[: sample.semantic.shape[0], : sample.semantic.shape[1]] = sample.semantic
    want["semantic"] = semantic.ravel().tolist()
    return want


@pytest.mark.parametrize("supervision", ["mask", "box"])
@pytest.mark.parametrize("seed", range(4))
def test_targets_are_the_papers(seed: int, supervision: str) -> None:
    samples = [scene(10 * seed, 61, 75, 6), scene(10 * seed + 1, 50, 83, 3), scene(10 * seed + 2, 40, 40, 0)]
    batch = collate([image_labels(sample, THINGS) for sample in samples], 1, (1, 2, 3))
    assert batch.images.shape == (3, 3, 61, 83)
    sizes = [(-(-61 // stride), -(-83 // stride)) for stride in STRIDES]
    targets = assign_targets(batch, sizes, supervision=supervision, level_ranges_px=RANGES)
    for index, sample in enumerate(samples):
        want = expected(sample, sizes, supervision, RANGES, (61, 83))
        for name in INSIDE:
            assert getattr(targets, name)[index].flatten().tolist() == want[name], name
        foreground = targets.foreground[index]
        for name in AT_FOREGROUND:
            wanted = torch.tensor(want[name], dtype=torch.float64)[foreground]
            torch.testing.assert_close(getattr(targets, name)[index][foreground].double(), wanted, rtol=1e-6, atol=1e-6)
    assert targets.foreground[:2].any()
    assert not targets.foreground[2].any()
    assert set(targets.levelness[2].unique().tolist()) == {IGNORED_LEVEL, 0}


@pytest.mark.parametrize(("supervision", "core"), [("mask", 1.0), ("mask", 0.6), ("box", 1.0), ("box", 0.6)])
@pytest.mark.parametrize("seed", range(4))
def test_objects_known_by_their_box_alone_are_those_of_section_5_6(seed: int, supervision: str, core: float) -> None:
    samples = [scene(10 * seed, 61, 75, 7, boxes=4), scene(10 * seed + 1, 50, 83, 3, boxes=3), scene(9, 40, 40, 0)]
    batch = collate([image_labels(sample, THINGS) for sample in samples], 1, (1, 2, 3))
    sizes = pyramid_sizes(61, 83)
    targets = assign_targets(batch, sizes, supervision=supervision, level_ranges_px=RANGES, box_core=core)
    for index, sample in enumerate(samples):
        want = expected(sample, sizes, supervision, RANGES, (61, 83), core)
        for name in INSIDE:
            assert getattr(targets, name)[index].flatten().tolist() == want[name], name
        foreground = targets.foreground[index]
        for name in AT_FOREGROUND:
            wanted = torch.tensor(want[name], dtype=torch.float64)[foreground]
            torch.testing.assert_close(getattr(targets, name)[index][foreground].double(), wanted, rtol=1e-5, atol=1e-5)
    assert not targets.masked[1][targets.foreground[1]].any()


def at_stride_8(sample: PanopticSample, box_core: float = 1.0) -> tuple[list[str], list[int]]:
    """Return what each location of P3 of a 32x32 image is, row by row: object's row, `?` ignored, `.` background.

    And levelness along the diagonal of the stride-4 grid.
    """
    batch = collate([image_labels(sample, THINGS)], 1, (0, 0, 0))
    targets = assign_targets(batch, pyramid_sizes(32, 32), level_ranges_px=(99, 100, 101, 102), box_core=box_core)
    known = torch.where(targets.ignored[0, :16], -2, -1)
    rows = torch.where(targets.foreground[0, :16], targets.objects[0, :16], known).view(4, 4).tolist()
    return ["".join({-2: "?", -1: "."}.get(row, str(row)) for row in line) for line in rows], [
        int(value) for value in targets.levelness[0].diagonal()
    ]


@pytest.mark.parametrize("complete", [False, True])
def test_boxes_by_hand(complete: bool) -> None:
    """Locations lie at 4, 12, 20 and 28 px, grid points at 2, 6, ..., 30."""
    nowhere = [np.nan] * 4
    instance = np.zeros((32, 32), np.int32)
    instance[24:, :16] = 1
    sample = PanopticSample(
        "boxes", 0, np.zeros((32, 32, 3), np.uint8), np.full((32, 32), 255, np.uint8), instance, np.uint8([1, 3, 3, 1]),
        np.array([False, False, False, True]), np.float32([nowhere, [0, 0, 14, 32], [10, 8, 22, 20], [24, 0, 32, 12]]),
        complete,
    )  # fmt: skip
    v, unknown = "." if complete else "?", IGNORED_LEVEL
    void = 0 if complete else unknown
    places, levelness = at_stride_8(sample)
    assert places == [f"11{v}?", f"122{v}", f"11{v}{v}", f"00{v}{v}"]
    assert levelness == [1, 1, 1, 1, 1, void, void, void]
    places, levelness = at_stride_8(sample, box_core=0.5)
    assert places == [f"??{v}?", f"1??{v}", f"1?{v}{v}", f"00{v}{v}"]
    assert levelness == [unknown, unknown, 1, 1, unknown, void, void, void]


def square(side: int, size: int) -> PanopticSample:
    """Return one object, `side` px wide and high, in the corner of an image of `size` px."""
    instance = np.zeros((size, size), np.int32)
    instance[:side, :side] = 1
    semantic = np.where(instance, 1, 0).astype(np.uint8)
    image = np.zeros((size, size, 3), np.uint8)
    return PanopticSample("square", 0, image, semantic, instance, np.uint8([1]), np.array([False]))


def test_the_middle_of_a_box_teaches_the_class_of_its_pixels_and_the_rest_is_unknown() -> None:
    """An object with pixels at the top left; a box of 20 px around a smaller one, and a crowd."""
    boxes = np.float32([[np.nan] * 4, [10, 10, 30, 30], [14, 14, 22, 22], [0, 30, 32, 32]])
    classes, crowd = np.uint8([1, 3, 1, 3]), np.array([False, False, False, True])
    sample = replace(square(12, 32), boxes=boxes, instance_classes=classes, instance_crowd=crowd)
    expected = sample.semantic.copy()
    expected[10:30, 10:30] = VOID
    expected[15:25, 15:25] = 3
    expected[14:22, 14:22] = VOID
    expected[16:20, 16:20] = 1
    expected[10:12, 10:12] = 1  # the pixels of the first object
    assert np.array_equal(image_labels(sample, THINGS, 0.5).semantic, expected)
    assert np.array_equal(image_labels(sample, THINGS).semantic, sample.semantic)
    assert torch.equal(image_labels(sample, THINGS, 0.5).unknown, image_labels(sample, THINGS).unknown)


@pytest.mark.parametrize(
    ("ranges", "levels"),
    [((12.0, 20.0, 30.0, 40.0), {0, 1}), ((4.0, 12.0, 30.0, 40.0), {1}), ((4.0, 11.0, 30.0, 40.0), {2})],
)
def test_a_reach_on_the_border_belongs_to_both_levels_and_levelness_names_the_first(ranges, levels) -> None:
    """Pixels (8, 8) of P4 and (12, 12) of P3 both reach 12 px."""
    batch = collate([image_labels(square(20, 32), THINGS)], 1, (0, 0, 0))
    sizes = [(-(-32 // stride), -(-32 // stride)) for stride in STRIDES]
    targets = assign_targets(batch, sizes, level_ranges_px=ranges)
    p3, p4 = targets.foreground[0, :16].view(4, 4), targets.foreground[0, 16:20].view(2, 2)
    assert bool(p4[0, 0]) == (1 in levels)  # (8, 8) reaches 12
    assert not p3[3, 3]
    assert bool(p3[1, 1]) == (0 in levels)  # (12, 12) reaches 12
    assert targets.levelness[0, 2, 2] == 1 + sum(bound < 10 for bound in ranges)  # (10, 10) reaches 10
    assert targets.levelness[0, 1, 1] == 1 + sum(bound < 14 for bound in ranges)  # (6, 6) reaches 14


def test_levelness_at_the_borders() -> None:
    """The first level whose range holds a reach of exactly m_1 is level 1, of m_1 + 1 level 2."""
    batch = collate([image_labels(square(20, 32), THINGS)], 1, (0, 0, 0))
    sizes = [(4, 4), (2, 2), (1, 1), (1, 1), (1, 1)]
    for ranges, level in {(14.0, 20.0, 30.0, 40.0): 1, (13.0, 14.0, 30.0, 40.0): 2, (1.0, 2.0, 3.0, 13.0): 5}.items():
        assert assign_targets(batch, sizes, level_ranges_px=ranges).levelness[0, 1, 1] == level  # (6, 6) reaches 14


def test_centerness_by_hand() -> None:
    offsets = torch.tensor([[5.0, 5, 5, 5], [2, 3, 8, 3], [1, 1, 4, 9], [0, 4, 6, 4], [-1, 2, 5, 2]])
    want = [1, math.sqrt(2 / 8), math.sqrt(1 / 4 * 1 / 9), 0, 0]
    torch.testing.assert_close(centerness(offsets), torch.tensor(want))


def test_positions_are_the_centers_of_receptive_fields() -> None:
    assert level_positions(2, 3, 8, torch.device("cpu")).tolist() == [
        [4, 4], [12, 4], [20, 4], [4, 12], [12, 12], [20, 12],
    ]  # fmt: skip


def test_collate_pads_right_and_below_with_void() -> None:
    items = [image_labels(square(8, 10), THINGS), image_labels(square(4, 20), THINGS)]
    batch = collate(items, 32, (1, 3, 3))
    assert batch.images.shape == (2, 3, 32, 32)
    assert batch.images[0, :, 31, 31].tolist() == [1, 3, 3]
    assert torch.equal(batch.images[1, :, :20, :20], items[1].image)
    first = batch.labels[0]
    assert (first.semantic[10:] == 255).all()
    assert (first.semantic[:, 10:] == 255).all()
    assert not first.instance[10:].any()
    assert first.boxes.tolist() == [[0, 0, 8, 8]]
