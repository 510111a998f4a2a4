"""Panoptic fusion at the camera's resolution (Section 3.2, after Kirillov et al.): one label per pixel.

Detections come by falling score. One whose mask is already claimed for more than the overlap threshold is dropped;
else it takes its unclaimed pixels. Here every pixel first goes to its best detection; then each dropped detection's
pixels go on to their next.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import warp as wp

from rt_panoptic_ros.panoptic.bands import LEAST_CELLS, band_count, launch_rows
from rt_panoptic_ros.panoptic.download import Download
from rt_panoptic_ros.panoptic.fusion_kernels import (
    NO_OWNER,
    MaskView,
    claim,
    count_classes,
    find_dropped,
    number,
    paint_instances,
    paint_semantics,
    release,
    render_masks,
    void_small_stuff,
)
from rt_panoptic_ros.panoptic.pixel_map import make_pixel_map
from rt_panoptic_ros.panoptic.structs import StructSlot
from rt_panoptic_ros.records import VOID, DenseDetections, DetectionTable, ImageGeometry, MaskMembership, PanopticResult
from rt_panoptic_ros.settings import MAX_DETECTIONS

if TYPE_CHECKING:
    from rt_panoptic_ros.records import QueryBoxes
    from rt_panoptic_ros.settings import FusionSettings

_HELD_CELLS = 4 * LEAST_CELLS  # most stride-4 cells hold nothing and cost little


class PanopticFuser:
    """Holds the buffers for one geometry; `fuse` is a function of its arguments only."""

    def __init__(self, dense: DenseDetections, thing_ids: tuple[int, ...], geometry: ImageGeometry) -> None:
        """Allocate for outputs of the shapes and the device of `dense`, and the camera's size."""
        device = dense.semantic_logits.device
        self._device = device
        self._geometry = geometry
        self._thing_ids = wp.array(thing_ids, dtype=wp.int32, device=device)
        self._thing_id_table = np.array(thing_ids, np.uint8)
        classes, height, width = dense.semantic_logits.shape
        is_thing = np.isin(np.arange(classes), thing_ids).astype(np.uint8)
        self._is_thing = wp.array(is_thing, dtype=wp.uint8, device=device)
        self._cells8 = (height, width)
        self._cells4 = (2 * height, 2 * width)
        self._pixels8 = make_pixel_map(geometry, 8, self._cells8, device)
        self._pixels4 = make_pixel_map(geometry, 4, self._cells4, device)
        self._held = wp.zeros(self._cells4, dtype=wp.uint8, device=device)
        self._owner = wp.zeros(geometry.camera_size, dtype=wp.uint8, device=device)
        self._semantic = wp.zeros(geometry.camera_size, dtype=wp.uint8, device=device)
        self._instance = wp.zeros(geometry.camera_size, dtype=wp.uint16, device=device)
        bands = band_count(device)
        self._totals = wp.zeros((bands, MAX_DETECTIONS), dtype=wp.int32, device=device)
        self._frees = wp.zeros((bands, MAX_DETECTIONS), dtype=wp.int32, device=device)
        self._ids = wp.zeros(MAX_DETECTIONS, dtype=wp.int32, device=device)
        self._state = wp.zeros(2, dtype=wp.int32, device=device)
        self._dropping = wp.zeros(1, dtype=wp.int32, device=device)
        self._mask_boxes = wp.zeros((bands, MAX_DETECTIONS, 4), dtype=wp.int32, device=device)
        no_box = np.tile(np.array([2**31 - 1, 2**31 - 1, -1, -1], np.int32), (bands, MAX_DETECTIONS, 1))
        self._no_boxes = wp.array(no_box, dtype=wp.int32, device=device)
        self._class_areas = wp.zeros(classes, dtype=wp.int32, device=device)
        self._masks_slot = StructSlot(MaskView, device)
        self._queries: QueryBoxes | None = None  # those of the last launch
        self._download = Download({})

    def fuse(
        self,
        dense: DenseDetections,
        queries: QueryBoxes,
        membership: MaskMembership,
        settings: FusionSettings,
    ) -> PanopticResult:
        """Return the labels of every camera pixel and the table of visible objects, in arrays of their own.

        Args: as `launch`'s.
        """
        self.launch(dense, queries, membership, settings)
        return self.result()

    def launch(
        self,
        dense: DenseDetections,
        queries: QueryBoxes,
        membership: MaskMembership,
        settings: FusionSettings,
    ) -> None:
        """Enqueue the fusion and the download of its results.

        Args:
            dense: The network's outputs.
            queries: The query boxes.
            membership: Of those, at the grid points.
            settings: Overlap and area limits.
        """
        device, active = self._device, membership.active
        if self._queries is not queries:
            self._queries = queries
            self._download = Download(
                {
                    "semantic": self._semantic, "instance": self._instance, "ids": self._ids, "frees": self._frees,
                    "mask_boxes": self._mask_boxes, "boxes": queries.boxes, "scores": queries.scores,
                    "labels": queries.labels,
                }
            )  # fmt: skip
        for counter in (self._totals, self._frees, self._state, self._instance):
            counter.zero_()
        wp.copy(self._mask_boxes, self._no_boxes)
        launch_rows(
            paint_semantics, self._cells8, device=device,
            inputs=[dense.semantic_logits, membership.peaks, self._pixels8], outputs=[self._semantic],
        )  # fmt: skip
        masks = self._view(queries, membership)
        launch_rows(
            claim, self._cells4, device=device, least_cells=_HELD_CELLS,
            inputs=[masks], outputs=[self._owner, self._held, self._totals, self._frees],
        )  # fmt: skip
        self._find_dropped(active, settings)
        wp.capture_while(self._dropping, self._release, masks=masks, active=active, settings=settings)
        wp.launch(number, 1, device=device, inputs=[self._frees, active], outputs=[self._ids])
        launch_rows(
            paint_instances, self._cells4, device=device, least_cells=_HELD_CELLS,
            inputs=[self._owner, self._held, self._ids, queries.labels, self._thing_ids, self._pixels4],
            outputs=[self._semantic, self._instance, self._mask_boxes],
        )  # fmt: skip
        if settings.stuff_area_min > 0:
            self._class_areas.zero_()
            wp.launch(
                count_classes, self._semantic.shape, device=device,
                inputs=[self._semantic, self._instance], outputs=[self._class_areas],
            )  # fmt: skip
            wp.launch(
                void_small_stuff, self._semantic.shape, device=device,
                inputs=[self._class_areas, self._is_thing, settings.stuff_area_min, self._instance],
                outputs=[self._semantic],
            )  # fmt: skip
        self._download.enqueue()

    def result(self) -> PanopticResult:
        """Wait for the last `launch`; return the labels of every camera pixel and the table of visible objects."""
        arrays = self._download.views()
        return PanopticResult(
            semantic=arrays["semantic"].copy(), instance=arrays["instance"].copy(), detections=self._table(arrays)
        )

    def in_use(self) -> list[object]:
        """Return what the last `launch` worked on and another may replace; see `QueryBoxSelector.in_use`."""
        return [self._masks_slot.array, self._download]

    def _find_dropped(self, active: wp.array, settings: FusionSettings) -> None:
        wp.launch(
            find_dropped, 1, device=self._device, inputs=[self._totals, active, settings.overlap_threshold],
            outputs=[self._frees, self._state, self._dropping],
        )  # fmt: skip

    def _release(self, masks: wp.array, active: wp.array, settings: FusionSettings) -> None:
        """Hand on the pixels of the detection just dropped, and find the next."""
        launch_rows(
            release, self._cells4, device=self._device, least_cells=_HELD_CELLS,
            inputs=[masks, self._held, self._state], outputs=[self._owner, self._frees],
        )  # fmt: skip
        self._find_dropped(active, settings)

    def render_masks(self, queries: QueryBoxes, membership: MaskMembership) -> np.ndarray:
        """Return the whole masks before fusion, (n, H, W) bool at the camera's size (Eq. 7)."""
        count = int(membership.active.numpy()[0])
        masks = wp.zeros((count, *self._geometry.camera_size), dtype=wp.uint8, device=self._device)
        view = self._view(queries, membership)
        wp.launch(render_masks, (count, *self._cells4), device=self._device, inputs=[view], outputs=[masks])
        return np.asarray(masks.numpy()).astype(bool)

    def _view(self, queries: QueryBoxes, membership: MaskMembership) -> wp.array:
        view = MaskView()
        view.field, view.bits, view.threshold = membership.field, membership.bits, membership.threshold
        view.active = membership.active
        view.boxes, view.labels = queries.boxes, queries.labels
        view.thing_ids, view.pixels = self._thing_ids, self._pixels4
        return self._masks_slot.hold(view)

    def _table(self, arrays: dict[str, np.ndarray]) -> DetectionTable:
        visible = np.flatnonzero(arrays["ids"])
        mask_boxes = arrays["mask_boxes"][:, visible]
        return DetectionTable(
            class_ids=self._thing_id_table[arrays["labels"][visible]],
            scores=arrays["scores"][visible],
            boxes=camera_boxes(arrays["boxes"][visible], self._geometry),
            mask_boxes=np.concatenate([mask_boxes[..., :2].min(axis=0), mask_boxes[..., 2:].max(axis=0)], axis=1),
            areas=arrays["frees"][:, visible].sum(axis=0).astype(np.uint32),
        )


def camera_boxes(boxes: np.ndarray, geometry: ImageGeometry) -> np.ndarray:
    """Return (n, 4) xyxy boxes of network px in camera px, float32, inside the camera image."""
    scale = np.array([geometry.scale_x, geometry.scale_y] * 2, np.float32)
    height, width = geometry.camera_size
    return np.clip(boxes / scale, 0, np.array([width, height] * 2, np.float32)).astype(np.float32)


assert int(NO_OWNER) == VOID  # a pixel without owner and a pixel without class are written alike
