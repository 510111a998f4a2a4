# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Inputs that were finds, (target, input): the smallest of each kind, or a valid input and what was changed in it."""

from __future__ import annotations

import base64
import json
import re
import zlib
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


_HUNGRY = zlib.decompress(  # a file of SQLite whose schema asks for more memory than there is
    base64.b85decode(
        r"c-"
        r"rk(&2G~`5S~fW{74N+)k9UO728`X0r_u}iUSEURYfR}=0GJRV`3**N@CZ$rJ__q<_UNMj=Ta7f)E$(+@KdO9K!B8X&_QWX`qp!eA@M_XLt0?jA"
        r"y;}-ouK?4AQWiw#G;ne1HhI2myc~?_n6g&wJpPd+d6!U^IeoqmEH&d;-{pQ!dUx{h_7RRdkC?d)hME2GewnX?+>ET~$goh15#ribDF@gsGFA-"
        r"I}tkRLO(t&b?A~pWIdUubnMWpBoM}txkW{V20F`N4521pGUggBc)Vp8dS*cr9!a!heGsx85tt8Y_qNoX1T`XMm%NqKqVtBSMHbB-"
        r"8hDpmY30eDMOXk)VunABldJ7X*>Lp$lP(h7j}P04ad}4=CQ_jvejPwcvDuRVK|1a9#~Yh9jjrs4C*CcR085h;BAJfK>~xYkX>9$YLw|}n>J~ZU"
        r"y^&wF+0t=?p!CjVY6pjBt0kI1b8Zp!uSKfd&3!~8KJm12gJ^wi+KD0EATc${}`R-;9?j6TnqQk<SmjB6%c`4z;E~o-"
        r"{Tv6f(iHnZ@FrQ*+!len&&|-"
        r"zp+_}%CF!S;5)nnpZVZF!iokVg6`vk)G!LUd@7$V=8Kt)LM~M(Y!<WPqf$7S&SZ1r$mYBxt=Q)_yhvznC@yGT&$Ds;<@96OzlzCtPw3c=Tu>fe"
        r"kq)$+%O>{z%QC@k2R=Y%G8@mmx+v@5=Fw<x$7A?YF8*<5+kdm(jV;LNR}Lpte8ci5k5K8h"
    )
)


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
    ("sqlite_bag", _HUNGRY),
    _fields("sqlite_rows", lambda rows: rows["topics"][0].__setitem__(4, "0x_")),  # quality of service
    ("recorded_message", TARGETS["recorded_message"].seeds[0].replace(b"/msg/", b"/")),  # as Crystal wrote it
    ("command_line", headed({"words": ["bag", "i", "--model", "a", "--opacity", "1", "1", "a", "\n"]})),
    # Whole records of a journal that hold something else.
    _fields("journal_records", lambda journal: journal.update(begin=[1])),
    _fields("journal_records", lambda journal: journal["frames"][0].update(head=[5])),
    # Data sets.
    _fields("coco_panoptic", lambda document: document["annotations"][0]["segments_info"][0].update(iscrowd=65535)),
    _fields("coco_panoptic", lambda document: document["annotations"][0]["segments_info"][0].update(id=2**40)),
    _fields("coco_instances", lambda document: document["images"][0].update(file_name="a" * 300)),
    _fields("coco_panoptic", lambda document: document["images"][0].update(file_name="a" * 300)),
    _fields("coco_panoptic", lambda document: document["annotations"][0].update(file_name="a" * 300)),
]
if "shown_output" in TARGETS:  # clouds whose points end before their fields, or are larger than NumPy's
    FINDS.append(_fields("shown_output", lambda cloud: cloud["fields"][0].update(offset=18)))
    FINDS.append(_fields("shown_output", lambda cloud: cloud.update(width=0, point_step=2**31)))
