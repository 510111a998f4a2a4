# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Kimera-Semantics' clouds of class colours, and the lookup of their colours, replayed on our messages.

Read in MIT-SPARK's Kimera-Semantics: kimera_semantics/src/color.cpp, csv_iterator.cpp and
semantic_tsdf_integrator_fast.cpp, and kimera_semantics_ros' depth_map_to_pointcloud.h (depth_image_proc's).
"""

from __future__ import annotations

import subprocess

import numpy as np
from conftest import ROOT
from consumer_cases import (
    CLASSES,
    COLOR,
    COLOR_INFO,
    CONSUMERS,
    DEPTH,
    SIZE,
    Joined,
    Player,
    camera_info,
    consumer_node,
    depth_image,
    labelling,
    scene,
)
from node_cases import picture
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import String

from rt_panoptic_ros.records import VOID
from rt_panoptic_ros.ros import qos

TOTAL_LABELS = 21  # kTotalNumberOfLabels: a larger id ends the program
WHITE = (255, 255, 255, 255)


def read_csv(text):
    """Return {RGBA: label} as SemanticLabel2Color reads a file: rows of six cells, of which the header is one too."""
    labels = {}
    for line in text.splitlines():
        cells = line.split(",")
        assert len(cells) == 6
        red, green, blue, alpha, label = (int(cell) if cell.isdigit() else 0 for cell in cells[1:])  # atoi
        assert label < TOTAL_LABELS
        labels[red, green, blue, alpha] = label
    labels[WHITE] = 0
    return labels


def the_pages_command():
    """Return the command of docs/consumers.md that writes the CSV file."""
    lines = (ROOT / "docs" / "consumers.md").read_text().splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("    python3 -c"))
    end = next(i for i, line in enumerate(lines) if line.endswith("> classes.csv"))
    return "\n".join(line[4:] for line in lines[start : end + 1])


def test_every_colour_is_a_label(graph, fake_node, tmp_path):
    labelling(fake_node, "Kimera-Semantics")
    tables = []
    graph.node("latched").create_subscription(String, "/panoptic_node/class_names", tables.append, qos.latched())
    topics = dict(zip(CONSUMERS["Kimera-Semantics"].remappings, (Image, CameraInfo, Image), strict=True))
    joined = Joined(consumer_node(graph, "Kimera-Semantics"), topics)
    camera = Player(graph, {COLOR: Image, COLOR_INFO: CameraInfo, DEPTH: Image}).connected({})
    graph.spin_until(lambda: tables, "for the class table")
    (tmp_path / "classes.json").write_text(tables[0].data + "\n")
    subprocess.run(the_pages_command(), shell=True, cwd=tmp_path, check=True)
    labels = read_csv((tmp_path / "classes.csv").read_text())

    color = picture(1, SIZE)
    camera.send({
        COLOR: color, COLOR_INFO: camera_info(color.header), DEPTH: depth_image(color.header, np.full(SIZE, 2.0))
    })  # fmt: skip
    graph.spin_until(lambda: joined.sets, "for an image with its depth")
    rgb, _, depth = joined.sets[0].values()
    assert rgb.encoding == "rgb8"
    assert rgb.header == depth.header  # clouds are refused where the frame ids differ
    assert (rgb.height, rgb.width) == (depth.height, depth.width)  # else colours are interpolated
    pixels = np.frombuffer(rgb.data, np.uint8).reshape(*SIZE, 3)
    found = np.array([labels[(*pixel, 255)] for pixel in pixels.reshape(-1, 3).tolist()]).reshape(SIZE)
    expected = scene().semantic.astype(int)
    assert np.array_equal(found, np.where(expected == VOID, 0, expected + 1))
    assert len(set(labels.values())) == len(CLASSES) + 1  # no two classes share a colour
