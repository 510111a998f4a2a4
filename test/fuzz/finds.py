# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Inputs that were finds: (target, input), the smallest of each kind."""

from __future__ import annotations

from fuzz.fuzzing import headed
from fuzz.text_targets import BOMB

FINDS: list[tuple[str, bytes]] = [
    # YAML that PyYAML itself fails on, or that a few bytes of aliases make endless.
    *(("class_table", text) for text in (b"0x_", b"2026-13-01", b"9" * 5000, b"!!bool x", b"- " * 900, b"&a [*a]")),
    ("class_table", BOMB + b"classes: *l\nname: a\n"),
    ("model_card", BOMB + b"name: *l\n"),
    ("recipe", headed({"changes": ["network=" + "[" * 900 + "]" * 900]}, b"network: {}")),
    ("text_arguments", headed({"words": ["node", "--ros-args", "--params-file", "@"]}, BOMB + b"ros__parameters: *l")),
    ("text_arguments", headed({"words": ["node", "--ros-args", "--params-file", "@"]}, b"&a {b: *a}")),
    (
        "text_arguments",
        headed({"words": ["node", "--ros-args", "--params-file", "@"]}, b"? [a]\n: {ros__parameters: {}}"),
    ),
    ("text_arguments", headed({"words": ["node", "--ros-args", "-p", "model:=" + "[" * 3000]})),
]
