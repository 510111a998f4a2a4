"""Whole training runs: on a tiny tree with a tiny network, and overfitting two real frames."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from conftest import ROOT
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from rt_panoptic_ros.errors import InvalidInputError, UnavailableError
from rt_panoptic_ros.training import checkpoints
from rt_panoptic_ros.training.checkpoints import CHECKPOINT, read_checkpoint, write_checkpoint
from rt_panoptic_ros.training.recipe import Recipe, parse_recipe
from rt_panoptic_ros.training.trainer import train

NETWORK = {
    "backbone": "resnet18", "pyramid_channels": 16, "localization_channels": 16, "semantics_channels": 8,
    "tower_depth": 1,
}  # fmt: skip
DOCUMENT: dict[str, Any] = {
    "network": NETWORK,
    "augmentation": {"output_size": [64, 96], "scale_range": [0.8, 1.2], "flip_probability": 0.5},
    "optimizer": {"name": "adamw", "learning_rate": 1e-3, "average_decay": 0.9},
    "schedule": {"batch": 2, "images_per_process": 2, "steps": 4},
}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Three images for learning, one for looking at: sky over road, and a car."""
    root = tmp_path / "camvid"
    for split, count in (("train", 3), ("val", 1)):
        for folder in ("images", "labels"):
            (root / split / folder).mkdir(parents=True)
        for number in range(count):
            labels = np.full((64, 96), 3, np.uint8)
            labels[:24] = 0
            labels[30:50, 10 + 5 * number : 40] = 8
            cv2.imwrite(str(root / split / "labels" / f"{number}.png"), labels)
            image = np.random.default_rng(number).integers(0, 256, (64, 96, 3), np.uint8)
            cv2.imwrite(str(root / split / "images" / f"{number}.png"), image)
    return root


@pytest.fixture
def recipe() -> Recipe:
    return parse_recipe("tiny", DOCUMENT)


def test_a_run_writes_its_folder(tree: Path, recipe: Recipe, tmp_path: Path) -> None:
    out = tmp_path / "run"
    bundle = train(recipe, tree, out, resume=False, device="cpu", workers=0)
    assert bundle is not None
    assert bundle.path == out / "model"
    assert bundle.network == recipe.network
    assert bundle.about["recipe"]["schedule"]["steps"] == 4
    assert set(bundle.about["figures"]) == {"split", "pq", "pq_things", "pq_stuff", "miou", "note"}
    assert sorted(path.name for path in (out / "pictures").iterdir()) == [
        "end.jpg", "epoch_0001.jpg", "epoch_0002.jpg",
    ]  # fmt: skip
    names = {"box_regression", "centerness", "levelness", "box_class", "semantics", "mask", "total"}
    assert {f"loss/{name}" for name in names} <= set(logged(out))
    assert [event.step for event in logged(out)["loss/total"]] == [1, 2, 3, 4]


def test_a_resumed_run_equals_an_uninterrupted_one(tree: Path, recipe: Recipe, tmp_path: Path) -> None:
    whole = train(recipe, tree, tmp_path / "whole", resume=False, device="cpu", workers=0)
    parts = tmp_path / "parts"
    assert train(recipe, tree, parts, resume=False, device="cpu", workers=0, until=2) is None
    resumed = train(recipe, tree, parts, resume=True, device="cpu", workers=0)
    assert whole is not None
    assert resumed is not None
    expected, got = whole.load_weights(), resumed.load_weights()
    assert all(np.array_equal(expected[name], got[name]) for name in expected)


def test_resuming_needs_the_same_recipe_and_an_old_run_is_not_overwritten(
    tree: Path, recipe: Recipe, tmp_path: Path
) -> None:
    with pytest.raises(InvalidInputError, match="found none: start without --resume"):
        train(recipe, tree, tmp_path / "run", resume=True, device="cpu", workers=0)
    train(recipe, tree, tmp_path / "run", resume=False, device="cpu", workers=0, until=1)
    with pytest.raises(InvalidInputError, match="add --resume"):
        train(recipe, tree, tmp_path / "run", resume=False, device="cpu", workers=0)
    wider = replace(recipe, network=replace(recipe.network, pyramid_channels=32))
    with pytest.raises(InvalidInputError, match="another network"):
        train(wider, tree, tmp_path / "run", resume=True, device="cpu", workers=0)


def test_a_full_disk_leaves_the_checkpoint_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / CHECKPOINT
    write_checkpoint(path, {"recipe": {}, "step": 1})

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("rt_panoptic_ros.files.os.fsync", full)
    with pytest.raises(UnavailableError, match="No space left on device: check the disk's space"):
        write_checkpoint(path, {"recipe": {}, "step": 2})
    monkeypatch.undo()
    assert read_checkpoint(path, {})["step"] == 1
    assert [item.name for item in tmp_path.iterdir()] == [CHECKPOINT]


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", None])
def test_a_damaged_checkpoint_is_one_sentence(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / CHECKPOINT
    write_checkpoint(path, {"recipe": {}, "network": torch.zeros(1000)})
    path.write_bytes(path.read_bytes()[:900] if content is None else content)
    with pytest.raises(InvalidInputError, match="that can't be read"):
        checkpoints.read_checkpoint(path, {})


@pytest.mark.slow
def test_two_processes_learn_together(tree: Path, tmp_path: Path) -> None:
    config = tmp_path / "tiny.yaml"
    config.write_text(repr(DOCUMENT))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m",
               "rt_panoptic_ros", "train", "--config", str(config), "--root", str(tree), "--out", str(tmp_path / "run"),
               "--device", "cpu", "--workers", "0"]  # fmt: skip
    result = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=200,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "4 images per step where the recipe says 2: linear scaling makes the learning rate 0.002" in result.stderr
    assert (tmp_path / "run" / "model" / "model.yaml").is_file()


def logged(run: Path) -> dict[str, list[Any]]:
    """Return the run's scalars by name, from TensorBoard's files."""
    log = EventAccumulator(str(run / "log"))
    log.Reload()
    return {name: log.Scalars(name) for name in log.Tags()["scalars"]}
