# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Files that a user names are regular ones of bounded size; nothing else is waited for or read without end."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ROOT

from rt_panoptic_ros.datasets.coco_json import read_json
from rt_panoptic_ros.detectors.description import read_description
from rt_panoptic_ros.errors import InvalidInputError
from rt_panoptic_ros.files import MOST_TEXT_BYTES, file_sha256, read_regular, read_yaml
from rt_panoptic_ros.model.bundle import ModelBundle, read_bundle
from rt_panoptic_ros.model.label_map import read_label_map
from rt_panoptic_ros.training.recipe import read_recipe

pytestmark = pytest.mark.timeout(120)  # what opens a pipe waits for ever


def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    known = list(Path("/proc/self/fd").iterdir())
    for path, found in [(tmp_path, "a folder"), (tmp_path / "pipe", "a pipe"), (tmp_path / "link", "a pipe"),
                        (Path("/dev/zero"), "a device")]:  # fmt: skip
        expected = f"expected a recipe in a regular file, got {path}, which is {found}: check the path"
        for read in (lambda: read_regular(path, "a recipe", 10), lambda: read_yaml(path, "a recipe")):  # noqa: B023
            with pytest.raises(InvalidInputError, match=f"^{expected}$"):
                read()
        with pytest.raises(InvalidInputError, match=found):
            file_sha256(path)
        with pytest.raises(InvalidInputError, match=found):
            read_json(path, "COCO")
    assert list(Path("/proc/self/fd").iterdir()) == known
    with pytest.raises(FileNotFoundError):
        read_regular(tmp_path / "missing", "a recipe", 10)


def test_the_size_has_an_end(tmp_path: Path) -> None:
    path = tmp_path / "some"
    path.write_bytes(b"0123456789")
    assert read_regular(path, "a card", 10) == b"0123456789"
    with pytest.raises(InvalidInputError, match=rf"^expected a card of at most 9 bytes, got {path}, which is larger$"):
        read_regular(path, "a card", 9)
    with pytest.raises(InvalidInputError, match="larger"):  # as large as it is read, though its size is 0
        read_regular(Path("/proc/self/stat"), "a card", 9)
    os.truncate(path, 1 << 40)  # of which no byte takes room on the disk
    with pytest.raises(InvalidInputError, match=rf"^expected a card of at most {MOST_TEXT_BYTES:,} bytes"):
        read_yaml(path, "a card")


@pytest.mark.parametrize("read", [read_bundle, read_label_map, read_recipe, read_description])
@pytest.mark.parametrize(
    "name", ["pipe", "/dev/zero", "n" * 300, "/n" * 5000, "a\0b", "", ".", "../../etc/passwd", "missing"]
)
def test_no_name_is_more_than_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: Callable[[str], object], name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InvalidInputError, match=r"^expected ") as refusal:
        read(name)
    assert len(str(refusal.value).splitlines()) == 1


@pytest.mark.parametrize("name", ["model.yaml", "int8.json", "weights.safetensors"])
@pytest.mark.parametrize("number", [0, 1], ids=["pipe", "endless"])
def test_a_bundle_of_other_things_than_files(tmp_path: Path, small_bundle: ModelBundle, name: str, number: int) -> None:
    shutil.copytree(small_bundle.path, tmp_path / "model")
    path = tmp_path / "model" / name
    path.unlink(missing_ok=True)
    os.mkfifo(path) if number == 0 else path.symlink_to("/dev/zero")

    def load() -> object:
        bundle = read_bundle(str(tmp_path / "model"))
        return bundle.load_ranges() if name == "int8.json" else bundle.load_weights()

    with pytest.raises(InvalidInputError, match=r"^expected "):
        load()


PRIVATE = """
import os, sys
os.umask(0)
from rt_panoptic_ros.files import cache_directory, process_folder
from rt_panoptic_ros.inference.onnx_export import exported_onnx
from rt_panoptic_ros.model.bundle import read_bundle
from rt_panoptic_ros.warp_runtime import load_kernels

load_kernels([], "cpu")
exported_onnx(read_bundle(sys.argv[1]), (40, 48), "float32")
print(cache_directory(), process_folder("scratch").parent, process_folder("scratch").parent.stat().st_mode & 0o777)
"""


def test_caches_are_the_users_own(tmp_path: Path, small_bundle: ModelBundle) -> None:
    """Where others could have put it, nothing is read from a cache; what is made there is for this user alone."""

    def run(cache: Path) -> tuple[list[str], str]:
        environment = {**os.environ, "XDG_CACHE_HOME": str(cache), "TMPDIR": str(tmp_path)}
        environment.pop("WARP_CACHE_PATH", None)
        command = [sys.executable, "-c", PRIVATE, str(small_bundle.path)]
        ended = subprocess.run(command, check=False, env=environment, capture_output=True, text=True, encoding="utf-8")
        assert ended.returncode == 0, ended.stderr
        return ended.stdout.split(), ended.stderr

    place, said = run(tmp_path / "cache")
    assert place[0] == f"{tmp_path}/cache/rt_panoptic_ros"
    assert int(place[2]) == 0o700
    assert said == ""
    for name in ("rt_panoptic_ros", "warp"):
        assert (tmp_path / "cache" / name).stat().st_mode & 0o777 == 0o700
    kept = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert kept
    assert not any(path.stat().st_mode & 0o022 for path in kept)

    (tmp_path / "open" / "rt_panoptic_ros").mkdir(parents=True)
    (tmp_path / "open" / "warp").mkdir()
    for name in ("rt_panoptic_ros", "warp"):
        (tmp_path / "open" / name).chmod(0o777)
    place, said = run(tmp_path / "open")
    assert place[0].startswith(place[1])
    assert said.count("other users may write there") == 2
    assert not any(path.is_file() for path in (tmp_path / "open").rglob("*"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "open"]  # nothing temporary is left


def test_no_temporary_file_has_a_name_that_others_can_foresee() -> None:
    """They come from `tempfile`: names are random, folders 0700 and files 0600."""
    sources = [path for folder in ("rt_panoptic_ros", "scripts", "launch") for path in (ROOT / folder).rglob("*")]
    texts = {
        path: path.read_text(encoding="utf-8")
        for path in [*sources, ROOT / "Makefile"]
        if path.is_file() and path.suffix != ".pyc"
    }
    assert len(texts) > 200
    foreseen = re.compile(r"gettempdir|mktemp\(|[\"'= (]/(var/)?tmp/|mkdir .*/tmp")
    assert [path for path, text in texts.items() if foreseen.search(text)] == []
