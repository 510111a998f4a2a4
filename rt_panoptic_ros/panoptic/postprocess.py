"""Everything behind the network, stage by stage: query boxes, masks, fusion."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING

from rt_panoptic_ros.panoptic.confidence import ConfidencePainter
from rt_panoptic_ros.panoptic.fusion import PanopticFuser
from rt_panoptic_ros.panoptic.masks import MaskConstructor
from rt_panoptic_ros.panoptic.query_boxes import QueryBoxSelector

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

    from rt_panoptic_ros.records import DenseDetections, ImageGeometry, PanopticResult, QueryBoxes
    from rt_panoptic_ros.settings import PostprocessSettings

    Stage = Callable[[str], AbstractContextManager[None]]


def untimed(_stage: str) -> AbstractContextManager[None]:
    """Surround a stage with nothing."""
    return nullcontext()


class Postprocessor:
    """Holds the buffers for one set of output shapes."""

    def __init__(self, dense: DenseDetections, thing_ids: tuple[int, ...], *, capturable: bool | None = None) -> None:
        """Allocate for outputs of the shapes and the device of `dense`; `capturable` as `QueryBoxSelector`'s."""
        self._selector = QueryBoxSelector(dense, capturable=capturable)
        self._constructor = MaskConstructor(dense, thing_ids)
        self._thing_ids = thing_ids
        self._fuser: tuple[ImageGeometry, PanopticFuser] | None = None
        self._painter: tuple[ImageGeometry, ConfidencePainter] | None = None
        self._with_confidence = False  # of the last launch

    def launch(
        self,
        dense: DenseDetections,
        geometry: ImageGeometry,
        settings: PostprocessSettings,
        stage: Stage = untimed,
        *,
        confidence: bool = False,
    ) -> None:
        """Enqueue all stages; `result` waits for them.

        Args:
            dense: The network's outputs.
            geometry: How the camera's image lies in the network's input.
            settings: Of all stages.
            stage: Makes what surrounds a stage, given its name, as to time it.
            confidence: Whether the result shall have it.
        """
        with stage("query_boxes"):
            queries = self._selector.select(dense, geometry.content_size, settings.query_boxes)
        with stage("masks"):
            score_threshold = settings.fusion.score_threshold
            membership = self._constructor.construct(dense, queries, settings.masks, score_threshold=score_threshold)
        with stage("fusion"):
            self._fuser_for(dense, geometry).launch(dense, queries, membership, settings.fusion)
        self._with_confidence = confidence
        if confidence:
            with stage("confidence"):
                self._painter_for(dense, geometry).launch(dense)

    def result(self) -> PanopticResult:
        """Wait for the last `launch`; return what it gave, in arrays of the caller's own."""
        if self._fuser is None:
            raise RuntimeError("launch a frame before asking for its result")
        result = self._fuser[1].result()
        if self._with_confidence and self._painter is not None:
            return replace(result, confidence=self._painter[1].result())
        return result

    def masks(
        self, dense: DenseDetections, geometry: ImageGeometry, settings: PostprocessSettings
    ) -> tuple[QueryBoxes, np.ndarray]:
        """Return all query boxes, whatever their score, and their whole masks (n, H, W) bool at the camera's size."""
        queries = self._selector.select(dense, geometry.content_size, settings.query_boxes)
        membership = self._constructor.construct(dense, queries, settings.masks)
        return queries, self._fuser_for(dense, geometry).render_masks(queries, membership)

    def _fuser_for(self, dense: DenseDetections, geometry: ImageGeometry) -> PanopticFuser:
        if self._fuser is None or self._fuser[0] != geometry:
            self._fuser = geometry, PanopticFuser(dense, self._thing_ids, geometry)
        return self._fuser[1]

    def _painter_for(self, dense: DenseDetections, geometry: ImageGeometry) -> ConfidencePainter:
        if self._painter is None or self._painter[0] != geometry:
            self._painter = geometry, ConfidencePainter(dense, geometry)
        return self._painter[1]
