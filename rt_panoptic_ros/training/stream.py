# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The endless stream of training images: which image comes when, and how it is changed, follows from seed and place.

So a resumed run sees exactly what an uninterrupted one would have seen.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import cv2
import numpy as np
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from rt_panoptic_ros.datasets.augmentation import Donors, augment
from rt_panoptic_ros.datasets.copy_paste import collect_cut_outs
from rt_panoptic_ros.datasets.views import Memory, Remembered
from rt_panoptic_ros.training.batches import ImageLabels, collate, image_labels
from rt_panoptic_ros.training.targets import Targets, assign_targets, pyramid_sizes

if TYPE_CHECKING:
    from rt_panoptic_ros.datasets.base import PanopticDataset, PanopticSample
    from rt_panoptic_ros.training.processes import Processes
    from rt_panoptic_ros.training.recipe import Recipe

SIZE_DIVISOR = 32
"""Batches are padded to multiples of this many px, so that the levels to P5 lie exactly over each other."""

MEMORY_BYTES = 2**30
"""Of decoded samples that each process keeps: reading 200 COCO images takes longer than all that is done to them."""

_TURN = 1000
"""Places of the stream within which each source has its exact share, in a random order."""


class TrainingStream(Dataset[ImageLabels]):
    """Augmented images by their place in the stream; each source comes in new permutations of its images."""

    def __init__(self, sources: Sequence[PanopticDataset], recipe: Recipe) -> None:
        """Make the stream of datasets with one class table, under a recipe's weights, seed and augmentation."""
        memory = Memory(MEMORY_BYTES)
        self.sources = [Remembered(source, memory) for source in sources]
        self.recipe, self.classes = recipe, sources[0].classes
        self.image_count = sum(map(len, sources))
        weights = np.array([source.weight for source in recipe.data.all_sources])
        self._shares = weights / weights.sum()
        # The source at each place of a turn, before they are shuffled.
        self._turn = np.searchsorted(self._shares.cumsum(), (np.arange(_TURN) + 0.5) / _TURN)

    @functools.cached_property
    def donors(self) -> Donors:
        """What augmentation takes from other images; cut-outs are made here, once."""
        settings = self.recipe.augmentation.copy_paste
        cut_outs = collect_cut_outs(self.sources, settings, self.recipe.seed) if settings.count[1] else None
        return Donors(self._any_sample, cut_outs)

    def __getitem__(self, place: int) -> ImageLabels:
        """Return the image at a place of the stream, from 0, as tensors."""
        return image_labels(self.sample(place), self.classes.thing_ids, self.recipe.box_semantics)

    def sample(self, place: int) -> PanopticSample:
        """Return the augmented image at a place of the stream, from 0."""
        recipe = self.recipe
        source, index = self.image_at(place)
        rng = np.random.default_rng((recipe.seed, 1, place))
        return augment(self.sources[source][index], recipe.augmentation, rng, recipe.input.fill_rgb, self.donors)

    def image_at(self, place: int) -> tuple[int, int]:
        """Return the source at a place of the stream, from 0, and which of its images is there."""
        turn, position = divmod(place, _TURN)
        order = self._turn[_permutation(_TURN, (self.recipe.seed, 2, turn))]
        source = int(order[position])
        earlier = turn * (order == source).sum() + (order[:position] == source).sum()  # images of this source
        count = len(self.sources[source])
        epoch, position = divmod(int(earlier), count)
        return source, int(_permutation(count, (self.recipe.seed, 0, epoch, source))[position])

    def _any_sample(self, rng: np.random.Generator) -> PanopticSample:
        source = self.sources[rng.choice(len(self.sources), p=self._shares)]
        return source[int(rng.integers(len(source)))]


def open_batches(
    stream: TrainingStream, steps: range, processes: Processes, workers: int
) -> Iterator[tuple[Tensor, Targets]]:
    """Yield images, (B, 3, H, W) uint8 RGB, and targets of this process's `steps`.

    With 0 `workers` it prepares them itself; with more, they do all but the network's work.
    """
    images = stream.recipe.schedule.images_per_process
    _ = stream.donors  # now, so that all workers share them
    firsts = [(step * processes.count + processes.rank) * images for step in steps]
    loader = DataLoader(
        stream,
        batch_sampler=[list(range(first, first + images)) for first in firsts],
        num_workers=workers,
        collate_fn=functools.partial(_prepared, recipe=stream.recipe),
        worker_init_fn=_use_one_core,
        pin_memory=processes.device.type == "cuda",
    )
    yield from loader


def _prepared(items: Sequence[ImageLabels], recipe: Recipe) -> tuple[Tensor, Targets]:
    batch = collate(items, SIZE_DIVISOR, recipe.input.fill_rgb)
    height, width = batch.images.shape[2:]
    return batch.images, assign_targets(
        batch,
        pyramid_sizes(height, width),
        supervision=recipe.supervision,
        level_ranges_px=recipe.level_ranges_px,
        box_core=recipe.box_core,
    )


def _use_one_core(_: int) -> None:
    cv2.setNumThreads(0)  # a worker is one of several; torch does the same by itself


@functools.lru_cache(maxsize=32)
def _permutation(count: int, seed: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(seed).permutation(count)
