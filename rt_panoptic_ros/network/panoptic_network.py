# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The whole network: image to dense detections (Figure 3)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from rt_panoptic_ros.model.architecture import NetworkConfig
from rt_panoptic_ros.model.bundle import InputSpec
from rt_panoptic_ros.network.backbones import make_encoder
from rt_panoptic_ros.network.head import NetworkOutputs, PanopticHead
from rt_panoptic_ros.network.pyramid import FeaturePyramid


class PyramidBackbone(nn.Module):
    """Encoder and feature pyramid."""

    def __init__(self, config: NetworkConfig) -> None:
        """Create both as `config` says, with random weights."""
        super().__init__()
        self.body = make_encoder(config.backbone)
        self.fpn = FeaturePyramid(self.body.out_channels, config.pyramid_channels)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return P3 to P7 of `images` (B, 3, H, W)."""
        levels: list[Tensor] = self.fpn(self.body(images))
        return levels


class PanopticNetwork(nn.Module):
    """The single-shot network; its state dict has the names of the authors' published weights."""

    def __init__(self, config: NetworkConfig, num_classes: int, num_things: int) -> None:
        """Create the network with random weights."""
        super().__init__()
        self.backbone = PyramidBackbone(config)
        self.panoptic_head = PanopticHead(config, num_classes, num_things)

    def forward(self, images: Tensor) -> NetworkOutputs:
        """Predict from normalised `images` (B, 3, H, W), float; any H and W from 1."""
        outputs: NetworkOutputs = self.panoptic_head(self.backbone(images))
        return outputs

    def load_arrays(self, weights: Mapping[str, np.ndarray]) -> None:
        """Load `weights`, {entry name: array}; names and shapes must be the network's own (strict)."""
        self.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in weights.items()})


class InputNormalization:
    """Makes uint8 RGB images the network's input, as the exported graph does: (pixels - mean) / std, RGB or BGR."""

    def __init__(self, spec: InputSpec, device: torch.device | str) -> None:
        """Put mean and scale on `device`."""
        self._mean = torch.tensor(spec.mean_rgb, device=device)[:, None, None]
        self._std = torch.tensor(spec.std_rgb, device=device)[:, None, None]
        self._flip = spec.color_order == "bgr"

    def __call__(self, images: Tensor) -> Tensor:
        """Return `images` (..., 3, H, W) uint8 RGB as float32 in the channel order of the weights."""
        normalized = (images.float() - self._mean) / self._std
        return normalized.flip(-3) if self._flip else normalized
