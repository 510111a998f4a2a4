# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Going on from a bundle: what is kept, what the encoder does, when training ends and what is shipped then."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import TINY_RECIPE

from rt_panoptic_ros.cli import main
from rt_panoptic_ros.errors import InvalidInputError
from rt_panoptic_ros.model.bundle import ModelBundle
from rt_panoptic_ros.model.class_table import ClassTable, SemanticClass
from rt_panoptic_ros.training.best_weights import BestWeights
from rt_panoptic_ros.training.checkpoints import CHECKPOINT
from rt_panoptic_ros.training.model_weights import weights_of_model
from rt_panoptic_ros.training.recipe import Recipe, parse_recipe
from rt_panoptic_ros.training.trainer import initial_network, train
from rt_panoptic_ros.training.training_log import TrainingLog

torch.set_num_threads(1)

OWN = ClassTable(
    "own",
    tuple(
        SemanticClass(number, name, thing, (number, 0, 0), number)
        for number, (name, thing) in enumerate([("floor", False), ("bicyclist", True), ("sky", False), ("car", True)])
    ),
)
"""Two classes are new or stuff otherwise, and CamVid's things come in another order."""

BODY = "backbone.body."


def document(bundle: ModelBundle, **entries: Any) -> dict[str, Any]:
    """Return a tiny recipe that starts from `bundle`."""
    return {**{k: v for k, v in TINY_RECIPE.items() if k != "network"}, "from_model": str(bundle.path), **entries}


def run(recipe: Recipe, root: Path, out: Path, **options: Any) -> ModelBundle | None:
    return train(recipe, root, out, **{"resume": False, "device": "cpu", "workers": 0, **options})


def test_a_recipe_leaves_to_the_bundle_what_it_does_not_say(small_bundle: ModelBundle) -> None:
    recipe = parse_recipe(
        "mine", document(small_bundle, input={"size": [64, 96]}, postprocess={"mask_threshold": 0.25})
    )
    assert recipe.network == small_bundle.network
    assert recipe.input == replace(small_bundle.input, size=(64, 96))
    assert recipe.postprocess == small_bundle.settings.replaced({"mask_threshold": 0.25})
    assert recipe.from_model_sha256 == small_bundle.weights_sha256
    assert parse_recipe("mine", recipe.to_document()) == recipe


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (
            {"network": {"backbone": "resnet18", "pyramid_channels": 32}},
            "got .*pyramid_channels 32.*leave the entry",
        ),
        ({"from_model_sha256": "0" * 64}, "got others .*restore them, or leave from_model_sha256 out"),
        ({"from_model": "no_such_model"}, "expected a model bundle .* at 'no_such_model'"),
        ({"backbone_weights": "resnet18.pth"}, "backbone_weights or from_model, not both"),
        ({"schedule": {"patience": 3}}, r"validate_epochs above 0 with schedule\.patience"),
        ({"augmentation": {"base_size": [48, 64]}}, r"base_size to be input\.size None, which"),
        ({"schedule": {"epoch_images": -1}}, r"schedule\.epoch_images and patience from 0"),
    ],
)
def test_what_a_recipe_can_not_say_beside_a_bundle(
    small_bundle: ModelBundle, entries: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidInputError, match=message):
        parse_recipe("mine", document(small_bundle, **entries))


def test_options_of_their_own_say_what_set_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever YAML would make of their texts."""
    command = ["train", "--config", "finetune_lite0", "--root", str(tmp_path), "--out", str(tmp_path / "run")]
    assert main([*command, "--from-model", "no: such"]) == 1
    assert "expected a model bundle" in (said := capsys.readouterr().err)
    assert "at 'no: such'" in said
    assert main([*command, "--dataset", "coco_panoptic", "--train-split", "7[:50%]"]) == 1
    assert f"got no {tmp_path / '7'}" in capsys.readouterr().err


def test_channels_of_classes_of_the_same_name_are_kept_and_the_others_begin_anew(small_bundle: ModelBundle) -> None:
    recipe = parse_recipe("mine", document(small_bundle))
    old = small_bundle.load_weights()
    network, note = initial_network(recipe, OWN)
    got = {name: value.numpy() for name, value in network.state_dict().items()}
    assert all(np.array_equal(got[name], old[name]) for name in old if "cls_logits" not in name)
    fresh = {name: np.full_like(value, 7) for name, value in got.items()}
    weights, _ = weights_of_model(small_bundle, OWN, fresh)
    camvid = small_bundle.classes
    things = [camvid.names[thing] for thing in camvid.thing_ids]
    for part in ("weight", "bias"):
        semantic, box = (f"panoptic_head.{layer}.{part}" for layer in ("cls_logits", "box_cls_logits"))
        rows = [np.full_like(old[semantic][0], 7), *(old[semantic][camvid.names.index(n)] for n in OWN.names[1:])]
        assert np.array_equal(weights[semantic], rows)
        assert np.array_equal(weights[box], [old[box][things.index(name)] for name in ("bicyclist", "car")])
    assert "cls_logits begins anew for floor and keeps bicyclist, sky, car; box_cls_logits begins anew for no" in note


def test_a_thing_that_was_stuff_has_a_new_box_channel(small_bundle: ModelBundle) -> None:
    classes = ClassTable("own", (SemanticClass(0, "sky", True, (0, 0, 0), 0),))
    _, note = initial_network(parse_recipe("mine", document(small_bundle)), classes)
    assert "cls_logits begins anew for no class and keeps sky; box_cls_logits begins anew for sky and keeps no" in note


def test_the_card_says_from_what_and_the_log_says_what_is_kept(
    small_bundle: ModelBundle, tiny_camvid: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        bundle = run(parse_recipe("mine", document(small_bundle)), tiny_camvid, tmp_path / "run")
    assert bundle is not None
    assert bundle.about["from_model"]["weights_sha256"] == small_bundle.weights_sha256
    assert bundle.about["recipe"]["from_model_sha256"] == small_bundle.weights_sha256
    assert sum("starting from small" in record.message for record in caplog.records) == 1
    changed = small_bundle.load_weights()
    assert any(not np.array_equal(value, changed[name]) for name, value in bundle.load_weights().items())


@pytest.mark.parametrize("factor", [0.0, 0.5])
def test_a_factor_of_0_freezes_the_encoder(
    small_bundle: ModelBundle, tiny_camvid: Path, tmp_path: Path, factor: float
) -> None:
    optimizer = {**TINY_RECIPE["optimizer"], "backbone_factor": factor}
    bundle = run(parse_recipe("mine", document(small_bundle, optimizer=optimizer)), tiny_camvid, tmp_path / "run")
    assert bundle is not None
    old, new = small_bundle.load_weights(), bundle.load_weights()
    kernels = {name for name, value in old.items() if value.ndim == 4}
    changed = {name for name in kernels if not np.array_equal(old[name], new[name])}
    encoder = {name for name in kernels if name.startswith(BODY)}
    assert changed == (kernels if factor else kernels - encoder)


PQ_BY_STEP = {2: 10.0, 4: 30.0, 6: 20.0, 8: 30.0, 10: 90.0}


@pytest.fixture
def stopping(small_bundle: ModelBundle, monkeypatch: pytest.MonkeyPatch) -> Recipe:
    """A recipe whose validations, every second step, find `PQ_BY_STEP`: two are no better than that of step 4."""
    monkeypatch.setattr(TrainingLog, "_show", lambda *_: None)  # pictures, which take most of the time
    monkeypatch.setattr(TrainingLog, "validate", lambda _, step, __: {"pq": PQ_BY_STEP[step]})
    schedule = {**TINY_RECIPE["schedule"], "steps": 10, "epoch_images": 4, "patience": 2}
    return parse_recipe("mine", document(small_bundle, schedule=schedule, validate_epochs=1))


def test_training_ends_when_nothing_gets_better_and_ships_the_best(
    stopping: Recipe, tiny_camvid: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        bundle = run(stopping, tiny_camvid, tmp_path / "run")
    assert bundle is not None
    assert bundle.about["origin"].endswith("after 4 steps")
    assert bundle.about["figures"]["pq"] == 30
    assert "ended at step 8: the last 2 validations were no better; best on val is step 4, pq 30.00" in caplog.text
    state = torch.load(tmp_path / "run" / CHECKPOINT, weights_only=True)
    assert state["step"] == 8
    shipped = bundle.load_weights()
    assert not np.array_equal(shipped["panoptic_head.scales.0.scale"], state["average"]["panoptic_head.scales.0.scale"])
    again = run(stopping, tiny_camvid, tmp_path / "run", resume=True)  # of a run that has ended
    assert again is not None
    assert all(np.array_equal(value, shipped[name]) for name, value in again.load_weights().items())


@pytest.mark.slow(30)
def test_a_resumed_run_stops_where_an_uninterrupted_one_does(
    stopping: Recipe, tiny_camvid: Path, tmp_path: Path
) -> None:
    whole = run(stopping, tiny_camvid, tmp_path / "whole")
    for until in (3, 7):  # between two validations: once before the best, once behind
        assert run(stopping, tiny_camvid, tmp_path / "parts", until=until, resume=until > 3) is None
    resumed = run(stopping, tiny_camvid, tmp_path / "parts", resume=True)
    assert whole is not None
    assert resumed is not None
    assert whole.weights_sha256 == resumed.weights_sha256
    assert whole.about == resumed.about


def test_without_an_early_end_the_best_is_shipped_too(
    stopping: Recipe,
    tiny_camvid: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setitem(PQ_BY_STEP, 8, 31.0)
    monkeypatch.setitem(PQ_BY_STEP, 10, 5.0)
    with caplog.at_level(logging.INFO):
        bundle = run(stopping, tiny_camvid, tmp_path / "run")
    assert bundle is not None
    assert bundle.about["figures"]["pq"] == 31
    assert "ended at step 10: all steps are done; best on val is step 8" in caplog.text


def test_boxes_decide_where_there_are_no_pixels_and_nothing_where_there_is_nothing() -> None:
    best = BestWeights(1)
    best.add(1, {"miou": 3.0}, {})
    best.add(2, {}, {})
    assert (best.step, best.exhausted) == (0, False)
    best.add(3, {"box_ap50": 3.0}, {})
    best.add(4, {"box_ap50": 4.0}, {})
    best.add(5, {"box_ap50": 4.0}, {})
    assert (best.step, best.exhausted) == (4, True)
    assert best.describe(5).endswith("best on val is step 4, box_ap50 4.00")
