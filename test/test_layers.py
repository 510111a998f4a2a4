"""The import rules of docs/architecture.md, and that the command line answers without heavy modules."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "rt_panoptic_ros"
MODULES = {path.relative_to(PACKAGE).as_posix(): path for path in sorted(PACKAGE.rglob("*.py"))}
ROS = {
    "rclpy", "sensor_msgs", "std_msgs", "std_srvs", "diagnostic_msgs", "lifecycle_msgs", "builtin_interfaces",
    "rcl_interfaces", "cv_bridge", "launch", "launch_ros", "vision_msgs",
}  # fmt: skip


def imports(path: Path) -> set[str]:
    """Return all modules that a file imports at run time (what only type checkers see is left out)."""
    tree = ast.parse(path.read_text())
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
    if room not in ("bags", "message_layout.py"):
        assert not uses(name, "mcap", "rosbags"), "only bags/ and the stand-in for cv_bridge import rosbags"
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


def test_files_stay_readable() -> None:
    """Around 200 to 300 lines with one purpose; more than 450 is a room to divide."""
    assert {name: lines for name, path in MODULES.items() if (lines := len(path.read_text().splitlines())) > 450} == {}
