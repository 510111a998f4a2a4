# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The ablation: its rows, and that it goes on where it was stopped."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import pytest

from rt_panoptic_ros.errors import InvalidInputError
from rt_panoptic_ros.training.recipe import Recipe, read_recipe
from rt_panoptic_ros.training.trainer import train
from rt_panoptic_ros.training.training_log import TrainingLog
from scripts import ablation
from scripts.ablation import TABLE_3, ablate, format_table


def test_rows_differ_from_the_recipe_in_their_parts_alone() -> None:
    base = read_recipe("camvid_ablation")
    parts = [
        (recipe.network.towers, recipe.network.levelness, recipe.losses.mask, recipe.supervision)
        for recipe in (row.recipe(base, 7) for row in TABLE_3)
    ]
    assert parts == [(1, False, 0, "mask"), (2, False, 0, "mask"), (2, True, 0, "mask"), (2, True, 1, "mask"),
                     (2, True, 0, "box")]  # fmt: skip
    full = TABLE_3[3].recipe(base, base.seed)
    assert replace(full, name=base.name) == base


def test_the_table_shows_means_and_each_seed() -> None:
    figures = {
        "one_tower_seed1": {"pq": 40.0, "pq_things": 20.0, "pq_stuff": 50.0},
        "one_tower_seed2": {"pq": 41.0, "pq_things": 22.0, "pq_stuff": 50.4},
        "mask_loss_seed1": {"pq": 45.0, "pq_things": 25.0, "pq_stuff": 51.0},
    }
    lines = format_table(figures, [1, 2]).splitlines()
    assert lines[2:] == [
        "| one tower |  |  |  | 40.5 (40.0, 41.0) | 21.0 (20.0, 22.0) | 50.2 (50.0, 50.4) |",
        "| mask loss | ✓ | ✓ | ✓ | 45.0 | 25.0 | 51.0 |",
    ]


@pytest.mark.slow(60)
def test_an_ablation_goes_on_where_it_was_stopped(
    tiny_camvid: Path, tiny_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TrainingLog, "_show", lambda *_: None)  # pictures, which take most of the time
    rows = (TABLE_3[0], TABLE_3[1], TABLE_3[3])  # the others differ from these as the test above has it
    monkeypatch.setattr(ablation, "TABLE_3", rows)
    base = replace(tiny_recipe, validate_epochs=1, schedule=replace(tiny_recipe.schedule, steps=2))
    out = tmp_path / "ablation"
    started: list[tuple[str, bool]] = []

    def stopped(recipe: Recipe, root: Path, out: Path, *, resume: bool, device: str, workers: int) -> object:
        started.append((recipe.name, resume))
        if recipe.name == "two_towers_seed1" and not resume:
            train(recipe, root, out, resume=resume, device=device, workers=workers, until=1)
            raise KeyboardInterrupt
        return train(recipe, root, out, resume=resume, device=device, workers=workers)

    with pytest.raises(KeyboardInterrupt):
        ablate(base, tiny_camvid, out, seeds=[1], device="cpu", workers=0, learn=stopped)
    assert "one tower" in (out / "table.md").read_text()
    table = ablate(base, tiny_camvid, out, seeds=[1], device="cpu", workers=0, learn=stopped)
    assert started == [
        ("one_tower_seed1", False), ("two_towers_seed1", False), ("two_towers_seed1", True), ("mask_loss_seed1", False),
    ]  # fmt: skip
    assert table == (out / "table.md").read_text()
    assert len(table.splitlines()) == 2 + len(rows)
    curves = cv2.imread(str(out / "curves.png"))
    assert curves.std() > 0
    assert ablate(base, tiny_camvid, out, seeds=[1], device="cpu", workers=0, learn=stopped) == table
    assert len(started) == 4, "what is finished is not done again"
    longer = replace(base, schedule=replace(base.schedule, steps=3))
    with pytest.raises(InvalidInputError, match="another schedule"):
        ablate(longer, tiny_camvid, out, seeds=[1], device="cpu", workers=0, learn=stopped)


def test_a_recipe_that_lacks_a_part_is_refused(tiny_camvid: Path, tiny_recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="have all that the rows leave out"):
        ablate(replace(tiny_recipe, supervision="box", losses=replace(tiny_recipe.losses, mask=0.0)), tiny_camvid,
               tmp_path / "out", seeds=[1])  # fmt: skip
    with pytest.raises(InvalidInputError, match="none twice"):
        ablate(tiny_recipe, tiny_camvid, tmp_path / "out", seeds=[1, 1])
