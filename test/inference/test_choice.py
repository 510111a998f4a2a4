# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""What auto stands for: by the card, by what is installed, by what was tuned; and that explicit values are obeyed."""

from __future__ import annotations

import importlib.util
import logging
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rt_panoptic_ros.cli import main
from rt_panoptic_ros.errors import UnavailableError
from rt_panoptic_ros.inference import choice
from rt_panoptic_ros.inference.calibration import calibrate
from rt_panoptic_ros.inference.choice import Choice, choices, write_tuned
from rt_panoptic_ros.model.architecture import NetworkConfig
from rt_panoptic_ros.model.bundle import RANGES, ModelBundle, read_bundle, record_measurement, write_ranges
from rt_panoptic_ros.model.class_table import load_class_table
from rt_panoptic_ros.model.untrained import make_untrained_bundle
from rt_panoptic_ros.pipeline import open_pipeline
from rt_panoptic_ros.records import CameraImage

pytest.importorskip("onnxruntime")
SIZE = (32, 64)
IMAGE = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)
INSTALLED = importlib.util.find_spec


@pytest.fixture(scope="module")
def made(small_network: NetworkConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a bundle with ranges, whose card says that int8 loses 0.4 points."""
    folder, classes = tmp_path_factory.mktemp("made") / "m", load_class_table("camvid")
    bundle = make_untrained_bundle(folder, network=small_network, classes=classes, size=SIZE, seed=5)
    write_ranges(bundle, calibrate(bundle, [IMAGE]), "a picture")
    return with_loss(bundle, 0.4).path


@pytest.fixture
def bundle(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModelBundle:
    """A test's own copy of it, and a cache in which nothing is tuned."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return read_bundle(shutil.copytree(made, tmp_path / "m"))


def with_loss(bundle: ModelBundle, loss: float) -> ModelBundle:
    """Have the card say what int8 loses; it gains elsewhere."""
    record_measurement(bundle, "road, float32", {"mean_iou": 70.0, "pq": 50.0, "note": "of a drive"})
    record_measurement(bundle, "road, int8", {"mean_iou": 71.0, "pq": 50.0 - loss})
    return read_bundle(bundle.path)


@pytest.fixture(params=[True, False], ids=["OpenVINO", "no OpenVINO"])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The backend that auto takes on a CPU, with and without OpenVINO."""
    find = {"openvino": object() if request.param else None}
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: find.get(name, INSTALLED(name)))
    return "openvino" if request.param else "onnxruntime"


def first(
    bundle: ModelBundle, backend: str = "auto", device: str = "auto", precision: str = "auto", where: str = "cpu"
) -> Choice:
    return choices(bundle, backend, device, precision, where)[0]


def test_on_a_cpu_int8_where_it_costs_little(bundle: ModelBundle, backend: str) -> None:
    assert first(bundle) == first(bundle, device="cpu") == Choice(backend, "cpu", "int8")
    assert [one.backend for one in choices(bundle, "auto", "auto", "auto", "cpu")][-2:] == ["onnxruntime", "torch"]
    assert choices(bundle, "auto", "auto", "auto", "cpu")[-1].precision == "float32"  # torch has no other
    assert first(with_loss(bundle, 0.6)) == Choice(backend, "cpu", "float32")
    (bundle.path / RANGES).unlink()
    assert first(with_loss(bundle, 0.0)) == Choice(backend, "cpu", "float32")


@pytest.mark.parametrize(
    "figures",
    [{}, {"mean_iou": "71"}, {"mean_iou": None}, {"mean_iou": float("nan")}, {"mean_iou": 7100}, {"ap": 71.0}, []],
)
def test_a_card_that_does_not_tell_is_no_leave(bundle: ModelBundle, figures: object) -> None:
    about = {"measured": {"road, float32": {"mean_iou": 70.0}, "road, int8": figures}}
    for told in (
        about,
        {"measured": figures},
        {"measured": {"x, int8": {"mean_iou": 71.0}, "int8": {"mean_iou": 71.0}}},
    ):
        object.__setattr__(bundle, "about", told)
        assert bundle.loss("int8") is None
        assert first(bundle).precision == "float32"


def test_on_a_gpu_float32_by_tensorrt_or_torch(bundle: ModelBundle, backend: str) -> None:
    found = choices(bundle, "auto", "auto", "auto", "cuda:0")
    assert found[:2] == [Choice("tensorrt", "cuda:0", "float32"), Choice("torch", "cuda:0", "float32")]
    assert found[2] == Choice(backend, "cpu", "int8")
    assert choices(bundle, "auto", "cuda", "auto", "cuda:0") == found[:2]


def test_explicit_values_are_obeyed(bundle: ModelBundle, backend: str) -> None:
    write_tuned(bundle, [(Choice("onnxruntime", "cpu", "int8"), 1.0)], SIZE)
    for name in ("onnxruntime", "openvino", "torch", "tensorrt"):
        for precision in ("float32", "float16", "int8"):
            assert choices(bundle, name, "auto", precision, "cpu") == [Choice(name, "cpu", precision)]
    assert first(bundle, precision="float32") == Choice(backend, "cpu", "float32")
    assert first(bundle, backend="torch") == Choice("torch", "cpu", "float32")
    assert first(bundle, backend="onnxruntime") == Choice("onnxruntime", "cpu", "int8")


def test_what_was_tuned_comes_first(bundle: ModelBundle) -> None:
    times = [("torch", "float32"), ("openvino", "int8"), ("onnxruntime", "int8"), ("openvino", "float32")]
    write_tuned(bundle, [(Choice(name, "cpu", precision), 1.0) for name, precision in times], SIZE)
    found = choices(bundle, "auto", "auto", "auto", "cpu")
    assert found[0] == Choice("torch", "cpu", "float32")
    assert len(set(found)) == len(found) > 1
    assert first(bundle, precision="int8") == Choice("openvino", "cpu", "int8")  # the fastest of that precision
    assert first(bundle, backend="openvino") == Choice("openvino", "cpu", "int8")
    assert choices(bundle, "onnxruntime", "auto", "float32", "cpu") == [Choice("onnxruntime", "cpu", "float32")]


@pytest.mark.parametrize("what", ["card", "ranges", "machine", "libraries"])
def test_what_was_tuned_holds_as_long_as_what_it_stands_on(
    bundle: ModelBundle, what: str, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tuned(bundle, [(Choice("torch", "cpu", "float32"), 1.0)], SIZE)
    assert first(bundle).backend == "torch"
    precision = "int8"
    if what == "card":
        bundle, precision = with_loss(bundle, 0.6), "float32"
    elif what == "ranges":
        (bundle.path / RANGES).unlink()
        precision = "float32"
    elif what == "machine":
        monkeypatch.setattr(choice, "processor", lambda: "another")
    else:
        monkeypatch.setattr(choice, "installed_versions", lambda _: {"openvino": "2027.1"})
    assert first(bundle) == Choice(backend, "cpu", precision)


def test_damaged_ranges_are_no_reason_not_to_start(bundle: ModelBundle, caplog: pytest.LogCaptureFixture) -> None:
    (bundle.path / RANGES).write_text("{}")
    with caplog.at_level(logging.INFO):
        assert first(bundle).precision == "float32"
    assert f"auto is float32: expected ranges as JSON in {bundle.path / RANGES}" in caplog.text


@pytest.mark.parametrize(
    "content",
    [
        "", "[]", "{}", '{"ms": 5}', '{"ms": [["openvino", "int8"]]}', '{"ms": [["caffe", "int8", 1]]}',
        '{"ms": [["torch", "int8", 1]]}', '{"ms": [["tensorrt", "float32", 1]]}',
    ],
)  # fmt: skip
def test_a_record_of_no_use_is_told_of(bundle: ModelBundle, content: str, caplog: pytest.LogCaptureFixture) -> None:
    write_tuned(bundle, [(Choice("torch", "cpu", "float32"), 1.0)], SIZE).write_text(content)
    with caplog.at_level(logging.WARNING):
        assert first(bundle).precision == "int8"
    assert "run `rt-panoptic tune` again" in caplog.text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"backend": "auto"}, "in int8 on cpu at 32x64, as auto chose"),
        ({"backend": "onnxruntime"}, "onnxruntime in int8 on cpu at 32x64, as auto chose"),
        ({"backend": "onnxruntime", "precision": "float32"}, "onnxruntime in float32 on cpu at 32x64"),
    ],
)
def test_the_line_says_what_was_chosen(bundle: ModelBundle, arguments: dict[str, Any], words: str) -> None:
    pipeline = open_pipeline(bundle.path, device="cpu", **arguments)
    assert pipeline.precision == arguments.get("precision", "auto")
    pipeline(CameraImage(IMAGE, "rgb"))
    assert pipeline.describe().endswith(words)
    assert pipeline.precision == arguments.get("precision", "int8")
    pipeline.close()


def test_the_command_times_all_and_writes_the_fastest(
    bundle: ModelBundle, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choice, "_TUNE_S", 0.05)
    assert main(["tune", "--model", str(bundle.path), "--device", "cpu"]) == 0
    printed = capsys.readouterr().out
    times = [(name, of, float(ms)) for name, of, ms in re.findall(r"^(\w+) in (\w+): ([\d.]+) ms$", printed, re.M)]
    assert {("onnxruntime", "float32"), ("onnxruntime", "int8")} <= {time[:2] for time in times}
    assert [time[2] for time in times[1:]] == sorted(time[2] for time in times[1:])
    assert times[0][2] <= min(time[2] for time in times) / 0.95 + 0.1
    assert "not timed: the card has no figures of float16" in printed
    assert f"auto is {times[0][0]} in {times[0][1]} on cpu for m (timed at 32x64), whenever" in printed
    assert first(bundle) == Choice(times[0][0], "cpu", times[0][1])


@pytest.mark.parametrize("faster", [0.97, 0.9])
def test_what_is_not_clearly_faster_is_not_taken(
    bundle: ModelBundle, faster: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Timed:
        device = "cpu"

        def __init__(self, ms: float) -> None:
            self.ms = ms

        def close(self) -> None:
            pass

    monkeypatch.setattr(choice, "_infer_ms", lambda backend, _: backend.ms)
    monkeypatch.setattr(choice, "_TUNE_S", 0.01)
    usual = first(bundle)

    def opened(name: str, _bundle: object, _size: object, _where: str, precision: str) -> Timed:
        if name == "openvino" and usual.backend != "openvino":
            raise UnavailableError("not installed")
        mine = (name, precision) == (usual.backend, usual.precision)
        return Timed(10.0 if mine else 10.0 * faster if name == "torch" else 50.0)

    times, left_out = choice.tune(bundle, SIZE, "cpu", opened)
    assert times[0][0] == (usual if faster > 0.95 else Choice("torch", "cpu", "float32"))
    assert any("float16" in reason for reason in left_out)


def test_a_cache_that_others_may_write_keeps_nothing(
    bundle: ModelBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "cache" / "rt_panoptic_ros"
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder.parent))
    assert main(["tune", "--model", str(bundle.path), "--device", "cpu"]) == 1
    assert f"expected to keep what is tuned in {folder}, got: other users may write there" in capsys.readouterr().err
