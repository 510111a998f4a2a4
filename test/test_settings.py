# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Settings: defaults, ranges, and what is said of wrong ones."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rt_panoptic_ros.errors import InvalidInputError
from rt_panoptic_ros.settings import PostprocessSettings, settings_of


def test_every_default_is_allowed_and_described() -> None:
    for info in settings_of(PostprocessSettings):
        assert info.parsed(info.default) == info.default
        assert info.description.endswith(".")
    assert set(PostprocessSettings().flat()) == {info.name for info in settings_of(PostprocessSettings)}


def test_text_and_number_forms_agree() -> None:
    changed = {"mask_threshold": 0.25, "pre_nms_top_k": 7, "similarity": "giou"}
    as_text = {name: str(value) for name, value in changed.items()}
    assert PostprocessSettings().replaced(changed) == PostprocessSettings().replaced(as_text)
    flat = PostprocessSettings().replaced(changed).flat()
    assert {name: flat[name] for name in changed} == changed


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("mask_threshold", "much", "a number from 0.001 to 1, got 'much'"),
        ("mask_threshold", 1.5, "from 0.001 to 1, got 1.5"),
        ("mask_threshold", math.nan, "got nan"),
        ("mask_threshold", True, "got True"),
        ("mask_threshold", None, "got None"),
        ("pre_nms_top_k", 2.5, "a whole number"),
        ("pre_nms_top_k", math.inf, "got inf"),
        ("max_detections", 129, "from 1 to 128"),
        ("similarity", "cosine", "one of iou, giou"),
        ("mask_treshold", 0.2, "check the spelling"),
    ],
)
def test_wrong_values_are_refused_with_the_reason(name: str, value: object, expected: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        PostprocessSettings().replaced({"nms_threshold": 0.5, name: value})
    assert expected in str(caught.value)
    assert name in str(caught.value)


@given(st.floats() | st.integers() | st.text() | st.booleans() | st.none())
def test_any_value_is_taken_into_range_or_refused(value: object) -> None:
    for info in settings_of(PostprocessSettings):
        try:
            parsed = info.parsed(value)
        except InvalidInputError:
            continue
        assert isinstance(parsed, info.kind)
        if info.kind is str:
            assert parsed in info.choices
        else:
            assert isinstance(parsed, int | float)
            assert info.minimum is not None
            assert info.maximum is not None
            assert info.minimum <= parsed <= info.maximum
