# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The whole way of a frame without ROS, and `predict`'s files."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import ROOT

from rt_panoptic_ros.cli import main
from rt_panoptic_ros.errors import CancelledError, InvalidInputError
from rt_panoptic_ros.inference.input_image import plan_geometry, prepare_input
from rt_panoptic_ros.model.bundle import InputSpec, ModelBundle
from rt_panoptic_ros.pipeline import open_pipeline
from rt_panoptic_ros.progress import observing
from rt_panoptic_ros.records import CameraImage, ColorOrder, ImageGeometry
from rt_panoptic_ros.settings import PALETTES

pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

VISIBLE = {"score_threshold": 0.05, "mask_threshold": 0.02}


def picture(height: int = 90, width: int = 130, seed: int = 1) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


@pytest.mark.parametrize(
    ("order", "code"),
    [("bgr", cv2.COLOR_RGB2BGR), ("rgba", cv2.COLOR_RGB2RGBA), ("bgra", cv2.COLOR_RGB2BGRA)],
)
def test_color_orders_give_the_same_labels(small_bundle: ModelBundle, order: ColorOrder, code: int) -> None:
    pipeline = open_pipeline(small_bundle.path, backend="onnxruntime", device="cpu", settings=VISIBLE)
    rgb = pipeline(CameraImage(picture(), "rgb"))
    other = pipeline(CameraImage(cv2.cvtColor(picture(), code), order))
    np.testing.assert_array_equal(rgb.semantic, other.semantic)
    np.testing.assert_array_equal(rgb.instance, other.instance)


def test_padded_rows_and_mono(small_bundle: ModelBundle) -> None:
    pipeline = open_pipeline(small_bundle.path, backend="onnxruntime", device="cpu", settings=VISIBLE)
    wide = np.zeros((90, 150, 3), np.uint8)
    wide[:, :130] = picture()
    plain = pipeline(CameraImage(picture(), "rgb"))
    np.testing.assert_array_equal(pipeline(CameraImage(wide[:, :130], "rgb")).semantic, plain.semantic)
    grey = cv2.cvtColor(picture(), cv2.COLOR_RGB2GRAY)
    three = pipeline(CameraImage(cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB), "rgb"))
    np.testing.assert_array_equal(pipeline(CameraImage(grey, "mono")).semantic, three.semantic)


def test_results_are_the_callers_own(small_bundle: ModelBundle) -> None:
    pipeline = open_pipeline(small_bundle.path, backend="onnxruntime", device="cpu", settings=VISIBLE)
    first = pipeline(CameraImage(picture(), "rgb"))
    kept = first.semantic.copy(), first.detections.boxes.copy()
    pipeline(CameraImage(picture(seed=2), "rgb"))
    np.testing.assert_array_equal(first.semantic, kept[0])
    np.testing.assert_array_equal(first.detections.boxes, kept[1])


def test_settings_change_between_frames_and_timings_are_kept(small_bundle: ModelBundle) -> None:
    pipeline = open_pipeline(small_bundle.path, backend="onnxruntime", device="cpu", settings=VISIBLE)
    pipeline.prepare((90, 130))
    assert "onnxruntime in float32 on cpu at 90x130" in pipeline.describe()
    assert len(pipeline(CameraImage(picture(), "rgb")).detections) > 0
    pipeline.settings = pipeline.settings.replaced({"score_threshold": 1.0})
    assert len(pipeline(CameraImage(picture(), "rgb")).detections) == 0
    assert list(pipeline.timings_ms) == ["input", "network", "query_boxes", "masks", "fusion"]
    pipeline.close()
    assert "not loaded" in pipeline.describe()
    assert len(pipeline(CameraImage(picture(), "rgb")).detections) == 0


def test_preparing_can_be_called_off_at_every_step_and_taken_up_again(
    small_bundle: ModelBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))  # so that the graph is made
    pipeline = open_pipeline(small_bundle.path, backend="onnxruntime", device="cpu", settings=VISIBLE)
    steps: list[str] = []

    def tell(words: str) -> None:
        if words not in steps:
            steps.append(words)
            raise CancelledError("the node ends")

    for _ in range(100):
        known = len(steps)
        try:
            with observing(tell):
                pipeline.prepare((90, 130))
        except CancelledError:
            assert len(steps) > known  # one, or one more where kernels are loaded beside the network
        else:
            assert len(steps) == known
            break
    for step in ("part 1 of 6", "part 6 of 6", "ONNX graph", "loading onnxruntime", "labelling a first image"):
        assert any(step in words for words in steps)
    assert len(pipeline(CameraImage(picture(), "rgb")).detections) > 0


def test_after_preparing_no_kernel_is_loaded(small_bundle: ModelBundle) -> None:
    """In a process of its own; Warp tells on standard output of each module that it loads or compiles."""
    code = f"""
import numpy as np, warp as wp
from rt_panoptic_ros.pipeline import open_pipeline
from rt_panoptic_ros.records import IMAGES, CameraImage
pipeline = open_pipeline({str(small_bundle.path)!r}, backend="onnxruntime", device="cpu", settings={VISIBLE})
wp.config.log_level = wp.LOG_INFO
pipeline.prepare()
print("prepared", flush=True)
settings = pipeline.settings.replaced({{"stuff_area_min": 10, "similarity": "iou"}})
for size in ((90, 130), (64, 96)):
    image = CameraImage(np.zeros((*size, 3), np.uint8), "rgb")
    pipeline(image)
    pipeline(image, settings=settings, images=frozenset(IMAGES))
    pipeline.dense_arrays()
"""
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    before, after = told.split("prepared\n")
    assert before.count("Module rt_panoptic_ros.panoptic") == 6
    assert "Module" not in after


def test_more_sizes_than_networks_stay_loaded(small_bundle: ModelBundle) -> None:
    pipeline = open_pipeline(small_bundle.path, backend="onnxruntime", device="cpu", settings=VISIBLE)
    first = pipeline(CameraImage(picture(40, 60), "rgb"))
    for width in (64, 68, 72, 76):
        assert pipeline(CameraImage(picture(40, width), "rgb")).semantic.shape == (40, width)
    np.testing.assert_array_equal(pipeline(CameraImage(picture(40, 60), "rgb")).semantic, first.semantic)


@pytest.mark.parametrize(
    ("pixels", "order"),
    [
        (np.zeros((4, 4), np.uint8), "rgb"),
        (np.zeros((4, 4, 3), np.float32), "rgb"),
        (np.zeros((4, 4, 3), np.uint8), "rgba"),
        (np.zeros((0, 4, 3), np.uint8), "rgb"),
        (np.zeros((4, 4, 3), np.uint8), "mono"),
    ],
)
def test_wrong_images_are_refused(small_bundle: ModelBundle, pixels: np.ndarray, order: ColorOrder) -> None:
    pipeline = open_pipeline(small_bundle.path, backend="onnxruntime", device="cpu")
    with pytest.raises(InvalidInputError, match=f"expected a {order} image as uint8"):
        pipeline(CameraImage(pixels, order))


@pytest.mark.parametrize(
    ("camera", "spec", "asked", "geometry"),
    [
        ((100, 200), InputSpec(), None, (100, 200, 100, 200)),
        ((100, 200), InputSpec(size_divisor=32), None, (100, 200, 128, 224)),
        ((100, 200), InputSpec(size=(64, 64)), None, (64, 64, 64, 64)),
        ((100, 200), InputSpec(size=(64, 64), fit="pad"), None, (32, 64, 64, 64)),
        ((100, 200), InputSpec(size=(64, 64), fit="pad"), (50, 300), (50, 100, 50, 300)),
        ((1, 1000), InputSpec(size=(8, 8), fit="pad"), None, (1, 8, 8, 8)),
    ],
)
def test_geometry(
    camera: tuple[int, int], spec: InputSpec, asked: tuple[int, int] | None, geometry: tuple[int, int, int, int]
) -> None:
    assert plan_geometry(camera, spec, asked) == ImageGeometry(*camera, *geometry)


def test_input_is_resized_and_padded_with_the_mean() -> None:
    spec = InputSpec(mean_rgb=(10.0, 20.0, 30.0), size=(40, 40), fit="pad")
    image = CameraImage(np.full((10, 20, 3), 200, np.uint8), "bgr")
    network_input = prepare_input(image, plan_geometry((10, 20), spec, None), spec)
    assert network_input.shape == (40, 40, 3)
    assert network_input.flags.c_contiguous
    assert (network_input[:20] == 200).all()
    assert (network_input[20:] == (10, 20, 30)).all()


def test_fitting_rgb_image_is_not_copied() -> None:
    pixels = picture()
    geometry = plan_geometry((90, 130), InputSpec(), None)
    assert np.shares_memory(prepare_input(CameraImage(pixels, "rgb"), geometry, InputSpec()), pixels)


def test_predict_writes_what_it_says(
    small_bundle: ModelBundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in").mkdir()
    for stem, size in (("a1", (60, 80)), ("a2", (48, 64))):
        cv2.imwrite(str(tmp_path / "in" / f"{stem}.png"), picture(*size)[..., ::-1])
    out = tmp_path / "out"
    arguments = ["--set", "score_threshold=0.05", "--set", "mask_threshold=0.02", "--backend", "onnxruntime"]
    source = ["--model", str(small_bundle.path), "--source", str(tmp_path / "in"), "--out", str(out)]
    assert main(["predict", *source, *arguments, "--size", "50x70", "--save-dense", "--tf32"]) == 0
    assert "onnxruntime in float32, TF32 allowed, on cpu at 50x70" in capsys.readouterr().out
    for stem, size in (("a1", (60, 80)), ("a2", (48, 64))):
        semantic = cv2.imread(str(out / "semantic" / f"{stem}.png"), cv2.IMREAD_UNCHANGED)
        instance = cv2.imread(str(out / "instance" / f"{stem}.png"), cv2.IMREAD_UNCHANGED)
        assert (semantic.dtype, semantic.shape) == (np.uint8, size)
        assert (instance.dtype, instance.shape) == (np.uint16, size)
        assert instance.max() > 0
        assert set(np.unique(semantic[instance > 0])) <= {8, 9, 10}
        assert cv2.imread(str(out / "overlay" / f"{stem}.jpg")).shape == (*size, 3)
        with np.load(out / "dense" / f"{stem}.npz") as dense:
            assert dense["semantic_logits"].shape == (11, 7, 9)
            masks = np.unpackbits(dense["mask_bits"], axis=-1)[..., : size[1]]
            assert masks.shape == tuple(dense["mask_shape"]) == (len(dense["scores"]), *size)
            assert not (instance.astype(bool) & ~masks.any(axis=0).astype(bool)).any()
    document = json.loads((out / "panoptic.json").read_text())
    assert [entry["file_name"] for entry in document["annotations"]] == ["a1.png", "a2.png"]
    assert [entry["file_name"] for entry in document["images"]] == ["a1.png", "a2.png"]


def test_predict_draws_in_the_palette_that_is_asked_for(small_bundle: ModelBundle, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), picture(60, 80)[..., ::-1])
    source = ["--model", str(small_bundle.path), "--source", str(tmp_path / "a.png"), "--backend", "onnxruntime"]
    files = {}
    for palette in ("", *PALETTES):
        out = tmp_path / f"out_{palette}"
        assert main(["predict", *source, "--out", str(out), *(["--palette", palette] if palette else [])]) == 0
        files[palette] = {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*.*"))}
    assert files[""] == files["dataset"]
    changed = {name for name, content in files["colorblind"].items() if content != files["dataset"][name]}
    assert changed == {"overlay/a.jpg"}


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--size", "50"], "HEIGHTxWIDTH"),
        (["--size", "0x4"], "HEIGHTxWIDTH"),
        (["--set", "mask_threshold"], "NAME=VALUE"),
        (["--set", "mask=1"], "check the spelling"),
        (["--backend", "magic"], "auto, onnxruntime, torch"),
        (["--device", "tpu"], "auto, cpu, cuda"),
    ],
)
def test_wrong_arguments_are_one_sentence(
    small_bundle: ModelBundle, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], reason: str
) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), picture())
    source = ["--source", str(tmp_path / "a.png"), "--out", str(tmp_path / "out")]
    assert main(["predict", "--model", str(small_bundle.path), *source, *arguments]) == 1
    assert reason in capsys.readouterr().err.splitlines()[-1]


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    small = ["--backbone", "resnet18", "--channels", "16", "--classes", "camvid"]
    for out in ("file", "file/below"):
        assert main(["make-untrained", *small, "--out", str(tmp_path / out)]) == 1
        error = capsys.readouterr().err
        assert error.startswith("rt-panoptic: expected to write ")
        assert str(tmp_path / "file") in error
