# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Reads checkpoints of other programs into this package's layout, without running any pickled code."""

from __future__ import annotations

import logging
import re
import zipfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from safetensors import deserialize

from rt_panoptic_ros.errors import InvalidInputError, first_line, require_package
from rt_panoptic_ros.model.architecture import NetworkConfig, state_dict_layout
from rt_panoptic_ros.model.bundle import InputSpec, ModelBundle, checked_weights, write_bundle
from rt_panoptic_ros.settings import PostprocessSettings

if TYPE_CHECKING:
    from rt_panoptic_ros.model.class_table import ClassTable

PUBLISHED_SETTINGS = {"similarity": "giou", "mask_threshold": 0.4, "pre_nms_threshold": 0.06}
"""What the authors' published code and weights use where it differs from the paper."""

Tensors = Mapping[str, Mapping[str, np.ndarray | str]]
"""{place in a file: {entry name: floating-point array, or what else is there, in words}}."""

_LOG = logging.getLogger(__name__)
_WRAPPERS = {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
"""What DataParallel, torch.compile, FSDP and activation checkpoints put into names, wherever they wrap something."""
_SAFETENSORS_TYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2"}
_DAMAGED = "a file that is cut off, damaged or not of plain arrays: copy or download it again"
_OLD_PYRAMID_NAME = re.compile(r"(backbone\.fpn\.(?:inner|layer)_blocks\.\d+)\.(weight|bias)")


def import_weights(
    checkpoint: Path,
    out: Path,
    *,
    network: NetworkConfig,
    classes: ClassTable,
    settings: Mapping[str, object],
) -> ModelBundle:
    """Make a bundle in folder `out` from a checkpoint of the authors' published code, or of this package.

    The card gets that code's preprocessing (BGR, 0 to 255, mean subtracted) and settings, `settings` on top.

    Args:
        checkpoint: A file of torch (weights only), of safetensors, or an `.npz`; see `fitting_weights` for what it may
            hold besides.
        out: Folder of the new bundle.
        network: What the weights must fit.
        classes: The classes they tell apart.
        settings: Post-processing settings by name, over the published ones.

    Raises:
        InvalidInputError: The file can't be read, or names or shapes differ (the message names them).
        UnavailableError: A file of torch and no torch on this machine.
    """
    layout = state_dict_layout(network, len(classes), len(classes.thing_ids))
    return write_bundle(
        out,
        fitting_weights(read_tensors(checkpoint), layout, str(checkpoint)),
        network=network,
        classes=classes,
        spec=InputSpec(),
        settings=PostprocessSettings().replaced({**PUBLISHED_SETTINGS, **settings}),
        about={"origin": f"imported from {checkpoint.name}"},
    )


def fitting_weights(
    tensors: Tensors, layout: Mapping[str, tuple[int, ...]], origin: str, surplus: tuple[str, ...] = ()
) -> dict[str, np.ndarray]:
    """Return a network's weights, wherever in a file they lie: {entry name: float32 array} in the layout's order.

    They may be nested (in `state_dict`, `model`, ...), under a prefix (`model.`, `student.`, ...), wrapped (`module.`),
    and beside other things, such as an optimizer's state: they are where most names end as the layout's do. Of several
    such places the first is taken, and the log says so.

    Args:
        tensors: What the file holds.
        layout: {entry name: shape}.
        origin: The file, for messages.
        surplus: Beginnings of the names of further entries that may be beside the weights, such as a classifier's.

    Raises:
        InvalidInputError: Names or shapes differ, or an entry is not of finite floating-point numbers.
    """
    entries = {
        plain_name(place + name): (place, value)
        for place, part in tensors.items()
        for name, value in part.items()
        if not name.endswith("num_batches_tracked")
    }
    hits: Counter[str] = Counter()  # prefix: how many names of the layout follow it
    for name in entries:
        dots = [0, *(match.end() for match in re.finditer(r"\.", name))]
        hits.update(name[:dot] for dot in dots if name[dot:] in layout)
    prefix = max(hits, key=hits.__getitem__, default="")  # the first of the highest
    others = [other for other in hits if other != prefix and hits[other] == hits[prefix]]
    if others:
        _LOG.warning(
            "%s holds several networks' weights, under %s: taking %s", origin,
            ", ".join(repr(other) for other in (prefix, *others)), repr(prefix),
        )  # fmt: skip
    found = {name.removeprefix(prefix): entry for name, entry in entries.items() if name.startswith(prefix)}
    places = {place for name, (place, _) in found.items() if name in layout} or set(tensors)
    weights = {}
    for name, (place, value) in found.items():
        if isinstance(value, str) and name in layout:
            raise InvalidInputError(
                f"expected floating-point numbers in {origin}, got {value} in {name}: save the weights as plain "
                "float32 tensors"
            )
        if name in layout or (place in places and not name.startswith(surplus)):
            weights[name] = np.asarray(value)
    checked = checked_weights(weights, layout, origin)
    with np.errstate(over="ignore"):  # of float64: it is infinite then
        arrays = {name: np.ascontiguousarray(value, np.float32) for name, value in checked.items()}
    wrong = [name for name, value in arrays.items() if not np.isfinite(value).all()]
    if wrong:
        raise InvalidInputError(f"expected finite numbers in {origin}, got NaN or infinity in {wrong[0]}")
    return arrays


def plain_name(name: str) -> str:
    """Return an entry's name without wrappers, and as this package writes those of older pyramids."""
    plain = ".".join(part for part in name.split(".") if part not in _WRAPPERS)
    return _OLD_PYRAMID_NAME.sub(r"\1.0.\2", plain)


def read_tensors(checkpoint: Path) -> Tensors:
    """Return what a file of torch, of safetensors or an `.npz` holds, by its content, whatever its name.

    Raises:
        InvalidInputError: No such file, another kind, damaged, or not readable without running code.
        UnavailableError: A file of torch and no torch on this machine.
    """
    expected = f"expected a checkpoint file (torch's, .safetensors or .npz) at {checkpoint}"
    kind = _kind_of(checkpoint)
    if kind not in ("torch", "safetensors", "npz"):
        raise InvalidInputError(f"{expected}, found {kind}")
    if kind == "torch":
        remedy = "`pip install torch`, or convert the file to .safetensors where torch is"
        require_package("torch", f"reading {checkpoint.name}", remedy)
        from rt_panoptic_ros.network.torch_files import read_torch_checkpoint

        return read_torch_checkpoint(checkpoint)
    try:
        return {"": _read_safetensors(checkpoint) if kind == "safetensors" else _read_npz(checkpoint)}
    except Exception as error:  # of NumPy, zip files and safetensors, of many kinds
        raise InvalidInputError(f"{expected}, found {_DAMAGED} ({first_line(error)})") from None


def _kind_of(path: Path) -> str:
    """Return torch, safetensors or npz; of anything else, what it is and what to do."""
    if not path.is_file():
        return "a folder: give a file in it" if path.is_dir() else "none: check the path"
    with path.open("rb") as file:
        head = file.read(512)
    if head.startswith(b"PK"):
        return _kind_of_zip(path)
    kinds = {
        "an empty file: copy or download it again": not head,
        "a git-lfs pointer: fetch the file itself with `git lfs pull`": head.startswith(b"version https://git-lfs"),
        "a text file: check the path, and what was downloaded": re.fullmatch(rb"[\t\r\n\x20-\x7e\x80-\xff]*", head),
        "safetensors": head[8:9] == b"{",
        "torch": head.startswith(b"\x80"),  # a pickle, as torch wrote them before 1.6
        "an ONNX graph: give the checkpoint that it was exported from": re.match(rb"\x08[\x01-\x20][\x12\x1a:B]", head),
    }
    return next((kind for kind, holds in kinds.items() if holds), "a file of another kind: check the path")


def _kind_of_zip(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = {Path(name).name for name in archive.namelist()}
    except Exception:  # of many kinds
        return _DAMAGED
    if "constants.pkl" in names:
        return "a TorchScript program: save what its state_dict() returns with torch.save"
    if "data.pkl" in names:
        return "torch"
    return "npz" if all(name.endswith(".npy") for name in names) else "a zip archive of other things: check the path"


def _read_npz(path: Path) -> dict[str, np.ndarray | str]:
    with np.load(path, allow_pickle=False) as archive:
        arrays = {name: np.asarray(archive[name]) for name in archive.files}
    return {name: a if a.dtype.kind == "f" else f"numbers of type {a.dtype}" for name, a in arrays.items()}


def _read_safetensors(path: Path) -> dict[str, np.ndarray | str]:
    entries: dict[str, np.ndarray | str] = {}
    for name, tensor in deserialize(path.read_bytes()):  # type: ignore[no-untyped-call]
        kind, shape = tensor["dtype"], tensor["shape"]
        if kind == "BF16":  # NumPy has no such type; it is the upper half of a float32
            wide = np.frombuffer(tensor["data"], "<u2").astype("<u4") << 16
            entries[name] = wide.view("<f4").reshape(shape)
        elif kind in _SAFETENSORS_TYPES:
            entries[name] = np.frombuffer(tensor["data"], _SAFETENSORS_TYPES[kind]).reshape(shape)
        else:
            entries[name] = f"numbers of type {kind}"
    return entries
