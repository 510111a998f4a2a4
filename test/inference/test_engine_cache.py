# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The cache of built engines: only what is surely right is loaded, everything else is built again."""

from __future__ import annotations

import json
import logging
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from rt_panoptic_ros.errors import CancelledError
from rt_panoptic_ros.inference.engine_cache import EngineIdentity, cached_engine, sidecar
from rt_panoptic_ros.progress import observing

IDENTITY = EngineIdentity("m", "ab" * 32, "64x96", "float16", "tensorrt", "10.3", "Some GPU", "8.9", "")
PLAN = bytes(range(256)) * 40


def build_counted(folder: Path) -> Callable[[Callable[[float], None]], bytes]:
    """Return a builder that leaves a mark for each build."""

    def build(progress: Callable[[float], None]) -> bytes:
        progress(0.5)
        with (folder.parent / "builds").open("a") as file:
            file.write("b")
        return PLAN

    return build


def builds(folder: Path) -> int:
    path = folder.parent / "builds"
    return len(path.read_text()) if path.exists() else 0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "engines"


def engine_file(folder: Path) -> Path:
    return folder / f"{IDENTITY.stem}.engine"


def test_built_once_and_found_again(folder: Path) -> None:
    assert cached_engine(IDENTITY, build_counted(folder), folder) == (PLAN, False)
    assert cached_engine(IDENTITY, build_counted(folder), folder) == (PLAN, True)
    assert builds(folder) == 1
    document = json.loads(sidecar(engine_file(folder)).read_text())
    assert document["identity"]["gpu"] == "Some GPU"
    assert not [path for path in folder.iterdir() if path.suffix == ".tmp" or path.name.startswith(".")]


@pytest.mark.parametrize(
    "other",
    [
        {"graph_sha256": "cd" * 32}, {"size": "64x128"}, {"precision": "int8"}, {"runtime": "tensorrt_rtx"},
        {"runtime_version": "10.4"}, {"gpu": "Another GPU"}, {"compute_capability": "8.6"}, {"flags": "workspace 9"},
    ],
    ids=str,
)  # fmt: skip
def test_anything_else_is_another_engine(folder: Path, other: dict[str, str]) -> None:
    cached_engine(IDENTITY, build_counted(folder), folder)
    assert cached_engine(replace(IDENTITY, **other), build_counted(folder), folder) == (PLAN, False)
    assert cached_engine(IDENTITY, build_counted(folder), folder) == (PLAN, True)


def truncate(path: Path) -> None:
    path.write_bytes(PLAN[:-1])


def flip(path: Path) -> None:
    path.write_bytes(PLAN[:99] + bytes([PLAN[99] ^ 1]) + PLAN[100:])


def lose_sidecar(path: Path) -> None:
    sidecar(path).unlink()


def lose_engine(path: Path) -> None:
    path.unlink()


def garble_sidecar(path: Path) -> None:
    sidecar(path).write_text("[]")


def cut_sidecar(path: Path) -> None:
    sidecar(path).write_text(sidecar(path).read_text()[:30])


def rename_another(path: Path) -> None:
    document = json.loads(sidecar(path).read_text())
    document["identity"]["runtime_version"] = "9.0"
    sidecar(path).write_text(json.dumps(document))


def open_to_all(path: Path) -> None:
    path.chmod(0o666)


def link(path: Path) -> None:
    path.rename(path.with_suffix(".real"))
    path.symlink_to(path.with_suffix(".real"))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (truncate, "10239 bytes instead of 10240"), (flip, "damaged"), (lose_sidecar, "is missing"),
        (lose_engine, "is missing"), (garble_sidecar, "can't be read"), (cut_sidecar, "can't be read"),
        (rename_another, "built for something else"), (open_to_all, "others may write"), (link, "not a regular file"),
    ],
)  # fmt: skip
def test_a_damaged_entry_is_built_again_and_said(
    folder: Path, damage: Callable[[Path], None], words: str, caplog: pytest.LogCaptureFixture
) -> None:
    cached_engine(IDENTITY, build_counted(folder), folder)
    damage(engine_file(folder))
    assert cached_engine(IDENTITY, build_counted(folder), folder) == (PLAN, False)
    assert words in caplog.text
    assert cached_engine(IDENTITY, build_counted(folder), folder) == (PLAN, True)


def test_another_users_engine_is_not_loaded(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cached_engine(IDENTITY, build_counted(folder), folder)
    monkeypatch.setattr(os, "geteuid", lambda: 54321)
    assert cached_engine(IDENTITY, build_counted(folder), folder) == (PLAN, False)
    assert "belongs to another user" in caplog.text


def test_a_failed_build_leaves_nothing(folder: Path) -> None:
    def fail(progress: Callable[[float], None]) -> bytes:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        cached_engine(IDENTITY, fail, folder)
    assert not engine_file(folder).exists()
    assert cached_engine(IDENTITY, build_counted(folder), folder) == (PLAN, False)


def test_a_full_disk_costs_only_the_keeping(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, hard))  # as full as it gets without being root
    try:
        assert cached_engine(IDENTITY, build_counted(folder), folder) == (PLAN, False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "could not be kept" in caplog.text
    assert not engine_file(folder).exists()
    assert cached_engine(IDENTITY, build_counted(folder), folder) == (PLAN, False)
    assert cached_engine(IDENTITY, build_counted(folder), folder) == (PLAN, True)


def test_an_unwritable_folder_costs_only_the_keeping(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("in the way")
    folder = tmp_path / "file" / "engines"
    assert cached_engine(IDENTITY, lambda progress: PLAN, folder) == (PLAN, False)
    assert "can't be kept" in caplog.text


BUILDER = """
import sys, time
from pathlib import Path
from rt_panoptic_ros.inference.engine_cache import EngineIdentity, cached_engine

folder, seconds = Path(sys.argv[1]), float(sys.argv[2])
identity = EngineIdentity("m", "ab" * 32, "64x96", "float16", "tensorrt", "10.3", "Some GPU", "8.9", "")

def build(progress):
    print("building", flush=True)
    time.sleep(seconds)  # a build takes its time
    with (folder.parent / "builds").open("a") as file:
        file.write("b")
    return bytes(range(256)) * 40

cached_engine(identity, build, folder)
"""


def start_builder(folder: Path, seconds: float) -> subprocess.Popen[str]:
    builder = subprocess.Popen(
        [sys.executable, "-c", BUILDER, str(folder), str(seconds)], stdout=subprocess.PIPE, text=True
    )
    assert builder.stdout is not None
    assert builder.stdout.readline() == "building\n"
    return builder


def test_two_builders_build_once(folder: Path) -> None:
    builder = start_builder(folder, 0.5)
    told: list[str] = []
    with observing(told.append):
        assert cached_engine(IDENTITY, build_counted(folder), folder) == (PLAN, True)
    assert builder.wait(30) == 0
    assert builds(folder) == 1
    assert any("waiting for another process" in words for words in told)


def test_waiting_for_another_builder_can_be_called_off(folder: Path) -> None:
    def tell(words: str) -> None:
        raise CancelledError(words)

    builder = start_builder(folder, 3600)
    with observing(tell), pytest.raises(CancelledError, match="waiting for another process"):
        cached_engine(IDENTITY, build_counted(folder), folder)
    builder.kill()
    assert builder.wait(30) == -signal.SIGKILL


def test_a_killed_builder_leaves_the_way_free(folder: Path) -> None:
    builder = start_builder(folder, 3600)
    builder.kill()
    assert builder.wait(30) == -signal.SIGKILL
    assert cached_engine(IDENTITY, build_counted(folder), folder) == (PLAN, False)
    assert builds(folder) == 1


def test_progress_is_told(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    told: list[str] = []
    with caplog.at_level(logging.INFO), observing(told.append):
        cached_engine(IDENTITY, build_counted(folder), folder)
    assert told[0].startswith("building the tensorrt engine of m at 64x96 in float16")
    assert told[1].endswith("50 %")
    assert "built the engine" in caplog.text
