"""The endless stream of training images: which image comes when, and how it is changed, follows from seed and place.

So a resumed run sees exactly what an uninterrupted one would have seen.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from torch.utils.data import DataLoader, Dataset

from rt_panoptic_ros.datasets.augmentation import augment
from rt_panoptic_ros.training.batches import Batch, ImageLabels, collate, image_labels

if TYPE_CHECKING:
    from rt_panoptic_ros.datasets.base import PanopticDataset
    from rt_panoptic_ros.training.recipe import Recipe

SIZE_DIVISOR = 32
"""Batches are padded to multiples of this many px, so that the levels to P5 lie exactly over each other."""


class TrainingStream(Dataset[ImageLabels]):
    """Augmented images by their place in the stream; each epoch is a new permutation of the dataset."""

    def __init__(self, dataset: PanopticDataset, recipe: Recipe) -> None:
        """Make the stream of a dataset under a recipe's seed and augmentation."""
        self.dataset = dataset
        self._seed, self._augmentation = recipe.seed, recipe.augmentation
        self.fill_rgb = _rounded(recipe.input.mean_rgb)

    def __getitem__(self, place: int) -> ImageLabels:
        """Return the image at a place of the stream, from 0."""
        epoch, position = divmod(place, len(self.dataset))
        index = int(_permutation(len(self.dataset), self._seed, epoch)[position])
        rng = np.random.default_rng((self._seed, 1, place))
        sample = augment(self.dataset[index], self._augmentation, rng, self.fill_rgb)
        return image_labels(sample, self.dataset.classes.thing_ids)


def open_batches(
    stream: TrainingStream, *, first_step: int, steps: int, images: int, rank: int, processes: int, workers: int
) -> Iterator[Batch]:
    """Yield this process's batches of steps `first_step` to `steps` - 1.

    Args:
        stream: The images.
        first_step: The first step, from 0.
        steps: The end.
        images: Images per step in each process.
        rank: This process's number.
        processes: How many there are.
        workers: Processes that prepare images; 0 prepares them in this one.
    """
    places = [[(step * processes + rank) * images + k for k in range(images)] for step in range(first_step, steps)]
    loader = DataLoader(
        stream,
        batch_sampler=places,
        num_workers=workers,
        collate_fn=functools.partial(collate, size_divisor=SIZE_DIVISOR, fill_rgb=stream.fill_rgb),
        persistent_workers=False,
    )
    yield from loader


@functools.lru_cache(maxsize=2)
def _permutation(count: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng((seed, 0, epoch)).permutation(count)


def _rounded(rgb: tuple[float, float, float]) -> tuple[int, int, int]:
    red, green, blue = (round(value) for value in rgb)
    return red, green, blue
