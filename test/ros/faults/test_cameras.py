# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Faults of cameras: they stop, come back and change, in front of a node with a real model."""

from __future__ import annotations

import pytest
from node_cases import picture


@pytest.mark.fault("camera stops", "WARN with the seconds of silence; labels from the first image that comes again on")
def test_a_camera_that_stops_is_told_of_and_comes_back(labelling, recovery):
    camera = labelling.camera
    camera.await_report(lambda status: status.message.startswith("waiting for images: none arrived for"))
    with recovery("result"):
        labelling.label(picture(1))
