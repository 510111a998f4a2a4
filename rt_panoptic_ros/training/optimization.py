# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Optimizers, learning rates and the moving average of the weights."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import nn

from rt_panoptic_ros.training.recipe import OptimizerRecipe, Recipe, ScheduleRecipe

_COSINE_END = 0.01
"""Share of the learning rate that the cosine ends at."""


def scaled_to(recipe: Recipe, processes: int) -> tuple[Recipe, str]:
    """Return the recipe for the images per step that there really are, and what was changed, for the log.

    By the linear scaling rule: rate times k, steps over k, for k times the recipe's batch.
    """
    schedule, rate = recipe.schedule, recipe.optimizer.learning_rate
    images = processes * schedule.images_per_process
    factor = images / schedule.batch
    if factor == 1:
        return recipe, f"{images} images per step, as the recipe says"
    optimizer = replace(recipe.optimizer, learning_rate=rate * factor)
    scaled = replace(
        schedule,
        batch=images,
        steps=max(1, round(schedule.steps / factor)),
        warmup_steps=round(schedule.warmup_steps / factor),
        milestones=tuple(round(step / factor) for step in schedule.milestones),
    )
    note = (
        f"{images} images per step where the recipe says {schedule.batch}: linear scaling makes the learning rate "
        f"{optimizer.learning_rate:g} (was {rate:g}) and the steps {scaled.steps} (was {schedule.steps}); a step "
        "has processes times schedule.images_per_process"
    )
    return replace(recipe, optimizer=optimizer, schedule=scaled), note


def learning_rate_factor(schedule: ScheduleRecipe, step: int) -> float:
    """Return the factor of the learning rate at `step`, from 0; a function of nothing else."""
    warmup = min(1.0, (step + 1) / (schedule.warmup_steps + 1))
    if schedule.decay == "cosine":
        progress = min(1.0, step / schedule.steps)
        return warmup * (_COSINE_END + (1 - _COSINE_END) * 0.5 * (1 + math.cos(math.pi * progress)))
    return warmup * float(schedule.milestone_factor ** sum(step >= milestone for milestone in schedule.milestones))


def make_optimizer(network: nn.Module, recipe: OptimizerRecipe) -> torch.optim.Optimizer:
    """Return the optimizer; each parameter group's `scale` multiplies the learning rate."""
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        groups.setdefault((".body." in name, parameter.ndim > 1), []).append(parameter)
    settings = [
        {
            "params": parameters,
            "weight_decay": recipe.weight_decay if kernels else 0.0,
            "scale": recipe.backbone_factor if encoder else 1.0,
            "lr": recipe.learning_rate,
        }
        for (encoder, kernels), parameters in groups.items()
    ]
    if recipe.name == "sgd":
        return torch.optim.SGD(settings, momentum=recipe.momentum)
    return torch.optim.AdamW(settings)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give each parameter group `rate` times its scale."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["scale"]


class WeightAverage:
    """An exponential moving average of a network's parameters; early on, a plain one."""

    def __init__(self, network: nn.Module, decay: float) -> None:
        """Start at the network's weights; `decay` 0 keeps no history."""
        self.decay, self.updates = decay, 0
        self.values = {name: value.detach().clone() for name, value in network.state_dict().items()}

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Take in the network's weights of now."""
        self.updates += 1
        decay = min(self.decay, self.updates / (self.updates + 10))
        current = network.state_dict()
        torch._foreach_lerp_(list(self.values.values()), [current[name] for name in self.values], 1 - decay)
