# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Mask construction (Eq. 5-7, 14): which query boxes each point of the stride-4 grid belongs to.

At a grid point, the pixel's own box comes from the level that levelness picks; its agreement with a query box, times
the probability of the query's class, is the mask probability.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import warp as wp

from rt_panoptic_ros.panoptic.launching import (
    HELD_CELLS,
    StructSlot,
    divided,
    launch,
    launch_blocks,
    launch_rows,
    spanned,
)
from rt_panoptic_ros.panoptic.mask_field import MaskField
from rt_panoptic_ros.panoptic.mask_kernels import fill_points, find_best_classes, find_members, group_by_thing
from rt_panoptic_ros.panoptic.sampling import Bits, Level
from rt_panoptic_ros.records import VOID, DenseDetections, MaskMembership, QueryBoxes
from rt_panoptic_ros.settings import MAX_DETECTIONS

if TYPE_CHECKING:
    from rt_panoptic_ros.settings import MaskSettings

_POINTS = 4  # of the stride-4 grid by cell of the stride-8 grid
_LOG_MARGIN = 1e-3  # far above the rounding of logits, so that culling by them never changes a result


class MaskConstructor:
    """Holds the buffers for one set of output shapes."""

    def __init__(self, dense: DenseDetections, thing_ids: tuple[int, ...]) -> None:
        """Allocate for outputs of the shapes and the device of `dense`; `thing_ids` are the things' class ids."""
        device = dense.semantic_logits.device
        _, height, width = dense.semantic_logits.shape
        self._cells, grid = (height, width), (2 * height, 2 * width)
        things_of = [thing_ids.index(c) if c in thing_ids else -1 for c in range(VOID + 1)]
        self._no_levelness = wp.zeros((0, 0, 0), dtype=wp.float32, device=device)
        self._buffers = {
            "thing_ids": wp.array(thing_ids, dtype=wp.int32, device=device),
            "things_of": wp.array(things_of, dtype=wp.int32, device=device),
            "active": wp.zeros(1, dtype=wp.int32, device=device),
            "starts": wp.zeros(len(thing_ids) + 1, dtype=wp.int32, device=device),
            "members": wp.zeros(MAX_DETECTIONS, dtype=wp.int32, device=device),
            "member_sides": wp.zeros((4, MAX_DETECTIONS + 8), dtype=wp.float32, device=device),
            "best_classes": wp.zeros(self._cells, dtype=wp.uint8, device=device),
            "leads": wp.zeros(self._cells, dtype=wp.float32, device=device),
            "best_things": wp.zeros(self._cells, dtype=wp.float32, device=device),
            "log_normalizer": wp.zeros(grid, dtype=wp.float32, device=device),
            "own_boxes": wp.zeros(grid, dtype=wp.vec4, device=device),
            "bits": wp.zeros(grid, dtype=Bits, device=device),
        }
        self._levels = StructSlot(Level, device)
        self._field = StructSlot(MaskField, device)

    def construct(self, dense: DenseDetections, queries: QueryBoxes, settings: MaskSettings) -> MaskMembership:
        """Return the membership of the grid points, valid until the next call.

        Args:
            dense: The network's outputs.
            queries: The query boxes.
            settings: Similarity and thresholds; query boxes below that of the score take no part.
        """
        membership = self.begin(dense, queries, settings)
        self.find_classes(membership)
        self.find_members(membership, queries, settings)
        return membership

    def begin(self, dense: DenseDetections, queries: QueryBoxes, settings: MaskSettings) -> MaskMembership:
        """Return what `find_classes` and then `find_members` fill; the query boxes need not be selected yet."""
        levelness = dense.levelness_logits
        field = self._field.hold(
            {
                **self._buffers,
                "logits": dense.semantic_logits,
                "levelness": self._no_levelness if levelness is None else levelness,
                "levels": self._levels.hold(*({"offsets": offsets} for offsets in dense.box_offsets)),
                "use_levelness": levelness is not None,
                "use_published_similarity": settings.similarity == "giou",
                "boxes": queries.boxes,
                "labels": queries.labels,
                "undefined": queries.undefined,
                "threshold": settings.mask_threshold,
                "gap": _LOG_MARGIN - math.log(settings.mask_threshold),
            }
        )
        return MaskMembership(self._buffers["best_classes"], self._buffers["active"], field)

    def find_classes(self, membership: MaskMembership) -> None:
        """Find the best classes of the stride-8 cells, for `find_members` and the semantics."""
        shape, span = spanned(membership.field.device, self._cells)
        launch(find_best_classes, shape, membership.field, span)

    def find_members(self, membership: MaskMembership, queries: QueryBoxes, settings: MaskSettings) -> None:
        """Find which query boxes each grid point belongs to, with the arguments of `begin`."""
        field, (rows, columns) = membership.field, self._cells
        launch_blocks(group_by_thing, 1, field, queries.scores, queries.count, settings.score_threshold)
        parts = divided(field.device, _POINTS)
        share = _POINTS // parts
        launch_rows(find_members, (rows + 1, parts, columns + 1), field, share, spans=True)
        launch_rows(fill_points, (rows, parts, columns), field, share, least_cells=HELD_CELLS, spans=True)

    def in_use(self) -> list[object]:
        """Return what the last `construct` worked on and another may replace; see `QueryBoxSelector.in_use`."""
        return [self._levels.array, self._field.array]
