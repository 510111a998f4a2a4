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
from rt_panoptic_ros.training.batches import ImageLabels, collate, image_labels
from rt_panoptic_ros.training.targets import Targets, assign_targets, pyramid_sizes

if TYPE_CHECKING:
    from rt_panoptic_ros.datasets.base import PanopticDataset, PanopticSample
    from rt_panoptic_ros.training.processes import Processes
    from rt_panoptic_ros.training.recipe import Recipe

SIZE_DIVISOR = 32
"""Batches are padded to multiples of this many px, so that the levels to P5 lie exactly over each other."""


class TrainingStream(Dataset[ImageLabels]):
    """Augmented images by their place in the stream; each epoch is a new permutation of the dataset."""

    def __init__(self, dataset: PanopticDataset, recipe: Recipe) -> None:
        """Make the stream of a dataset under a recipe's seed and augmentation."""
        self.dataset, self.recipe = dataset, recipe

    @functools.cached_property
    def donors(self) -> Donors:
        """What augmentation takes from other images; cut-outs are made here, once."""
        settings = self.recipe.augmentation.copy_paste
        cut_outs = collect_cut_outs([self.dataset], settings, self.recipe.seed) if settings.count[1] else None
        return Donors(self._any_sample, cut_outs)

    def __getitem__(self, place: int) -> ImageLabels:
        """Return the image at a place of the stream, from 0, as tensors."""
        return image_labels(self.sample(place), self.dataset.classes.thing_ids)

    def sample(self, place: int) -> PanopticSample:
        """Return the augmented image at a place of the stream, from 0."""
        recipe = self.recipe
        epoch, position = divmod(place, len(self.dataset))
        index = int(_permutation(len(self.dataset), recipe.seed, epoch)[position])
        rng = np.random.default_rng((recipe.seed, 1, place))
        return augment(self.dataset[index], recipe.augmentation, rng, recipe.input.fill_rgb, self.donors)

    def _any_sample(self, rng: np.random.Generator) -> PanopticSample:
        return self.dataset[int(rng.integers(len(self.dataset)))]


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


@functools.lru_cache(maxsize=2)
def _permutation(count: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng((seed, 0, epoch)).permutation(count)
