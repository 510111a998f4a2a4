"""Panoptic fusion at the camera's resolution (Section 3.2, after Kirillov et al.): one label per pixel.

Detections come by falling score. One whose mask is already claimed for more than the overlap threshold is dropped;
else it takes its unclaimed pixels. Here every pixel first goes to its best detection; then each dropped detection's
pixels go on to their next.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import warp as wp

from rt_panoptic_ros.panoptic.fusion_kernels import (
    NO_OWNER,
    Labelling,
    claim,
    count_classes,
    find_dropped,
    number,
    paint_instances,
    release,
    render_masks,
    void_small_stuff,
)
from rt_panoptic_ros.panoptic.launching import LEAST_CELLS, Download, StructSlot, band_count, launch, launch_rows
from rt_panoptic_ros.panoptic.pixel_map import make_pixel_map
from rt_panoptic_ros.panoptic.semantics import paint_semantics
from rt_panoptic_ros.records import VOID, DenseDetections, DetectionTable, ImageGeometry, MaskMembership, PanopticResult
from rt_panoptic_ros.settings import MAX_DETECTIONS

if TYPE_CHECKING:
    from rt_panoptic_ros.records import QueryBoxes
    from rt_panoptic_ros.settings import FusionSettings

_HELD_CELLS = 4 * LEAST_CELLS  # most stride-4 cells hold nothing and cost little


class PanopticFuser:
    """Holds the buffers for one geometry."""

    def __init__(self, dense: DenseDetections, thing_ids: tuple[int, ...], geometry: ImageGeometry) -> None:
        """Allocate for outputs of the shapes and the device of `dense`, and the camera's size."""
        device = dense.semantic_logits.device
        self._geometry = geometry
        self._thing_ids = np.array(thing_ids, np.uint8)
        classes, height, width = dense.semantic_logits.shape
        self._cells8 = (height, width)
        self._cells4 = (2 * height, 2 * width)
        self._pixels8 = make_pixel_map(geometry, 8, self._cells8, device)
        self._pixels4 = make_pixel_map(geometry, 4, self._cells4, device)
        bands = band_count(device)
        self._arrays = {
            "held": wp.zeros(self._cells4, dtype=wp.uint8, device=device),
            "owner": wp.zeros(geometry.camera_size, dtype=wp.uint8, device=device),
            "semantic": wp.zeros(geometry.camera_size, dtype=wp.uint8, device=device),
            "instance": wp.zeros(geometry.camera_size, dtype=wp.uint16, device=device),
            "totals": wp.zeros((bands, MAX_DETECTIONS), dtype=wp.int32, device=device),
            "areas": wp.zeros((bands, MAX_DETECTIONS), dtype=wp.int32, device=device),
            "mask_boxes": wp.zeros((bands, MAX_DETECTIONS, 4), dtype=wp.int32, device=device),
            "ids": wp.zeros(MAX_DETECTIONS, dtype=wp.int32, device=device),
            "state": wp.zeros(2, dtype=wp.int32, device=device),
            "dropping": wp.zeros(1, dtype=wp.int32, device=device),
            "class_areas": wp.zeros(classes, dtype=wp.int32, device=device),
        }
        self._labelling = StructSlot(Labelling, device).hold({**self._arrays, "pixels": self._pixels4})
        no_box = np.tile(np.array([2**31 - 1, 2**31 - 1, -1, -1], np.int32), (bands, MAX_DETECTIONS, 1))
        self._no_boxes = wp.array(no_box, dtype=wp.int32, device=device)
        self._queries: QueryBoxes | None = None  # those of the last launch
        self._download = Download({})

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
        field, labelling, arrays = membership.field, self._labelling, self._arrays
        if self._queries is not queries:
            self._queries = queries
            results = {name: arrays[name] for name in ("semantic", "instance", "ids", "areas", "mask_boxes")}
            self._download = Download(
                {**results, "boxes": queries.boxes, "scores": queries.scores, "labels": queries.labels}
            )
        for counter in ("totals", "areas", "state", "instance", "class_areas"):
            arrays[counter].zero_()
        wp.copy(arrays["mask_boxes"], self._no_boxes)
        launch_rows(
            paint_semantics, self._cells8, dense.semantic_logits, membership.best_classes, self._pixels8,
            arrays["semantic"],
        )  # fmt: skip
        launch_rows(claim, self._cells4, field, labelling, least_cells=_HELD_CELLS)
        launch(find_dropped, 1, field, settings.overlap_threshold, labelling)

        def hand_on() -> None:
            launch_rows(release, self._cells4, field, labelling, least_cells=_HELD_CELLS)
            launch(find_dropped, 1, field, settings.overlap_threshold, labelling)

        wp.capture_while(arrays["dropping"], hand_on)
        launch(number, 1, field, labelling)
        launch_rows(paint_instances, self._cells4, field, labelling, least_cells=_HELD_CELLS)
        if settings.stuff_area_min > 0:
            launch(count_classes, self._geometry.camera_size, labelling)
            launch(void_small_stuff, self._geometry.camera_size, field, settings.stuff_area_min, labelling)
        self._download.enqueue()

    def result(self) -> PanopticResult:
        """Wait for the last `launch`; return the labels of every camera pixel and the table of visible objects.

        The arrays are the caller's own.
        """
        arrays = self._download.views()
        visible = np.flatnonzero(arrays["ids"])
        mask_boxes = arrays["mask_boxes"][:, visible]
        table = DetectionTable(
            class_ids=self._thing_ids[arrays["labels"][visible]],
            scores=arrays["scores"][visible],
            boxes=camera_boxes(arrays["boxes"][visible], self._geometry),
            mask_boxes=np.concatenate([mask_boxes[..., :2].min(axis=0), mask_boxes[..., 2:].max(axis=0)], axis=1),
            areas=arrays["areas"][:, visible].sum(axis=0).astype(np.uint32),
        )
        return PanopticResult(arrays["semantic"].copy(), arrays["instance"].copy(), table)

    def in_use(self) -> list[object]:
        """Return what the last `launch` worked on and another may replace; see `QueryBoxSelector.in_use`."""
        return [self._download]

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
