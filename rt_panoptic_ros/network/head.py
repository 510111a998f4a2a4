# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The unified panoptic head (Section 4.2): two towers, per-level boxes, global levelness and semantics."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from rt_panoptic_ros.model.architecture import LEVELNESS_CHANNELS, LEVELS, MAX_LOG_OFFSET, NetworkConfig
from rt_panoptic_ros.network.half_kernels import add_bias_norm_relu
from rt_panoptic_ros.records import STRIDES


class NetworkOutputs(NamedTuple):
    """Batched outputs of the network, float32; shapes as in `records.DenseDetections` behind a batch axis B."""

    semantic_logits: Tensor  # (B, N, h, w)
    levelness_logits: Tensor | None  # (B, 6, 2h, 2w)
    box_class_logits: tuple[Tensor, ...]  # (B, T, h_i, w_i)
    box_offsets: tuple[Tensor, ...]  # (B, 4, h_i, w_i), network px
    centerness_logits: tuple[Tensor, ...]  # (B, 1, h_i, w_i)


class Scale(nn.Module):
    """A learned factor, one per pyramid level."""

    def __init__(self) -> None:
        """Create the factor 1."""
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        """Return `x` times the factor."""
        return x * self.scale


class GlobalConv2d(nn.Conv2d):
    """A 3x3 convolution over all levels, upsampled to one grid and concatenated, without ever making that tensor.

    A convolution is a sum over its taps of shifted 1x1 convolutions, and a 1x1 convolution commutes with bilinear
    upsampling. So each level is mapped to 9 values per output at its own resolution, upsampled, and summed; then the
    nine taps are shifted and added with zero borders. Equal to the concatenation up to rounding.
    """

    def __init__(self, channels: int, outputs: int) -> None:
        """Create the convolution over `LEVELS` levels of `channels` channels each."""
        super().__init__(LEVELS * channels, outputs, 3, padding=1)

    def forward_levels(self, levels: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        """Return the outputs (B, O, *size) over `levels`, each (B, C, h_i, w_i)."""
        taps: Tensor | None = None
        for level, weight in zip(levels, self.weight.chunk(LEVELS, dim=1), strict=True):  # weight (O, C, 3, 3)
            kernel = weight.permute(2, 3, 0, 1).flatten(0, 2)[:, :, None, None]  # (9 O, C, 1, 1), tap first
            part = functional.interpolate(
                functional.conv2d(level, kernel), size=size, mode="bilinear", align_corners=False
            )
            taps = part if taps is None else taps + part
        assert taps is not None
        height, width = size
        padded = functional.pad(taps, (1, 1, 1, 1))
        padded = padded.view(len(taps), 3, 3, self.out_channels, height + 2, width + 2)
        assert self.bias is not None
        result = self.bias[:, None, None].expand(len(taps), -1, height, width)
        for y in range(3):
            for x in range(3):
                result = result + padded[:, y, x, :, y : y + height, x : x + width]
        return result


class PanopticHead(nn.Module):
    """Towers shared over the levels, and the five predictors on them."""

    def __init__(self, config: NetworkConfig, num_classes: int, num_things: int) -> None:
        """Create the head with the initialisation of FCOS (prior probability 0.01 for the box classes).

        Boxes start at three strides to each side, the middle of what a level is for, instead of at 1 px.
        """
        super().__init__()
        self.localization_name, self.semantics_name = config.tower_names
        widths = {
            self.semantics_name: config.semantics_features,
            self.localization_name: config.localization_channels,
        }
        for name, channels in widths.items():
            self.add_module(name, Tower(config.pyramid_channels, channels, config.tower_depth, config.group_size))
        self.cls_logits = GlobalConv2d(config.semantics_features, num_classes)
        self.box_cls_logits = nn.Conv2d(config.semantics_features, num_things, 3, padding=1)
        self.bbox_pred = nn.Conv2d(config.localization_channels, 4, 3, padding=1)
        self.centerness = nn.Conv2d(config.localization_channels, 1, 3, padding=1)
        self.levelness = GlobalConv2d(config.localization_channels, LEVELNESS_CHANNELS) if config.levelness else None
        scales = [Scale() for _ in range(LEVELS)]
        self.scales = nn.ModuleList(scales)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.01)
                assert module.bias is not None
                nn.init.zeros_(module.bias)
        assert self.box_cls_logits.bias is not None
        nn.init.constant_(self.box_cls_logits.bias, -math.log(99))
        assert self.bbox_pred.bias is not None
        nn.init.constant_(self.bbox_pred.bias, math.log(3 * STRIDES[0]))
        for scale, stride in zip(scales, STRIDES, strict=True):
            nn.init.constant_(scale.scale, math.log(3 * stride) / math.log(3 * STRIDES[0]))

    def forward(self, levels: Sequence[Tensor]) -> NetworkOutputs:
        """Predict from P3 to P7, each (B, C, h_i, w_i)."""
        localization = [self.get_submodule(self.localization_name)(level) for level in levels]
        shared = self.semantics_name == self.localization_name
        semantics = localization if shared else [self.get_submodule(self.semantics_name)(level) for level in levels]
        height, width = levels[0].shape[-2:]
        offsets = tuple(
            torch.exp(scale(self.bbox_pred(feature)).float().clamp(max=MAX_LOG_OFFSET))
            for scale, feature in zip(self.scales, localization, strict=True)
        )
        levelness = self.levelness
        return NetworkOutputs(
            semantic_logits=self.cls_logits.forward_levels(semantics, (height, width)),
            levelness_logits=None if levelness is None
            else levelness.forward_levels(localization, (2 * height, 2 * width)),
            box_class_logits=tuple(self.box_cls_logits(feature) for feature in semantics),
            box_offsets=offsets,
            centerness_logits=tuple(self.centerness(feature) for feature in localization),
        )  # fmt: skip


class Tower(nn.Sequential):
    """3x3 convolutions, each with a group norm and a ReLU behind it."""

    def __init__(self, source: int, channels: int, depth: int, group_size: int) -> None:
        """Create `depth` of them from `source` channels."""
        super().__init__()
        for block in range(depth):
            self.append(nn.Conv2d(channels if block else source, channels, 3, padding=1))
            self.append(nn.GroupNorm(channels // group_size, channels))
            self.append(nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, source, h, w) to (B, channels, h, w)."""
        layers = list(self)
        for conv, norm, relu in zip(layers[::3], layers[1::3], layers[2::3], strict=True):
            assert isinstance(conv, nn.Conv2d)
            assert isinstance(norm, nn.GroupNorm)
            if conv.weight.dtype == torch.float16 and norm.num_channels // norm.num_groups % 2 == 0:
                assert conv.bias is not None
                x = add_bias_norm_relu(functional.conv2d(x, conv.weight, padding=1), conv.bias, norm)
            else:
                x = relu(norm(conv(x)))
        return x
