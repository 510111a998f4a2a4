# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""What is written is whole or absent and outlasts a power loss; nothing that is read can run code."""

from __future__ import annotations

import ast
import fcntl
import os
import stat
from pathlib import Path
from types import SimpleNamespace

import pytest
from test_layers import MODULES, ROOT, SCRIPTS

from rt_panoptic_ros import files, warp_runtime
from rt_panoptic_ros.files import atomic_path


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
