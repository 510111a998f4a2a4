# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The input made on the device from the camera's bytes is that which OpenCV makes on the host."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
import warp as wp
from dense_cases import DEVICE

from rt_panoptic_ros.inference.device_input import DeviceInput
from rt_panoptic_ros.inference.input_image import prepare_input
from rt_panoptic_ros.model.bundle import InputSpec
from rt_panoptic_ros.records import CameraImage, ColorOrder, ImageGeometry

CHANNELS = {"rgb": 3, "bgr": 3, "rgba": 4, "bgra": 4, "mono": 1}

SIZES = {  # (camera, content, network)
    "as it is": ((23, 37), (23, 37), (23, 37)),
    "padded": ((23, 37), (23, 37), (32, 64)),
    "half": ((46, 74), (23, 37), (24, 40)),
    "whole ratios": ((48, 111), (12, 37), (12, 37)),
    "half, one axis": ((23, 74), (23, 37), (23, 37)),
    "smaller": ((47, 90), (31, 38), (32, 38)),
    "little smaller": ((47, 90), (46, 90), (48, 96)),
    "much smaller": ((90, 131), (7, 3), (8, 8)),
    "larger": ((23, 37), (41, 95), (42, 95)),
    "larger, one axis": ((23, 37), (23, 51), (23, 51)),
    "double": ((23, 37), (46, 74), (46, 74)),
    "one pixel": ((1, 1), (9, 5), (9, 6)),
    "lower and wider": ((90, 37), (61, 80), (64, 80)),
    "higher and narrower": ((37, 90), (80, 45), (80, 45)),
}


@pytest.mark.parametrize("order", get_args(ColorOrder))
@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_input_is_opencvs(sizes: tuple[tuple[int, int], ...], order: ColorOrder) -> None:
    geometry, spec = ImageGeometry(*sizes[0], *sizes[1], *sizes[2]), InputSpec(mean_rgb=(10.2, 20.6, 30.0))
    (height, width), channels = sizes[0], CHANNELS[order]
    target = wp.full((*sizes[2], 3), 77, dtype=wp.uint8, device=DEVICE)
    device_input = DeviceInput(geometry, channels, spec, target)
    for seed in range(2):
        rows = np.random.default_rng(seed).integers(0, 256, (height, width + 5, channels), np.uint8)
        pixels = rows[:, :width] if channels > 1 else rows[:, :width, 0]
        expected = prepare_input(CameraImage(np.ascontiguousarray(pixels), order), geometry, spec).astype(int)
        device_input.stage(CameraImage(pixels, order))
        device_input.launch()
        levels = abs(target.numpy() - expected)
        # OpenCV's own results differ so much between its builds for x86 and ARM.
        assert levels.max() <= (0 if sizes[0] == sizes[1] else 1)
        assert (levels > 0).mean() < 0.01
