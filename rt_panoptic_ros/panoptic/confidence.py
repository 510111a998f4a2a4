"""How sure the semantics are: the probability of the best class, for planners that weigh it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import warp as wp

from rt_panoptic_ros.panoptic.bands import launch_rows
from rt_panoptic_ros.panoptic.cell_pixels import paint_shares
from rt_panoptic_ros.panoptic.download import Download
from rt_panoptic_ros.panoptic.pixel_map import PixelMap, make_pixel_map

if TYPE_CHECKING:
    from rt_panoptic_ros.records import DenseDetections, ImageGeometry

wp.set_module_options({"enable_backward": False})


@wp.kernel
def _find_certainties(
    first_row: wp.int32,
    band: wp.int32,
    logits: wp.array3d(dtype=wp.float32),  # (N, h, w)
    certainties: wp.array2d(dtype=wp.float32),  # (h, w)
) -> None:
    """The softmax probability of each stride-8 cell's best class (Eq. 2)."""
    row, x = wp.tid()
    y = first_row + row
    top = logits[0, y, x]
    for c in range(1, logits.shape[0]):
        top = wp.max(top, logits[c, y, x])
    total = float(0.0)
    for c in range(logits.shape[0]):
        total += wp.exp(logits[c, y, x] - top)
    certainties[y, x] = 1.0 / total


@wp.kernel
def _paint(
    first_row: wp.int32,
    band: wp.int32,
    certainties: wp.array2d(dtype=wp.float32),
    pixels: wp.array(dtype=PixelMap),  # of the stride-8 grid
    confidence: wp.array2d(dtype=wp.uint8),
) -> None:
    """Interpolate the cells' certainties to the camera's pixels."""
    row, x = wp.tid()
    y = first_row + row
    below = wp.min(y + 1, certainties.shape[0] - 1)
    right = wp.min(x + 1, certainties.shape[1] - 1)
    corners = wp.vec4(certainties[y, x], certainties[y, right], certainties[below, x], certainties[below, right])
    paint_shares(confidence, pixels, y, x, corners)


class ConfidencePainter:
    """Holds the buffers for one geometry."""

    def __init__(self, dense: DenseDetections, geometry: ImageGeometry) -> None:
        """Allocate for outputs of the shapes and the device of `dense`, and the camera's size."""
        self._device = dense.semantic_logits.device
        self._cells = dense.semantic_logits.shape[1:]
        self._pixels = make_pixel_map(geometry, 8, self._cells, self._device)
        self._certainties = wp.zeros(self._cells, dtype=wp.float32, device=self._device)
        self._confidence = wp.zeros(geometry.camera_size, dtype=wp.uint8, device=self._device)
        self._download = Download({"confidence": self._confidence})

    def launch(self, dense: DenseDetections) -> None:
        """Enqueue the work and its download."""
        launch_rows(
            _find_certainties, self._cells, device=self._device,
            inputs=[dense.semantic_logits], outputs=[self._certainties],
        )  # fmt: skip
        launch_rows(
            _paint, self._cells, device=self._device,
            inputs=[self._certainties, self._pixels], outputs=[self._confidence],
        )  # fmt: skip
        self._download.enqueue()

    def result(self) -> np.ndarray:
        """Wait for the last `launch`; return (H, W) uint8 at the camera's size, 255 for certainty."""
        confidence: np.ndarray = self._download.views()["confidence"].copy()
        return confidence
