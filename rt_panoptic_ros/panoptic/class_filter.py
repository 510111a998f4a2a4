"""Only the objects of some classes, for those who don't want all; or all of them in other classes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from rt_panoptic_ros.errors import InvalidInputError
from rt_panoptic_ros.settings import listed

if TYPE_CHECKING:
    from collections.abc import Collection

    from rt_panoptic_ros.model.class_table import ClassTable
    from rt_panoptic_ros.records import PanopticResult


def parse_class_names(text: str, classes: ClassTable) -> frozenset[int] | None:
    """Return the class ids of comma-separated names of things, or None, for all, where there is no name.

    Raises:
        InvalidInputError: A name is not that of a thing.
    """
    names = listed(text)
    things = {classes.names[class_id]: class_id for class_id in classes.thing_ids}
    for name in names:
        if name not in things:
            raise InvalidInputError(
                f"expected object_classes to be names of countable classes ({', '.join(things)}) with commas between, "
                f"got '{name}': leave it out, or leave all out for all classes"
            )
    return frozenset(things[name] for name in names) or None


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
    """Return a result in other classes; objects whose new class is no thing are none any more.

    Args:
        result: In the model's classes.
        new_ids: (256,) uint8, new class ids by old ones (`LabelMap.new_ids`).
        thing_ids: The things among the new ones.
    """
    table = replace(result.detections, class_ids=new_ids[result.detections.class_ids])
    table = table.rows(np.isin(table.class_ids, list(thing_ids)))
    kept = np.zeros(int(result.instance.max(initial=0)) + 1, np.uint16)
    kept[table.ids] = table.ids
    return replace(result, semantic=new_ids[result.semantic], instance=kept[result.instance], detections=table)
