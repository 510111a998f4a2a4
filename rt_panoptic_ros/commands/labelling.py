# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""`rt-panoptic predict`, `eval` and `demo`."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from rt_panoptic_ros.commands.options import (
    add_dataset,
    add_labels,
    add_mask,
    add_overlay,
    add_pipeline,
    natural,
    open_dataset_of,
    open_pipeline_of,
)
from rt_panoptic_ros.frames.outputs import COLOURED
from rt_panoptic_ros.settings import parse_size


def _predict(options: argparse.Namespace) -> None:
    from rt_panoptic_ros.commands.predict import predict_source
    from rt_panoptic_ros.frames.sources import open_source

    pipeline = open_pipeline_of(options)
    with open_source(options.source) as source:
        frames = predict_source(
            pipeline,
            source,
            options.out,
            save_dense=options.save_dense,
            confidence=options.confidence,
            opacity=options.opacity,
            palette=options.palette,
            label_map=options.label_map,
            object_classes=options.object_classes,
            mask_classes=options.mask_classes,
            output_size=parse_size("--output-size", options.output_size),
            tracking=options.tracking,
            also=options.also,
        )
    print(f"{options.out}: {frames} frames, {pipeline.describe()}")


def _eval(options: argparse.Namespace) -> None:
    from rt_panoptic_ros.evaluation.evaluate import ImageLabelling, RelabelledPipeline, evaluate
    from rt_panoptic_ros.evaluation.report import Subject, card_figures, format_tables, write_report
    from rt_panoptic_ros.files import make_folder
    from rt_panoptic_ros.model.bundle import read_bundle, record_measurement
    from rt_panoptic_ros.model.label_map import read_label_map

    pipeline = open_pipeline_of(options)
    dataset = open_dataset_of(options)
    labelling: ImageLabelling = pipeline
    if options.label_map:
        labelling = RelabelledPipeline(pipeline, read_label_map(options.label_map))
    make_folder(options.out)  # what can't be written should be said before the run
    evaluation = evaluate(labelling, dataset, progress=True, max_images=options.max_images)
    subject = Subject(options.model, pipeline.describe(), pipeline.settings.flat(), options.dataset, options.split)
    print(format_tables(evaluation, subject))
    write_report(options.out, evaluation, subject, labelling, dataset)
    print(f"{options.out}: metrics.json, metrics.txt, contact_sheet.jpg")
    if options.record:
        classes = f" as {options.label_map}" if options.label_map else ""
        name = f"{options.dataset} {options.split}{classes}, {pipeline.precision}"
        command = "rt-panoptic " + shlex.join(word for word in options.arguments if word != "--record")
        record_measurement(read_bundle(options.model), name, card_figures(evaluation, command))


def _demo(options: argparse.Namespace) -> None:
    from rt_panoptic_ros.ros.tools.demo import run_demo

    run_demo(options.source, options.out, model=options.model, max_frames=options.frames)


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommands."""
    command = commands.add_parser("predict", help="label an image, a folder, a video or a camera into files")
    command.set_defaults(run=_predict)
    command.add_argument(
        "--source", required=True,
        help="image, folder of images (or with folders of images: a data set's split), video, or camera number",
    )  # fmt: skip
    command.add_argument("--out", required=True, type=Path, help="folder for the results, without those of another run")
    add_pipeline(command)
    add_labels(command)
    add_mask(command)
    add_overlay(command)
    command.add_argument("--confidence", action="store_true", help="also write how sure the classes are: confidence/")
    command.add_argument(
        "--also", nargs="+", default=[], choices=COLOURED,
        help="other images to write: the pixels of --mask-classes, the classes' colours alone",
    )  # fmt: skip
    command.add_argument("--save-dense", action="store_true", help="also write what the network and masks were: dense/")

    command = commands.add_parser("eval", help="measure a model on a dataset: panoptic quality, mean IoU, precision")
    command.set_defaults(run=_eval)
    add_dataset(command)
    command.add_argument("--out", required=True, type=Path, help="folder for metrics and contact sheet")
    add_pipeline(command)
    command.add_argument("--max-images", type=natural, default=0, help="images of the split to take at most; 0: all")
    command.add_argument("--record", action="store_true", help="also write the figures into the model's card")

    command = commands.add_parser("demo", help="play a video through a real ROS graph and keep what the node shows")
    command.set_defaults(run=_demo)
    command.add_argument("--source", required=True, help="image, folder of images, video, or camera number")
    command.add_argument("--out", type=Path, default=Path("out/demo"), help="folder for the results")
    command.add_argument("--model", help="folder of a model bundle, or the name of a shipped one")
    command.add_argument(
        "--frames",
        type=natural,
        default=150,
        help="frames of the source to play at most; 0: all (default: %(default)s)",
    )
