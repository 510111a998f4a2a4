# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""What a user writes for a text parameter arrives as that text, whatever YAML or C would make of it."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import rclpy
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from rt_panoptic_ros.errors import InvalidInputError
from rt_panoptic_ros.ros.node.node_settings import NodeSettings
from rt_panoptic_ros.ros.node.parameters import declare_settings
from rt_panoptic_ros.ros.text_arguments import texts_kept
from rt_panoptic_ros.ros.tools.image_player import PlayerSettings

TEXTS = [
    "0016", "0x10", "1e3", "16", "-1", "1700000000000000000", ".5", "1_000", "nan", ".nan", "inf", "infinity", "0x1p3",
    "true", "y", "off", "null", "~", "", "[a]", "{a: b}", "a: b", "a #b", "%d", "*x", "&x", "!x", "@", "- a", "a:",
    "it's", 'say "so"', "a\\b", "front=/front,rear=/rear", "~/é/✓", " a ", "two\nlines", "tab\t", "👁", "a:=b", "\x7f",
]  # fmt: skip


@pytest.fixture(scope="module")
def received():
    """Return what gives the settings that a node gets from a command line.

    One node stays meanwhile: without it, the middleware's participant would come and go with each of hundreds.
    """
    context = rclpy.Context()
    rclpy.init(context=context)
    keeper = rclpy.create_node("keeper", context=context)

    def received(arguments, record=PlayerSettings, name="player"):
        with texts_kept(["program", *arguments], record) as kept:
            node = rclpy.create_node(
                name, context=context, cli_args=kept, use_global_arguments=False,
                automatically_declare_parameters_from_overrides=True,
            )  # fmt: skip
        try:
            return declare_settings(node, record)
        finally:
            node.destroy_node()

    yield received
    keeper.destroy_node()
    rclpy.shutdown(context=context)


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_on_the_command_line_is_kept(received, text):
    assert received(["--ros-args", "-p", f"source:={text}", "-p", "rate_hz:=1e1"]).source == text
    settings = received(["--ros-args", "--param", f"player:frame_id:={text}", "-p", "loop:=true"])
    assert (settings.frame_id, settings.loop) == (text, True)


@settings(max_examples=40, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")))
def test_any_text_is_kept(received, text):
    # Already what users have learned to write: quotes inside of quotes.
    expected = yaml.safe_load(text) if text[:1] in "'\"" and _is_yaml(text) else text
    assert received(["--ros-args", "-p", f"source:={text}"]).source == expected


def _is_yaml(text):
    try:
        return isinstance(yaml.safe_load(text), str)
    except yaml.YAMLError:
        return False


@pytest.mark.parametrize("written", ["'0016'", '"0016"', "!!str 0016"])
def test_quotes_of_the_users_own_are_no_part_of_the_text(received, written):
    assert received(["--ros-args", "-p", f"source:={written}"]).source == "0016"


def test_only_ros_arguments_of_text_parameters_are_touched():
    given = ["program", "-p", "source:=1", "--ros-args", "-r", "a:=b", "-p", "loop:=1", "-p", "other:=1", "--",
             "-p", "source:=1", "--ros-args", "-p", "source:=1"]  # fmt: skip
    with texts_kept(given, PlayerSettings) as kept:
        assert kept == [*given[:-1], 'source:="1"']


@pytest.mark.parametrize("text", ["0016", "0x10", "1e3", "16", ".5", "nan", "true", "y", "null", "~", ""])
@pytest.mark.parametrize("place", ["/**", "/player", "player"])
def test_a_text_in_a_parameter_file_is_kept(received, tmp_path, text, place):
    path = tmp_path / "params.yaml"
    path.write_text(f"{place}:\n  ros__parameters:\n    source: {text}  # a folder\n    rate_hz: 1e1\n", "utf-8")
    found = received(["--ros-args", "--params-file", str(path)])
    assert (found.source, found.rate_hz) == (text, 10.0)


def test_a_parameter_file_without_such_text_is_given_as_it_is(tmp_path):
    for content in ("/**:\n  ros__parameters:\n    source: 'a'\n    loop: true\n", "{", "", "[1]"):
        (tmp_path / "p.yaml").write_text(content, "utf-8")
        given = ["program", "--ros-args", "--params-file", str(tmp_path / "p.yaml"), "--params-file", "/none"]
        with texts_kept(given, PlayerSettings) as kept:
            assert kept == given


def test_the_nodes_own_texts_are_kept(received):
    found = received(["--ros-args", "-p", "model:=0016", "-p", "object_classes:=null"], NodeSettings)
    assert (found.model, found.object_classes) == ("0016", "null")
    assert received(["--ros-args", "-p", "object_classes:=[a]"], NodeSettings).object_classes == "[a]"
    with pytest.raises(InvalidInputError, match=r"expected cameras as NAME=TOPIC .*, got '\[a\]'"):
        received(["--ros-args", "-p", "cameras:=[a]"], NodeSettings)


@pytest.mark.parametrize("name", ["0016", "0x10", "1e3"])
def test_the_player_plays_the_folder_of_that_name(programs, graph, tmp_path, name):
    from node_cases import KINDS

    (tmp_path / name).mkdir()
    cv2.imwrite(str(tmp_path / name / "a.png"), np.full((4, 6, 3), 7, np.uint8))
    got = []
    graph.node("listener").create_subscription(KINDS["overlay"], "image", got.append, 5)
    programs.start("play_images", source=name)  # in tmp_path
    graph.spin_until(lambda: got, "for the image")
    assert programs.wait("play_images") == 0, programs.log("play_images")
    assert set(bytes(got[0].data)) == {7}


def test_the_recorder_writes_into_the_folder_of_that_name(programs, graph, tmp_path):
    node = graph.node("watcher")
    programs.start("record_outputs", out="0x10")
    graph.spin_until(lambda: node.count_subscribers("/panoptic_node/overlay"), "for the recorder")
    programs.stop("record_outputs")
    assert Path(tmp_path / "0x10" / "summary.json").is_file()
