# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Node, bag and `predict` give a frame the same labels; `test_predict.py` compares the latter two without ROS."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from node_cases import Camera, activated
from rclpy.parameter import Parameter
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import Image

pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
pytest.importorskip("rosbags", reason="bags need the package rosbags")

from bag_cases import by_topic, drive, image_message, make_bag, picture, pixels_of

from rt_panoptic_ros.bags.labelling import label_bag
from rt_panoptic_ros.bags.options import BagOptions
from rt_panoptic_ros.commands.predict import predict_source
from rt_panoptic_ros.frames.sources import open_source
from rt_panoptic_ros.model.bundle import ModelBundle
from rt_panoptic_ros.pipeline import open_pipeline
from rt_panoptic_ros.ros.node.panoptic_node import PanopticNode

OPTIONS: dict[str, Any] = {"backend": "onnxruntime", "device": "cpu"}
SETTINGS = {"score_threshold": 0.0, "pre_nms_threshold": 0.0, "mask_threshold": 0.01, "overlap_threshold": 1.0}
WANTED: dict[str, Any] = {"object_classes": "pedestrian,car", "tracking": True}


def test_node_bag_and_predict_give_the_same_labels(graph: Any, small_bundle: ModelBundle, tmp_path: Path) -> None:
    model, frames = str(small_bundle.path), 4

    values = {"model": model, "image_reliability": "reliable", **OPTIONS, **SETTINGS, **WANTED}
    node = PanopticNode(
        context=graph.context, parameter_overrides=[Parameter(name, value=value) for name, value in values.items()]
    )
    activated(graph.add(node))
    camera = Camera(graph, ("semantic", "instance", "confidence", "overlay")).connected()
    for number in range(frames):
        camera.send(deserialize_message(image_message(number, picture(number)).data, Image))
        camera.await_outputs(number + 1)

    exact = {"precision": "float32", "tf32": False}
    pipeline = {"model": model, **OPTIONS, **exact, "network_size": None, "settings": SETTINGS}
    source = make_bag(tmp_path / "drive", drive(frames))
    label_bag(source, tmp_path / "labelled", BagOptions(pipeline, outputs=tuple(camera.received), **WANTED), print)
    in_bag = by_topic(tmp_path / "labelled")

    (tmp_path / "in").mkdir()
    for number in range(frames):
        cv2.imwrite(str(tmp_path / "in" / f"{number}.png"), picture(number)[..., ::-1])
    with open_source(str(tmp_path / "in")) as pictures:
        predict_source(open_pipeline(**pipeline), pictures, tmp_path / "files", confidence=True, **WANTED)

    for name, messages in camera.received.items():
        for number, message in enumerate(messages):
            recorded = in_bag[f"/panoptic_node/{name}"][number][1]
            assert bytes(message.data) == recorded.data.tobytes()
            if name != "overlay":  # a JPEG
                file = cv2.imread(str(tmp_path / "files" / name / f"{number}.png"), cv2.IMREAD_UNCHANGED)
                np.testing.assert_array_equal(file, pixels_of(recorded))
    assert max(pixels_of(message).max() for _, message in in_bag["/panoptic_node/instance"]) > 2
