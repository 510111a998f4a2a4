# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Whole training runs: on a tiny tree with a tiny network, and overfitting two real frames."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import DATA, ROOT, TINY_RECIPE

from rt_panoptic_ros.errors import InvalidInputError, UnavailableError
from rt_panoptic_ros.training import checkpoints
from rt_panoptic_ros.training.checkpoints import CHECKPOINT, read_checkpoint, write_checkpoint
from rt_panoptic_ros.training.recipe import Recipe, read_recipe
from rt_panoptic_ros.training.trainer import train
from scripts.ablation import read_scalars

torch.set_num_threads(1)  # several wait for each other, which takes many times as long on a busy machine


def test_a_run_writes_its_folder(tiny_camvid: Path, tiny_recipe: Recipe, tmp_path: Path) -> None:
    out = tmp_path / "run"
    bundle = train(tiny_recipe, tiny_camvid, out, resume=False, device="cpu", workers=0)
    assert bundle is not None
    assert bundle.path == out / "model"
    assert bundle.network == tiny_recipe.network
    assert bundle.about["recipe"]["schedule"]["steps"] == 4
    assert set(bundle.about["figures"]) == {"split", "pq", "pq_things", "pq_stuff", "miou", "note"}
    assert sorted(path.name for path in (out / "pictures").iterdir()) == [
        "end.jpg", "epoch_0001.jpg", "epoch_0002.jpg",
    ]  # fmt: skip
    names = {"box_regression", "centerness", "levelness", "box_class", "semantics", "mask", "total"}
    scalars = read_scalars(out)
    assert {f"loss/{name}" for name in names} <= set(scalars)
    assert list(scalars["loss/total"]) == [1, 2, 3, 4]


def test_a_resumed_run_equals_an_uninterrupted_one(tiny_camvid: Path, tiny_recipe: Recipe, tmp_path: Path) -> None:
    whole = train(tiny_recipe, tiny_camvid, tmp_path / "whole", resume=False, device="cpu", workers=0)
    parts = tmp_path / "parts"
    assert train(tiny_recipe, tiny_camvid, parts, resume=False, device="cpu", workers=0, until=2) is None
    resumed = train(tiny_recipe, tiny_camvid, parts, resume=True, device="cpu", workers=0)
    assert whole is not None
    assert resumed is not None
    expected, got = whole.load_weights(), resumed.load_weights()
    assert all(np.array_equal(expected[name], got[name]) for name in expected)
    assert (parts / CHECKPOINT).read_bytes() == (tmp_path / "whole" / CHECKPOINT).read_bytes()


def test_resuming_needs_the_same_recipe_and_an_old_run_is_not_overwritten(
    tiny_camvid: Path, tiny_recipe: Recipe, tmp_path: Path
) -> None:
    with pytest.raises(InvalidInputError, match="found none: start without --resume"):
        train(tiny_recipe, tiny_camvid, tmp_path / "run", resume=True, device="cpu", workers=0)
    train(tiny_recipe, tiny_camvid, tmp_path / "run", resume=False, device="cpu", workers=0, until=1)
    with pytest.raises(InvalidInputError, match="add --resume"):
        train(tiny_recipe, tiny_camvid, tmp_path / "run", resume=False, device="cpu", workers=0)
    wider = replace(tiny_recipe, network=replace(tiny_recipe.network, pyramid_channels=32))
    with pytest.raises(InvalidInputError, match="another network"):
        train(wider, tiny_camvid, tmp_path / "run", resume=True, device="cpu", workers=0)


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


@pytest.mark.parametrize(
    "damage",
    [lambda _: b"", lambda _: b"not a checkpoint", lambda content: content[:900],
     lambda content: content.replace(b"\x80?\x00\x00\x80?", b"\x80?\x00\x00\x80>", 1)],
    ids=["empty", "other", "cut", "one bit"],
)  # fmt: skip
def test_a_damaged_checkpoint_is_one_sentence(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    path = tmp_path / CHECKPOINT
    write_checkpoint(path, {"recipe": {}, "network": torch.ones(1000)})
    content = path.read_bytes()
    path.write_bytes(damage(content))
    assert path.read_bytes() != content
    with pytest.raises(InvalidInputError, match="that can't be read"):
        checkpoints.read_checkpoint(path, {})


@pytest.mark.slow
def test_two_processes_learn_together(tiny_camvid: Path, tmp_path: Path) -> None:
    config = tmp_path / "tiny.yaml"
    config.write_text(repr(TINY_RECIPE))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m",
               "rt_panoptic_ros", "train", "--config", str(config), "--root", str(tiny_camvid), "--out",
               str(tmp_path / "run"),
               "--device", "cpu", "--workers", "0"]  # fmt: skip
    result = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=800,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "4 images per step where the recipe says 2: linear scaling makes the learning rate 0.002" in result.stderr
    assert (tmp_path / "run" / "model" / "model.yaml").is_file()


@pytest.mark.slow(30)
def test_two_real_pictures_are_learned_by_heart(tmp_path: Path) -> None:
    source = DATA / "camvid" / "train"
    if not source.is_dir():
        pytest.skip(f"CamVid is not at {source}")
    # Parts of two frames, with a vehicle, pedestrians and most kinds of stuff each: an eighth of the pixels.
    for split in ("train", "val"):
        for folder, suffix in (("images", ".jpg"), ("labels", ".png")):
            (tmp_path / "two" / split / folder).mkdir(parents=True)
            for name, top, left in (("0016E5_01440", 128, 320), ("0016E5_00810", 96, 32)):
                pixels = cv2.imread(str(source / folder / (name + suffix)), cv2.IMREAD_UNCHANGED)
                part = pixels[top : top + 128, left : left + 160]
                assert cv2.imwrite(str(tmp_path / "two" / split / folder / f"{name}.png"), part)
    changes = [  # each as it is in every step, with a narrow head and a high rate: fewer steps
        "network={backbone: efficientnet_lite0, pyramid_channels: 48, localization_channels: 48, "
        "semantics_channels: 48, tower_depth: 2}",
        "input.size=[128, 160]",
        "augmentation={output_size: [128, 160], scale_range: [1.0, 1.0], flip_probability: 0, brightness: 0, "
        "contrast: 0, saturation: 0}",
        "losses.mask=3",
        "schedule={batch: 2, images_per_process: 2, steps: 100, warmup_steps: 5, decay: cosine, epoch_images: 1000}",
        "optimizer={average_decay: 0, learning_rate: 2.0e-3, backbone_factor: 1.0}",
    ]
    recipe = read_recipe("camvid_lite0", changes)
    bundle = train(recipe, tmp_path / "two", tmp_path / "run", resume=False, device="cpu", workers=0)
    assert bundle is not None
    assert bundle.about["figures"]["pq"] > 60
    for name, scalars in read_scalars(tmp_path / "run").items():
        if name.startswith("loss/"):
            values = list(scalars.values())
            # Centerness cannot fall below the entropy of its soft targets, and the mask loss's factor beta rises with
            # the boxes' quality.
            share = 0.9 if name in ("loss/centerness", "loss/mask") else 0.5
            assert np.mean(values[-5:]) < share * np.mean(values[:5]), name
