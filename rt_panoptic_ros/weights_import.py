"""Reads checkpoints of other programs into this package's layout, without running any pickled code."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from rt_panoptic_ros.architecture import NetworkConfig, state_dict_layout
from rt_panoptic_ros.errors import InvalidInputError, require_package
from rt_panoptic_ros.model_bundle import InputSpec, ModelBundle, checked_weights, write_bundle
from rt_panoptic_ros.settings import PostprocessSettings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rt_panoptic_ros.class_table import ClassTable

PUBLISHED_SETTINGS = {"similarity": "giou", "mask_threshold": 0.4, "pre_nms_threshold": 0.06}
"""What the authors' published code and weights use where it differs from the paper."""

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
        checkpoint: A `.pth` or `.pt` file (torch; weights only), a `.safetensors` or an `.npz` file.
        out: Folder of the new bundle.
        network: What the weights must fit.
        classes: The classes they tell apart.
        settings: Post-processing settings by name, over the published ones.

    Raises:
        InvalidInputError: The file can't be read, or names or shapes differ (the message names them).
        UnavailableError: A `.pth` file and no torch on this machine.
    """
    layout = state_dict_layout(network, len(classes), len(classes.thing_ids))
    weights = checked_weights(normalized_names(read_arrays(checkpoint)), layout, str(checkpoint))
    wrong = [name for name, value in weights.items() if not np.isfinite(value).all()]
    if wrong:
        raise InvalidInputError(f"expected finite numbers in {checkpoint}, got NaN or infinity in {wrong[0]}")
    return write_bundle(
        out,
        {name: np.ascontiguousarray(value, np.float32) for name, value in weights.items()},
        network=network,
        classes=classes,
        spec=InputSpec(),
        settings=PostprocessSettings().replaced({**PUBLISHED_SETTINGS, **settings}),
        about={"origin": f"imported from {checkpoint.name}"},
    )


def read_arrays(checkpoint: Path) -> dict[str, np.ndarray]:
    """Return {entry name: array} of a `.pth`, `.pt`, `.safetensors` or `.npz` file.

    Raises:
        InvalidInputError: No such file, another kind, or not readable without running code.
        UnavailableError: A `.pth` or `.pt` file and no torch on this machine.
    """
    if not checkpoint.is_file():
        raise InvalidInputError(f"expected a checkpoint file at {checkpoint}, found none")
    try:
        if checkpoint.suffix == ".npz":
            with np.load(checkpoint, allow_pickle=False) as archive:
                return {name: archive[name] for name in archive.files}
        if checkpoint.suffix == ".safetensors":
            arrays: dict[str, np.ndarray] = load_file(checkpoint)
            return arrays
    except (ValueError, OSError, zipfile.BadZipFile, SafetensorError) as error:
        raise InvalidInputError(f"expected arrays in {checkpoint}, got an unreadable file ({error})") from None
    if checkpoint.suffix in (".pth", ".pt"):
        remedy = "`pip install torch`, or convert the file to .safetensors where torch is"
        require_package("torch", f"reading {checkpoint.name}", remedy)
        from rt_panoptic_ros.network.checkpoints import read_torch_checkpoint

        return read_torch_checkpoint(checkpoint)
    raise InvalidInputError(
        f"expected a checkpoint that ends in .pth, .pt, .safetensors or .npz, got {checkpoint.name}"
    )


def normalized_names(weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return `weights` under this package's names: older pyramid names, DataParallel's prefix and counters mended."""
    result = {}
    for name, value in weights.items():
        plain = name.removeprefix("module.")
        if not plain.endswith("num_batches_tracked"):
            result[_OLD_PYRAMID_NAME.sub(r"\1.0.\2", plain)] = value
    return result
