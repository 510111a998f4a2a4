# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The layers that `onnx_graph` writes its network with, in float32, float16 or 8 bits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from onnx import TensorProto, helper

from rt_panoptic_ros.progress import report

if TYPE_CHECKING:
    from collections.abc import Sequence

    from onnx import NodeProto

Ranges = Mapping[str, tuple[float, float]]
"""{tensor name: (lowest, highest) value} of the tensors in `GraphBuilder.rounds`."""

Dialect = Literal["onnxruntime", "openvino", "tensorrt", "tensorrt_opset17"]
"""Whose way of writing what all mean; TensorRT before 10.9 knows opset 17 only."""

OPSETS: dict[Dialect, int] = {"onnxruntime": 17, "openvino": 17, "tensorrt": 21, "tensorrt_opset17": 17}

_GROUP_NORM_EPSILON = 1e-5


class GraphBuilder:
    """Collects nodes and constants. Methods take and return tensors by name, and name them after what made them."""

    def __init__(
        self,
        weights: Mapping[str, np.ndarray],
        ranges: Ranges | None,
        *,
        half: bool,
        dialect: Dialect,
        narrow_sums: bool,
        batch_norm_epsilon: float,
    ) -> None:
        """Begin a graph without nodes; see `onnx_graph.build_onnx`."""
        self.weights = weights
        self.dialect = dialect
        self.for_tensorrt = dialect.startswith("tensorrt")
        self.nodes: list[NodeProto] = []
        self.initializers: dict[str, np.ndarray] = {}
        self.sizes: dict[str, tuple[int, int]] = {}  # (height, width) of each tensor
        self.rounds: list[str] = []  # the tensors that an 8-bit graph rounds, whether or not this is one
        self._ranges = ranges
        self._half, self._narrow_sums = half, narrow_sums
        self._epsilon = batch_norm_epsilon
        self._halves: set[str] = set()  # the float16 tensors
        self._rounded: dict[str, str] = {}  # {tensor: its 8-bit values as floats}
        self._scales: dict[str, float] = {}  # of these

    def add(self, operator: str, inputs: Sequence[str], name: str, **attributes: Any) -> str:
        """Add a node; its output has the size and the type of its first input, unless they are known already."""
        self.nodes.append(helper.make_node(operator, list(inputs), [name], name=name, **attributes))
        if inputs[0] in self.sizes:
            self.sizes.setdefault(name, self.sizes[inputs[0]])
        if inputs[0] in self._halves:
            self._halves.add(name)
        return name

    def constant(self, name: str, value: np.ndarray) -> str:
        """Add a constant, unless there is one of that name."""
        self.initializers.setdefault(name, value)
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

    def rounded(self, x: str) -> str:
        """Return tensor `x` as it is after passing through 8 bits, in an 8-bit graph; else `x`."""
        if x not in self.rounds:
            self.rounds.append(x)
        if self._ranges is None:
            return x
        if x not in self._rounded:
            low, high = min(self._ranges[x][0], 0.0), max(self._ranges[x][1], 0.0)
            if self.for_tensorrt:
                scale, zero = max(-low, high, 1e-6) / 127, np.int8(0)
            else:
                scale = max(high - low, 1e-6) / 255
                zero = np.uint8(round(-low / scale))
            inputs = [self.constant(f"{x}.scale", np.float32(scale)), self.constant(f"{x}.zero", zero)]
            self._scales[x] = scale
            self.add("QuantizeLinear", [x, *inputs], f"{x}.q")
            self._rounded[x] = self.add("DequantizeLinear", [f"{x}.q", *inputs], f"{x}.dq")
        return self._rounded[x]

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
        fewest_bits: Literal[8, 16, 32] = 8,
    ) -> str:
        """Add a convolution, in the fewest bits that both it and the graph allow.

        Beside float32, a graph has either 8 bits or float16. In 8 bits, a convolution is written as one in float32 of
        an input and weights that passed through 8 bits, which backends fuse into one of integers; its input is noted
        in `rounds` in float graphs too, where its range is measured. In float16, it takes the input as float16, and
        the weights are stored in the input's type, since an operator's inputs must be of one type.

        Args:
            x: The input.
            name: Of the output.
            weight: (outputs, inputs of a group, k, k) float32, k odd.
            bias: (outputs,) float32, or None.
            entry: Convolutions of one entry share their weights; by default it is `name`.
            stride: In both directions.
            group: Number of groups.
            fewest_bits: 16 for what 8 bits would spoil, 32 for what float16 would spoil too.
        """
        report("making the network's ONNX graph")
        entry = entry or name
        source = self.rounded(x) if fewest_bits == 8 else x
        if fewest_bits == 8 and self._ranges is not None:
            assert bias is not None
            inputs = [source, *self._rounded_weights(x, entry, name, weight, bias)]
        else:
            source = self.as_float(source) if fewest_bits == 32 else self.as_half(source)
            kind = np.float16 if source in self._halves else np.float32
            parts = {"weight": weight} if bias is None else {"weight": weight, "bias": bias}
            stored = [self.constant(f"{entry}.{part}", np.ascontiguousarray(v, kind)) for part, v in parts.items()]
            inputs = [source, *stored]
        kernel = weight.shape[-1]
        height, width = self.sizes[x]
        self.sizes[name] = (-(-height // stride), -(-width // stride))
        return self.add(
            "Conv", inputs, name, kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=[kernel // 2] * 4, group=group
        )

    def _rounded_weights(self, x: str, entry: str, name: str, weight: np.ndarray, bias: np.ndarray) -> list[str]:
        """Return weight and bias for a convolution of `x` in 8 bits: symmetric per output channel, the bias 32 bits."""
        largest = np.abs(weight).reshape(len(weight), -1).max(axis=1)
        # All but dead channels get a coarser scale than they could have, so that their bias fits into 32 bits.
        scales = (np.maximum(largest, max(1e-3 * largest.max(), 1e-12)) / 127).astype(np.float32)
        if self._narrow_sums and weight.shape[1] > 1:
            integers, scales = _fitting_pairs(weight, scales)
        else:
            integers = np.rint(weight / scales[:, None, None, None])
        integers = integers.astype(np.int8)
        values = self._dequantized(f"{entry}.weight", f"{name}.weight", integers, scales)
        if self.for_tensorrt:
            return [values, self.constant(f"{name}.bias", bias.astype(np.float32))]
        steps = (scales * self._scales[x]).astype(np.float32)
        integers = np.rint(bias / steps).astype(np.int32)
        return [values, self._dequantized(f"{name}.bias", f"{name}.bias", integers, steps)]

    def _dequantized(self, entry: str, name: str, integers: np.ndarray, scales: np.ndarray) -> str:
        parts = {"q": integers, "scale": scales, "zero": np.zeros(len(integers), integers.dtype)}
        inputs = [self.constant(f"{entry}.{part}", value) for part, value in parts.items()]
        return self.add("DequantizeLinear", inputs, f"{name}.dq", axis=0)

    def stored_conv(
        self, x: str, entry: str, name: str, *, stride: int = 1, fewest_bits: Literal[8, 16, 32] = 8
    ) -> str:
        """Add a convolution as the weights have it under `entry`."""
        weight, bias = self.weights[f"{entry}.weight"], self.weights[f"{entry}.bias"]
        return self.conv(x, name, weight, bias, entry=entry, stride=stride, fewest_bits=fewest_bits)

    def conv_batch_norm(
        self, x: str, conv: str, norm: str, *, stride: int = 1, group: int = 1, fewest_bits: Literal[8, 16] = 8
    ) -> str:
        """Add the convolution that equals entry `conv` followed by the frozen batch norm `norm`."""
        weight, bias = self.folded_batch_norm(conv, norm)
        return self.conv(x, conv, weight, bias, stride=stride, group=group, fewest_bits=fewest_bits)

    def folded_batch_norm(self, conv: str, norm: str) -> tuple[np.ndarray, np.ndarray]:
        """Return weight and bias of that convolution."""
        weights = self.weights
        gain = weights[f"{norm}.weight"] / np.sqrt(weights[f"{norm}.running_var"].astype(np.float64) + self._epsilon)
        bias = weights[f"{norm}.bias"] - weights[f"{norm}.running_mean"] * gain
        return weights[f"{conv}.weight"] * gain[:, None, None, None], bias

    def sum_of(self, conv: str, other: str, name: str) -> str:
        """Add the sum of a convolution's output and another tensor, which an 8-bit graph rounds.

        For TensorRT, only the other is rounded: the convolution's own kernel adds it then, to what isn't rounded yet.
        """
        first = conv if self.for_tensorrt else self.rounded(conv)
        return self.add("Add", [first, self.rounded(other)], name)

    def split(self, inputs: Sequence[str], names: Sequence[str]) -> None:
        """Divide a tensor's channels; `inputs` are the tensor and the channels of each part."""
        self.nodes.append(helper.make_node("Split", list(inputs), list(names), name=f"{inputs[0]}.split", axis=1))
        self.sizes.update(dict.fromkeys(names, self.sizes[inputs[0]]))

    def relu(self, x: str, name: str = "") -> str:
        """Add max(x, 0)."""
        return self.add("Relu", [x], name or f"{x}.relu")

    def relu6(self, x: str) -> str:
        """Add min(max(x, 0), 6)."""
        suffix, kind = (".half", np.float16) if x in self._halves else ("", np.float32)
        limits = [self.constant(f"{word}{suffix}", np.array(value, kind)) for word, value in (("zero", 0), ("six", 6))]
        return self.add("Clip", [x, *limits], f"{x}.relu6")

    def resize(self, x: str, channels: int, size: tuple[int, int], name: str, *, nearest: bool = False) -> str:
        """Bring `x` of so many channels to `size` (height, width), bilinearly or by the nearest value."""
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
        """Add group norm `entry`, in float32, and a ReLU.

        It is an instance norm over groups up to opset 20, where the operator has no gain by channel, and for one group,
        which TensorRT takes for as many as there are channels (NVIDIA/TensorRT, issue 4756).
        """
        gain, shift = self.weights[f"{entry}.weight"], self.weights[f"{entry}.bias"]
        channels, (height, width) = len(gain), self.sizes[x]
        groups, x = channels // group_size, self.as_float(self.rounded(x))
        if OPSETS[self.dialect] >= 21 and groups > 1:
            inputs = [x, self.constant(f"{entry}.gain", gain), self.constant(f"{entry}.shift", shift)]
            options = {"epsilon": _GROUP_NORM_EPSILON, "num_groups": groups}
            y = self.add("GroupNormalization", inputs, f"{name}.shifted", **options)
            return self.add("Relu", [y], name)
        grouped = self.constant(f"groups{groups}.shape", np.array([1, groups, -1], np.int64))
        full = self.constant(f"{channels}x{height}x{width}.shape", np.array([1, channels, height, width], np.int64))
        ones = self.constant(f"groups{groups}.ones", np.ones(groups, np.float32))
        zeros = self.constant(f"groups{groups}.zeros", np.zeros(groups, np.float32))
        y = self.add("Reshape", [x, grouped], f"{name}.grouped")
        y = self.add("InstanceNormalization", [y, ones, zeros], f"{name}.normalized", epsilon=_GROUP_NORM_EPSILON)
        y = self.add("Reshape", [y, full], f"{name}.full")
        y = self.add("Mul", [y, self.constant(f"{entry}.gain", gain[None, :, None, None])], f"{name}.scaled")
        y = self.add("Add", [y, self.constant(f"{entry}.shift", shift[None, :, None, None])], f"{name}.shifted")
        return self.add("Relu", [y], name)


def _fitting_pairs(weight: np.ndarray, scales: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return weights rounded so that no sum of two products goes beyond 16 bits, and their scales.

    Where inputs 2i and 2i + 1 have weights of 128 together at most, their products with 0 to 255 fit. Each output
    channel takes, of some coarser scales, that with the least error when pairs beyond are cut.

    Args:
        weight: (outputs, inputs, k, k) float32.
        scales: (outputs,) float32, the finest.
    """
    outputs, inputs, *kernel = weight.shape
    if inputs % 2:  # such as a camera's three channels, which every backend pairs in its own way: none beyond 64
        scales = (scales * 127 / 64).astype(np.float32)
        return np.rint(weight / scales[:, None, None, None]), scales
    rows = weight.transpose(0, 2, 3, 1).reshape(outputs, -1, 2)
    coarsest = np.maximum(scales, np.abs(rows.sum(axis=2)).max(axis=1) / 128)
    best, taken, least = np.zeros_like(rows), scales.copy(), np.full(outputs, np.inf)
    for share in np.linspace(0, 1, 9):
        steps = (scales + share * (coarsest - scales)).astype(np.float32)
        integers = np.rint(rows / steps[:, None, None])
        sums = integers.sum(axis=2)
        excess = sums - np.clip(sums, -128, 128)
        integers -= np.stack((np.ceil(excess / 2), np.floor(excess / 2)), axis=2)
        errors = np.square(integers * steps[:, None, None] - rows).sum(axis=(1, 2))
        better = errors < least
        best[better], taken[better], least[better] = integers[better], steps[better], errors[better]
    return best.reshape(outputs, *kernel, inputs).transpose(0, 3, 1, 2), taken
