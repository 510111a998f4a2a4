# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The network as an ONNX graph for one input size, written directly from a bundle's weights; needs no torch.

Equal to `network.PanopticNetwork` (a test compares them), with what is exact done beforehand: frozen batch norms, the
channel order, the input's scale and the level scales are folded into convolutions; predictors that share their input
are one convolution; the global predictions are computed per level (see `_global_conv`). The mean is subtracted in the
graph, since folding it into the first convolution's bias would be wrong at the zero-padded border.

Input: `image`, uint8 (1, H, W, 3), RGB. Outputs: those of `records.DenseDetections` with a batch axis, float32.

With `ranges`, the convolutions of encoder, pyramid and towers become 8-bit: their inputs, outputs and weights pass
through pairs of QuantizeLinear and DequantizeLinear, which backends fuse with them. What decides values finely stays
float32: group norms, the predictors, upsampled sums, exponentials. With `half`, the same convolutions and the global
predictions' are float16, by types written into the graph; float32 stays the same, and the box predictors.

TensorRT wants some things otherwise (`Dialect`): a cast before anything else is done with the uint8 image; 8 bits that
are symmetric, with biases in float32, and sums of which one side is rounded; group norms as operators of their own.
OpenVINO gets ONNX Runtime's graph, but a convolution without groups where that takes it less time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from onnx import TensorProto, checker, helper, numpy_helper

from rt_panoptic_ros.inference.onnx_layers import OPSETS, GraphBuilder
from rt_panoptic_ros.model.architecture import (
    EFFICIENTNET_LITE0,
    EFFICIENTNET_LITE0_EPSILON,
    LEVELNESS_CHANNELS,
    LEVELS,
    MAX_LOG_OFFSET,
    RESNET_BLOCKS,
    RESNET_EPSILON,
    NetworkConfig,
    efficientnet_lite0_blocks,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from onnx import ModelProto

    from rt_panoptic_ros.inference.onnx_layers import Dialect, Ranges
    from rt_panoptic_ros.model.bundle import InputSpec

_IR_VERSIONS = {17: 8, 21: 10}  # by opset, as ONNX released them
_BODY = "backbone.body"  # where the weights have the encoder
_MOST_IN_ONE_GROUP = 16
"""Outputs up to which OpenVINO gets one group, zeros and all, for a group of each: less time (seen with 6 and 12; the
work grows by their square), the same bits."""


def build_onnx(
    config: NetworkConfig,
    spec: InputSpec,
    weights: Mapping[str, np.ndarray],
    size: tuple[int, int],
    *,
    ranges: Ranges | None = None,
    half: bool = False,
    dialect: Dialect = "onnxruntime",
    narrow_sums: bool = False,
    show_ranges: bool = False,
) -> ModelProto:
    """Return the graph of the network for images of `size` (height, width) px.

    Args:
        config: The network.
        spec: Channel order, mean and scale of the input.
        weights: {entry name: float32 array} in the network's layout.
        size: Of the input, both at least 1; not resized or padded further.
        ranges: Makes an 8-bit graph, see above.
        half: Makes one of half precision; not together with `ranges`.
        dialect: Of which backend.
        narrow_sums: With `ranges`, for processors that add the products of two neighbours in 16 bits, which saturate.
        show_ranges: Add, for each tensor T that an 8-bit graph rounds, the scalar outputs T.lowest and T.highest.
    """
    epsilon = EFFICIENTNET_LITE0_EPSILON if config.backbone == EFFICIENTNET_LITE0 else RESNET_EPSILON
    builder = GraphBuilder(
        weights, ranges, half=half, dialect=dialect, narrow_sums=narrow_sums, batch_norm_epsilon=epsilon
    )
    builder.sizes["pixels"] = size
    levels = _pyramid(builder, config, _encoder(builder, config, spec))
    outputs = _head(builder, config, levels)
    if show_ranges:
        for tensor in builder.rounds:
            for operator, end in (("ReduceMin", "lowest"), ("ReduceMax", "highest")):
                outputs[builder.add(operator, [tensor], f"{tensor}.{end}", keepdims=0)] = []
    graph = helper.make_graph(
        builder.nodes,
        "rt_panoptic",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, [1, *size, 3])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(value, name) for name, value in builder.initializers.items()],
    )
    opset = OPSETS[dialect]
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], producer_name="rt_panoptic_ros")
    model.ir_version = _IR_VERSIONS[opset]
    checker.check_model(model)
    return model


def _encoder(builder: GraphBuilder, config: NetworkConfig, spec: InputSpec) -> list[str]:
    """Add preprocessing and encoder; return the features at strides 8, 16 and 32."""
    if builder.for_tensorrt:
        builder.add("Cast", ["image"], "values", to=TensorProto.FLOAT)
        builder.add("Transpose", ["values"], "pixels", perm=[0, 3, 1, 2])
    else:  # a quarter of the bytes to transpose
        builder.add("Transpose", ["image"], "planes", perm=[0, 3, 1, 2])
        builder.add("Cast", ["planes"], "pixels", to=TensorProto.FLOAT)
    mean = builder.constant("mean", np.array(spec.mean_rgb, np.float32)[None, :, None, None])
    builder.add("Sub", ["pixels", mean], "centered")
    encoder = _efficientnet_lite0 if config.backbone == EFFICIENTNET_LITE0 else _resnet
    return encoder(builder, config, spec)


def _first_conv(builder: GraphBuilder, spec: InputSpec, conv: str, norm: str, fewest_bits: Literal[8, 16] = 8) -> str:
    """Add the first convolution, of stride 2, with the input's channel order and scale folded in."""
    weight, bias = builder.folded_batch_norm(conv, norm)
    if spec.color_order == "bgr":
        weight = weight[:, ::-1]
    weight = weight / np.array(spec.std_rgb)[None, :, None, None]
    return builder.conv("centered", conv, weight, bias, stride=2, fewest_bits=fewest_bits)


def _resnet(builder: GraphBuilder, config: NetworkConfig, spec: InputSpec) -> list[str]:
    x = builder.relu(_first_conv(builder, spec, f"{_BODY}.conv1", f"{_BODY}.bn1"))
    height, width = builder.sizes[x]
    builder.sizes["pooled"] = (-(-height // 2), -(-width // 2))
    x = builder.add("MaxPool", [builder.rounded(x)], "pooled", kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    stages = []
    convs = 3 if config.backbone == "resnet50" else 2
    strided = 2 if convs == 3 else 1  # torchvision's ResNets stride in the first 3x3 convolution
    for stage, blocks in enumerate(RESNET_BLOCKS[config.backbone], 1):
        for block in range(blocks):
            name = f"{_BODY}.layer{stage}.{block}"
            step = 2 if stage > 1 and block == 0 else 1
            shortcut = x
            if f"{name}.downsample.0.weight" in builder.weights:
                shortcut = builder.conv_batch_norm(x, f"{name}.downsample.0", f"{name}.downsample.1", stride=step)
            for index in range(1, convs + 1):
                stride = step if index == strided else 1
                x = builder.conv_batch_norm(x, f"{name}.conv{index}", f"{name}.bn{index}", stride=stride)
                x = builder.relu(x) if index < convs else x
            x = builder.relu(builder.sum_of(x, shortcut, f"{name}.sum"))
        stages.append(x)
    return stages[1:]


def _efficientnet_lite0(builder: GraphBuilder, _config: NetworkConfig, spec: InputSpec) -> list[str]:
    # In 8 bits, the depthwise convolution of the first block alone makes half of all errors. Without it, 8 bits gain
    # the stem nothing, since backends compute in them only between tensors of 8 bits.
    x = builder.relu6(_first_conv(builder, spec, f"{_BODY}.conv_stem", f"{_BODY}.bn0", fewest_bits=16))
    stages = []
    for index, block in enumerate(efficientnet_lite0_blocks()):
        name, y = f"{_BODY}.blocks.{index}", x
        bits: Literal[8, 16] = 16 if index == 0 else 8
        if block.expanded != block.source:
            y = builder.relu6(builder.conv_batch_norm(y, f"{name}.expand_conv", f"{name}.bn0"))
        y = builder.conv_batch_norm(
            y, f"{name}.depthwise_conv", f"{name}.bn1", stride=block.stride, group=block.expanded, fewest_bits=bits
        )
        y = builder.conv_batch_norm(builder.relu6(y), f"{name}.project_conv", f"{name}.bn2", fewest_bits=bits)
        x = builder.sum_of(y, x, f"{name}.sum") if block.shortcut else y
        if block.output:
            stages.append(x)
    return stages


def _pyramid(builder: GraphBuilder, config: NetworkConfig, stages: Sequence[str]) -> list[str]:
    """Add the feature pyramid; return P3 to P7."""
    fpn, channels = "backbone.fpn", config.pyramid_channels
    levels: list[str] = []
    merged = ""
    for index in reversed(range(len(stages))):
        lateral = builder.stored_conv(stages[index], f"{fpn}.inner_blocks.{index}.0", f"{fpn}.inner.{index}")
        if merged:
            above = builder.rounded(merged)
            above = builder.resize(above, channels, builder.sizes[lateral], f"{fpn}.up.{index}", nearest=True)
            merged = builder.sum_of(lateral, above, f"{fpn}.merged.{index}")
        else:
            merged = lateral
        levels.insert(0, builder.stored_conv(merged, f"{fpn}.layer_blocks.{index}.0", f"{fpn}.p{index + 3}"))
    p6 = builder.stored_conv(levels[-1], f"{fpn}.extra_blocks.p6", f"{fpn}.p6", stride=2)
    p7 = builder.stored_conv(
        builder.relu(builder.rounded(p6), f"{p6}.relu"), f"{fpn}.extra_blocks.p7", f"{fpn}.p7", stride=2
    )
    return [*levels, p6, p7]


def _head(builder: GraphBuilder, config: NetworkConfig, levels: Sequence[str]) -> dict[str, list[int]]:
    """Add the panoptic head; return {output name: shape}."""
    head, weights = "panoptic_head", builder.weights
    towers = {
        tower: [_tower(builder, config, level, tower, i) for i, level in enumerate(levels)]
        for tower in dict.fromkeys(config.tower_names)  # two, or one for both tasks
    }
    localization, semantics = (towers[tower] for tower in config.tower_names)
    height, width = builder.sizes[levels[0]]
    channels = {"semantic_logits": len(weights[f"{head}.cls_logits.bias"])}
    _global_conv(builder, f"{head}.cls_logits", semantics, (height, width), "semantic_logits")
    if config.levelness:
        channels["levelness_logits"] = LEVELNESS_CHANNELS
        _global_conv(builder, f"{head}.levelness", localization, (2 * height, 2 * width), "levelness_logits")
    limit = builder.constant("max_log_offset", np.float32(MAX_LOG_OFFSET))
    lengths = builder.constant("offsets_and_centerness", np.array([4, 1], np.int64))
    for i, (box_features, class_features) in enumerate(zip(localization, semantics, strict=True)):
        channels[f"box_class_logits_{i}"] = len(weights[f"{head}.box_cls_logits.bias"])
        builder.stored_conv(class_features, f"{head}.box_cls_logits", f"box_class_logits_{i}", fewest_bits=32)
        scale = weights[f"{head}.scales.{i}.scale"]
        boxes, centers = f"{head}.bbox_pred", f"{head}.centerness"
        weight = np.concatenate([weights[f"{boxes}.weight"] * scale, weights[f"{centers}.weight"]])
        bias = np.concatenate([weights[f"{boxes}.bias"] * scale, weights[f"{centers}.bias"]])
        both = builder.conv(box_features, f"{head}.boxes.{i}", weight, bias, fewest_bits=32)
        log_offsets, centerness = f"{head}.log_offsets.{i}", f"centerness_logits_{i}"
        builder.split([both, lengths], [log_offsets, centerness])
        clamped = builder.add("Min", [log_offsets, limit], f"{head}.clamped_offsets.{i}")
        builder.add("Exp", [clamped], f"box_offsets_{i}")
        channels[f"box_offsets_{i}"], channels[centerness] = 4, 1
    return {name: [1, count, *builder.sizes[name]] for name, count in channels.items()}


def _tower(builder: GraphBuilder, config: NetworkConfig, level: str, tower: str, index: int) -> str:
    x = level
    for block in range(config.tower_depth):
        entry = f"panoptic_head.{tower}.{3 * block}"
        x = builder.stored_conv(x, entry, f"{entry}.level{index}")
        norm = f"panoptic_head.{tower}.{3 * block + 1}"
        x = builder.group_norm_relu(x, norm, config.group_size, f"{norm}.level{index}")
    return x


def _global_conv(builder: GraphBuilder, entry: str, levels: Sequence[str], size: tuple[int, int], name: str) -> None:
    """Add, as tensor `name`, the 3x3 convolution over all upsampled levels, without their concatenation.

    As `network.head.GlobalConv2d`: nine taps per output at each level's own resolution, upsampled, summed, then a
    convolution with a fixed kernel of zeros and ones shifts and adds the taps.
    """
    weight, bias = builder.weights[f"{entry}.weight"], builder.weights[f"{entry}.bias"]
    outputs = len(bias)
    parts = []
    for i, (level, kernel) in enumerate(zip(levels, np.split(weight, LEVELS, axis=1), strict=True)):
        taps = kernel.transpose(0, 2, 3, 1).reshape(outputs * 9, -1, 1, 1)  # output first, then tap
        part = builder.conv(level, f"{entry}.taps.{i}", taps, None, fewest_bits=16)
        part = builder.as_float(part)
        parts.append(builder.resize(part, outputs * 9, size, f"{entry}.upsampled.{i}"))
    total = builder.add("Sum", parts, f"{entry}.taps")
    builder.sizes[total] = size
    shift = np.tile(np.eye(9, dtype=np.float32).reshape(1, 9, 3, 3), (outputs, 1, 1, 1))
    groups = outputs
    if builder.dialect == "openvino" and outputs <= _MOST_IN_ONE_GROUP:
        own = np.eye(outputs, dtype=np.float32)[:, :, None, None, None]
        groups, shift = 1, (own * shift[:, None]).reshape(outputs, outputs * 9, 3, 3)
    builder.conv(total, name, shift, bias, group=groups, fewest_bits=32)
