# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""`make demo`'s own program: three processes on a real graph, and the table of what they measured."""

from __future__ import annotations

import re
import signal

import cv2
import numpy as np
import pytest

from rt_panoptic_ros.errors import InvalidInputError
from rt_panoptic_ros.ros.processes import local_environment
from rt_panoptic_ros.ros.tools.demo import DOMAIN, run_demo
from rt_panoptic_ros.ros.transport import PROFILE_VARIABLES


@pytest.fixture(autouse=True)
def _own_signal_handler():
    handler = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, handler)


@pytest.mark.slow
def test_labels_a_folder_and_says_how_it_went(small_bundle, real_frames, tmp_path, capsys):
    run_demo(str(real_frames), tmp_path / "demo", model=str(small_bundle.path), max_frames=5)
    table = dict(re.findall(r"^  (\S.*?)  +(\S.*)$", capsys.readouterr().out, re.MULTILINE))
    assert table["frames sent by the player"] == "5"
    assert 1 <= int(table["frames labelled and recorded"]) <= int(table["frames received by the node"]) <= 5
    assert cv2.VideoCapture(str(tmp_path / "demo" / "overlay.mp4")).read()[0]
    assert cv2.imread(str(tmp_path / "demo" / "overlay.png")) is not None


@pytest.mark.slow
def test_images_of_mixed_sizes_are_played_to_the_end(small_bundle, tmp_path, capsys):
    (tmp_path / "in").mkdir()
    for number in range(6):
        size = ((48, 64), (64, 96))[number % 2]
        cv2.imwrite(str(tmp_path / "in" / f"{number}.png"), np.full((*size, 3), 40 * number, np.uint8))
    run_demo(str(tmp_path / "in"), tmp_path / "demo", model=str(small_bundle.path), max_frames=0)
    table = dict(re.findall(r"^  (\S.*?)  +(\S.*)$", capsys.readouterr().out, re.MULTILINE))
    assert table["frames sent by the player"] == "6"
    assert cv2.VideoCapture(str(tmp_path / "demo" / "overlay.mp4")).read()[0]


def test_a_wrong_source_is_said_before_anything_starts(small_bundle, tmp_path):
    with pytest.raises(InvalidInputError, match="does not exist"):
        run_demo(str(tmp_path / "nothing.mp4"), tmp_path / "demo", model=str(small_bundle.path), max_frames=5)
    assert not (tmp_path / "demo").exists()


def test_the_users_own_domain_and_profile_are_kept():
    own = {"ROS_DOMAIN_ID": "3", PROFILE_VARIABLES[0]: "/mine.xml"}
    environment = local_environment(own, DOMAIN)
    assert own.items() <= environment.items()
    assert PROFILE_VARIABLES[1] not in environment
    assert set(PROFILE_VARIABLES) <= local_environment({}, DOMAIN).keys()


@pytest.mark.parametrize(("distribution", "read"), [("humble", 0), ("jazzy", 0), ("kilted", 1), ("lyrical", 1)])
def test_a_distribution_is_given_the_name_of_the_profile_that_it_reads(distribution, read):
    environment = local_environment({"ROS_DISTRO": distribution}, DOMAIN)
    assert [name for name in PROFILE_VARIABLES if name in environment] == [PROFILE_VARIABLES[read]]


def test_processes_stay_on_this_machine_on_humble_too():
    assert local_environment({}, DOMAIN)["ROS_AUTOMATIC_DISCOVERY_RANGE"] == "LOCALHOST"
    assert local_environment({"ROS_DISTRO": "humble"}, DOMAIN)["ROS_LOCALHOST_ONLY"] == "1"
