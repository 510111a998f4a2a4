# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Times whole frames of one model beside another's, in turn: `python -m scripts.two_models A B --source VIDEO`."""

from __future__ import annotations

import argparse
import itertools
from typing import TYPE_CHECKING

from rt_panoptic_ros.benchmark.measure import Comparison, StageClock, compare
from rt_panoptic_ros.frames.sources import open_source
from rt_panoptic_ros.pipeline import PanopticPipeline, open_pipeline
from rt_panoptic_ros.records import CameraImage

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_FRAMES = 20


def compare_models(models: Sequence[str], source: str, precision: str, seconds: float) -> Comparison:
    """Return the medians of whole frames, image in and labels out, of one model and, as the reference, another.

    Args:
        models: Two bundles: folders, or names of shipped ones; each is used at its own size.
        source: What `rt-panoptic predict` reads; its first frames are labelled again and again.
        precision: Of both.
        seconds: About how long to measure.
    """
    with open_source(source) as opened:
        images = [CameraImage(frame.image, "rgb") for frame in itertools.islice(opened, _FRAMES)]

    def work(pipeline: PanopticPipeline) -> Callable[[StageClock], object]:
        frames = itertools.cycle(images)
        return lambda _: pipeline(next(frames))

    ours, reference = (work(open_pipeline(model, precision=precision)) for model in models)
    size = "x".join(map(str, images[0].pixels.shape[:2]))
    return compare(f"{models[0]} beside {models[1]}, {size}, {precision}", ours, reference, seconds=seconds)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m scripts.two_models", description=__doc__)
    parser.add_argument(
        "models", nargs=2, metavar="MODEL", help="folder of a model bundle, or the name of a shipped one"
    )
    parser.add_argument("--source", required=True, help="image, folder of images, or video")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--seconds", type=float, default=20.0)
    options = parser.parse_args()
    print(compare_models(options.models, options.source, options.precision, options.seconds).format())
