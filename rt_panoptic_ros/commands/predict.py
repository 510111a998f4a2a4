# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Labels the frames of an image, folder, video or camera and writes the results as files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from tqdm import tqdm

from rt_panoptic_ros.datasets.coco_panoptic import JSON_NAME, PNG_FOLDER, CocoPanopticWriter
from rt_panoptic_ros.errors import InvalidInputError
from rt_panoptic_ros.files import output_path, write_image
from rt_panoptic_ros.frames.outputs import COLOURED
from rt_panoptic_ros.labeller import FrameLabeller, OutputStyle
from rt_panoptic_ros.model.label_map import read_label_map
from rt_panoptic_ros.panoptic.class_filter import parse_class_names
from rt_panoptic_ros.records import LABELS, CameraImage
from rt_panoptic_ros.settings import OVERLAY_OPACITY, PALETTES

if TYPE_CHECKING:
    from collections.abc import Sequence
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
    save_dense: bool = False,
    confidence: bool = False,
    opacity: float = OVERLAY_OPACITY,
    palette: str = PALETTES[0],
    label_map: str = "",
    object_classes: str = "",
    mask_classes: str = "",
    output_size: tuple[int, int] | None = None,
    tracking: bool = False,
    also: Sequence[str] = (),
) -> int:
    """Label every frame of `source` and return how many there were.

    Writes, for each frame, `out`/semantic/STEM.png (8-bit class ids, 255 void), `out`/instance/STEM.png (16-bit ids,
    0 none), `out`/panoptic/STEM.png with `out`/panoptic.json (COCO-panoptic format), `out`/overlay/STEM.jpg and, where
    that is asked for, `out`/confidence/STEM.png (8 bits), what `also` names and `out`/dense/STEM.npz
    (`PanopticPipeline.dense_arrays`).

    Args:
        pipeline: Labels the frames.
        source: Where they come from; a frame of its sub-folder lies in one here too.
        out: The folder, made where it is missing; without an earlier run's results, as two must not be mixed.
        save_dense: Also write what the network and the masks were.
        confidence: Also write the probability of each pixel's class x 255.
        opacity: Share of the class colours in the overlay, 0 to 1.
        palette: See `render_overlay`.
        label_map: Merges, renames and drops the model's classes: a file, or a shipped map's name; empty for none.
        object_classes: Names of the classes whose objects are told of, with commas between; empty for all.
        mask_classes: Names of the classes whose pixels the mask has; empty for all countable ones.
        output_size: (height, width) of all that is written, px; None for the image's.
        tracking: Keep an object's id from frame to frame, see `InstanceTracker`.
        also: Those of `COLOURED` to write, into folders of their names.

    Raises:
        InvalidInputError: A name is not that of a thing, or `out` has results; or, when the others are labelled, a
            frame can't be read.
        UnavailableError: A file can't be written.
    """
    labeller = FrameLabeller(pipeline, read_label_map(label_map) if label_map else None)
    class_ids = parse_class_names(object_classes, labeller.classes)
    style = OutputStyle.of(opacity, palette, mask_classes, labeller.classes)
    images = LABELS | {"confidence"} if confidence else LABELS
    _refuse_results(out)
    frames, broken = 0, list[InvalidInputError]()
    source.on_broken = broken.append
    with CocoPanopticWriter(out, labeller.classes) as panoptic:
        for frame in tqdm(source, total=source.count, unit="frame", desc="labelling"):
            labelled = labeller.label(
                CameraImage(frame.image, "rgb"),
                round(frame.time_s * 1e9),
                class_ids=class_ids,
                tracking=tracking,
                images=images,
                output_size=output_size,
            )
            for name in (*images, *also):
                pixels = labelled.pixels(name, style)
                pixels = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR) if pixels.ndim == 3 else pixels
                write_image(out / name / f"{frame.stem}.png", pixels)
            panoptic.add(frame.stem, labelled.result, image_file=frame.file_name)
            overlay = cv2.cvtColor(labelled.pixels("overlay", style), cv2.COLOR_RGB2BGR)
            write_image(out / "overlay" / f"{frame.stem}.jpg", overlay, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
            if save_dense:
                with output_path(out / "dense" / f"{frame.stem}.npz") as temporary:
                    arrays: dict[str, Any] = pipeline.dense_arrays()  # to NumPy 1, allow_pickle=False is one more
                    np.savez_compressed(temporary, **arrays)
            frames += 1
    if broken:
        raise InvalidInputError(
            f"expected only images that can be read, {frames} are labelled into {out} and {len(broken)} left out: "
            + "; ".join(str(error) for error in broken[:_SHOWN])
            + ("; and so on" if len(broken) > _SHOWN else "")
        )
    return frames


def _refuse_results(out: Path) -> None:
    for name in ("semantic", "instance", "confidence", *COLOURED, PNG_FOLDER, JSON_NAME, "overlay", "dense"):
        place = out / name
        if place.is_file() or (place.is_dir() and any(place.iterdir())):
            raise InvalidInputError(
                f"expected a folder without the results of an earlier run, got {out} with {name}: name another, or "
                "move them away"
            )
