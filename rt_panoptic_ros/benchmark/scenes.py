# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Network outputs of a made-up street, with as many objects as a benchmark wants."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import warp as wp

from rt_panoptic_ros.inference.base import CapturableBackend
from rt_panoptic_ros.model.architecture import LEVELNESS_CHANNELS
from rt_panoptic_ros.records import STRIDES, DenseDetections

_CELL_SHARE = 0.6
"""Part of an object's width and height, around its centre, whose cells propose its box."""


def street_scene(
    size: tuple[int, int], objects: int, *, classes: int, thing_ids: tuple[int, ...], device: str, seed: int = 1
) -> DenseDetections:
    """Return what a good network would say of a street with `objects` objects of mixed sizes, somewhat noisily.

    The objects stand in a row-by-row grid of ten to a row with sizes from a quarter of a cell to beyond it, so that
    neighbours overlap; with fewer objects, the same first ones are there. As with a real network, many cells of an
    object propose its box, and dense boxes and logits change from cell to cell.

    Args:
        size: (height, width) of the network's input, px.
        objects: 0 to 100.
        classes: N.
        thing_ids: Class ids of the things.
        device: Warp's name of where the outputs lie.
        seed: Of the noise.
    """
    random = np.random.default_rng(seed)
    shapes = [(-(-size[0] // stride), -(-size[1] // stride)) for stride in STRIDES]
    fine = (2 * shapes[0][0], 2 * shapes[0][1])
    stuff = [c for c in range(classes) if c not in thing_ids]

    semantic = random.normal(0, 0.4, (classes, *shapes[0]))
    bands = np.minimum(np.arange(shapes[0][0]) * len(stuff) // shapes[0][0], len(stuff) - 1)
    semantic[np.array(stuff)[bands], np.arange(shapes[0][0])] += 6.0
    levelness = random.normal(0, 0.4, (LEVELNESS_CHANNELS, *fine))
    levelness[0] += 5.0
    class_logits = [random.normal(-7, 0.5, (len(thing_ids), *shape)) for shape in shapes]
    offsets = [random.uniform(1, 2 * stride, (4, *shape)) for stride, shape in zip(STRIDES, shapes, strict=True)]
    centerness = [random.normal(0, 0.5, (1, *shape)) for shape in shapes]

    for index, (left, top, right, bottom) in enumerate(_boxes(size, np.random.default_rng(0))[:objects]):
        thing = index % len(thing_ids)
        level = int(np.searchsorted([64, 128, 256, 512], max(right - left, bottom - top)))
        rows8, columns8 = _cells(8, shapes[0], (left, top, right, bottom))
        semantic[:, rows8, columns8] = random.normal(0, 0.4, semantic[:, rows8, columns8].shape)
        semantic[thing_ids[thing], rows8, columns8] += 6.0
        rows4, columns4 = _cells(4, fine, (left, top, right, bottom))
        levelness[0, rows4, columns4] -= 5.0
        levelness[1 + level, rows4, columns4] += 5.0
        for other, stride in enumerate(STRIDES):
            rows, columns = _cells(stride, shapes[other], (left, top, right, bottom))
            y = (np.arange(rows.start, rows.stop) * stride + stride // 2)[:, None]
            x = (np.arange(columns.start, columns.stop) * stride + stride // 2)[None]
            reach = np.stack(np.broadcast_arrays(x - left, y - top, right - x, bottom - y)).astype(float)
            offsets[other][:, rows, columns] = np.maximum(reach * random.normal(1, 0.03, reach.shape), 0.1)
        center = ((left + right) / 2, (top + bottom) / 2)
        half = _CELL_SHARE / 2 * np.array([right - left, bottom - top])
        middle = (center[0] - half[0], center[1] - half[1], center[0] + half[0], center[1] + half[1])
        rows, columns = _cells(STRIDES[level], shapes[level], middle)
        noise = random.normal(0, 0.3, class_logits[level][thing, rows, columns].shape)
        class_logits[level][thing, rows, columns] = 2.0 - 0.01 * index + noise
        centerness[level][0, rows, columns] += 2.0

    def array(values: np.ndarray) -> wp.array:
        return wp.array(values.astype(np.float32), dtype=wp.float32, device=device)

    return DenseDetections(
        semantic_logits=array(semantic),
        levelness_logits=array(levelness),
        box_class_logits=tuple(map(array, class_logits)),
        box_offsets=tuple(map(array, offsets)),
        centerness_logits=tuple(map(array, centerness)),
    )


def _boxes(size: tuple[int, int], random: np.random.Generator) -> list[tuple[float, float, float, float]]:
    """Return 100 boxes, xyxy px, in an order that spreads the first ones over the image."""
    height, width = size
    rows = columns = 10
    boxes = []
    for index in random.permutation(rows * columns):
        row, column = divmod(int(index), columns)
        scale = random.choice([0.25, 0.5, 0.5, 0.8, 0.8, 1.3, 2.0])
        half_h, half_w = scale * height / rows / 2, scale * width / columns / 2 * random.uniform(0.6, 1.2)
        y, x = (row + 0.5) * height / rows, (column + 0.5) * width / columns
        boxes.append((max(x - half_w, 0.0), max(y - half_h, 0.0), min(x + half_w, width - 1.0),
                      min(y + half_h, height - 1.0)))  # fmt: skip
    return boxes


def _cells(stride: int, shape: tuple[int, int], box: tuple[float, float, float, float]) -> tuple[slice, slice]:
    """Return the rows and columns of the cells whose centre lies in a box, or the nearest one where none does."""

    def span(low: float, high: float, cells: int) -> slice:
        first = int(np.ceil((low - stride // 2) / stride))
        last = int(np.floor((high - stride // 2) / stride))
        if first > last:
            first = last = round(((low + high) / 2 - stride // 2) / stride)
        first = min(max(first, 0), cells - 1)
        return slice(first, max(min(last, cells - 1), first) + 1)

    return span(box[1], box[3], shape[0]), span(box[0], box[2], shape[1])


def made_up_image(size: tuple[int, int]) -> np.ndarray:
    """Return an image (H, W, 3) uint8 of a sky, houses, a road and cars, somewhat noisy."""
    height, width = size
    image = np.full((height, width, 3), (150, 190, 230), np.uint8)
    image[height // 4 :] = (130, 110, 100)
    image[height * 5 // 8 :] = (90, 90, 95)
    for index in range(4):
        left, top = width * (1 + 4 * index) // 18, height * (9 + index % 2) // 16
        image[top : top + height // 5, left : left + width // 7] = (40 * index, 30, 160 - 30 * index)
        image[top : top + height // 12, left + width // 40 : left + width // 9] = (30, 40, 50)
    noise = np.random.default_rng(1).normal(0, 8, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


@wp.kernel
def _brighten(
    image: wp.array3d(dtype=wp.uint8),  # (H, W, 3)
    base: wp.array3d(dtype=wp.float32),  # (C, h, w)
    gain: wp.float32,
    brightened: wp.array3d(dtype=wp.float32),
) -> None:
    c, y, x = wp.tid()
    brightened[c, y, x] = base[c, y, x] + gain * wp.float32(image[y, x, c % 3])


class SceneBackend(CapturableBackend):
    """In place of a network: a scene's outputs, whose class logits an image's top left pixels raise."""

    name = "scene"

    def __init__(self, scene: DenseDetections, network_size: tuple[int, int], device: str) -> None:
        """Keep a scene of `network_size` (height, width) px that lies on `device`."""
        super().__init__(network_size, device, "float32")
        self.image = wp.zeros((*network_size, 3), dtype=wp.uint8, device=device)
        self._bases = (scene.semantic_logits, *scene.box_class_logits)
        semantic, *by_level = map(wp.zeros_like, self._bases)
        self._dense = replace(scene, semantic_logits=semantic, box_class_logits=tuple(by_level))

    def enqueue(self) -> DenseDetections:
        """Enqueue the kernels; see `CapturableBackend`."""
        outputs = (self._dense.semantic_logits, *self._dense.box_class_logits)
        for base, output, gain in zip(self._bases, outputs, (0.02, *[0.004] * len(STRIDES)), strict=True):
            wp.launch(_brighten, base.shape, [self.image, base, gain], [output], device=self.device)
        return self._dense

    def close(self) -> None:
        """Keep all; see `Backend`."""
