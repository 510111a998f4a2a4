"""The settings of every stage: each default, range and description exists here once.

The command line (`--set NAME=VALUE`), the ROS parameters and the model cards derive from these records.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, get_type_hints

from rt_panoptic_ros.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

BACKENDS = ("auto", "onnxruntime", "torch", "tensorrt", "openvino")
DEVICES = ("auto", "cpu", "cuda")
PRECISIONS = ("float32", "float16", "int8")
PALETTES = ("dataset", "colorblind")

MAX_DETECTIONS = 128
"""Capacity of the detection bit sets: four words of 32."""


def _setting(
    default: Any,
    description: str,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    choices: tuple[str, ...] = (),
) -> Any:
    return field(
        default=default,
        metadata={"description": description, "minimum": minimum, "maximum": maximum, "choices": choices},
    )


@dataclass(frozen=True, slots=True)
class QueryBoxSettings:
    """Selection of the query boxes (Eq. 4)."""

    pre_nms_threshold: float = _setting(
        0.06, "Class probability that a location must exceed to propose a box.", minimum=0.0, maximum=1.0
    )
    pre_nms_top_k: int = _setting(
        1000, "Proposals kept per pyramid level, the highest scores first.", minimum=1, maximum=4096
    )
    nms_threshold: float = _setting(
        0.6, "IoU above which the lower-scored of two boxes of one class is removed.", minimum=0.0, maximum=1.0
    )
    global_nms_threshold: float = _setting(
        0.97, "IoU above which the lower-scored of two boxes of any classes is removed.", minimum=0.0, maximum=1.0
    )
    max_detections: int = _setting(100, "Query boxes kept per image.", minimum=1, maximum=MAX_DETECTIONS)


@dataclass(frozen=True, slots=True)
class MaskSettings:
    """Mask construction (Eq. 5-7)."""

    similarity: str = _setting(
        "iou",
        "Agreement of a pixel's own box with a query box: iou (Eq. 6) or giou (the authors' published weights).",
        choices=("iou", "giou"),
    )
    mask_threshold: float = _setting(
        0.3, "Mask probability from which a pixel belongs to an object (sigma of Eq. 7).", minimum=0.001, maximum=1.0
    )


@dataclass(frozen=True, slots=True)
class FusionSettings:
    """Fusion of masks and semantics into one labelling (Section 3.2, after Kirillov et al.)."""

    score_threshold: float = _setting(
        0.3, "Detections below this score (class probability times centerness) are dropped.", minimum=0.0, maximum=1.0
    )
    overlap_threshold: float = _setting(
        0.5,
        "A detection is dropped when more than this fraction of its mask already belongs to higher-scored ones.",
        minimum=0.0,
        maximum=1.0,
    )
    stuff_area_min: int = _setting(
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
        return {name: getattr(getattr(self, group), name) for group, name, _ in _flat_fields()}

    def replaced(self, values: Mapping[str, object]) -> PostprocessSettings:
        """Return a copy with `values` (by flat name) replaced.

        Args:
            values: {setting name: number, or its text form}.

        Raises:
            InvalidInputError: An unknown name, a wrong type, or a value outside its range; nothing is changed.
        """
        known = {name: (group, info) for group, name, info in _flat_fields()}
        changes: dict[str, dict[str, Any]] = {}
        for name, value in values.items():
            if name not in known:
                raise InvalidInputError(
                    f"expected a setting named one of {', '.join(known)}, got '{name}': check the spelling"
                )
            group, info = known[name]
            changes.setdefault(group, {})[name] = info.parsed(value)
        return replace(self, **{group: replace(getattr(self, group), **new) for group, new in changes.items()})


@dataclass(frozen=True, slots=True)
class SettingInfo:
    """What a user may know and give for one setting."""

    name: str
    kind: type  # float, int or str
    default: float | int | str
    description: str
    minimum: float | None  # None: no limit, or not a number
    maximum: float | None
    choices: tuple[str, ...]  # of texts

    def parsed(self, value: object) -> float | int | str:
        """Return `value` in the setting's type.

        Raises:
            InvalidInputError: Not of that type, not finite, out of range, or not one of the choices.
        """
        refusal = InvalidInputError(f"expected {self._expectation()}, got {value!r}")
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise refusal
        if self.kind is str:
            if value not in self.choices:
                raise refusal
            return value
        try:
            number = float(value)
        except (ValueError, OverflowError):
            raise refusal from None
        low, high = self._range()
        if not low <= number <= high or (self.kind is int and not number.is_integer()):
            raise refusal
        return int(number) if self.kind is int else number

    def _expectation(self) -> str:
        if self.choices:
            return f"{self.name} to be one of {', '.join(self.choices)}"
        kind = "a whole number" if self.kind is int else "a number"
        low, high = self._range()
        return f"{self.name} to be {kind} from {low:g} to {high:g}"

    def _range(self) -> tuple[float, float]:
        return -math.inf if self.minimum is None else self.minimum, math.inf if self.maximum is None else self.maximum


def setting_infos() -> list[SettingInfo]:
    """Return the description of every post-processing setting, in stage order."""
    return [info for _, _, info in _flat_fields()]


def parse_size(name: str, text: str) -> tuple[int, int] | None:
    """Return (height, width) in px from text such as 512x1024; None from empty text.

    Args:
        name: The setting's name, for the message.
        text: HEIGHTxWIDTH.

    Raises:
        InvalidInputError: Neither of the two, or a side that no image can have.
    """
    if not text:
        return None
    match = re.fullmatch(r"([1-9]\d{0,4})[xX]([1-9]\d{0,4})", text.strip())
    if match is None:
        raise InvalidInputError(
            f"expected {name} as HEIGHTxWIDTH in px such as 512x1024, each from 1 to 99999, or empty, got '{text}'"
        )
    return int(match.group(1)), int(match.group(2))


def _flat_fields() -> Iterator[tuple[str, str, SettingInfo]]:
    for group, record in (("query_boxes", QueryBoxSettings), ("masks", MaskSettings), ("fusion", FusionSettings)):
        kinds = get_type_hints(record)
        for item in fields(record):
            default: Any = item.default
            yield group, item.name, SettingInfo(item.name, kinds[item.name], default, **item.metadata)
