# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Messages of one stamp are put together in any order, and never those of two."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rt_panoptic_ros.frames.matching import StampMatcher


@given(st.permutations([(topic, stamp) for topic in "abc" for stamp in (1, 2, 3)]))
def test_sets_complete_in_any_order(arrivals):
    matcher = StampMatcher("abc")
    sets = [matcher.add(topic, stamp, (topic, stamp)) for topic, stamp in arrivals]
    complete = [found for found in sets if found]
    assert len(complete) == 3
    for found in complete:
        assert found.keys() == set("abc")
        assert len({stamp for _, stamp in found.values()}) == 1
    assert matcher.incomplete == 0


def test_a_nanosecond_apart_is_another_frame():
    matcher = StampMatcher("ab")
    assert matcher.add("a", 1_700_000_000_000_000_000, 0) is None
    assert matcher.add("b", 1_700_000_000_000_000_001, 0) is None
    matcher.give_up()
    assert matcher.incomplete == 2


def test_the_oldest_incomplete_sets_are_given_up():
    matcher = StampMatcher("ab", capacity=2)
    for stamp in (1, 2, 3):
        matcher.add("a", stamp, 0)
    assert matcher.incomplete == 1
    assert matcher.add("b", 3, 0)


def test_the_sets_of_a_bag_that_loops_are_complete():
    matcher = StampMatcher("ab", capacity=4)
    for stamp in (*range(10, 14), 14, 15):  # of these, "b" is lost
        assert matcher.add("a", stamp, 0) is None
    for lap in range(3):
        for stamp in range(10):
            assert matcher.add("a", stamp, lap) is None
            assert matcher.add("b", stamp, lap) == {"a": lap, "b": lap}
    assert matcher.incomplete == 3


def test_a_set_is_never_made_of_two_laps():
    matcher = StampMatcher("abc")
    matcher.add("a", 1, "first lap")
    matcher.add("b", 1, "first lap")
    for topic in "ab":
        assert matcher.add(topic, 1, "second lap") is None
    assert matcher.add("c", 1, "second lap") == dict.fromkeys("abc", "second lap")
    assert matcher.incomplete == 1
