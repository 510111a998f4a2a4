# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Panoptic fusion at the camera's resolution (Section 3.2, after Kirillov et al.): one label per pixel.

Detections come by falling score. One whose mask is already claimed for more than the overlap threshold is dropped;
else it takes its unclaimed pixels. Here every pixel first goes to its best detection; then each dropped detection's
pixels go on to their next, which only cells that several hold have.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import warp as wp

from rt_panoptic_ros.panoptic.blocks import make_scratch
from rt_panoptic_ros.panoptic.fusion_kernels import (
    NO_OWNER,
    Labelling,
    claim,
    clear,
    render_masks,
    settle,
)
from rt_panoptic_ros.panoptic.launching import (
    HELD_CELLS,
    Packed,
    StructSlot,
    band_count,
    divided,
    launch,
    launch_blocks,
    launch_rows,
)
from rt_panoptic_ros.panoptic.painting import count_classes, paint_instances, void_small_stuff
from rt_panoptic_ros.panoptic.pixel_map import make_pixel_map
from rt_panoptic_ros.panoptic.semantics import ROW_PARTS, paint_semantics
from rt_panoptic_ros.records import (
    LABELS,
    VOID,
    DenseDetections,
    DetectionTable,
    ImageGeometry,
    MaskMembership,
    PanopticResult,
)
from rt_panoptic_ros.settings import MAX_DETECTIONS

if TYPE_CHECKING:
    from collections.abc import Callable

    from rt_panoptic_ros.records import QueryBoxes
    from rt_panoptic_ros.settings import FusionSettings

_NO_IMAGE = np.empty((0, 0), np.uint8)


class PanopticFuser:
    """Holds the buffers for one geometry."""

    def __init__(self, dense: DenseDetections, thing_ids: tuple[int, ...], geometry: ImageGeometry) -> None:
        """Allocate for outputs of the shapes and the device of `dense`, and the camera's size."""
        device = dense.semantic_logits.device
        self._geometry = geometry
        self._thing_ids = np.array(thing_ids, np.uint8)
        _, height, width = dense.semantic_logits.shape
        self._cells8 = (height, width)
        self._cells4 = (2 * height, 2 * width)
        self._pixels8 = make_pixel_map(geometry, 8, self._cells8, device)
        self._pixels4 = make_pixel_map(geometry, 4, self._cells4, device)
        bands, cells = band_count(device), self._cells4[0] * self._cells4[1]
        # In this order the host gets one image and the table, or both and the table, in one copy.
        self._results = Packed(
            {
                "semantic": (geometry.camera_size, wp.uint8),
                "ids": ((MAX_DETECTIONS,), wp.int32),
                "areas": ((MAX_DETECTIONS,), wp.int32),
                "undefined": ((1 + bands,), wp.int32),
                "mask_boxes": ((bands, MAX_DETECTIONS, 4), wp.int32),
                "boxes": ((MAX_DETECTIONS,), wp.vec4),
                "scores": ((MAX_DETECTIONS,), wp.float32),
                "labels": ((MAX_DETECTIONS,), wp.int32),
                "instance": (geometry.camera_size, wp.uint8),
            },
            device,
        )
        per_band = bands * MAX_DETECTIONS
        counters = wp.zeros(2 * per_band + bands + VOID + 1, dtype=wp.int32, device=device)
        self._instance = self._results.arrays["instance"]
        self._semantic = self._results.arrays["semantic"]
        self._counters = counters.size
        self._labelling = StructSlot(Labelling, device).hold(
            {
                **self._results.arrays,
                "pixels": self._pixels4,
                "held": wp.zeros(self._cells4, dtype=wp.uint8, device=device),
                "contested": wp.empty((bands, cells), dtype=wp.int32, device=device),
                "owner": wp.zeros(geometry.camera_size, dtype=wp.uint8, device=device),
                "counters": counters,
                "totals": counters[:per_band].reshape((bands, MAX_DETECTIONS)),
                "claimed": counters[per_band : 2 * per_band].reshape((bands, MAX_DETECTIONS)),
                "contested_counts": counters[2 * per_band : 2 * per_band + bands],
                "class_areas": counters[2 * per_band + bands :],
            }
        )
        self._scratch = make_scratch(1, device)

    def paint_semantics(self, dense: DenseDetections, membership: MaskMembership) -> None:
        """Enqueue the semantics without objects, of the network's outputs and the best classes found in them."""
        (rows, columns), parts = self._cells8, divided(self._instance.device, ROW_PARTS)
        launch_rows(
            paint_semantics, (rows, parts, columns), dense.semantic_logits, membership.best_classes, self._pixels8,
            self._semantic, parts,
        )  # fmt: skip

    def launch(
        self,
        queries: QueryBoxes,
        membership: MaskMembership,
        settings: FusionSettings,
        await_semantics: Callable[[], None],
        *,
        images: frozenset[str] = LABELS,
    ) -> None:
        """Enqueue the fusion and the download of its results.

        Args:
            queries: The query boxes.
            membership: Of those, at the grid points.
            settings: Overlap and area limits.
            await_semantics: Returns when the semantics, if wanted, have been painted or enqueued.
            images: Which of the semantic and the instance image the result shall have.
        """
        field, labelling = membership.field, self._labelling
        launch(clear, self._counters, labelling)
        self._instance.zero_()
        launch_rows(claim, self._cells4, field, labelling, least_cells=HELD_CELLS, spans=True)
        launch_blocks(settle, 1, field, queries.scores, settings.overlap_threshold, labelling, self._scratch)
        await_semantics()
        launch_rows(paint_instances, self._cells4, field, labelling, least_cells=HELD_CELLS, spans=True)
        if "semantic" in images and settings.stuff_area_min > 0:
            launch(count_classes, self._cells8, self._pixels8, labelling)
            launch(void_small_stuff, self._cells8, field, settings.stuff_area_min, self._pixels8, labelling)
        first, last = "semantic" if "semantic" in images else "ids", "instance" if "instance" in images else "labels"
        self._results.enqueue(first, last)

    def result(self, *, images: frozenset[str] = LABELS) -> PanopticResult:
        """Wait for the last `launch`, of the same `images`; return those and the table of visible objects.

        The arrays are the caller's own.
        """
        arrays = self._results.host()
        visible = np.flatnonzero(arrays["ids"])
        mask_boxes = arrays["mask_boxes"][:, visible]
        table = DetectionTable(
            class_ids=self._thing_ids[arrays["labels"][visible]],
            scores=arrays["scores"][visible],
            boxes=camera_boxes(arrays["boxes"][visible], self._geometry),
            mask_boxes=np.concatenate([mask_boxes[..., :2].min(axis=0), mask_boxes[..., 2:].max(axis=0)], axis=1),
            areas=arrays["areas"][visible].astype(np.uint32),
        )
        semantic, instance = (arrays[name] if name in images else _NO_IMAGE for name in ("semantic", "instance"))
        undefined = bool(arrays["undefined"].any())
        return PanopticResult(semantic.copy(), instance.astype(np.uint16), table, undefined=undefined)

    def render_masks(self, membership: MaskMembership) -> np.ndarray:
        """Return the whole masks before fusion, (n, H, W) bool at the camera's size (Eq. 7)."""
        count = int(membership.active.numpy()[0])
        masks = wp.zeros((count, *self._geometry.camera_size), dtype=wp.uint8, device=membership.field.device)
        launch(render_masks, (count, *self._cells4), membership.field, self._pixels4, masks)
        return np.asarray(masks.numpy()).astype(bool)


def camera_boxes(boxes: np.ndarray, geometry: ImageGeometry) -> np.ndarray:
    """Return (n, 4) xyxy boxes of network px in camera px, float32, inside the camera image."""
    scale = np.array([geometry.scale_x, geometry.scale_y] * 2, np.float32)
    height, width = geometry.camera_size
    return np.clip(boxes / scale, 0, np.array([width, height] * 2, np.float32)).astype(np.float32)


assert int(NO_OWNER) == VOID  # a pixel without owner and a pixel without class are written alike
