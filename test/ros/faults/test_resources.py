# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Faults around the node's process, as its users start it: hangs, disks, memory."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from node_cases import Camera, Labelling, picture

BROKEN = Path(__file__).parent / "broken"
RESTART = 75


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
            "panoptic_node", model=small_bundle.path, network_size="32x64", image_reliability="reliable", watchdog_s=2.0
        )
        labelling = Labelling(graph, None, camera.connected())
        labelling.label(picture(1))
        if run == 0:
            camera.send(picture(255))
            with recovery("ERROR"):
                camera.await_report(lambda status: status.level == DiagnosticStatus.ERROR and "stuck" in status.message)
            told = camera.reports[-1].status[0].message
            assert "in the stage network of an image of /image" in told
            assert broken.wait("panoptic_node") == RESTART
            log = broken.log("panoptic_node")
            assert "this process ends with status 75" in log
            assert "_hang_at_white" in log  # where it is
    assert process.poll() is None
