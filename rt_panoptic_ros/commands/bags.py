# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""`rt-panoptic bag`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rt_panoptic_ros.commands.options import (
    add_labels,
    add_mask,
    add_overlay,
    add_pipeline,
    pipeline_arguments,
    positive,
    share,
)
from rt_panoptic_ros.errors import InvalidInputError, require_package
from rt_panoptic_ros.frames.outputs import BAG_OUTPUTS, DEFAULT_BAG_OUTPUTS
from rt_panoptic_ros.settings import DEPTH_SLACK_S, parse_size


def _bag(options: argparse.Namespace) -> None:
    for package in ("rosbags", "mcap"):
        require_package(package, "bags")
    from rt_panoptic_ros.bags import batch
    from rt_panoptic_ros.bags.options import BagOptions

    bag_options = BagOptions(
        pipeline=pipeline_arguments(options),
        images=tuple(options.images),
        topics={"all": None, "none": ()}.get(" ".join(options.topics), tuple(options.topics)),
        outputs=tuple(options.outputs or DEFAULT_BAG_OUTPUTS),
        tracking=options.tracking,
        label_map=options.label_map,
        object_classes=options.object_classes,
        mask_classes=options.mask_classes,
        depth=tuple(options.depth),
        camera_info=tuple(options.camera_info),
        depth_slack_s=options.depth_slack,
        output_size=parse_size("--output-size", options.output_size),
        opacity=options.opacity,
        palette=options.palette,
        compressed=options.compression == "zstd",
        force=options.force,
    )
    jobs = batch.plan_jobs(options.bags, options.out, bag_options)
    alone = len(jobs) == 1 and not options.ray
    run_all = batch.run_with_ray if options.ray else batch.run_in_processes
    failed = []
    for outcome in [batch.run_here(jobs[0])] if alone else run_all(jobs, options.jobs):
        if outcome.summary is not None:
            print(outcome.summary.format())
        if outcome.problem:
            failed.append(outcome)
    if failed and alone:
        raise InvalidInputError(failed[0].problem)
    if failed:
        for outcome in failed:
            print(f"rt-panoptic: {outcome.job.source}: {outcome.problem}", file=sys.stderr)
        raise InvalidInputError(f"expected all of {len(jobs)} bags to be labelled, {len(failed)} failed, as said above")


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    command = commands.add_parser("bag", help="label every frame of recorded bags (rosbag2) into new ones, without ROS")
    command.set_defaults(run=_bag)
    command.add_argument("bags", nargs="+", type=Path, metavar="IN", help="bag: a folder, or an .mcap or .db3 file")
    command.add_argument("out", type=Path, metavar="OUT", help="the new bag; with several IN a folder of new bags")
    add_pipeline(command)
    command.add_argument(
        "--images", nargs="+", default=[], metavar="TOPIC", help="topics to label (default: all with a camera's images)"
    )
    command.add_argument(
        "--topics",
        nargs="+",
        default=["all"],
        metavar="TOPIC",
        help="topics of IN to copy: all (default), none or names",
    )
    command.add_argument(
        "--outputs", nargs="+", metavar="OUTPUT",
        help=f"{', '.join(DEFAULT_BAG_OUTPUTS)} (default: these), "
        f"{', '.join(name for name in BAG_OUTPUTS if name not in DEFAULT_BAG_OUTPUTS)}",
    )  # fmt: skip
    for name, what in (("depth", "depth aligned to the images"), ("camera_info", "the images' calibration")):
        command.add_argument(
            f"--{name.replace('_', '-')}", nargs="+", default=[], metavar="TOPIC",
            help=f"topics of {what}, one for each of --images (default: {name} beside each)",
        )  # fmt: skip
    command.add_argument(
        "--depth-slack", type=share, default=DEPTH_SLACK_S, metavar="S",
        help="by how much the stamps of an image and its depth may differ, 0 to 1 s (default: %(default)s)",
    )  # fmt: skip
    add_labels(command)
    add_mask(command)
    add_overlay(command)
    command.add_argument("--compression", choices=("zstd", "none"), default="zstd", help="of OUT (default: zstd)")
    command.add_argument("--jobs", type=positive, default=1, help="bags at once, each in its own process (default: 1)")
    command.add_argument("--ray", action="store_true", help="spread the bags over the machines of a Ray cluster")
    command.add_argument("--force", action="store_true", help="replace OUT, or what a run with other arguments began")
