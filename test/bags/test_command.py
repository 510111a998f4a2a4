# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""`rt-panoptic bag`: one bag, several, bad ones among them, and what it says when it can't."""

from __future__ import annotations

import os
import re
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from bag_cases import NODE, by_topic, contents, drive, image_message, make_bag, picture, read_bag

from rt_panoptic_ros.bags.batch import BagJob, plan_jobs, run_in_processes
from rt_panoptic_ros.cli import main
from rt_panoptic_ros.errors import InvalidInputError

if TYPE_CHECKING:
    from pathlib import Path

    from rt_panoptic_ros.bags.options import BagOptions


def test_one_bag(arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = make_bag(tmp_path / "drive", drive(3)), tmp_path / "out"
    command = ["bag", str(source), str(out), *arguments, "--topics", "/wheel", "--outputs", "detections", "overlay"]
    assert main(command) == 0
    said = capsys.readouterr()
    assert f"{out}: 3 frames, small with onnxruntime" in said.out
    assert "/camera/image_raw -> /panoptic_node" in said.out
    assert "3/3" in said.err
    assert sorted(by_topic(out)) == [f"{NODE}/detections", f"{NODE}/overlay", "/wheel"]
    assert main(command) == 0
    assert "there already" in capsys.readouterr().out


@pytest.mark.slow(35)
def test_several_bags_with_a_bad_one(arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second, cut = (make_bag(tmp_path / "in" / name, drive(3 + k)) for k, name in enumerate(("a", "b", "cut")))
    content = (cut / "cut.mcap").read_bytes()
    (cut / "cut.mcap").write_bytes(content[: len(content) // 2])
    bad, out = tmp_path / "in" / "bad.mcap", tmp_path / "out"
    bad.write_bytes(b"no bag")
    sources = (first, cut, bad, second, tmp_path / "in" / "none")
    assert main(["bag", str(first), str(out / "a"), *arguments]) == 0
    capsys.readouterr()
    assert main(["bag", *map(str, sources), str(out), *arguments, "--jobs", "2"]) == 1
    said = capsys.readouterr()
    assert "expected all of 5 bags to be labelled, 2 failed" in said.err
    assert f"{bad}: expected a bag of ROS 2" in said.err
    assert f"{tmp_path / 'in' / 'none'} does not exist" in said.err
    assert "lost: cut.mcap: cut off or damaged: read up to byte" in said.out
    assert {path.name for path in out.iterdir()} == {"a", "b", "cut"}
    assert re.search(rf"{out / 'a'}: .*there already", said.out)
    assert f"{out / 'b'}: " in said.out
    assert main(["bag", str(second), str(tmp_path / "alone" / "b"), *arguments]) == 0
    assert contents(tmp_path / "alone" / "b") == contents(out / "b")


def test_a_run_that_could_label_nothing_fails(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = [image_message(number, picture(number), encoding="purple7") for number in range(2)]
    source, good = make_bag(tmp_path / "broken", broken), make_bag(tmp_path / "good", drive(1))
    sentence = "expected frames that can be labelled, all 2 were skipped: expected a camera's colour encoding"
    assert main(["bag", str(source), str(tmp_path / "out"), *arguments]) == 1
    said = capsys.readouterr()
    assert "skipped 2 frames: expected a camera's colour encoding" in said.out
    assert sentence in said.err
    assert main(["bag", str(source), str(good), str(tmp_path / "several"), *arguments]) == 1
    said = capsys.readouterr()
    assert "expected all of 2 bags to be labelled, 1 failed" in said.err
    assert f"{source}: {sentence}" in said.err
    assert said.out.count(" frames, ") == 1


def test_an_output_that_no_frame_has_fails(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = make_bag(tmp_path / "drive", drive(2)), tmp_path / "out"
    wanted = ["--outputs", "depth_filtered", "--depth", "/camera/image_raw"]
    assert main(["bag", str(source), str(out), *arguments, *wanted]) == 1
    said = capsys.readouterr()
    reason = "expected depth as 16UC1 (mm) or 32FC1 (m), got 'rgb8': name the topic of depth that is aligned to the"
    assert f"2 frames without depth_filtered: {reason} images with --depth (on /camera/image_raw)" in said.out
    assert f"expected depth_filtered, none of 2 frames has it: {reason}" in said.err


@pytest.mark.parametrize("slack", ["nan", "-1", "1.5", "soon"])
def test_a_slack_is_some_part_of_a_second(slack: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["bag", "in", "out", f"--depth-slack={slack}"])
    assert f"--depth-slack: expected a number from 0 to 1, got '{slack}'" in capsys.readouterr().err


def test_without_mcap(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "mcap", None)
    assert main(["bag", str(tmp_path), str(tmp_path / "out"), *arguments]) == 1
    assert "expected the package mcap for bags, it is not installed: `pip install mcap`" in capsys.readouterr().err


class Killer:
    """Ends the process that reads it."""

    def __reduce__(self) -> tuple[Any, tuple[int]]:
        return os._exit, (9,)


def test_a_process_that_dies_is_its_own_bags_problem(options: BagOptions, tmp_path: Path) -> None:
    source = make_bag(tmp_path / "drive", drive(2))
    killer: Any = Killer()
    jobs = [BagJob(source, tmp_path / "dead", killer), BagJob(source, tmp_path / "out", options)]
    outcomes = {outcome.job.out.name: outcome for outcome in run_in_processes(jobs, 1)}
    assert outcomes["dead"].problem == "its process ended with status 9"
    assert outcomes["out"].summary is not None
    assert len(read_bag(tmp_path / "out")) == 2 * 6 + 1


def test_bags_of_one_name_are_refused(options: BagOptions, tmp_path: Path) -> None:
    sources = [make_bag(tmp_path / folder / "drive", drive(1)) for folder in ("a", "b")]
    with pytest.raises(InvalidInputError, match="several of drive"):
        plan_jobs(sources, tmp_path / "out", options)


def test_without_ray(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    source = make_bag(tmp_path / "drive", drive(1))
    assert main(["bag", str(source), str(tmp_path / "out"), *arguments, "--ray"]) == 1
    assert "expected the package ray for spreading bags over machines, it is not installed" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_with_ray(arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ray = pytest.importorskip("ray")
    sources = [str(make_bag(tmp_path / "in" / name, drive(2))) for name in ("a", "b")]
    try:
        command = ["bag", *sources, str(tmp_path / "none"), str(tmp_path / "out"), *arguments, "--ray", "--jobs", "2"]
        assert main(command) == 1
    finally:
        ray.shutdown()
    assert "expected all of 3 bags to be labelled, 1 failed" in capsys.readouterr().err
    for name in ("a", "b"):
        assert len(read_bag(tmp_path / "out" / name)) == 2 * 6 + 1


def test_without_rosbags(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "rosbags", None)
    assert main(["bag", str(tmp_path), str(tmp_path / "out"), *arguments]) == 1
    assert "`pip install rosbags`" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--images", "/none"], "expected images on /none, got no such topic: choose from /camera/image_raw"),
        (["--images", "/wheel"], "got a topic of my_robot_msgs/msg/Wheel"),
        (["--topics", "/none"], "expected topics of the bag to copy, got /none"),
        (["--outputs", "depth"], "expected outputs among semantic, instance, confidence, detections, overlay"),
        (["--object-classes", "road"], "got 'road'"),
        (["--mask-classes", "rain"], "expected mask_classes to be names of classes (sky, "),
        (["--label-map", "avenue"], "a label map file or one of"),
        (["--output-size", "24"], "expected --output-size as HEIGHTxWIDTH"),
        (["--set", "mask_threshold=7"], "expected mask_threshold"),
        (["--precision", "int4"], "expected precision to be one of"),
        (["--precision", "int8"], "expected the ranges for precision int8"),
    ],
)
def test_what_is_wrong_is_said(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], words: str
) -> None:
    source = make_bag(tmp_path / "drive", drive(1))
    assert main(["bag", str(source), str(tmp_path / "out"), *arguments, *more]) == 1
    said = capsys.readouterr().err
    assert words in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["ros1.bag", "text.mcap", "empty folder", "metadata"])
def test_what_is_no_bag_is_said(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    source = tmp_path / kind
    if "." in kind:
        source.write_text("something")
    else:
        source.mkdir()
        if kind == "metadata":
            (source / "metadata.yaml").write_text("rosbag2_bagfile_information: 3")
    assert main(["bag", str(source), str(tmp_path / "out"), *arguments]) == 1
    assert "expected a " in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [source]


def test_options_are_read_once_and_kept(options: BagOptions) -> None:
    assert replace(options, object_classes="car").model.wanted_classes == {8}
    assert options.model.settings.flat()["overlap_threshold"] == 1.0
