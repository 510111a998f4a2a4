# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The frozen records that travel between the stages of a frame (see docs/architecture.md).

Array fields state shape and dtype; `wp` arrays live on the pipeline's device, NumPy arrays on the host.
Boxes are xyxy; which image's pixels they count is said at each field.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    import warp as wp


STRIDES = (8, 16, 32, 64, 128)
"""Pixels of the network's input per cell of the pyramid levels P3 to P7 (Section 4)."""

ColorOrder = Literal["rgb", "bgr", "rgba", "bgra", "mono"]

VOID = 255
"""Semantic value of pixels without a class."""

IMAGES = ("semantic", "instance", "confidence")
"""The images that a `PanopticResult` can have."""

LABELS = frozenset({"semantic", "instance"})
"""Those of them that it has where nothing else is asked for."""


@dataclass(frozen=True, slots=True)
class CameraImage:
    """A camera's pixels as they came, without a copy."""

    pixels: np.ndarray  # (H, W, 3) or, with alpha, (H, W, 4), or mono (H, W); uint8; rows may be padded (strided)
    color_order: ColorOrder


@dataclass(frozen=True, slots=True)
class ImageGeometry:
    """How a camera image lies in the network's input: resized to the content size, padded right and below.

    All sizes in pixels; the content's top left pixel is the input's top left pixel.
    """

    camera_height: int
    camera_width: int
    content_height: int
    content_width: int
    network_height: int
    network_width: int

    @property
    def camera_size(self) -> tuple[int, int]:
        """(height, width) of the camera image, px."""
        return self.camera_height, self.camera_width

    @property
    def content_size(self) -> tuple[int, int]:
        """(height, width) of the resized camera image inside the network's input, px."""
        return self.content_height, self.content_width

    @property
    def network_size(self) -> tuple[int, int]:
        """(height, width) of the network's input, px."""
        return self.network_height, self.network_width

    @property
    def scale_y(self) -> float:
        """Network pixels per camera pixel, vertically."""
        return self.content_height / self.camera_height

    @property
    def scale_x(self) -> float:
        """Network pixels per camera pixel, horizontally."""
        return self.content_width / self.camera_width


@dataclass(frozen=True, slots=True)
class DenseDetections:
    """The network's outputs for one image, float32 on the device (Section 4.2).

    With (h, w) the stride-8 grid: h = ceil(ceil(ceil(H / 2) / 2) / 2) and likewise w; N classes, T things.
    """

    semantic_logits: wp.array  # (N, h, w)
    levelness_logits: wp.array | None  # (6, 2h, 2w), channel 0 is background; None without levelness (Appendix B)
    box_class_logits: tuple[wp.array, ...]  # per level (T, h_i, w_i), strides 8 to 128
    box_offsets: tuple[wp.array, ...]  # per level (4, h_i, w_i): left, top, right, bottom, > 0, network px (Eq. 8)
    centerness_logits: tuple[wp.array, ...]  # per level (1, h_i, w_i)

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, wp.array]) -> DenseDetections:
        """Return the record of {name: array}, whose names are those of `host_arrays` and of the ONNX graph."""
        by_level = {name: tuple(arrays[f"{name}_{level}"] for level in range(len(STRIDES))) for name in _BY_LEVEL}
        return cls(arrays["semantic_logits"], arrays.get("levelness_logits"), **by_level)

    def host_arrays(self) -> dict[str, np.ndarray]:
        """Return copies on the host by the fields' names, `_i` behind those of level i."""
        arrays = {"semantic_logits": self.semantic_logits, "levelness_logits": self.levelness_logits}
        for name in _BY_LEVEL:
            arrays |= {f"{name}_{level}": array for level, array in enumerate(getattr(self, name))}
        return {name: array.numpy().copy() for name, array in arrays.items() if array is not None}


_BY_LEVEL = ("box_class_logits", "box_offsets", "centerness_logits")  # fields of `DenseDetections`


@dataclass(frozen=True, slots=True)
class QueryBoxes:
    """The boxes that survived non-maximum suppression, by falling score, ties by index (Eq. 4).

    Arrays have a fixed capacity K; the first `count[0]` rows are valid. Device arrays.
    """

    boxes: wp.array  # (K,) vec4 float32, xyxy network px, clipped to the content: 0 <= x <= width - 1
    scores: wp.array  # (K,) float32: class probability times centerness, in (0, 1]
    labels: wp.array  # (K,) int32: index among the things, 0-based
    count: wp.array  # (1,) int32
    undefined: wp.array  # (1 + bands,) int32: not 0 where outputs are no finite numbers, of boxes or of a band's points


@dataclass(frozen=True, slots=True)
class MaskMembership:
    """Which detections each point of the stride-4 grid belongs to, and what is needed between points (Eq. 5-7).

    Device arrays.
    """

    best_classes: wp.array  # (h, w) uint8: of each stride-8 cell, by the highest logit; VOID where that is undefined
    active: wp.array  # (1,) int32: the first `active[0]` query boxes take part
    field: wp.array  # of one `panoptic.mask_field.MaskField`, from which the kernels compute masks


@dataclass(frozen=True, slots=True)
class DetectionTable:
    """The visible objects of one frame, by falling score. Host arrays."""

    class_ids: np.ndarray  # (n,) uint8: value in the semantic image
    scores: np.ndarray  # (n,) float32 in (0, 1]
    boxes: np.ndarray  # (n, 4) float32: query boxes, xyxy camera px
    mask_boxes: np.ndarray  # (n, 4) int32: x_min, y_min, x_max, y_max of the visible pixels, inclusive, camera px
    areas: np.ndarray  # (n,) uint32: visible pixels
    ids: np.ndarray = None  # type: ignore[assignment]  # (n,) uint16: value in the instance image; 1 + row by default

    def __post_init__(self) -> None:
        """Number the objects by row where no ids are given."""
        if self.ids is None:
            import numpy as np  # here, as the command line knows this module and starts without NumPy

            object.__setattr__(self, "ids", np.arange(1, len(self) + 1, dtype=np.uint16))

    def __len__(self) -> int:
        """Return the number of objects."""
        return len(self.scores)

    def rows(self, chosen: np.ndarray) -> DetectionTable:
        """Return the objects of some rows, (n,) bool, under their ids."""
        return DetectionTable(*(getattr(self, column.name)[chosen] for column in fields(self)))


@dataclass(frozen=True, slots=True)
class PanopticResult:
    """What one frame gives: a class and an object for every camera pixel, and the list of objects. Host arrays.

    Of the images (`IMAGES`), those that were asked for; the others are (0, 0), and the confidence None.
    """

    semantic: np.ndarray  # (H, W) uint8: class id, VOID where there is none
    instance: np.ndarray  # (H, W) uint16: the object's id in `detections`, 0 none
    detections: DetectionTable
    confidence: np.ndarray | None = None  # (H, W) uint8: probability of the best class x 255
    undefined: bool = False  # the network gave values that are no finite numbers: void, or without an object, there
