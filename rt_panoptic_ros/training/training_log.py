# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""What a training run tells about itself: losses for TensorBoard, pictures, figures, and the bundle."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from rt_panoptic_ros.drawing.overlay import contact_sheet, render_overlay
from rt_panoptic_ros.errors import require_package
from rt_panoptic_ros.evaluation.evaluate import evaluate
from rt_panoptic_ros.evaluation.report import true_result
from rt_panoptic_ros.files import write_image
from rt_panoptic_ros.model.bundle import ModelBundle, read_bundle, write_bundle
from rt_panoptic_ros.pipeline import open_pipeline
from rt_panoptic_ros.records import CameraImage
from rt_panoptic_ros.training.model_weights import origin_of

if TYPE_CHECKING:
    from rt_panoptic_ros.datasets.base import PanopticDataset
    from rt_panoptic_ros.model.class_table import ClassTable
    from rt_panoptic_ros.training.recipe import Recipe

_log = logging.getLogger(__name__)

FIGURES = ("pq", "pq_things", "pq_stuff", "miou")
"""Names of the figures on the validation split, in the card and, behind validation/, in the log; where
not all objects have masks, box_ap50 is another."""

_PICTURES = 4
_SHEET_WIDTH_PX = 1280


class TrainingLog:
    """Writes a run's folder: log/, pictures/ and model/."""

    def __init__(self, recipe: Recipe, classes: ClassTable, out: Path, validation: PanopticDataset) -> None:
        """Open the log.

        Raises:
            UnavailableError: TensorBoard is not installed.
        """
        require_package("tensorboard", "the log of the losses")
        from torch.utils.tensorboard import SummaryWriter

        self._recipe, self._classes, self._out, self._validation = recipe, classes, out, validation
        self._writer = SummaryWriter(str(out / "log"))

    def add_losses(self, step: int, total: float, parts: Mapping[str, float], rate: float) -> None:
        """Log a step's losses by name."""
        scalars = {"loss/total": total, "learning_rate": rate, **{f"loss/{name}": v for name, v in parts.items()}}
        for name, value in scalars.items():
            self._writer.add_scalar(name, value, step)

    def end_epoch(self, epoch: int, step: int, weights: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Write the bundle as it is now and pictures, and every so many epochs return `validate`'s figures."""
        self._show(f"epoch_{epoch:04d}", step, weights)
        every = self._recipe.validate_epochs
        figures = self.validate(step, weights) if every and epoch % every == 0 else {}
        self._writer.flush()
        return figures

    def end_run(self, step: int, weights: Mapping[str, np.ndarray], figures: Mapping[str, float]) -> ModelBundle:
        """Write pictures and the bundle with its figures on the validation split, and close the log."""
        self._show("end", step, weights)
        self._writer.close()
        return self._write_bundle(step, weights, figures)

    def validate(self, step: int, weights: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Return and log the figures on the validation split, percent, but those that it has no labels for."""
        pipeline = open_pipeline(self._write_bundle(step, weights, {}).path, backend="torch")
        result = evaluate(pipeline, self._validation, progress=False, average_precision=False)
        values = (result.all.pq, result.things.pq, result.stuff.pq, result.mean_iou)
        figures = dict(zip(FIGURES, values, strict=True))
        if result.boxes is not None:
            figures["box_ap50"] = result.boxes.mean_average_precision
        figures = {name: value for name, value in figures.items() if not np.isnan(value)}
        for name, value in figures.items():
            self._writer.add_scalar(f"validation/{name}", value, step)
        percent = {name: round(100 * value, 2) for name, value in figures.items()}
        split, shown = self._recipe.data.val_split, ", ".join(f"{name} {value}" for name, value in percent.items())
        _log.info("step %d, on %s: %s", step, split, shown)
        return percent

    def _show(self, name: str, step: int, weights: Mapping[str, np.ndarray]) -> None:
        """Write the bundle and pictures/`name`.jpg."""
        pipeline = open_pipeline(self._write_bundle(step, weights, {}).path, backend="torch")
        pictures = []
        for index in np.linspace(0, len(self._validation) - 1, min(_PICTURES, len(self._validation))).astype(int):
            sample = self._validation[int(index)]
            predicted = pipeline(CameraImage(sample.image, "rgb"))
            pictures += [
                render_overlay(sample.image, true_result(sample), self._classes),
                render_overlay(sample.image, predicted, self._classes),
            ]
        sheet = contact_sheet(pictures, 4, _SHEET_WIDTH_PX, captions=["labels", "prediction"] * (len(pictures) // 2))
        write_image(self._out / "pictures" / f"{name}.jpg", cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))
        self._writer.add_image("validation", sheet, step, dataformats="HWC")

    def _write_bundle(self, step: int, weights: Mapping[str, np.ndarray], figures: Mapping[str, float]) -> ModelBundle:
        recipe = self._recipe
        about: dict[str, Any] = {
            "origin": f"rt-panoptic train, recipe {recipe.name}, after {step} steps",
            "recipe": recipe.to_document(),
            "data": recipe.data.describe_sources(),
            "data_licence": recipe.data.describe_licences(),
        }
        if recipe.from_model is not None:
            about["from_model"] = origin_of(read_bundle(recipe.from_model))
        if figures:
            about["figures"] = {"split": recipe.data.val_split, **figures}
            if self._validation.instance_note:
                about["figures"]["note"] = self._validation.instance_note
        return write_bundle(
            self._out / "model",
            weights,
            network=recipe.network,
            classes=self._classes,
            spec=recipe.input,
            settings=recipe.postprocess,
            about=about,
        )
