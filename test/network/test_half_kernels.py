# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""What follows a convolution in half precision, against torch in float32."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from torch import Tensor, nn  # noqa: E402
from torch.nn import functional  # noqa: E402

from rt_panoptic_ros.network.half_kernels import add_bias_norm_relu, add_bias_relu  # noqa: E402
from rt_panoptic_ros.warp_runtime import start_warp  # noqa: E402

SIZES = [(16, 9, 13), (24, 1, 1), (10, 33, 70)]  # channels, height, width; the last is of several chunks of points


@pytest.fixture(autouse=True)
def warp() -> None:
    start_warp()
    torch.manual_seed(0)


def random(*shape: int) -> Tensor:
    tensor = 3 * torch.randn(shape) + 1
    return tensor.half().to(memory_format=torch.channels_last) if len(shape) == 4 else tensor.half()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("limit", [float("inf"), 6.0])
@pytest.mark.parametrize("added", [False, True], ids=["", "residual"])
def test_bias_residual_and_relu_are_rounded_once(size: tuple[int, int, int], limit: float, *, added: bool) -> None:
    x, bias, residual = random(1, *size), random(size[0]), random(1, *size) if added else None
    total = x.float() + bias.float()[:, None, None] + (0 if residual is None else residual.float())
    expected = functional.hardtanh(total, 0.0, limit).half()
    result = add_bias_relu(x, bias, residual, limit)
    assert torch.equal(result, expected)
    assert result.data_ptr() == x.data_ptr()


@pytest.mark.parametrize(
    ("size", "group"), [(size, group) for size in SIZES for group in (2, 8, 10) if size[0] % group == 0]
)
def test_group_norm_is_torchs(size: tuple[int, int, int], group: int) -> None:
    norm = nn.GroupNorm(size[0] // group, size[0]).requires_grad_(False)
    norm.weight.normal_()
    norm.bias.normal_()
    x, bias = random(1, *size), random(size[0])
    half = nn.GroupNorm(norm.num_groups, size[0]).requires_grad_(False).half()
    half.load_state_dict(norm.state_dict())
    given = x.float() + bias.float()[:, None, None]
    expected = functional.group_norm(given, norm.num_groups, half.weight.float(), half.bias.float(), norm.eps).relu()
    first = add_bias_norm_relu(x.clone(), bias, half)
    torch.testing.assert_close(first.float(), expected, rtol=2e-3, atol=2e-3)
    assert torch.equal(first, add_bias_norm_relu(x.clone(), bias, half))


def test_channels_first_are_turned_around() -> None:
    x, bias = random(1, 4, 3, 5), random(4)
    expected = add_bias_relu(x.clone(), bias)
    result = add_bias_relu(x.contiguous(), bias)
    assert result.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(result, expected)
