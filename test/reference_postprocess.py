# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The reference implementation of the post-processing: the dense algebra as written in the paper, in NumPy.

The tests compare the kernels with it, the benchmarks their times. Vectorised and straightforward, nothing is made slow
on purpose; every mask of every detection is made at full size.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np

from rt_panoptic_ros.panoptic.fusion import camera_boxes
from rt_panoptic_ros.panoptic.pixel_map import axis_positions
from rt_panoptic_ros.records import STRIDES, VOID, DenseDetections, DetectionTable, ImageGeometry, PanopticResult
from rt_panoptic_ros.settings import FusionSettings, MaskSettings, PostprocessSettings, QueryBoxSettings


@dataclass(frozen=True, slots=True)
class HostQueryBoxes:
    """`records.QueryBoxes` without spare capacity, on the host."""

    boxes: np.ndarray  # (n, 4) float32, xyxy network px
    scores: np.ndarray  # (n,) float32
    labels: np.ndarray  # (n,) int: index among the things


def postprocess(
    dense: DenseDetections,
    thing_ids: tuple[int, ...],
    geometry: ImageGeometry,
    settings: PostprocessSettings,
    stage: Callable[[str], AbstractContextManager[None]],
) -> PanopticResult:
    """Return what `Postprocessor` does, stage by stage; `stage` makes what surrounds one, as there."""
    with stage("query_boxes"):
        queries = select_query_boxes(dense, geometry.content_size, settings.query_boxes)
    with stage("masks"):
        count = int((queries.scores >= np.float32(settings.masks.score_threshold)).sum())
        queries = HostQueryBoxes(queries.boxes[:count], queries.scores[:count], queries.labels[:count])
        masks = full_masks(dense, queries, thing_ids, geometry, settings.masks)
    with stage("fusion"):
        return fuse_panoptic(dense, queries, masks, thing_ids, geometry, settings.fusion)


def select_query_boxes(
    dense: DenseDetections, content_size: tuple[int, int], settings: QueryBoxSettings
) -> HostQueryBoxes:
    """Return the query boxes (Eq. 4): threshold, top-k per level, suppression per class, then over all."""
    boxes, scores, labels = (np.concatenate(parts) for parts in zip(*_proposals(dense, settings), strict=True))
    limits = np.array([content_size[1], content_size[0]] * 2, np.float32) - 1
    boxes = np.clip(boxes, 0, limits)
    order = np.argsort(-scores, kind="stable")
    survivors: list[int] = []
    kept: list[int] = []
    for i in order:
        rivals = [j for j in survivors if labels[j] == labels[i]]
        if rivals and iou(boxes[rivals], boxes[i]).max() > np.float32(settings.nms_threshold):
            continue
        survivors.append(i)
        if kept and iou(boxes[kept], boxes[i]).max() > np.float32(settings.global_nms_threshold):
            continue
        kept.append(i)
        if len(kept) == settings.max_detections:
            break
    return HostQueryBoxes(boxes[kept], scores[kept], labels[kept])


def _proposals(dense: DenseDetections, settings: QueryBoxSettings) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Return boxes (n, 4), scores (n,) and labels (n,) of each level, by falling score."""
    result = []
    for stride, class_logits, offsets, centerness in zip(
        STRIDES, dense.box_class_logits, dense.box_offsets, dense.centerness_logits, strict=True
    ):
        probability = sigmoid(class_logits.numpy()).transpose(1, 2, 0)  # (h, w, T)
        y, x, label = np.nonzero(probability > np.float32(settings.pre_nms_threshold))
        score = probability[y, x, label] * sigmoid(centerness.numpy())[0, y, x]
        best = np.argsort(-score, kind="stable")[: settings.pre_nms_top_k]
        y, x, label, score = y[best], x[best], label[best], score[best]
        result.append((offset_boxes(offsets.numpy(), stride)[y, x], score, label))
    return result


def offset_boxes(offsets: np.ndarray, stride: int) -> np.ndarray:
    """Return the boxes (h, w, 4), xyxy px, of offsets (4, h, w) at cells `stride` px apart (Eq. 8)."""
    _, height, width = offsets.shape
    x = np.arange(width, dtype=np.float32) * stride + stride // 2
    y = (np.arange(height, dtype=np.float32) * stride + stride // 2)[:, None]
    left, top, right, bottom = offsets
    return np.stack([x - left, y - top, x + right, y + bottom], axis=-1)


def mask_probabilities(
    dense: DenseDetections, queries: HostQueryBoxes, thing_ids: tuple[int, ...], settings: MaskSettings
) -> np.ndarray:
    """Return the mask probability (n, 2h, 2w) of each query box at the stride-4 grid (Eq. 5, 6, 14, A22-A23)."""
    logits = dense.semantic_logits.numpy()
    grid = (2 * logits.shape[1], 2 * logits.shape[2])
    logits = upsampled(logits, grid)
    highest = logits.max(axis=0)
    log_normalizer = highest + np.log(np.exp(logits - highest).sum(axis=0))
    level_boxes = np.stack([offset_boxes(upsampled(offsets.numpy(), grid), 4) for offsets in dense.box_offsets])
    if dense.levelness_logits is not None:
        level = dense.levelness_logits.numpy()[1:].argmax(axis=0)
        level_boxes = np.take_along_axis(level_boxes, level[None, ..., None], axis=0)
    similarity = published_similarity if settings.similarity == "giou" else iou
    result = np.empty((len(queries.scores), *grid), np.float32)
    for j, (box, label) in enumerate(zip(queries.boxes, queries.labels, strict=True)):
        probability = np.exp(logits[thing_ids[label]] - log_normalizer)
        result[j] = probability * similarity(level_boxes, box).max(axis=0)
    return result


def full_masks(
    dense: DenseDetections,
    queries: HostQueryBoxes,
    thing_ids: tuple[int, ...],
    geometry: ImageGeometry,
    settings: MaskSettings,
) -> np.ndarray:
    """Return the masks (n, H, W) bool at the camera's size (Eq. 7)."""
    probabilities = mask_probabilities(dense, queries, thing_ids, settings)
    masks = np.zeros((len(probabilities), *geometry.camera_size), bool)
    for mask, probability in zip(masks, probabilities, strict=True):
        mask[:] = camera_sampled(probability[None], geometry, 4)[0] >= np.float32(settings.mask_threshold)
    return masks


def fuse_panoptic(
    dense: DenseDetections,
    queries: HostQueryBoxes,
    masks: np.ndarray,
    thing_ids: tuple[int, ...],
    geometry: ImageGeometry,
    settings: FusionSettings,
) -> PanopticResult:
    """Return the panoptic labelling of masks (n, H, W) and semantics, one detection after another."""
    semantic = camera_sampled(dense.semantic_logits.numpy(), geometry, 8).argmax(axis=0).astype(np.uint8)
    instance = np.zeros(geometry.camera_size, np.uint16)
    rows: list[tuple[int, tuple[int, int, int, int], int]] = []
    for j, mask in enumerate(masks):
        total = int(mask.sum())
        free = mask & (instance == 0)
        area = int(free.sum())
        overlaps = np.float32(total - area) > np.float32(settings.overlap_threshold) * np.float32(total)
        if overlaps or area == 0:
            continue
        y, x = np.nonzero(free)
        rows.append((j, (x.min(), y.min(), x.max(), y.max()), area))
        instance[free] = len(rows)
        semantic[free] = thing_ids[queries.labels[j]]
    for c in set(range(dense.semantic_logits.shape[0])) - set(thing_ids):
        region = (semantic == c) & (instance == 0)
        if region.sum() < settings.stuff_area_min:
            semantic[region] = VOID
    kept = [j for j, _, _ in rows]
    table = DetectionTable(
        class_ids=np.array([thing_ids[queries.labels[j]] for j in kept], np.uint8),
        scores=queries.scores[kept],
        boxes=camera_boxes(queries.boxes[kept].reshape(-1, 4), geometry),
        mask_boxes=np.array([box for _, box, _ in rows], np.int32).reshape(-1, 4),
        areas=np.array([area for _, _, area in rows], np.uint32),
    )
    return PanopticResult(semantic, instance, table)


def iou(boxes: np.ndarray, query: np.ndarray) -> np.ndarray:
    """Return the intersection over union of boxes (..., 4) and one query box (4,); 0 where both are empty."""
    common, union, _ = _areas(boxes, query)
    result: np.ndarray = np.divide(common, union, out=np.zeros_like(common), where=union > 0)
    return result


def published_similarity(boxes: np.ndarray, query: np.ndarray) -> np.ndarray:
    """Return (I + 1)/(U + 1) - (C - U)/C of boxes (..., 4) and one query box, as the published code computes it."""
    common, union, enclosing = _areas(boxes, query)
    enclosing = enclosing + np.float32(1e-7)
    result: np.ndarray = (common + 1) / (union + 1) - (enclosing - union) / enclosing
    return result


def _areas(boxes: np.ndarray, query: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the areas of intersection, union and enclosing box."""
    low, high = np.minimum(boxes, query), np.maximum(boxes, query)
    common = (low[..., 2] - high[..., 0]).clip(0) * (low[..., 3] - high[..., 1]).clip(0)
    own = (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])
    union = own + (query[2] - query[0]) * (query[3] - query[1]) - common
    enclosing = (high[..., 2] - low[..., 0]) * (high[..., 3] - low[..., 1])
    return common, union, enclosing


def sigmoid(x: np.ndarray) -> np.ndarray:
    """Return 1 / (1 + exp(-x))."""
    result: np.ndarray = 1 / (1 + np.exp(-x))
    return result


def upsampled(planes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return (C, h, w) resized bilinearly to (C, *size), align_corners false."""
    rows = axis_positions(size[0], planes.shape[1] / size[0], planes.shape[1])
    columns = axis_positions(size[1], planes.shape[2] / size[1], planes.shape[2])
    return _interpolated(planes, rows, columns)


def camera_sampled(planes: np.ndarray, geometry: ImageGeometry, stride: int) -> np.ndarray:
    """Return (C, h, w), cells `stride` network px apart, sampled bilinearly at the camera's pixels: (C, H, W)."""
    rows = axis_positions(geometry.camera_height, geometry.scale_y / stride, planes.shape[1])
    columns = axis_positions(geometry.camera_width, geometry.scale_x / stride, planes.shape[2])
    return _interpolated(planes, rows, columns)


def _interpolated(
    planes: np.ndarray, rows: tuple[np.ndarray, np.ndarray], columns: tuple[np.ndarray, np.ndarray]
) -> np.ndarray:
    y0, wy = rows[0], rows[1][:, None]
    x0, wx = columns
    y1, x1 = np.minimum(y0 + 1, planes.shape[1] - 1), np.minimum(x0 + 1, planes.shape[2] - 1)
    across = (1 - wx) * planes[:, :, x0] + wx * planes[:, :, x1]
    result: np.ndarray = (1 - wy) * across[:, y0] + wy * across[:, y1]
    return result
