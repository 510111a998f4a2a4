# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Inputs that were finds, (target, input): the smallest of each kind, or a valid input and what was changed in it."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from fuzz.fuzzing import TARGETS, headed
from fuzz.text_targets import BOMB

if TYPE_CHECKING:
    from collections.abc import Callable

_FILE = {"words": ["node", "--ros-args", "--params-file", "@"]}
_DEEP = b"[" * 20000 + b"]" * 20000


def _card(pattern: bytes, by: bytes) -> tuple[str, bytes]:
    """Return a model's card with one entry changed."""
    text, count = re.subn(pattern, by, TARGETS["model_card"].seeds[0], count=1)
    assert count == 1
    return "model_card", text


def _fields(name: str, change: Callable[[Any], object], seed: int = 0) -> tuple[str, bytes]:
    """Return a target's valid input with its fields changed."""
    head, line, content = TARGETS[name].seeds[seed].partition(b"\n")
    fields = json.loads(head)
    change(fields)
    return name, json.dumps(fields).encode() + line + content


FINDS: list[tuple[str, bytes]] = [
    # What PyYAML fails on with errors of its own, and a few bytes of aliases that are endless when written out.
    *(("class_table", text) for text in (b"0x_", b"2026-13-01", b"9" * 5000, b"!!bool x")),
    ("label_map", BOMB + b"classes: *l\nname: a\n"),
    ("recipe", headed({"changes": ["network=" + "[" * 900 + "]" * 900]}, b"network: {}")),
    ("text_arguments", headed(_FILE, b"&a {b: *a}")),
    ("text_arguments", headed(_FILE, b"ros__parameters: {? [a] : 1}")),
    ("text_arguments", headed({"words": ["node", "--ros-args", "-p", "model:=" + "[" * 3000]})),  # took seconds
    # JSON that is too deep.
    *((name, _DEEP) for name in ("coco_instances", "calibration_ranges", "shown_output")),
    ("engine_entry", _DEEP + b"\nplan"),
    # Tables of another form.
    ("class_table", b'{"name": "a", "classes": [1]}'),
    ("class_table", b'{"name": "a", "classes": [{"id": .inf, "name": "b", "thing": 1, "color": [1, 2, 3]}]}'),
    _card(rb"(?m)^postprocess:(\n .*)*", b"postprocess: [1]"),
    _card(rb"(?m)^about:(\n .*)*", b"about: ab"),
    # Numbers with which no network, input or graph can be made.
    _card(rb"tower_depth: .*", b"tower_depth: 1000000000"),
    _card(rb"size_divisor: .*", b"size_divisor: 1000000000"),
    _card(rb"size:\n- .*\n- .*|size: .*|  size:\n  - .*\n  - .*", b"size: [1000000, 1000000]"),
    _fields("calibration_ranges", lambda document: document["ranges"].update(x=[float("nan"), 1])),
    _fields("calibration_ranges", lambda document: document["ranges"].update(x=[2, 1])),
    ("parameters", headed({"device": "cuda:\u0663"})),
    # Weights of types that NumPy lacks, and archives that are damaged.
    *((("safetensors_header"), TARGETS["safetensors_header"].seeds[place]) for place in (1, 2, 3)),
    ("weights_file", TARGETS["weights_file"].seeds[0].replace(b"PK\1\2", b"PK\1\3")),
    # Bags whose rows and names are none.
    _fields("sqlite_rows", lambda rows: rows["topics"][0].__setitem__(1, None)),
    _fields("sqlite_rows", lambda rows: rows["topics"][1].__setitem__(1, "\0")),
    _fields("sqlite_rows", lambda rows: rows["messages"][0].__setitem__(0, "a")),
    ("sqlite_bag", TARGETS["sqlite_bag"].seeds[0].replace(b"offered_qos", b"offered_q\xd0s")),
    # Whole records of a journal that hold something else.
    _fields("journal_records", lambda journal: journal.update(begin=[1])),
    _fields("journal_records", lambda journal: journal["frames"][0].update(head=[5])),
    # Data sets.
    _fields("coco_panoptic", lambda document: document["annotations"][0]["segments_info"][0].update(iscrowd=65535)),
    _fields("coco_panoptic", lambda document: document["annotations"][0]["segments_info"][0].update(id=2**40)),
]
if "shown_output" in TARGETS:  # a cloud whose points end before their fields
    FINDS.append(_fields("shown_output", lambda cloud: cloud["fields"][0].update(offset=18)))
