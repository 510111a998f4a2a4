# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""`rt-panoptic soak`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rt_panoptic_ros.commands.options import add_backend, add_device, natural
from rt_panoptic_ros.resources import DEFAULT_MODEL


def _soak(options: argparse.Namespace) -> int:
    from rt_panoptic_ros.ros.processes import require_ros

    require_ros("the soak")
    from rt_panoptic_ros.ros.soak.soak import Soak, soak

    names = ("model", "backend", "precision", "tf32", "device", "network_size")
    parameters = {name: getattr(options, name) for name in names}
    task = Soak(parameters, options.minutes, options.seed, options.rate, options.source, options.out)
    record = soak(task)
    print(f"{record.format()}\nsamples, events, summary and plot are in {options.out}")
    failures = record.failures()
    for failure in failures:
        print(f"rt-panoptic: {failure}", file=sys.stderr)
    return int(bool(failures))


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    command = commands.add_parser(
        "soak", help="run the node for a while under all kinds of disturbances; fail if memory or anything else grows"
    )
    command.set_defaults(run=_soak)
    command.add_argument("--minutes", type=float, default=10.0, help="how long (default: %(default)s)")
    command.add_argument(
        "--out", type=Path, default=Path("out", "soak"), help="folder for samples, plot and logs (default: %(default)s)"
    )
    command.add_argument("--seed", type=natural, default=1, help="of the disturbances' order (default: %(default)s)")
    command.add_argument(
        "--rate", type=float, default=4.0, help="images per second of each camera in calm (default: %(default)s)"
    )
    about = "image, folder or video whose first frames the cameras send (default: made up)"
    command.add_argument("--source", help=about)
    command.add_argument(
        "--network-size", default="128x160", help="HEIGHTxWIDTH of the network's input, px (default: %(default)s)"
    )
    add_device(command)
    add_backend(command, model_required=False)
    command.set_defaults(model=DEFAULT_MODEL)
