# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Engines really built by TensorRT-RTX, which needs no GPU for it: parsed, built, cached, refused."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import onnx
import pytest

from rt_panoptic_ros.cli import main
from rt_panoptic_ros.errors import CancelledError, UnavailableError
from rt_panoptic_ros.inference.onnx_export import exported_onnx
from rt_panoptic_ros.inference.tensorrt_runtime import BuildOptions, Runtime, load_runtime
from rt_panoptic_ros.model.architecture import NetworkConfig
from rt_panoptic_ros.model.bundle import ModelBundle
from rt_panoptic_ros.model.class_table import load_class_table
from rt_panoptic_ros.model.untrained import make_untrained_bundle

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None and importlib.util.find_spec("tensorrt_rtx_libs") is None,
    reason="TensorRT-RTX is not installed",
)

GENERATIONS = ("8.6", "8.9", "12.0")
ONE = ("8.9",)


@pytest.fixture(scope="module")
def rtx() -> Runtime:
    return load_runtime("tensorrt_rtx")


@pytest.mark.parametrize(
    ("precision", "capabilities"),
    [
        ("fp16", GENERATIONS),
        ("fp32", ONE),
        ("int8", ONE),
        pytest.param("fp32", GENERATIONS, marks=pytest.mark.exhaustive),
        pytest.param("int8", GENERATIONS, marks=pytest.mark.exhaustive),
    ],
)
def test_the_shipped_model(
    precision: str, capabilities: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    arguments = ["build-engine", "--model", "camvid_lite0", "--precision", precision, "--runtime", "tensorrt_rtx",
                 "--compute-capability", *capabilities, "--out", str(tmp_path)]  # fmt: skip
    assert main(arguments) == 0
    assert capsys.readouterr().out.count("built: ") == len(capabilities)
    assert len({path.read_bytes() for path in tmp_path.glob("*.engine")}) == len(capabilities)
    assert caplog.text.count("not for convolutions") == (precision == "int8")
    assert main(arguments) == 0
    assert capsys.readouterr().out.count("found: ") == len(capabilities)


@pytest.mark.parametrize("precision", ["float32", "float16"])
@pytest.mark.parametrize("capabilities", [ONE, pytest.param(GENERATIONS, marks=pytest.mark.exhaustive)])
def test_resnet50_at_full_size(precision: str, capabilities: tuple[str, ...], tmp_path: Path, rtx: Runtime) -> None:
    bundle = make_untrained_bundle(
        tmp_path / "r50", network=NetworkConfig("resnet50"), classes=load_class_table("cityscapes"), size=None, seed=1
    )
    graph = exported_onnx(bundle, (1024, 2048), precision, "tensorrt")
    shares: list[float] = []
    engines = [rtx.build(graph, BuildOptions(capability), shares.append) for capability in capabilities]
    assert len(set(engines)) == len(capabilities)
    assert min(map(len, engines)) > 50e6
    assert shares and all(0 <= share <= 1 for share in shares)  # noqa: PT018


def test_a_build_can_be_called_off(rtx: Runtime, small_bundle: ModelBundle) -> None:
    def tell(share: float) -> None:
        raise CancelledError("the node ends")

    graph = exported_onnx(small_bundle, (64, 96), "float16", "tensorrt")
    with pytest.raises(CancelledError, match="the node ends"):
        rtx.build(graph, BuildOptions("8.9"), tell)
    assert rtx.build(graph, BuildOptions("8.9"), lambda share: None)


def test_a_wrong_compute_capability_is_one_sentence(rtx: Runtime, small_bundle: ModelBundle) -> None:
    graph = exported_onnx(small_bundle, (64, 96), "float16", "tensorrt")
    with pytest.raises(UnavailableError, match=r"builds for \(7.5, .*12.1\), got 8.7.*on the machine itself"):
        rtx.build(graph, BuildOptions("8.7"), lambda share: None)


def test_a_layer_that_is_not_supported_is_named(rtx: Runtime, small_bundle: ModelBundle) -> None:
    graph = onnx.load_from_string(exported_onnx(small_bundle, (64, 96), "float32", "tensorrt"))
    (node,) = (node for node in graph.graph.node if node.name == "centered")
    node.op_type = "Det"
    del node.input[1:]
    with pytest.raises(UnavailableError, match=r"refused layer centered \(Det\).*choose another precision"):
        rtx.build(graph.SerializeToString(), BuildOptions("8.9"), lambda share: None)


def test_a_plan_that_is_none_does_not_open(rtx: Runtime) -> None:
    assert rtx.open(b"no engine at all" * 100, "cpu") is None
    assert rtx.last_error


def test_an_engine_that_cannot_be_kept_is_an_error_here(
    small_bundle: ModelBundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("in the way")
    arguments = ["build-engine", "--model", str(small_bundle.path), "--size", "64x96", "--runtime", "tensorrt_rtx",
                 "--compute-capability", "8.9", "--out"]  # fmt: skip
    assert main([*arguments, str(tmp_path / "file")]) == 1
    assert "expected to keep the engine in" in capsys.readouterr().err
    assert main([*arguments, str(tmp_path), "--workspace", "64"]) == 0
    assert main([*arguments, str(tmp_path)]) == 0
    assert "found: " in capsys.readouterr().out  # one built in less memory serves as well
