# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""`rt-panoptic gpu-check`."""

from __future__ import annotations

import argparse
from pathlib import Path

from rt_panoptic_ros.commands.options import positive
from rt_panoptic_ros.errors import require


def _check(options: argparse.Namespace) -> int:
    from rt_panoptic_ros.benchmark.gpu_check import STEPS, Plan, check_gpu

    plan = Plan.small(options.device) if options.small else Plan(options.device)
    unknown = next((name for name in (*options.only, *options.skip) if name not in STEPS), None)
    require(unknown is None, f"steps named {', '.join(STEPS)}", f"'{unknown}'")
    steps = [step for step in options.only or STEPS if step not in options.skip]
    reports = check_gpu(plan, options.out, steps, limit_s=options.limit)
    return int(any(report.failures for report in reports))


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    command = commands.add_parser("gpu-check", help="show that all of it works on this GPU, and how fast")
    command.set_defaults(run=_check)
    command.add_argument(
        "--device", default="cuda:0", help="cuda, cuda:1, ..., or cpu to try the check itself (default: %(default)s)"
    )
    command.add_argument("--out", type=Path, default=Path("gpu_check"), metavar="DIR", help="default: %(default)s")
    command.add_argument("--only", nargs="+", default=[], metavar="STEP", help="these steps (default: all)")
    command.add_argument("--skip", nargs="+", default=[], metavar="STEP", help="not these")
    command.add_argument("--small", action="store_true", help="small images, few repetitions")
    command.add_argument("--limit", type=positive, default=585, metavar="S", help="in all (default: %(default)s)")
