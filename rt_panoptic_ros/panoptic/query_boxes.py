"""Selection of the query boxes (Eq. 4): threshold, top-k per level, non-maximum suppression per class, then over all.

Proposals are 64-bit keys, small for a high score, then for a low index (level, row, column, class), so every order and
every tie is settled by comparing integers and runs are bit-equal. All counts stay on the device; only on the CPU does
the host read them, to launch no more threads than needed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import warp as wp

from rt_panoptic_ros.panoptic.launching import StructSlot, launch
from rt_panoptic_ros.panoptic.sampling import Level, box_around
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
_DIGIT_SHIFTS = (52, 41, 30, 19, 8, 0)  # radix select: 63 bits from the top in digits of 11, 11, 11, 11, 11 and 8 bits
_DIGITS = wp.constant(wp.int32(2048))
_LOGIT_MARGIN = 1e-3  # below the threshold's logit by this, float32's sigmoid is surely below the threshold


@wp.struct
class Candidates:
    """The keys of all locations and classes above the threshold, and the search for the best of each level."""

    keys: wp.array(dtype=wp.int64)  # level after level
    firsts: wp.array(dtype=wp.int32)  # per level: where its keys begin
    counts: wp.array(dtype=wp.int32)  # per level: how many they are
    prefixes: wp.array(dtype=wp.int64)  # per level: the digits of its top_k-th smallest key that are known
    places: wp.array(dtype=wp.int32)  # per level: the place of that key among those with these digits, from 1
    histogram: wp.array2d(dtype=wp.int32)  # per level: keys with these digits, by their next one
    gathered: wp.array(dtype=wp.int64)  # the top_k smallest keys of all levels, then as many `_NO_KEY` as fit
    total: wp.array(dtype=wp.int32)  # number of those


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
    candidates: wp.array(dtype=Candidates),
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
            slot = candidates[0].firsts[level] + wp.atomic_add(candidates[0].counts, level, 1)
            candidates[0].keys[slot] = (wp.int64(_MAX_BITS - wp.cast(score, wp.int32)) << _INDEX_BITS) | index


@wp.kernel
def _count_digits(
    candidates: wp.array(dtype=Candidates), top_k: wp.int32, shift: wp.int32, digit_bits: wp.int32
) -> None:
    """Count, per level, the next digit of the keys that share the prefix found so far."""
    level, slot = wp.tid()
    count = candidates[0].counts[level]
    if slot < count and count > top_k:
        key = candidates[0].keys[candidates[0].firsts[level] + slot] >> wp.int64(shift)
        if (key >> wp.int64(digit_bits)) == candidates[0].prefixes[level]:
            digit = wp.int32(key & ((wp.int64(1) << wp.int64(digit_bits)) - wp.int64(1)))
            wp.atomic_add(candidates[0].histogram, level, digit, 1)


@wp.kernel
def _pick_digit(candidates: wp.array(dtype=Candidates), top_k: wp.int32, digit_bits: wp.int32) -> None:
    """Extend each level's prefix by the digit of its top_k-th smallest key, and empty the histogram."""
    level = wp.tid()
    if candidates[0].counts[level] > top_k:
        histogram = candidates[0].histogram
        place = candidates[0].places[level]
        found = int(-1)
        for digit in range(_DIGITS):
            count = histogram[level, digit]
            histogram[level, digit] = 0
            if found < 0:
                if count >= place:
                    found = digit
                else:
                    place -= count
        candidates[0].places[level] = place
        candidates[0].prefixes[level] = (candidates[0].prefixes[level] << wp.int64(digit_bits)) | wp.int64(found)


@wp.kernel
def _gather(candidates: wp.array(dtype=Candidates), top_k: wp.int32) -> None:
    """Bring each level's top_k smallest keys together."""
    level, slot = wp.tid()
    if slot < candidates[0].counts[level]:
        key = candidates[0].keys[candidates[0].firsts[level] + slot]
        if candidates[0].counts[level] <= top_k or key <= candidates[0].prefixes[level]:
            candidates[0].gathered[wp.atomic_add(candidates[0].total, 0, 1)] = key


@wp.kernel
def _decode(
    sorted_keys: wp.array(dtype=wp.int64),
    levels: wp.array(dtype=Level),
    things: wp.int32,
    content_height: wp.int32,
    content_width: wp.int32,
    proposals: wp.array(dtype=ScoredBoxes),
) -> None:
    """Turn keys into boxes, clipped to the content's pixels, scores and labels."""
    rank = wp.tid()
    if rank < proposals[0].count[0]:
        key = sorted_keys[rank]
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

        With `capturable`, the default on a GPU, the host reads nothing in between and all comparisons are made in
        parallel; without, the host reads counts and one thread compares no more than it must.
        """
        device = dense.semantic_logits.device
        self._capturable = device.is_cuda if capturable is None else capturable
        self._device = device
        capacities = [array.size for array in dense.box_class_logits]
        self._largest = max(capacities)
        levels = len(capacities)
        self._search = {
            "keys": wp.empty(sum(capacities), dtype=wp.int64, device=device),
            "firsts": wp.array(np.cumsum([0, *capacities[:-1]]), dtype=wp.int32, device=device),
            "counts": wp.zeros(levels, dtype=wp.int32, device=device),
            "prefixes": wp.zeros(levels, dtype=wp.int64, device=device),
            "places": wp.zeros(levels, dtype=wp.int32, device=device),
            "histogram": wp.zeros((levels, 2048), dtype=wp.int32, device=device),
            "total": wp.zeros(1, dtype=wp.int32, device=device),
        }
        self._levels = StructSlot(Level, device)
        self._proposals: _Proposals | None = None
        kept = _scored_boxes(MAX_DETECTIONS, device)
        self._kept = StructSlot(ScoredBoxes, device).hold(kept)
        self._result = QueryBoxes(**kept)

    def select(self, dense: DenseDetections, content_size: tuple[int, int], settings: QueryBoxSettings) -> QueryBoxes:
        """Return the query boxes of `dense`, valid until the next call.

        Args:
            dense: The network's outputs.
            content_size: (height, width) px of the image inside the network's input; boxes are clipped to it.
            settings: Thresholds and capacities.
        """
        proposals, counts, total = self._reserve(settings.pre_nms_top_k), self._search["counts"], self._search["total"]
        counts.zero_()
        total.zero_()
        threshold, top_k = settings.pre_nms_threshold, settings.pre_nms_top_k
        floor = float(np.log(threshold / (1 - threshold)) - _LOGIT_MARGIN) if 0 < threshold < 1 else -np.inf
        for level, (logits, centerness) in enumerate(zip(dense.box_class_logits, dense.centerness_logits, strict=True)):
            launch(_collect, logits.shape, logits, centerness, floor, threshold, level, proposals.candidates)
        most = self._largest if self._capturable else int(counts.numpy().max())
        per_level = (len(dense.box_class_logits), most)
        if self._capturable or most > top_k:
            self._find_last_keys(top_k, per_level, proposals.candidates)
        proposals.gathered.fill_(_NO_KEY)
        launch(_gather, per_level, proposals.candidates, top_k)
        number = proposals.capacity if self._capturable else int(total.numpy()[0])
        if number:
            wp.utils.radix_sort_pairs(proposals.gathered, proposals.sort_values, number)
        levels = self._levels.hold(*({"offsets": offsets} for offsets in dense.box_offsets))
        things = dense.box_class_logits[0].shape[0]
        launch(_decode, number, proposals.gathered, levels, things, *content_size, proposals.decoded)
        proposals.suppression.launch(proposals.decoded, settings, self._kept)
        return self._result

    def in_use(self) -> list[object]:
        """Return what the last `select` worked on and another may replace: a graph of it needs it to live as long."""
        return [self._proposals, self._levels.array]

    def _find_last_keys(self, top_k: int, per_level: tuple[int, int], candidates: wp.array) -> None:
        """Find the top_k-th smallest key of each level that has more, by radix select.

        Digit by digit from the top: among the keys that begin with the digits found so far, a histogram of the next
        one says which of its values the key sought has, and its place among the keys with that value. After the last
        digit the prefix is the key itself, and since no two keys are equal, exactly top_k are not above it.
        """
        self._search["prefixes"].zero_()
        self._search["places"].fill_(top_k)
        above = 63
        for shift in _DIGIT_SHIFTS:
            launch(_count_digits, per_level, candidates, top_k, shift, above - shift)
            launch(_pick_digit, per_level[0], candidates, top_k, above - shift)
            above = shift

    def _reserve(self, top_k: int) -> _Proposals:
        """Return buffers for top_k proposals per level."""
        capacity = min(self._search["counts"].size * top_k, self._search["keys"].size)
        if self._proposals is None or self._proposals.capacity < capacity:
            self._proposals = _Proposals(capacity, self._search, self._device, capturable=self._capturable)
        return self._proposals


class _Proposals:
    """The buffers for so many proposals, and the search that ends in them."""

    def __init__(self, capacity: int, search: dict[str, wp.array], device: wp.Device, *, capturable: bool) -> None:
        self.capacity = capacity
        self.gathered = wp.empty(2 * capacity, dtype=wp.int64, device=device)  # the sort needs twice the space
        self.sort_values = wp.zeros(2 * capacity, dtype=wp.int32, device=device)
        self.candidates = StructSlot(Candidates, device).hold({**search, "gathered": self.gathered})
        boxes = {**_scored_boxes(capacity, device), "count": search["total"]}
        self.decoded = StructSlot(ScoredBoxes, device).hold(boxes)
        self.suppression = Suppression(capacity, device, capturable=capturable)


def _scored_boxes(capacity: int, device: wp.Device) -> dict[str, wp.array]:
    """Return the fields of a `ScoredBoxes` with space for so many."""
    return {
        "boxes": wp.zeros(capacity, dtype=wp.vec4, device=device),
        "scores": wp.zeros(capacity, dtype=wp.float32, device=device),
        "labels": wp.zeros(capacity, dtype=wp.int32, device=device),
        "count": wp.zeros(1, dtype=wp.int32, device=device),
    }
