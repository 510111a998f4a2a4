# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Draws what a recipe's training sees: `python -m scripts.training_pictures --config RECIPE --root DIR --out PNG`.

Each augmented image stands beside its labels: outlined objects, classes in their colours, boxes of objects that are
known by their box alone; what is unknown is dark.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from rt_panoptic_ros.drawing.overlay import contact_sheet, render_overlay
from rt_panoptic_ros.errors import RtPanopticError
from rt_panoptic_ros.evaluation.report import true_result
from rt_panoptic_ros.files import write_image
from rt_panoptic_ros.training.recipe import read_recipe
from rt_panoptic_ros.training.sources import open_sources
from rt_panoptic_ros.training.stream import TrainingStream

if TYPE_CHECKING:
    from rt_panoptic_ros.datasets.base import PanopticSample
    from rt_panoptic_ros.model.class_table import ClassTable

_BOX_COLOR = (255, 255, 255)


def labelled_picture(sample: PanopticSample, classes: ClassTable) -> np.ndarray:
    """Return a sample's image with its labels drawn over it, (H, W, 3) uint8 RGB."""
    with_pixels = replace(sample, boxes=np.full_like(sample.boxes, np.nan))
    picture = render_overlay(sample.image, true_result(with_pixels), classes)
    for left, top, right, bottom in np.rint(sample.boxes[sample.by_box]).astype(int).tolist():
        cv2.rectangle(picture, (left, top), (right - 1, bottom - 1), _BOX_COLOR, 2)
    return picture


def main() -> None:
    """Draw the sheet that the command line asks for."""
    parser = argparse.ArgumentParser("python -m scripts.training_pictures", description=__doc__)
    parser.add_argument("--config", required=True, help="recipe: file, or name in config/train")
    parser.add_argument("--root", type=Path, required=True, help="folder of the dataset")
    parser.add_argument("--out", type=Path, required=True, help="PNG to write")
    parser.add_argument("--count", type=int, default=16, help="images; default: %(default)s")
    parser.add_argument("--first", type=int, default=0, help="place of the first in the stream; default: %(default)s")
    parser.add_argument("--set", dest="changes", action="append", default=[], help="such as seed=2; repeatable")
    options = parser.parse_args()
    try:
        recipe = read_recipe(options.config, options.changes)
        stream = TrainingStream(open_sources(recipe.data, options.root), recipe)
        pictures, captions = [], []
        for place in range(options.first, options.first + options.count):
            sample = stream.sample(place)
            pictures += [sample.image, labelled_picture(sample, stream.classes)]
            captions += [f"{place}: {sample.stem}", f"{len(sample.instance_classes)} objects"]
        sheet = contact_sheet(pictures, 4, 1920, captions)
        write_image(options.out, np.ascontiguousarray(sheet[..., ::-1]))
    except RtPanopticError as error:
        parser.exit(1, f"{parser.prog}: {error}\n")


if __name__ == "__main__":
    main()
