# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""What a user asks of a run over bags, and the record of all that its result depends on."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import cv2

from rt_panoptic_ros.bags.sqlite_file import JOURNALS
from rt_panoptic_ros.errors import InvalidInputError
from rt_panoptic_ros.files import file_sha256
from rt_panoptic_ros.frames.outputs import BAG_OUTPUTS, DEFAULT_BAG_OUTPUTS, inputs_of
from rt_panoptic_ros.inference.backends import check_choice, resolve_device
from rt_panoptic_ros.inference.choice import choices
from rt_panoptic_ros.labeller import OutputStyle
from rt_panoptic_ros.model.bundle import RANGES, read_bundle
from rt_panoptic_ros.model.label_map import read_label_map
from rt_panoptic_ros.panoptic.class_filter import parse_class_names
from rt_panoptic_ros.resources import installed_versions, package_version
from rt_panoptic_ros.settings import DEPTH_SLACK_S, OVERLAY_OPACITY, PALETTES

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from rt_panoptic_ros.inference.choice import Choice
    from rt_panoptic_ros.model.bundle import ModelBundle
    from rt_panoptic_ros.model.class_table import ClassTable
    from rt_panoptic_ros.model.label_map import LabelMap
    from rt_panoptic_ros.settings import PostprocessSettings

_PACKAGES = (
    "mcap", "numpy", "onnx", "onnxruntime", "openvino", "rosbags", "scipy", "tensorrt", "torch", "warp-lang",
    "zstandard",
)  # fmt: skip
_END = 1 << 20  # bytes


@dataclass(frozen=True, slots=True)
class BagOptions:
    """The options of `rt-panoptic bag`, for each of its bags."""

    pipeline: Mapping[str, Any]  # the arguments of `open_pipeline`
    images: tuple[str, ...] = ()  # topics to label; none: all that may be a camera's
    topics: tuple[str, ...] | None = None  # topics to copy; None: all
    outputs: tuple[str, ...] = DEFAULT_BAG_OUTPUTS
    tracking: bool = False
    label_map: str = ""
    object_classes: str = ""
    mask_classes: str = ""
    depth: tuple[str, ...] = ()  # topics, one for each of `images`; none: depth beside them
    camera_info: tuple[str, ...] = ()  # likewise
    depth_slack_s: float = DEPTH_SLACK_S  # by how much the stamps of an image and its depth may differ
    output_size: tuple[int, int] | None = None  # (height, width), px; None: the images'
    opacity: float = OVERLAY_OPACITY  # of the overlay
    palette: str = PALETTES[0]  # of the overlay
    compressed: bool = True
    force: bool = False
    model: BagModel = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Read the model's card and check everything that can be checked without a bag.

        Raises:
            InvalidInputError: No such model, label map, setting, output or class.
        """
        for name in self.outputs:
            if name not in BAG_OUTPUTS:
                raise InvalidInputError(f"expected outputs among {', '.join(BAG_OUTPUTS)}, got '{name}'")
        check_choice(*(self.pipeline[name] for name in ("backend", "device", "precision")))
        bundle = read_bundle(self.pipeline["model"])
        label_map = read_label_map(self.label_map) if self.label_map else None
        classes = label_map.table(bundle.classes) if label_map else bundle.classes
        wanted = parse_class_names(self.object_classes, classes)
        style = OutputStyle.of(self.opacity, self.palette, self.mask_classes, classes)
        settings = bundle.settings.replaced(self.pipeline["settings"])
        model = BagModel(bundle, settings, label_map, classes, wanted, style)
        object.__setattr__(self, "model", model)

    def document(self, source: Path) -> dict[str, Any]:
        """Return, as plain data, all that the bytes of the bag made from `source` depend on but its name."""
        bundle, pipeline = self.model.bundle, self.pipeline
        classes = json.dumps(bundle.classes.to_document())
        ranges, choice = bundle.path / RANGES, self._choice()
        return {
            "package": package_version(),
            "libraries": _versions(),
            "input": bag_identity(source),
            "model": {
                "name": bundle.name,
                "content": bundle.content_key,
                "input": asdict(bundle.input),
                "classes": hashlib.sha256(classes.encode()).hexdigest(),
                "ranges": file_sha256(ranges) if choice.precision == "int8" and ranges.is_file() else None,
            },
            "settings": self.model.settings.flat(),
            "backend, device or precision": asdict(choice),
            "engine": {name: pipeline[name] for name in ("tf32", "network_size")},
            "images": self.images,
            "topics": self.topics,
            "outputs": self.outputs,
            **({"overlay": [self.opacity, self.palette]} if "overlay" in self.outputs else {}),
            **({"mask classes": sorted(self.model.style.mask_classes or ())} if self._shows_mask() else {}),
            **{name: getattr(self, name) for name in sorted(inputs_of(self.outputs))},
            **({"depth slack": self.depth_slack_s} if "depth" in inputs_of(self.outputs) else {}),
            **({"label map": self._mapped()} if self.label_map else {}),
            **({"output size": self.output_size} if self.output_size else {}),
            "tracking": self.tracking,
            "object classes": sorted(self.model.wanted_classes or ()),
            "compressed": self.compressed,
        }

    def _choice(self) -> Choice:
        """Return what is to compute the network: what auto stands for may be another the next time."""
        backend, device, precision = (self.pipeline[name] for name in ("backend", "device", "precision"))
        return choices(self.model.bundle, backend, device, precision, resolve_device(device, backend))[0]

    def _shows_mask(self) -> bool:
        return bool({"mask", "depth_filtered"}.intersection(self.outputs))

    def _mapped(self) -> list[Any]:
        """Return the new class of each of the model's, and what they are."""
        model = self.model
        assert model.label_map is not None
        return [model.label_map.new_ids(model.bundle.classes).tolist(), model.classes.published_document()]


@dataclass(frozen=True, slots=True)
class BagModel:
    """The model's card and what the options make of it."""

    bundle: ModelBundle
    settings: PostprocessSettings
    label_map: LabelMap | None
    classes: ClassTable  # what the labels mean
    wanted_classes: frozenset[int] | None  # whose objects are told of; None: all
    style: OutputStyle


def bag_identity(source: Path) -> list[tuple[str, int, str]]:
    """Return (name, size, digest of the first and last MiB) of each of a bag's files, SQLite's journals among them.

    Reading bags of many gigabytes whole would take minutes; their ends hold the index with every message's place.
    """
    if source.is_dir():
        files = sorted(path for path in source.iterdir() if path.is_file())
    else:
        files = [path for end in ("", *JOURNALS) if (path := source.with_name(source.name + end)).is_file()]
    entries = []
    for path in files:
        size = path.stat().st_size
        with path.open("rb") as file:
            digest = hashlib.sha256(file.read(_END))
            file.seek(max(0, size - _END))
            digest.update(file.read())
        entries.append((path.name, size, digest.hexdigest()))
    return entries


def _versions() -> dict[str, str]:
    """Return {library: version} of what the numbers and the file format come from, as far as it is installed."""
    return {"opencv": str(cv2.__version__), **installed_versions(_PACKAGES)}
