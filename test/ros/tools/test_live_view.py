# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""A running node is found by its reports, and its frames are shown."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from node_cases import Camera, activated, picture

pytest.importorskip("rerun", reason="needs Rerun: `pip install 'rerun-sdk==0.41.*'`")

from rt_panoptic_ros.errors import InvalidInputError
from rt_panoptic_ros.ros.node.node_settings import Periods
from rt_panoptic_ros.ros.tools.live_view import LiveView
from rt_panoptic_ros.viewing import viewers
from rt_panoptic_ros.viewing.recorder import ViewRecorder


@pytest.fixture
def live(graph, tmp_path):
    """Look at a node, into a file."""

    def run(name="panoptic_node"):
        viewer = viewers.open_file(tmp_path / "live.rrd").__enter__()
        recorder = ViewRecorder(viewer.sink, name)
        return recorder, graph.add(LiveView(threading.Event(), name, recorder, viewer, "camera", context=graph.context))

    return run


@pytest.mark.parametrize("names", [[""], ["front", "rear"]])
def test_a_node_and_its_cameras(fake_node, graph, live, tmp_path, names):
    from view_cases import Recording

    cameras = ",".join(f"{name}=/{name}/image" for name in names if name)
    activated(fake_node("image:=image", periods=Periods(diagnostics_s=0.1, demand_s=0.05), cameras=cameras))
    recorder, node = live()
    senders = {name: Camera(graph, (), name).connected() for name in names}
    graph.spin_until(lambda: all(count_of(node, sender) for sender in senders.values()), "for the viewer")
    for number in range(3):
        for sender in senders.values():
            sender.send(picture(number))
        graph.spin_until(lambda n=number: recorder.frames == (n + 1) * len(names), "for the frames")
    reports = node.reports
    graph.spin_until(lambda: recorder.classes and node.reports > reports + 1, "for the class names and a report")
    assert node.finish() == 0
    recorder.close()

    shown = Recording(tmp_path / "live.rrd")
    for name in (name or "camera" for name in names):
        assert [np.unique(image).tolist() for image in shown.labels(f"/{name}/semantic")] == [[0], [1], [2]]
        assert shown.ids(name) == [[1], [1], [1]]
        assert shown.column(f"/{name}/objects", "Boxes2D:labels") == [["car 1 0.75"]] * 3
        assert shown.classes(f"/{name}/semantic")[8][0] == "car"
        assert shown.column(f"/{name}/timings/network", "Scalars:scalars")[0] == [1.0]


def count_of(node, sender):
    """Return how many of a camera's images reach the viewer too."""
    return sender.publisher.get_subscription_count() > 1


def test_a_name_that_is_none_is_refused(live):
    with pytest.raises(InvalidInputError, match="expected --node to name a node such as panoptic_node, got 'a b'"):
        live("a b")
