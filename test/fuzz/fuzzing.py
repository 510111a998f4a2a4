# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""What a fuzz target is, when an input is a find, and how inputs are changed, for `test_fuzz.py` and `scripts/fuzz.py`.

An input is bytes. Of a target with fields (a message, a folder's several files) they are a line of JSON and what
follows it, so that fields are changed as well as bytes; of one that reads YAML or JSON, so are the document's values.
"""

from __future__ import annotations

import atexit
import copy
import functools
import importlib.util
import json
import math
import shutil
import struct
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from rt_panoptic_ros.errors import RtPanopticError

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator, Sequence

MOST_CHARACTERS = 4000
"""Of an error's message: names of all of COCO's classes are some of it."""
LARGEST = 1 << 16
"""Bytes of an input."""

MODULES = (
    "fuzz.frame_targets",
    "fuzz.text_targets",
    "fuzz.file_targets",
    "fuzz.dataset_targets",
    *(["fuzz.view_targets"] if importlib.util.find_spec("rerun") else []),
)
"""That enter targets."""

TARGETS: dict[str, Target] = {}
"""{name: target}, those of the modules that were imported."""

_DEEP, _LONG = '"@deep@"', '"@long@"'  # become a nest of lists and a long number, which json.dumps wouldn't write
_ODD: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 3, 255, 256, 1000, 65535, 2**31 - 1, 2**31, 2**32, -(2**63), 2**63, 2**64, 10**30,
    0.5, -0.5, 1e-320, 1e308, -1e308, math.nan, math.inf, -math.inf, "", "x", "1", "nan", "1e999", "0x", "\n", "\0",
    "é", "\udcff", "a" * 300, "../..", "/", "%", "2026-13-99", "0x_", "1:99", "!!python/name:os.system", "&a [*a]",
    _DEEP[1:-1], _LONG[1:-1], [], {}, [[]], [None], {"": None}, [0, 0], [1, 2, 3], [0.5] * 4, ["a"] * 300,
)  # fmt: skip
_NUMBERS = (0, 1, 2, 3, 4, 7, 8, 16, 127, 128, 255, 256, 1000, 32767, 32768, 65535, 2**31 - 1, 2**31, 2**32 - 1, 2**63)


class FindError(AssertionError):
    """An input that was answered in a way that no user should see."""


@dataclass(frozen=True)
class Target:
    """Something that takes bytes from outside."""

    name: str
    run: Callable[[bytes], None]  # raises RtPanopticError alone
    make_seeds: Callable[[], Sequence[bytes]]  # valid inputs, which changes begin with
    share: float  # of a campaign's inputs, relative to the other targets'

    @functools.cached_property
    def seeds(self) -> tuple[bytes, ...]:
        """The inputs that changes begin with."""
        return tuple(self.make_seeds())


def target(
    seeds: Callable[[], Sequence[bytes]], *, share: float = 1.0
) -> Callable[[Callable[[bytes], None]], Callable[[bytes], None]]:
    """Enter a function of bytes into `TARGETS`."""

    def enter(run: Callable[[bytes], None]) -> Callable[[bytes], None]:
        TARGETS[run.__name__] = Target(run.__name__, run, seeds, share)
        return run

    return enter


def accepts(one: Target, data: bytes) -> bool:
    """Run a target; return whether it took the input.

    Raises:
        FindError: The error's message isn't one line of bearable length.
        Exception: Whatever else comes is a find too.
    """
    try:
        one.run(data)
    except RtPanopticError as error:
        check_sentence(str(error))
        return False
    return True


def check_sentence(text: str) -> None:
    """Check what a user is told.

    Raises:
        FindError: It isn't one line of bearable length.
    """
    if len(text) > MOST_CHARACTERS or not text.isprintable() or not text:
        raise FindError(f"a message of {len(text)} characters in {len(text.splitlines())} lines: {text[:200]!r}")


@functools.cache
def workplace() -> Path:
    """Return a folder of this process, in memory where that can be."""
    memory = Path("/dev/shm")
    folder = tempfile.mkdtemp(prefix="rt_panoptic_ros-fuzz-", dir=memory if memory.is_dir() else None)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def headed(fields: object, content: bytes = b"") -> bytes:
    """Return an input of fields and content."""
    return json.dumps(fields).encode() + b"\n" + content


def parted(data: bytes) -> tuple[dict[str, Any], bytes]:
    """Return the fields and the content of an input.

    Raises:
        UnusableError: It is of another form, which says nothing of the product.
    """
    head, _, content = data.partition(b"\n")
    try:
        fields = json.loads(head)
    except (ValueError, RecursionError):
        fields = None
    if not isinstance(fields, dict):
        raise UnusableError
    return fields, content


class UnusableError(RtPanopticError):
    """An input that can't come to the product, such as a message's width that isn't a number."""

    def __init__(self) -> None:
        super().__init__("an input that can't come to the product")


def number(fields: dict[str, Any], name: str, bits: int, default: int = 0) -> int:
    """Return a field as a message's unsigned number of some bits."""
    value = fields.get(name, default)
    if not isinstance(value, int):
        raise UnusableError
    return int(value) % (1 << bits)


def real(value: object) -> float:
    """Return a value as a message's float64."""
    if not isinstance(value, int | float):
        raise UnusableError
    try:
        return float(value)
    except OverflowError:
        return math.inf


def text(fields: dict[str, Any], name: str) -> str:
    """Return a field as a message's text, which is UTF-8."""
    value = fields.get(name, "")
    if not isinstance(value, str):
        raise UnusableError
    return value.encode("utf-8", "replace").decode()


def changed(data: bytes, draw: random.Random, change_bytes: Callable[[bytes], bytes] | None = None) -> bytes:
    """Return an input that differs in a few places, of its fields or of its bytes.

    Args:
        data: The input.
        draw: Decides.
        change_bytes: Changes bytes in place of `changed_bytes`.
    """
    for _ in range(draw.choice((1, 1, 1, 2, 3, 8))):
        kind = draw.random()
        if kind < 0.6 and (document := _changed_document(data, draw)) is not None:
            data = document
        elif kind < 0.8 and b"\n" in data and data[:1] == b"{":
            head, _, content = data.partition(b"\n")
            data = head + b"\n" + changed_bytes(content, draw)
        else:
            data = (change_bytes or functools.partial(changed_bytes, draw=draw))(data)
    return data[:LARGEST]


def changed_bytes(data: bytes, draw: random.Random) -> bytes:
    """Return bytes that differ in one place."""
    content = bytearray(data)
    begin = draw.randint(0, len(content))
    end = min(len(content), begin + draw.choice((1, 1, 2, 4, 8, 16, 100, 1000)))
    kind = draw.randrange(7)
    if kind == 0 and content:
        content[begin % len(content)] ^= 1 << draw.randrange(8)
    elif kind == 1:
        content[begin:end] = bytes(draw.randrange(256) for _ in range(min(16, end - begin)))
    elif kind == 2:
        del content[begin:end]
    elif kind == 3:
        content[begin:begin] = content[begin:end] * draw.choice((1, 2, 50))
    elif kind == 4:
        form = draw.choice(("<B", "<H", ">H", "<I", ">I", "<Q", ">Q"))
        limit = 1 << 8 * struct.calcsize(form)
        content[begin : begin + struct.calcsize(form)] = struct.pack(form, draw.choice(_NUMBERS) % limit)
    elif kind == 5:
        other = draw.randint(0, len(content))
        content[begin:end] = content[other : other + end - begin]
    else:
        del content[begin:]
    return bytes(content)


def _changed_document(data: bytes, draw: random.Random) -> bytes | None:
    """Return an input with one change of its document, be it all of it or its first line; None where it has none."""
    try:
        return _with_other_value(data, draw)
    except (ArithmeticError, RecursionError, TypeError, ValueError):  # numbers or depths that can't be written
        return None


def _with_other_value(data: bytes, draw: random.Random) -> bytes | None:
    head, line, content = data.partition(b"\n")
    if data[:1] in (b"{", b"["):
        document = _parsed(head)
    else:
        document, line, content = _parsed(data), b"", b""
    if not isinstance(document, dict | list):
        return None
    places = list(_places(document, 0))
    if not places:
        return None
    holder, key = draw.choice(places)
    kind = draw.randrange(8)
    if kind == 0:
        del holder[key]
    elif kind == 1:
        other, place = draw.choice(places)
        holder[key] = copy.deepcopy(other[place])
    elif kind == 2 and isinstance(holder, dict):
        holder[str(draw.choice(_ODD))] = holder.pop(key)
    elif kind == 3 and isinstance(holder, list):
        holder += [copy.deepcopy(holder[key])] * draw.choice((1, 2, 20))
    elif kind == 4 and isinstance(holder[key], str):
        holder[key] = changed_bytes(holder[key].encode("utf-8", "surrogatepass"), draw).decode("utf-8", "replace")
    elif kind == 5 and type(holder[key]) in (int, float):
        holder[key] = draw.choice((-1, 1, 2, 0.5, 1000)) * holder[key] + draw.choice((0, 1, -1))
    else:
        holder[key] = draw.choice(_ODD)
    changed = json.dumps(document, default=str)
    deep = draw.choice((50, 500, 5000, 20000))
    changed = changed.replace(_DEEP, "[" * deep + "]" * deep).replace(_LONG, "9" * draw.choice((30, 400, 5000)))
    return changed.encode() + line + content


def _parsed(text: bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    if len(text) > 8000 or b"\0" in text or text[:1] in (b"{", b"[") or b"&" in text:  # with aliases it may be endless
        return None
    try:
        return yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except Exception:  # of a text that was changed already
        return None


def _places(holder: Any, depth: int) -> Iterator[tuple[Any, Any]]:
    """Give (table or list, key) of all values in a document."""
    if depth > 10:
        return
    pairs = list(holder.items()) if isinstance(holder, dict) else list(enumerate(holder))
    for key, value in pairs[:200]:
        yield holder, key
        if isinstance(value, dict | list):
            yield from _places(value, depth + 1)
