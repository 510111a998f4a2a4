"""`rt-panoptic train`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from rt_panoptic_ros.commands.options import natural
from rt_panoptic_ros.errors import require_package

_SHORTCUTS = {
    "from_model": "model bundle whose weights are started from, a folder or a shipped one's name",
    "data.dataset": "such as coco_instances; a wrong name is answered with all there are",
    "data.train_split": "what is learned, such as 'default[:80%%]'",
    "data.val_split": "what is looked at meanwhile, such as 'default[80%%:]'",
}
"""Entries of a recipe that have an option of their own: {entry: what it is}."""


def _train(options: argparse.Namespace) -> None:
    require_package("torch", "training")
    from rt_panoptic_ros.training.recipe import read_recipe
    from rt_panoptic_ros.training.trainer import train

    recipe = read_recipe(options.config, [*options.set, *_shortcuts(options)])
    bundle = train(
        recipe,
        options.root,
        options.out,
        resume=options.resume,
        device=options.device,
        workers=options.workers,
        until=options.until,
    )
    if bundle is not None:
        print(f"{bundle.path}: {bundle.about.get('figures')}")


def _shortcuts(options: argparse.Namespace) -> list[str]:
    """Return the changes that options of their own ask for; a JSON text is a YAML text too, whatever it holds."""
    given = {entry: getattr(options, entry.rpartition(".")[2]) for entry in _SHORTCUTS}
    return [f"{entry}={json.dumps(value)}" for entry, value in given.items() if value is not None]


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommands."""
    command = commands.add_parser("train", help="train a network by a recipe, into a model bundle")
    command.set_defaults(run=_train)
    add_training(command)
    for entry, explanation in _SHORTCUTS.items():
        option = "--" + entry.rpartition(".")[2].replace("_", "-")
        command.add_argument(option, help=f"{explanation}: short for --set {entry}=...")
    command.add_argument("--resume", action="store_true", help="continue from the checkpoint in --out")
    command.add_argument("--until", type=natural, default=0, help="stop after this many steps, to be resumed; 0: end")


def add_training(command: argparse.ArgumentParser, default: str | None = None) -> None:
    """Add the options of what is trained, and where; `default` is the recipe's, None asks for one."""
    command.add_argument(
        "--config", required=default is None, default=default, help="recipe file, or the name of one in config/train"
    )
    command.add_argument("--root", required=True, type=Path, help="folder of the dataset")
    command.add_argument("--out", required=True, type=Path, help="folder of the results")
    command.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    command.add_argument("--workers", type=natural, default=1, help="processes that prepare images")
    command.add_argument(
        "--set", action="append", default=[], metavar="ENTRY=VALUE",
        help="an entry over the recipe's, such as schedule.steps=100; may be repeated",
    )  # fmt: skip
