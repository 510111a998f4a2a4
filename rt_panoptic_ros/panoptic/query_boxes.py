"""Selection of the query boxes (Eq. 4): threshold, top-k per level, non-maximum suppression per class, then over all.

Proposals are 64-bit keys, small for a high score, then for a low index (level, row, column, class), so every order and
every tie is settled by comparing integers and runs are bit-equal. All counts stay on the device; only on the CPU does
the host read them, to launch no more threads than needed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import warp as wp

from rt_panoptic_ros.panoptic.sampling import box_iou, lowest_bit, word_with_bit
from rt_panoptic_ros.records import DenseDetections, QueryBoxes
from rt_panoptic_ros.settings import MAX_DETECTIONS

if TYPE_CHECKING:
    from rt_panoptic_ros.settings import QueryBoxSettings

wp.set_module_options({"enable_backward": False})

_NO_KEY = wp.constant(wp.int64(2**63 - 1))
_LEVEL_SHIFT = wp.constant(wp.int32(28))  # an index is level << 28 | (row * width + column) * things + class
_INDEX_BITS = wp.constant(wp.int64(32))
_MAX_BITS = wp.constant(wp.int32(2**31 - 1))  # of a float32 from 0: a score's bits rise with the score
_DIGIT_SHIFTS = (52, 41, 30, 19, 8, 0)  # radix select: 63 bits from the top in digits of 11, 11, 11, 11, 11 and 8 bits
_DIGITS = wp.constant(wp.int32(2048))
_LOGIT_MARGIN = 1e-3  # below the threshold's logit by this, float32's sigmoid is surely below the threshold


@wp.func
def _sigmoid(x: wp.float32) -> wp.float32:
    return 1.0 / (1.0 + wp.exp(-x))


@wp.kernel
def _collect(
    class_logits: wp.array3d(dtype=wp.float32),  # (T, h, w)
    centerness_logits: wp.array3d(dtype=wp.float32),  # (1, h, w)
    logit_floor: wp.float32,
    threshold: wp.float32,
    level: wp.int32,
    first: wp.int32,  # of this level's keys
    keys: wp.array(dtype=wp.int64),
    counts: wp.array(dtype=wp.int32),  # (levels,)
) -> None:
    """Append the key of each (location, class) whose class probability exceeds the threshold."""
    c, y, x = wp.tid()
    logit = class_logits[c, y, x]
    if logit > logit_floor:
        probability = _sigmoid(logit)
        if probability > threshold:
            score = probability * _sigmoid(centerness_logits[0, y, x])
            local = (y * class_logits.shape[2] + x) * class_logits.shape[0] + c
            index = wp.int64((level << _LEVEL_SHIFT) | local)
            slot = wp.atomic_add(counts, level, 1)
            keys[first + slot] = (wp.int64(_MAX_BITS - wp.cast(score, wp.int32)) << _INDEX_BITS) | index


@wp.kernel
def _count_digits(
    keys: wp.array(dtype=wp.int64),
    firsts: wp.array(dtype=wp.int32),
    counts: wp.array(dtype=wp.int32),
    top_k: wp.int32,
    shift: wp.int32,
    digit_bits: wp.int32,
    prefixes: wp.array(dtype=wp.int64),
    histogram: wp.array2d(dtype=wp.int32),
) -> None:
    """Count, per level, the next digit of the keys that share the prefix found so far."""
    level, slot = wp.tid()
    if slot < counts[level] and counts[level] > top_k:
        key = keys[firsts[level] + slot] >> wp.int64(shift)
        if (key >> wp.int64(digit_bits)) == prefixes[level]:
            digit = wp.int32(key & ((wp.int64(1) << wp.int64(digit_bits)) - wp.int64(1)))
            wp.atomic_add(histogram, level, digit, 1)


@wp.kernel
def _pick_digit(
    counts: wp.array(dtype=wp.int32),
    top_k: wp.int32,
    digit_bits: wp.int32,
    prefixes: wp.array(dtype=wp.int64),
    remaining: wp.array(dtype=wp.int32),
    histogram: wp.array2d(dtype=wp.int32),
) -> None:
    """Extend each level's prefix by the digit of its top_k-th smallest key."""
    level = wp.tid()
    if counts[level] > top_k:
        left = remaining[level]
        found = int(-1)
        for digit in range(_DIGITS):
            count = histogram[level, digit]
            histogram[level, digit] = 0
            if found < 0:
                if count >= left:
                    found = digit
                else:
                    left -= count
        remaining[level] = left
        prefixes[level] = (prefixes[level] << wp.int64(digit_bits)) | wp.int64(found)


@wp.kernel
def _gather(
    keys: wp.array(dtype=wp.int64),
    firsts: wp.array(dtype=wp.int32),
    counts: wp.array(dtype=wp.int32),
    top_k: wp.int32,
    prefixes: wp.array(dtype=wp.int64),
    total: wp.array(dtype=wp.int32),
    gathered: wp.array(dtype=wp.int64),
) -> None:
    """Bring each level's top_k smallest keys together."""
    level, slot = wp.tid()
    if slot < counts[level]:
        key = keys[firsts[level] + slot]
        if counts[level] <= top_k or key <= prefixes[level]:
            gathered[wp.atomic_add(total, 0, 1)] = key


@wp.func
def _offset_box(offsets: wp.array3d(dtype=wp.float32), y: wp.int32, x: wp.int32, stride: wp.int32) -> wp.vec4:
    """Eq. 8 read backwards: the box of cell (y, x), xyxy network px."""
    center_x = wp.float32(x * stride + stride / 2)
    center_y = wp.float32(y * stride + stride / 2)
    return wp.vec4(
        center_x - offsets[0, y, x], center_y - offsets[1, y, x],
        center_x + offsets[2, y, x], center_y + offsets[3, y, x],
    )  # fmt: skip


@wp.kernel
def _decode(
    sorted_keys: wp.array(dtype=wp.int64),
    total: wp.array(dtype=wp.int32),
    things: wp.int32,
    offsets0: wp.array3d(dtype=wp.float32),
    offsets1: wp.array3d(dtype=wp.float32),
    offsets2: wp.array3d(dtype=wp.float32),
    offsets3: wp.array3d(dtype=wp.float32),
    offsets4: wp.array3d(dtype=wp.float32),
    content_height: wp.int32,
    content_width: wp.int32,
    boxes: wp.array(dtype=wp.vec4),
    scores: wp.array(dtype=wp.float32),
    labels: wp.array(dtype=wp.int32),
) -> None:
    """Turn keys into boxes, clipped to the content's pixels, scores and labels."""
    rank = wp.tid()
    if rank < total[0]:
        key = sorted_keys[rank]
        index = wp.int32(key) & _MAX_BITS
        scores[rank] = wp.cast(_MAX_BITS - wp.int32(key >> _INDEX_BITS), wp.float32)
        level = index >> _LEVEL_SHIFT
        local = index & ((1 << _LEVEL_SHIFT) - 1)
        labels[rank] = local % things
        position = local / things
        box = wp.vec4()
        if level == 0:
            box = _offset_box(offsets0, position / offsets0.shape[2], position % offsets0.shape[2], 8)
        elif level == 1:
            box = _offset_box(offsets1, position / offsets1.shape[2], position % offsets1.shape[2], 16)
        elif level == 2:
            box = _offset_box(offsets2, position / offsets2.shape[2], position % offsets2.shape[2], 32)
        elif level == 3:
            box = _offset_box(offsets3, position / offsets3.shape[2], position % offsets3.shape[2], 64)
        else:
            box = _offset_box(offsets4, position / offsets4.shape[2], position % offsets4.shape[2], 128)
        right = wp.float32(content_width - 1)
        bottom = wp.float32(content_height - 1)
        boxes[rank] = wp.vec4(
            wp.clamp(box[0], 0.0, right), wp.clamp(box[1], 0.0, bottom),
            wp.clamp(box[2], 0.0, right), wp.clamp(box[3], 0.0, bottom),
        )  # fmt: skip


@wp.kernel
def _suppress(
    boxes: wp.array(dtype=wp.vec4),
    scores: wp.array(dtype=wp.float32),
    labels: wp.array(dtype=wp.int32),
    total: wp.array(dtype=wp.int32),
    class_threshold: wp.float32,
    global_threshold: wp.float32,
    max_detections: wp.int32,
    survivors: wp.array(dtype=wp.int32),  # of the suppression per class
    out_boxes: wp.array(dtype=wp.vec4),
    out_scores: wp.array(dtype=wp.float32),
    out_labels: wp.array(dtype=wp.int32),
    out_count: wp.array(dtype=wp.int32),
) -> None:
    """Both suppressions in one walk down the scores: each decision depends on higher scores only.

    A box that the global suppression removes has survived its class and still suppresses there.
    """
    kept = int(0)
    survived = int(0)
    for rank in range(total[0]):
        if kept == max_detections:
            break
        box = boxes[rank]
        label = labels[rank]
        covered = bool(False)
        for i in range(survived):
            other = survivors[i]
            if labels[other] == label and box_iou(boxes[other], box) > class_threshold:
                covered = True
                break
        if not covered:
            survivors[survived] = rank
            survived += 1
            doubled = bool(False)
            for i in range(kept):
                if box_iou(out_boxes[i], box) > global_threshold:
                    doubled = True
                    break
            if not doubled:
                out_boxes[kept] = box
                out_scores[kept] = scores[rank]
                out_labels[kept] = label
                kept += 1
    out_count[0] = kept


@wp.kernel
def _mark_overlaps(
    boxes: wp.array(dtype=wp.vec4),
    labels: wp.array(dtype=wp.int32),
    total: wp.array(dtype=wp.int32),
    class_threshold: wp.float32,
    global_threshold: wp.float32,
    covers: wp.array2d(dtype=wp.uint32),  # (proposals, words): whom each would suppress in its class, a bit each
    doubles: wp.array2d(dtype=wp.uint32),  # likewise over all classes
) -> None:
    """Compare each proposal with the 32 of a word, as far as they come after it."""
    rank, word = wp.tid()
    if rank >= total[0] or 32 * word + 31 <= rank or 32 * word >= total[0]:
        return
    box = boxes[rank]
    covered = wp.uint32(0)
    doubled = wp.uint32(0)
    for bit in range(wp.max(rank + 1 - 32 * word, 0), wp.min(32, total[0] - 32 * word)):
        overlap = box_iou(box, boxes[32 * word + bit])
        if labels[32 * word + bit] == labels[rank] and overlap > class_threshold:
            covered = word_with_bit(covered, bit)
        if overlap > global_threshold:
            doubled = word_with_bit(doubled, bit)
    covers[rank, word] = covered
    doubles[rank, word] = doubled


@wp.kernel
def _pick_survivors(
    boxes: wp.array(dtype=wp.vec4),
    scores: wp.array(dtype=wp.float32),
    labels: wp.array(dtype=wp.int32),
    total: wp.array(dtype=wp.int32),
    covers: wp.array2d(dtype=wp.uint32),
    doubles: wp.array2d(dtype=wp.uint32),
    max_detections: wp.int32,
    covered: wp.array(dtype=wp.uint32),  # (words,)
    doubled: wp.array(dtype=wp.uint32),
    out_boxes: wp.array(dtype=wp.vec4),
    out_scores: wp.array(dtype=wp.float32),
    out_labels: wp.array(dtype=wp.int32),
    out_count: wp.array(dtype=wp.int32),
) -> None:
    """Walk down the scores as `_suppress` does, with all comparisons already made."""
    words = (total[0] + 31) / 32
    for word in range(words):
        covered[word] = wp.uint32(0)
        doubled[word] = wp.uint32(0)
    kept = int(0)
    for word in range(words):
        valid = ~wp.uint32(0)
        if total[0] - 32 * word < 32:
            valid = word_with_bit(wp.uint32(0), total[0] - 32 * word) - wp.uint32(1)
        alive = valid & ~covered[word]
        while alive != wp.uint32(0) and kept < max_detections:
            bit = lowest_bit(alive)
            rank = 32 * word + bit
            for later in range(word, words):
                covered[later] = covered[later] | covers[rank, later]
            if ((doubled[word] >> wp.uint32(bit)) & wp.uint32(1)) == wp.uint32(0):
                for later in range(word, words):
                    doubled[later] = doubled[later] | doubles[rank, later]
                out_boxes[kept] = boxes[rank]
                out_scores[kept] = scores[rank]
                out_labels[kept] = labels[rank]
                kept += 1
            above = ~wp.uint32(0) << wp.uint32(bit)
            valid = valid & (above & ~word_with_bit(wp.uint32(0), bit))
            alive = valid & ~covered[word]
    out_count[0] = kept


class _Room:
    """The buffers for so many proposals."""

    def __init__(self, capacity: int, device: wp.Device, *, capturable: bool) -> None:
        self.capacity = capacity
        self.gathered = wp.empty(2 * capacity, dtype=wp.int64, device=device)  # the sort needs twice the room
        self.sort_values = wp.zeros(2 * capacity, dtype=wp.int32, device=device)
        self.boxes = wp.zeros(capacity, dtype=wp.vec4, device=device)
        self.scores = wp.zeros(capacity, dtype=wp.float32, device=device)
        self.labels = wp.zeros(capacity, dtype=wp.int32, device=device)
        if not capturable:
            self.survivors = wp.zeros(capacity, dtype=wp.int32, device=device)
            return
        words = -(-capacity // 32)
        self.covers = wp.zeros((capacity, words), dtype=wp.uint32, device=device)
        self.doubles = wp.zeros((capacity, words), dtype=wp.uint32, device=device)
        self.covered = wp.zeros(words, dtype=wp.uint32, device=device)
        self.doubled = wp.zeros(words, dtype=wp.uint32, device=device)


class QueryBoxSelector:
    """Holds the buffers for one set of output shapes; `select` is a function of its arguments only."""

    def __init__(self, dense: DenseDetections, *, capturable: bool | None = None) -> None:
        """Allocate for outputs of the shapes and the device of `dense`.

        With `capturable`, the default on a GPU, the host reads nothing in between and all comparisons are made in
        parallel; without, the host reads counts and one thread compares no more than it must.
        """
        device = dense.semantic_logits.device
        self._capturable = device.is_cuda if capturable is None else capturable
        self._device = device
        capacities = [array.size for array in dense.box_class_logits]
        levels = len(capacities)
        self._firsts = [int(first) for first in np.cumsum([0, *capacities[:-1]])]
        self._largest = max(capacities)
        self._keys = wp.empty(sum(capacities), dtype=wp.int64, device=device)
        self._device_firsts = wp.array(self._firsts, dtype=wp.int32, device=device)
        self._counts = wp.zeros(levels, dtype=wp.int32, device=device)
        self._prefixes = wp.zeros(levels, dtype=wp.int64, device=device)
        self._remaining = wp.zeros(levels, dtype=wp.int32, device=device)
        self._histogram = wp.zeros((levels, 2048), dtype=wp.int32, device=device)
        self._total = wp.zeros(1, dtype=wp.int32, device=device)
        self._room: _Room | None = None
        self._result = QueryBoxes(
            boxes=wp.zeros(MAX_DETECTIONS, dtype=wp.vec4, device=device),
            scores=wp.zeros(MAX_DETECTIONS, dtype=wp.float32, device=device),
            labels=wp.zeros(MAX_DETECTIONS, dtype=wp.int32, device=device),
            count=wp.zeros(1, dtype=wp.int32, device=device),
        )

    def select(self, dense: DenseDetections, content_size: tuple[int, int], settings: QueryBoxSettings) -> QueryBoxes:
        """Return the query boxes of `dense`, valid until the next call.

        Args:
            dense: The network's outputs.
            content_size: (height, width) px of the image inside the network's input; boxes are clipped to it.
            settings: Thresholds and capacities.
        """
        device, room = self._device, self._reserve(settings.pre_nms_top_k)
        self._counts.zero_()
        self._total.zero_()
        threshold = settings.pre_nms_threshold
        floor = float(np.log(threshold / (1 - threshold)) - _LOGIT_MARGIN) if 0 < threshold < 1 else -np.inf
        for level, (logits, centerness) in enumerate(zip(dense.box_class_logits, dense.centerness_logits, strict=True)):
            wp.launch(
                _collect, logits.shape, device=device,
                inputs=[logits, centerness, floor, threshold, level, self._firsts[level], self._keys, self._counts],
            )  # fmt: skip
        per_level = (len(self._firsts), self._most_candidates())
        self._select_top(settings.pre_nms_top_k, per_level)
        room.gathered.fill_(_NO_KEY)
        wp.launch(
            _gather, per_level, device=device,
            inputs=[self._keys, self._device_firsts, self._counts, settings.pre_nms_top_k, self._prefixes],
            outputs=[self._total, room.gathered],
        )  # fmt: skip
        proposals = room.capacity if self._capturable else int(self._total.numpy()[0])
        if proposals:
            wp.utils.radix_sort_pairs(room.gathered, room.sort_values, proposals)
        height, width = content_size
        wp.launch(
            _decode, proposals, device=device,
            inputs=[room.gathered, self._total, dense.box_class_logits[0].shape[0], *dense.box_offsets, height, width],
            outputs=[room.boxes, room.scores, room.labels],
        )  # fmt: skip
        self._suppress(settings, room)
        return self._result

    def _suppress(self, settings: QueryBoxSettings, room: _Room) -> None:
        result, device = self._result, self._device
        outputs = [result.boxes, result.scores, result.labels, result.count]
        proposals = [room.boxes, room.scores, room.labels, self._total]
        thresholds = [settings.nms_threshold, settings.global_nms_threshold]
        if not self._capturable:
            wp.launch(
                _suppress, 1, device=device,
                inputs=[*proposals, *thresholds, settings.max_detections, room.survivors], outputs=outputs,
            )  # fmt: skip
            return
        wp.launch(
            _mark_overlaps, room.covers.shape, device=device,
            inputs=[room.boxes, room.labels, self._total, *thresholds], outputs=[room.covers, room.doubles],
        )  # fmt: skip
        wp.launch(
            _pick_survivors, 1, device=device,
            inputs=[*proposals, room.covers, room.doubles, settings.max_detections, room.covered, room.doubled],
            outputs=outputs,
        )  # fmt: skip

    def _most_candidates(self) -> int:
        return self._largest if self._capturable else int(self._counts.numpy().max())

    def _select_top(self, top_k: int, per_level: tuple[int, int]) -> None:
        """Find each level's top_k-th smallest key by radix select; its digits end up in the prefixes."""
        if not self._capturable and per_level[1] <= top_k:
            return
        self._prefixes.zero_()
        self._remaining.fill_(top_k)
        above = 63
        for shift in _DIGIT_SHIFTS:
            bits, above = above - shift, shift
            wp.launch(
                _count_digits, per_level, device=self._device,
                inputs=[self._keys, self._device_firsts, self._counts, top_k, shift, bits, self._prefixes],
                outputs=[self._histogram],
            )  # fmt: skip
            wp.launch(
                _pick_digit, per_level[0], device=self._device,
                inputs=[self._counts, top_k, bits, self._prefixes, self._remaining, self._histogram],
            )  # fmt: skip

    def in_use(self) -> list[object]:
        """Return what the last `select` worked on and another may replace: a graph of it needs it to live as long."""
        return [self._room]

    def _reserve(self, top_k: int) -> _Room:
        """Return room for top_k proposals per level."""
        capacity = min(len(self._firsts) * top_k, self._keys.size)
        if self._room is None or self._room.capacity < capacity:
            self._room = _Room(capacity, self._device, capturable=self._capturable)
        return self._room
