# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Selection of the query boxes (Eq. 4): threshold, top-k per level, non-maximum suppression per class, then over all.

Proposals are 64-bit keys, small for a high score, then for a low index (level, row, column, class), so every order and
every tie is settled by comparing integers and runs are bit-equal. All counts stay on the device; only on the CPU does
the host read them, to launch no more threads than needed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import warp as wp

from rt_panoptic_ros.panoptic.blocks import BLOCK_WORDS, block_memory, make_scratch, sync_block
from rt_panoptic_ros.panoptic.launching import StructSlot, band_count, launch, launch_blocks, spanned
from rt_panoptic_ros.panoptic.sampling import box_around
from rt_panoptic_ros.panoptic.suppression import ScoredBoxes, Suppression
from rt_panoptic_ros.records import DenseDetections, QueryBoxes
from rt_panoptic_ros.settings import MAX_DETECTIONS

if TYPE_CHECKING:
    from rt_panoptic_ros.settings import QueryBoxSettings

wp.set_module_options({"enable_backward": False})

_NO_KEY = wp.constant(wp.int64(2**63 - 1))
_LEVEL_SHIFT = wp.constant(wp.int32(28))  # an index is level << 28 | (row * width + column) * things + class
_INDEX_BITS = wp.constant(wp.int64(32))
_MAX_BITS = wp.constant(wp.int32(2**31 - 1))  # of a float32 from 0: a score's bits rise with the score
_KEY_BITS = wp.constant(wp.int32(63))
_DIGIT_BITS = wp.constant(wp.int32(11))
_DIGITS = wp.constant(wp.int32(2048))
_GROUP = wp.constant(32)  # digits that are counted together
_GROUPS = wp.constant(64)
_SEGMENT = wp.constant(256)  # keys that a thread compares one key with
_RANKING_BLOCKS = wp.constant(256)
_LOGIT_MARGIN = 1e-3  # below the threshold's logit by this, float32's sigmoid is surely below the threshold


@wp.struct
class LevelOutputs:
    """What one pyramid level says of boxes."""

    class_logits: wp.array3d(dtype=wp.float32)  # (T, h, w)
    centerness_logits: wp.array3d(dtype=wp.float32)  # (1, h, w)
    offsets: wp.array3d(dtype=wp.float32)  # (4, h, w): left, top, right, bottom, network px (Eq. 8)


@wp.struct
class Candidates:
    """The keys of all locations and classes above the threshold, and the best of each level."""

    keys: wp.array(dtype=wp.int64)  # level after level
    firsts: wp.array(dtype=wp.int32)  # per level: where its keys begin
    counts: wp.array(dtype=wp.int32)  # per level: how many they are
    gathered: wp.array(dtype=wp.int64)  # the top_k smallest keys of all levels
    total: wp.array(dtype=wp.int32)  # number of those
    undefined: wp.array(dtype=wp.int32)  # [0]: locations whose outputs are no finite numbers


@wp.func
def _sigmoid(x: wp.float32) -> wp.float32:
    return 1.0 / (1.0 + wp.exp(-x))


@wp.func_native("""
const char* plane = (const char*)logits.data + (size_t)c * logits.strides[0];
const float* row = (const float*)(plane + (size_t)y * logits.strides[1]);
auto is_below = [&](int i) { return (row[i] <= floor) & (row[i] >= -3.40282347e+38f); };
#if !defined(__CUDA_ARCH__)
for (; x + 16 <= end; x += 16) {  // a few vectors
    int below = 1;
    for (int i = 0; i < 16; ++i)
        below &= is_below(x + i);
    if (!below)
        break;
}
#endif
while (x < end && is_below(x))
    ++x;
return x;
""")
def _next_candidate(  # type: ignore[empty-body]
    logits: wp.array3d(dtype=wp.float32), c: wp.int32, y: wp.int32, x: wp.int32, end: wp.int32, floor: wp.float32
) -> int:
    """Return the first place from x on, or `end`, whose logit is above the floor or no finite number."""


@wp.kernel
def _collect(
    levels: wp.array(dtype=LevelOutputs),
    logit_floor: wp.float32,
    threshold: wp.float32,
    candidates: wp.array(dtype=Candidates),
    span: wp.int32,
) -> None:
    """Append the key of each (location, class) whose class probability exceeds the threshold and whose box is known.

    The rows of the first level are followed by those of the next. A thread does `span` locations of a row.
    """
    c, y, place = wp.tid()
    level = int(0)
    while y >= levels[level].class_logits.shape[1]:
        y -= levels[level].class_logits.shape[1]
        level += 1
    logits = levels[level].class_logits
    end = wp.min((place + 1) * span, logits.shape[2])
    x = _next_candidate(logits, c, y, place * span, end, logit_floor)
    while x < end:
        logit = logits[c, y, x]
        probability = _sigmoid(logit)
        if probability > threshold or not wp.isfinite(logit):
            score = probability * _sigmoid(levels[level].centerness_logits[0, y, x])
            local = (y * logits.shape[2] + x) * logits.shape[0] + c
            index = wp.int64((level << _LEVEL_SHIFT) | local)
            offsets = levels[level].offsets
            reach = offsets[0, y, x] + offsets[1, y, x] + offsets[2, y, x] + offsets[3, y, x]
            if wp.isfinite(logit + score + reach):  # the bits of others are no order, and their keys beyond every bound
                slot = candidates[0].firsts[level] + wp.atomic_add(candidates[0].counts, level, 1)
                candidates[0].keys[slot] = (wp.int64(_MAX_BITS - wp.cast(score, wp.int32)) << _INDEX_BITS) | index
            else:
                wp.atomic_add(candidates[0].undefined, 0, 1)
        x = _next_candidate(logits, c, y, x + 1, end, logit_floor)


@wp.func
def _find_last_key(
    keys: wp.array(dtype=wp.int64),
    first: wp.int32,
    count: wp.int32,
    top_k: wp.int32,
    bins: wp.array(dtype=wp.int32),  # of the block
    thread: wp.int32,
    threads: wp.int32,
) -> wp.int64:
    """Return the top_k-th smallest of `count` > top_k keys, or what lies between it and the next, by radix select.

    Digit by digit from the top: among the keys that begin with the digits found so far, a histogram of the next one
    says which of its values the key sought has, and its place among the keys with that value. Where it is the last of
    those, no further digit matters; after the last digit it is, as no two keys are equal.
    """
    prefix = wp.int64(0)
    place = int(top_k)  # of the key sought, from 1, among those that begin with the prefix
    shift = int(_KEY_BITS)  # bits that come after the prefix
    sought = bool(True)
    while sought:
        bits = wp.min(_DIGIT_BITS, shift)
        shift -= bits
        for digit in range(thread, _DIGITS, threads):
            bins[digit] = 0
        sync_block()
        for slot in range(thread, count, threads):
            key = keys[first + slot] >> wp.int64(shift)
            if (key >> wp.int64(bits)) == prefix:
                wp.atomic_add(bins, wp.int32(key & ((wp.int64(1) << wp.int64(bits)) - wp.int64(1))), 1)
        sync_block()
        for group in range(thread, _GROUPS, threads):
            in_group = int(0)
            for digit in range(_GROUP * group, _GROUP * group + _GROUP):
                in_group += bins[digit]
            bins[_DIGITS + group] = in_group
        sync_block()
        group = int(0)
        while place > bins[_DIGITS + group]:
            place -= bins[_DIGITS + group]
            group += 1
        digit = _GROUP * group
        while place > bins[digit]:
            place -= bins[digit]
            digit += 1
        prefix = (prefix << wp.int64(bits)) | wp.int64(digit)
        sought = place < bins[digit]
        sync_block()
    return ((prefix + wp.int64(1)) << wp.int64(shift)) - wp.int64(1)


@wp.kernel
def _select(
    threads: wp.int32, candidates: wp.array(dtype=Candidates), top_k: wp.int32, scratch: wp.array(dtype=wp.uint32)
) -> None:
    """Bring each level's top_k smallest keys together, a block for each level."""
    level, thread = wp.tid()
    bins = wp.array(ptr=block_memory(scratch, level), shape=(BLOCK_WORDS,), dtype=wp.int32)
    keys = candidates[0].keys
    first = candidates[0].firsts[level]
    count = candidates[0].counts[level]
    last = wp.int64(_NO_KEY)
    if count > top_k:
        last = _find_last_key(keys, first, count, top_k, bins, thread, threads)
    for slot in range(thread, count, threads):
        key = keys[first + slot]
        if key <= last:
            candidates[0].gathered[wp.atomic_add(candidates[0].total, 0, 1)] = key


@wp.kernel
def _rank(threads: wp.int32, candidates: wp.array(dtype=Candidates), ranks: wp.array(dtype=wp.int32)) -> None:
    """Add to each key's rank how many of a segment of the keys are smaller."""
    block, thread = wp.tid()
    keys = candidates[0].gathered
    total = candidates[0].total[0]
    for item in range(block * threads + thread, total * ((total + _SEGMENT - 1) / _SEGMENT), _RANKING_BLOCKS * threads):
        key = keys[item % total]
        begin = item / total * _SEGMENT
        smaller = int(0)
        for other in range(begin, wp.min(begin + _SEGMENT, total)):
            smaller += wp.where(keys[other] < key, 1, 0)
        wp.atomic_add(ranks, item % total, smaller)


@wp.kernel
def _decode(
    keys: wp.array(dtype=wp.int64),
    ranks: wp.array(dtype=wp.int32),
    levels: wp.array(dtype=LevelOutputs),
    things: wp.int32,
    content_height: wp.int32,
    content_width: wp.int32,
    proposals: wp.array(dtype=ScoredBoxes),
) -> None:
    """Turn keys into boxes, clipped to the content's pixels, scores and labels."""
    slot = wp.tid()
    if slot < proposals[0].count[0]:
        rank = ranks[slot]
        key = keys[slot]
        index = wp.int32(key) & _MAX_BITS
        proposals[0].scores[rank] = wp.cast(_MAX_BITS - wp.int32(key >> _INDEX_BITS), wp.float32)
        level = index >> _LEVEL_SHIFT
        local = index & ((1 << _LEVEL_SHIFT) - 1)
        proposals[0].labels[rank] = local % things
        offsets = levels[level].offsets
        y = (local / things) / offsets.shape[2]
        x = (local / things) % offsets.shape[2]
        stride = 8 << level
        box = box_around(
            x * stride + stride / 2, y * stride + stride / 2,
            wp.vec4(offsets[0, y, x], offsets[1, y, x], offsets[2, y, x], offsets[3, y, x]),
        )  # fmt: skip
        right = wp.float32(content_width - 1)
        bottom = wp.float32(content_height - 1)
        proposals[0].boxes[rank] = wp.vec4(
            wp.clamp(box[0], 0.0, right), wp.clamp(box[1], 0.0, bottom),
            wp.clamp(box[2], 0.0, right), wp.clamp(box[3], 0.0, bottom),
        )  # fmt: skip


class QueryBoxSelector:
    """Holds the buffers for one set of output shapes."""

    def __init__(self, dense: DenseDetections, *, capturable: bool | None = None) -> None:
        """Allocate for outputs of the shapes and the device of `dense`.

        With `capturable`, the default on a GPU, the host reads nothing in between and all keys and boxes are compared
        in parallel; without, the host reads counts, sorts, and one thread compares no more than it must.
        """
        device = dense.semantic_logits.device
        self._capturable = device.is_cuda if capturable is None else capturable
        self._device = device
        capacities = [array.size for array in dense.box_class_logits]
        levels = len(capacities)
        self._counters = wp.zeros(levels + 2 + band_count(device), dtype=wp.int32, device=device)
        self._search = {
            "keys": wp.empty(sum(capacities), dtype=wp.int64, device=device),
            "firsts": wp.array(np.cumsum([0, *capacities[:-1]]), dtype=wp.int32, device=device),
            "counts": self._counters[:levels],
            "total": self._counters[levels : levels + 1],
            "undefined": self._counters[levels + 1 :],
        }
        self._levels = StructSlot(LevelOutputs, device)
        self._scratch = make_scratch(len(capacities), device)
        self._proposals: _Proposals | None = None
        kept = _scored_boxes(MAX_DETECTIONS, device)
        self._kept = StructSlot(ScoredBoxes, device).hold(kept)
        self.result = QueryBoxes(**kept, undefined=self._search["undefined"])
        """Of the last `select`."""

    def select(self, dense: DenseDetections, content_size: tuple[int, int], settings: QueryBoxSettings) -> QueryBoxes:
        """Return the query boxes of `dense`, valid until the next call.

        Args:
            dense: The network's outputs.
            content_size: (height, width) px of the image inside the network's input; boxes are clipped to it.
            settings: Thresholds and capacities.
        """
        proposals = self._reserve(settings.pre_nms_top_k)
        threshold, top_k = settings.pre_nms_threshold, settings.pre_nms_top_k
        floor = float(np.log(threshold / (1 - threshold)) - _LOGIT_MARGIN) if 0 < threshold < 1 else -np.inf
        names, outputs = ("class_logits", "centerness_logits", "offsets"), dense.box_class_logits
        by_level = zip(outputs, dense.centerness_logits, dense.box_offsets, strict=True)
        levels = self._levels.hold(*(dict(zip(names, level, strict=True)) for level in by_level))
        self._counters.zero_()
        things, _, width = outputs[0].shape
        shape, span = spanned(self._device, (things, sum(level.shape[1] for level in outputs), width))
        launch(_collect, shape, levels, floor, threshold, proposals.candidates, span)
        launch_blocks(_select, len(outputs), proposals.candidates, top_k, self._scratch)
        number = proposals.rank(self._search["total"])
        launch(_decode, number, proposals.gathered, proposals.ranks, levels, things, *content_size, proposals.decoded)
        proposals.suppression.launch(proposals.decoded, settings, self._kept)
        return self.result

    def in_use(self) -> list[object]:
        """Return what the last `select` worked on and another may replace: a graph of it needs it to live as long."""
        return [self._proposals, self._levels.array]

    def rounds(self) -> int:
        """Return in how many rounds one after the other the last suppression on a GPU was decided."""
        return 0 if self._proposals is None else int(self._proposals.suppression.rounds.numpy()[0])

    def _reserve(self, top_k: int) -> _Proposals:
        """Return buffers for at least top_k proposals per level: for a power of two, as graphs keep all there were."""
        capacity = min(self._search["counts"].size << (top_k - 1).bit_length(), self._search["keys"].size)
        if self._proposals is None or self._proposals.capacity < capacity:
            self._proposals = _Proposals(capacity, self._search, self._device, capturable=self._capturable)
        return self._proposals


class _Proposals:
    """The buffers for so many proposals, and the search that ends in them."""

    def __init__(self, capacity: int, search: dict[str, wp.array], device: wp.Device, *, capturable: bool) -> None:
        self.capacity = capacity
        self.gathered = wp.empty(capacity, dtype=wp.int64, device=device)
        self.ranks = wp.array(np.arange(capacity), dtype=wp.int32, device=device)  # of the gathered, when sorted
        self._on_host = None if capturable else self.gathered.numpy()
        self.candidates = StructSlot(Candidates, device).hold({**search, "gathered": self.gathered})
        boxes = {**_scored_boxes(capacity, device), "count": search["total"]}
        self.decoded = StructSlot(ScoredBoxes, device).hold(boxes)
        self.suppression = Suppression(capacity, device, capturable=capturable)

    def rank(self, total: wp.array) -> int:
        """Rank what has been gathered, on the host by sorting it; return the number of slots that may hold a key."""
        if self._on_host is None:
            self.ranks.zero_()
            launch_blocks(_rank, _RANKING_BLOCKS, self.candidates, self.ranks)
            return self.capacity
        number = int(total.numpy()[0])
        self._on_host[:number].sort()
        return number


def _scored_boxes(capacity: int, device: wp.Device) -> dict[str, wp.array]:
    """Return the fields of a `ScoredBoxes` with space for so many."""
    return {
        "boxes": wp.zeros(capacity, dtype=wp.vec4, device=device),
        "scores": wp.zeros(capacity, dtype=wp.float32, device=device),
        "labels": wp.zeros(capacity, dtype=wp.int32, device=device),
        "count": wp.zeros(1, dtype=wp.int32, device=device),
    }
