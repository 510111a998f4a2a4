"""The command line `rt-panoptic`: one thin function per subcommand; heavy modules load only where needed."""

from __future__ import annotations

import argparse
import importlib.util
import json
import logging
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rt_panoptic_ros.architecture import BACKBONES, NetworkConfig
from rt_panoptic_ros.errors import InvalidInputError, RtPanopticError, UnavailableError
from rt_panoptic_ros.settings import parse_size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rt_panoptic_ros.benchmark.measure import Comparison
    from rt_panoptic_ros.pipeline import PanopticPipeline
    from rt_panoptic_ros.ros.latency_benchmark import Endurance


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status: 0, 1 for an error that the user can mend, 130 when stopped."""
    options = _parser().parse_args(arguments)
    options.arguments = list(sys.argv[1:] if arguments is None else arguments)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s")
    try:
        options.run(options)
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
    return 0


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


def _import_weights(options: argparse.Namespace) -> None:
    from rt_panoptic_ros.class_table import load_class_table
    from rt_panoptic_ros.weights_import import import_weights

    bundle = import_weights(
        options.checkpoint,
        options.out,
        network=_network(options),
        classes=load_class_table(options.classes),
        settings=parse_settings(options.set),
    )
    print(f"{bundle.path}: {len(bundle.layout)} entries of {bundle.network.backbone}, {len(bundle.classes)} classes")


def _make_untrained(options: argparse.Namespace) -> None:
    from rt_panoptic_ros.class_table import load_class_table
    from rt_panoptic_ros.untrained import make_untrained_bundle

    size = parse_size("--size", options.size)
    classes = load_class_table(options.classes)
    bundle = make_untrained_bundle(
        options.out, network=_network(options), classes=classes, size=size, seed=options.seed
    )
    print(f"{bundle.path}: random weights; its labels mean nothing")


def _predict(options: argparse.Namespace) -> None:
    from rt_panoptic_ros.predict import predict_source
    from rt_panoptic_ros.sources import open_source

    pipeline = _pipeline(options)
    with open_source(options.source) as source:
        frames = predict_source(pipeline, source, options.out, save_dense=options.save_dense)
    print(f"{options.out}: {frames} frames, {pipeline.describe()}")


def _calibrate(options: argparse.Namespace) -> None:
    from rt_panoptic_ros.inference.calibration import calibrate_from_source
    from rt_panoptic_ros.model_bundle import read_bundle, write_ranges
    from rt_panoptic_ros.sources import open_source

    bundle = read_bundle(options.model)
    with open_source(options.source) as source:
        ranges = calibrate_from_source(bundle, source, options.frames)
    path = write_ranges(bundle, ranges, options.origin or f"{options.frames} frames of {options.source}")
    print(f"{path}: {len(ranges)} ranges, for --precision int8")


def _eval(options: argparse.Namespace) -> None:
    from rt_panoptic_ros.datasets.opening import open_dataset
    from rt_panoptic_ros.evaluation.evaluate import evaluate
    from rt_panoptic_ros.evaluation.report import Subject, card_figures, format_tables, write_report
    from rt_panoptic_ros.model_bundle import read_bundle, record_measurement

    pipeline = _pipeline(options)
    dataset = open_dataset(options.dataset, options.root, options.split)
    options.out.mkdir(parents=True, exist_ok=True)  # what can't be written should be said before the run
    evaluation = evaluate(pipeline, dataset, progress=True, max_images=options.max_images)
    subject = Subject(options.model, pipeline.describe(), pipeline.settings.flat(), options.dataset, options.split)
    print(format_tables(evaluation, subject))
    write_report(options.out, evaluation, subject, pipeline, dataset)
    print(f"{options.out}: metrics.json, metrics.txt, contact_sheet.jpg")
    if options.record:
        name = f"{options.dataset} {options.split}, {options.precision}"
        command = "rt-panoptic " + shlex.join(word for word in options.arguments if word != "--record")
        record_measurement(read_bundle(options.model), name, card_figures(evaluation, command))


def _train(options: argparse.Namespace) -> None:
    _require_torch()
    from rt_panoptic_ros.training.recipe import read_recipe
    from rt_panoptic_ros.training.trainer import train

    recipe = read_recipe(options.config, options.set)
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


def _ablate(options: argparse.Namespace) -> None:
    _require_torch()
    from rt_panoptic_ros.training.ablation import ablate
    from rt_panoptic_ros.training.recipe import read_recipe

    recipe = read_recipe(options.config, options.set)
    table = ablate(
        recipe, options.root, options.out, seeds=options.seeds, device=options.device, workers=options.workers
    )
    print(table)
    print(f"{options.out}: table.md, figures.json, curves.png")


def _bench(options: argparse.Namespace) -> None:
    _require_torch()
    from rt_panoptic_ros.benchmark import comparisons
    from rt_panoptic_ros.model_bundle import read_bundle

    size = parse_size("--size", options.size)
    assert size is not None
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
    from rt_panoptic_ros.ros.latency_benchmark import NodeBenchmark, compare_node_with_relay, endure

    size = parse_size("--size", options.size or "empty")
    assert size is not None
    benchmark = NodeBenchmark(
        size, options.rate, options.frames, options.rounds, options.detections, options.network_ms
    )
    result: Comparison | Endurance
    result = compare_node_with_relay(benchmark) if options.endurance is None else endure(benchmark, options.endurance)
    print(json.dumps(result.to_document()) if options.json else result.format())


def _require_torch() -> None:
    if importlib.util.find_spec("torch") is None:
        raise UnavailableError("expected torch, it is not installed: `pip install torch`")


def _demo(options: argparse.Namespace) -> None:
    from rt_panoptic_ros.demo import run_demo

    run_demo(options.source, options.out, model=options.model, max_frames=options.frames)


def _pipeline(options: argparse.Namespace) -> PanopticPipeline:
    from rt_panoptic_ros.pipeline import open_pipeline

    return open_pipeline(
        options.model,
        backend=options.backend,
        device=options.device,
        precision=options.precision,
        network_size=parse_size("--size", options.size),
        settings=parse_settings(options.set),
    )


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1, got '{text}'")
    return int(text)


def _natural(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a whole number from 0, got '{text}'")
    return int(text)


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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rt-panoptic", description="Real-time panoptic segmentation from dense detections."
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    command = commands.add_parser("predict", help="label an image, a folder, a video or a camera into files")
    command.set_defaults(run=_predict)
    command.add_argument("--source", required=True, help="image, folder of images, video, or camera number")
    command.add_argument("--out", required=True, type=Path, help="folder for the results")
    _add_pipeline(command)
    command.add_argument("--save-dense", action="store_true", help="also write what the network and masks were: dense/")

    command = commands.add_parser("eval", help="measure a model on a dataset: panoptic quality, mean IoU, precision")
    command.set_defaults(run=_eval)
    command.add_argument("--dataset", required=True, help="such as camvid; a wrong name is answered with all there are")
    command.add_argument("--root", required=True, type=Path, help="folder of the dataset")
    command.add_argument("--split", required=True, help="as the dataset calls it, such as val")
    command.add_argument("--out", required=True, type=Path, help="folder for metrics and contact sheet")
    _add_pipeline(command)
    command.add_argument("--max-images", type=_natural, default=0, help="images of the split to take at most; 0: all")
    command.add_argument("--record", action="store_true", help="also write the figures into the model's card")

    command = commands.add_parser("calibrate", help="measure a model's activations on real frames, for precision int8")
    command.set_defaults(run=_calibrate)
    command.add_argument("--model", required=True, help="folder of a model bundle; the ranges are written into it")
    command.add_argument("--source", required=True, help="typical frames: image, folder of images, or video")
    command.add_argument("--frames", type=_positive, default=48, help="frames to take at most (default: %(default)s)")
    command.add_argument("--origin", default="", help="what the frames are, to be written beside the ranges")

    command = commands.add_parser("train", help="train a network by a recipe, into a model bundle")
    command.set_defaults(run=_train)
    _add_training(command)
    command.add_argument("--config", required=True, help="recipe file, or the name of one in config/train")
    command.add_argument("--resume", action="store_true", help="continue from the checkpoint in --out")
    command.add_argument("--until", type=_natural, default=0, help="stop after this many steps, to be resumed; 0: end")

    command = commands.add_parser("ablate", help="train and measure the rows of the paper's Table 3 in miniature")
    command.set_defaults(run=_ablate)
    _add_training(command)
    command.add_argument(
        "--config", default="camvid_ablation", help="recipe that the rows share (default: %(default)s)"
    )
    command.add_argument("--seeds", type=_natural, nargs="+", default=[1, 2], help="one run of each row for each")

    command = commands.add_parser("bench", help="time a part beside a plain twin of the same work, in one run")
    _add_bench_parts(command)

    _add_bundle_commands(commands)

    command = commands.add_parser("demo", help="play a video through a real ROS graph and keep what the node shows")
    command.set_defaults(run=_demo)
    command.add_argument("--source", required=True, help="image, folder of images, video, or camera number")
    command.add_argument("--out", type=Path, default=Path("out/demo"), help="folder for the results")
    command.add_argument("--model", help="folder of a model bundle, or the name of a shipped one")
    command.add_argument("--frames", type=_natural, default=150, help="frames of the source to play at most; 0: all")
    return parser


def _add_bundle_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser("import-weights", help="make a model bundle from a checkpoint")
    command.set_defaults(run=_import_weights)
    command.add_argument("checkpoint", type=Path, help=".pth (weights only), .safetensors or .npz file")
    command.add_argument("--out", required=True, type=Path, help="folder of the new bundle")
    _add_network(command)
    _add_set(command)

    command = commands.add_parser("make-untrained", help="make a model bundle of random weights, for tests and timing")
    command.set_defaults(run=_make_untrained)
    command.add_argument("--out", required=True, type=Path, help="folder of the new bundle")
    command.add_argument(
        "--size", default="", help="HEIGHTxWIDTH px that images are brought to (default: as they come)"
    )
    command.add_argument("--seed", type=_natural, default=1, help="of the random weights")
    _add_network(command)


def _add_pipeline(command: argparse.ArgumentParser) -> None:
    _add_engine(command)
    command.add_argument("--device", default="auto", help="auto (default), cpu or cuda")
    command.add_argument(
        "--size", default="", help="HEIGHTxWIDTH px that images are brought to, in place of the card's"
    )
    _add_set(command)


def _add_engine(command: argparse.ArgumentParser) -> None:
    command.add_argument("--model", required=True, help="folder of a model bundle, or the name of a shipped one")
    command.add_argument("--backend", default="auto", help="auto (default), onnxruntime or torch")
    command.add_argument("--precision", default="float32", help="float32 (default), or int8 where the model has ranges")


def _add_training(command: argparse.ArgumentParser) -> None:
    command.add_argument("--root", required=True, type=Path, help="folder of the dataset")
    command.add_argument("--out", required=True, type=Path, help="folder of the results")
    command.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    command.add_argument("--workers", type=_natural, default=1, help="processes that prepare images")
    command.add_argument(
        "--set", action="append", default=[], metavar="ENTRY=VALUE",
        help="an entry over the recipe's, such as schedule.steps=100; may be repeated",
    )  # fmt: skip


def _add_bench_parts(bench: argparse.ArgumentParser) -> None:
    parts = bench.add_subparsers(title="parts", required=True, metavar="PART", dest="what")
    for part, about in {
        "postprocess": "everything behind the network, for a made-up scene",
        "network": "the network alone",
        "pipeline": "the whole frame, image in and labels out",
    }.items():
        command = parts.add_parser(part, help=about)
        command.set_defaults(run=_bench)
        _add_bench(command, part)
    command = parts.add_parser("node", help="the node in a ROS graph, its network replaced, beside a bare relay")
    command.set_defaults(run=_bench_node)
    _add_bench_node(command)


def _add_bench(command: argparse.ArgumentParser, part: str) -> None:
    command.add_argument("--size", default="512x1024", help="HEIGHTxWIDTH px (default: %(default)s)")
    command.add_argument("--device", default="auto", help="auto (default), cpu or cuda")
    command.add_argument("--seconds", type=float, default=20.0, help="about how long to measure (default: %(default)s)")
    command.add_argument("--json", action="store_true", help="print one JSON object")
    if part != "network":
        default = 100 if part == "postprocess" else None
        command.add_argument(
            "--detections", type=_natural, default=default,
            help=f"objects of the made-up scene, up to 100 (default: {default or 'what the network finds'})",
        )  # fmt: skip
    if part != "postprocess":
        _add_engine(command)
    if part == "pipeline":
        command.add_argument("--source", help="image, folder or video whose first image is taken (default: made up)")


def _add_bench_node(command: argparse.ArgumentParser) -> None:
    command.add_argument("--size", default="360x480", help="HEIGHTxWIDTH of the images, px (default: %(default)s)")
    command.add_argument("--rate", type=float, default=10.0, help="images per second (default: %(default)s)")
    command.add_argument("--frames", type=_natural, default=100, help="of each round (default: %(default)s)")
    command.add_argument("--rounds", type=_natural, default=3, help="of node and relay in turn (default: %(default)s)")
    command.add_argument(
        "--detections", type=_natural, default=10, help="objects of the made-up scene, up to 100 (default: %(default)s)"
    )
    command.add_argument(
        "--network-ms", type=float, default=0.0,
        help="time that the stand-in for the network takes; any draws the ratio towards 1 (default: %(default)s)",
    )  # fmt: skip
    command.add_argument(
        "--endurance", type=_natural, metavar="N",
        help="run the node alone for N frames instead, and say what was lost and how its memory grew",
    )  # fmt: skip
    command.add_argument("--json", action="store_true", help="print one JSON object")


def _add_network(command: argparse.ArgumentParser) -> None:
    command.add_argument("--backbone", default="resnet50", choices=BACKBONES)
    command.add_argument("--classes", default="cityscapes", help="class table: cityscapes, coco or camvid")
    command.add_argument("--channels", type=int, help="of pyramid and localization tower; semantics has half")
    command.add_argument("--towers", type=int, default=2, choices=(1, 2), help="1: one tower for both tasks (Table 3)")
    command.add_argument("--without-levelness", action="store_true", help="the variant of Appendix B")


def _add_set(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE",
        help="a post-processing setting over the card's, such as mask_threshold=0.3; may be repeated",
    )  # fmt: skip
