# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Encoders with frozen batch norm (Section 5.3): ResNets named as in torchvision, and EfficientNet-Lite0."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from rt_panoptic_ros.model.architecture import (
    EFFICIENTNET_LITE0,
    EFFICIENTNET_LITE0_EPSILON,
    RESNET_BLOCKS,
    RESNET_EPSILON,
    InvertedBlock,
    efficientnet_lite0_blocks,
)
from rt_panoptic_ros.network.half_kernels import add_bias_relu


class FrozenBatchNorm2d(nn.Module):
    """Batch norm with fixed statistics and affine: state dict entries weight, bias, running_mean, running_var."""

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, epsilon: float) -> None:
        """Create the identity for `channels` channels; `epsilon` is added to the variance."""
        super().__init__()
        self.epsilon = epsilon
        self.register_buffer("weight", torch.ones(channels))
        self.register_buffer("bias", torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, conv: nn.Conv2d, x: Tensor) -> Tensor:
        """Return `conv` of `x` (B, C, H, W), normalised.

        The factor goes into the kernel, which spares a pass over the result, forward and backward.
        """
        kernel, shift = self.folded(conv) if conv.bias is None else (conv.weight, conv.bias)
        return functional.conv2d(x, kernel, shift, conv.stride, conv.padding, conv.dilation, conv.groups)

    def rectified(self, conv: nn.Conv2d, x: Tensor, residual: Tensor | None = None, limit: float = math.inf) -> Tensor:
        """Return relu(`conv` of `x`, normalised, + `residual`), at most `limit`."""
        if conv.weight.dtype == torch.float16 and conv.out_channels % 2 == 0:
            assert conv.bias is not None  # of `fold_norms`
            y = functional.conv2d(x, conv.weight, None, conv.stride, conv.padding, conv.dilation, conv.groups)
            return add_bias_relu(y, conv.bias, residual, limit)
        y = self(conv, x)
        if residual is not None:
            y = y + residual
        return functional.relu(y) if limit == math.inf else functional.hardtanh(y, 0.0, limit)

    def folded(self, conv: nn.Conv2d) -> tuple[Tensor, Tensor]:
        """Return the kernel and the bias of a convolution that equals `conv` and this norm behind it."""
        factor = self.weight * torch.rsqrt(self.running_var + self.epsilon)
        return conv.weight * factor[:, None, None, None], self.bias - self.running_mean * factor


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions, or 1x1, 3x3, 1x1 with four times the width at the end, around a shortcut."""

    def __init__(self, source: int, width: int, stride: int, *, bottleneck: bool) -> None:
        """Create a block from `source` channels; `width` is that of its 3x3 convolutions."""
        super().__init__()
        out = 4 * width if bottleneck else width
        layers: tuple[tuple[int, int, int, int], ...]
        if bottleneck:
            layers = ((source, width, 1, 1), (width, width, 3, stride), (width, out, 1, 1))
        else:
            layers = ((source, width, 3, stride), (width, width, 3, 1))
        self.depth = len(layers)
        for index, (channels_in, channels_out, kernel, step) in enumerate(layers, 1):
            conv = nn.Conv2d(channels_in, channels_out, kernel, step, kernel // 2, bias=False)
            self.add_module(f"conv{index}", conv)
            self.add_module(f"bn{index}", FrozenBatchNorm2d(channels_out, RESNET_EPSILON))
        self.downsample = (
            nn.Sequential(nn.Conv2d(source, out, 1, stride, bias=False), FrozenBatchNorm2d(out, RESNET_EPSILON))
            if stride != 1 or source != out
            else None
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, source, H, W) to (B, out, ceil(H / stride), ceil(W / stride))."""
        shortcut = x
        if self.downsample is not None:
            conv, norm = self.downsample
            shortcut = norm(conv, x)
        for index in range(1, self.depth + 1):
            conv, norm = self.get_submodule(f"conv{index}"), self.get_submodule(f"bn{index}")
            assert isinstance(conv, nn.Conv2d)
            assert isinstance(norm, FrozenBatchNorm2d)
            x = norm.rectified(conv, x, shortcut if index == self.depth else None)
        return x


class ResNet(nn.Module):
    """ResNet-18, -34 or -50 without classifier; gives the outputs of its last three stages."""

    def __init__(self, name: str) -> None:
        """Create `name`, a key of `RESNET_BLOCKS`."""
        super().__init__()
        bottleneck = name == "resnet50"
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = FrozenBatchNorm2d(64, RESNET_EPSILON)
        channels, outputs = 64, []
        for stage, blocks in enumerate(RESNET_BLOCKS[name]):
            layer = nn.Sequential()
            for block in range(blocks):
                stride = 2 if stage > 0 and block == 0 else 1
                layer.append(ResidualBlock(channels, 64 * 2**stage, stride, bottleneck=bottleneck))
                channels = 64 * 2**stage * (4 if bottleneck else 1)
            self.add_module(f"layer{stage + 1}", layer)
            outputs.append(channels)
        self.out_channels = tuple(outputs[1:])

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the features at strides 8, 16 and 32 of `x` (B, 3, H, W)."""
        x = self.bn1.rectified(self.conv1, x)
        x = functional.max_pool2d(x, 3, 2, 1)
        features = []
        for stage in range(1, 5):
            x = self.get_submodule(f"layer{stage}")(x)
            features.append(x)
        return features[1:]


class InvertedBottleneck(nn.Module):
    """A block of EfficientNet-Lite0 (see `architecture.InvertedBlock`)."""

    def __init__(self, block: InvertedBlock) -> None:
        """Create it with random weights."""
        super().__init__()
        if block.expanded != block.source:
            self.expand_conv = nn.Conv2d(block.source, block.expanded, 1, bias=False)
            self.bn0 = FrozenBatchNorm2d(block.expanded, EFFICIENTNET_LITE0_EPSILON)
        self.depthwise_conv = nn.Conv2d(
            block.expanded, block.expanded, block.kernel, block.stride, block.kernel // 2,
            groups=block.expanded, bias=False,
        )  # fmt: skip
        self.bn1 = FrozenBatchNorm2d(block.expanded, EFFICIENTNET_LITE0_EPSILON)
        self.project_conv = nn.Conv2d(block.expanded, block.target, 1, bias=False)
        self.bn2 = FrozenBatchNorm2d(block.target, EFFICIENTNET_LITE0_EPSILON)
        self.expands, self.shortcut, self.output = block.expanded != block.source, block.shortcut, block.output

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, source, H, W) to (B, target, ceil(H / stride), ceil(W / stride))."""
        y = self.bn0.rectified(self.expand_conv, x, limit=6.0) if self.expands else x
        y = self.bn1.rectified(self.depthwise_conv, y, limit=6.0)
        y = self.bn2(self.project_conv, y)
        result: Tensor = x + y if self.shortcut else y
        return result


class EfficientNetLite0(nn.Module):
    """EfficientNet-Lite0 without classifier, for CPUs and small robots; symmetric padding."""

    def __init__(self) -> None:
        """Create it with random weights."""
        super().__init__()
        self.conv_stem = nn.Conv2d(3, 32, 3, 2, 1, bias=False)
        self.bn0 = FrozenBatchNorm2d(32, EFFICIENTNET_LITE0_EPSILON)
        self.blocks = nn.ModuleList(map(InvertedBottleneck, efficientnet_lite0_blocks()))
        self.out_channels = tuple(block.target for block in efficientnet_lite0_blocks() if block.output)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the features at strides 8, 16 and 32 of `x` (B, 3, H, W)."""
        x = self.bn0.rectified(self.conv_stem, x, limit=6.0)
        features = []
        for block in self.blocks:
            x = block(x)
            if block.output:
                features.append(x)
        return features


def fold_norms(network: nn.Module) -> None:
    """Put each frozen norm into the convolution before it, once and for all: for inference, in place."""
    for module in network.modules():
        for conv, norm in pairwise(list(module.children())):
            if isinstance(norm, FrozenBatchNorm2d):
                assert isinstance(conv, nn.Conv2d)
                conv.weight, conv.bias = map(nn.Parameter, norm.folded(conv))


def make_encoder(name: str) -> ResNet | EfficientNetLite0:
    """Return the encoder of that name, one of `architecture.BACKBONES`, with random weights."""
    return EfficientNetLite0() if name == EFFICIENTNET_LITE0 else ResNet(name)
