# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Bundles with deterministic random weights: for tests, timing, and a first run before any training.

The same numbers on every machine, scaled so that activations neither die nor explode and some detections appear. What
such a model shows on an image means nothing.
"""

from __future__ import annotations

import math
import zlib
from typing import TYPE_CHECKING

import numpy as np

from rt_panoptic_ros.model.architecture import NetworkConfig, Shape, state_dict_layout
from rt_panoptic_ros.model.bundle import InputSpec, ModelBundle, write_bundle
from rt_panoptic_ros.settings import PostprocessSettings

if TYPE_CHECKING:
    from pathlib import Path

    from rt_panoptic_ros.model.class_table import ClassTable

_SETTINGS = {"score_threshold": 0.1, "mask_threshold": 0.1, "similarity": "giou"}  # random boxes agree badly


def make_untrained_bundle(
    out: Path, *, network: NetworkConfig, classes: ClassTable, size: tuple[int, int] | None, seed: int
) -> ModelBundle:
    """Write a bundle of random weights into folder `out`; `size` is the card's (height, width) px."""
    layout = state_dict_layout(network, len(classes), len(classes.thing_ids))
    return write_bundle(
        out,
        untrained_weights(layout, seed),
        network=network,
        classes=classes,
        spec=InputSpec(size=size),
        settings=PostprocessSettings().replaced(_SETTINGS),
        about={"origin": f"untrained: random weights of seed {seed}", "figures": "none, the labels mean nothing"},
    )


def untrained_weights(layout: dict[str, Shape], seed: int) -> dict[str, np.ndarray]:
    """Return {entry name: float32 array}, a function of names, shapes and `seed` only."""
    return {name: _entry(name, shape, seed) for name, shape in layout.items()}


def _entry(name: str, shape: Shape, seed: int) -> np.ndarray:
    random = np.random.default_rng([zlib.crc32(name.encode()), seed])
    module, field = name.rsplit(".", 1)
    if field in ("scale", "running_var"):
        values = np.ones(shape)
    elif field == "running_mean":
        values = np.zeros(shape)
    elif len(shape) > 1:
        values = random.standard_normal(shape) * _gain(module) / math.sqrt(math.prod(shape[1:]))
    elif field == "bias":
        values = _bias(module) + 0.05 * random.standard_normal(shape)
    else:  # the last norm of a residual branch is small, so that a deep sum of them stays small
        values = np.full(shape, 0.2 if module.endswith(("bn2", "bn3")) else 1.0)
    return values.astype(np.float32)


def _gain(module: str) -> float:
    """Return the standard deviation of a convolution's outputs over that of its inputs."""
    predictor = module.removeprefix("panoptic_head.")
    predictors = {"cls_logits": 3.0, "box_cls_logits": 1.5, "bbox_pred": 0.5, "centerness": 2.0, "levelness": 2.5}
    if predictor in predictors:
        return predictors[predictor]
    return 1.0 if ".fpn." in module else math.sqrt(2)


def _bias(module: str) -> float:
    """Box classes are rare; boxes reach about 40 pixels to each side."""
    return {"panoptic_head.box_cls_logits": -3.0, "panoptic_head.bbox_pred": 3.7}.get(module, 0.0)
