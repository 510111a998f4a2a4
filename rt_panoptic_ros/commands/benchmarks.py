# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""`rt-panoptic bench`."""

from __future__ import annotations

import argparse
import importlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rt_panoptic_ros.commands.options import add_backend, natural
from rt_panoptic_ros.errors import InvalidInputError, UnavailableError, require_package
from rt_panoptic_ros.settings import DEVICES, parse_size

if TYPE_CHECKING:
    from collections.abc import Callable


def _bench_part(options: argparse.Namespace) -> None:
    from rt_panoptic_ros.model.bundle import read_bundle

    comparisons = _comparisons()
    if options.what != "postprocess":
        require_package("torch", "the reference network")
    size, seconds = _size(options), options.seconds
    if options.what == "postprocess":
        result = comparisons.bench_postprocess(size, options.detections, options.device, seconds=seconds)
    else:
        bundle, backend = read_bundle(options.model), (options.backend, options.device, options.precision)
        if options.what == "network":
            result = comparisons.bench_network(bundle, size, *backend, tf32=options.tf32, seconds=seconds)
        else:
            result = comparisons.bench_pipeline(
                bundle, size, options.detections, *backend, tf32=options.tf32, seconds=seconds, source=options.source
            )
    _print(result, options)


def _comparisons() -> Any:
    """Return the module that compares with the reference implementations, which lie in the checkout's test folder.

    Raises:
        UnavailableError: This is an installed copy, without them.
    """
    checkout = Path(__file__).resolve().parents[2]
    if not (checkout / "test" / "reference_postprocess.py").is_file():
        raise UnavailableError(
            f"expected test/ with the reference implementations beside the code to compare with, found none in "
            f"{checkout}: run `python -m rt_panoptic_ros bench` in a checkout"
        )
    return importlib.import_module("scripts.comparisons")


def _bench_node(options: argparse.Namespace) -> None:
    from rt_panoptic_ros.ros.processes import require_ros

    require_ros("the node's benchmark")
    from rt_panoptic_ros.ros.benchmark import node_benchmark

    benchmark = node_benchmark.NodeBenchmark(
        _size(options), options.rate, options.frames, options.rounds, options.detections, options.network_ms
    )
    if options.endurance is not None:
        _print(node_benchmark.endure(benchmark, options.endurance), options)
    elif options.idle_outputs:
        _print(node_benchmark.compare_idle_outputs(benchmark), options)
    else:
        _print(node_benchmark.compare_node_with_relay(benchmark), options)


def _bench_cameras(options: argparse.Namespace) -> None:
    from rt_panoptic_ros.ros.processes import require_ros

    require_ros("the cameras' benchmark")
    from rt_panoptic_ros.ros.benchmark.cameras_benchmark import CamerasBenchmark, bench_cameras

    parameters = {name: getattr(options, name) for name in ("model", "backend", "precision", "tf32", "device")}
    benchmark = CamerasBenchmark(
        options.source, parameters, options.cameras, options.rate, options.flood, options.seconds
    )
    _print(bench_cameras(benchmark), options)


def _print(figures: Any, options: argparse.Namespace) -> None:
    print(json.dumps(figures.to_document()) if options.json else figures.format())


def _size(options: argparse.Namespace) -> tuple[int, int]:
    size = parse_size("--size", options.size)
    if size is None:
        raise InvalidInputError("expected --size as HEIGHTxWIDTH in px, such as 512x1024, got nothing")
    return size


_ABOUT = {
    "size": "HEIGHTxWIDTH of the images, px",
    "device": ", ".join(DEVICES),
    "seconds": "about how long to measure",
    "detections": "objects of the made-up scene, up to 100",
    "rate": "images per second of a camera",
    "frames": "of each round",
    "rounds": "of node and relay in turn",
    "network_ms": "time that the stand-in for the network takes; any draws the ratio towards 1",
    "cameras": "how many send images",
    "flood": "images per second of the first camera, for another fifth of the time; 0 for none",
}
"""{option with a default: what it says}"""


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommands."""
    command = commands.add_parser("bench", help="time a part beside a plain way of doing the same work, in one run")
    parts = command.add_subparsers(title="parts", required=True, metavar="PART", dest="what")

    def add(
        part: str, run: Callable[[argparse.Namespace], None], about: str, **defaults: str | float
    ) -> argparse.ArgumentParser:
        """Add a part with --json and its options that have a default."""
        command = parts.add_parser(part, help=about)
        command.set_defaults(run=run)
        command.add_argument("--json", action="store_true", help="print one JSON object")
        for name, default in defaults.items():
            option, kind = f"--{name.replace('_', '-')}", natural if isinstance(default, int) else type(default)
            command.add_argument(option, type=kind, default=default, help=f"{_ABOUT[name]} (default: %(default)s)")
        return command

    about = "everything behind the network, for a made-up scene"
    add("postprocess", _bench_part, about, size="512x1024", device="auto", seconds=20.0, detections=100)
    command = add("network", _bench_part, "the network alone", size="512x1024", device="auto", seconds=20.0)
    add_backend(command)
    about = "the whole frame, image in and labels out"
    command = add("pipeline", _bench_part, about, size="512x1024", device="auto", seconds=20.0)
    add_backend(command)
    about = f"{_ABOUT['detections']} (default: what the network finds)"
    command.add_argument("--detections", type=natural, help=about)
    command.add_argument("--source", help="image, folder or video whose first image is taken (default: made up)")
    command = add(
        "node", _bench_node, "the node in a ROS graph, its network replaced, beside a bare relay",
        size="360x480", rate=10.0, frames=100, rounds=3, detections=10, network_ms=0.0,
    )  # fmt: skip
    instead = command.add_mutually_exclusive_group()
    instead.add_argument(
        "--idle-outputs", action="store_true",
        help="compare the node with itself offering no outputs but those that are listened to instead",
    )  # fmt: skip
    instead.add_argument(
        "--endurance", type=natural, metavar="N",
        help="run the node alone for N frames instead, and say what was lost and how its memory grew",
    )  # fmt: skip
    about = "the real node with several cameras, then with one that floods"
    command = add("cameras", _bench_cameras, about, device="auto", cameras=3, rate=15.0, flood=200.0, seconds=300.0)
    add_backend(command)
    command.add_argument("--source", required=True, help="image, folder or video whose first frames the cameras send")
