# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Whole frames of two models in turn."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

from scripts.two_models import compare_models

if TYPE_CHECKING:
    from pathlib import Path

    from rt_panoptic_ros.model.bundle import ModelBundle


def test_two_models_label_the_same_frames_in_turn(small_bundle: ModelBundle, tmp_path: Path) -> None:
    for number in range(3):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.full((40, 60, 3), 40 * number, np.uint8))
    result = compare_models([str(small_bundle.path)] * 2, str(tmp_path), "float32", 0.1)
    assert "40x60" in result.subject
    assert result.median_ms > 0
    assert result.reference_median_ms > 0
