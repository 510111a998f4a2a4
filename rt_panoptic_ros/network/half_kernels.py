# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""What follows a convolution in half precision, in one pass over its output: torch takes one for each step.

And torch's group norm on a GPU wants channels first, so that it turns every tensor around twice. Tensors here are
(1, C, H, W) float16, channels last, C even; two neighbouring channels are one 32-bit word, for wide loads and stores.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import warp as wp

if TYPE_CHECKING:
    from torch import Tensor, nn

wp.set_module_options({"enable_backward": False})

_ROWS = 64
"""Points whose sums one thread takes."""

_THREADS = 256  # of a block on a GPU


@wp.func_native("""
    wp::half low, high;
    low.u = (unsigned short)(word & 0xffff);
    high.u = (unsigned short)((unsigned int)word >> 16);
    return wp::vec_t<2, float>(wp::half_to_float(low), wp::half_to_float(high));
""")
def unpack(word: wp.int32) -> wp.vec2:
    """Return the two halves of a word as floats."""


@wp.func_native("""
    const unsigned int low = wp::float_to_half(pair[0]).u, high = wp::float_to_half(pair[1]).u;
    return (int)(low | (high << 16));
""")
def pack(pair: wp.vec2) -> wp.int32:
    """Return two floats as the halves of a word, each rounded to the nearest."""


@wp.func
def bounded(pair: wp.vec2, high: wp.float32) -> wp.vec2:
    """Return relu(pair), at most `high`."""
    return wp.vec2(wp.min(wp.max(pair[0], 0.0), high), wp.min(wp.max(pair[1], 0.0), high))


@wp.kernel
def add_and_bound(
    words: wp.array(dtype=wp.int32), bias: wp.array(dtype=wp.int32), residual: wp.array(dtype=wp.int32),
    high: wp.float32,
) -> None:  # fmt: skip
    """Compute `add_bias_relu`, a word a thread."""
    i = wp.tid()
    value = unpack(words[i]) + unpack(bias[i % bias.shape[0]])
    if residual:
        value += unpack(residual[i])
    words[i] = pack(bounded(value, high))


@wp.kernel
def sum_rows(
    words: wp.array2d(dtype=wp.int32), bias: wp.array(dtype=wp.int32), rows: wp.int32, sums: wp.array2d(dtype=wp.vec2)
) -> None:
    """Sum the two channels of a word, with the convolution's bias, and their squares over some rows."""
    chunk, word = wp.tid()
    added, total = unpack(bias[word]), wp.vec2(0.0, 0.0)
    for row in range(chunk * rows, wp.min((chunk + 1) * rows, words.shape[0])):
        value = unpack(words[row, word]) + added
        total += wp.vec2(value[0] + value[1], wp.dot(value, value))
    sums[chunk, word] = total


@wp.kernel
def find_moments(
    sums: wp.array2d(dtype=wp.vec2), words: wp.int32, count: wp.float32, epsilon: wp.float32,
    moments: wp.array(dtype=wp.vec2),
) -> None:  # fmt: skip
    """Find a group's mean and the inverse of its standard deviation, by one block, in an order that is always alike."""
    group, lane = wp.tid()
    total = wp.vec2(0.0, 0.0)
    for i in range(lane, sums.shape[0] * words, wp.block_dim()):
        total += sums[i / words, group * words + i % words]
    mean = wp.tile_extract(wp.tile_sum(wp.tile(total[0])), 0) / count
    square = wp.tile_extract(wp.tile_sum(wp.tile(total[1])), 0) / count
    if lane == 0:
        moments[group] = wp.vec2(mean, 1.0 / wp.sqrt(wp.max(square - mean * mean, 0.0) + epsilon))


@wp.kernel
def normalize(
    words: wp.array(dtype=wp.int32), bias: wp.array(dtype=wp.int32), moments: wp.array(dtype=wp.vec2),
    weight: wp.array(dtype=wp.int32), shift: wp.array(dtype=wp.int32),
) -> None:  # fmt: skip
    """Apply a group norm whose moments are known, and a ReLU, a word a thread."""
    i = wp.tid()
    word = i % bias.shape[0]
    moment = moments[word * moments.shape[0] / bias.shape[0]]
    value = unpack(words[i]) + unpack(bias[word]) - wp.vec2(moment[0], moment[0])
    value = wp.cw_mul(value * moment[1], unpack(weight[word])) + unpack(shift[word])
    words[i] = pack(bounded(value, wp.inf))


def add_bias_relu(x: Tensor, bias: Tensor, residual: Tensor | None = None, limit: float = math.inf) -> Tensor:
    """Return min(relu(x + bias + residual), limit), in the memory of a channels-last `x`; `bias` is (C,)."""
    x = x.contiguous(memory_format=torch.channels_last)
    words = _words(x)
    others = _words(bias), None if residual is None else _words(residual)
    wp.launch(add_and_bound, words.shape, inputs=[words, *others, limit], device=words.device, block_dim=_THREADS)
    return x


def add_bias_norm_relu(x: Tensor, bias: Tensor, norm: nn.GroupNorm) -> Tensor:
    """Return relu(norm(x + bias)), in the memory of `x` where that is channels last.

    Args:
        x: (1, C, H, W), a convolution's output without its bias.
        bias: (C,).
        norm: Its groups are of an even number of channels.
    """
    x = x.contiguous(memory_format=torch.channels_last)
    points, words = x.shape[-2] * x.shape[-1], x.shape[1] // 2
    chunks, groups = -(-points // _ROWS), norm.num_groups
    flat, added, device = _words(x), _words(bias), str(wp.device_from_torch(x.device))
    sums = wp.from_torch(torch.empty((chunks, words, 2), device=x.device), dtype=wp.vec2)
    moments = wp.from_torch(torch.empty((groups, 2), device=x.device), dtype=wp.vec2)
    wp.launch(
        sum_rows, (chunks, words), inputs=[flat.reshape((points, words)), added, _ROWS, sums], device=device,
        block_dim=_THREADS,
    )  # fmt: skip
    count = points * x.shape[1] / groups
    wp.launch_tiled(
        find_moments, dim=[groups], inputs=[sums, words // groups, count, norm.eps, moments], device=device,
        block_dim=_THREADS,
    )  # fmt: skip
    affine = _words(norm.weight), _words(norm.bias)
    wp.launch(normalize, flat.shape, inputs=[flat, added, moments, *affine], device=device, block_dim=_THREADS)
    return x


def _words(x: Tensor) -> wp.array:
    """Return a vector or a tensor (1, C, H, W) as a flat array of pairs of channels; a view of channels last."""
    flat = x.permute(0, 2, 3, 1).flatten() if x.ndim == 4 else x
    return wp.from_torch(flat.detach().view(torch.int32), dtype=wp.int32)
