# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Intersection over union of the semantic image, by class and averaged (mIoU of Table 1)."""

from __future__ import annotations

import numpy as np

from rt_panoptic_ros.errors import require
from rt_panoptic_ros.evaluation.panoptic_quality import ratio
from rt_panoptic_ros.records import VOID


class SemanticIou:
    """Accumulates the confusion matrix of labelled pixels over images; void of the ground truth is ignored."""

    def __init__(self, class_count: int) -> None:
        self._class_count = class_count
        self._pixels = np.zeros((VOID + 1, VOID + 1), np.int64)  # (true, predicted) semantic values

    def add(self, truth: np.ndarray, predicted: np.ndarray) -> None:
        """Count one image.

        Args:
            truth: (H, W) uint8 class ids, VOID where there is none.
            predicted: (H, W) uint8 class ids; VOID there is wrong wherever the ground truth has a class.

        Raises:
            InvalidInputError: The sizes differ.
        """
        require(
            truth.shape == predicted.shape,
            f"a prediction of the ground truth's size {truth.shape}",
            f"{predicted.shape}: compare labels of the same image",
        )
        pairs = truth.astype(np.intp) * (VOID + 1) + predicted
        self._pixels += np.bincount(pairs.ravel(), minlength=self._pixels.size).reshape(self._pixels.shape)

    def per_class(self) -> np.ndarray:
        """Return each class's IoU, (N,) float64 in 0 to 1; NaN for classes in neither ground truth nor prediction."""
        labelled = self._pixels[: self._class_count]
        shared = np.diagonal(labelled)
        union = labelled.sum(axis=1) + labelled.sum(axis=0)[: self._class_count] - shared
        return ratio(shared, union)
