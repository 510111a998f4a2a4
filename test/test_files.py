# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Files: what users name is a regular one of bounded size and runs no code; what is written is whole or absent."""

from __future__ import annotations

import ast
import fcntl
import os
import re
import shutil
import stat
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from test_layers import MODULES, ROOT, SCRIPTS

from rt_panoptic_ros import files, warp_runtime
from rt_panoptic_ros.datasets.coco_json import read_json
from rt_panoptic_ros.detectors.description import read_description
from rt_panoptic_ros.errors import InvalidInputError
from rt_panoptic_ros.files import MOST_TEXT_BYTES, atomic_path, file_sha256, read_regular, read_yaml
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
    tracemalloc.start()
    assert read_regular(path, "a data set", 1 << 40) == b"0123456789"
    assert tracemalloc.get_traced_memory()[1] < 1 << 20  # memory for what is there
    tracemalloc.stop()
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


def forbidden(call: ast.Call) -> bool:
    """Return whether a call may run what it reads."""
    name = ast.unparse(call.func)
    given = {word.arg: ast.unparse(word.value) for word in call.keywords}
    if name in ("yaml.load", "yaml.load_all"):
        loaders = [ast.unparse(part) for part in (*call.args[1:], *(word.value for word in call.keywords))]
        return not any("SafeLoader" in loader for loader in loaders)
    if name == "torch.load":
        return given.get("weights_only") != "True"
    if name == "np.load":
        return given.get("allow_pickle") != "False"
    unsafe = ("eval", "exec", "compile", "__import__", "yaml.unsafe_load", "yaml.full_load", "marshal.loads")
    return name in unsafe or name.split(".")[0] in ("pickle", "cPickle", "dill", "shelve", "joblib")


@pytest.mark.parametrize(
    ("code", "unsafe"),
    [
        ("eval(x)", True), ("re.compile(x)", False), ("pickle.load(x)", True), ("torch.load(x)", True),
        ("torch.load(x, weights_only=True)", False), ("np.load(x)", True), ("np.load(x, allow_pickle=False)", False),
        ("yaml.load(x, yaml.Loader)", True), ("yaml.load(x, yaml.SafeLoader)", False), ("yaml.unsafe_load(x)", True),
    ],
)  # fmt: skip
def test_what_may_run_code_is_known(code: str, unsafe: bool) -> None:
    call = ast.parse(code, mode="eval").body
    assert isinstance(call, ast.Call)
    assert forbidden(call) == unsafe


def test_nothing_that_is_read_can_run_code() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}: {ast.unparse(node)}"
        for path in (*MODULES.values(), *SCRIPTS)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and forbidden(node)
    ]
    assert found == []


def test_a_file_is_synced_before_it_has_its_name_and_its_folders_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    target, fsync, replace = tmp_path / "new" / "folder" / "a.txt", os.fsync, Path.replace

    def synced(handle: int) -> None:
        place = Path(f"/proc/self/fd/{handle}").readlink()
        done.append("content" if stat.S_ISREG(os.fstat(handle).st_mode) else place.name)
        fsync(handle)

    def renamed(path: Path, to: Path) -> Path:
        done.append(f"rename {to.name}")
        return replace(path, to)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", renamed)
    with atomic_path(target) as temporary:
        temporary.write_text("a")
        done.append("written")
    assert sorted(done[:2]) == sorted([tmp_path.name, "new"])
    assert done[2:] == ["written", "content", "rename a.txt", "folder"]


def test_what_a_killed_writer_left_is_removed_and_anothers_work_is_not(tmp_path: Path) -> None:
    left, written = tmp_path / ".a.txt.part-1", tmp_path / ".a.txt.part-2"
    left.write_text("half")
    written.write_text("half")
    with written.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        files._remove_leftovers.cache_clear()
        with atomic_path(tmp_path / "a.txt") as temporary:
            temporary.write_text("whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".a.txt.part-2", "a.txt"]


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda folder: None, ""),
        (lambda folder: (folder / "k.o").write_bytes(b""), "the bytes of k.o are damaged"),
        (lambda folder: (folder / "k.o").write_bytes(b"machine codf"), "the bytes of k.o are damaged"),
        (lambda folder: (folder / "k.meta").unlink(), "its files are not those of its digests"),
        (lambda folder: (folder / "rt_panoptic_ros.json").write_text("{"), "its files are not those of its digests"),
        (lambda folder: (folder / "rt_panoptic_ros.json").unlink(), ""),  # of this boot: no power was lost since
        (lambda folder: (folder / "k.cpp").write_text("for people"), ""),
    ],
)
def test_damaged_kernels_are_compiled_again_and_said(
    tmp_path: Path, damage: object, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    module, folder = SimpleNamespace(__name__="kernels"), tmp_path / "wp_kernels_0a1b2c3"
    folder.mkdir()
    (folder / "k.o").write_bytes(b"machine code")
    (folder / "k.meta").write_text("{}")
    warp_runtime._keep_digests(tmp_path, module)  # type: ignore[arg-type]
    damage(folder)  # type: ignore[operator]
    warp_runtime._remove_damaged(tmp_path, module)  # type: ignore[arg-type]
    assert folder.exists() == (not words)
    assert words in caplog.text
    assert bool(caplog.text) == bool(words)


def test_kernels_without_digests_from_before_a_power_loss_are_not_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "wp_kernels_0a1b2c3"
    folder.mkdir()
    (folder / "k.o").write_bytes(b"")
    monkeypatch.setattr(warp_runtime.time, "clock_gettime", lambda _: 0.0)  # the machine has just started
    warp_runtime._remove_damaged(tmp_path, SimpleNamespace(__name__="kernels"))  # type: ignore[arg-type]
    assert not folder.exists()
    assert "k.o may be cut" in caplog.text
