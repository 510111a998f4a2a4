# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""`rt-panoptic train` and `pseudo-label`: learning, and making labels to learn from."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from rt_panoptic_ros.commands.options import natural, positive, share
from rt_panoptic_ros.errors import require_package
from rt_panoptic_ros.settings import listed

_SHORTCUTS = {
    "from_model": "model bundle whose weights are started from, a folder or a shipped one's name",
    "data.dataset": "such as coco_instances; a wrong name is answered with all there are",
    "data.label_map": "what the classes become, a file or the name of one in config/label_maps",
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


def _pseudo_label(options: argparse.Namespace) -> None:
    from rt_panoptic_ros.detectors.description import read_description
    from rt_panoptic_ros.detectors.detector import Detector
    from rt_panoptic_ros.detectors.labelling import FrameChoice, label_sources
    from rt_panoptic_ros.model.label_map import read_label_map

    names, classes = (listed(text) for text in (options.detectors, options.classes))
    label_map = read_label_map(options.label_map) if options.label_map else None
    detectors = [Detector(read_description(name), options.models, options.tiles, label_map) for name in names]
    frames = FrameChoice(
        options.first, options.every, options.max_frames, options.min_change, options.hold_out, options.max_side
    )
    written = label_sources(
        detectors,
        options.source,
        options.out,
        (options.split, options.held_out_split),
        class_names=classes,
        min_iou=options.iou,
        frames=frames,
    )
    for split, labels in written.items():
        unknown = sum(annotation["iscrowd"] for annotation in labels.annotations)
        seen = len(labels.annotations) - unknown
        print(f"{options.out}: {split}: {len(labels.images)} pictures, {seen} objects, {unknown} unknown regions")


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

    command = commands.add_parser("pseudo-label", help="label videos and images with what ONNX detectors agree on")
    command.set_defaults(run=_pseudo_label)
    command.add_argument(
        "--source", required=True, action="append", help="image, folder of images, video or camera; may be repeated"
    )
    command.add_argument("--out", required=True, type=Path, help="folder of the data set (coco_instances) that is made")
    command.add_argument("--models", required=True, type=Path, help="folder of the detectors' ONNX files")
    command.add_argument(
        "--detectors", default="yolox_nano,deimv2_femto", metavar="NAMES",
        help="their descriptions: files, or names of config/detectors (default: %(default)s)",
    )  # fmt: skip
    command.add_argument("--classes", default="", metavar="NAMES", help="such as person,car: only these; default: all")
    command.add_argument(
        "--label-map", help="merge and drop classes before boxes are compared: a file, or a name of config/label_maps"
    )
    command.add_argument(
        "--iou", type=share, default=0.5, help="overlap from which boxes are one object (default: %(default)s)"
    )
    command.add_argument(
        "--tiles",
        type=positive,
        default=1,
        help="also look at so many times so many parts of each image, for small objects",
    )
    command.add_argument("--first", type=natural, default=0, help="frame of each source to begin with")
    command.add_argument("--every", type=positive, default=1, help="one of so many frames")
    command.add_argument("--max-frames", type=natural, default=0, help="of a source and split at most; 0: no limit")
    command.add_argument(
        "--min-change", type=float, default=0.0, metavar="LEVELS",
        help="leave out frames whose grey values (0..255) differ less, in the mean, from those of the last one taken",
    )  # fmt: skip
    command.add_argument("--max-side", type=natural, default=0, help="px to which larger pictures are reduced; 0: none")
    command.add_argument("--split", default="train", help="name of the split (default: %(default)s)")
    command.add_argument(
        "--hold-out", type=share, default=0.0, help="share of each source's frames, its last, for another split"
    )
    command.add_argument("--held-out-split", default="val", help="its name (default: %(default)s)")


def add_training(command: argparse.ArgumentParser, default: str | None = None) -> None:
    """Add the options of what is trained, and where; `default` is the recipe's, None asks for one."""
    command.add_argument(
        "--config", required=default is None, default=default, help="recipe file, or the name of one in config/train"
    )
    command.add_argument(
        "--root", required=True, type=Path, help="folder of the dataset, or of all that the recipe names"
    )
    command.add_argument("--out", required=True, type=Path, help="folder of the results")
    command.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    command.add_argument("--workers", type=natural, default=1, help="processes that prepare images")
    command.add_argument(
        "--set", action="append", default=[], metavar="ENTRY=VALUE",
        help="an entry over the recipe's, such as schedule.steps=100; may be repeated",
    )  # fmt: skip
