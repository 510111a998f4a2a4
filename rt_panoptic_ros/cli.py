# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The command line `rt-panoptic`."""

from __future__ import annotations

import argparse
import io
import logging
import sys
from typing import TYPE_CHECKING, NoReturn

from rt_panoptic_ros.commands import (
    backends,
    bags,
    benchmarks,
    bundles,
    doctor,
    gpu_check,
    labelling,
    learning,
    soak,
    view,
)
from rt_panoptic_ros.errors import RtPanopticError, one_line

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status: 0, 1 for what the user can mend, 130 when stopped."""
    options = _parser().parse_args(arguments)
    options.arguments = list(sys.argv[1:] if arguments is None else arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):  # a file's name need not be text in the locale's encoding
        sys.stdout.reconfigure(errors="backslashreplace")
    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s")
    try:
        return int(options.run(options) or 0)
    except RtPanopticError as error:
        print(f"rt-panoptic: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        reason = f"{place}{error.strerror or error}; check the path, its permissions and the disk's space"
        print(f"rt-panoptic: expected to read and write files, got {reason}", file=sys.stderr)
        return 1
    except MemoryError as error:
        print(f"rt-panoptic: expected enough memory for images of that size, got: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("rt-panoptic: stopped; what was written so far stays", file=sys.stderr)
        return 130


def main_of_doctor() -> int:
    """Run `rt-panoptic doctor` as a program of its own: `ros2 run rt_panoptic_ros doctor`."""
    return main(["doctor", *sys.argv[1:]])


class _Parser(argparse.ArgumentParser):
    """Says what is wrong with a line in one line."""

    def error(self, message: str) -> NoReturn:
        super().error(one_line(message))


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="rt-panoptic", description="Real-time panoptic segmentation from dense detections.")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for group in (labelling, bags, view, learning, bundles, backends, benchmarks, gpu_check, doctor, soak):
        group.add_commands(commands)
    return parser
