# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The classes that a model tells apart: ids, names, thing or stuff, colours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from rt_panoptic_ros.errors import InvalidInputError, require
from rt_panoptic_ros.files import parse_yaml
from rt_panoptic_ros.records import VOID
from rt_panoptic_ros.resources import share_directory
from rt_panoptic_ros.settings import plain


@dataclass(frozen=True)
class SemanticClass:
    """One class."""

    id: int  # value in the semantic image, 0..254
    name: str
    thing: bool  # countable objects; otherwise stuff
    color: tuple[int, int, int]  # RGB, 0..255
    dataset_id: int  # the dataset's own id, written to COCO-panoptic files


@dataclass(frozen=True)
class ClassTable:
    """The classes of a dataset; class i has id i, and the network's thing channel k is the k-th thing.

    A label map may give its classes other ids where they leave the process (`published`).
    """

    name: str
    classes: tuple[SemanticClass, ...]
    published_ids: tuple[int, ...] = ()  # by class; empty for the classes' own
    published_void: int = VOID  # of pixels without a class

    def __len__(self) -> int:
        """Return the number of classes."""
        return len(self.classes)

    @cached_property
    def thing_ids(self) -> tuple[int, ...]:
        """Class ids of the things, in the order of the network's box-class channels."""
        return tuple(entry.id for entry in self.classes if entry.thing)

    @cached_property
    def colors(self) -> np.ndarray:
        """RGB colours by semantic value, (256, 3) uint8; black where there is no class."""
        table = np.zeros((VOID + 1, 3), np.uint8)
        table[: len(self)] = [entry.color for entry in self.classes]
        return table

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Class names by id."""
        return tuple(entry.name for entry in self.classes)

    @cached_property
    def published(self) -> np.ndarray:
        """Values of the published semantic image by class id, (256,) uint8; VOID has one too."""
        values = np.arange(VOID + 1, dtype=np.uint8)
        values[: len(self.published_ids)], values[VOID] = self.published_ids, self.published_void
        return values

    @cached_property
    def categories(self) -> np.ndarray:
        """Lower halves of the panoptic image by class id, (256,) int32: published ids that leave 0 for VOID."""
        categories = self.published.astype(np.int32) + (self.published_void != 0)
        categories[VOID] = 0
        return categories

    @property
    def as_published(self) -> bool:
        """Whether all published values are the ids themselves."""
        return not self.published_ids and self.published_void == VOID

    def to_document(self) -> dict[str, Any]:
        """Return the table as plain data, the inverse of `parse_class_table`."""
        return {"name": self.name, "classes": [plain(entry) for entry in self.classes]}

    def published_document(self) -> dict[str, Any]:
        """Return the table as plain data with published ids, and the published `void` where that isn't 255."""
        document = self.to_document()
        for row, value in zip(document["classes"], self.published.tolist(), strict=False):
            row["id"] = value
        return document | ({} if self.published_void == VOID else {"void": self.published_void})


def available_class_tables() -> tuple[str, ...]:
    """Return the names of the tables that come with the package."""
    return tuple(sorted(path.stem for path in (share_directory() / "config" / "classes").glob("*.yaml")))


def load_class_table(name: str) -> ClassTable:
    """Return the table that comes with the package under `name`, such as cityscapes, coco or camvid.

    Raises:
        InvalidInputError: There is none of that name.
    """
    known = available_class_tables()
    if name not in known:
        raise InvalidInputError(f"expected a class table named one of {', '.join(known)}, got '{name}'")
    path = share_directory() / "config" / "classes" / f"{name}.yaml"
    return parse_class_table(parse_yaml(path.read_text(encoding="utf-8")))


def parse_published_table(document: object) -> ClassTable:
    """Return the table of a `published_document`, such as a node's topic class_names has: classes in its order.

    Raises:
        InvalidInputError: As `parse_class_table`, but for the ids: two are the same, or one is no byte.
    """
    rows = document.get("classes") if isinstance(document, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        return parse_class_table(document)
    assert isinstance(document, dict)
    table = parse_class_table({**document, "classes": [{**row, "id": number} for number, row in enumerate(rows)]})
    ids, void = tuple(row.get("id") for row in rows), document.get("void", VOID)
    return replace(table, **check_published(ids, void, f"class table '{table.name}'"))


def check_published(ids: Sequence[Any], void: Any, where: str) -> dict[str, Any]:
    """Return the fields of `ClassTable` for published ids, none where they are the classes' own.

    Raises:
        InvalidInputError: Two are the same, or one is no byte.
    """
    values = [*ids, void]
    require(
        all(type(value) is int and 0 <= value <= VOID for value in values) and len(set(values)) == len(values),
        f"different ids from 0 to {VOID}, also from void's, in {where}",
        f"{list(ids)} and void {void}: number the classes anew",
    )
    own = list(ids) == list(range(len(ids))) and void == VOID
    return {} if own else {"published_ids": tuple(ids), "published_void": void}


def parse_class_table(document: object) -> ClassTable:
    """Return the table written in `document` ({name, classes: [{id, name, thing, color, dataset_id}]}).

    Raises:
        InvalidInputError: An entry is missing or wrong, ids are not 0, 1, 2, ..., or there are more than 255.
    """
    try:
        name, rows = document["name"], document["classes"]  # type: ignore[index]
        classes = tuple(
            SemanticClass(
                int(row["id"]), str(row["name"]), bool(row["thing"]), _color(row["color"]),
                int(row.get("dataset_id", row["id"])),
            )
            for row in rows
        )  # fmt: skip
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise InvalidInputError(
            "expected a class table with a name and classes of id, name, thing and color (three numbers 0 to 255), "
            f"got one without or with a wrong {error}"
        ) from None
    if [entry.id for entry in classes] != list(range(len(classes))) or not 0 < len(classes) <= VOID:
        raise InvalidInputError(
            f"expected the class ids of table '{name}' to be 0, 1, 2, ... and at most {VOID} of them, "
            f"got {[entry.id for entry in classes][:8]}...: number the classes in order"
        )
    return ClassTable(str(name), classes)


def united_classes(tables: Sequence[ClassTable]) -> ClassTable:
    """Return the classes of all tables in the order of their first mention; those of one name are one.

    The first table itself, where the others add nothing; else a class's own id in the dataset is the new id.

    Raises:
        InvalidInputError: A class is a thing in one table and stuff in another, or there are more than 255 in all.
    """
    classes: dict[str, SemanticClass] = {}
    for table in tables:
        for entry in table.classes:
            first = classes.setdefault(entry.name, entry)
            kinds = ["a thing" if one.thing else "stuff" for one in (first, entry)]
            require(
                kinds[0] == kinds[1],
                f"class '{entry.name}' to be {kinds[0]} in all data sets that are learned together",
                f"one in which it is {kinds[1]} ({table.name}): give them a label map that renames it in one of them",
            )
    require(len(classes) <= VOID, f"at most {VOID} classes in all data sets together", len(classes))
    if len(classes) == len(tables[0]):
        return tables[0]
    numbered = (replace(entry, id=number, dataset_id=number) for number, entry in enumerate(classes.values()))
    return ClassTable("+".join(dict.fromkeys(table.name for table in tables)), tuple(numbered))


def _color(values: Any) -> tuple[int, int, int]:
    red, green, blue = (int(value) for value in values)
    if not all(0 <= value <= 255 for value in (red, green, blue)):
        raise ValueError("color")
    return red, green, blue
