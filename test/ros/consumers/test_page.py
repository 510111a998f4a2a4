# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""docs/consumers.md says what the contract tests show: the same launch lines, the same topics."""

from __future__ import annotations

import re

from conftest import ROOT
from consumer_cases import CONSUMERS, Consumer

from rt_panoptic_ros.frames.outputs import OUTPUTS
from rt_panoptic_ros.ros.node.node_settings import NodeSettings
from rt_panoptic_ros.settings import settings_of

TEXT = (ROOT / "docs" / "consumers.md").read_text(encoding="utf-8")
LAUNCH = "ros2 launch rt_panoptic_ros panoptic.launch.py "


def test_the_page_shows_the_tests_own_parameters_and_remappings():
    shown = {}
    for section in re.split("^## ", TEXT, flags=re.MULTILINE)[1:]:
        title = section.splitlines()[0]
        lines = [line.strip() for line in section.replace("\\\n", " ").splitlines()]
        launch = [line.removeprefix(LAUNCH) for line in lines if line.startswith(LAUNCH)]
        rows = [re.fullmatch(r"\| `([^`]+)` \| `([^`]+)` \|", line) for line in lines]
        if launch:
            (words,) = launch
            arguments = dict(word.split(":=") for word in words.split())
            shown[title] = Consumer(arguments, dict(row.groups() for row in rows if row))
    assert shown == CONSUMERS


def test_arguments_and_topics_are_there():
    settings = {one.name for one in settings_of(NodeSettings)}
    launch_file = (ROOT / "launch" / "panoptic.launch.py").read_text()
    for consumer in CONSUMERS.values():
        for name in consumer.arguments:
            assert name in settings or f'"{name}": (' in launch_file
        ours = [topic for topic in consumer.remappings.values() if topic.startswith("/panoptic_node/")]
        assert {topic.rpartition("/")[2] for topic in ours} <= OUTPUTS.keys()
        assert ours
