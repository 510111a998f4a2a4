# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""`rt-panoptic soak`: runs the real node for a while under all kinds of disturbances, and fails for any trend."""

from __future__ import annotations

import csv
import json
import math
import os
import time
from contextlib import ExitStack, closing
from dataclasses import astuple, dataclass, fields
from itertools import islice
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from rt_panoptic_ros.errors import UnavailableError, require, require_package
from rt_panoptic_ros.files import output_path
from rt_panoptic_ros.frames.sources import open_source
from rt_panoptic_ros.model.bundle import read_bundle
from rt_panoptic_ros.ros.benchmark.driver import DOMAIN
from rt_panoptic_ros.ros.node import panoptic_node
from rt_panoptic_ros.ros.processes import exit_on_sigterm, local_environment, running
from rt_panoptic_ros.ros.soak.cameras import SoakCamera
from rt_panoptic_ros.ros.soak.disturbances import soak_script
from rt_panoptic_ros.ros.soak.graph import SoakGraph
from rt_panoptic_ros.ros.soak.plot import draw_soak
from rt_panoptic_ros.ros.soak.record import Record, Sample, percentiles, process_figures

if TYPE_CHECKING:
    from collections.abc import Mapping

_NAMES = ("front", "left", "right")
_FRAMES = 4  # different images, sent again and again
_SIZE = (240, 320)  # of made-up images, (height, width) px


@dataclass(frozen=True, slots=True)
class Soak:
    """What is to be done."""

    parameters: Mapping[str, object]  # of the node
    minutes: float
    seed: int
    rate_hz: float  # of each camera, in calm
    source: str | None  # of the images; None for made-up ones
    out: Path

    def __post_init__(self) -> None:
        """Check the values."""
        require(0 < self.minutes < math.inf, "--minutes above 0", f"{self.minutes:g}")
        require(0.5 <= self.rate_hz <= 100, "--rate from 0.5 to 100", f"{self.rate_hz:g}")
        require_package("matplotlib", "the soak's plot")


def soak(task: Soak) -> Record:
    """Run the node for so long, or until SIGINT or SIGTERM, and return what was seen of it; files are in `task.out`.

    These are samples.csv, events.log and node.log, which are written all the time, and at the end summary.json and
    soak.png.

    Raises:
        InvalidInputError: The source can't be read.
        UnavailableError: A file can't be written.
    """
    images, model = _images(task.source), read_bundle(str(task.parameters["model"]))
    height, width = images[0].shape[:2]
    os.environ.update(local_environment(os.environ, DOMAIN))  # of this process too
    exit_on_sigterm()
    task.out.mkdir(parents=True, exist_ok=True)
    topics = {name: f"/soak_{os.getpid()}/{name}/image" for name in _NAMES}
    parameters = {
        **task.parameters,
        "cameras": ",".join(f"{name}={topic}" for name, topic in topics.items()),
        "camera_size": f"{height}x{width}",
        "autostart": "false",
        "model_folders": task.out.resolve(),  # for the label map
    }
    record, seconds, stopped = Record(), 60 * task.minutes, False
    label_map = task.out.resolve() / "label_map.yaml"
    things = [model.classes.names[number] for number in model.classes.thing_ids]
    mapped = {"thing": {"thing": True, "color": [220, 20, 60], "of": things}}
    document = {"name": "soak", "unlisted": "drop", "classes": mapped}
    label_map.write_text(json.dumps(document), encoding="utf-8")  # which is YAML too
    with ExitStack() as stack:
        # Both are written line by line, so that a soak that is stopped leaves them.
        samples, events = (
            stack.enter_context((task.out / name).open("w", encoding="utf-8", buffering=1, newline=""))
            for name in ("samples.csv", "events.log")
        )
        rows = csv.writer(samples)
        rows.writerow(item.name for item in fields(Sample))
        process = stack.enter_context(running("node", panoptic_node.main, parameters, os.environ, task.out))
        bar = stack.enter_context(tqdm(total=round(seconds), unit="s", leave=False))
        begin_s = time.monotonic()

        def log(words: str) -> None:
            events.write(f"{time.monotonic() - begin_s:9.2f} {words}\n")
            bar.set_description(words)

        cameras = [
            SoakCamera(name, topic, task.rate_hz, number / len(topics), images)
            for number, (name, topic) in enumerate(topics.items())
        ]
        graph = stack.enter_context(closing(SoakGraph(process, "/panoptic_node", cameras, record, log)))

        def sample() -> None:
            try:
                figures = process_figures(process.popen.pid)
            except OSError:  # it ends at this moment, and then cannot but be noticed
                return
            ages_ms, graph.ages_ms = graph.ages_ms, []
            p50, p99 = percentiles(ages_ms, 50, 99) if ages_ms else (math.nan, math.nan)
            record.samples.append(
                Sample(
                    time_s=time.monotonic() - begin_s, calm=graph.calm, answered=len(ages_ms), p50_ms=p50, p99_ms=p99,
                    python_blocks=graph.python_blocks, **figures,
                )
            )  # fmt: skip
            values = astuple(record.samples[-1])
            rows.writerow(f"{value:.2f}" if isinstance(value, float) else value for value in values)
            bar.update()

        try:
            graph.play(soak_script(graph, Random(task.seed), model, label_map, seconds), sample)
        except UnavailableError as error:  # the node's end: what was seen until then is the result
            record.ended = str(error)
        except (KeyboardInterrupt, SystemExit):  # likewise; who stops this from a terminal stops the node too
            log("stopped before its time")
            stopped = True
    if not stopped and not record.ended and process.popen.returncode != 0:
        record.ended = str(process.failure())
    with output_path(task.out / "summary.json") as temporary:
        temporary.write_text(json.dumps(record.summary(), indent=2) + "\n", encoding="utf-8")
    draw_soak(record, task.out / "soak.png")
    return record


def _images(source: str | None) -> list[np.ndarray]:
    """Return some images (H, W, 3) uint8 RGB."""
    if source is not None:
        with open_source(source) as frames:
            return [frame.image for frame in islice(frames, _FRAMES)]
    random = np.random.default_rng(1)
    return [random.integers(0, 256, (*_SIZE, 3), dtype=np.uint8) for _ in range(_FRAMES)]
