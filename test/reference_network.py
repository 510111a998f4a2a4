# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The reference implementation of the network, in torch: the five levels upsampled and concatenated as in the paper."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from rt_panoptic_ros.model.bundle import ModelBundle
from rt_panoptic_ros.network.head import GlobalConv2d
from rt_panoptic_ros.network.torch_backend import TorchBackend


class ConcatenatingConv2d(GlobalConv2d):
    """`GlobalConv2d` as the paper draws it."""

    def forward_levels(self, levels: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        upsampled = [functional.interpolate(x, size=size, mode="bilinear", align_corners=False) for x in levels]
        return functional.conv2d(torch.cat(upsampled, dim=1), self.weight, self.bias, padding=1)


class ReferenceNetwork(TorchBackend):
    """A bundle's network in float32, with such convolutions."""

    def __init__(self, bundle: ModelBundle, network_size: tuple[int, int], device: str) -> None:
        super().__init__(bundle, network_size, device, "float32")
        for module in self._network.modules():
            if isinstance(module, GlobalConv2d):
                module.__class__ = ConcatenatingConv2d
