# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""What a setting is, and the settings of every stage: each default, range and description exists once.

The command line (`--set NAME=VALUE`), the ROS parameters, the launch arguments, model cards and recipes derive from
records like these.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass, replace
from enum import Enum
from types import UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from rt_panoptic_ros.errors import InvalidInputError

Record = TypeVar("Record")

BACKENDS = ("auto", "onnxruntime", "torch", "tensorrt", "openvino")
DEVICES = ("auto", "cpu", "cuda", "cuda:N")  # N: from 0, one of several GPUs
PRECISIONS = ("float32", "float16", "int8")  # of which auto takes one
PALETTES = ("dataset", "colorblind")
OVERLAY_OPACITY = 0.5

MAX_SIZE_MEGAPIXELS = 64
"""What a user's sizes may have at most, so that memory for the images is not out of reach."""
MAX_TEXT = 4096
"""Characters that a text may have, such as a path or the names of all cameras."""
DEPTH_SLACK_S = 0.02  # by which the stamps of an image and its depth may differ

MAX_DETECTIONS = 128
"""Capacity of the detection bit sets: four words of 32."""


class Change(Enum):
    """When a running node accepts a new value."""

    LIVE = "at any time, from the next frame on"
    INACTIVE = "while the node is not active"
    STARTUP = "when the node is started"


def setting(
    default: Any,
    description: str,
    change: Change = Change.LIVE,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    choices: tuple[str, ...] = (),
) -> Any:
    """Return a dataclass field with what a user may know of it and give for it: see `Setting`."""
    metadata = {
        "description": description, "change": change, "minimum": minimum, "maximum": maximum, "choices": choices,
    }  # fmt: skip
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, slots=True)
class Setting:
    """What a user may know and give for one setting."""

    name: str
    kind: Any  # float, int, bool, str, a tuple of numbers, or one of them or None
    default: Any
    description: str = ""
    change: Change = Change.LIVE
    minimum: float | None = None  # None: no limit, or not a number
    maximum: float | None = None
    choices: tuple[str, ...] = ()  # of texts

    def parsed(self, value: object) -> Any:
        """Return `value`, or what its text form says, in the setting's type.

        Raises:
            InvalidInputError: Not of that type, not finite, out of range, too long, or not one of the choices.
        """
        if isinstance(value, str) and (len(value) > MAX_TEXT or "\0" in value):
            raise InvalidInputError(
                f"expected {self.name} to have at most {MAX_TEXT} characters and no zero among them, got {len(value)} "
                f"that begin with {value[:40]!r}"
            )
        try:
            parsed = _parsed(self.kind, value)
        except (TypeError, ValueError, OverflowError):
            raise self._refusal(value) from None
        low, high = self._limits
        if (self.choices and parsed not in self.choices) or (self.kind in (int, float) and not low <= parsed <= high):
            raise self._refusal(value)
        return parsed

    @property
    def _limits(self) -> tuple[float, float]:
        low = -math.inf if self.minimum is None else self.minimum
        return low, math.inf if self.maximum is None else self.maximum

    def _refusal(self, value: object) -> InvalidInputError:
        expected = f"one of {', '.join(self.choices)}" if self.choices else _in_words(self.kind)
        if self.minimum is not None or self.maximum is not None:
            expected += " from {:g} to {:g}".format(*self._limits)
        remedy = ": put it in quotes" if self.kind is str and not isinstance(value, str) else ""
        return InvalidInputError(f"expected {self.name} to be {expected}, got {value!r}{remedy}")


def _parsed(kind: Any, value: Any) -> Any:
    """Return `value` in a setting's type.

    Raises:
        TypeError, ValueError, OverflowError: It has no such value.
    """
    if isinstance(kind, UnionType):
        return None if value is None else _parsed(kind.__args__[0], value)
    if get_origin(kind) is tuple:
        if not isinstance(value, list | tuple):
            raise TypeError
        *items, last = get_args(kind)
        items = [items[0]] * len(value) if last is ... else [*items, last]
        return tuple(_parsed(item, part) for item, part in zip(items, value, strict=True))
    if kind is bool and isinstance(value, str):
        value = {"true": True, "false": False}.get(value.lower())
    if kind in (bool, str):
        if not isinstance(value, kind):
            raise TypeError
        return value
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise TypeError
    number = float(value)
    if not math.isfinite(number) or (kind is int and not number.is_integer()):
        raise ValueError
    return value if isinstance(value, int) and kind is int else kind(number)


def _in_words(kind: Any) -> str:
    if isinstance(kind, UnionType):
        return f"{_in_words(kind.__args__[0])} or null"
    if get_origin(kind) is tuple:
        *_, last = get_args(kind)
        return "a list of numbers" if last is ... else f"a list of {len(get_args(kind))} numbers"
    return {bool: "true or false", str: "text", int: "a whole number", float: "a number"}[kind]


@dataclass(frozen=True, slots=True)
class QueryBoxSettings:
    """Selection of the query boxes (Eq. 4)."""

    pre_nms_threshold: float = setting(
        0.06, "Class probability that a location must exceed to propose a box.", minimum=0.0, maximum=1.0
    )
    pre_nms_top_k: int = setting(
        1000, "Proposals kept per pyramid level, the highest scores first.", minimum=1, maximum=4096
    )
    nms_threshold: float = setting(
        0.6, "IoU above which the lower-scored of two boxes of one class is removed.", minimum=0.0, maximum=1.0
    )
    global_nms_threshold: float = setting(
        0.97, "IoU above which the lower-scored of two boxes of any classes is removed.", minimum=0.0, maximum=1.0
    )
    max_detections: int = setting(100, "Query boxes kept per image.", minimum=1, maximum=MAX_DETECTIONS)


@dataclass(frozen=True, slots=True)
class MaskSettings:
    """Mask construction (Eq. 5-7)."""

    similarity: str = setting(
        "iou",
        "Agreement of a pixel's own box with a query box: iou (Eq. 6) or giou (the authors' published weights).",
        choices=("iou", "giou"),
    )
    mask_threshold: float = setting(
        0.3, "Mask probability from which a pixel belongs to an object (sigma of Eq. 7).", minimum=0.001, maximum=1.0
    )
    score_threshold: float = setting(
        0.3, "Detections below this score (class probability times centerness) are dropped.", minimum=0.0, maximum=1.0
    )


@dataclass(frozen=True, slots=True)
class FusionSettings:
    """Fusion of masks and semantics into one labelling (Section 3.2, after Kirillov et al.)."""

    overlap_threshold: float = setting(
        0.5,
        "A detection is dropped when more than this fraction of its mask already belongs to higher-scored ones.",
        minimum=0.0,
        maximum=1.0,
    )
    stuff_area_min: int = setting(
        0, "Stuff classes that cover fewer camera pixels than this become void.", minimum=0, maximum=2**31 - 1
    )


@dataclass(frozen=True, slots=True)
class PostprocessSettings:
    """All settings from network outputs to labels, addressed by flat names."""

    query_boxes: QueryBoxSettings = field(default_factory=QueryBoxSettings)
    masks: MaskSettings = field(default_factory=MaskSettings)
    fusion: FusionSettings = field(default_factory=FusionSettings)

    def flat(self) -> dict[str, float | int | str]:
        """Return {setting name: value} over all stages."""
        return {name: value for stage in asdict(self).values() for name, value in stage.items()}

    def replaced(self, values: Mapping[str, object]) -> PostprocessSettings:
        """Return a copy with `values` (by flat name) replaced.

        Args:
            values: {setting name: number, or its text form}.

        Raises:
            InvalidInputError: An unknown name, a wrong type, or a value outside its range; nothing is changed.
        """
        known = {one.name: one for one in settings_of(PostprocessSettings)}
        if not isinstance(values, Mapping):
            raise InvalidInputError(f"expected settings as a table of names and values, got {values!r:.80}")
        for name in values:
            if name not in known:
                raise InvalidInputError(
                    f"expected a setting named one of {', '.join(known)}, got '{name}': check the spelling"
                )
        parsed = {name: known[name].parsed(value) for name, value in values.items()}
        stages = {stage.name: getattr(self, stage.name) for stage in fields(self)}
        for name, stage in stages.items():
            stages[name] = replace(stage, **{key: parsed[key] for key in parsed.keys() & asdict(stage).keys()})
        return replace(self, **stages)


def settings_of(record: type) -> tuple[Setting, ...]:
    """Return a record's settings in its order; those of a record in it in that one's place.

    Args:
        record: A dataclass; fields made by `setting` are described, others have name, type and default alone.
    """
    kinds = get_type_hints(record)
    found: list[Setting] = []
    for item in fields(record):
        kind = kinds[item.name]
        if isinstance(kind, type) and is_dataclass(kind):
            found += settings_of(kind)
        else:
            found.append(Setting(item.name, kind, item.default, **item.metadata))
    return tuple(found)


def record_from(record: type[Record], document: object, name: str) -> Record:
    """Return a record of plain data such as YAML holds; tables in it become records, lists tuples.

    Args:
        record: A dataclass.
        document: {field: value}; a value may be the record that belongs there.
        name: What it is of, for messages.

    Raises:
        InvalidInputError: Not a table, an unknown or missing entry, or a value of another type.
    """
    if not isinstance(document, Mapping):
        raise InvalidInputError(f"expected {name} to be a table, got {document!r:.80}")
    kinds = get_type_hints(record)
    known = {item.name: item for item in fields(record)}  # type: ignore[arg-type]
    values: dict[str, Any] = {}
    for entry, value in document.items():
        if entry not in known:
            raise InvalidInputError(
                f"expected {name} to have entries named {', '.join(known)}, got {name}.{entry}: {value!r:.80}"
            )
        kind, place = kinds[entry], f"{name}.{entry}"
        if isinstance(kind, type) and is_dataclass(kind):
            values[entry] = value if isinstance(value, kind) else record_from(kind, value, place)
        elif get_origin(kind) is tuple and is_dataclass(get_args(kind)[0]):
            if not isinstance(value, list | tuple):
                raise InvalidInputError(f"expected {place} to be a list of tables, got {value!r:.80}")
            (one, _) = get_args(kind)
            values[entry] = tuple(record_from(one, part, f"{place}[{index}]") for index, part in enumerate(value))
        else:
            values[entry] = Setting(place, kind, known[entry].default).parsed(value)
    missing = [
        key for key, item in known.items() if item.default is item.default_factory is MISSING and key not in values
    ]
    if missing:
        raise InvalidInputError(f"expected {name} to have an entry {', '.join(missing)}, got {document!r:.80}")
    return record(**values)


def plain(record: Any) -> dict[str, Any]:
    """Return a record as plain data, the inverse of `record_from`: tuples become lists."""
    return asdict(record, dict_factory=lambda items: {k: list(v) if isinstance(v, tuple) else v for k, v in items})


def listed(text: str) -> list[str]:
    """Return what stands between the commas of a text, without surrounding space; nothing empty."""
    return [part for part in map(str.strip, text.split(",")) if part]


def check_device(name: str) -> None:
    """Check that a device is one of `DEVICES`, before anything is loaded.

    Raises:
        InvalidInputError: It is not.
    """
    if re.fullmatch(r"auto|cpu|cuda(:[0-9]{1,3})?", name) is None:
        raise InvalidInputError(
            f"expected device to be one of {', '.join(DEVICES)} (such as cuda:1 for the second GPU), got '{name}'"
        )


def parse_size(name: str, text: str) -> tuple[int, int] | None:
    """Return (height, width) in px from text such as 512x1024; None from empty text.

    Args:
        name: The setting's name, for the message.
        text: HEIGHTxWIDTH.

    Raises:
        InvalidInputError: Neither of the two, or more than any image has.
    """
    if not text:
        return None
    match = re.fullmatch(r"([1-9]\d{0,4})[xX]([1-9]\d{0,4})", text.strip())
    size = (int(match.group(1)), int(match.group(2))) if match else (0, 0)
    if not 0 < size[0] * size[1] <= MAX_SIZE_MEGAPIXELS * 10**6:
        raise InvalidInputError(
            f"expected {name} as HEIGHTxWIDTH in px such as 512x1024, each from 1 to 99999 and at most "
            f"{MAX_SIZE_MEGAPIXELS} megapixels, or empty, got '{text}'"
        )
    return size
