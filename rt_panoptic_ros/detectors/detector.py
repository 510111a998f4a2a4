# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Runs a detector's ONNX file on images with ONNX Runtime, on the CPU."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from rt_panoptic_ros.detectors.boxes import ScoredBoxes, suppress
from rt_panoptic_ros.errors import InvalidInputError, first_line, require, require_package
from rt_panoptic_ros.inference.input_image import plan_geometry, prepare_input
from rt_panoptic_ros.records import VOID, CameraImage

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rt_panoptic_ros.detectors.description import DetectorDescription
    from rt_panoptic_ros.model.label_map import LabelMap

_ERRORS_ONLY = 3
_TILE_OVERLAP = 0.2  # of a tile's side that it shares with each neighbour
_CUT_PX = 2.0  # nearer to a tile's inner border than this, a box is part of an object that another tile holds whole


class Detector:
    """A detector that is loaded."""

    def __init__(
        self, description: DetectorDescription, models: Path, tiles: int = 1, label_map: LabelMap | None = None
    ) -> None:
        """Load the model.

        Args:
            description: What it is.
            models: The folder that its file lies in.
            tiles: Also look at so many times so many overlapping parts of each image, for objects that are too small
                at the input's size; 1: at the whole alone.
            label_map: Merges and drops classes of what it sees, as detectors agree less on car or truck than on
                vehicle; None: its own classes.

        Raises:
            InvalidInputError: No such file, not ONNX, without the inputs and outputs of its decoding, or without a
                class of the label map.
            UnavailableError: onnxruntime is not installed.
        """
        require_package("onnxruntime", "running detectors")
        import onnxruntime

        self.description, self._tiles = description, tiles
        self.classes = label_map.table(description.table) if label_map else description.table
        self._new_ids = label_map.new_ids(description.table) if label_map else np.arange(VOID + 1, dtype=np.uint8)
        self._path = models / description.model
        require(self._path.is_file(), f"the model of detector '{description.name}' in {models}", f"no {self._path}")
        options = onnxruntime.SessionOptions()
        options.log_severity_level = _ERRORS_ONLY
        # Several detectors take turns: threads of one that wait in a loop would keep the cores from the next.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session: Any = onnxruntime.InferenceSession(
                str(self._path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # its own kinds derive from nothing nearer
            raise InvalidInputError(f"expected an ONNX model in {self._path}, got: {first_line(error)}") from None
        names = {item.name for item in (*self._session.get_inputs(), *self._session.get_outputs())}
        needed = {"images", "orig_target_sizes", "labels", "boxes", "scores"}
        if description.decoding == "yolox":
            needed = {"images", "output"}
        expected = f"{self._path} to have {', '.join(sorted(needed))}, as decoding {description.decoding} reads"
        require(needed <= names, expected, ", ".join(sorted(names)))

    def __call__(self, image: np.ndarray) -> ScoredBoxes:
        """Return the things that it sees from its unknown threshold on, after suppression by class.

        Args:
            image: (H, W, 3) uint8 RGB.

        Raises:
            InvalidInputError: The model can't take the input, or gives other outputs than its decoding says.
        """
        parts = [self._detect(image)]
        for y, x, tile in _tiles_of(image, self._tiles):
            found = self._detect(tile)
            (height, width), (bottom, right) = tile.shape[:2], image.shape[:2]
            inner = np.array((x > 0, y > 0, x + width < right, y + height < bottom))
            cut = (np.abs(found.boxes - np.array((0, 0, width, height))) < _CUT_PX) & inner
            moved = replace(found, boxes=found.boxes + np.array((x, y, x, y), np.float32))
            parts.append(moved[~cut.any(axis=1)])
        found = suppress(ScoredBoxes.concatenated(parts), self.description.nms_threshold)
        found = replace(found, class_ids=self._new_ids[found.class_ids])
        # Once more, as classes that are one now may show an object twice.
        return suppress(found[np.isin(found.class_ids, self.classes.thing_ids)], self.description.nms_threshold)

    def _detect(self, image: np.ndarray) -> ScoredBoxes:
        description, spec = self.description, self.description.input
        geometry = plan_geometry(image.shape[:2], spec, None)
        padded = prepare_input(CameraImage(image, "rgb"), geometry, replace(spec, mean_rgb=description.padding_rgb))
        mean, std = (np.array(values, np.float32) for values in (spec.mean_rgb, spec.std_rgb))
        values = (padded - mean) / std
        if spec.color_order == "bgr":
            values = values[..., ::-1]
        feed: dict[str, np.ndarray] = {"images": np.ascontiguousarray(values.transpose(2, 0, 1)[None])}
        height, width = geometry.network_size
        try:
            if description.decoding == "yolox":
                (output,) = self._session.run(["output"], feed)
                boxes, labels, scores = decode_yolox(output[0], (height, width), description.strides)
            else:
                feed["orig_target_sizes"] = np.array([[width, height]], np.int64)
                labels, boxes, scores = (part[0] for part in self._session.run(["labels", "boxes", "scores"], feed))
        except InvalidInputError as error:
            raise InvalidInputError(f"{error} ({self._path})") from None
        except Exception as error:
            raise InvalidInputError(
                f"expected {self._path} to take images of {height}x{width} as '{description.name}' says, got: "
                f"{first_line(error)}"
            ) from None
        classes = len(description.table)
        require(
            labels.size == 0 or 0 <= labels.min() <= labels.max() < classes,
            f"class numbers below {classes} from {self._path}", f"{labels.max(initial=0)}: name all its classes",
        )  # fmt: skip
        kept = scores >= description.unknown_threshold
        scale = np.array((geometry.scale_x, geometry.scale_y) * 2)
        limits = np.array((image.shape[1], image.shape[0]) * 2)
        corners = np.clip(boxes[kept] / scale, 0, limits).astype(np.float32)
        found = ScoredBoxes(corners, labels[kept].astype(np.uint8), scores[kept].astype(np.float32))
        return found[(corners[:, 2:] - corners[:, :2] >= 1).all(axis=1)]


def decode_yolox(
    output: np.ndarray, size: tuple[int, int], strides: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return boxes, labels and scores of YOLOX's output (Ge et al., 2021): centre (o + cell) s, size exp(o) s.

    Args:
        output: (cells, 5 + classes): offsets of the centre, log sizes, objectness, class scores; levels in the order
            of the strides, cells by rows.
        size: (height, width) of the input, px.
        strides: px.

    Returns:
        (cells, 4) float xyxy px of the input, (cells,) int64, (cells,) float: objectness x the best class's score.

    Raises:
        InvalidInputError: There are other cells than the strides give.
    """
    cells = []
    for stride in strides:
        y, x = np.mgrid[: size[0] // stride, : size[1] // stride]
        cells.append(np.stack((x.ravel(), y.ravel(), np.full(x.size, stride)), axis=1))
    grid = np.concatenate(cells)
    require(
        output.ndim == 2 and len(output) == len(grid) and output.shape[1] > 5,
        f"an output of {len(grid)} cells of strides {', '.join(map(str, strides))} and 5 values or more", output.shape,
    )  # fmt: skip
    centres = (output[:, :2] + grid[:, :2]) * grid[:, 2:]
    halves = np.exp(output[:, 2:4]) * grid[:, 2:] / 2
    labels = output[:, 5:].argmax(axis=1)
    scores = output[:, 4] * output[:, 5:].max(axis=1)
    return np.concatenate((centres - halves, centres + halves), axis=1), labels, scores


def _tiles_of(image: np.ndarray, count: int) -> Iterator[tuple[int, int, np.ndarray]]:
    """Give top, left and pixels of count x count overlapping parts of an image; nothing for one."""
    if count < 2:
        return
    spans = []
    for side in image.shape[:2]:
        length = min(side, round(side / (count - (count - 1) * _TILE_OVERLAP)))
        spans.append([(start, start + length) for start in np.linspace(0, side - length, count).round().astype(int)])
    for (top, bottom), (left, right) in itertools.product(*spans):
        yield int(top), int(left), np.ascontiguousarray(image[top:bottom, left:right])
