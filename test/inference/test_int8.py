# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Precision int8: the calibrated graph against the float one, its ranges in the bundle, and what is refused."""

from __future__ import annotations

import importlib.util
import json
from collections import Counter, defaultdict
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
import pytest
from coco_cases import write_instances
from fake_tensorrt import take_tensorrts_place
from onnx import numpy_helper

from rt_panoptic_ros.cli import main
from rt_panoptic_ros.errors import InvalidInputError, UnavailableError
from rt_panoptic_ros.inference import onnx_export
from rt_panoptic_ros.inference.backends import open_backend
from rt_panoptic_ros.inference.calibration import calibrate
from rt_panoptic_ros.inference.onnx_export import exported_onnx
from rt_panoptic_ros.inference.onnx_graph import build_onnx
from rt_panoptic_ros.model.architecture import NetworkConfig
from rt_panoptic_ros.model.bundle import RANGES, ModelBundle, read_bundle, write_ranges
from rt_panoptic_ros.model.class_table import load_class_table
from rt_panoptic_ros.model.untrained import make_untrained_bundle
from scripts.int8_loss import int8_loss

SIZE = (96, 160)


def picture(seed: int) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (SIZE[0] // 8, SIZE[1] // 8, 3), np.uint8)
    return cv2.resize(coarse, SIZE[::-1], interpolation=cv2.INTER_CUBIC)


def bundle_of(network: NetworkConfig, path: Path) -> ModelBundle:
    return make_untrained_bundle(path, network=network, classes=load_class_table("camvid"), size=SIZE, seed=5)


@pytest.mark.parametrize(
    "network",
    [
        NetworkConfig("resnet18", 16, 16, 8, tower_depth=1),
        NetworkConfig("resnet50", 16, 16, 8, tower_depth=1, towers=1, levelness=False),
        NetworkConfig("efficientnet_lite0", 16, 16, 16, tower_depth=2),
    ],
    ids=str,
)
def test_int8_stays_near_float(network: NetworkConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = bundle_of(network, tmp_path / "m")
    write_ranges(bundle, calibrate(bundle, [picture(seed) for seed in range(6)]), "pictures made for a test")
    exact = open_backend("onnxruntime", bundle, SIZE, "cpu").infer(picture(9))
    take_tensorrts_place(monkeypatch)
    for name in ("onnxruntime", "openvino", "tensorrt"):
        if importlib.util.find_spec(name) is None and name != "tensorrt":
            continue
        rounded = open_backend(name, bundle, SIZE, "cpu", "int8").infer(picture(9))
        for mine, other in zip(
            (rounded.semantic_logits, *rounded.box_offsets), (exact.semantic_logits, *exact.box_offsets), strict=True
        ):
            got, want = mine.numpy(), other.numpy()
            assert not np.array_equal(got, want)
            assert np.abs(got - want).mean() < 0.15 * want.std() + 0.02 * np.abs(want).mean()


def test_the_backend_really_computes_in_8_bits(tmp_path: Path) -> None:
    bundle = bundle_of(NetworkConfig("efficientnet_lite0", 16, 16, 16, tower_depth=1), tmp_path / "m")
    ranges = calibrate(bundle, [picture(0)])
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 3
    graph = build_onnx(bundle.network, bundle.input, bundle.load_weights(), SIZE, ranges=ranges)
    onnxruntime.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])
    import onnx

    operators = [node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node]
    floating = sum(operator.endswith("Conv") and not operator.startswith("QLinear") for operator in operators)
    assert operators.count("QLinearConv") == sum(node.op_type == "Conv" for node in graph.graph.node) - floating
    # The predictors of five levels, the two sums over them, and EfficientNet's stem and first block.
    assert floating == 5 * 4 + 2 + 3


@pytest.mark.parametrize("network", ["resnet18", "efficientnet_lite0"])
def test_no_sum_of_two_products_leaves_16_bits_where_that_is_asked_for(network: str, tmp_path: Path) -> None:
    bundle = bundle_of(NetworkConfig(network, 16, 16, 16, tower_depth=1), tmp_path / "m")
    ranges = defaultdict(lambda: (-1.0, 1.0))

    def constants(**how: object) -> dict[str, np.ndarray]:
        graph = build_onnx(bundle.network, bundle.input, bundle.load_weights(), SIZE, **how).graph
        return {item.name: numpy_helper.to_array(item) for item in graph.initializer}

    exact, sums, errors = constants(), [], []
    for narrow in (False, True):
        values = constants(ranges=ranges, narrow_sums=narrow)
        weights = {name: value.astype(int) for name, value in values.items() if name.endswith(".weight.q")}
        weights = {name: value for name, value in weights.items() if value.shape[1] > 1}
        paired = {name: value for name, value in weights.items() if value.shape[1] % 2 == 0}
        sums.append(max(np.abs(value[:, 0::2] + value[:, 1::2]).max() for value in paired.values()))
        errors.append([])
        for name, value in sorted(weights.items()):
            want = exact[name.removesuffix(".q")]
            got = value * values[name.replace(".q", ".scale")][:, None, None, None]
            errors[-1].append(np.sqrt(np.square(got - want).mean() / np.square(want).mean()))
        if narrow:
            assert len(weights) - len(paired) == (network == "resnet18")  # whose first convolution has three inputs
            assert all(np.abs(value).max() <= 64 for name, value in weights.items() if name not in paired)
    assert sums[0] > 200
    assert sums[1] <= 128
    assert max(errors[1]) < 2.5 * max(errors[0]) < 0.05


def test_the_graph_is_made_for_the_processor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = bundle_of(NetworkConfig("resnet18", 16, 16, 8, tower_depth=1), tmp_path / "m")
    write_ranges(bundle, calibrate(bundle, [picture(0)]), "a picture")
    made = {}
    for narrow in (False, True):
        monkeypatch.setattr(onnx_export, "adds_in_16_bits", lambda narrow=narrow: narrow)
        made[narrow] = [exported_onnx(bundle, SIZE, precision) for precision in ("int8", "float32")]
    assert made[False][0] != made[True][0]
    assert made[False][1] == made[True][1]
    assert exported_onnx(bundle, SIZE, "int8", "tensorrt") not in made[True]


def test_the_loss_against_float_is_counted_in_other_lights_too(tmp_path: Path) -> None:
    bundle = bundle_of(NetworkConfig("resnet18", 16, 16, 8, tower_depth=1), tmp_path / "m")
    write_ranges(bundle, calibrate(bundle, [picture(0)]), "a picture")
    losses = int8_loss(str(bundle.path), [picture(1), picture(2)], "onnxruntime")
    assert list(losses) == ["as it is", "dark", "haze", "evening"]
    assert all(0 < loss.differing < 0.3 and 0.2 < loss.mean_iou < 1 for loss in losses.values())


@pytest.mark.parametrize("network", ["resnet18", "resnet50", "efficientnet_lite0"])
def test_tensorrt_gets_sums_that_a_convolution_takes_over(network: str, tmp_path: Path) -> None:
    bundle = bundle_of(NetworkConfig(network, 16, 16, 16, tower_depth=1), tmp_path / "m")
    ranges = defaultdict(lambda: (-1.0, 1.0))
    graph = build_onnx(
        bundle.network, bundle.input, bundle.load_weights(), SIZE, ranges=ranges, dialect="tensorrt"
    ).graph
    maker = {output: node for node in graph.node for output in node.output}
    users = Counter(name for node in graph.node for name in node.input)
    sums = [node for node in graph.node if node.op_type == "Add" and node.name != "centered"]
    assert len(sums) == {"resnet18": 8, "resnet50": 16, "efficientnet_lite0": 9}[network] + 2  # and of the pyramid
    for node in sums:
        convolution, other = (maker[name] for name in node.input)
        assert (convolution.op_type, other.op_type) == ("Conv", "DequantizeLinear")
        assert users[node.input[0]] == 1
    assert all(users[node.output[0]] for node in graph.node if node.op_type == "DequantizeLinear")


def test_ranges_do_not_depend_on_the_size(tmp_path: Path) -> None:
    bundle = bundle_of(NetworkConfig("resnet18", 16, 16, 8, tower_depth=1), tmp_path / "m")
    write_ranges(bundle, calibrate(bundle, [picture(0)]), "a picture")
    paths = [exported_onnx(bundle, size, "int8") for size in (SIZE, (64, 96))]
    assert paths[0] != paths[1] != exported_onnx(bundle, (64, 96), "float32")


def test_the_command_calibrates_a_bundle(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = bundle_of(NetworkConfig("resnet18", 16, 16, 8, tower_depth=1), tmp_path / "m")
    frames = tmp_path / "frames"
    frames.mkdir()
    for seed in range(5):
        cv2.imwrite(str(frames / f"{seed}.png"), picture(seed))
    assert main(["calibrate", "--model", str(bundle.path), "--source", str(frames), "--frames", "3", "--origin",
                 "noise"]) == 0  # fmt: skip
    assert "ranges" in capsys.readouterr().out
    assert json.loads((bundle.path / RANGES).read_text())["origin"] == "noise"
    ranges = bundle.load_ranges()
    assert all(low <= high for low, high in ranges.values())
    assert main(["predict", "--model", str(bundle.path), "--source", str(frames / "0.png"), "--precision", "int8",
                 "--out", str(tmp_path / "out")]) == 0  # fmt: skip
    assert "in int8 on cpu" in capsys.readouterr().out


def test_the_command_calibrates_with_a_dataset(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = bundle_of(NetworkConfig("resnet18", 16, 16, 8, tower_depth=1), tmp_path / "m")
    images = {f"{seed}.png": tmp_path / "images" / f"{seed}.png" for seed in range(5)}
    write_instances(tmp_path / "result.json", images, [])
    words = ["calibrate", "--model", str(bundle.path), "--dataset", "coco_instances", "--frames", "2"]
    assert main([*words, "--root", str(tmp_path), "--split", "default"]) == 0
    assert json.loads((bundle.path / RANGES).read_text())["origin"] == "2 frames of coco_instances default"
    capsys.readouterr()
    assert main(words) == 1
    assert "expected --root and --split of dataset coco_instances" in capsys.readouterr().err


def test_what_int8_needs_is_said(tmp_path: Path) -> None:
    bundle = bundle_of(NetworkConfig("resnet18", 16, 16, 8, tower_depth=1), tmp_path / "m")
    with pytest.raises(InvalidInputError, match="found none: make it with `rt-panoptic calibrate"):
        open_backend("onnxruntime", bundle, SIZE, "cpu", "int8")
    (bundle.path / RANGES).write_text("{}")
    with pytest.raises(InvalidInputError, match="expected ranges as JSON"):
        open_backend("onnxruntime", bundle, SIZE, "cpu", "int8")
    other = make_untrained_bundle(tmp_path / "o", network=bundle.network, classes=bundle.classes, size=SIZE, seed=6)
    write_ranges(other, calibrate(bundle, [picture(0)]), "a picture")
    (bundle.path / RANGES).write_text((other.path / RANGES).read_text())
    with pytest.raises(InvalidInputError, match="of this bundle's weights"):
        open_backend("onnxruntime", read_bundle(bundle.path), SIZE, "cpu", "int8")
    with pytest.raises(InvalidInputError, match="precision to be one of auto, float32, float16, int8"):
        open_backend("onnxruntime", bundle, SIZE, "cpu", "int4")
    with pytest.raises(InvalidInputError, match="at least one frame"):
        calibrate(bundle, [])


def test_damaged_ranges_are_refused_and_ones_without_a_digest_are_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bundle = make_untrained_bundle(
        tmp_path / "m", network=NetworkConfig("resnet18", 16, 16, 8, tower_depth=1),
        classes=load_class_table("camvid"), size=None, seed=1,
    )  # fmt: skip
    path = write_ranges(bundle, {"a": (-1.5, 2.0), "b": (0.0, 6.0)}, "made up")
    content = path.read_text()
    assert bundle.load_ranges() == {"a": (-1.5, 2.0), "b": (0.0, 6.0)}
    for old, new in (("6.0", "4.0"), ("ranges_sha256", "ranges_rha256"), ('"b"', '"c"')):
        assert old in content
        path.write_text(content.replace(old, new))
        with pytest.raises(InvalidInputError, match=r"not those of its digest.*rt-panoptic calibrate"):
            bundle.load_ranges()
    assert caplog.text == ""
    document = json.loads(content)
    del document["ranges_sha256"]
    path.write_text(json.dumps(document))
    assert bundle.load_ranges()["a"] == (-1.5, 2.0)
    assert "has no digest" in caplog.text


@pytest.mark.parametrize("name", ["camvid_lite0", "street_lite0"])
def test_shipped_ranges_have_a_digest(name: str, caplog: pytest.LogCaptureFixture) -> None:
    assert read_bundle(name).load_ranges()
    assert caplog.text == ""


def test_torch_has_no_int8(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    bundle = bundle_of(NetworkConfig("resnet18", 16, 16, 8, tower_depth=1), tmp_path / "m")
    with pytest.raises(UnavailableError, match="precision float32 or float16 for the torch backend"):
        open_backend("torch", bundle, SIZE, "cpu", "int8")
