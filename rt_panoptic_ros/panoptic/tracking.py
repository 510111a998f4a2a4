# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Instance ids that stay: objects are matched from frame to frame by class and mask overlap.

The rules:

- An object and a track can match if they have the same class and their masks' IoU, the track's as last seen, is at
  least `MIN_OVERLAP`; among all pairs, the assignment of highest total IoU is taken.
- Birth: an object without a match gets the next id in turn, 1 to 32767 and from the start again, skipping those in use.
- Loss: a track without a match is remembered for `MEMORY_FRAMES` frames, then forgotten; its id may come again after
  32767 others.
- Reset: `reset` forgets all and begins with id 1, as does an image of another size, or one whose stamp lies more than
  `STEP_BACK_NS` before the latest (a bag that begins again).
"""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from rt_panoptic_ros.records import PanopticResult

MIN_OVERLAP = 0.2
"""Of 0.05 to 0.3, this made the fewest id switches on CamVid's training drives (docs/performance.md)."""

MEMORY_FRAMES = 10

STEP_BACK_NS = 250_000_000
"""Clocks that are set right (ntpd steps above 0.128 s) and frames that come out of order (two at 10 Hz) step back by
less; a recording that begins again goes back by more, as all but the shortest last longer."""

LAST_ID = 32767
"""The largest that the upper half of the panoptic image's signed 32 bits can hold."""

_NEVER_NS = -(2**63)  # before all stamps


@dataclass(frozen=True, slots=True)
class InstanceMask:
    """An object's pixels: a mask and where its top left pixel lies."""

    class_id: int
    x: int
    y: int
    mask: np.ndarray  # (h, w) bool
    area: int

    def iou(self, other: InstanceMask) -> float:
        """Return the intersection over union of two objects' pixels."""
        left, top = max(self.x, other.x), max(self.y, other.y)
        right = min(self.x + self.mask.shape[1], other.x + other.mask.shape[1])
        bottom = min(self.y + self.mask.shape[0], other.y + other.mask.shape[0])
        if left >= right or top >= bottom:
            return 0.0
        mine = self.mask[top - self.y : bottom - self.y, left - self.x : right - self.x]
        theirs = other.mask[top - other.y : bottom - other.y, left - other.x : right - other.x]
        common = int(np.count_nonzero(mine & theirs))
        return common / (self.area + other.area - common)


@dataclass(slots=True)
class _Track:
    id: int
    seen: InstanceMask
    missed: int = 0  # frames since it was last seen


class InstanceTracker:
    """Follows the objects of one camera."""

    def __init__(self, min_overlap: float = MIN_OVERLAP, last_id: int = LAST_ID) -> None:
        """Begin without tracks.

        Args:
            min_overlap: The least IoU of a match.
            last_id: The id after which 1 is in turn again.
        """
        self._min_overlap, self._last_id = min_overlap, last_id
        self._tracks: list[_Track] = []
        self._next_id = 1
        self._stamp_ns = _NEVER_NS  # the latest since the reset
        self._size: tuple[int, ...] = (0, 0)

    def reset(self) -> None:
        """Forget all objects."""
        self._tracks, self._next_id, self._stamp_ns = [], 1, _NEVER_NS

    def update(self, result: PanopticResult, stamp_ns: int = 0) -> np.ndarray:
        """Return the lasting id of each of a frame's objects, in the order of its table.

        Args:
            result: Of the next frame, with its instance image; objects that its table doesn't list are none, whatever
            the image shows.
            stamp_ns: The frame's stamp; 0 where frames have none.

        Returns:
            (n,) uint16, 1 to 32767, all different.
        """
        if result.instance.shape != self._size or stamp_ns < self._stamp_ns - STEP_BACK_NS:
            self.reset()
        self._size, self._stamp_ns = result.instance.shape, max(self._stamp_ns, stamp_ns)
        objects = _instance_masks(result)
        matches = _match(objects, [track.seen for track in self._tracks], self._min_overlap)
        for track in self._tracks:
            track.missed += 1
        ids = np.zeros(len(objects), np.uint16)
        for row, column in matches:
            track = self._tracks[column]
            track.seen, track.missed = objects[row], 0
            ids[row] = track.id
        self._tracks = [track for track in self._tracks if track.missed <= MEMORY_FRAMES]
        for row in np.flatnonzero(ids == 0).tolist():
            track = _Track(self._new_id(), objects[row])
            self._tracks.append(track)
            ids[row] = track.id
        return ids

    def state(self) -> bytes:
        """Return all that the next frames' ids depend on, to be kept in a file."""
        rows = [
            (track.id, track.missed, track.seen.class_id, track.seen.x, track.seen.y, track.seen.area,
             *track.seen.mask.shape)
            for track in self._tracks
        ]  # fmt: skip
        masks = [track.seen.mask.ravel() for track in self._tracks]
        file = io.BytesIO()
        np.savez(
            file,
            tracker=np.array([*self._size, self._next_id, self._stamp_ns], np.int64),
            tracks=np.array(rows, np.int64).reshape(-1, 8),
            masks=np.packbits(np.concatenate([np.zeros(0, bool), *masks])),
        )
        return file.getvalue()

    def restore(self, state: bytes) -> None:
        """Go on from where `state` was taken."""
        with np.load(io.BytesIO(state), allow_pickle=False) as arrays:
            *size, self._next_id, self._stamp_ns = arrays["tracker"].tolist()
            tracks, pixels = arrays["tracks"].tolist(), np.unpackbits(arrays["masks"]).astype(bool)
        self._size, self._tracks = tuple(size), []
        for number, missed, class_id, x, y, area, height, width in tracks:
            mask, pixels = pixels[: height * width].reshape(height, width), pixels[height * width :]
            self._tracks.append(_Track(number, InstanceMask(class_id, x, y, mask, area), missed))

    def _new_id(self) -> int:
        used = {track.id for track in self._tracks}
        while self._next_id in used:
            self._next_id = self._next_id % self._last_id + 1
        new = self._next_id
        self._next_id = new % self._last_id + 1
        return new


def with_ids(result: PanopticResult, ids: np.ndarray) -> PanopticResult:
    """Return a result with other ids; pixels of objects that its table doesn't list belong to none then.

    Args:
        result: Of a frame.
        ids: (n,) uint16 from 1, all different, in the order of the table.
    """
    new = np.zeros(1 << 16, np.uint16)
    new[result.detections.ids] = ids
    instance = result.instance
    if instance.max(initial=0) > 255:
        instance = new[instance]
    elif instance.size:  # as fusion numbers them: OpenCV's table of bytes is five times as fast
        instance = cv2.LUT(instance.astype(np.uint8), new[:256])
    return replace(result, instance=instance, detections=replace(result.detections, ids=ids))


def _instance_masks(result: PanopticResult) -> list[InstanceMask]:
    table = result.detections
    masks = []
    for row, (left, top, right, bottom) in enumerate(table.mask_boxes.tolist()):
        mask = result.instance[top : bottom + 1, left : right + 1] == table.ids[row]
        masks.append(InstanceMask(int(table.class_ids[row]), left, top, mask, int(table.areas[row])))
    return masks


def _match(objects: list[InstanceMask], tracks: list[InstanceMask], least: float) -> list[tuple[int, int]]:
    """Return (object, track) pairs of the highest total overlap, none below the least."""
    overlaps = np.array(
        [[mine.iou(track) if mine.class_id == track.class_id else 0.0 for track in tracks] for mine in objects]
    ).reshape(len(objects), len(tracks))
    overlaps[overlaps < least] = 0.0
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(overlaps, maximize=True)
    return [(int(row), int(column)) for row, column in zip(rows, columns, strict=True) if overlaps[row, column] > 0]
