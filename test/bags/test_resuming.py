# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Runs that are stopped anywhere and go on give the same bytes; what belongs to another run is not touched."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from bag_cases import Message, contents, drive, image_message, make_bag, picture, wheel_message

from rt_panoptic_ros.bags.journal import FrameRecord, Journal
from rt_panoptic_ros.cli import main
from rt_panoptic_ros.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from bag_cases import Label

FRAMES = 8
TIMEOUT_S = 600.0  # catches hangs only


class StoppedError(Exception):
    """Stands in for whatever ends a run."""


def stop_at(what: str, number: int) -> Callable[[str, int, int], None]:
    def report(doing: str, done: int, total: int) -> None:
        if (doing, done) == (what, number):
            raise StoppedError

    return report


@pytest.fixture
def source(tmp_path: Path) -> Path:
    rear = [image_message(number, picture(number + 3, (48, 80)), "/rear/image_raw") for number in range(FRAMES)]
    front = drive(FRAMES, "/front/image_raw")
    messages = [message for number in range(FRAMES) for message in (*front[2 * number : 2 * number + 2], rear[number])]
    return make_bag(tmp_path / "drive", messages)


@pytest.fixture
def whole(label: Label, source: Path, tmp_path: Path) -> dict[str, bytes]:
    """The bag of an uninterrupted run."""
    label(source, tmp_path / "whole" / "out", tracking=True)
    return contents(tmp_path / "whole" / "out")


def test_two_runs_give_the_same_bytes(label: Label, source: Path, whole: dict[str, bytes], tmp_path: Path) -> None:
    assert sorted(whole) == ["metadata.yaml", "out.mcap"]
    label(source, tmp_path / "out", tracking=True)
    assert contents(tmp_path / "out") == whole


@pytest.mark.parametrize(
    ("what", "number"), [("labelling", 0), ("labelling", 1), ("labelling", 2), ("labelling", 9), ("writing", 0)]
)
def test_a_stopped_run_goes_on(
    label: Label, source: Path, whole: dict[str, bytes], tmp_path: Path, what: str, number: int
) -> None:
    out = tmp_path / "out"
    with pytest.raises(StoppedError):
        label(source, out, stop_at(what, number), tracking=True)
    assert not out.exists()
    summary = label(source, out, tracking=True)
    assert (summary.resumed, summary.frames) == (number if what == "labelling" else 2 * FRAMES, 2 * FRAMES)
    assert contents(out) == whole
    assert not (tmp_path / "out.partial").exists()


@pytest.mark.parametrize("spoilt", [0, 40], ids=["cut", "spoilt"])
@pytest.mark.parametrize("part", [0.0, 0.002, 0.3, 0.5, 0.999])
def test_a_journal_cut_or_spoilt_anywhere_goes_on(
    label: Label, source: Path, whole: dict[str, bytes], tmp_path: Path, part: float, spoilt: int
) -> None:
    out, journal = tmp_path / "out", tmp_path / "out.partial" / "journal"
    with pytest.raises(StoppedError):
        label(source, out, stop_at("labelling", 12), tracking=True)
    content = journal.read_bytes()
    place = int(part * len(content))
    journal.write_bytes(content[:place] + (bytes(spoilt) + content[place + spoilt :] if spoilt else b""))
    assert label(source, out, tracking=True).resumed < 12
    assert contents(out) == whole


@pytest.mark.slow(25)
def test_killed_processes_go_on(arguments: list[str], tmp_path: Path) -> None:
    """Of one bag, see test/scripts/test_kills.py."""
    sources = [make_bag(tmp_path / name, drive(30)) for name in ("one", "two")]

    def start(out: Path) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "rt_panoptic_ros", "bag", *sources, out, *arguments, "--tracking", "--jobs=2"]
        root = Path(__file__).resolve().parents[2]
        return subprocess.Popen(command, cwd=root, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

    def written() -> int:
        sizes = []
        for partial in partials:
            try:
                sizes.append((partial / "journal").stat().st_size)
            except FileNotFoundError:  # not yet, or not any more
                sizes.append(0)
        return sum(sizes)

    def is_new_bag_begun() -> bool:
        return any((partial / "bag").is_dir() for partial in partials)

    partials = [tmp_path / name for name in ("out/one.partial", "out/two.partial")]
    expected, out = tmp_path / "whole" / "out", tmp_path / "out"
    for source in sources:
        assert main(["bag", str(source), str(expected / source.name), *arguments, "--tracking"]) == 0
    kills = 0
    # Frames' records differ in size: the kills before the last come anywhere in one.
    points = (lambda: written() > 180_000, is_new_bag_begun)
    for reached in points:
        process = start(out)
        deadline_s = time.monotonic() + TIMEOUT_S
        while process.poll() is None and not reached():
            assert time.monotonic() < deadline_s
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.002)  # no busy loop: the process needs the cores
        process.send_signal(signal.SIGKILL)
        _, words = process.communicate(timeout=TIMEOUT_S)
        assert process.returncode in (-signal.SIGKILL, 0), words.decode()
        kills += process.returncode == -signal.SIGKILL
    process = start(out)
    _, words = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0, words.decode()
    assert kills >= len(points) - 1
    assert contents(out) == contents(expected)


def test_a_finished_bag_is_recognised(label: Label, source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    label(source, out)
    before = contents(out), out.stat().st_ino
    # Killed between its last two steps: the bag is in place, and the journal is still there.
    (tmp_path / "out.partial").mkdir()
    (tmp_path / "out.partial" / "journal").write_bytes(b"anything")
    summary = label(source, out)
    assert "there already" in summary.format()
    assert (contents(out), out.stat().st_ino) == before
    assert not (tmp_path / "out.partial").exists()

    with pytest.raises(InvalidInputError, match=r"exists and was not made with these arguments.*--force"):
        label(source, out, tracking=True)
    assert contents(out) == before[0]
    label(source, out, tracking=True, force=True)
    assert contents(out) != before[0]
    label(source, out, force=True)
    assert contents(out) == before[0]


def test_what_is_no_bag_is_never_replaced(label: Label, source: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "letter.txt").write_text("dear")
    for force in (False, True):
        with pytest.raises(InvalidInputError, match="expected a"):
            label(source, home, force=force)
        for inside in (source, source / "new", tmp_path):
            with pytest.raises(InvalidInputError, match="outside the old one"):
                label(source, inside, force=force)
    assert contents(home) == {"letter.txt": b"dear"}


def test_the_journal_of_another_run_is_refused(label: Label, source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(StoppedError):
        label(source, out, stop_at("labelling", 0), topics=())  # a run that did nothing holds up no other
    with pytest.raises(StoppedError):
        label(source, out, stop_at("labelling", 5))
    for changes, named in (
        ({"tracking": True}, "tracking"), ({"topics": ()}, "topics"), ({"outputs": ("instance",)}, "outputs"),
        ({"object_classes": "car"}, "object classes"), ({"label_map": "people"}, "label map"),
        ({"output_size": (24, 32)}, "output size"),
    ):  # fmt: skip
        with pytest.raises(InvalidInputError, match=f"was begun with, got other {named}: .*--force"):
            label(source, out, **changes)
    other = make_bag(tmp_path / "other" / "drive", drive(3))
    with pytest.raises(InvalidInputError, match="got other input:"):
        label(other, out)
    assert label(source, out, tracking=True, force=True).resumed == 0


def test_images_that_changed_since_are_refused(label: Label, tmp_path: Path) -> None:
    # Only the first and last MiB of a bag's files tell whether it is the same.
    start, end = wheel_message(0), wheel_message(9)
    padding = [Message("/padding", one.kind, one.data + bytes(1 << 20), one.time_ns) for one in (start, end)]
    source = make_bag(tmp_path / "drive", [padding[0], *drive(FRAMES), padding[1]])
    with pytest.raises(StoppedError):
        label(source, tmp_path / "out", stop_at("writing", 0))
    bag = source / "drive.mcap"
    content = bytearray(bag.read_bytes())
    content[content.index(picture(4).tobytes()[3000:3100])] ^= 1
    bag.write_bytes(content)
    with pytest.raises(InvalidInputError, match="as they were when they were labelled"):
        label(source, tmp_path / "out")


def test_a_journal_belongs_to_one_process(tmp_path: Path) -> None:
    path, document = tmp_path / "out.partial" / "journal", {"tracking": True, "images": ("/a",)}
    with Journal(path, document) as journal:
        journal.append(1, FrameRecord(7, outputs={"semantic": b"abc", "instance": b""}, state=b"xy"))
        with pytest.raises(InvalidInputError, match="in use by another"):
            Journal(path, document)
    with Journal(path, document) as journal:
        journal.append(0, FrameRecord(8, problem="no image"))
        journal.append(1, FrameRecord(9, outputs={"semantic": b"d"}))
        assert journal.counts == [1, 2]
        (broken,) = journal.frames(0)
        assert (broken.checksum, broken.problem, broken.outputs, broken.state) == (8, "no image", {}, b"")
        first, second = journal.frames(1)
        assert (first.outputs, first.state) == ({"semantic": b"abc", "instance": b""}, b"xy")
        assert [record.checksum for record in journal.frames(1, -1)] == [second.checksum] == [9]
        assert list(journal.frames(5)) == []


def test_what_was_labelled_some_seconds_ago_outlasts_a_power_loss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    monkeypatch.setattr(
        "rt_panoptic_ros.bags.journal.os.fdatasync", lambda handle: synced.append(os.fstat(handle).st_size)
    )
    with Journal(tmp_path / "journal", {}) as journal:
        journal.append(0, FrameRecord(1))
        assert synced == []
        monkeypatch.setattr("rt_panoptic_ros.bags.journal._SYNC_PERIOD_S", 0.0)
        journal.append(0, FrameRecord(2))
    assert synced == [(tmp_path / "journal").stat().st_size]
