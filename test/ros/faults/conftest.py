# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""What the tests of faults share: each is marked `fault(what breaks, what happens)` and measures its recovery.

`python -m scripts.faults` makes docs/reliability.md's table of them.
"""

from __future__ import annotations

import time
from contextlib import contextmanager

import pytest


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    outcome = yield
    assert item.get_closest_marker("fault"), "expected every test here to be marked fault(what breaks, what happens)"
    measured = any(name == "recovery" for name, _ in item.user_properties)
    assert measured, "expected the test of a fault to measure its recovery (fixture recovery)"
    return outcome


@pytest.fixture
def recovery(request, record_property):
    """Measure from the end of the fault to what shows recovery: `with recovery("result"): ...`.

    "result" is the next published one, "ERROR" or "WARN" the status on /diagnostics, "end" the process's.
    """
    breaks = request.node.get_closest_marker("fault").args[0]

    @contextmanager
    def until(what):
        begin_s = time.monotonic()
        yield
        record_property("recovery", (breaks, what, time.monotonic() - begin_s))

    return until


@pytest.fixture(scope="module")
def labelling(shared_graph, small_bundle):
    """One node that a module's faults share, as all of a robot's do; silence begins soon here, and lasts soon."""
    from node_cases import Camera, Labelling, activated, picture
    from rclpy.parameter import Parameter

    from rt_panoptic_ros.ros.node.node_settings import Periods
    from rt_panoptic_ros.ros.node.panoptic_node import PanopticNode

    parameters = {"model": str(small_bundle.path), "network_size": "32x64", "image_reliability": "reliable"}
    node = PanopticNode(
        periods=Periods(diagnostics_s=0.2, silence_s=0.5, lasting_s=0.5, stuck_s=1.0), context=shared_graph.context,
        parameter_overrides=[Parameter(name, value=value) for name, value in parameters.items()],
    )  # fmt: skip
    activated(shared_graph.add(node))
    labelling = Labelling(shared_graph, node, Camera(shared_graph).connected())
    labelling.label(picture(1))  # the first loads kernels
    return labelling
