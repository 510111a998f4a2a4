# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""`rt-panoptic doctor`."""

from __future__ import annotations

import argparse

from rt_panoptic_ros.errors import InvalidInputError


def _doctor(options: argparse.Namespace) -> int:
    from rt_panoptic_ros.ros.processes import require_ros

    require_ros("the doctor")
    from rt_panoptic_ros.ros.doctor.node_rules import diagnose
    from rt_panoptic_ros.ros.doctor.observation import examine
    from rt_panoptic_ros.ros.doctor.verdicts import format_report

    if not options.seconds > 0:
        raise InvalidInputError(f"expected --seconds above 0, got {options.seconds:g}")
    ros_arguments = [] if options.ros_args is None else ["--ros-args", *options.ros_args]
    graph = examine(options.seconds, options.node, ros_arguments)
    verdicts = diagnose(graph)
    print(format_report(verdicts, graph))
    return int(any(verdict.is_fault for verdict in verdicts))


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    command = commands.add_parser(
        "doctor", help="say why nothing, or too little, comes from a running node, and what to do"
    )
    command.set_defaults(run=_doctor)
    command.add_argument("--node", default="", help="name of the node to look at (default: all panoptic nodes)")
    command.add_argument(
        "--seconds", type=float, default=5.0,
        help="how long to listen to cameras and outputs, once the nodes are found (default: %(default)s)",
    )  # fmt: skip
    command.add_argument("--ros-args", nargs=argparse.REMAINDER, help="what follows is for ROS")
