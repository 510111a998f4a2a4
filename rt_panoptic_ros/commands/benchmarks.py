"""`rt-panoptic bench`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from rt_panoptic_ros.commands.options import add_backend, add_pipeline, natural, open_pipeline_of
from rt_panoptic_ros.errors import InvalidInputError, require_package
from rt_panoptic_ros.settings import parse_size

if TYPE_CHECKING:
    from rt_panoptic_ros.benchmark.measure import Comparison
    from rt_panoptic_ros.ros.benchmark.latency_benchmark import Endurance


def _bench(options: argparse.Namespace) -> None:
    require_package("torch", "the plain twins")
    from rt_panoptic_ros.benchmark import comparisons
    from rt_panoptic_ros.model.bundle import read_bundle

    size = _size(options)
    if options.what == "postprocess" and options.plot is not None:
        require_package("matplotlib", "the plot")
        from rt_panoptic_ros.benchmark.sweep import sweep_postprocess

        sweep_postprocess(options.plot, options.device, seconds=options.seconds)
        return
    if options.what == "postprocess":
        result = comparisons.bench_postprocess(size, options.detections, options.device, seconds=options.seconds)
    elif options.what == "network":
        bundle = read_bundle(options.model)
        result = comparisons.bench_network(
            bundle, size, options.backend, options.device, options.precision, seconds=options.seconds
        )
    else:
        result = comparisons.bench_pipeline(
            read_bundle(options.model), size, options.detections, options.backend, options.device, options.precision,
            seconds=options.seconds, source=options.source,
        )  # fmt: skip
    print(json.dumps(result.to_document()) if options.json else result.format())


def _bench_node(options: argparse.Namespace) -> None:
    from rt_panoptic_ros.ros.processes import require_ros

    require_ros("the node's benchmark")
    from rt_panoptic_ros.ros.benchmark.latency_benchmark import NodeBenchmark, compare_node_with_relay, endure

    benchmark = NodeBenchmark(
        _size(options), options.rate, options.frames, options.rounds, options.detections, options.network_ms
    )
    result: Comparison | Endurance
    result = compare_node_with_relay(benchmark) if options.endurance is None else endure(benchmark, options.endurance)
    print(json.dumps(result.to_document()) if options.json else result.format())


def _bench_cameras(options: argparse.Namespace) -> None:
    from rt_panoptic_ros.ros.processes import require_ros

    require_ros("the cameras' benchmark")
    from rt_panoptic_ros.ros.benchmark.cameras_benchmark import CamerasBenchmark, bench_cameras

    parameters = {name: getattr(options, name) for name in ("model", "backend", "precision", "device")}
    result = bench_cameras(
        CamerasBenchmark(options.source, parameters, options.cameras, options.rate, options.flood, options.seconds)
    )
    print(json.dumps(result.to_document()) if options.json else result.format())


def _bench_tracking(options: argparse.Namespace) -> None:
    from rt_panoptic_ros.datasets.opening import open_dataset
    from rt_panoptic_ros.evaluation.id_switches import count_id_switches

    dataset = open_dataset(options.dataset, options.root, options.split)
    print(count_id_switches(open_pipeline_of(options), dataset, progress=True).format())


def _bench_floors(options: argparse.Namespace) -> None:
    from rt_panoptic_ros.benchmark.floors import count_floors
    from rt_panoptic_ros.model.bundle import read_bundle

    floors = count_floors(read_bundle(options.model), _size(options))
    print(json.dumps(floors.to_document()) if options.json else floors.format())


def _size(options: argparse.Namespace) -> tuple[int, int]:
    size = parse_size("--size", options.size)
    if size is None:
        raise InvalidInputError("expected --size as HEIGHTxWIDTH in px, such as 512x1024, got nothing")
    return size


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommands."""
    command = commands.add_parser("bench", help="time a part beside a plain twin of the same work, in one run")
    parts = command.add_subparsers(title="parts", required=True, metavar="PART", dest="what")
    for part, about in {
        "postprocess": "everything behind the network, for a made-up scene",
        "network": "the network alone",
        "pipeline": "the whole frame, image in and labels out",
    }.items():
        command = parts.add_parser(part, help=about)
        command.set_defaults(run=_bench)
        _add_bench(command, part)
    command = parts.add_parser("floors", help="count what a frame costs at least: operations and bytes; times nothing")
    command.set_defaults(run=_bench_floors)
    command.add_argument("--model", required=True, help="folder of a model bundle, or the name of a shipped one")
    command.add_argument("--size", default="512x1024", help="HEIGHTxWIDTH of the camera's image, px")
    command.add_argument("--json", action="store_true", help="print one JSON object")
    command = parts.add_parser("node", help="the node in a ROS graph, its network replaced, beside a bare relay")
    command.set_defaults(run=_bench_node)
    _add_bench_node(command)
    command = parts.add_parser("cameras", help="the real node with several cameras, then with one that floods")
    command.set_defaults(run=_bench_cameras)
    _add_bench_cameras(command)
    command = parts.add_parser("tracking", help="how often ids change over a labelled drive, with and without tracking")
    command.set_defaults(run=_bench_tracking)
    add_pipeline(command)
    command.add_argument("--dataset", default="camvid", help="default: %(default)s")
    command.add_argument("--root", type=Path, required=True, help="folder of the dataset")
    command.add_argument("--split", default="val", help="default: %(default)s")


def _add_bench(command: argparse.ArgumentParser, part: str) -> None:
    command.add_argument("--size", default="512x1024", help="HEIGHTxWIDTH px (default: %(default)s)")
    command.add_argument("--device", default="auto", help="auto (default), cpu or cuda")
    command.add_argument("--seconds", type=float, default=20.0, help="about how long to measure (default: %(default)s)")
    command.add_argument("--json", action="store_true", help="print one JSON object")
    if part != "network":
        default = 100 if part == "postprocess" else None
        command.add_argument(
            "--detections", type=natural, default=default,
            help=f"objects of the made-up scene, up to 100 (default: {default or 'what the network finds'})",
        )  # fmt: skip
    if part != "postprocess":
        add_backend(command)
    if part == "postprocess":
        command.add_argument(
            "--plot", metavar="PNG", type=Path,
            help="measure over objects and sizes instead, --seconds for each point, and draw both into this file",
        )  # fmt: skip
    if part == "pipeline":
        command.add_argument("--source", help="image, folder or video whose first image is taken (default: made up)")


def _add_bench_node(command: argparse.ArgumentParser) -> None:
    command.add_argument("--size", default="360x480", help="HEIGHTxWIDTH of the images, px (default: %(default)s)")
    command.add_argument("--rate", type=float, default=10.0, help="images per second (default: %(default)s)")
    command.add_argument("--frames", type=natural, default=100, help="of each round (default: %(default)s)")
    command.add_argument("--rounds", type=natural, default=3, help="of node and relay in turn (default: %(default)s)")
    command.add_argument(
        "--detections", type=natural, default=10, help="objects of the made-up scene, up to 100 (default: %(default)s)"
    )
    command.add_argument(
        "--network-ms", type=float, default=0.0,
        help="time that the stand-in for the network takes; any draws the ratio towards 1 (default: %(default)s)",
    )  # fmt: skip
    command.add_argument(
        "--endurance", type=natural, metavar="N",
        help="run the node alone for N frames instead, and say what was lost and how its memory grew",
    )  # fmt: skip
    command.add_argument("--json", action="store_true", help="print one JSON object")


def _add_bench_cameras(command: argparse.ArgumentParser) -> None:
    add_backend(command)
    command.add_argument("--device", default="auto", help="auto (default), cpu or cuda")
    command.add_argument("--source", required=True, help="image, folder or video whose first frames the cameras send")
    command.add_argument("--cameras", type=natural, default=3, help="default: %(default)s")
    command.add_argument("--rate", type=float, default=15.0, help="images per second of each (default: %(default)s)")
    command.add_argument(
        "--flood", type=float, default=200.0,
        help="images per second of the first camera, for another fifth of the time; 0 for none (default: %(default)s)",
    )  # fmt: skip
    command.add_argument("--seconds", type=float, default=300.0, help="default: %(default)s")
    command.add_argument("--json", action="store_true", help="print one JSON object")
