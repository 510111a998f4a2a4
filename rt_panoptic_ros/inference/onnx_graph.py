"""The network as an ONNX graph for one input size, written directly from a bundle's weights; needs no torch.

Equal to `network.PanopticNetwork` (a test compares them), with what is exact done beforehand: frozen batch norms, the
channel order, the input's scale and the level scales are folded into convolutions; predictors that share their input
are one convolution; the global predictions are computed per level (see `_global_conv`). The mean is subtracted in the
graph, since folding it into the first convolution's bias would be wrong at the zero-padded border.

Input: `image`, uint8 (1, H, W, 3), RGB. Outputs: those of `records.DenseDetections` with a batch axis, float32.

With `ranges`, the convolutions of encoder, pyramid and towers become 8-bit: their inputs, outputs and weights pass
through pairs of QuantizeLinear and DequantizeLinear, which the engine fuses with them. What decides values finely stays
float32: group norms, the predictors, upsampled sums, exponentials. With `half`, the same convolutions and the global
predictions' are float16, by types written into the graph; float32 stays the same, and the box predictors.

TensorRT wants two things otherwise: a cast before anything else is done with the uint8 image, and 8 bits that are
symmetric, with biases in float32 (`Dialect`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from onnx import TensorProto, checker, helper, numpy_helper

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
from rt_panoptic_ros.progress import report

if TYPE_CHECKING:
    from collections.abc import Sequence

    from onnx import ModelProto, NodeProto

    from rt_panoptic_ros.model.bundle import InputSpec

GRAPH_VERSION = 2
"""Raised whenever the same weights give another graph, so that cached exports are made again."""

Ranges = Mapping[str, tuple[float, float]]
"""{tensor name: (lowest, highest) value} of the tensors that `quantized_tensors` names."""

Dialect = Literal["onnxruntime", "tensorrt"]
"""Whose way of writing what both mean; OpenVINO reads ONNX Runtime's."""

_OPSET = 17
_GROUP_NORM_EPSILON = 1e-5


class _Builder:
    """Collects nodes; tensors are named by what made them, and their (channels, height, width) is known."""

    def __init__(
        self, weights: Mapping[str, np.ndarray], ranges: Ranges | None, *, half: bool, dialect: Dialect
    ) -> None:
        self.weights = weights
        self.ranges = ranges
        self.dialect = dialect
        self._half = half
        self._halves: set[str] = set()  # the float16 tensors
        self.quantizable: list[str] = []
        self._scales: dict[str, float] = {}
        self._rounded: dict[str, str] = {}  # {tensor: its 8-bit values as floats}
        self.nodes: list[NodeProto] = []
        self.initializers: dict[str, np.ndarray] = {}
        self.sizes: dict[str, tuple[int, int]] = {}

    def add(self, operator: str, inputs: Sequence[str], name: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(operator, list(inputs), [name], name=name, **attributes))
        if inputs[0] in self.sizes:
            self.sizes.setdefault(name, self.sizes[inputs[0]])
        if inputs[0] in self._halves:
            self._halves.add(name)
        return name

    def as_float(self, x: str) -> str:
        """Return tensor `x` in float32."""
        return self._cast(x, f"{x}.float", TensorProto.FLOAT) if x in self._halves else x

    def as_half(self, x: str) -> str:
        """Return tensor `x` in float16, in a graph of half precision; else `x`."""
        if not self._half or x in self._halves:
            return x
        self._halves.add(self._cast(x, f"{x}.half", TensorProto.FLOAT16))
        return f"{x}.half"

    def _cast(self, x: str, name: str, kind: int) -> str:
        if name not in self.sizes:
            self.nodes.append(helper.make_node("Cast", [x], [name], name=name, to=kind))
            self.sizes[name] = self.sizes[x]
        return name

    def constant(self, name: str, value: np.ndarray) -> str:
        self.initializers.setdefault(name, value)
        return name

    def conv(
        self,
        x: str,
        name: str,
        weight: np.ndarray,
        bias: np.ndarray | None,
        *,
        entry: str = "",
        stride: int = 1,
        group: int = 1,
        precise: bool = False,
        exact: bool = False,
    ) -> str:
        """Add a convolution; those of one `entry` share their weights.

        `precise` ones are never 8-bit, and `exact` ones are float32 always.
        """
        report("making the network's ONNX graph")
        kernel = weight.shape[-1]
        if exact or precise or self.ranges is None:
            source = self.as_float(x) if exact else x if precise else self.rounded(x)
            source = source if exact else self.as_half(source)
            kind = np.float16 if source in self._halves else np.float32
            inputs = [source, self.constant(f"{entry or name}.weight", np.ascontiguousarray(weight, kind))]
            if bias is not None:
                inputs.append(self.constant(f"{entry or name}.bias", np.ascontiguousarray(bias, kind)))
        else:
            assert bias is not None
            inputs = self._rounded_inputs(x, entry or name, name, weight, bias)
        height, width = self.sizes[x]
        self.sizes[name] = (-(-height // stride), -(-width // stride))
        return self.add(
            "Conv", inputs, name, kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=[kernel // 2] * 4, group=group
        )

    def rounded(self, x: str) -> str:
        """Return tensor `x` as it is after passing through 8 bits, in an 8-bit graph; else `x`."""
        if x not in self.quantizable:
            self.quantizable.append(x)
        if self.ranges is None:
            return x
        if x not in self._rounded:
            low, high = min(self.ranges[x][0], 0.0), max(self.ranges[x][1], 0.0)
            if self.dialect == "tensorrt":
                scale, zero = max(-low, high, 1e-6) / 127, np.int8(0)
            else:
                scale = max(high - low, 1e-6) / 255
                zero = np.uint8(round(-low / scale))
            inputs = [self.constant(f"{x}.scale", np.float32(scale)), self.constant(f"{x}.zero", zero)]
            self._scales[x] = scale
            self.add("QuantizeLinear", [x, *inputs], f"{x}.q")
            self._rounded[x] = self.add("DequantizeLinear", [f"{x}.q", *inputs], f"{x}.dq")
        return self._rounded[x]

    def _rounded_inputs(self, x: str, entry: str, name: str, weight: np.ndarray, bias: np.ndarray) -> list[str]:
        """Return the inputs of a convolution in 8 bits: symmetric weights per output channel, the bias in 32 bits."""
        source = self.rounded(x)
        largest = np.abs(weight).reshape(len(weight), -1).max(axis=1)
        # All but dead channels get a coarser scale than they could have, so that their bias fits into 32 bits.
        scales = (np.maximum(largest, max(1e-3 * largest.max(), 1e-12)) / 127).astype(np.float32)
        integers = np.rint(weight / scales[:, None, None, None]).astype(np.int8)
        kernel = [self.constant(f"{entry}.weight.q", integers), self.constant(f"{entry}.weight.scale", scales),
                  self.constant(f"{entry}.weight.zero", np.zeros(len(weight), np.int8))]  # fmt: skip
        kernel_values = self.add("DequantizeLinear", kernel, f"{name}.weight.dq", axis=0)
        if self.dialect == "tensorrt":
            return [source, kernel_values, self.constant(f"{name}.bias", bias.astype(np.float32))]
        steps = (scales * self._scales[x]).astype(np.float32)
        offset = [self.constant(f"{name}.bias.q", np.rint(bias / steps).astype(np.int32)),
                  self.constant(f"{name}.bias.scale", steps),
                  self.constant(f"{name}.bias.zero", np.zeros(len(bias), np.int32))]  # fmt: skip
        return [
            source,
            kernel_values,
            self.add("DequantizeLinear", offset, f"{name}.bias.dq", axis=0),
        ]

    def plain_conv(self, x: str, entry: str, name: str, *, stride: int = 1, exact: bool = False) -> str:
        weight, bias = self.weights[f"{entry}.weight"], self.weights[f"{entry}.bias"]
        return self.conv(x, name, weight, bias, entry=entry, stride=stride, exact=exact)

    def sum_of(self, x: str, y: str, name: str) -> str:
        return self.add("Add", [self.rounded(x), self.rounded(y)], name)

    def conv_batch_norm(self, x: str, conv: str, norm: str, epsilon: float, *, stride: int = 1, group: int = 1) -> str:
        weight, bias = folded_batch_norm(self.weights, conv, norm, epsilon)
        return self.conv(x, conv, weight, bias, stride=stride, group=group)

    def split(self, inputs: Sequence[str], names: Sequence[str]) -> None:
        self.nodes.append(helper.make_node("Split", list(inputs), list(names), name=f"{inputs[0]}.split", axis=1))
        self.sizes.update(dict.fromkeys(names, self.sizes[inputs[0]]))

    def relu(self, x: str, name: str = "") -> str:
        return self.add("Relu", [x], name or f"{x}.relu")

    def relu6(self, x: str) -> str:
        half = x in self._halves
        limits = [
            self.constant(f"{word}.half" if half else word, np.array(value, np.float16 if half else np.float32))
            for word, value in (("zero", 0), ("six", 6))
        ]
        return self.add("Clip", [x, *limits], f"{x}.relu6")

    def resize(self, x: str, channels: int, size: tuple[int, int], name: str, *, nearest: bool = False) -> str:
        if self.sizes[x] == size:
            return x
        shape = self.constant(f"{name}.size", np.array([1, channels, *size], np.int64))
        self.sizes[name] = size
        if nearest:
            mode = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        else:
            mode = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
        return self.add("Resize", [x, "", "", shape], name, **mode)

    def group_norm_relu(self, x: str, entry: str, group_size: int, name: str) -> str:
        gain, shift = self.weights[f"{entry}.weight"], self.weights[f"{entry}.bias"]
        channels, (height, width) = len(gain), self.sizes[x]
        groups = channels // group_size
        grouped = self.constant(f"groups{groups}.shape", np.array([1, groups, -1], np.int64))
        full = self.constant(f"{channels}x{height}x{width}.shape", np.array([1, channels, height, width], np.int64))
        ones = self.constant(f"groups{groups}.ones", np.ones(groups, np.float32))
        zeros = self.constant(f"groups{groups}.zeros", np.zeros(groups, np.float32))
        y = self.add("Reshape", [self.as_float(self.rounded(x)), grouped], f"{name}.grouped")
        y = self.add("InstanceNormalization", [y, ones, zeros], f"{name}.normalized", epsilon=_GROUP_NORM_EPSILON)
        y = self.add("Reshape", [y, full], f"{name}.full")
        y = self.add("Mul", [y, self.constant(f"{entry}.gain", gain[None, :, None, None])], f"{name}.scaled")
        y = self.add("Add", [y, self.constant(f"{entry}.shift", shift[None, :, None, None])], f"{name}.shifted")
        return self.add("Relu", [y], name)


def build_onnx(
    config: NetworkConfig,
    spec: InputSpec,
    weights: Mapping[str, np.ndarray],
    size: tuple[int, int],
    *,
    ranges: Ranges | None = None,
    half: bool = False,
    dialect: Dialect = "onnxruntime",
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
        dialect: For which engine.
        show_ranges: Add, for each tensor T that an 8-bit graph rounds, the scalar outputs T.lowest and T.highest.
    """
    builder = _Builder(weights, ranges, half=half, dialect=dialect)
    builder.sizes["pixels"] = size
    levels = _pyramid(builder, config, _encoder(builder, config, spec))
    outputs = _head(builder, config, levels)
    if show_ranges:
        for tensor in builder.quantizable:
            for operator, end in (("ReduceMin", "lowest"), ("ReduceMax", "highest")):
                outputs[builder.add(operator, [tensor], f"{tensor}.{end}", keepdims=0)] = []
    graph = helper.make_graph(
        builder.nodes,
        "rt_panoptic",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, [1, *size, 3])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(value, name) for name, value in builder.initializers.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], producer_name="rt_panoptic_ros")
    model.ir_version = 8
    checker.check_model(model)
    return model


def folded_batch_norm(
    weights: Mapping[str, np.ndarray], conv: str, norm: str, epsilon: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return weight and bias of the convolution that equals `conv` followed by the frozen batch norm `norm`."""
    gain = weights[f"{norm}.weight"] / np.sqrt(weights[f"{norm}.running_var"].astype(np.float64) + epsilon)
    bias = weights[f"{norm}.bias"] - weights[f"{norm}.running_mean"] * gain
    return weights[f"{conv}.weight"] * gain[:, None, None, None], bias


def _encoder(builder: _Builder, config: NetworkConfig, spec: InputSpec) -> list[str]:
    """Add preprocessing and encoder; return the features at strides 8, 16 and 32."""
    if builder.dialect == "tensorrt":
        builder.add("Cast", ["image"], "values", to=TensorProto.FLOAT)
        builder.add("Transpose", ["values"], "pixels", perm=[0, 3, 1, 2])
    else:  # a quarter of the bytes to transpose
        builder.add("Transpose", ["image"], "planes", perm=[0, 3, 1, 2])
        builder.add("Cast", ["planes"], "pixels", to=TensorProto.FLOAT)
    mean = builder.constant("mean", np.array(spec.mean_rgb, np.float32)[None, :, None, None])
    x = builder.add("Sub", ["pixels", mean], "centered")
    if config.backbone == EFFICIENTNET_LITE0:
        return _efficientnet_lite0(builder, spec, x)
    return _resnet(builder, config, spec, x)


def _first_conv(builder: _Builder, spec: InputSpec, x: str, conv: str, norm: str, epsilon: float) -> str:
    """Add the first convolution, of stride 2, with the input's channel order and scale folded in."""
    weight, bias = folded_batch_norm(builder.weights, conv, norm, epsilon)
    if spec.color_order == "bgr":
        weight = weight[:, ::-1]
    return builder.conv(x, conv, weight / np.array(spec.std_rgb)[None, :, None, None], bias, stride=2)


def _resnet(builder: _Builder, config: NetworkConfig, spec: InputSpec, x: str) -> list[str]:
    body = "backbone.body"
    x = builder.relu(_first_conv(builder, spec, x, f"{body}.conv1", f"{body}.bn1", RESNET_EPSILON))
    height, width = builder.sizes[x]
    builder.sizes["pooled"] = (-(-height // 2), -(-width // 2))
    x = builder.add("MaxPool", [builder.rounded(x)], "pooled", kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    stages = []
    convs = 3 if config.backbone == "resnet50" else 2
    strided = 2 if convs == 3 else 1  # torchvision's ResNets stride in the first 3x3 convolution
    for stage, blocks in enumerate(RESNET_BLOCKS[config.backbone], 1):
        for block in range(blocks):
            name = f"{body}.layer{stage}.{block}"
            step = 2 if stage > 1 and block == 0 else 1
            shortcut = x
            if f"{name}.downsample.0.weight" in builder.weights:
                shortcut = builder.conv_batch_norm(
                    x, f"{name}.downsample.0", f"{name}.downsample.1", RESNET_EPSILON, stride=step
                )
            for index in range(1, convs + 1):
                stride = step if index == strided else 1
                x = builder.conv_batch_norm(
                    x, f"{name}.conv{index}", f"{name}.bn{index}", RESNET_EPSILON, stride=stride
                )
                if index < convs:
                    x = builder.relu(x)
            x = builder.relu(builder.sum_of(x, shortcut, f"{name}.sum"))
        stages.append(x)
    return stages[1:]


def _efficientnet_lite0(builder: _Builder, spec: InputSpec, x: str) -> list[str]:
    body, epsilon = "backbone.body", EFFICIENTNET_LITE0_EPSILON
    x = builder.relu6(_first_conv(builder, spec, x, f"{body}.conv_stem", f"{body}.bn0", epsilon))
    stages = []
    for index, block in enumerate(efficientnet_lite0_blocks()):
        name, y = f"{body}.blocks.{index}", x
        if block.expanded != block.source:
            y = builder.relu6(builder.conv_batch_norm(y, f"{name}.expand_conv", f"{name}.bn0", epsilon))
        y = builder.conv_batch_norm(
            y, f"{name}.depthwise_conv", f"{name}.bn1", epsilon, stride=block.stride, group=block.expanded
        )
        y = builder.conv_batch_norm(builder.relu6(y), f"{name}.project_conv", f"{name}.bn2", epsilon)
        x = builder.sum_of(x, y, f"{name}.sum") if block.shortcut else y
        if block.output:
            stages.append(x)
    return stages


def _pyramid(builder: _Builder, config: NetworkConfig, stages: Sequence[str]) -> list[str]:
    """Add the feature pyramid; return P3 to P7."""
    fpn, channels = "backbone.fpn", config.pyramid_channels
    levels: list[str] = []
    merged = ""
    for index in reversed(range(len(stages))):
        lateral = builder.plain_conv(stages[index], f"{fpn}.inner_blocks.{index}.0", f"{fpn}.inner.{index}")
        if merged:
            above = builder.rounded(merged)
            above = builder.resize(above, channels, builder.sizes[lateral], f"{fpn}.up.{index}", nearest=True)
            merged = builder.sum_of(lateral, above, f"{fpn}.merged.{index}")
        else:
            merged = lateral
        levels.insert(0, builder.plain_conv(merged, f"{fpn}.layer_blocks.{index}.0", f"{fpn}.p{index + 3}"))
    p6 = builder.plain_conv(levels[-1], f"{fpn}.extra_blocks.p6", f"{fpn}.p6", stride=2)
    p7 = builder.plain_conv(
        builder.relu(builder.rounded(p6), f"{p6}.relu"), f"{fpn}.extra_blocks.p7", f"{fpn}.p7", stride=2
    )
    return [*levels, p6, p7]


def _head(builder: _Builder, config: NetworkConfig, levels: Sequence[str]) -> dict[str, list[int]]:
    """Add the panoptic head; return {output name: shape}."""
    head, weights = "panoptic_head", builder.weights
    localization_name, semantics_name = config.tower_names
    localization = [_tower(builder, config, level, localization_name, i) for i, level in enumerate(levels)]
    semantics = localization
    if semantics_name != localization_name:
        semantics = [_tower(builder, config, level, semantics_name, i) for i, level in enumerate(levels)]
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
        builder.plain_conv(class_features, f"{head}.box_cls_logits", f"box_class_logits_{i}", exact=True)
        scale = weights[f"{head}.scales.{i}.scale"]
        boxes, centers = f"{head}.bbox_pred", f"{head}.centerness"
        weight = np.concatenate([weights[f"{boxes}.weight"] * scale, weights[f"{centers}.weight"]])
        bias = np.concatenate([weights[f"{boxes}.bias"] * scale, weights[f"{centers}.bias"]])
        both = builder.conv(box_features, f"{head}.boxes.{i}", weight, bias, exact=True)
        log_offsets, centerness = f"{head}.log_offsets.{i}", f"centerness_logits_{i}"
        builder.split([both, lengths], [log_offsets, centerness])
        clamped = builder.add("Min", [log_offsets, limit], f"{head}.clamped_offsets.{i}")
        builder.add("Exp", [clamped], f"box_offsets_{i}")
        channels[f"box_offsets_{i}"], channels[centerness] = 4, 1
    return {name: [1, count, *builder.sizes[name]] for name, count in channels.items()}


def _tower(builder: _Builder, config: NetworkConfig, level: str, tower: str, index: int) -> str:
    x = level
    for block in range(config.tower_depth):
        entry = f"panoptic_head.{tower}.{3 * block}"
        x = builder.plain_conv(x, entry, f"{entry}.level{index}")
        norm = f"panoptic_head.{tower}.{3 * block + 1}"
        x = builder.group_norm_relu(x, norm, config.group_size, f"{norm}.level{index}")
    return x


def _global_conv(builder: _Builder, entry: str, levels: Sequence[str], size: tuple[int, int], name: str) -> None:
    """Add, as tensor `name`, the 3x3 convolution over all upsampled levels, without their concatenation.

    As `network.head.GlobalConv2d`: nine taps per output at each level's own resolution, upsampled, summed, then a
    convolution with a fixed kernel of zeros and ones shifts and adds the taps.
    """
    weight, bias = builder.weights[f"{entry}.weight"], builder.weights[f"{entry}.bias"]
    outputs = len(bias)
    parts = []
    for i, (level, kernel) in enumerate(zip(levels, np.split(weight, LEVELS, axis=1), strict=True)):
        taps = kernel.transpose(0, 2, 3, 1).reshape(outputs * 9, -1, 1, 1)  # output first, then tap
        part = builder.conv(level, f"{entry}.taps.{i}", taps, None, precise=True)
        part = builder.as_float(part)
        parts.append(builder.resize(part, outputs * 9, size, f"{entry}.upsampled.{i}"))
    total = builder.add("Sum", parts, f"{entry}.taps")
    builder.sizes[total] = size
    shift = np.tile(np.eye(9, dtype=np.float32).reshape(1, 9, 3, 3), (outputs, 1, 1, 1))
    builder.conv(total, name, shift, bias, group=outputs, exact=True)
