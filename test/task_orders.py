# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Runs the tasks of kernels on the CPU as a GPU may: four at a time, or in other orders.

In a process that has called `install`, g++ compiles kernels in place of Warp's own compiler, with ThreadSanitizer if
`TASK_SANITIZER` is 1, and `_RUNNER` takes the place of the loop over their tasks. As a plugin of pytest (`-p
task_orders`) this has each test run once in each order that `TASK_ORDERS` names.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest
import warp as wp
from warp._src import build, codegen, context

from rt_panoptic_ros import warp_runtime
from rt_panoptic_ros.panoptic import launching

ORDERS = ("plain", "threads", "reversed", "permuted", "warps")
"""From the first; four at a time; from the last; like dice; the first of every 32, then the second of every 32, ..."""

THREADS = 4
"""At a time, in order `threads`. A block has as many tasks then, one behind the other, so one block runs at a time."""

_RUNNER = r"""
#include <pthread.h>
typedef void (*Task)(unsigned long, void*);
static const int THREADS = 4;
static int order = 0;
static pthread_barrier_t together;
static bool side_by_side = false;
struct Share { Task task; unsigned long tasks; void* arguments; int first; };
static void* run_share(void* pointer) {
    const Share* share = (const Share*)pointer;
    pthread_barrier_wait(&together);  // so that none has ended before another begins
    for (unsigned long i = share->first; i < share->tasks; i += THREADS)
        share->task(i, share->arguments);
    return nullptr;
}
extern "C" void choose_order(int chosen) { order = chosen; }
extern "C" void sync_block_of_tasks() { if (side_by_side) pthread_barrier_wait(&together); }
extern "C" void run_tasks(Task task, unsigned long tasks, void* arguments) {
    if (order != 1 || tasks == 1) {
        const unsigned long warps = (tasks + 31) / 32;
        for (unsigned long k = 0; k < (order == 4 ? 32 * warps : tasks); ++k) {
            const unsigned long in_orders[] = {
                k, k, tasks - 1 - k, (k * 2654435761ul + 12345) % tasks, k % warps * 32 + k / warps};
            if (in_orders[order] < tasks)
                task(in_orders[order], arguments);
        }
        return;
    }
    pthread_barrier_init(&together, nullptr, THREADS);
    side_by_side = true;
    pthread_t threads[THREADS];
    Share shares[THREADS];
    for (int t = 0; t < THREADS; ++t) {
        shares[t] = {task, tasks, arguments, t};
        pthread_create(&threads[t], nullptr, run_share, &shares[t]);
    }
    for (int t = 0; t < THREADS; ++t)
        pthread_join(threads[t], nullptr);
    side_by_side = false;
    pthread_barrier_destroy(&together);
}
"""

_LOOP = """
    for (size_t task_index = 0; task_index < dim->size; ++task_index)
    {{
        {name}_cpu_kernel_forward<wp_linear_contiguous>(*dim, task_index, _wp_args);
    }}
"""
_TASKS = """
    struct Arguments {{ decltype(dim) bounds; decltype(_wp_args) values; }} arguments = {{dim, _wp_args}};
    run_tasks([](unsigned long task_index, void* pointer) {{
        const Arguments* given = (const Arguments*)pointer;
        {name}_cpu_kernel_forward<wp_linear_contiguous>(*given->bounds, task_index, given->values);
    }}, dim->size, &arguments);
"""
_HEADER = """
#include <math.h>
#include <string.h>
extern "C" void run_tasks(void (*)(unsigned long, void*), unsigned long, void*);
extern "C" void sync_block_of_tasks();
#define RT_PANOPTIC_SYNC_BLOCK sync_block_of_tasks()
template <typename T, typename Change> inline T atomically(T* place, Change change) {
    T old, now;
    __atomic_load(place, &old, __ATOMIC_RELAXED);
    do
        change(now = old);
    while (!__atomic_compare_exchange(place, &old, &now, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
    return old;
}
"""
_INCLUDED = """
#define WP_TILE_BLOCK_DIM {block_dim}
#define WP_NO_CRT
#include "builtin.h"
#include "deterministic.h"
"""
_PLAIN_ATOMIC = re.compile(r"    (\w+) old = (buf\[0\]|\*address);\n((?:.*\n){1,3}?)    return old;")
"""How Warp's CPU code has atomic operations, as one thread runs it."""

_SANITIZER = ("-fsanitize=thread", "-g1") if os.environ.get("TASK_SANITIZER") == "1" else ()
_COMPILE = ("g++", "-std=c++17", "-O1", "-fPIC", "-shared", "-w", *_SANITIZER)


def why_impossible(folder: Path) -> str:
    """Return why nothing can be compiled or run for ThreadSanitizer here, or nothing if it can."""
    if shutil.which("g++") is None:
        return "no g++"
    source, program = folder / "probe.cc", folder / "probe"
    source.write_text("int main() { return 0; }", encoding="utf-8")
    for command in (["g++", "-fsanitize=thread", str(source), "-o", str(program)], [str(program)]):
        done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False)
        if done.returncode:
            return f"{command[0]}: {done.stderr.strip()[-200:]}"
    return ""


def environment(cache: Path, reports: Path | None) -> dict[str, str]:
    """Return the variables of a process that calls `install`.

    Args:
        cache: Folder for what it compiles.
        reports: ThreadSanitizer's, with the process's number behind a point; None to do without it.
    """
    test = Path(__file__).parent
    variables = {**os.environ, "TASK_CACHE": str(cache), "PYTHONPATH": os.pathsep.join([str(test.parent), str(test)])}
    if reports is not None:
        command = ["g++", "-print-file-name=libtsan.so"]
        library = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=True).stdout.strip()
        options = f"log_path={reports} exitcode=0 report_signal_unsafe=0"
        variables |= {"LD_PRELOAD": str(Path(library).resolve()), "TSAN_OPTIONS": options, "TASK_SANITIZER": "1"}
    return variables


@functools.cache
def _folder() -> Path:
    """Return where what is compiled is kept: another place for each version of it all."""
    compiler = subprocess.run(["g++", "--version"], capture_output=True, check=True).stdout
    what = (compiler, wp.__version__, _COMPILE, Path(__file__).read_text(encoding="utf-8"))
    folder = Path(os.environ["TASK_CACHE"], hashlib.sha256(repr(what).encode()).hexdigest()[:12])
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _patched_headers() -> Path:
    """Return a folder with Warp's headers whose atomic operations are atomic."""
    headers = _folder() / "native"
    if not headers.exists():
        made = _folder() / f"native_{os.getpid()}"
        shutil.copytree(Path(wp.__file__).parent / "native", made, ignore=shutil.ignore_patterns("*.cu", "*.cpp"))
        atomic = r"    return atomically(&\2, [&](\1& now) { const \1 old = now; \3    });"
        text, found = _PLAIN_ATOMIC.subn(
            lambda match: re.sub(
                r"(?<!&)(buf\[0\]|\*address)(?!,)", "now", match.expand(atomic).replace("&*address", "address")
            ),
            (made / "builtin.h").read_text(encoding="utf-8"),
        )
        assert found > 10
        (made / "builtin.h").write_text(text, encoding="utf-8")
        # With the C library's functions, and compiled once, as modules without bfloat16 take them: they take 2 s.
        included = _INCLUDED.format(block_dim=1).replace("#define WP_NO_CRT\n", "")
        (made / "tasks.h").write_text(_HEADER + included, encoding="utf-8")
        header = [*_COMPILE, "-DWP_NO_BFLOAT16=", "-x", "c++-header", str(made / "tasks.h")]
        subprocess.run([*header, "-o", str(made / "tasks.h.gch")], check=True)
        made.rename(headers)
    return headers


def _build(object_path: str, source_path: str, **_: Any) -> None:
    """In place of Warp's compiler, whose object file becomes a library."""
    subprocess.run([*_COMPILE, "-I", str(_patched_headers()), source_path, "-o", object_path], check=True)


class _Libraries:
    """In place of Warp's linker."""

    def __init__(self, llvm: Any) -> None:
        self._llvm = llvm
        self._loaded: dict[bytes, ctypes.CDLL] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._llvm, name)

    def wp_load_obj(self, path: bytes, handle: bytes, *_: Any) -> int:
        self._loaded[handle] = ctypes.CDLL(path.decode())
        return 0

    def wp_lookup(self, handle: bytes, name: bytes) -> int:
        return ctypes.cast(getattr(self._loaded[handle], name.decode()), ctypes.c_void_p).value or 0

    def wp_unload_obj(self, handle: bytes) -> None:
        pass  # graphs may still hold its kernels


def install() -> None:
    """Have Warp compile and run all kernels of this process so, in the plain order at first."""
    wp.config.kernel_cache_dir = str(_folder() / "kernels")
    wp.config.log_level = wp.LOG_WARNING
    wp.init()
    with tempfile.TemporaryDirectory() as folder:
        source, library = Path(folder, "runner.cc"), Path(folder, "runner.so")
        source.write_text(_RUNNER, encoding="utf-8")
        subprocess.run([*_COMPILE, str(source), "-o", str(library)], check=True)
        ctypes.CDLL(str(library), ctypes.RTLD_GLOBAL)
    assert codegen.cpu_module_template_forward.count(_LOOP) == 1
    codegen.cpu_module_template_forward = codegen.cpu_module_template_forward.replace(_LOOP, _TASKS)
    assert codegen.cpu_module_header.count(_INCLUDED) == 1
    codegen.cpu_module_header = codegen.cpu_module_header.replace(_INCLUDED, '#include "tasks.h"\n')
    build.build_cpu = _build
    warp_runtime._take_installed = lambda _cache, _module: None  # which Warp's own compiler made
    context.runtime.llvm = _Libraries(context.runtime.llvm)


def choose_order(order: str) -> None:
    """Run all tasks in one of `ORDERS` from now on."""
    ctypes.CDLL(None).choose_order(ORDERS.index(order))


def threads_of_blocks(order: str) -> int:
    """Return `launching.CPU_BLOCK_THREADS` for an order: where tasks don't run side by side, they can't wait either."""
    return THREADS if order == "threads" else 1


def pytest_configure() -> None:
    """Begin a process whose tests run in other orders."""
    install()


@pytest.fixture(autouse=True, params=os.environ.get("TASK_ORDERS", "plain").split(","))
def _task_order(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launching, "MAX_BANDS", 1)
    monkeypatch.setattr(launching, "CPU_BLOCK_THREADS", threads_of_blocks(request.param), raising=False)
    choose_order(request.param)
