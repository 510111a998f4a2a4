# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Everything behind the network, stage by stage: query boxes, masks, fusion."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from rt_panoptic_ros.panoptic import fusion_kernels, mask_kernels, painting, query_boxes, semantics, suppression
from rt_panoptic_ros.panoptic.fusion import PanopticFuser
from rt_panoptic_ros.panoptic.launching import Beside
from rt_panoptic_ros.panoptic.masks import MaskConstructor
from rt_panoptic_ros.panoptic.query_boxes import QueryBoxSelector
from rt_panoptic_ros.panoptic.semantics import ConfidencePainter
from rt_panoptic_ros.records import LABELS
from rt_panoptic_ros.warp_runtime import load_kernels

if TYPE_CHECKING:
    from collections.abc import Callable

    import warp as wp

    from rt_panoptic_ros.records import DenseDetections, ImageGeometry, PanopticResult, QueryBoxes
    from rt_panoptic_ros.settings import PostprocessSettings

    Stage = Callable[[str], AbstractContextManager[None]]


def untimed(_stage: str) -> AbstractContextManager[None]:
    """Surround a stage with nothing."""
    return nullcontext()


def load_postprocessing(device: wp.Device | str) -> None:
    """Load the kernels of all stages, those of the confidence too; see `load_kernels`."""
    load_kernels((query_boxes, suppression, mask_kernels, fusion_kernels, painting, semantics), device)


class Postprocessor:
    """Holds the buffers for one set of output shapes and one geometry."""

    def __init__(
        self,
        dense: DenseDetections,
        thing_ids: tuple[int, ...],
        geometry: ImageGeometry,
        *,
        capturable: bool | None = None,
    ) -> None:
        """Allocate for outputs of the shapes and the device of `dense`.

        Args:
            dense: The network's outputs.
            thing_ids: The things' class ids.
            geometry: How the camera's image lies in the network's input.
            capturable: As `QueryBoxSelector`'s.
        """
        load_postprocessing(dense.semantic_logits.device)
        self._geometry = geometry
        self._selector = QueryBoxSelector(dense, capturable=capturable)
        self._constructor = MaskConstructor(dense, thing_ids)
        self._fuser = PanopticFuser(dense, thing_ids, geometry)
        self._painter: ConfidencePainter | None = None  # made when first asked for

    def launch(
        self,
        dense: DenseDetections,
        settings: PostprocessSettings,
        stage: Stage = untimed,
        *,
        images: frozenset[str] = LABELS,
    ) -> None:
        """Enqueue all stages; `result` waits for them.

        Args:
            dense: The network's outputs.
            settings: Of all stages.
            stage: Makes what surrounds a stage, given its name, as to time it.
            images: Those of `records.IMAGES` that the result shall have.
        """
        queries = self._selector.result
        with Beside(dense.semantic_logits.device) as beside:
            with stage("query_boxes"):
                membership = self._constructor.begin(dense, queries, settings.masks)
                beside.begin(partial(self._constructor.find_classes, membership))  # what needs no query boxes
                if "semantic" in images:
                    beside.begin(partial(self._fuser.paint_semantics, dense, membership))
                self._selector.select(dense, self._geometry.content_size, settings.query_boxes)
            with stage("masks"):
                beside.end_next()
                self._constructor.find_members(membership, queries, settings.masks)
            with stage("fusion"):
                self._fuser.launch(queries, membership, settings.fusion, beside.end_next, images=images)
        if "confidence" in images:
            if self._painter is None:
                self._painter = ConfidencePainter(dense, self._geometry)
            with stage("confidence"):
                self._painter.launch(dense)

    def in_use(self) -> list[object]:
        """Return what the last `launch` worked on and another may replace; see `QueryBoxSelector.in_use`."""
        return [*self._selector.in_use(), *self._constructor.in_use()]

    def result(self, *, images: frozenset[str] = LABELS) -> PanopticResult:
        """Wait for the last `launch`, of the same `images`; return arrays of the caller's own."""
        result = self._fuser.result(images=images)
        if "confidence" in images and self._painter is not None:
            result = replace(result, confidence=self._painter.result())
        return result

    def masks(self, dense: DenseDetections, settings: PostprocessSettings) -> tuple[QueryBoxes, np.ndarray]:
        """Return all query boxes, whatever their score, and their whole masks (n, H, W) bool at the camera's size."""
        queries = self._selector.select(dense, self._geometry.content_size, settings.query_boxes)
        membership = self._constructor.construct(dense, queries, replace(settings.masks, score_threshold=0.0))
        return queries, self._fuser.render_masks(membership)
