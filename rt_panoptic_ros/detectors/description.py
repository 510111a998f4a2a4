# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""What one must know of a detector's ONNX file to run it: config/detectors/NAME.yaml, checked entry by entry."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from rt_panoptic_ros.errors import require
from rt_panoptic_ros.files import read_yaml
from rt_panoptic_ros.model.bundle import InputSpec
from rt_panoptic_ros.model.class_table import ClassTable, SemanticClass, load_class_table
from rt_panoptic_ros.resources import config_file
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
            "classes to be at most 255 different names": len(set(self.classes)) == len(self.classes) <= 255,
        }
        for expectation, holds in checks.items():
            require(holds, f"detector '{self.name}' to have {expectation}", "other values: correct its description")

    @cached_property
    def table(self) -> ClassTable:
        """Its classes, all things, in the order of the outputs; COCO's keep their category ids, others count from 1."""
        if self.classes:
            entries = [SemanticClass(0, name, True, (0, 0, 0), number) for number, name in enumerate(self.classes, 1)]
        else:
            entries = [entry for entry in load_class_table("coco").classes if entry.thing]
        return ClassTable(self.name, tuple(replace(entry, id=row) for row, entry in enumerate(entries)))


def read_description(config: str) -> DetectorDescription:
    """Return the description in file `config`, or the one of that name in config/detectors.

    Raises:
        InvalidInputError: No such file, not YAML, or an unknown or wrong entry.
    """
    path = config_file("detectors", config, "a detector's description")
    document = read_yaml(path, "a detector")
    require(isinstance(document, dict), f"a table in {path}", repr(document)[:80])
    return record_from(DetectorDescription, {"name": path.stem, **document}, f"detector '{path.stem}'")
