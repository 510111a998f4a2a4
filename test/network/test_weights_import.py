# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Checkpoints as other programs write them: read, or refused in one sentence that tells what is different."""

from __future__ import annotations

import argparse
import logging
import pickle
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from rt_panoptic_ros.errors import InvalidInputError
from rt_panoptic_ros.model.bundle import ModelBundle
from rt_panoptic_ros.network.weights_import import fitting_weights, import_weights, plain_name, read_tensors

torch = pytest.importorskip("torch", reason="torch is not installed")

State = dict[str, Any]


@pytest.fixture(scope="module")
def state(small_bundle: ModelBundle) -> State:
    """The small bundle's weights as a model's state dict, with the counters that batch norms have in torch."""
    arrays = small_bundle.load_weights()
    weights = {name: torch.from_numpy(value.astype(np.float16).astype(np.float32)) for name, value in arrays.items()}
    return weights | {"backbone.body.bn1.num_batches_tracked": torch.tensor(7)}


def read(path: Path, bundle: ModelBundle) -> dict[str, np.ndarray]:
    return fitting_weights(read_tensors(path), bundle.layout, str(path))


def assert_weights(ours: dict[str, np.ndarray], state: State, tolerance: float = 0.0) -> None:
    expected = {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}
    assert list(ours) == list(expected)
    for name, value in ours.items():
        assert value.dtype == np.float32
        np.testing.assert_allclose(value, expected[name].numpy(), rtol=tolerance, err_msg=name)


def prefixed(prefix: str, state: State) -> State:
    return OrderedDict((prefix + name, value) for name, value in state.items())


def adam_of(state: State) -> object:
    parameters = [torch.nn.Parameter(value.clone()) for value in state.values() if value.is_floating_point()]
    optimizer = torch.optim.AdamW(parameters)
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    return optimizer.state_dict()


SHAPES: dict[str, Callable[[State], object]] = {
    "plain": lambda state: state,
    "Parameters": lambda state: {
        name: torch.nn.Parameter(value) if value.is_floating_point() else value for name, value in state.items()
    },
    "nested": lambda state: {"model": {"state_dict": state}},
    "detectron2": lambda state: {"model": state, "iteration": 7, "optimizer": adam_of(state), "scheduler": [0.1]},
    "mmdet": lambda state: {"meta": {"epoch": 1, "config": "x = 1"}, "state_dict": state, "optimizer": adam_of(state)},
    "lightning": lambda state: {
        "epoch": 3, "pytorch-lightning_version": "2.0", "state_dict": prefixed("model.", state), "loops": {},
        "optimizer_states": [adam_of(state)],
    },
    "optimizer first": lambda state: {"optimizer": adam_of(state), "model_state_dict": state},
    "data parallel": lambda state: {"net": prefixed("module.", state)},
    "compiled": lambda state: prefixed("_orig_mod.", state),
    "wrapped inside": lambda state: {name.replace("body.", "body._orig_mod.module."): v for name, v in state.items()},
    "average alone": lambda state: {"ema": {"decay": 0.9, "module": prefixed("module.", state)}},
    "a list": lambda state: [0, state],
    "student": lambda state: prefixed("student.", state) | {"criterion.weight": torch.ones(3)},
    "by part": lambda state: {
        part: {name.removeprefix(f"{part}."): value for name, value in state.items() if name.startswith(part)}
        for part in ("backbone", "panoptic_head")
    },
    "views": lambda state: {name: torch.stack([value, value])[1] for name, value in state.items()},
}  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
def test_wherever_the_weights_lie_they_are_found(
    shape: str, state: State, small_bundle: ModelBundle, tmp_path: Path
) -> None:
    torch.save(SHAPES[shape](state), tmp_path / "checkpoint.ckpt")
    assert_weights(read(tmp_path / "checkpoint.ckpt", small_bundle), state)


@pytest.mark.parametrize(("kind", "tolerance"), [("bfloat16", 2**-8), ("float16", 0.0), ("float64", 0.0)], ids=str)
def test_all_floating_point_types(
    kind: str, tolerance: float, state: State, small_bundle: ModelBundle, tmp_path: Path
) -> None:
    from safetensors.torch import save_file as save_tensors

    converted = {
        name: value.to(getattr(torch, kind)) if value.is_floating_point() else value for name, value in state.items()
    }
    torch.save(converted, tmp_path / "a.pth")
    save_tensors(converted, tmp_path / "b.safetensors")
    torch.save(converted, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    for name in ("a.pth", "b.safetensors", "old.pt"):
        assert_weights(read(tmp_path / name, small_bundle), state, tolerance)


def test_of_several_networks_the_first_is_taken_and_told(
    state: State, small_bundle: ModelBundle, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    others = {name: value + 1 for name, value in state.items()}
    torch.save({"model": state, "ema": others}, tmp_path / "two.pth")
    with caplog.at_level(logging.WARNING):
        assert_weights(read(tmp_path / "two.pth", small_bundle), state)
    assert "under 'model.', 'ema.': taking 'model.'" in caplog.text


def replaced(name: str, value: object) -> Callable[[State], State]:
    return lambda state: state | {name: value}


def quantised() -> object:
    with warnings.catch_warnings(action="ignore"):  # torch itself is leaving them
        return torch.quantize_per_tensor(torch.ones(1), 0.1, 0, torch.qint8)


BIAS = "panoptic_head.centerness.bias"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (replaced(BIAS, torch.ones(1).to_sparse()), f"a sparse tensor in {BIAS}"),
        (lambda state: state | {BIAS: quantised()}, f"a quantised tensor in {BIAS}"),
        (replaced(BIAS, torch.ones(1, dtype=torch.int8)), f"numbers of type int8 in {BIAS}"),
        (replaced(BIAS, torch.ones(1, dtype=torch.complex64)), f"numbers of type complex64 in {BIAS}"),
        (replaced(BIAS, torch.ones(1, device="meta")), f"a tensor without numbers in {BIAS}"),
        (replaced(BIAS, torch.full((1,), float("nan"))), f"NaN or infinity in {BIAS}"),
        (replaced(BIAS, torch.full((1,), 1e300, dtype=torch.float64)), f"NaN or infinity in {BIAS}"),
        (replaced(BIAS, torch.ones(2)), rf"{BIAS} has shape \(2,\), expected \(1,\)"),
        (replaced("surplus", torch.ones(2)), "surplus is unknown"),
        (lambda state: {name: value for name, value in state.items() if name != BIAS}, f"{BIAS} is missing"),
        (lambda state: {"transformer.a": torch.ones(3)}, r"more are missing; transformer\.a is unknown"),
        (lambda state: {"epoch": 3, "names": ["a"]}, "got no tensor in a dict"),
        (lambda state: 5, "got no tensor in a int"),
        (lambda state: {"a": argparse.Namespace(b=1)}, r"a argparse\.Namespace in it"),
        (lambda state: torch.nn.Linear(2, 2), r"a torch\.nn\.modules\.linear\.Linear in it"),
    ],
)  # fmt: skip
def test_what_is_different_is_told(
    change: Callable[[State], object], words: str, state: State, small_bundle: ModelBundle, tmp_path: Path
) -> None:
    path = tmp_path / "checkpoint.pth"
    torch.save(change(state), path)
    with pytest.raises(InvalidInputError, match=words) as caught:
        import_weights(path, tmp_path / "out", network=small_bundle.network, classes=small_bundle.classes, settings={})
    assert str(caught.value).count("\n") == 0
    assert len(str(caught.value)) < 1200
    assert not (tmp_path / "out").exists()


def test_of_many_differences_a_few_are_shown(state: State, small_bundle: ModelBundle, tmp_path: Path) -> None:
    torch.save({name: torch.ones(3, 3) for name in state}, tmp_path / "checkpoint.pth")
    with pytest.raises(InvalidInputError, match=r"\(3, 3\), expected \(64, 3, 7, 7\).*\d+ more dif"):
        read(tmp_path / "checkpoint.pth", small_bundle)


def torchscript(path: Path) -> None:
    torch.jit.script(torch.nn.Linear(2, 2)).save(path)


def cut(path: Path) -> None:
    torch.save({"a": torch.ones(1000)}, path)
    path.write_bytes(path.read_bytes()[:2000])


def cut_safetensors(path: Path) -> None:
    save_file({"a": np.ones(1000, np.float32)}, path)
    path.write_bytes(path.read_bytes()[:2000])


def onnx(path: Path) -> None:
    from onnx import helper

    path.write_bytes(helper.make_model(helper.make_graph([], "a", [], [])).SerializeToString())


def another_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("word/document.xml", b"<a/>")


def plain_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps({"model": {"a": np.ones(3)}}))


def objects(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, a=np.array([{}], dtype=object))


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: path.write_bytes(b""), "an empty file"),
        (lambda path: path.write_bytes(LFS), "a git-lfs pointer.*git lfs pull"),
        (lambda path: path.write_text("<!DOCTYPE html>\n<p>Zugriff verweigert für ü</p>"), "a text file"),
        (lambda path: path.mkdir(), "a folder"),
        (lambda path: None, "found none"),
        (lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(99)), "a file of another kind"),
        (lambda path: path.write_bytes(b"\x80\x02junk"), "without running code or is damaged"),
        (torchscript, "a TorchScript program"), (cut, "cut off, damaged"), (cut_safetensors, "cut off, damaged"),
        (onnx, "an ONNX graph"), (another_zip, "a zip archive of other things"),
        (objects, "not of plain arrays"), (plain_pickle, "without running code or is damaged"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["model.pth", "model.safetensors", "model.npz", "model"])
def test_other_files_are_named(make: Callable[[Path], object], words: str, name: str, tmp_path: Path) -> None:
    make(tmp_path / name)
    with pytest.raises(InvalidInputError, match=words) as caught:
        read_tensors(tmp_path / name)
    assert name in str(caught.value)
    assert "weights_only" not in str(caught.value)  # no word on how to have the code run
    assert "\n" not in str(caught.value)


def test_encoder_weights_are_found_likewise(state: State, small_bundle: ModelBundle, tmp_path: Path) -> None:
    from rt_panoptic_ros.training.backbone_weights import PREFIX, read_backbone_weights

    encoder = {name.removeprefix(PREFIX): value for name, value in state.items() if name.startswith(PREFIX)}
    classifier = {"fc.weight": torch.ones(10, 512), "fc.bias": torch.ones(10)}
    shapes = {
        "torchvision": encoder | classifier,
        "Parameters": SHAPES["Parameters"](encoder),
        "moco": {"state_dict": prefixed("module.encoder_q.", encoder | classifier) | {"queue": torch.ones(3)}},
        "a whole network": {"model": state},
    }
    for name, content in shapes.items():
        torch.save(content, tmp_path / f"{name}.pth")
        ours = read_backbone_weights(str(tmp_path / f"{name}.pth"), "resnet18", small_bundle.layout)
        assert all(entry.startswith(PREFIX) for entry in ours)
        assert_weights({entry.removeprefix(PREFIX): value for entry, value in ours.items()}, encoder)
    torch.save({"a": torch.nn.Parameter(torch.ones(3))}, tmp_path / "other.pth")
    with pytest.raises(InvalidInputError, match=r"conv1\.weight is missing.*a is unknown"):
        read_backbone_weights(str(tmp_path / "other.pth"), "resnet18", small_bundle.layout)


def test_names_of_other_programs_are_mended() -> None:
    names = {
        "module.backbone.fpn.inner_blocks.2.weight": "backbone.fpn.inner_blocks.2.0.weight",
        "backbone.fpn.layer_blocks.0.bias": "backbone.fpn.layer_blocks.0.0.bias",
        "backbone.fpn.layer_blocks.0.0.bias": "backbone.fpn.layer_blocks.0.0.bias",
        "backbone.fpn.extra_blocks.p6.weight": "backbone.fpn.extra_blocks.p6.weight",
        "backbone._orig_mod.body.conv1.weight": "backbone.body.conv1.weight",
    }
    for name, mended in names.items():
        assert plain_name(name) == mended
