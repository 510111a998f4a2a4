# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""A first start, and a start where nothing can be kept: each in a process of its own, as a user's terminal sees it."""

from __future__ import annotations

import importlib.util
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import warp as wp
from conftest import ROOT

from rt_panoptic_ros import warp_runtime
from rt_panoptic_ros.model.bundle import ModelBundle

needs_torch = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")

KERNELS = """
import warp as wp

@wp.kernel
def double(values: wp.array(dtype=wp.float32)):
    values[wp.tid()] = 2.0 * values[wp.tid()]
"""

LOAD = "import kernels\nfrom rt_panoptic_ros.warp_runtime import load_kernels\nload_kernels([kernels], 'cpu')"

USE = """
import logging, sys
logging.basicConfig(level=logging.INFO)
import warp as wp
import kernels
from rt_panoptic_ros.inference.onnx_export import exported_onnx
from rt_panoptic_ros.model.bundle import read_bundle
from rt_panoptic_ros.warp_runtime import load_kernels

load_kernels([kernels], "cpu")
values = wp.array([1.0, 2.0], dtype=wp.float32, device="cpu")
wp.launch(kernels.double, 2, inputs=[values], device="cpu")
print(values.numpy(), len(exported_onnx(read_bundle(sys.argv[1]), (40, 48), "float32")) > 10000)
"""

DRIVER = """
#include <string.h>
int cuDriverGetVersion(int *version) { *version = VERSION; return 0; }
static int succeed() { return 0; }  /* cuInit and others */
static int no_gpus(int *count) { return *count = 0; }
int cuGetProcAddress_v2(const char *name, void **function, int version, unsigned long flags, int *status) {
    void *known = strcmp(name, "cuDeviceGetCount") ? (void *)succeed : (void *)no_gpus;
    *function = strcmp(name, "cuDriverGetVersion") ? known : (void *)cuDriverGetVersion;
    return 0;
}
"""
"""As much of libcuda.so.1 as Warp looks at where it finds no GPU."""

FIND = """
from rt_panoptic_ros.errors import UnavailableError
from rt_panoptic_ros.inference.backends import resolve_device
print(resolve_device("auto"))
try:
    resolve_device("cuda")
except UnavailableError as error:
    print(error)
"""

NO_HOME = """
import os, pwd
def unknown(uid):
    raise KeyError(uid)
pwd.getpwuid = unknown  # as for a user of a container that its image doesn't know
os.environ.pop("HOME", None)
"""


def python(code: str, *arguments: str, limit: int | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh process; with `limit`, it can write no file of more bytes, as on a disk that is full."""

    def restrict() -> None:
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    inherited = {name: value for name, value in os.environ.items() if name not in ("XDG_CACHE_HOME", "WARP_CACHE_PATH")}
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False,
        env=inherited | variables, preexec_fn=restrict, cwd=ROOT,
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the module `kernels`, a file where a folder should be, and one for temporary files."""
    (tmp_path / "kernels.py").write_text(KERNELS)
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "tmp").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("cache", "limit", "reason"),
    [
        (lambda folder: folder / "file", None, "Not a directory"),
        (lambda folder: folder / ("long" * 99), None, "File name too long"),
        (lambda folder: folder / "cache", 8 << 20, "File too large"),
    ],
)
def test_without_a_cache_work_goes_on(
    cache: Callable[[Path], Path], limit: int | None, reason: str, folder: Path, small_bundle: ModelBundle
) -> None:
    run = python(
        USE, str(small_bundle.path), limit=limit, XDG_CACHE_HOME=str(cache(folder)), TMPDIR=str(folder / "tmp"),
        PYTHONPATH=str(folder),
    )  # fmt: skip
    if limit is None:
        assert run.stdout == "[2. 4.] True\n", run.stderr
        told = [line for line in run.stderr.splitlines() if not line.startswith("INFO")]
        for line, variable in ((told[0], "WARP_CACHE_PATH"), (told[-1], "XDG_CACHE_HOME")):
            assert f"({reason})" in line
            assert f"set {variable} to a folder that can be written" in line
    else:  # the temporary folder has no room either
        assert run.returncode == 1
        assert run.stderr.splitlines()[-1].endswith("set WARP_CACHE_PATH or TMPDIR to a folder that has room")
    assert list((folder / "tmp").iterdir()) == []


def test_what_a_full_cache_holds_is_used(folder: Path, small_bundle: ModelBundle) -> None:
    environment = {"XDG_CACHE_HOME": str(folder / "cache"), "TMPDIR": str(folder / "tmp"), "PYTHONPATH": str(folder)}
    first = python(USE, str(small_bundle.path), **environment)
    assert (first.stdout, "WARNING" in first.stderr) == ("[2. 4.] True\n", False)
    full = """
from rt_panoptic_ros import warp_runtime
warp_runtime.why_unwritable = lambda folder: "No space left on device" if "cache" in folder.parts else None
warp_runtime.wp.config.log_level = warp_runtime.wp.LOG_INFO
"""
    second = python(full + USE, str(small_bundle.path), **environment)
    assert second.stdout.endswith("[2. 4.] True\n"), second.stderr
    assert "(cached)" in second.stdout
    assert "(compiled)" not in second.stdout
    assert "(No space left on device)" in second.stderr
    assert list((folder / "tmp").iterdir()) == []
    assert python(USE, str(small_bundle.path), **environment).stdout == first.stdout  # what was linked is still there


def test_a_user_without_a_home_has_a_cache_for_the_process(folder: Path) -> None:
    code = f"""
{NO_HOME}
from rt_panoptic_ros.files import cache_directory, why_unwritable
print(cache_directory() == cache_directory(), why_unwritable(cache_directory()))
"""
    run = python(code, TMPDIR=str(folder / "tmp"))
    assert run.stdout == "True None\n"
    assert run.stderr.count("set XDG_CACHE_HOME to a folder") == 1
    assert list((folder / "tmp").iterdir()) == []


@pytest.mark.slow(20)
def test_a_first_start_is_quiet(tmp_path: Path) -> None:
    code = "from rt_panoptic_ros.panoptic.postprocess import load_postprocessing\nload_postprocessing('cpu')"
    run = python(code, WARP_CACHE_PATH=str(tmp_path))
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")


def test_a_real_error_of_the_compiler_is_shown(tmp_path: Path) -> None:
    (tmp_path / "kernels.py").write_text(
        "import warp as wp\n\n@wp.func_native('no_such_thing();')\ndef f(x: float): ...\n\n"
        "@wp.kernel\ndef wrong(values: wp.array(dtype=wp.float32)):\n    f(values[0])\n"
    )
    run = python(LOAD, WARP_CACHE_PATH=str(tmp_path), PYTHONPATH=str(tmp_path))
    assert run.returncode == 1
    assert "error: use of undeclared identifier 'no_such_thing'" in run.stderr


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino", pytest.param("torch", marks=needs_torch), "auto"])
def test_each_backend_opens_first_in_a_process_and_without_a_home(backend: str, small_bundle: ModelBundle) -> None:
    code = f"""
{NO_HOME}
import numpy as np
from rt_panoptic_ros.inference.backends import open_backend
from rt_panoptic_ros.model.bundle import read_bundle
backend = open_backend({backend!r}, read_bundle({str(small_bundle.path)!r}), (64, 96), "cpu")
print(backend.infer(np.zeros((64, 96, 3), np.uint8)).semantic_logits.shape)
"""
    if backend != "auto":
        pytest.importorskip(backend, reason=f"{backend} is not installed")
    run = python(code, XDG_CACHE_HOME=os.environ["XDG_CACHE_HOME"])
    assert (run.stdout, run.stderr) == ("(11, 8, 12)\n", "")


@pytest.mark.skipif(shutil.which("gcc") is None, reason="builds a driver with gcc")
@pytest.mark.parametrize("newer", [False, True])
def test_a_gpu_that_warp_cannot_use_is_told_with_driver_and_remedy(tmp_path: Path, newer: bool) -> None:
    major, minor = wp.get_cuda_toolkit_version()
    driver = major + 1 if newer else major - 1
    (tmp_path / "driver.c").write_text(DRIVER)
    command = ["gcc", "-shared", "-fPIC", f"-DVERSION={driver}060", "driver.c", "-o", "libcuda.so.1"]
    subprocess.run(command, cwd=tmp_path, check=True)
    ended = python(FIND, LD_LIBRARY_PATH=str(tmp_path))
    assert ended.returncode == 0, ended.stderr
    device, sentence = ended.stdout.splitlines()
    assert device == "cpu"
    assert f"found a driver for CUDA {driver}.6, " in sentence
    assert f"Warp {wp.config.version} for CUDA {major}.{minor}" in sentence
    older = f"pip install '{warp_runtime.CUDA_12_WARP}'" if driver >= 12 else "install a driver for CUDA 12 or newer"
    assert ("CUDA_VISIBLE_DEVICES" if newer else older) in sentence


def test_a_missing_driver_is_told_where_something_tells_of_a_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = warp_runtime.unusable_gpu.__wrapped__
    monkeypatch.setattr(warp_runtime, "_driver_version", lambda: None)
    monkeypatch.setattr(wp, "is_cuda_available", lambda: False)
    monkeypatch.setattr(warp_runtime, "_SIGNS_OF_DRIVER", (tmp_path / "nothing",))
    assert find() == ""
    monkeypatch.setattr(warp_runtime, "_SIGNS_OF_DRIVER", (tmp_path / "nothing", tmp_path))
    assert f"{tmp_path}, but no driver library" in find()


def test_jetpacks_extra_is_the_warp_that_the_remedy_names() -> None:
    assert f'jetpack6 = ["{warp_runtime.CUDA_12_WARP}"]' in (ROOT / "pyproject.toml").read_text()


def test_kernels_of_an_installation_are_taken_where_they_are_whole(tmp_path: Path) -> None:
    (tmp_path / "kernels.py").write_text(KERNELS, encoding="utf-8")
    run = python(LOAD, WARP_CACHE_PATH=str(tmp_path / "prefix/share/rt_panoptic_ros/kernels"), PYTHONPATH=str(tmp_path))
    assert run.returncode == 0, run.stderr
    told = "import logging, sys\nlogging.basicConfig(level=logging.INFO)"
    code = f"{told}\nsys.prefix = {str(tmp_path / 'prefix')!r}\n{LOAD}"
    for damaged, compiled in ((False, 0), (True, 1)):
        if damaged:
            (object_file,) = (tmp_path / "prefix").rglob("*.o")
            object_file.write_bytes(object_file.read_bytes()[:-1])
        cache = tmp_path / f"cache {damaged}"
        run = python(code, WARP_CACHE_PATH=str(cache), PYTHONPATH=str(tmp_path))
        assert run.returncode == 0, run.stderr
        assert ["compiled kernels in" in line for line in run.stderr.splitlines()] == [True] * compiled
        assert len(list(cache.rglob("*.o"))) == 1
        assert len(list(cache.rglob("*.cpp"))) == compiled  # which the compiler reads, and who loads does not
