# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""`rt-panoptic verify`: what it compares, and that a wrong backend doesn't pass."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import warp as wp

pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
pytest.importorskip("torch", reason="torch is not installed")

from rt_panoptic_ros.cli import main
from rt_panoptic_ros.model.bundle import ModelBundle
from rt_panoptic_ros.network.torch_backend import TorchBackend
from rt_panoptic_ros.records import DenseDetections


@pytest.fixture
def frame(tmp_path: Path) -> str:
    coarse = np.random.default_rng(1).integers(0, 256, (6, 8, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "frame.png"), cv2.resize(coarse, (96, 64), interpolation=cv2.INTER_CUBIC))
    return str(tmp_path / "frame.png")


def test_backends_and_precisions_are_compared(
    small_bundle: ModelBundle, frame: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", "--model", str(small_bundle.path), "--image", frame, "--device", "cpu"]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = {line[:24].strip(): line.split() for line in lines}
    assert float(rows["torch in float32"][3]) < 1e-3
    assert float(rows["torch in float32"][3]) < float(rows["torch in float16"][3]) < 0.5
    assert any(line.startswith("not run: onnxruntime in int8: expected ") for line in lines)


def test_a_wrong_backend_does_not_pass(
    small_bundle: ModelBundle, frame: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    infer = TorchBackend.infer

    def wrong(self: TorchBackend, image: np.ndarray) -> DenseDetections:
        dense = infer(self, image)
        dense.levelness_logits.numpy()[2] += 0.1  # type: ignore[union-attr]
        return dense

    monkeypatch.setattr(TorchBackend, "infer", wrong)
    assert main(["verify", "--model", str(small_bundle.path), "--image", frame, "--device", "cpu"]) == 1
    assert "torch: levelness_logits by 1.00e-01" in capsys.readouterr().err


@pytest.mark.skipif(wp.is_cuda_available(), reason="this machine has a GPU")
def test_a_missing_gpu_is_said_once(small_bundle: ModelBundle, frame: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "--model", str(small_bundle.path), "--image", frame, "--device", "cuda"]) == 1
    assert capsys.readouterr().err.count("expected a CUDA GPU") == 1
