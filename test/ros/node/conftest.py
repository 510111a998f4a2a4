# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The node of these tests reports several times a second, as many of them wait for what it reports."""

from __future__ import annotations

from functools import partial

import pytest

from rt_panoptic_ros.ros.node.node_settings import Periods

QUICK = Periods(diagnostics_s=0.2)


@pytest.fixture
def fake_node(fake_node):
    return partial(fake_node, periods=QUICK)
