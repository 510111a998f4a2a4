# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Table 3 of the paper in miniature, each row trained for equally many steps: `python -m scripts.ablation --help`."""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from rt_panoptic_ros.commands.learning import add_training
from rt_panoptic_ros.commands.options import natural
from rt_panoptic_ros.errors import InvalidInputError, RtPanopticError, require_package
from rt_panoptic_ros.files import output_path
from rt_panoptic_ros.model.bundle import CARD, read_bundle
from rt_panoptic_ros.training.checkpoints import CHECKPOINT
from rt_panoptic_ros.training.recipe import Recipe, read_recipe
from rt_panoptic_ros.training.trainer import train
from rt_panoptic_ros.training.training_log import FIGURES

if TYPE_CHECKING:
    from collections.abc import Callable

    from rt_panoptic_ros.model.bundle import ModelBundle

_log = logging.getLogger(__name__)

_SHOWN = {"pq": "PQ", "pq_things": "PQ^th", "pq_stuff": "PQ^st"}


@dataclass(frozen=True, slots=True)
class Row:
    """A row of Table 3: which of the parts it has."""

    name: str
    two_towers: bool = True
    levelness: bool = True
    mask_loss: bool = False
    weak: bool = False  # learns from boxes (Section 5.6)

    def recipe(self, base: Recipe, seed: int) -> Recipe:
        """Return `base` with this row's parts alone."""
        return replace(
            base,
            name=run_name(self, seed),
            network=replace(base.network, towers=2 if self.two_towers else 1, levelness=self.levelness),
            losses=base.losses if self.mask_loss else replace(base.losses, mask=0.0),
            supervision="box" if self.weak else "mask",
            seed=seed,
        )


TABLE_3 = (
    Row("one_tower", two_towers=False, levelness=False),
    Row("two_towers", levelness=False),
    Row("levelness"),
    Row("mask_loss", mask_loss=True),
    Row("weak_supervision", weak=True),
)


def ablate(
    base: Recipe,
    root: Path,
    out: Path,
    *,
    seeds: Sequence[int],
    device: str = "auto",
    workers: int = 1,
    learn: Callable[..., ModelBundle | None] = train,
) -> str:
    """Train and measure each row of Table 3 with each seed; return the table.

    May be stopped and called again: what is finished is read, what was begun goes on from its last checkpoint. After
    each run `out` holds the table and the figures so far (table.md, figures.json) and their curves over the steps
    (curves.png); the run itself is in `out`/ROW_seedN, see `trainer.train`.

    Args:
        base: What all rows have in common; it has the mask loss and levelness.
        root: Folder of the dataset.
        out: Folder of the results.
        seeds: At least one, none twice; more show the noise.
        device: auto, cpu or cuda.
        workers: Processes that prepare images.
        learn: Trains a run, with the arguments of `trainer.train`.

    Raises:
        InvalidInputError: Wrong recipe, seeds or data, or `out` holds runs of another recipe.
        UnavailableError: A package or device is missing, or a file can't be written.
    """
    if not seeds or len(set(seeds)) < len(seeds):
        raise InvalidInputError(f"expected at least one seed and none twice, got {list(seeds)}: change --seeds")
    if base.supervision != "mask" or not base.losses.mask or not base.network.levelness or base.network.towers != 2:
        raise InvalidInputError(
            f"expected recipe '{base.name}' to have all that the rows leave out (two towers, levelness, the mask loss, "
            "supervision by masks): change the recipe"
        )
    require_package("matplotlib", "the curves")  # else it would be missed after the first run
    runs = [(row, seed) for seed in seeds for row in TABLE_3]  # by seed, so that a stopped ablation has whole columns
    figures: dict[str, dict[str, float]] = {}
    table = ""

    def trained(recipe: Recipe, out: Path, *, resume: bool) -> ModelBundle | None:
        return learn(recipe, root, out, resume=resume, device=device, workers=workers)

    for number, (row, seed) in enumerate(runs, 1):
        name = run_name(row, seed)
        _log.info("run %d of %d: %s", number, len(runs), name)
        figures[name] = _figures(row.recipe(base, seed), out / name, trained)
        table = format_table(figures, seeds)
        for file, text in (("table.md", table), ("figures.json", json.dumps(figures, indent=2) + "\n")):
            with output_path(out / file) as temporary:
                temporary.write_text(text, encoding="utf-8")
        _draw_curves(out, runs[:number])
    return table


def run_name(row: Row, seed: int) -> str:
    """Return the name of a run and of its folder."""
    return f"{row.name}_seed{seed}"


def format_table(figures: Mapping[str, Mapping[str, float]], seeds: Sequence[int]) -> str:
    """Return Table 3 as Markdown: means over the seeds, percent, and behind them each seed's figure.

    Args:
        figures: Percent by run and name, of the runs that are finished.
        seeds: In the order of the figures in parentheses.
    """
    lines = [
        f"| | Two towers | Levelness | Mask loss | {' | '.join(_SHOWN.values())} |",
        f"|---|:---:|:---:|:---:|{'---:|' * len(_SHOWN)}",
    ]
    for row in TABLE_3:
        done = [figures[run_name(row, seed)] for seed in seeds if run_name(row, seed) in figures]
        if done:
            marks = ["✓" if part else "" for part in (row.two_towers, row.levelness, row.mask_loss)]
            cells = [row.name.replace("_", " "), *marks, *(_cell([run[name] for run in done]) for name in _SHOWN)]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cell(values: Sequence[float]) -> str:
    mean = f"{sum(values) / len(values):.1f}"
    return mean if len(values) == 1 else f"{mean} ({', '.join(f'{value:.1f}' for value in values)})"


def _figures(recipe: Recipe, out: Path, trained: Callable[..., ModelBundle | None]) -> dict[str, float]:
    """Return the figures of a run on the validation split, which is done first where it isn't yet."""
    model = out / "model"
    bundle = read_bundle(model) if (model / CARD).is_file() else None
    if bundle is None or "figures" not in bundle.about or bundle.about["recipe"] != recipe.to_document():
        # Where the folder holds another recipe's run, this says so.
        bundle = trained(recipe, out, resume=(out / CHECKPOINT).is_file())
    if bundle is None:
        raise InvalidInputError("expected one process, got several: start the ablation without torchrun")
    return {name: float(bundle.about["figures"][name]) for name in FIGURES}


def _draw_curves(out: Path, runs: Sequence[tuple[Row, int]]) -> None:
    """Write `out`/curves.png: PQ and that of things on the validation split over the steps, a colour for each row."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.5), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    panels = figure.subplots(1, 2)
    for row, seed in runs:
        scalars = read_scalars(out / run_name(row, seed))
        first = seed == runs[0][1]
        for panel, name in zip(panels, ("pq", "pq_things"), strict=True):
            points = scalars.get(f"validation/{name}", {})
            panel.plot(
                list(points), [100 * value for value in points.values()], marker=".",
                color=f"C{TABLE_3.index(row)}", linestyle="-" if first else "--",
                label=row.name.replace("_", " ") if first else None,
            )  # fmt: skip
            panel.set(title=_SHOWN[name], xlabel="steps", ylabel="percent")
            panel.grid(alpha=0.3)
    panels[0].legend()
    with output_path(out / "curves.png") as temporary:
        canvas.print_figure(temporary, dpi=100, format="png")


def read_scalars(run: Path) -> dict[str, dict[int, float]]:
    """Return what the log in folder `run` holds: {name: {step: value}}, the last value where a step was done twice."""
    from tensorboard.backend.event_processing.event_accumulator import SCALARS, EventAccumulator

    log = EventAccumulator(str(run / "log"), size_guidance={SCALARS: 0})  # 0: all, not a sample of them
    log.Reload()
    return {name: {event.step: event.value for event in log.Scalars(name)} for name in log.Tags()[SCALARS]}


def main() -> None:
    """Run the ablation that the command line asks for."""
    parser = argparse.ArgumentParser("python -m scripts.ablation", description=__doc__)
    add_training(parser, default="camvid_ablation")
    parser.add_argument("--seeds", type=natural, nargs="+", default=[1, 2], help="one run of each row for each")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s")
    try:
        recipe = read_recipe(options.config, options.set)
        table = ablate(
            recipe, options.root, options.out, seeds=options.seeds, device=options.device, workers=options.workers
        )
    except RtPanopticError as error:
        parser.exit(1, f"{parser.prog}: {error}\n")
    print(table)
    print(f"{options.out}: table.md, figures.json, curves.png")


if __name__ == "__main__":
    main()
