"""Non-maximum suppression: of proposals by falling score, which are kept (Eq. 4).

A proposal is removed from its class by a better one of that class that overlaps it by more than a threshold, and from
the result by any better one in it that overlaps it by more than another. One that the second rule removes has survived
in its class and still suppresses there. Each decision depends on higher scores only, so one walk down the scores makes
both.

There are two ways, of the same result to the bit. On the CPU one thread compares a proposal only with the survivors
before it, and stops when the result is full. On a GPU, where that would be one slow thread, all pairs are compared in
parallel first and the walk only combines bits; on the CPU that takes many times as long (docs/performance.md).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import warp as wp

from rt_panoptic_ros.panoptic.launching import launch
from rt_panoptic_ros.panoptic.sampling import box_iou, lowest_bit, word_with_bit

if TYPE_CHECKING:
    from rt_panoptic_ros.settings import QueryBoxSettings

wp.set_module_options({"enable_backward": False})


@wp.struct
class ScoredBoxes:
    """Boxes by falling score, as many as `count[0]` says."""

    boxes: wp.array(dtype=wp.vec4)  # xyxy network px
    scores: wp.array(dtype=wp.float32)
    labels: wp.array(dtype=wp.int32)  # index among the things
    count: wp.array(dtype=wp.int32)


@wp.func
def _keep(
    proposals: wp.array(dtype=ScoredBoxes), rank: wp.int32, kept: wp.array(dtype=ScoredBoxes), place: wp.int32
) -> None:
    kept[0].boxes[place] = proposals[0].boxes[rank]
    kept[0].scores[place] = proposals[0].scores[rank]
    kept[0].labels[place] = proposals[0].labels[rank]


@wp.kernel
def _suppress_serially(
    proposals: wp.array(dtype=ScoredBoxes),
    class_threshold: wp.float32,
    global_threshold: wp.float32,
    max_detections: wp.int32,
    survivors: wp.array(dtype=wp.int32),  # ranks of those that survived in their class
    kept: wp.array(dtype=ScoredBoxes),
) -> None:
    """Walk down the scores, comparing with survivors only."""
    boxes = proposals[0].boxes
    labels = proposals[0].labels
    kept_boxes = kept[0].boxes
    count = int(0)
    survived = int(0)
    for rank in range(proposals[0].count[0]):
        if count == max_detections:
            break
        box = boxes[rank]
        label = labels[rank]
        removed_from_class = bool(False)
        for i in range(survived):
            other = survivors[i]
            if labels[other] == label and box_iou(boxes[other], box) > class_threshold:
                removed_from_class = True
                break
        if not removed_from_class:
            survivors[survived] = rank
            survived += 1
            removed = bool(False)
            for i in range(count):
                if box_iou(kept_boxes[i], box) > global_threshold:
                    removed = True
                    break
            if not removed:
                _keep(proposals, rank, kept, count)
                count += 1
    kept[0].count[0] = count


@wp.kernel
def _compare_all(
    proposals: wp.array(dtype=ScoredBoxes),
    class_threshold: wp.float32,
    global_threshold: wp.float32,
    class_overlaps: wp.array2d(dtype=wp.uint32),  # (proposals, words): whom each would remove from its class, as bits
    overlaps: wp.array2d(dtype=wp.uint32),  # likewise from the result
) -> None:
    """Compare each proposal with the 32 of a word, as far as they come after it."""
    rank, word = wp.tid()
    total = proposals[0].count[0]
    if rank >= total or 32 * word + 31 <= rank or 32 * word >= total:
        return
    boxes = proposals[0].boxes
    labels = proposals[0].labels
    box = boxes[rank]
    in_class = wp.uint32(0)
    in_all = wp.uint32(0)
    for bit in range(wp.max(rank + 1 - 32 * word, 0), wp.min(32, total - 32 * word)):
        overlap = box_iou(box, boxes[32 * word + bit])
        if labels[32 * word + bit] == labels[rank] and overlap > class_threshold:
            in_class = word_with_bit(in_class, bit)
        if overlap > global_threshold:
            in_all = word_with_bit(in_all, bit)
    class_overlaps[rank, word] = in_class
    overlaps[rank, word] = in_all


@wp.kernel
def _suppress_compared(
    proposals: wp.array(dtype=ScoredBoxes),
    class_overlaps: wp.array2d(dtype=wp.uint32),
    overlaps: wp.array2d(dtype=wp.uint32),
    max_detections: wp.int32,
    removed_from_class: wp.array(dtype=wp.uint32),  # (words,): a bit for each proposal, as far as is known
    removed: wp.array(dtype=wp.uint32),
    kept: wp.array(dtype=ScoredBoxes),
) -> None:
    """Walk down the scores with all comparisons already made."""
    total = proposals[0].count[0]
    words = (total + 31) / 32
    for word in range(words):
        removed_from_class[word] = wp.uint32(0)
        removed[word] = wp.uint32(0)
    count = int(0)
    for word in range(words):
        ahead = ~wp.uint32(0)  # proposals of this word that the walk has yet to reach
        if total - 32 * word < 32:
            ahead = word_with_bit(wp.uint32(0), total - 32 * word) - wp.uint32(1)
        alive = ahead & ~removed_from_class[word]
        while alive != wp.uint32(0) and count < max_detections:
            bit = lowest_bit(alive)
            rank = 32 * word + bit
            for later in range(word, words):
                removed_from_class[later] = removed_from_class[later] | class_overlaps[rank, later]
            if ((removed[word] >> wp.uint32(bit)) & wp.uint32(1)) == wp.uint32(0):
                for later in range(word, words):
                    removed[later] = removed[later] | overlaps[rank, later]
                _keep(proposals, rank, kept, count)
                count += 1
            above = ~wp.uint32(0) << wp.uint32(bit)
            ahead = ahead & (above & ~word_with_bit(wp.uint32(0), bit))
            alive = ahead & ~removed_from_class[word]
    kept[0].count[0] = count


class Suppression:
    """Holds the buffers for so many proposals."""

    def __init__(self, capacity: int, device: wp.Device, *, capturable: bool) -> None:
        """Allocate for the way that compares all pairs in parallel (`capturable`), or for the serial one."""
        words = -(-capacity // 32)
        self._survivors = None if capturable else wp.zeros(capacity, dtype=wp.int32, device=device)
        if capturable:
            self._overlaps = [wp.zeros((capacity, words), dtype=wp.uint32, device=device) for _ in range(2)]
            self._removed = [wp.zeros(words, dtype=wp.uint32, device=device) for _ in range(2)]

    def launch(self, proposals: wp.array, settings: QueryBoxSettings, kept: wp.array) -> None:
        """Enqueue the suppression of `proposals` into `kept`, arrays of one `ScoredBoxes` each."""
        thresholds, limit = (settings.nms_threshold, settings.global_nms_threshold), settings.max_detections
        if self._survivors is not None:
            launch(_suppress_serially, 1, proposals, *thresholds, limit, self._survivors, kept)
            return
        launch(_compare_all, self._overlaps[0].shape, proposals, *thresholds, *self._overlaps)
        launch(_suppress_compared, 1, proposals, *self._overlaps, limit, *self._removed, kept)
