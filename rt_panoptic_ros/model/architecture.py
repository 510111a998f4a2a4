# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""What network a bundle holds: its configuration and the names and shapes of its weights.

Both executions of the network (torch for learning, the ONNX graph for running) are built from this, so weights can
be checked, imported and run on a machine without torch. Names are those of the authors' published state dict.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rt_panoptic_ros.errors import require
from rt_panoptic_ros.records import STRIDES

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

Shape = tuple[int, ...]

RESNET_BLOCKS = {"resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3), "resnet50": (3, 4, 6, 3)}
"""Residual blocks of the four stages (He et al., 2016)."""

EFFICIENTNET_LITE0 = "efficientnet_lite0"
BACKBONES = (*RESNET_BLOCKS, EFFICIENTNET_LITE0)

RESNET_EPSILON = 1e-5
EFFICIENTNET_LITE0_EPSILON = 1e-3
"""What the encoders' batch norms add to the variance; the GroupNorms of the head add 1e-5."""


@dataclass(frozen=True, slots=True)
class InvertedBlock:
    """One inverted bottleneck of EfficientNet-Lite0: 1x1 expansion (if any), depthwise, 1x1 projection; ReLU6."""

    source: int  # input channels
    expanded: int  # channels of the depthwise convolution; `source`: no expansion
    target: int  # output channels
    kernel: int
    stride: int
    shortcut: bool  # the input is added to the output
    output: bool  # the last block before the next stride: a pyramid level starts here


def efficientnet_lite0_blocks() -> list[InvertedBlock]:
    """Return the blocks of EfficientNet-Lite0 behind its 32-channel, stride-2 stem."""
    stages = (  # (expansion, channels, kernel, stride, repeats, a pyramid level starts at its end)
        (1, 16, 3, 1, 1, False), (6, 24, 3, 2, 2, False), (6, 40, 5, 2, 2, True), (6, 80, 3, 2, 3, False),
        (6, 112, 5, 1, 3, True), (6, 192, 5, 2, 4, False), (6, 320, 3, 1, 1, True),
    )  # fmt: skip
    blocks, source = [], 32
    for expansion, target, kernel, stride, repeats, level in stages:
        for repeat in range(repeats):
            step = stride if repeat == 0 else 1
            blocks.append(
                InvertedBlock(
                    source, expansion * source, target, kernel, step, repeat > 0, level and repeat == repeats - 1
                )
            )
            source = target
    return blocks


LEVELS = len(STRIDES)
LEVELNESS_CHANNELS = LEVELS + 1
"""Background, then the pyramid levels (Section 4.2)."""

_MOST = 4096  # channels, and blocks of a tower: more is a slip, and fills the memory before anything can say so

MAX_LOG_OFFSET = 9.210340371976184
"""Box offsets are exp(min(x, log 10000)) pixels."""


@dataclass(frozen=True, slots=True)
class NetworkConfig:
    """Everything that fixes the network's layout (Section 4, Table 3)."""

    backbone: str = "resnet50"
    pyramid_channels: int = 256
    localization_channels: int = 256
    semantics_channels: int = 128
    tower_depth: int = 4
    group_size: int = 8  # channels per group of the GroupNorms
    towers: int = 2  # 1: one tower serves both tasks (Table 3, first row)
    levelness: bool = True  # False: no levelness prediction (Appendix B)

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            InvalidInputError: A value that no network can have.
        """
        require(self.backbone in BACKBONES, f"backbone to be one of {', '.join(BACKBONES)}", f"'{self.backbone}'")
        require(self.towers in (1, 2), "towers to be 1 or 2", self.towers)
        for name in ("pyramid_channels", "localization_channels", "semantics_channels", "tower_depth", "group_size"):
            require(1 <= getattr(self, name) <= _MOST, f"{name} to be from 1 to {_MOST}", getattr(self, name))
        for name in ("localization_channels", "semantics_channels"):
            channels, size = getattr(self, name), self.group_size
            require(channels % size == 0, f"{name} to be a multiple of group_size {size}", channels)

    @property
    def tower_names(self) -> tuple[str, str]:
        """Names of the localization and the semantics tower; equal when there is one tower."""
        return ("bbox_tower", "cls_tower") if self.towers == 2 else ("tower", "tower")

    @property
    def semantics_features(self) -> int:
        """Channels that the semantic predictors see."""
        return self.semantics_channels if self.towers == 2 else self.localization_channels


def state_dict_layout(config: NetworkConfig, num_classes: int, num_things: int) -> dict[str, Shape]:
    """Return {entry name: shape} of the network's weights, in the published order.

    Args:
        config: The network.
        num_classes: N, things and stuff.
        num_things: The thing classes.
    """
    return dict(_entries(config, num_classes, num_things))


def _entries(config: NetworkConfig, num_classes: int, num_things: int) -> Iterator[tuple[str, Shape]]:
    if config.backbone == EFFICIENTNET_LITE0:
        stages = yield from _efficientnet_lite0("backbone.body")
    else:
        stages = yield from _resnet("backbone.body", config.backbone)
    pyramid = config.pyramid_channels
    for index, channels in enumerate(stages):
        yield from _conv(f"backbone.fpn.inner_blocks.{index}.0", channels, pyramid, 1)
    for index in range(3):
        yield from _conv(f"backbone.fpn.layer_blocks.{index}.0", pyramid, pyramid, 3)
    yield from _conv("backbone.fpn.extra_blocks.p6", pyramid, pyramid, 3)
    yield from _conv("backbone.fpn.extra_blocks.p7", pyramid, pyramid, 3)

    head = "panoptic_head"
    localization, semantics = config.tower_names
    widths = {semantics: config.semantics_features, localization: config.localization_channels}
    for tower, channels in widths.items():
        for block in range(config.tower_depth):
            yield from _conv(f"{head}.{tower}.{3 * block}", channels if block else pyramid, channels, 3)
            yield f"{head}.{tower}.{3 * block + 1}.weight", (channels,)
            yield f"{head}.{tower}.{3 * block + 1}.bias", (channels,)
    yield from _conv(f"{head}.cls_logits", LEVELS * config.semantics_features, num_classes, 3)
    yield from _conv(f"{head}.box_cls_logits", config.semantics_features, num_things, 3)
    yield from _conv(f"{head}.bbox_pred", config.localization_channels, 4, 3)
    yield from _conv(f"{head}.centerness", config.localization_channels, 1, 3)
    if config.levelness:
        yield from _conv(f"{head}.levelness", LEVELS * config.localization_channels, LEVELNESS_CHANNELS, 3)
    for level in range(LEVELS):
        yield f"{head}.scales.{level}.scale", (1,)


def _resnet(prefix: str, backbone: str) -> Generator[tuple[str, Shape], None, list[int]]:
    """Yield the entries of a torchvision ResNet without its classifier; return the last stages' output channels."""
    bottleneck = backbone == "resnet50"
    yield f"{prefix}.conv1.weight", (64, 3, 7, 7)
    yield from _batch_norm(f"{prefix}.bn1", 64)
    channels, outputs = 64, []
    for stage, blocks in enumerate(RESNET_BLOCKS[backbone]):
        width = 64 * 2**stage
        out = 4 * width if bottleneck else width
        convs = ((width, 1), (width, 3), (out, 1)) if bottleneck else ((width, 3), (width, 3))
        for block in range(blocks):
            name, block_input, source = f"{prefix}.layer{stage + 1}.{block}", channels, channels
            for index, (target, kernel) in enumerate(convs, 1):
                yield f"{name}.conv{index}.weight", (target, source, kernel, kernel)
                yield from _batch_norm(f"{name}.bn{index}", target)
                source = target
            if block == 0 and (stage > 0 or block_input != out):
                yield f"{name}.downsample.0.weight", (out, block_input, 1, 1)
                yield from _batch_norm(f"{name}.downsample.1", out)
            channels = out
        outputs.append(channels)
    return outputs[1:]


def _efficientnet_lite0(prefix: str) -> Generator[tuple[str, Shape], None, list[int]]:
    """Yield the entries of EfficientNet-Lite0 without its classifier; return the stages' output channels."""
    yield f"{prefix}.conv_stem.weight", (32, 3, 3, 3)
    yield from _batch_norm(f"{prefix}.bn0", 32)
    outputs = []
    for index, block in enumerate(efficientnet_lite0_blocks()):
        name = f"{prefix}.blocks.{index}"
        if block.expanded != block.source:
            yield f"{name}.expand_conv.weight", (block.expanded, block.source, 1, 1)
            yield from _batch_norm(f"{name}.bn0", block.expanded)
        yield f"{name}.depthwise_conv.weight", (block.expanded, 1, block.kernel, block.kernel)
        yield from _batch_norm(f"{name}.bn1", block.expanded)
        yield f"{name}.project_conv.weight", (block.target, block.expanded, 1, 1)
        yield from _batch_norm(f"{name}.bn2", block.target)
        if block.output:
            outputs.append(block.target)
    return outputs


def _conv(name: str, source: int, target: int, kernel: int) -> Iterator[tuple[str, Shape]]:
    yield f"{name}.weight", (target, source, kernel, kernel)
    yield f"{name}.bias", (target,)


def _batch_norm(name: str, channels: int) -> Iterator[tuple[str, Shape]]:
    for field in ("weight", "bias", "running_mean", "running_var"):
        yield f"{name}.{field}", (channels,)
