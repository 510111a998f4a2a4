# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Counts where labels in 8 bits differ from those in float32: `python -m scripts.int8_loss --source FRAMES`.

Frames are taken as they are and in other lights, which the ranges were not measured in. Needs no ground truth.
"""

from __future__ import annotations

import argparse
import itertools
from typing import TYPE_CHECKING, NamedTuple
from unittest import mock

import numpy as np
from tqdm import tqdm

from rt_panoptic_ros.frames.sources import open_source
from rt_panoptic_ros.inference import onnx_export
from rt_panoptic_ros.pipeline import open_pipeline
from rt_panoptic_ros.records import CameraImage
from rt_panoptic_ros.resources import DEFAULT_MODEL

if TYPE_CHECKING:
    from collections.abc import Sequence

LIGHTS = {"as it is": (1.0, 0), "dark": (0.45, 0), "haze": (0.5, 120), "evening": (np.array([1.1, 0.85, 0.6]), 0)}
"""{name: (factor of the RGB values, what is added)}"""

LEAST_SHARE = 0.002
"""Classes of a smaller share of the pixels don't count into the mean IoU."""


class Loss(NamedTuple):
    """How far labels are from those in float32."""

    differing: float  # share of pixels with another class
    mean_iou: float  # with float32's labels as the truth


def int8_loss(model: str, images: Sequence[np.ndarray], backend: str) -> dict[str, Loss]:
    """Return the loss in each of `LIGHTS`.

    Args:
        model: Folder of a bundle, or the name of a shipped one.
        images: (H, W, 3) uint8 RGB.
        backend: As `open_pipeline`'s.
    """
    exact, rounded = (open_pipeline(model, backend=backend, precision=precision) for precision in ("float32", "int8"))
    losses = {}
    for light, (factor, added) in LIGHTS.items():
        pairs = np.zeros((256, 256), np.int64)  # of classes: float32's, int8's
        for image in tqdm(images, desc=light, unit="frame"):
            lit = CameraImage((image * factor + added).clip(0, 255).astype(np.uint8), "rgb")
            mine, other = (pipeline(lit).semantic.ravel().astype(int) for pipeline in (exact, rounded))
            pairs += np.bincount(256 * mine + other, minlength=256 * 256).reshape(256, 256)
        same, there = np.diag(pairs), pairs.sum(axis=1)
        counted = there > LEAST_SHARE * pairs.sum()
        iou = same[counted] / (there + pairs.sum(axis=0) - same)[counted]
        losses[light] = Loss(1 - same.sum() / pairs.sum(), float(iou.mean()))
    return losses


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m scripts.int8_loss", description=__doc__)
    parser.add_argument("--model", default=DEFAULT_MODEL, help="folder of a model bundle, or the name of a shipped one")
    parser.add_argument("--source", required=True, help="image, folder of images, or video")
    parser.add_argument("--frames", type=int, default=20, help="at most, spread over the source (default: %(default)s)")
    parser.add_argument("--backend", default="onnxruntime")
    parser.add_argument("--full-weights", action="store_true", help="of all 8 bits, as with VNNI, though sums saturate")
    options = parser.parse_args()
    with open_source(options.source) as source:
        step = max(1, (source.count or 0) // options.frames)
        frames = [frame.image for frame in itertools.islice(source, 0, step * options.frames, step)]
    if not frames:
        parser.error(f"expected frames in {options.source}, got none: check the source")
    narrow = onnx_export.adds_in_16_bits() and not options.full_weights
    with mock.patch.object(onnx_export, "adds_in_16_bits", return_value=narrow):
        losses = int8_loss(options.model, frames, options.backend)
    for light, loss in losses.items():
        print(f"{light:10s} {100 * loss.differing:5.2f} % of the pixels differ, mean IoU {100 * loss.mean_iou:5.1f}")
