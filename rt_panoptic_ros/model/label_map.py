# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Label maps: YAML files that merge, rename and drop classes.

    name: street
    unlisted: drop                   # what becomes of classes that nothing below names: drop (void), or keep (default)
    void: 0                          # what labels without a class are published as: 0, or 255 (default)
    classes:
      person: {id: 7, thing: true, color: [220, 20, 60], of: [person, rider]}
      ground: {id: 1, thing: false, color: [128, 64, 128], of: [road, pavement-merged]}

The order of the file gives the class ids, from 0. Where labels leave the process, a class has its `id` instead, if the
map says one for each; classes that stay come behind the largest. Without, ids are published as they are, or from 1
where void is 0. `of` lists the names of the classes that are merged; one that has the new
class's own name is always among them, unless another class lists it, so that a map changes nothing in what it made.
Names that the classes at hand lack are passed over, since one map serves several data sets, but one must be there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from rt_panoptic_ros.errors import require
from rt_panoptic_ros.files import read_yaml
from rt_panoptic_ros.model.class_table import ClassTable, SemanticClass, check_published, parse_class_table
from rt_panoptic_ros.records import VOID
from rt_panoptic_ros.resources import config_file

_UNLISTED = ("keep", "drop")
_ENTRIES = {"id", "thing", "color", "of"}  # of a class


@dataclass(frozen=True)
class LabelMap:
    """What classes become."""

    listed: ClassTable  # the new classes; the map's name is the table's
    of: tuple[tuple[str, ...], ...]  # by new class id: names of the classes that it is made of
    keep: bool  # whether classes that are not listed stay, behind the listed ones; else they become void
    ids: tuple[int, ...] = ()  # that the new classes are published as; empty for their own, or from 1 where void is 0
    void: int = VOID  # that pixels without a class are published as

    @property
    def name(self) -> str:
        """The map's name."""
        return self.listed.name

    def table(self, source: ClassTable) -> ClassTable:
        """Return the classes that those of `source` become; a class's own id in the dataset is the published id.

        Raises:
            InvalidInputError: No class of `source` is named in the map, or there are more than 255 in all, or no
                published ids are left for those that stay.
        """
        known = [name for name in source.names if name in self._new_ids]
        require(
            bool(known),
            f"classes that label map '{self.name}' names ({', '.join(self._new_ids)})",
            f"those of '{source.name}' ({', '.join(source.names)}): add some of them to an `of`, or take another map",
        )
        classes = [*self.listed.classes, *self._kept(source)]
        require(len(classes) <= VOID, f"at most {VOID} classes by label map '{self.name}'", len(classes))
        ids = list(self.ids or range(not self.void, len(self.listed) + (not self.void)))
        kept = len(classes) - len(ids)
        require(
            max(ids) + kept <= VOID,
            f"ids of label map '{self.name}' that leave {kept} above them, up to {VOID}, for the classes that stay",
            f"one of {max(ids)}: give smaller ones, or say `unlisted: drop`",
        )
        ids += range(max(ids) + 1, max(ids) + 1 + kept)
        published = check_published(ids, self.void, f"label map '{self.name}'")
        numbered = (
            replace(entry, id=number, dataset_id=value)
            for number, (entry, value) in enumerate(zip(classes, ids, strict=True))
        )
        return ClassTable(self.name, tuple(numbered), **published)

    def new_ids(self, source: ClassTable) -> np.ndarray:
        """Return the ids in `table` by class id of `source`, (256,) uint8; VOID for what is dropped, and for VOID."""
        kept = {entry.name: number for number, entry in enumerate(self._kept(source), len(self.listed))}
        ids = np.full(VOID + 1, VOID, np.uint8)
        ids[: len(source)] = [self._new_ids.get(name, kept.get(name, VOID)) for name in source.names]
        return ids

    @cached_property
    def _new_ids(self) -> dict[str, int]:
        """New class ids by name of an old class."""
        own = {name: number for number, name in enumerate(self.listed.names)}
        return own | {name: number for number, names in enumerate(self.of) for name in names}

    def _kept(self, source: ClassTable) -> list[SemanticClass]:
        return [entry for entry in source.classes if self.keep and entry.name not in self._new_ids]


def read_label_map(path_or_name: str) -> LabelMap:
    """Return the label map in a file, or the one of that name in config/label_maps.

    Raises:
        InvalidInputError: No such file, not YAML, or an unknown or wrong entry.
    """
    path = config_file("label_maps", path_or_name, "a label map")
    return parse_label_map(read_yaml(path, "a label map"), str(path))


def parse_label_map(document: object, where: str) -> LabelMap:
    """Return the label map written in `document`; `where` names it in messages.

    Raises:
        InvalidInputError: An entry is missing, unknown or wrong, or two classes list the same name.
    """
    form = (
        f"a label map with name, unlisted ({' or '.join(_UNLISTED)}), void ({VOID} or 0) and classes of id, thing, "
        f"color and of in {where}"
    )
    require(isinstance(document, dict), form, f"{document!r:.80}")
    assert isinstance(document, dict)
    rows, unlisted = document.get("classes"), document.get("unlisted", _UNLISTED[0])
    void = document.get("void", VOID)
    strange = document.keys() - {"name", "unlisted", "void", "classes"}
    require(not strange, form, f"an entry {', '.join(map(str, strange))}")
    require(unlisted in _UNLISTED, form, f"unlisted: {unlisted!r}")
    require(void in (VOID, 0) and type(void) is int, form, f"void: {void!r}")
    require(isinstance(rows, dict), form, f"classes: {rows!r:.80}")
    assert isinstance(rows, dict)
    names: list[str] = []
    for name, row in rows.items():
        good = isinstance(row, dict) and row.keys() <= _ENTRIES and isinstance(row.get("thing"), bool)
        require(good and _are_names(row.get("of", [])), form, f"class {name}: {row!r:.80}")
        names += row.get("of", [])
    twice = next((name for name in names if names.count(name) > 1), None)
    require(twice is None, f"each name in one `of` in {where}", f"'{twice}' in several: leave it in one")
    ids = tuple(row["id"] for row in rows.values() if "id" in row)
    require(len(ids) in (0, len(rows)), form, "an id for some classes alone: say it for each, or for none")
    check_published(ids, void, where)
    classes = [{**rows[name], "id": number, "name": name} for number, name in enumerate(rows)]
    listed = parse_class_table({"name": document.get("name"), "classes": classes})
    of = tuple(tuple(row.get("of", ())) for row in rows.values())
    return LabelMap(listed, of, unlisted == "keep", ids, void)


def _are_names(values: object) -> bool:
    return isinstance(values, list) and all(isinstance(value, str) for value in values)
