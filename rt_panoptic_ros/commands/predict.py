"""Labels the frames of an image, folder, video or camera and writes the results as files."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
from tqdm import tqdm

from rt_panoptic_ros.datasets.coco_panoptic import JSON_NAME, PNG_FOLDER, CocoPanopticWriter
from rt_panoptic_ros.drawing.overlay import render_overlay
from rt_panoptic_ros.errors import InvalidInputError
from rt_panoptic_ros.files import output_path, write_image
from rt_panoptic_ros.panoptic.class_filter import keep_classes, parse_class_names
from rt_panoptic_ros.panoptic.tracking import InstanceTracker, with_ids
from rt_panoptic_ros.records import CameraImage

if TYPE_CHECKING:
    from pathlib import Path

    from rt_panoptic_ros.frames.sources import FrameSource
    from rt_panoptic_ros.pipeline import PanopticPipeline

_JPEG_QUALITY = 92
_SHOWN = 5  # of the images that can't be read


def predict_source(
    pipeline: PanopticPipeline,
    source: FrameSource,
    out: Path,
    *,
    save_dense: bool,
    palette: str = "dataset",
    object_classes: str = "",
    tracking: bool = False,
) -> int:
    """Label every frame of `source` and return how many there were.

    Writes, for each frame, `out`/semantic/STEM.png (8-bit class ids, 255 void), `out`/instance/STEM.png (16-bit ids,
    0 none), `out`/panoptic/STEM.png with `out`/panoptic.json (COCO-panoptic format), `out`/overlay/STEM.jpg in the
    colours of `palette` and, with `save_dense`, `out`/dense/STEM.npz (see `PanopticPipeline.dense_arrays`).

    Args:
        pipeline: Labels the frames.
        source: Where they come from; a frame of its sub-folder lies in one here too.
        out: The folder, made where it is missing; without an earlier run's results, as two must not be mixed.
        save_dense: Also write what the network and the masks were.
        palette: See `render_overlay`.
        object_classes: Names of the classes whose objects are told of, with commas between; empty for all.
        tracking: Keep an object's id from frame to frame, see `InstanceTracker`.

    Raises:
        InvalidInputError: A name is not that of a thing, or `out` has results; or, when the others are labelled, a
            frame can't be read.
        UnavailableError: A file can't be written.
    """
    wanted = parse_class_names(object_classes, pipeline.classes)
    _refuse_results(out)
    tracker = InstanceTracker() if tracking else None
    frames, broken = 0, list[InvalidInputError]()
    source.on_broken = broken.append
    with CocoPanopticWriter(out, pipeline.classes) as panoptic:
        for frame in tqdm(source, total=source.count, unit="frame", desc="labelling"):
            result = pipeline(CameraImage(frame.image, "rgb"))
            if save_dense:
                _write_arrays(out / "dense" / f"{frame.stem}.npz", pipeline.dense_arrays())
            result = result if wanted is None else keep_classes(result, wanted)
            ids = None if tracker is None else tracker.update(result, round(frame.time_s * 1e9))
            instance = result.instance if ids is None else with_ids(result.instance, ids)
            write_image(out / "semantic" / f"{frame.stem}.png", result.semantic)
            write_image(out / "instance" / f"{frame.stem}.png", instance)
            panoptic.add(frame.stem, result, image_file=frame.file_name, ids=ids)
            overlay = render_overlay(frame.image, result, pipeline.classes, ids=ids, palette=palette)
            quality = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
            write_image(out / "overlay" / f"{frame.stem}.jpg", cv2.cvtColor(overlay, cv2.COLOR_RGB2BGR), quality)
            frames += 1
    if broken:
        raise InvalidInputError(
            f"expected only images that can be read, {frames} are labelled into {out} and {len(broken)} left out: "
            + "; ".join(str(error) for error in broken[:_SHOWN])
            + ("; and so on" if len(broken) > _SHOWN else "")
        )
    return frames


def _refuse_results(out: Path) -> None:
    for name in ("semantic", "instance", PNG_FOLDER, JSON_NAME, "overlay", "dense"):
        place = out / name
        if place.is_file() or (place.is_dir() and any(place.iterdir())):
            raise InvalidInputError(
                f"expected a folder without the results of an earlier run, got {out} with {name}: name another, or "
                "move them away"
            )


def _write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    with output_path(path) as temporary:
        np.savez_compressed(temporary, allow_pickle=False, **arrays)
