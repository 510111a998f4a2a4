# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Depth as it lies in messages, and which depth belongs to which frame."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rt_panoptic_ros.errors import InvalidInputError
from rt_panoptic_ros.frames.depth import DepthMatcher, decode_depth


def message(pixels: np.ndarray, encoding: str, *, padding: int = 0, bigendian: bool = False) -> SimpleNamespace:
    """Return an image message of (H, W) numbers, with so many bytes behind each row."""
    height, width = pixels.shape
    rows = pixels.astype(pixels.dtype.newbyteorder(">" if bigendian else "<")).view(np.uint8).reshape(height, -1)
    data = np.pad(rows, ((0, 0), (0, padding)), constant_values=7)
    return SimpleNamespace(
        header=SimpleNamespace(frame_id="camera"),
        encoding=encoding, height=height, width=width, step=data.shape[1], is_bigendian=int(bigendian),
        data=data.tobytes(),
    )  # fmt: skip


@pytest.mark.parametrize("bigendian", [False, True])
@pytest.mark.parametrize("padding", [0, 3])
@pytest.mark.parametrize(("encoding", "kind"), [("16UC1", np.uint16), ("mono16", np.uint16), ("32FC1", np.float32)])
def test_depth_is_what_was_sent(encoding: str, kind: type, padding: int, bigendian: bool) -> None:
    pixels = np.arange(12, dtype=kind).reshape(3, 4) * 300
    decoded = decode_depth(message(pixels, encoding, padding=padding, bigendian=bigendian))
    np.testing.assert_array_equal(decoded, pixels)
    assert (decoded.dtype, decoded.dtype.isnative) == (kind, True)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"encoding": "rgb8"}, r"16UC1 \(mm\) or 32FC1 \(m\), got 'rgb8'"),
        ({"encoding": "16UC1; compressedDepth png"}, "republishes compressedDepth"),
        ({"height": 0}, "0x4 px"),
        ({"step": 7}, "at least 8 bytes, got 24 bytes with a step of 7"),
        ({"data": b"short"}, "got 5 bytes"),
    ],
)
def test_what_is_no_depth_is_one_sentence(change: dict[str, object], words: str) -> None:
    msg = message(np.ones((3, 4), np.uint16), "16UC1")
    for name, value in change.items():
        setattr(msg, name, value)
    with pytest.raises(InvalidInputError, match=words):
        decode_depth(msg)


def test_the_nearest_is_taken_as_soon_as_no_nearer_one_can_come() -> None:
    matcher: DepthMatcher[str, str] = DepthMatcher()
    assert matcher.add_depth(90, "a") == matcher.add_depth(104, "b") == matcher.add_depth(106, "c") == []
    assert matcher.add_frame(105, 20, "there") == [("there", "b")]
    assert matcher.add_depth(183, "before") == matcher.add_frame(200, 20, "its own comes") == []
    assert matcher.offset_ns(200) == -17
    assert matcher.add_depth(200, "own") == [("its own comes", "own")]
    assert matcher.add_frame(299, 20, "earlier was nearer") == matcher.add_depth(296, "d") == []
    assert matcher.add_depth(312, "e") == [("earlier was nearer", "d")]


def test_an_urgent_frame_takes_the_first_that_is_near_enough() -> None:
    urgent: set[str] = set()
    matcher: DepthMatcher[str, str] = DepthMatcher(is_urgent=urgent.__contains__)
    assert matcher.add_depth(90, "a") == matcher.add_frame(100, 20, "frame") == matcher.settled() == []
    urgent.add("frame")
    assert matcher.settled() == [("frame", "a")]
    urgent.add("next")
    assert matcher.add_frame(200, 20, "next") == []
    assert matcher.add_depth(185, "b") == [("next", "b")]


def test_frames_go_without_when_their_time_has_passed_or_others_take_their_place() -> None:
    matcher: DepthMatcher[str, str] = DepthMatcher(frames_kept=1)
    assert matcher.add_frame(100, 5, "passed") == []
    assert matcher.add_depth(106, "too late") == [("passed", None)]
    assert matcher.add_frame(200, 0, "replaced") == []
    assert matcher.add_frame(300, 0, "last") == [("replaced", None)]
    assert matcher.end() == [("last", None)]
    assert matcher.add_frame(106, 0, "after the end") == []


def test_depth_that_comes_later_than_the_next_images() -> None:
    matcher: DepthMatcher[int, int] = DepthMatcher(frames_kept=4)
    events = sorted([(33 * k, "frame", k) for k in range(60)] + [(33 * k + 50, "depth", k) for k in range(60)])
    settled = []
    for _, kind, k in events:
        settled += matcher.add_frame(33 * k, 10, k) if kind == "frame" else matcher.add_depth(33 * k, k)
    assert settled == [(k, k) for k in range(60)]


EVENTS = st.lists(st.tuples(st.booleans(), st.integers(0, 40)), max_size=40)


@given(EVENTS, st.integers(0, 6), st.integers(1, 4), st.integers(1, 4))
def test_every_frame_is_settled_once_and_by_a_depth_that_fits(
    events: list[tuple[bool, int]], slack: int, frames_kept: int, depths_kept: int
) -> None:
    matcher: DepthMatcher[tuple[int, int], int] = DepthMatcher(frames_kept, depths_kept)
    frames, depths, settled = [], list[int](), []
    for number, (is_frame, stamp) in enumerate(events):
        if is_frame:
            frames.append((number, stamp))
            new = matcher.add_frame(stamp, slack, (number, stamp))
        else:
            depths.append(stamp)
            new = matcher.add_depth(stamp, stamp)
        for (_, own), depth in new:
            kept = [abs(known - own) for known in depths[-depths_kept:]]
            if depth is None:
                assert all(distance > slack for distance in kept)
            else:
                assert abs(depth - own) == min(kept) <= slack
        settled += [frame for frame, _ in new]
        waiting = [frame for frame in frames if frame not in settled]
        assert len(waiting) <= frames_kept
    settled += [frame for frame, _ in matcher.end()]
    assert sorted(settled) == frames
