"""Only the objects of some classes, for those who don't want all."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import TYPE_CHECKING

import numpy as np

from rt_panoptic_ros.errors import InvalidInputError
from rt_panoptic_ros.records import DetectionTable

if TYPE_CHECKING:
    from collections.abc import Collection

    from rt_panoptic_ros.model.class_table import ClassTable
    from rt_panoptic_ros.records import PanopticResult


def parse_class_names(text: str, classes: ClassTable) -> frozenset[int] | None:
    """Return the class ids of comma-separated names of things, or None, for all, where there is no name.

    Raises:
        InvalidInputError: A name is not that of a thing.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
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
    kept = np.isin(table.class_ids, list(class_ids))
    columns = {column.name: getattr(table, column.name)[kept] for column in fields(table)}
    return replace(result, detections=DetectionTable(**columns))
