# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The import rules of docs/architecture.md, and that the command line answers without heavy modules."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "rt_panoptic_ros"
MODULES = {path.relative_to(PACKAGE).as_posix(): path for path in sorted(PACKAGE.rglob("*.py"))}
SCRIPTS = [
    ROOT / "setup.py", ROOT / "scripts" / "draw_pictures", *sorted((ROOT / "scripts").glob("*.py")),
    *sorted((ROOT / "launch").glob("*.py")),
]  # fmt: skip

KNOWS = {
    "errors": "",
    "progress": "",
    "records": "",
    "resources": "errors",
    "files": "errors progress",
    "settings": "errors",
    "warp_runtime": "errors files progress resources",
    "model": "errors files records resources settings",
    "frames": "errors files records",
    "drawing": "errors records settings",
    "inference": "errors files frames model progress records resources settings warp_runtime",
    "network": "errors inference model progress records settings warp_runtime",
    "panoptic": "errors records settings warp_runtime",
    "pipeline": "errors inference model panoptic progress records settings",
    "labeller": "drawing frames model panoptic pipeline records settings",
    "geometry": "errors frames labeller panoptic warp_runtime",
    "datasets": "drawing errors files frames model records",
    "evaluation": "datasets drawing errors files frames model panoptic pipeline records settings",
    "detectors": "drawing errors evaluation files frames inference model records resources settings",
    "training": "datasets drawing errors evaluation files model network pipeline records resources settings",
    "benchmark": "errors inference model network panoptic pipeline records settings warp_runtime",
    "bags": "errors files frames geometry inference labeller model panoptic pipeline records resources settings",
    "viewing": "errors files frames model records settings",
    "ros": "errors files frames geometry records resources settings",
    "ros/node": "drawing errors files frames geometry labeller model panoptic pipeline progress records resources ros "
    "settings",
    "ros/tools": "drawing errors files frames model records resources ros ros/node settings viewing",
    "ros/doctor": "errors frames resources ros ros/node settings",
    "ros/benchmark": "benchmark errors files frames inference model pipeline records ros ros/node ros/tools settings",
    "ros/soak": "errors files frames model ros ros/benchmark ros/node settings",
    "commands": "bags benchmark datasets detectors drawing errors evaluation files frames geometry inference labeller "
    "model network panoptic pipeline progress records resources ros ros/benchmark ros/doctor ros/soak ros/tools "
    "settings training viewing",
    "cli": "commands errors",
    "__main__": "cli",
    "__init__": "",
}
"""What each room may import at run time besides itself; it stands behind what it knows, so there is no circle."""

OUTSIDE = {
    ("rclpy", "sensor_msgs", "std_msgs", "std_srvs", "diagnostic_msgs", "lifecycle_msgs", "builtin_interfaces",
     "rcl_interfaces", "launch", "launch_ros", "tf2_ros", "vision_msgs",
     "rt_panoptic_ros.msg"):
        ("ros", "ros/node", "ros/tools", "ros/doctor", "ros/benchmark", "ros/soak"),
    ("mcap", "rosbags"): ("bags",),
    ("rerun",): ("viewing",),
    ("torch",): ("network", "training"),
}  # fmt: skip
"""Packages, and the rooms that alone may import them."""


def imports(path: Path) -> set[str]:
    """Return all modules that a file imports at run time (what only type checkers see is left out)."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def room(name: str) -> str:
    """Return the room of a module, such as ros/node of ros/node/outputs.py; one in the root is its own."""
    *folders, file = name.split("/")
    return "/".join(folders) or file.removesuffix(".py")


ROOMS = {"rt_panoptic_ros." + name.removesuffix(".py").replace("/", "."): room(name) for name in MODULES}


def test_rooms_are_known_in_an_order_without_circles() -> None:
    assert set(KNOWS) == set(ROOMS.values())
    order = list(KNOWS)
    assert {name: known for name, known in KNOWS.items() if set(known.split()) - set(order[: order.index(name)])} == {}


@pytest.mark.parametrize("name", MODULES)
def test_import_rules(name: str) -> None:
    here = room(name)
    found = imports(MODULES[name])
    assert {ROOMS[module] for module in found & ROOMS.keys()} - {here, *KNOWS[here].split()} == set()
    for packages, allowed in OUTSIDE.items():
        used = {module for module in found for package in packages if f"{module}.".startswith(f"{package}.")}
        assert not used or here in allowed, f"only {', '.join(allowed)} may import {', '.join(packages)}"


def test_there_are_few_loose_modules() -> None:
    loose = [name for name in MODULES if "/" not in name and not name.startswith("__")]
    assert len(loose) <= 10
    assert len([name for name in MODULES if room(name) == "ros" and not name.endswith("__init__.py")]) <= 8


@pytest.mark.parametrize(
    ("module", "without"),
    [
        ("rt_panoptic_ros.cli", {"numpy", "cv2", "warp", "torch", "onnx", "onnxruntime", "rclpy"}),
        ("rt_panoptic_ros.pipeline", {"torch", "onnx", "onnxruntime", "rclpy"}),
        ("rt_panoptic_ros.inference.onnx_graph", {"torch"}),
        ("rt_panoptic_ros.ros.doctor.node_rules", {"rclpy", "sensor_msgs"}),
    ],
)
def test_heavy_modules_load_lazily(module: str, without: set[str]) -> None:
    code = f"import sys, {module}; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PACKAGE.parent
    )
    assert not without & set(loaded.stdout.split())


@pytest.mark.parametrize("path", [*MODULES.values(), *SCRIPTS], ids=lambda path: path.relative_to(ROOT).as_posix())
def test_text_files_are_utf8_in_any_locale(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    assert [f"line {call.lineno}: {ast.unparse(call)}" for call in calls if _takes_the_locales_encoding(call)] == []


def _takes_the_locales_encoding(call: ast.Call) -> bool:
    """Whether a call reads or writes text without saying in which encoding."""
    *_, name = ast.unparse(call.func).split(".")
    words = {word.arg: ast.unparse(word.value) for word in call.keywords}
    if name in ("read_text", "write_text"):
        return "encoding" not in words
    if name in ("run", "Popen", "check_output") and words.keys() & {"text", "universal_newlines"}:
        return "encoding" not in words
    if name not in ("open", "fdopen", "TemporaryFile", "NamedTemporaryFile", "TextIOWrapper"):
        return False
    modes = [
        word for word in (*map(ast.unparse, call.args), words.get("mode", "")) if re.fullmatch(r"'[rwxabt+]+'", word)
    ]
    mode = modes[0] if modes else "'w+b'" if name.endswith("TemporaryFile") else "'r'"
    of_a_file = bool(modes) or isinstance(call.func, ast.Name) or name != "open"  # not a method such as reader.open()
    return of_a_file and "b" not in mode and "encoding" not in words


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("path.read_text()", True), ("path.read_text(errors='replace')", True), ("path.write_text(x)", True),
        ("path.write_text(x, encoding='utf-8')", False), ("open(path)", True), ("open(path, 'rb')", False),
        ("path.open('w')", True), ("path.open('wb')", False), ("path.open(mode='a', encoding='utf-8')", False),
        ("reader.open()", False), ("os.fdopen(3)", True), ("os.fdopen(3, 'r+b')", False),
        ("NamedTemporaryFile()", False),
        ("NamedTemporaryFile('w')", True), ("subprocess.run(x, text=True)", True), ("subprocess.run(x)", False),
    ],
)  # fmt: skip
def test_that_rule_sees(text: str, wrong: bool) -> None:
    call = ast.parse(text, mode="eval").body
    assert isinstance(call, ast.Call)
    assert _takes_the_locales_encoding(call) == wrong


def test_files_stay_readable() -> None:
    """Around 200 to 300 lines with one purpose; more than 400 is a file to divide."""
    assert {
        name: lines
        for name, path in MODULES.items()
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > 400
    } == {}
