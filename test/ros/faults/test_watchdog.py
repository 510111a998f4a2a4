# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""A backend that hangs, in the process that users start; test/ros/test_launch.py has the launch file start it anew."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from node_cases import Camera, Labelling, picture

from rt_panoptic_ros.ros.node.watchdog import RESTART

BROKEN = Path(__file__).parent / "broken"


@pytest.fixture
def broken(programs):
    programs.environment["PYTHONPATH"] = os.pathsep.join([str(BROKEN), programs.environment["PYTHONPATH"]])
    return programs


@pytest.mark.fault(
    "backend hangs", "ERROR with stage and seconds; after watchdog_s the process ends with status 75; a new one labels"
)
def test_a_hung_backend_ends_the_process_and_a_new_one_labels(graph, broken, small_bundle, recovery):
    camera = Camera(graph)
    for run in range(2):
        process = broken.start(
            "panoptic_node", model=small_bundle.path, backend="onnxruntime", network_size="32x64",
            image_reliability="reliable", watchdog_s=2.0,
        )  # fmt: skip
        labelling = Labelling(graph, None, camera.connected())
        labelling.label(picture(1))
        if run == 0:
            camera.send(picture(255))
            with recovery("ERROR"):
                camera.await_report(lambda status: "s in the stage network of an image of /image" in status.message)
            assert camera.reports[-1].status[0].level == DiagnosticStatus.ERROR
            assert broken.wait("panoptic_node") == RESTART
            graph.spin_until(lambda: not camera.publisher.get_subscription_count(), "for it to be gone")
            log = broken.log("panoptic_node")
            assert "this process ends with status 75" in log
            assert "_hang_at_white" in log  # where it is
    assert process.poll() is None
