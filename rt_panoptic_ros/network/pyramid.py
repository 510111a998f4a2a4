# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The feature pyramid P3 to P7 (Lin et al., 2017, with RetinaNet's two extra levels; Section 4)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional


class ExtraLevels(nn.Module):
    """P6 and P7, each a stride-2 convolution of the level before; P7's input is rectified."""

    def __init__(self, channels: int) -> None:
        """Create both for `channels` channels."""
        super().__init__()
        self.p6 = nn.Conv2d(channels, channels, 3, 2, 1)
        self.p7 = nn.Conv2d(channels, channels, 3, 2, 1)

    def forward(self, p5: Tensor) -> tuple[Tensor, Tensor]:
        """Return P6 and P7 of `p5` (B, C, h, w)."""
        p6 = self.p6(p5)
        return p6, self.p7(functional.relu(p6))


class FeaturePyramid(nn.Module):
    """Merges the encoder's stages top down, nearest upsampling, and smooths each level with a 3x3 convolution."""

    def __init__(self, sources: Sequence[int], channels: int) -> None:
        """Create the pyramid over encoder stages of `sources` channels."""
        super().__init__()
        self.inner_blocks = nn.ModuleList(nn.Sequential(nn.Conv2d(source, channels, 1)) for source in sources)
        self.layer_blocks = nn.ModuleList(nn.Sequential(nn.Conv2d(channels, channels, 3, 1, 1)) for _ in sources)
        self.extra_blocks = ExtraLevels(channels)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Return P3 to P7 (B, C, h_i, w_i) of the stages at strides 8, 16 and 32."""
        merged = self.inner_blocks[-1](features[-1])
        levels = [self.layer_blocks[-1](merged)]
        for index in range(len(features) - 2, -1, -1):
            lateral = self.inner_blocks[index](features[index])
            merged = lateral + functional.interpolate(merged, size=lateral.shape[-2:], mode="nearest")
            levels.insert(0, self.layer_blocks[index](merged))
        return [*levels, *self.extra_blocks(levels[-1])]
