# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The layouts for rviz2 and Foxglove or Lichtblick: their form, and that they show topics that there are.

Neither program runs here: names are those of rviz2's and Lichtblick's sources.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from rt_panoptic_ros.ros.node.node_settings import NodeSettings
from rt_panoptic_ros.settings import PostprocessSettings, settings_of
from scripts.reference_page import TOPICS as PUBLISHED

CONFIG = Path(__file__).resolve().parent.parent / "config"
CAMERA = "/camera/image_raw"  # the default of panoptic.launch.py
TOPICS = {CAMERA: "sensor_msgs/msg/Image"} | {
    topic.replace("~", "/panoptic_node"): kind for topic, kind in PUBLISHED.items()
}
IMAGES = {"overlay", "confidence", "instance", "semantic"}
FORMS = {"mask", "panoptic", "semantic_color", "label_space", "camera_info", "points", "depth_filtered"}  # for programs

# rviz_default_plugins/displays/image/image_display.cpp and rviz_common/properties/qos_profile_property.cpp, Humble,
# Jazzy and Rolling.
IMAGE_PROPERTIES = {"Normalize Range", "Min Value", "Max Value", "Median window", "Topic"}
DISPLAY_PROPERTIES = {"Class", "Name", "Enabled", "Value"}
POLICIES = {
    "Durability Policy": {"System Default", "Transient Local", "Volatile"},
    "History Policy": {"System Default", "Keep Last", "Keep All"},
    "Reliability Policy": {"System Default", "Reliable", "Best Effort"},
}

# panelType and settings of packages/suite-base/src/panels in lichtblick-suite/lichtblick (the same in Foxglove Studio).
PANELS = {
    "Image": {"imageMode"},
    "RawMessages": {"topicPath", "diffEnabled", "diffMethod", "diffTopicPath", "showFullMessageForDiff"},
    "Table": {"topicPath"},
    "DiagnosticStatusPanel": {"topicToRender", "selectedHardwareId", "selectedName"},
    "Plot": {
        "paths", "showXAxisLabels", "showYAxisLabels", "showLegend", "legendDisplay", "showPlotValuesInLegend",
        "isSynced", "xAxisVal", "sidebarDimension", "minYValue",
    },
    "Tab": {"activeTabIdx", "tabs"},
}  # fmt: skip
IMAGE_MODE = {"imageTopic", "colorMode", "colorMap", "minValue", "maxValue"}


@pytest.fixture(scope="module")
def rviz() -> dict[str, Any]:
    return yaml.safe_load((CONFIG / "panoptic.rviz").read_text())


@pytest.fixture(scope="module")
def foxglove() -> dict[str, Any]:
    return json.loads((CONFIG / "panoptic_foxglove.json").read_text())


class TestRviz:
    def test_displays_have_rviz2s_names(self, rviz: dict[str, Any]) -> None:
        assert set(rviz) == {"Panels", "Visualization Manager", "Window Geometry"}
        assert rviz["Panels"] == [{"Class": "rviz_common/Displays", "Name": "Displays"}]
        names = [display["Name"] for display in rviz["Visualization Manager"]["Displays"]]
        assert len(set(names)) == len(names)
        for display in rviz["Visualization Manager"]["Displays"]:
            assert display["Class"] == "rviz_default_plugins/Image"
            assert DISPLAY_PROPERTIES <= set(display) <= DISPLAY_PROPERTIES | IMAGE_PROPERTIES
            assert display["Enabled"] is display["Value"]
            assert set(display["Topic"]) == {"Value", "Depth", *POLICIES}
            for policy, values in POLICIES.items():
                assert display["Topic"][policy] in values
        docks = {name for name, value in rviz["Window Geometry"].items() if isinstance(value, dict)}
        assert docks <= {*names, "Displays"}

    def test_topics_are_the_nodes_and_can_be_received(self, rviz: dict[str, Any]) -> None:
        displays = {display["Topic"]["Value"]: display for display in rviz["Visualization Manager"]["Displays"]}
        assert set(displays) == {CAMERA, *(f"/panoptic_node/{name}" for name in IMAGES)}
        assert all(TOPICS[topic] == "sensor_msgs/msg/Image" for topic in displays)
        assert displays["/panoptic_node/overlay"]["Enabled"]
        # A camera may offer best effort only, which a reliable subscriber doesn't receive.
        assert displays[CAMERA]["Topic"]["Reliability Policy"] == "Best Effort"


def leaves(node: Any) -> list[str]:
    """The panels of a layout tree; each fork has two branches and a place."""
    if isinstance(node, str):
        return [node]
    assert {"direction", "first", "second"} <= set(node) <= {"direction", "first", "second", "splitPercentage"}
    assert node["direction"] in ("row", "column")
    assert 0 < node["splitPercentage"] < 100
    return leaves(node["first"]) + leaves(node["second"])


def paths(panel: str, settings: dict[str, Any]) -> list[str]:
    """The topics and message paths that a panel shows."""
    kind = panel.partition("!")[0]
    if kind == "Image":
        return [settings["imageMode"]["imageTopic"]]
    if kind == "Plot":
        return [line["value"] for line in settings["paths"]]
    return [settings[key] for key in ("topicPath", "topicToRender") if key in settings]


class TestFoxglove:
    def test_the_document_has_the_layouts_form(self, foxglove: dict[str, Any]) -> None:
        assert set(foxglove) == {"configById", "globalVariables", "userNodes", "playbackConfig", "layout"}
        assert (foxglove["globalVariables"], foxglove["userNodes"]) == ({}, {})
        assert foxglove["playbackConfig"] == {"speed": 1}

    def test_every_panel_is_shown_once_and_set(self, foxglove: dict[str, Any]) -> None:
        shown = leaves(foxglove["layout"])
        for panel in list(shown):
            if panel.startswith("Tab!"):
                for tab in foxglove["configById"][panel]["tabs"]:
                    assert set(tab) == {"title", "layout"}
                    shown += leaves(tab["layout"])
        assert sorted(shown) == sorted(foxglove["configById"])

    def test_panels_have_settings_that_they_know(self, foxglove: dict[str, Any]) -> None:
        for panel, settings in foxglove["configById"].items():
            kind, mark, name = panel.partition("!")
            assert mark == "!"
            assert re.fullmatch("[a-z0-9]+", name)
            assert set(settings) <= PANELS[kind]
            if kind == "Image":
                assert set(settings["imageMode"]) <= IMAGE_MODE
            if kind == "Plot":
                for line in settings["paths"]:
                    assert set(line) == {"value", "enabled", "timestampMethod", "label"}
                    assert line["enabled"] is True
                    assert line["timestampMethod"] in ("receiveTime", "headerStamp")

    def test_topics_are_the_nodes(self, foxglove: dict[str, Any]) -> None:
        seen = set()
        for panel, settings in foxglove["configById"].items():
            for path in paths(panel, settings):
                topic = re.match(r"[a-z_/]+", path).group()
                assert topic in TOPICS, path
                assert not panel.startswith("Image!") or (path, TOPICS[topic]) == (topic, "sensor_msgs/msg/Image")
                seen.add(topic)
        # vision_msgs isn't everywhere; neither its topics nor other forms of the labels say what the others don't.
        forms = {f"/panoptic_node/{name}" for name in FORMS}
        assert seen == {topic for topic, kind in TOPICS.items() if not kind.startswith("vision_msgs/")} - forms

    def test_only_standard_images_are_needed(self, foxglove: dict[str, Any]) -> None:
        assert "foxglove" not in json.dumps(foxglove)


def test_the_parameter_file_names_every_parameter() -> None:
    text = (CONFIG / "panoptic.yaml").read_text()
    named = re.findall(r"^    (?:# )?([a-z0-9_]+):", text, re.MULTILINE)
    infos = [*settings_of(NodeSettings), *settings_of(PostprocessSettings)]
    assert sorted(named) == sorted(info.name for info in infos)
