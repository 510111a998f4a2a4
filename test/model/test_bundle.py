# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Bundles and weight import: round trips, and what is said of wrong ones."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from safetensors.numpy import save_file

from rt_panoptic_ros.cli import main
from rt_panoptic_ros.errors import InvalidInputError
from rt_panoptic_ros.model.architecture import NetworkConfig
from rt_panoptic_ros.model.bundle import InputSpec, ModelBundle, read_bundle, write_bundle
from rt_panoptic_ros.model.class_table import load_class_table, parse_class_table
from rt_panoptic_ros.model.untrained import make_untrained_bundle
from rt_panoptic_ros.network.weights_import import import_weights
from rt_panoptic_ros.settings import PostprocessSettings


@pytest.fixture
def copy(small_bundle: ModelBundle, tmp_path: Path) -> ModelBundle:
    return write_bundle(
        tmp_path / "copy",
        small_bundle.load_weights(),
        network=small_bundle.network,
        classes=small_bundle.classes,
        spec=InputSpec(size=(64, 96), fit="pad", size_divisor=32),
        settings=PostprocessSettings().replaced({"mask_threshold": 0.2}),
        about={"recipe": "none"},
    )


def test_the_layout_of_an_array_in_memory_does_not_matter(small_bundle: ModelBundle, tmp_path: Path) -> None:
    """Training hands over kernels in channels-last order."""
    weights = small_bundle.load_weights()
    strided = {name: np.asfortranarray(value) for name, value in weights.items()}
    again = write_bundle(
        tmp_path / "strided", strided, network=small_bundle.network, classes=small_bundle.classes,
        spec=small_bundle.input, settings=small_bundle.settings, about={},
    ).load_weights()  # fmt: skip
    assert all(np.array_equal(again[name], weights[name]) for name in weights)


def test_round_trip(copy: ModelBundle, small_bundle: ModelBundle) -> None:
    again = read_bundle(copy.path)
    assert again == copy
    assert again.input.size == (64, 96)
    assert again.settings.masks.mask_threshold == 0.2
    weights = again.load_weights()
    for name, value in small_bundle.load_weights().items():
        np.testing.assert_array_equal(weights[name], value)
    assert not list(copy.path.glob(".*"))


def test_a_bundle_is_whole_while_another_takes_its_place(
    copy: ModelBundle, small_bundle: ModelBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def overwrite(seed: int) -> None:
        make_untrained_bundle(copy.path, network=copy.network, classes=copy.classes, size=None, seed=seed)

    class EndedError(Exception):
        """Stands in for the process's end."""

    def end(*_: object) -> None:
        raise EndedError

    monkeypatch.setattr("rt_panoptic_ros.model.bundle._write_card", end)
    with pytest.raises(EndedError):
        overwrite(7)
    assert read_bundle(copy.path).load_weights().keys() == small_bundle.load_weights().keys()
    monkeypatch.undo()
    monkeypatch.setattr(
        Path, "replace", lambda path, to: end() if path.name.startswith("weights.next") else path.rename(to)
    )
    with pytest.raises(EndedError):
        overwrite(8)
    monkeypatch.undo()
    (copy.path / "weights.safetensors").write_bytes(b"of the bundle before")
    assert read_bundle(copy.path).weights_sha256 != copy.weights_sha256
    read_bundle(copy.path).load_weights()
    overwrite(9)
    assert sorted(path.name for path in copy.path.iterdir()) == ["model.yaml", "weights.safetensors"]


def test_padding_has_the_rounded_mean() -> None:
    assert InputSpec(mean_rgb=(1.4, 2.6, 3.0)).fill_rgb == (1, 3, 3)


def test_own_class_tables_travel_in_the_card(small_bundle: ModelBundle, tmp_path: Path) -> None:
    document = small_bundle.classes.to_document()
    document["name"] = "mine"
    document["classes"][0]["name"] = "heaven"
    own = write_bundle(
        tmp_path / "own", small_bundle.load_weights(), network=small_bundle.network,
        classes=parse_class_table(document), spec=InputSpec(), settings=PostprocessSettings(), about={},
    )  # fmt: skip
    assert read_bundle(own.path).classes.names[0] == "heaven"


def test_key_follows_content_not_place(copy: ModelBundle, small_bundle: ModelBundle) -> None:
    assert copy.content_key == small_bundle.content_key
    flipped = write_bundle(
        copy.path, copy.load_weights(), network=copy.network, classes=copy.classes,
        spec=InputSpec(color_order="rgb"), settings=copy.settings, about={},
    )  # fmt: skip
    assert flipped.content_key != small_bundle.content_key


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"network": {"backbone": "resnet18", "depth": 3}}, "depth: 3"),
        ({"network": {"backbone": "vgg"}}, "efficientnet_lite0, got 'vgg'"),
        ({"network": {"semantics_channels": 12}}, "multiple of group_size 8, got 12"),
        ({"classes": "kitti"}, "got 'kitti'"),
        ({"input": {"size": [64]}}, "unpack|size"),
        ({"input": {"fit": "crop"}}, "stretch, pad"),
        ({"input": {"mirror": True}}, "mirror"),
        ({"postprocess": {"mask_threshold": 2}}, "mask_threshold to be a number"),
    ],
)
def test_wrong_cards_are_refused(copy: ModelBundle, change: dict[str, object], reason: str) -> None:
    card = yaml.safe_load((copy.path / "model.yaml").read_text())
    (copy.path / "model.yaml").write_text(yaml.safe_dump(card | change))
    with pytest.raises(InvalidInputError, match=reason):
        read_bundle(copy.path)


@pytest.mark.parametrize("text", ["", "- a", "name: x", "{", "\x00"])
def test_cards_that_are_none(copy: ModelBundle, text: str) -> None:
    (copy.path / "model.yaml").write_text(text)
    with pytest.raises(InvalidInputError, match=re.escape(str(copy.path / "model.yaml"))):
        read_bundle(copy.path)


def test_missing_bundle_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="import-weights"):
        read_bundle(tmp_path / "nothing")
    with pytest.raises(InvalidInputError, match=r"no_such_model.*comes with the package \(.*camvid_lite0"):
        read_bundle("no_such_model")


def test_differences_are_named(small_bundle: ModelBundle, tmp_path: Path) -> None:
    weights = small_bundle.load_weights()
    weights["surplus"] = weights.pop("panoptic_head.levelness.bias")
    weights["panoptic_head.centerness.bias"] = np.zeros(2, np.float32)
    save_file(weights, tmp_path / "w.safetensors")
    with pytest.raises(InvalidInputError) as caught:
        import_weights(
            tmp_path / "w.safetensors", tmp_path / "out", network=small_bundle.network,
            classes=small_bundle.classes, settings={},
        )  # fmt: skip
    assert "panoptic_head.levelness.bias is missing" in str(caught.value)
    assert "surplus is unknown" in str(caught.value)
    assert "panoptic_head.centerness.bias has shape (2,), expected (1,)" in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_command_line_import_and_its_errors(
    small_bundle: ModelBundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--backbone", "resnet18", "--classes", "camvid", "--out", str(tmp_path / "out")]
    for name, content in (("w.npz", b"nonsense"), ("w.safetensors", b"\x10"), ("w.txt", b""), ("w.pth", b"junk")):
        (tmp_path / name).write_bytes(content)
        assert main(["import-weights", str(tmp_path / name), *arguments]) == 1
        assert name in capsys.readouterr().err
    assert main(["import-weights", str(tmp_path / "absent.npz"), *arguments]) == 1
    assert "found none" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()

    weights = small_bundle.load_weights()
    weights["panoptic_head.centerness.bias"] = np.full(1, np.nan, np.float32)
    np.savez(tmp_path / "nan.npz", **weights)
    with pytest.raises(InvalidInputError, match=r"NaN or infinity in panoptic_head\.centerness\.bias"):
        import_weights(
            tmp_path / "nan.npz", tmp_path / "out", network=small_bundle.network, classes=small_bundle.classes,
            settings={},
        )  # fmt: skip


def test_pickled_code_is_not_run(tmp_path: Path, small_network: NetworkConfig) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    marker = tmp_path / "ran"

    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (marker,)  # type: ignore[return-value]

    torch.save({"state_dict": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(InvalidInputError, match="without running code"):
        import_weights(
            tmp_path / "evil.pth", tmp_path / "out", network=small_network, classes=load_class_table("camvid"),
            settings={},
        )  # fmt: skip
    assert not marker.exists()
