# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Reading torch checkpoints as plain arrays."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rt_panoptic_ros.errors import InvalidInputError, first_line

_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def load_torch(path: Path) -> Any:
    """Return what is in a file that torch wrote, if it is plain data whose bytes are those of its checksums.

    Raises:
        Exception: It is not; of torch, pickle and zip files, of many kinds.
    """
    if zipfile.is_zipfile(path):  # files before torch 1.6 aren't, and have no checksums
        with zipfile.ZipFile(path) as archive:  # torch itself compares none
            if (damaged := archive.testzip()) is not None:
                raise ValueError(f"the bytes of {damaged} are damaged")
    return torch.load(path, map_location="cpu", weights_only=True)


def read_torch_checkpoint(path: Path) -> dict[str, dict[str, np.ndarray | str]]:
    """Return the tensors of a torch file as `weights_import.Tensors`: those of each dictionary or list by its place.

    Raises:
        InvalidInputError: Damaged, without tensors, or with anything but tensors and plain data in it: no pickled code
            is ever run.
    """
    try:
        content = load_torch(path)
    except Exception as error:
        # Not its first line, which tells users how to have the code run.
        unknown = re.search(r"Unsupported (?:global|class).*?([\w.]+\.\w+)", str(error))
        said = re.search(r"WeightsUnpickler error:\s*(.+)", str(error))
        what = f"a {unknown[1]} in it" if unknown else said[1] if said else first_line(error)
        raise InvalidInputError(
            f"expected a torch checkpoint of plain tensors in {path}, got one that can't be read without running code "
            f"or is damaged ({what}): save it again with torch.save(model.state_dict(), ...)"
        ) from None
    tensors: dict[str, dict[str, np.ndarray | str]] = {}
    _collect(content, "", tensors)
    if not tensors:
        raise InvalidInputError(
            f"expected a state dict (names to tensors) in {path}, got no tensor in a {type(content).__name__}"
        )
    return tensors


def _collect(content: object, place: str, tensors: dict[str, dict[str, np.ndarray | str]]) -> None:
    """Enter the tensors of nested dictionaries and lists, by the dotted path to each."""
    pairs = content.items() if isinstance(content, Mapping) else []
    for name, value in enumerate(content) if isinstance(content, list | tuple) else pairs:
        if isinstance(value, torch.Tensor):
            tensors.setdefault(place, {})[str(name)] = _array(value)
        else:
            _collect(value, f"{place}{name}.", tensors)


def _array(tensor: torch.Tensor) -> np.ndarray | str:
    """Return floating-point numbers as float32 or float64; of anything else, what it is."""
    if tensor.is_quantized:
        return "a quantised tensor"
    if tensor.layout is not torch.strided:
        return "a sparse tensor"
    if tensor.is_meta:
        return "a tensor without numbers"
    if tensor.dtype not in _FLOATS:
        return f"numbers of type {tensor.dtype}".replace("torch.", "")
    result: np.ndarray = tensor.detach().to(torch.promote_types(tensor.dtype, torch.float32)).numpy()
    return result
