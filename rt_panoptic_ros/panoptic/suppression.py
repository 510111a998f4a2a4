# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Non-maximum suppression: of proposals by falling score, which are kept (Eq. 4).

A proposal is removed from its class by a better one of that class that overlaps it by more than a threshold, and from
the result by any better one in it that overlaps it by more than another. One that the second rule removes has survived
in its class and still suppresses there. Each decision depends on higher scores only, so one walk down the scores makes
both.

There are two ways, of the same result to the bit. On the CPU one thread compares a proposal only with the survivors
before it, and stops when the result is full. On a GPU, where one thread is slow, all pairs are compared in
parallel first; then a block of threads walks down in chunks, and within a chunk decides in rounds, all at once, whoever
waits for nobody's decision. On the CPU that takes many times as long (docs/performance.md).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import warp as wp

from rt_panoptic_ros.panoptic.blocks import BLOCK_WORDS, bit_count, block_memory, make_scratch, sync_block
from rt_panoptic_ros.panoptic.launching import launch, launch_blocks
from rt_panoptic_ros.panoptic.sampling import box_iou, intersection, word_with_bit

if TYPE_CHECKING:
    from rt_panoptic_ros.settings import QueryBoxSettings

wp.set_module_options({"enable_backward": False})

_COMPARING_BLOCKS = wp.constant(256)
_CHUNK = wp.constant(256)  # proposals
_CHUNK_WORDS = wp.constant(8)

# Where in a block's memory bits lie: those of a chunk's proposals ...
_UNDECIDED = wp.constant(0)
_DECIDED = wp.constant(8)  # in this round
_CHOSEN = wp.constant(16)  # of those
_KEPT = wp.constant(24)
_SURVIVING = wp.constant(32)  # in their class
_LIST = wp.constant(64)  # the numbers of these
# ... and those of all proposals, of which there are at most 32 x 1120.
_REMOVED_FROM_CLASS = wp.constant(320)
_REMOVED = wp.constant(1440)


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
    threads: wp.int32,
    proposals: wp.array(dtype=ScoredBoxes),
    class_threshold: wp.float32,
    global_threshold: wp.float32,
    class_overlaps: wp.array2d(dtype=wp.uint32),  # (proposals, words): whom each overlaps in its class, as bits
    overlaps: wp.array2d(dtype=wp.uint32),  # likewise whom of all
) -> None:
    """Compare each proposal with the 32 of a word, from those of its own chunk on."""
    block, thread = wp.tid()
    total = proposals[0].count[0]
    boxes = proposals[0].boxes
    labels = proposals[0].labels
    for item in range(block * threads + thread, total * ((total + 31) / 32), _COMPARING_BLOCKS * threads):
        rank = item % total
        word = item / total
        if word >= rank / _CHUNK * _CHUNK_WORDS:
            box = boxes[rank]
            label = labels[rank]
            in_class = wp.uint32(0)
            in_all = wp.uint32(0)
            for bit in range(wp.min(32, total - 32 * word)):
                other = boxes[32 * word + bit]
                if intersection(box, other) > 0.0:
                    overlap = box_iou(box, other)
                    if labels[32 * word + bit] == label and overlap > class_threshold:
                        in_class = word_with_bit(in_class, bit)
                    if overlap > global_threshold:
                        in_all = word_with_bit(in_all, bit)
            class_overlaps[rank, word] = in_class
            overlaps[rank, word] = in_all


@wp.func
def _bits_below(word: wp.int32, i: wp.int32) -> wp.uint32:
    """Of the bits of a chunk's word, those whose numbers in the chunk are below i."""
    below = wp.where(word < (i >> 5), ~wp.uint32(0), wp.uint32(0))
    return wp.where(word == (i >> 5), (wp.uint32(1) << wp.uint32(i & 31)) - wp.uint32(1), below)


@wp.func
def _is_among(words: wp.array(dtype=wp.uint32), chosen: wp.int32, i: wp.int32) -> wp.bool:
    """Whether a chunk's bit i is set in the words from `chosen` on."""
    return ((words[chosen + (i >> 5)] >> wp.uint32(i & 31)) & wp.uint32(1)) != wp.uint32(0)


@wp.func
def _decide_chunk(
    overlaps: wp.array2d(dtype=wp.uint32),
    first: wp.int32,
    words: wp.array(dtype=wp.uint32),  # of the block
    thread: wp.int32,
    threads: wp.int32,
) -> wp.int32:
    """Move to `_KEPT` those of `_UNDECIDED` whom no better one there removes; return after how many rounds.

    In each round all those are decided whom one that is kept overlaps, or whose better ones have all been removed.
    """
    rounds = int(0)
    undecided = bool(True)
    while undecided:
        for i in range(thread, _CHUNK, threads):
            if _is_among(words, _UNDECIDED, i):
                removing = wp.uint32(0)
                waited_for = wp.uint32(0)
                for word in range(_CHUNK_WORDS):
                    better = _bits_below(word, i) & overlaps[first + i, (first >> 5) + word]
                    removing = removing | (better & words[_KEPT + word])
                    waited_for = waited_for | (better & words[_UNDECIDED + word])
                own_bit = word_with_bit(wp.uint32(0), i & 31)
                if (removing | waited_for) == wp.uint32(0):
                    wp.atomic_or(words, _CHOSEN + (i >> 5), own_bit)
                if removing != wp.uint32(0) or waited_for == wp.uint32(0):
                    wp.atomic_or(words, _DECIDED + (i >> 5), own_bit)
        sync_block()
        for word in range(thread, _CHUNK_WORDS, threads):
            words[_KEPT + word] = words[_KEPT + word] | words[_CHOSEN + word]
            words[_UNDECIDED + word] = words[_UNDECIDED + word] & ~words[_DECIDED + word]
            words[_CHOSEN + word] = wp.uint32(0)
            words[_DECIDED + word] = wp.uint32(0)
        sync_block()
        left = wp.uint32(0)
        for word in range(_CHUNK_WORDS):
            left = left | words[_UNDECIDED + word]
        undecided = left != wp.uint32(0)
        rounds += 1
    sync_block()
    return rounds


@wp.func
def _place(words: wp.array(dtype=wp.uint32), chosen: wp.int32, i: wp.int32) -> wp.int32:
    """How many of a chunk's set bits, in the words from `chosen` on, come before bit i."""
    count = int(0)
    for word in range(_CHUNK_WORDS):
        count += bit_count(words[chosen + word] & _bits_below(word, i))
    return count


@wp.func
def _begin_chunk(
    words: wp.array(dtype=wp.uint32), first: wp.int32, total: wp.int32, thread: wp.int32, threads: wp.int32
) -> None:
    """Leave undecided the chunk's proposals that none of an earlier chunk has removed from its class."""
    for word in range(thread, _CHUNK_WORDS, threads):
        words[_UNDECIDED + word] = _bits_below(word, total - first) & ~words[_REMOVED_FROM_CLASS + (first >> 5) + word]
        words[_KEPT + word] = wp.uint32(0)
    sync_block()


@wp.func
def _go_on_with_survivors(
    words: wp.array(dtype=wp.uint32), first: wp.int32, thread: wp.int32, threads: wp.int32
) -> None:
    """Note who was kept in its class, and leave undecided whom of those none of an earlier chunk has removed."""
    for word in range(thread, _CHUNK_WORDS, threads):
        words[_SURVIVING + word] = words[_KEPT + word]
        words[_UNDECIDED + word] = words[_KEPT + word] & ~words[_REMOVED + (first >> 5) + word]
        words[_KEPT + word] = wp.uint32(0)
    sync_block()


@wp.func
def _remove_later(
    class_overlaps: wp.array2d(dtype=wp.uint32),
    overlaps: wp.array2d(dtype=wp.uint32),
    words: wp.array(dtype=wp.uint32),
    first: wp.int32,
    total: wp.int32,
    thread: wp.int32,
    threads: wp.int32,
) -> None:
    """Have those that survived in their class remove from it in later chunks, and those that are kept from all."""
    later = (first >> 5) + _CHUNK_WORDS
    more = wp.max((total + 31) / 32 - later, 0)
    for item in range(thread, more * _place(words, _SURVIVING, _CHUNK), threads):
        i = wp.int32(words[_LIST + item / more])
        word = later + item % more
        in_class = class_overlaps[first + i, word]
        if in_class != wp.uint32(0):
            wp.atomic_or(words, _REMOVED_FROM_CLASS + word, in_class)
        if _is_among(words, _KEPT, i):
            in_all = overlaps[first + i, word]
            if in_all != wp.uint32(0):
                wp.atomic_or(words, _REMOVED + word, in_all)


@wp.kernel
def _suppress_compared(
    threads: wp.int32,
    proposals: wp.array(dtype=ScoredBoxes),
    class_overlaps: wp.array2d(dtype=wp.uint32),
    overlaps: wp.array2d(dtype=wp.uint32),
    max_detections: wp.int32,
    scratch: wp.array(dtype=wp.uint32),
    kept: wp.array(dtype=ScoredBoxes),
    rounds: wp.array(dtype=wp.int32),  # (1,): how many there were, one after the other
) -> None:
    """Walk down the scores, a chunk at a time, with all comparisons already made: one block."""
    block, thread = wp.tid()
    words = wp.array(ptr=block_memory(scratch, block), shape=(BLOCK_WORDS,), dtype=wp.uint32)
    total = proposals[0].count[0]
    for word in range(thread, BLOCK_WORDS, threads):
        words[word] = wp.uint32(0)
    sync_block()
    count = int(0)
    round_count = int(0)
    first = int(0)
    while first < total and count < max_detections:
        _begin_chunk(words, first, total, thread, threads)
        round_count += _decide_chunk(class_overlaps, first, words, thread, threads)
        _go_on_with_survivors(words, first, thread, threads)
        round_count += _decide_chunk(overlaps, first, words, thread, threads)
        for i in range(thread, _CHUNK, threads):
            if _is_among(words, _SURVIVING, i):
                words[_LIST + _place(words, _SURVIVING, i)] = wp.uint32(i)
            if _is_among(words, _KEPT, i):
                place = count + _place(words, _KEPT, i)
                if place < max_detections:
                    _keep(proposals, first + i, kept, place)
        sync_block()
        _remove_later(class_overlaps, overlaps, words, first, total, thread, threads)
        count += _place(words, _KEPT, _CHUNK)
        first += _CHUNK
        sync_block()
    if thread == 0:
        kept[0].count[0] = wp.min(count, max_detections)
        rounds[0] = round_count


class Suppression:
    """Holds the buffers for so many proposals."""

    def __init__(self, capacity: int, device: wp.Device, *, capturable: bool) -> None:
        """Allocate for the way that compares all pairs in parallel (`capturable`), or for the serial one."""
        self._survivors = None if capturable else wp.zeros(capacity, dtype=wp.int32, device=device)
        self.rounds = wp.zeros(1, dtype=wp.int32, device=device)  # of the last parallel way
        if capturable:
            chunks = -(-capacity // _CHUNK)
            shape = (chunks * _CHUNK, chunks * _CHUNK_WORDS)
            self._overlaps = [wp.zeros(shape, dtype=wp.uint32, device=device) for _ in range(2)]
            self._scratch = make_scratch(1, device)

    def launch(self, proposals: wp.array, settings: QueryBoxSettings, kept: wp.array) -> None:
        """Enqueue the suppression of `proposals` into `kept`, arrays of one `ScoredBoxes` each."""
        thresholds, limit = (settings.nms_threshold, settings.global_nms_threshold), settings.max_detections
        if self._survivors is not None:
            launch(_suppress_serially, 1, proposals, *thresholds, limit, self._survivors, kept)
            return
        launch_blocks(_compare_all, _COMPARING_BLOCKS, proposals, *thresholds, *self._overlaps)
        launch_blocks(_suppress_compared, 1, proposals, *self._overlaps, limit, self._scratch, kept, self.rounds)
