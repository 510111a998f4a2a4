# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Text parameters as they were written: ROS takes text that looks like a number, a truth or a list for one.

rcl reads `-p source:=0016` as 14, `0x10` as 16, `1e3` as 1000.0 and `y` as true, in parameter files too, and what was
written is lost. So it is given such values in quotes.
"""

from __future__ import annotations

import itertools
import math
import os
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from rt_panoptic_ros.settings import settings_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

_QUOTES = ("'", '"')
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # LibYAML, as in rcl, which has a limit to what is nested
_TEXT_TAG = "tag:yaml.org,2002:str"


@contextmanager
def texts_kept(args: Sequence[str] | None, record: type) -> Iterator[list[str]]:
    """Give a command line that says the same of a record's text parameters, but as text.

    Args:
        args: Command line with ROS arguments; None for the process's own.
        record: A dataclass with fields made by `setting`, the node's parameters.
    """
    names = frozenset(one.name for one in settings_of(record) if one.kind is str)
    kept = list(sys.argv if args is None else args)
    ros = False
    with ExitStack() as stack:
        for place, (option, value) in enumerate(itertools.pairwise(tuple(kept)), start=1):
            if option in ("--ros-args", "--"):
                ros = option == "--ros-args"
            elif ros and option in ("-p", "--param"):
                kept[place] = _quoted_rule(value, names)
            elif ros and option == "--params-file":
                kept[place] = stack.enter_context(_quoted_file(value, names))
        yield kept


def _quoted_rule(rule: str, names: Collection[str]) -> str:
    """Return a rule, [NODE:]NAME:=VALUE, with its value in quotes where it is text and has none yet."""
    name, sign, value = rule.partition(":=")
    if name.rpartition(":")[2] not in names or _says_text(value):
        return rule
    quoted = yaml.safe_dump(value, default_style='"', allow_unicode=True, width=math.inf)
    return f"{name}{sign}{quoted.rstrip()}"


def _says_text(value: str) -> bool:
    try:
        node = yaml.compose(value, _LOADER)
    except (yaml.YAMLError, RecursionError):
        return False
    return isinstance(node, yaml.ScalarNode) and (node.style in _QUOTES or value.startswith("!!str"))


@contextmanager
def _quoted_file(path: str, names: Collection[str]) -> Iterator[str]:
    """Give the path of a parameter file with its texts in quotes: `path` itself where it has nothing to quote."""
    try:
        root = yaml.compose(Path(path).read_bytes(), _LOADER)
    except (OSError, RecursionError, ValueError, yaml.YAMLError):  # rcl will say so
        root = None
    if not _quote_texts(root, names):
        yield path
        return
    descriptor = os.memfd_create("parameters")  # nothing is left behind, however the process ends
    with os.fdopen(descriptor, "wb") as file:
        file.write(yaml.serialize(root, Dumper=yaml.SafeDumper, encoding="utf-8", allow_unicode=True, width=math.inf))
        file.flush()
        yield f"/proc/self/fd/{descriptor}"


def _quote_texts(root: yaml.Node | None, names: Collection[str]) -> bool:
    """Quote the plain values of `names` below all ros__parameters of a file; return whether there was one."""
    changed, waiting, met = False, [(root, False)], set()  # aliases may name what is met already, or around them
    while waiting:
        node, parameters = waiting.pop()
        if not isinstance(node, yaml.MappingNode) or (id(node), parameters) in met:
            continue
        met.add((id(node), parameters))
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if parameters and key.value in names and isinstance(value, yaml.ScalarNode) and not value.style:
                value.tag, value.style = _TEXT_TAG, '"'
                changed = True
            elif not parameters:
                waiting.append((value, key.value == "ros__parameters"))
    return changed
