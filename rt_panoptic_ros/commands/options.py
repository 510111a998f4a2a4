# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Options and checks that several subcommands share."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rt_panoptic_ros.errors import InvalidInputError
from rt_panoptic_ros.resources import DEFAULT_MODEL
from rt_panoptic_ros.settings import BACKENDS, DEVICES, OVERLAY_OPACITY, PALETTES, parse_size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rt_panoptic_ros.datasets.base import PanopticDataset
    from rt_panoptic_ros.pipeline import PanopticPipeline


def parse_settings(pairs: Sequence[str]) -> dict[str, object]:
    """Return {name: value text} of texts such as mask_threshold=0.3.

    Raises:
        InvalidInputError: A text without `=`.
    """
    settings: dict[str, object] = {}
    for pair in pairs:
        name, sign, value = pair.partition("=")
        if not sign:
            raise InvalidInputError(f"expected --set NAME=VALUE, got '{pair}'")
        settings[name.strip()] = value.strip()
    return settings


def natural(text: str) -> int:
    """Return a whole number from 0, for argparse."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a whole number from 0, got '{text}'")
    return int(text)


def positive(text: str) -> int:
    """Return a whole number from 1, for argparse."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1, got '{text}'")
    return int(text)


def share(text: str) -> float:
    """Return a number from 0 to 1, for argparse."""
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to 1, got '{text}'")
    return number


def pipeline_arguments(options: argparse.Namespace) -> dict[str, Any]:
    """Return the arguments of `open_pipeline` that the options of `add_pipeline` ask for."""
    return {
        "model": options.model,
        "backend": options.backend,
        "device": options.device,
        "precision": options.precision,
        "tf32": options.tf32,
        "network_size": parse_size("--size", options.size),
        "settings": parse_settings(options.set),
    }


def open_dataset_of(options: argparse.Namespace) -> PanopticDataset:
    """Return the dataset that the options of `add_dataset` ask for.

    Raises:
        InvalidInputError: --root or --split is missing, or the dataset can't be opened.
    """
    from rt_panoptic_ros.datasets.opening import open_dataset

    if options.root is None or options.split is None:
        raise InvalidInputError(f"expected --root and --split of dataset {options.dataset}, got none: add them")
    return open_dataset(
        options.dataset, options.root, options.split, label_map=options.label_map, complete=options.complete or None
    )


def open_pipeline_of(options: argparse.Namespace) -> PanopticPipeline:
    """Return the pipeline that the options of `add_pipeline` ask for."""
    from rt_panoptic_ros.pipeline import open_pipeline

    return open_pipeline(**pipeline_arguments(options))


def add_dataset(command: argparse.ArgumentParser, instead: argparse._MutuallyExclusiveGroup | None = None) -> None:
    """Add the options of a labelled dataset; `instead` has other options, one of which can take its place."""
    name_help = "such as camvid; a wrong name is answered with all there are"
    if instead is None:
        command.add_argument("--dataset", required=True, help=name_help)
    else:
        instead.add_argument("--dataset", help=f"a dataset's images: {name_help}")
    command.add_argument("--root", required=instead is None, type=Path, help="folder of the dataset")
    command.add_argument("--split", required=instead is None, help="as the dataset calls it, such as val")
    command.add_argument("--label-map", help="merge and drop classes: a file, or the name of one in config/label_maps")
    command.add_argument("--complete", action="store_true", help="all objects are labelled, what is void holds none")


def add_pipeline(command: argparse.ArgumentParser, *, model_required: bool = True) -> None:
    """Add the options of a pipeline."""
    add_backend(command, model_required=model_required)
    add_device(command)
    command.add_argument(
        "--size", default="", help="HEIGHTxWIDTH px that images are brought to, in place of the card's"
    )
    add_set(command)


def add_model(command: argparse.ArgumentParser, *, required: bool = True) -> None:
    """Add the option that says which model."""
    default = "" if required else f" (default: {DEFAULT_MODEL})"
    command.add_argument(
        "--model", required=required, help=f"folder of a model bundle, or the name of a shipped one{default}"
    )


def add_device(command: argparse.ArgumentParser) -> None:
    """Add the option that says where to compute."""
    command.add_argument("--device", default=DEVICES[0], help=f"{', '.join(DEVICES)} (default: %(default)s)")


def add_backend(command: argparse.ArgumentParser, *, model_required: bool = True) -> None:
    """Add the options of a backend: the model, and what computes its network how precisely."""
    add_model(command, required=model_required)
    command.add_argument("--backend", default=BACKENDS[0], help=f"{', '.join(BACKENDS)} (default: %(default)s)")
    command.add_argument(
        "--precision", default="auto",
        help="float32, float16 on a GPU, int8 where the model has ranges, or auto (default): int8 on a CPU where the "
        "model's card says that it loses next to nothing",
    )  # fmt: skip
    add_tf32(command)


def add_tf32(command: argparse.ArgumentParser) -> None:
    """Add the option that lets float32 be less."""
    command.add_argument(
        "--tf32", action="store_true", help="float32 products round their inputs to 10 bits of mantissa on NVIDIA GPUs"
    )


def add_set(command: argparse.ArgumentParser) -> None:
    """Add the option that changes post-processing settings."""
    command.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE",
        help="a post-processing setting over the card's, such as mask_threshold=0.3; may be repeated",
    )  # fmt: skip


def add_labels(command: argparse.ArgumentParser) -> None:
    """Add the options that say what the labels are: classes, size, which objects are told of, and how."""
    command.add_argument(
        "--label-map", default="", metavar="MAP",
        help="merge, rename and drop the model's classes: a YAML file, or the name of one in config/label_maps",
    )  # fmt: skip
    command.add_argument(
        "--output-size", default="", metavar="HEIGHTxWIDTH",
        help="px of all that is written, by nearest neighbour, in place of the images'",
    )  # fmt: skip
    command.add_argument("--tracking", action="store_true", help="an object keeps its id from frame to frame")
    command.add_argument(
        "--object-classes", default="", metavar="NAMES", help="such as person,vehicle: only their objects are told of"
    )


def add_mask(command: argparse.ArgumentParser) -> None:
    """Add the option that says what the mask has."""
    command.add_argument(
        "--mask-classes", default="", metavar="NAMES",
        help="such as person,sky: the classes whose pixels `mask` has (default: all countable ones)",
    )  # fmt: skip


def add_overlay(command: argparse.ArgumentParser) -> None:
    """Add the options of the overlay."""
    command.add_argument(
        "--palette", default=PALETTES[0], choices=PALETTES,
        help="of the overlays: the dataset's colours (default), or ones that colour-blind people tell apart",
    )  # fmt: skip
    command.add_argument(
        "--opacity", type=share, default=OVERLAY_OPACITY,
        help="share of the class colours in the overlays, 0 to 1 (default: %(default)s)",
    )  # fmt: skip
