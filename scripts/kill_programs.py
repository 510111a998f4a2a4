# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The programs that `scripts.kills` ends: runs of a second or so of all that writes, by the command line's own code."""

from __future__ import annotations

import gc
import importlib
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import torch
import warp as wp

from rt_panoptic_ros import cli
from rt_panoptic_ros.inference import tensorrt_runtime
from rt_panoptic_ros.inference.tensorrt_backend import TensorRtBackend
from rt_panoptic_ros.model.bundle import CARD, read_bundle
from rt_panoptic_ros.panoptic.postprocess import load_postprocessing
from rt_panoptic_ros.training.checkpoints import CHECKPOINT, read_checkpoint
from rt_panoptic_ros.training.recipe import read_recipe
from rt_panoptic_ros.warp_runtime import load_kernels, start_warp

sys.path.append(str(Path(__file__).resolve().parents[1] / "test"))

from bag_cases import drive, make_bag, picture
from conftest import TINY_RECIPE, write_tiny_camvid
from fake_tensorrt import GPU, STREAM, FakeRuntime

FRAMES = 6
SIZE = (64, 96)
KERNELS = """
import warp as wp

@wp.kernel
def double(values: wp.array(dtype=wp.float32)):
    values[wp.tid()] = 2.0 * values[wp.tid()]
"""
_IMPORTED = (  # by the programs, when they need it
    "onnxruntime", "torch.utils.tensorboard", "rt_panoptic_ros.bags.batch", "rt_panoptic_ros.commands.predict",
    "rt_panoptic_ros.inference.calibration", "rt_panoptic_ros.inference.onnx_graph",
    "rt_panoptic_ros.inference.onnxruntime_backend", "rt_panoptic_ros.network.torch_backend",
    "rt_panoptic_ros.training.trainer",
)  # fmt: skip
_NETWORK = ("--backbone", "resnet18", "--classes", "camvid", "--channels", "16", "--size", "64x96")
_SETTINGS = ("score_threshold=0", "pre_nms_threshold=0", "mask_threshold=0.01", "overlap_threshold=1")


@dataclass(frozen=True)
class Inputs:
    """What the programs read."""

    model: Path
    frames: Path
    bag: Path
    dataset: Path
    recipe: Path
    kernels: Path  # folder of the module `kernels`


def _nothing(_: Inputs, __: Path) -> None:
    """Do nothing."""


@dataclass(frozen=True)
class Program:
    """A program that writes into a folder, the state, and goes on there when it is started again."""

    name: str
    run: Callable[[Inputs, Path], None]  # in a process of its own; raises what fails
    share: int = 1  # of the kills
    growing: str = r"(?!)"  # files, by regular expression, that are others before the end
    changing: str = r"(?!)"  # files whose bytes tell of times
    resumes: bool = False  # whether its bar goes on where it ended
    prepare: Callable[[Inputs, Path], None] = _nothing  # before each run
    verify: Callable[[Inputs, Path], None] = _nothing  # raises where a growing file isn't whole


def warm_up() -> None:
    """Load what runs share: a fork has it."""
    for module in _IMPORTED:
        importlib.import_module(module)
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # threads that wait for each other take many times as long
    torch.set_num_threads(1)  # no pool of threads, which a fork would lack
    load_postprocessing("cpu")
    gc.freeze()


def make_inputs(folder: Path) -> Inputs:
    """Make what the programs read."""
    folder.mkdir()
    inputs = Inputs(*(folder / name for name in ("model", "frames", "drive", "camvid", "recipe.yaml", "modules")))
    _command("make-untrained", "--out", inputs.model, *_NETWORK)
    for path in (inputs.frames, inputs.kernels):
        path.mkdir()
    for number in range(FRAMES):
        cv2.imwrite(str(inputs.frames / f"{number}.png"), picture(number, SIZE))
    make_bag(inputs.bag, drive(2 * FRAMES))
    write_tiny_camvid(inputs.dataset)
    recipe = {**TINY_RECIPE, "schedule": {**TINY_RECIPE["schedule"], "steps": 3}, "validate_epochs": 1}
    inputs.recipe.write_text(repr(recipe), encoding="utf-8")
    (inputs.kernels / "kernels.py").write_text(KERNELS, encoding="utf-8")
    return inputs


def _command(*words: str | Path) -> None:
    """Run a command of `rt-panoptic`."""
    status = cli.main([str(word) for word in words])
    assert status == 0, f"rt-panoptic {words[0]} failed"


def _labelling(inputs: Inputs) -> list[str | Path]:
    settings = [f"--set={setting}" for setting in _SETTINGS]
    return ["--model", inputs.model, "--backend", "onnxruntime", "--device", "cpu", *settings]


def _predict(inputs: Inputs, state: Path) -> None:
    _command("predict", "--source", inputs.frames, "--out", state / "out", *_labelling(inputs))


def _begin_anew(_: Inputs, state: Path) -> None:
    """Predict refuses a folder with results; its graph stays in the cache."""
    shutil.rmtree(state / "out", ignore_errors=True)


def _bag(inputs: Inputs, state: Path) -> None:
    _command("bag", inputs.bag, state / "out", "--tracking", *_labelling(inputs))


def _train(inputs: Inputs, state: Path) -> None:
    resume: list[str | Path] = ["--resume"] if (state / "run" / CHECKPOINT).exists() else []
    where: list[str | Path] = ["--root", inputs.dataset, "--out", state / "run"]
    _command("train", "--config", inputs.recipe, *where, "--device", "cpu", "--workers", "0", *resume)


def _verify_run(inputs: Inputs, state: Path) -> None:
    run = state / "run"
    if (run / CHECKPOINT).exists():
        assert read_checkpoint(run / CHECKPOINT, read_recipe(str(inputs.recipe)).to_document())["step"] in (1, 2, 3)
    _verify_bundle(inputs, run)


def _calibrate(inputs: Inputs, state: Path) -> None:
    _command("calibrate", "--model", state / "model", "--source", inputs.frames, "--frames", "3")


def _copy_model(inputs: Inputs, state: Path) -> None:
    if not (state / "model").exists():
        shutil.copytree(inputs.model, state / "model")


def _verify_ranges(_: Inputs, state: Path) -> None:
    if (state / "model" / "int8.json").exists():
        read_bundle(state / "model").load_ranges()


def _build_engine(inputs: Inputs, _: Path) -> None:
    runtime = FakeRuntime("tensorrt_rtx")
    places = {"load_runtime": lambda *_: runtime, "gpu_identity": lambda _: GPU, "current_stream": lambda _: STREAM}
    for name, place in places.items():
        setattr(tensorrt_runtime, name, place)
    _command("build-engine", "--model", inputs.model, "--precision", "fp32", "--device", "cpu")
    TensorRtBackend(read_bundle(inputs.model), SIZE, "cpu", "float32").close()  # keeps the compiled kernels


def _make_bundles(_: Inputs, state: Path) -> None:
    for seed in ("1", "2"):  # the second in place of the first
        _command("make-untrained", "--out", state / "model", "--seed", seed, *_NETWORK)


def _verify_bundle(_: Inputs, state: Path) -> None:
    if (state / "model" / CARD).exists():
        read_bundle(state / "model").load_weights()


def _load_kernels(inputs: Inputs, state: Path) -> None:
    start_warp()
    wp.config.kernel_cache_dir = str(state / "kernels")
    sys.path.append(str(inputs.kernels))
    import kernels  # type: ignore[import-not-found]

    load_kernels([kernels], "cpu")
    values = wp.array([1.0, 2.0], dtype=wp.float32, device="cpu")
    wp.launch(kernels.double, 2, inputs=[values], device="cpu")
    assert values.numpy().tolist() == [2.0, 4.0], values.numpy()


PROGRAMS = (
    Program("predict", _predict, share=5, prepare=_begin_anew),
    Program("bag", _bag, share=5, resumes=True),
    Program("train", _train, share=2, growing=r"run/(model/|checkpoint)", changing=r"run/log/", verify=_verify_run),
    Program("calibrate", _calibrate, share=3, prepare=_copy_model, verify=_verify_ranges),
    Program("build-engine", _build_engine, share=4, changing=r"engines/.*\.json"),
    Program("make-untrained", _make_bundles, share=3, growing=r"model/", verify=_verify_bundle),
    Program("kernels", _load_kernels, share=2, changing=r"kernels/"),
)
