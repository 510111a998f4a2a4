# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Exact agreement with the authors' published code on the reference case, through the command line."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest
from dense_cases import DEVICE

from rt_panoptic_ros.cli import main
from rt_panoptic_ros.model.architecture import NetworkConfig, state_dict_layout

CASE = "case_256x512_seed1.npz"


def load_module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("reference_weights", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def case(reference_folder: Path) -> dict[str, np.ndarray]:
    with np.load(reference_folder / CASE) as archive:
        return dict(archive)


@pytest.fixture(scope="module")
def weights(reference_folder: Path) -> dict[str, np.ndarray]:
    module = load_module(reference_folder / "weights.py")
    state: dict[str, np.ndarray] = module.make_state_dict(module.load_layout(), 1)
    return state


def save_npz(path: Path, weights: dict[str, np.ndarray]) -> Path:
    np.savez(path.with_suffix(".npz"), **weights)
    return path.with_suffix(".npz")


def save_old_torch_names(path: Path, weights: dict[str, np.ndarray]) -> Path:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    renamed = {
        name.replace("blocks.0.0.", "blocks.0.").replace("blocks.1.0.", "blocks.1.").replace("blocks.2.0.", "blocks.2.")
        if ".fpn." in name
        else name: torch.from_numpy(value)
        for name, value in weights.items()
    }
    assert renamed.keys() != weights.keys()
    torch.save({"state_dict": renamed}, path.with_suffix(".pth"))
    return path.with_suffix(".pth")


def test_layout_is_the_published_one(weights: dict[str, np.ndarray]) -> None:
    layout = state_dict_layout(NetworkConfig(), 19, 8)
    assert list(layout.items()) == [(name, value.shape) for name, value in weights.items()]


@pytest.mark.slow
@pytest.mark.parametrize(("backend", "save"), [("onnxruntime", save_npz), ("torch", save_old_torch_names)])
def test_published_results(
    backend: str,
    save: Callable[[Path, dict[str, np.ndarray]], Path],
    case: dict[str, np.ndarray],
    weights: dict[str, np.ndarray],
    tmp_path: Path,
) -> None:
    pytest.importorskip(backend, reason=f"{backend} is not installed")
    checkpoint = save(tmp_path / "checkpoint", weights)
    model, out = tmp_path / "model", tmp_path / "out"
    cv2.imwrite(str(tmp_path / "case.png"), case["image"][..., ::-1])
    assert main(["import-weights", str(checkpoint), "--backbone", "resnet50", "--classes", "cityscapes", "--out",
                 str(model)]) == 0  # fmt: skip
    device = "cpu" if backend == "onnxruntime" else DEVICE.split(":")[0]
    assert main(["predict", "--model", str(model), "--source", str(tmp_path / "case.png"), "--out", str(out),
                 "--backend", backend, "--device", device, "--set", "mask_threshold=0.1",
                 "--save-dense"]) == 0  # fmt: skip
    with np.load(out / "dense" / "case.npz") as archive:
        ours = dict(archive)
    for name, expected in case.items():
        if "offsets" in name:
            np.testing.assert_allclose(ours[name], expected, rtol=1e-4, err_msg=name)
        elif "logits" in name:
            np.testing.assert_allclose(ours[name], expected, atol=1e-3, rtol=1e-4, err_msg=name)
    np.testing.assert_array_equal(ours["labels"], case["labels"])
    np.testing.assert_allclose(ours["scores"], case["scores"], atol=1e-5)
    np.testing.assert_allclose(ours["boxes"], case["boxes"], atol=0.05)
    np.testing.assert_array_equal(ours["mask_shape"], case["mask_shape"])
    differing = np.unpackbits(ours["mask_bits"] ^ case["mask_bits"]).sum()
    assert differing <= 1e-4 * case["mask_shape"].prod()
