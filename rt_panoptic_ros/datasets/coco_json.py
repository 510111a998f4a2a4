# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""What COCO's formats have in common: a JSON file that lists images, annotations and categories."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rt_panoptic_ros.drawing.palettes import colorblind_colors
from rt_panoptic_ros.errors import InvalidInputError, require
from rt_panoptic_ros.files import read_regular
from rt_panoptic_ros.model.class_table import ClassTable, parse_class_table
from rt_panoptic_ros.records import VOID

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Iterator
    from pathlib import Path

_MOST_BYTES = 8 << 30  # Objects365's annotations have some 5 GB


@contextmanager
def reading(path: Path | str, kind: str) -> Iterator[None]:
    """Turn what goes wrong while a file's entries are looked up into one sentence.

    Args:
        path: The JSON file, or what names the place in it.
        kind: Its format, such as COCO-panoptic.

    Raises:
        InvalidInputError: The file can't be read, or an entry is missing or of another kind.
    """
    try:
        yield
    except InvalidInputError:  # says it already
        raise
    except OSError as error:
        raise InvalidInputError(f"expected a {kind} JSON file, got {path}: {error.strerror}") from None
    except json.JSONDecodeError as error:
        raise InvalidInputError(
            f"expected a {kind} JSON file, got {path}, which is cut short or no JSON ({error}): export it again"
        ) from None
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        raise InvalidInputError(f"expected a {kind} JSON file, got {path} without or with a wrong {error}") from None


def read_json(path: Path, kind: str) -> Any:
    """Return what is in a file, UTF-8 with or without a byte order mark; see `reading`."""
    with reading(path, kind):
        return json.loads(read_regular(path, f"a {kind} JSON file", _MOST_BYTES))


def listed_images(document: Any, path: Path) -> dict[int | str, dict[str, Any]]:
    """Return the file's images by id, in its order; call it in `reading`.

    Raises:
        InvalidInputError: An id occurs twice.
    """
    require_distinct((image["id"] for image in document["images"]), f"one image with each id in {path}")
    return {image["id"]: {**image, "file_name": str(image["file_name"])} for image in document["images"]}


def category_table(document: Any, path: Path, name: str) -> ClassTable:
    """Return the file's categories, by rising id, as a class table; call it in `reading`.

    Categories are things where `isthing` says so or is missing. Those without a color get one of a fixed list.

    Args:
        document: What is in the file.
        path: Of the file.
        name: Of the table.

    Raises:
        InvalidInputError: There are none or too many, an id or a name occurs twice, or a color is not one.
    """
    categories = sorted(document["categories"], key=lambda category: int(category["id"]))
    for entry in ("id", "name"):
        require_distinct((category[entry] for category in categories), f"one category with each {entry} in {path}")
    require(
        0 < len(categories) <= VOID,
        f"1 to {VOID} categories in {path}",
        f"{len(categories)}: leave out those that no annotation has",
    )
    rows = [
        {
            "id": number, "name": category["name"], "thing": category.get("isthing", 1),
            "color": _color(category) or color, "dataset_id": category["id"],
        }
        for number, (category, color) in enumerate(
            zip(categories, colorblind_colors(len(categories)).tolist(), strict=True)
        )
    ]  # fmt: skip
    try:
        return parse_class_table({"name": name, "classes": rows})
    except InvalidInputError as error:
        raise InvalidInputError(f"{error}, in the categories of {path}") from None


def _color(category: dict[str, Any]) -> Any:
    """Return a category's color, None where it has none; a text such as #dc143c, as of COCO Annotator, as numbers."""
    color = category.get("color")
    return list(bytes.fromhex(color.removeprefix("#"))) if isinstance(color, str) else color


def require_distinct(values: Iterable[Hashable], expected: str) -> None:
    """Check that no value occurs twice.

    Raises:
        InvalidInputError: One does.
    """
    seen = set()
    for value in values:
        require(value not in seen, expected, f"{value!r} twice: export the labels again")
        seen.add(value)


def first_missing(folder: Path, names: Iterable[str]) -> Path | None:
    """Return the first of the files that is not below `folder`, by one listing of each folder; None for none."""
    there: dict[Path, set[str]] = {}
    for path in (folder / name for name in names):
        if path.parent not in there:
            there[path.parent] = {one.name for one in path.parent.iterdir()} if path.parent.is_dir() else set()
        if path.name not in there[path.parent]:
            return path
    return None
