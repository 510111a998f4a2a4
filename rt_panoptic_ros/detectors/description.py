"""What one must know of a detector's ONNX file to run it: config/detectors/NAME.yaml, checked entry by entry."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from rt_panoptic_ros.errors import InvalidInputError, require
from rt_panoptic_ros.model.bundle import InputSpec
from rt_panoptic_ros.model.class_table import load_class_table
from rt_panoptic_ros.resources import share_directory
from rt_panoptic_ros.settings import record_from, setting, settings_of

DECODINGS = ("yolox", "boxes")


def _share(default: float, description: str) -> Any:
    return setting(default, description, minimum=0.0, maximum=1.0)


@dataclass(frozen=True)
class DetectorDescription:
    """A detector's file, its input, what its outputs mean, and from which score it is believed."""

    name: str = setting("", "What it is called.")
    model: str = setting("", "The ONNX file, relative to the folder of models.")
    decoding: str = setting(
        "boxes",
        "yolox: one output (1, cells, 5 + classes) of centre and log size in cells, objectness and class scores; "
        "boxes: outputs labels, boxes (xyxy, px of orig_target_sizes) and scores, as DETR's successors export them.",
        choices=DECODINGS,
    )
    input: InputSpec = field(default_factory=InputSpec)
    padding_rgb: tuple[int, int, int] = setting((0, 0, 0), "Colour of the padding, where input.fit is pad.")
    strides: tuple[int, ...] = setting((8, 16, 32), "Of the levels of yolox, px, in the output's order.")
    classes: tuple[str, ...] = setting((), "Names in the order of the outputs; none: the 80 things of COCO.")
    score_threshold: float = _share(0.4, "Score from which a box counts as seen.")
    unknown_threshold: float = _share(0.25, "Score from which a place is not called empty any more.")
    nms_threshold: float = _share(0.6, "IoU above which the lower-scored of two boxes of one class is removed.")

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            InvalidInputError: A value that no detector can have.
        """
        for one in settings_of(DetectorDescription):
            if one.description:
                one.parsed(getattr(self, one.name))
        checks = {
            "model to name an ONNX file": bool(self.model),
            "input.size to be [height, width]": self.input.size is not None,
            "strides to be at least 1": all(stride >= 1 for stride in self.strides),
            "unknown_threshold to be at most score_threshold": self.unknown_threshold <= self.score_threshold,
            "classes to differ from each other": len(set(self.classes)) == len(self.classes),
        }
        for expectation, holds in checks.items():
            require(holds, f"detector '{self.name}' to have {expectation}", "other values: correct its description")

    @cached_property
    def category_ids(self) -> dict[str, int]:
        """{class name: its number in files}, in the order of the outputs: COCO's own, or from 1."""
        if self.classes:
            return {name: number for number, name in enumerate(self.classes, 1)}
        return {entry.name: entry.dataset_id for entry in load_class_table("coco").classes if entry.thing}


def read_description(config: str) -> DetectorDescription:
    """Return the description in file `config`, or the one of that name in config/detectors.

    Raises:
        InvalidInputError: No such file, not YAML, or an unknown or wrong entry.
    """
    path = Path(config)
    shipped = share_directory() / "config" / "detectors"
    if not path.is_file() and path.parts == (path.name,):
        path = shipped / f"{path.name}.yaml"
    if not path.is_file():
        names = ", ".join(sorted(item.stem for item in shipped.glob("*.yaml")))
        raise InvalidInputError(f"expected a detector's description or one of {names}, got '{config}': check the path")
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"expected a detector as YAML in {path}, got {' '.join(str(error).split())}") from None
    require(isinstance(document, dict), f"a table in {path}", repr(document)[:80])
    return record_from(DetectorDescription, {"name": path.stem, **document}, f"detector '{path.stem}'")
