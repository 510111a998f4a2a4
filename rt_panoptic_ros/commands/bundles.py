# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""`rt-panoptic import-weights`, `make-untrained` and `calibrate`: what makes and completes model bundles."""

from __future__ import annotations

import argparse
from itertools import islice
from pathlib import Path

from rt_panoptic_ros.commands.options import add_dataset, add_set, natural, open_dataset_of, parse_settings, positive
from rt_panoptic_ros.model.architecture import BACKBONES, NetworkConfig
from rt_panoptic_ros.settings import parse_size


def _import_weights(options: argparse.Namespace) -> None:
    from rt_panoptic_ros.model.class_table import load_class_table
    from rt_panoptic_ros.network.weights_import import import_weights

    bundle = import_weights(
        options.checkpoint,
        options.out,
        network=_network(options),
        classes=load_class_table(options.classes),
        settings=parse_settings(options.set),
    )
    print(f"{bundle.path}: {len(bundle.layout)} entries of {bundle.network.backbone}, {len(bundle.classes)} classes")


def _make_untrained(options: argparse.Namespace) -> None:
    from rt_panoptic_ros.model.class_table import load_class_table
    from rt_panoptic_ros.model.untrained import make_untrained_bundle

    size = parse_size("--size", options.size)
    classes = load_class_table(options.classes)
    bundle = make_untrained_bundle(
        options.out, network=_network(options), classes=classes, size=size, seed=options.seed
    )
    print(f"{bundle.path}: random weights; its labels mean nothing")


def _calibrate(options: argparse.Namespace) -> None:
    from rt_panoptic_ros.frames.sources import open_source
    from rt_panoptic_ros.inference.calibration import calibrate_from_images
    from rt_panoptic_ros.model.bundle import read_bundle, write_ranges

    bundle = read_bundle(options.model)
    if options.dataset:
        dataset = open_dataset_of(options)
        images = (dataset[index].image for index in range(0, len(dataset), max(1, len(dataset) // options.frames)))
        ranges, place = calibrate_from_images(bundle, images, options.frames), f"{options.dataset} {options.split}"
    else:
        with open_source(options.source) as source:
            spread = islice(source, 0, None, max(1, (source.count or 0) // options.frames))
            ranges = calibrate_from_images(bundle, (frame.image for frame in spread), options.frames)
        place = options.source
    path = write_ranges(bundle, ranges, options.origin or f"{options.frames} frames of {place}")
    print(f"{path}: {len(ranges)} ranges, for --precision int8")


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommands."""
    command = commands.add_parser("import-weights", help="make a model bundle from a checkpoint")
    command.set_defaults(run=_import_weights)
    command.add_argument("checkpoint", type=Path, help="file of torch (weights only), .safetensors or .npz")
    command.add_argument("--out", required=True, type=Path, help="folder of the new bundle")
    _add_network(command)
    add_set(command)

    command = commands.add_parser("make-untrained", help="make a model bundle of random weights, for tests and timing")
    command.set_defaults(run=_make_untrained)
    command.add_argument("--out", required=True, type=Path, help="folder of the new bundle")
    command.add_argument(
        "--size", default="", help="HEIGHTxWIDTH px that images are brought to (default: as they come)"
    )
    command.add_argument("--seed", type=natural, default=1, help="of the random weights")
    _add_network(command)

    command = commands.add_parser("calibrate", help="measure a model's activations on real frames, for precision int8")
    command.set_defaults(run=_calibrate)
    command.add_argument("--model", required=True, help="folder of a model bundle; the ranges are written into it")
    frames = command.add_mutually_exclusive_group(required=True)
    frames.add_argument("--source", help="typical frames: image, folder of images, or video")
    add_dataset(command, instead=frames)
    command.add_argument("--frames", type=positive, default=48, help="frames to take at most (default: %(default)s)")
    command.add_argument("--origin", default="", help="what the frames are, to be written beside the ranges")


def _network(options: argparse.Namespace) -> NetworkConfig:
    widths = {}
    if options.channels:
        widths = {
            "pyramid_channels": options.channels,
            "localization_channels": options.channels,
            "semantics_channels": options.channels // 2,
        }
    return NetworkConfig(
        backbone=options.backbone, towers=options.towers, levelness=not options.without_levelness, **widths
    )


def _add_network(command: argparse.ArgumentParser) -> None:
    command.add_argument("--backbone", default="resnet50", choices=BACKBONES)
    command.add_argument("--classes", default="cityscapes", help="class table: cityscapes, coco or camvid")
    command.add_argument("--channels", type=int, help="of pyramid and localization tower; semantics has half")
    command.add_argument("--towers", type=int, default=2, choices=(1, 2), help="1: one tower for both tasks (Table 3)")
    command.add_argument("--without-levelness", action="store_true", help="the variant of Appendix B")
