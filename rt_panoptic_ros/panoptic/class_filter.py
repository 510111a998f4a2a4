# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Only the objects of some classes, for those who don't want all; or all of them in other classes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import cv2
import numpy as np

from rt_panoptic_ros.errors import InvalidInputError
from rt_panoptic_ros.settings import listed

if TYPE_CHECKING:
    from collections.abc import Collection

    from rt_panoptic_ros.model.class_table import ClassTable
    from rt_panoptic_ros.records import PanopticResult


def parse_class_names(
    text: str, classes: ClassTable, setting: str = "object_classes", *, stuff: bool = False
) -> frozenset[int] | None:
    """Return the class ids of comma-separated names of things, or None, for all of them, where there is no name.

    Args:
        text: The names.
        classes: Those that there are.
        setting: What they are given as, for the message.
        stuff: Names of stuff will do as well.

    Raises:
        InvalidInputError: A name is not that of such a class.
    """
    names = listed(text)
    known = {entry.name: entry.id for entry in classes.classes if entry.thing or stuff}
    for name in names:
        if name not in known:
            raise InvalidInputError(
                f"expected {setting} to be names of {'' if stuff else 'countable '}classes ({', '.join(known)}) with "
                f"commas between, got '{name}': leave it out, or leave all out for all {'countable ' * stuff}classes"
            )
    return frozenset(known[name] for name in names) or None


def keep_classes(result: PanopticResult, class_ids: Collection[int]) -> PanopticResult:
    """Return a result whose table lists the objects of some classes only; the images stay as they are.

    The instance image still shows the others until `tracking.with_ids` numbers the objects anew.

    Args:
        result: All objects.
        class_ids: The classes of those to keep.
    """
    table = result.detections
    return replace(result, detections=table.rows(np.isin(table.class_ids, list(class_ids))))


def relabel(result: PanopticResult, new_ids: np.ndarray, thing_ids: Collection[int]) -> PanopticResult:
    """Return a result in other classes; objects whose new class is no thing are not listed any more.

    The instance image still shows them until `tracking.with_ids` numbers the objects anew.

    Args:
        result: In the model's classes.
        new_ids: (256,) uint8, new class ids by old ones (`LabelMap.new_ids`).
        thing_ids: The things among the new ones.
    """
    table = replace(result.detections, class_ids=new_ids[result.detections.class_ids])
    return keep_classes(replace(result, semantic=looked_up(result.semantic, new_ids), detections=table), thing_ids)


def looked_up(image: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return values[image] of an image, (H, W) uint8 or (0, 0); OpenCV's table is several times as fast as NumPy's."""
    found: np.ndarray = cv2.LUT(image, values) if image.size else image
    return found
