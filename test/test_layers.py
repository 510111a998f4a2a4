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
SCRIPTS = [ROOT / "setup.py", ROOT / "scripts" / "draw_pictures", *sorted((ROOT / "launch").glob("*.py"))]
ROS = {
    "rclpy", "sensor_msgs", "std_msgs", "std_srvs", "diagnostic_msgs", "lifecycle_msgs", "builtin_interfaces",
    "rcl_interfaces", "cv_bridge", "launch", "launch_ros", "vision_msgs",
}  # fmt: skip


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


def uses(name: str, *targets: str) -> set[str]:
    return {module for module in imports(MODULES[name]) for target in targets if f"{module}.".startswith(f"{target}.")}


@pytest.mark.parametrize("name", MODULES)
def test_import_rules(name: str) -> None:
    room = name.split("/", maxsplit=1)[0]
    if room != "ros":
        assert not uses(name, *ROS, "rt_panoptic_ros.msg"), "only ros/ imports ROS"
    if room != "bags":
        assert not uses(name, "mcap", "rosbags"), "only bags/ imports mcap and rosbags"
    if room not in ("network", "training") and name not in ("inference/torch_backend.py", "benchmark/plain.py"):
        assert not uses(name, "torch"), "only network/, training/, the torch backend and the plain twin import torch"
    if room == "inference":
        assert not uses(name, "rt_panoptic_ros.panoptic"), "inference does not know panoptic"
    if room == "panoptic":
        assert not uses(name, "rt_panoptic_ros.inference"), "panoptic does not know inference"
    if room in ("inference", "panoptic"):
        assert not uses(name, "rt_panoptic_ros.pipeline"), "stages do not know the pipeline"
    if room not in ("training", "benchmark", "commands"):
        assert not uses(name, "rt_panoptic_ros.training"), "nothing at run time imports training"
    if room not in ("benchmark", "commands") and not name.startswith("ros/latency_benchmark"):
        assert not uses(name, "rt_panoptic_ros.benchmark"), "nothing but the command line knows the benchmarks"
    if room not in ("ros", "commands", "demo.py"):
        assert not uses(name, "rt_panoptic_ros.ros"), "nothing below ros/ knows it"
    if room not in ("bags", "commands"):
        assert not uses(name, "rt_panoptic_ros.bags"), "nothing but the command line knows the bags"


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
    """Around 200 to 300 lines with one purpose; more than 450 is a room to divide."""
    assert {
        name: lines
        for name, path in MODULES.items()
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > 450
    } == {}
