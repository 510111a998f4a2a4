# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""A training run's state on disk: written atomically, read without running pickled code."""

from __future__ import annotations

import io
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from rt_panoptic_ros.errors import InvalidInputError, first_line
from rt_panoptic_ros.files import output_path
from rt_panoptic_ros.network.torch_files import load_torch

CHECKPOINT = "checkpoint.pt"


def write_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write a run's state; a reader sees the old file or the new one, whatever happens meanwhile.

    Equal states give equal bytes, those of a run that was resumed too.

    Raises:
        UnavailableError: The file can't be written, such as on a full disk; the file before it is intact.
    """
    content = io.BytesIO()  # torch's own file writer hides why a file can't be written
    torch.save(_unshared(state), content)
    with output_path(path) as temporary:
        temporary.write_bytes(content.getbuffer())


def _unshared(value: Any) -> Any:
    """Return the same without shared objects, which pickle writes once, and of which a restored state has others."""
    if isinstance(value, Mapping):
        return {_unshared(name): _unshared(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_unshared(item) for item in value)
    return sys.intern(value) if isinstance(value, str) else value


def read_checkpoint(path: Path, recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Return the state in file `path`, written by a run of the same recipe.

    Raises:
        InvalidInputError: No such file, a damaged one, or one of another recipe (the message names the entries).
    """
    if not path.is_file():
        raise InvalidInputError(f"expected a checkpoint to resume from at {path}, found none: start without --resume")
    try:
        state = load_torch(path)
        saved = dict(state["recipe"])
    except Exception as error:  # of torch, pickle and zip files, of many kinds
        raise InvalidInputError(
            f"expected a checkpoint of `rt-panoptic train` in {path}, got one that can't be read "
            f"({first_line(error)}): restore it, or start again in another folder"
        ) from None
    differing = [name for name in {**saved, **recipe} if saved.get(name) != recipe.get(name)]
    if differing:
        raise InvalidInputError(
            f"expected a checkpoint of this recipe in {path}, got another {', '.join(differing)}: resume with the "
            "recipe that it was made with, or start again in another folder"
        )
    result: dict[str, Any] = state
    return result
