# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Early stopping: the weights of the best validation so far, and for how many validations none was better."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Mapping

FIGURES = ("pq", "box_ap50")
"""The first of these that there is decides, percent to two decimals: panoptic quality over all classes that occur in
the validation split; where nothing there has pixels, the average precision of boxes at IoU 0.5."""


class BestWeights:
    """What is shipped where training has a patience; without one it stays empty."""

    def __init__(self, patience: int) -> None:
        """Start without a validation; `patience` 0 never takes any."""
        self.patience, self.stale, self.step = patience, 0, 0
        self.figures: dict[str, float] = {}
        self.weights: dict[str, np.ndarray] = {}

    @property
    def exhausted(self) -> bool:
        """Whether so many validations in a row were no better that training should end."""
        return 0 < self.patience <= self.stale

    def add(self, step: int, figures: Mapping[str, float], weights: Mapping[str, np.ndarray]) -> None:
        """Take in a validation; one without a figure that decides counts as none."""
        name = _deciding(figures)
        if self.patience == 0 or name is None:
            return
        if self.step and figures[name] <= self.figures[name]:
            self.stale += 1
            return
        self.step, self.stale, self.figures = step, 0, dict(figures)
        self.weights = {name: value.copy() for name, value in weights.items()}  # theirs go on changing

    def describe(self, step: int) -> str:
        """Return in words why training ended at `step`, and what is shipped."""
        reason = f"the last {self.stale} validations were no better" if self.exhausted else "all steps are done"
        name = _deciding(self.figures) or ""
        return f"ended at step {step}: {reason}; best on val is step {self.step}, {name} {self.figures[name]:.2f}"

    def state(self) -> dict[str, Any]:
        """Return all of it for a checkpoint."""
        weights = {name: torch.from_numpy(value) for name, value in self.weights.items()}
        return {"stale": self.stale, "step": self.step, "figures": self.figures, "weights": weights}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go back to what `state` returned."""
        self.stale, self.step, self.figures = state["stale"], state["step"], dict(state["figures"])
        self.weights = {name: value.numpy() for name, value in state["weights"].items()}


def _deciding(figures: Mapping[str, float]) -> str | None:
    return next((name for name in FIGURES if name in figures), None)
