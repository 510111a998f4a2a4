# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The torch network: layout, the exact per-level rewrite, odd sizes."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from torch.nn import functional  # noqa: E402

from rt_panoptic_ros.model.architecture import LEVELS, NetworkConfig, state_dict_layout  # noqa: E402
from rt_panoptic_ros.network.head import GlobalConv2d  # noqa: E402
from rt_panoptic_ros.network.panoptic_network import PanopticNetwork  # noqa: E402

VARIANTS = [
    NetworkConfig("resnet18"),
    NetworkConfig("resnet34", towers=1),
    NetworkConfig("resnet50", levelness=False),
    NetworkConfig("efficientnet_lite0", 64, 64, 64),
    NetworkConfig("resnet18", 32, 16, 24, tower_depth=2, group_size=4, towers=1, levelness=False),
]


@pytest.mark.parametrize("config", VARIANTS, ids=str)
def test_state_dict_has_the_layout(config: NetworkConfig) -> None:
    state = PanopticNetwork(config, 19, 8).state_dict()
    layout = state_dict_layout(config, 19, 8)
    assert {name: tuple(value.shape) for name, value in state.items()} == layout
    assert list(state) == list(layout)


@pytest.mark.parametrize("size", [(16, 32), (13, 27)])
def test_global_convolution_equals_the_concatenation(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    conv = GlobalConv2d(6, 5)
    torch.nn.init.normal_(conv.weight)
    levels = [torch.randn(2, 6, -(-size[0] // 2**i), -(-size[1] // 2**i)) for i in range(LEVELS)]
    upsampled = [functional.interpolate(level, size=size, mode="bilinear", align_corners=False) for level in levels]
    plain = conv(torch.cat(upsampled, dim=1))
    torch.testing.assert_close(conv.forward_levels(levels, size), plain, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("size", [(1, 1), (33, 65), (128, 256)])
def test_output_shapes(size: tuple[int, int]) -> None:
    network = PanopticNetwork(NetworkConfig("resnet18", 16, 16, 8, tower_depth=1), 11, 3).eval()
    with torch.inference_mode():
        outputs = network(torch.zeros(2, 3, *size))
    height, width = -(-size[0] // 8), -(-size[1] // 8)
    assert outputs.semantic_logits.shape == (2, 11, height, width)
    assert outputs.levelness_logits.shape == (2, 6, 2 * height, 2 * width)
    for level, offsets in enumerate(outputs.box_offsets):
        stride = 8 * 2**level
        assert offsets.shape == (2, 4, -(-size[0] // stride), -(-size[1] // stride))
        assert (offsets > 0).all()


def test_one_tower_serves_both_tasks() -> None:
    network = PanopticNetwork(VARIANTS[1], 19, 8)
    names = {name.split(".")[1] for name in network.state_dict() if name.startswith("panoptic_head")}
    assert "tower" in names
    assert not names & {"bbox_tower", "cls_tower"}
