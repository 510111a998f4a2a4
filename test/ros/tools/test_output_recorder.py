# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The recorder as a node: bags that loop, overlays of mixed sizes, and messages that are none of a panoptic node."""

from __future__ import annotations

import json
import threading

import cv2
import numpy as np
import pytest
from rclpy.parameter import Parameter
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from rt_panoptic_ros.errors import InvalidInputError
from rt_panoptic_ros.ros import qos
from rt_panoptic_ros.ros.conversions import image_to_msg
from rt_panoptic_ros.ros.tools.output_recorder import TOPICS, OutputRecorder


@pytest.fixture
def record(graph, tmp_path):
    """Record sets of messages, {topic: message}, one after the other; return the summary and the exit status."""

    def run(sets):
        node = graph.node("bag")
        publishers = {
            name: node.create_publisher(kind, f"/panoptic_node/{name}", qos.stream("reliable"))
            for name, kind in TOPICS.items()
        }
        overrides = [Parameter("out", value=str(tmp_path / "out"))]
        recorder = graph.add(OutputRecorder(threading.Event(), context=graph.context, parameter_overrides=overrides))
        graph.spin_until(lambda: all(p.get_subscription_count() for p in publishers.values()), "for the recorder")
        sent = 0
        for messages in sets:
            for name, message in messages.items():
                publishers[name].publish(message)
            sent += len(messages)
            graph.spin_until(lambda sent=sent: recorder.messages.total() == sent, "for the messages")
        status = recorder.finish()
        return json.loads((tmp_path / "out" / "summary.json").read_text(encoding="utf-8")), status

    return run


def outputs(number, overlay):
    """Return a frame's messages with the stamp of frame `number`."""
    header = Header(frame_id="camera")
    header.stamp.sec, header.stamp.nanosec = 1_700_000_000, 50_000_000 * number
    messages = {name: kind(header=header) for name, kind in TOPICS.items()}
    messages["overlay"] = image_to_msg(overlay, "rgb8", header) if isinstance(overlay, np.ndarray) else overlay
    messages["overlay"].header = header
    return messages


def picture(number, height=24):
    return np.full((height, 32, 3), 10 * number, np.uint8)


def test_every_later_lap_of_a_bag_is_complete(record):
    first = [outputs(number, picture(number)) for number in range(20)]
    for messages in first:
        del messages["overlay"]  # the node was just loading
    laps = [outputs(number, picture(number)) for _ in range(2) for number in range(20)]
    summary, status = record([*first, *laps])
    assert (summary["frames"], summary["incomplete"], status) == (40, 20, 0)


def test_images_of_mixed_sizes_are_recorded(record):
    summary, status = record([outputs(number, picture(number, 24 + 8 * (number % 3))) for number in range(15)])
    assert (summary["frames"], status) == (15, 0)
    video = cv2.VideoCapture(summary["files"]["video"])
    assert (video.get(cv2.CAP_PROP_FRAME_HEIGHT), video.get(cv2.CAP_PROP_FRAME_COUNT)) == (24, 15)
    assert cv2.imread(summary["files"]["contact_sheet"]) is not None


@pytest.mark.parametrize("name", ["1e3", "a b", "", "/", "a//b"])
def test_a_name_that_no_node_has_is_one_sentence(graph, name):
    overrides = [Parameter("node", value=name)]
    with pytest.raises(InvalidInputError, match=f"name a node such as panoptic_node, got '{name}'"):
        OutputRecorder(threading.Event(), context=graph.context, parameter_overrides=overrides)


def test_a_summary_that_cannot_be_written_is_one_sentence(record, tmp_path, capfd):
    (tmp_path / "out" / "summary.json" / "taken").mkdir(parents=True)
    with pytest.raises(IsADirectoryError):  # of the test's own reading
        record([outputs(0, picture(0))])
    assert "expected to write" in "".join(capfd.readouterr())


@pytest.mark.parametrize("encoding", ["purple7", "rgb8", ""])
def test_an_overlay_that_is_no_picture_costs_its_frame_alone(record, capfd, encoding):
    sets = [outputs(number, picture(number)) for number in range(3)]
    sets.insert(1, outputs(7, Image(encoding=encoding, height=2, width=2, step=6)))
    summary, status = record(sets)
    assert (summary["frames"], summary["incomplete"], status) == (3, 1, 0)
    assert "frame left out: expected" in "".join(capfd.readouterr())
