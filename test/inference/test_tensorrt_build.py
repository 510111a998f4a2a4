"""Engines really built by TensorRT-RTX, which needs no GPU for it: parsed, built, cached, refused."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import onnx
import pytest

from rt_panoptic_ros.cli import main
from rt_panoptic_ros.errors import CancelledError, InvalidInputError, UnavailableError
from rt_panoptic_ros.inference.onnx_export import exported_onnx
from rt_panoptic_ros.inference.tensorrt_runtime import BuildOptions, Runtime, load_runtime
from rt_panoptic_ros.model.architecture import NetworkConfig
from rt_panoptic_ros.model.bundle import read_bundle
from rt_panoptic_ros.model.class_table import load_class_table
from rt_panoptic_ros.model.untrained import make_untrained_bundle

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None and importlib.util.find_spec("tensorrt_rtx_libs") is None,
    reason="TensorRT-RTX is not installed",
)

CAPABILITIES = ("8.6", "8.9", "12.0")


@pytest.fixture(scope="module")
def rtx() -> Runtime:
    return load_runtime("tensorrt_rtx")


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_the_shipped_model_for_three_generations(
    precision: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["build-engine", "--model", "camvid_lite0", "--precision", precision, "--runtime", "tensorrt_rtx",
                 "--compute-capability", *CAPABILITIES, "--out", str(tmp_path)]  # fmt: skip
    assert main(arguments) == 0
    assert capsys.readouterr().out.count("built: ") == 3
    assert len({path.read_bytes() for path in tmp_path.glob("*.engine")}) == 3
    assert main(arguments) == 0
    assert capsys.readouterr().out.count("found: ") == 3


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_resnet50_at_full_size(precision: str, tmp_path: Path, rtx: Runtime) -> None:
    bundle = make_untrained_bundle(
        tmp_path / "r50", network=NetworkConfig("resnet50"), classes=load_class_table("cityscapes"), size=None, seed=1
    )
    graph = exported_onnx(bundle, (1024, 2048), precision, "tensorrt")
    shares: list[float] = []
    engines = [rtx.build(graph, BuildOptions(capability), shares.append) for capability in CAPABILITIES]
    assert len(set(engines)) == 3
    assert min(map(len, engines)) > 50e6
    assert shares and all(0 <= share <= 1 for share in shares)  # noqa: PT018


def test_a_build_can_be_called_off(rtx: Runtime) -> None:
    def tell(share: float) -> None:
        raise CancelledError("the node ends")

    graph = exported_onnx(read_bundle("camvid_lite0"), (64, 96), "float16", "tensorrt")
    with pytest.raises(CancelledError, match="the node ends"):
        rtx.build(graph, BuildOptions("8.9"), tell)
    assert rtx.build(graph, BuildOptions("8.9"), lambda share: None)


def test_a_wrong_compute_capability_is_one_sentence(rtx: Runtime) -> None:
    graph = exported_onnx(read_bundle("camvid_lite0"), (64, 96), "float16", "tensorrt")
    with pytest.raises(InvalidInputError, match=r"builds for \(7.5, .*12.1\), got 8.7.*on the machine itself"):
        rtx.build(graph, BuildOptions("8.7"), lambda share: None)


def test_a_layer_that_is_not_supported_is_named(rtx: Runtime) -> None:
    graph = onnx.load_from_string(exported_onnx(read_bundle("camvid_lite0"), (64, 96), "float32", "tensorrt"))
    (node,) = (node for node in graph.graph.node if node.name == "centered")
    node.op_type = "Det"
    del node.input[1:]
    with pytest.raises(UnavailableError, match=r"refused layer centered \(Det\).*choose another precision"):
        rtx.build(graph.SerializeToString(), BuildOptions("8.9"), lambda share: None)


def test_a_plan_that_is_none_does_not_open(rtx: Runtime) -> None:
    assert rtx.open(b"no engine at all" * 100) is None
    assert rtx.last_error


def test_an_engine_that_cannot_be_kept_is_an_error_here(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("in the way")
    arguments = ["build-engine", "--model", "camvid_lite0", "--size", "64x96", "--runtime", "tensorrt_rtx",
                 "--compute-capability", "8.9", "--out"]  # fmt: skip
    assert main([*arguments, str(tmp_path / "file")]) == 1
    assert "expected to keep the engine in" in capsys.readouterr().err
    assert main([*arguments, str(tmp_path), "--workspace", "64"]) == 0
    assert main([*arguments, str(tmp_path)]) == 0
    assert "found: " in capsys.readouterr().out  # one built in less memory serves as well
