# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""`rt-panoptic train`: from a recipe and a dataset to a model bundle."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from rt_panoptic_ros.errors import InvalidInputError
from rt_panoptic_ros.model.architecture import state_dict_layout
from rt_panoptic_ros.model.bundle import read_bundle
from rt_panoptic_ros.network.panoptic_network import InputNormalization, PanopticNetwork
from rt_panoptic_ros.training.backbone_weights import read_backbone_weights
from rt_panoptic_ros.training.best_weights import BestWeights
from rt_panoptic_ros.training.checkpoints import CHECKPOINT, read_checkpoint, write_checkpoint
from rt_panoptic_ros.training.losses import total_loss
from rt_panoptic_ros.training.model_weights import weights_of_model
from rt_panoptic_ros.training.optimization import (
    WeightAverage,
    learning_rate_factor,
    make_optimizer,
    scaled_to,
    set_learning_rate,
)
from rt_panoptic_ros.training.processes import Processes, joined_processes
from rt_panoptic_ros.training.sources import open_sources, open_validation
from rt_panoptic_ros.training.stream import TrainingStream, open_batches
from rt_panoptic_ros.training.targets import Targets
from rt_panoptic_ros.training.training_log import TrainingLog

if TYPE_CHECKING:
    from rt_panoptic_ros.model.bundle import ModelBundle
    from rt_panoptic_ros.model.class_table import ClassTable
    from rt_panoptic_ros.training.recipe import Recipe

_log = logging.getLogger(__name__)


def train(
    recipe: Recipe, root: Path, out: Path, *, resume: bool, device: str = "auto", workers: int = 1, until: int = 0
) -> ModelBundle | None:
    """Train a network and return its bundle, `out`/model.

    Also writes `out`/checkpoint.pt each epoch, the losses for TensorBoard under `out`/log, and each epoch some labelled
    images of the validation split as `out`/pictures/epoch_NNNN.jpg.

    Args:
        recipe: All that decides the outcome.
        root: Folder of the dataset, or the one that holds those of the recipe's sources.
        out: Folder of the run.
        resume: Continue from `out`/checkpoint.pt; the result is that of an uninterrupted run.
        device: auto, cpu or cuda.
        workers: Processes that prepare images; 0 prepares them between the steps.
        until: Stop after this many steps with a checkpoint, to be resumed; 0 goes to the end.

    Returns:
        The bundle in the first of several processes; None in the others and where `until` stopped before the end.

    Raises:
        InvalidInputError: Wrong data, weights or checkpoint, or the losses became infinite or NaN.
        UnavailableError: A package or device is missing, or a file can't be written.
    """
    if not resume and (out / CHECKPOINT).exists():
        raise InvalidInputError(
            f"expected a new folder for a new run, got {out} with a checkpoint: add --resume to continue it, or name "
            "another folder"
        )
    with joined_processes(device) as processes:
        run = _Run(recipe, root, out, processes)
        if resume:
            run.restore()
        return run.train(until, workers)


class _Run:
    """One process's part of a training run."""

    def __init__(self, recipe: Recipe, root: Path, out: Path, processes: Processes) -> None:
        self.recipe, self.processes, self.checkpoint = recipe, processes, out / CHECKPOINT
        scaled, self.note = scaled_to(recipe, processes.count)
        self.optimizer_recipe, self.schedule = scaled.optimizer, scaled.schedule
        self.stream = TrainingStream(open_sources(recipe.data, root), recipe)
        classes = self.stream.classes
        if len(recipe.losses.classes) not in (0, len(classes)):
            raise InvalidInputError(
                f"expected recipe '{recipe.name}' to have no losses.classes or one for each of the {len(classes)} "
                f"classes of {classes.name}, got {len(recipe.losses.classes)}: change the recipe"
            )
        network, self.start = initial_network(recipe, classes)
        self.network = network.to(processes.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.normalize = InputNormalization(recipe.input, processes.device)
        self.optimizer = make_optimizer(self.network, self.optimizer_recipe)
        self.average = WeightAverage(self.network, recipe.optimizer.average_decay)
        torch.backends.cudnn.benchmark = recipe.augmentation.output_size is not None  # pays where sizes don't vary
        half = processes.device.type == "cuda" and not torch.cuda.is_bf16_supported()
        self.precision = torch.float16 if half else torch.bfloat16
        self.scaler = torch.amp.GradScaler(processes.device.type, enabled=half)
        self.step, self.best = 0, BestWeights(self.schedule.patience)
        self.log: TrainingLog | None = None  # of the first process alone, the one that writes files
        if processes.first:
            self.log = TrainingLog(recipe, classes, out, open_validation(recipe.data, root, classes))

    def train(self, until: int, workers: int) -> ModelBundle | None:
        """Run the steps; see `train`."""
        steps = self.schedule.steps
        stop = self.step if self.best.exhausted else min(until or steps, steps)
        learner: nn.Module = self.network
        if self.processes.count > 1:
            learner = DistributedDataParallel(self.network)
        if self.log is not None:
            _log.info("%s", self.note)
            kinds = (f"{one.name} ({'thing' if one.thing else 'stuff'})" for one in self.stream.classes.classes)
            _log.info("%d images, classes %s", self.stream.image_count, ", ".join(kinds))
            if self.step or self.start:
                _log.info("%s", f"going on at step {self.step}" if self.step else self.start)
        epoch_images = self.schedule.epoch_images or self.stream.image_count
        progress = tqdm(
            open_batches(self.stream, range(self.step, stop), self.processes, workers),
            initial=self.step, total=steps, unit="step", desc=self.recipe.name, disable=self.log is None,
        )  # fmt: skip
        for images, targets in progress:
            rate = self.optimizer_recipe.learning_rate * learning_rate_factor(self.schedule, self.step)
            set_learning_rate(self.optimizer, rate)
            total, parts = self._learn(learner, images, targets)
            self.step += 1
            epoch, place = divmod(self.step * self.schedule.batch, epoch_images)
            ends_epoch = place < self.schedule.batch
            if self.log is not None:
                progress.set_postfix(loss=f"{total:.3f}")
                self.log.add_losses(self.step, total, parts, rate)
                if ends_epoch and self.step < steps:
                    figures = self.log.end_epoch(epoch, self.step, self._weights())
                    self.best.add(self.step, figures, self._weights())
                if ends_epoch or self.step == stop:
                    self._save()
            if ends_epoch and self.schedule.patience and self.processes.any(self.best.exhausted):
                break
        self.processes.wait()
        if self.log is None or not (self.best.exhausted or self.step == steps):
            return None
        return self._finish(self.log)

    def _finish(self, log: TrainingLog) -> ModelBundle:
        """Return the bundle of the last weights or, with a patience, of the best."""
        step, weights, best = self.step, self._weights(), self.best
        if not best.exhausted:
            figures = log.validate(step, weights)
            best.add(step, figures, weights)
        if best.step:
            _log.info("%s", best.describe(step))
            step, weights, figures = best.step, best.weights, best.figures
        return log.end_run(step, weights, figures)

    def _learn(self, learner: nn.Module, images: Tensor, targets: Targets) -> tuple[float, dict[str, float]]:
        """Take one step and return the sum of the losses and each of them."""
        place = self.processes.device
        images = self.normalize(images.to(place, non_blocking=True)).contiguous(memory_format=torch.channels_last)
        targets = Targets(*(part.to(place, non_blocking=True) for part in targets))
        with torch.autocast(place.type, self.precision, enabled=place.type == "cuda"):
            outputs = learner(images)
        total, parts = total_loss(outputs, targets, self.recipe.losses, reduce_count=self.processes.mean)
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(total).backward()  # type: ignore[no-untyped-call]
        # Read behind the backward pass, and at once, so that a GPU waits for the host as little as possible.
        value, *values = torch.stack([total.detach(), *parts.values()]).tolist()
        losses = dict(zip(parts, values, strict=True))
        self._require_finite(value, losses)
        if self.optimizer_recipe.clip_norm > 0:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.network.parameters(), self.optimizer_recipe.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.average.update(self.network)
        return value, losses

    def _require_finite(self, total: float, parts: dict[str, float]) -> None:
        if not math.isfinite(total):
            values = ", ".join(f"{name} {value:g}" for name, value in parts.items())
            raise InvalidInputError(
                f"expected finite losses, got {values} at step {self.step}: lower the learning rate or set "
                f"optimizer.clip_norm; {self.checkpoint} is intact"
            )

    def _weights(self) -> dict[str, np.ndarray]:
        return {name: value.float().cpu().numpy() for name, value in self.average.values.items()}

    def _save(self) -> None:
        state = {
            "recipe": self.recipe.to_document(),
            "images_per_step": self.schedule.batch,
            "step": self.step,
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average.values,
            "updates": self.average.updates,
            "scaler": self.scaler.state_dict(),
            "best": self.best.state(),
        }
        write_checkpoint(self.checkpoint, state)

    def restore(self) -> None:
        """Go back to the state in the checkpoint."""
        state = read_checkpoint(self.checkpoint, self.recipe.to_document())
        if state["images_per_step"] != self.schedule.batch:
            raise InvalidInputError(
                f"expected the run of {self.checkpoint} to go on with its {state['images_per_step']} images per step, "
                f"got {self.schedule.batch}: start as many processes as before"
            )
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        for name, value in state["average"].items():
            self.average.values[name].copy_(value)
        self.average.updates, self.step = state["updates"], state["step"]
        self.best.restore(state["best"])


def initial_network(recipe: Recipe, classes: ClassTable) -> tuple[PanopticNetwork, str]:
    """Return the recipe's network before its first step, the same for each process, and what it has from a bundle."""
    torch.manual_seed(recipe.seed)
    network = PanopticNetwork(recipe.network, len(classes), len(classes.thing_ids))
    if recipe.backbone_weights is not None:
        layout = state_dict_layout(recipe.network, len(classes), len(classes.thing_ids))
        encoder = read_backbone_weights(recipe.backbone_weights, recipe.network.backbone, layout)
        network.load_arrays({name: value.numpy() for name, value in network.state_dict().items()} | encoder)
    note = ""
    if recipe.from_model is not None:
        fresh = {name: value.numpy() for name, value in network.state_dict().items()}
        weights, note = weights_of_model(read_bundle(recipe.from_model), classes, fresh)
        network.load_arrays(weights)
    network.backbone.body.requires_grad_(recipe.optimizer.backbone_factor > 0)
    return network, note
