"""Labels the frames of an image, folder, video or camera and writes the results as files."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
from tqdm import tqdm

from rt_panoptic_ros.evaluation.coco_panoptic import CocoPanopticWriter
from rt_panoptic_ros.files import output_path, write_image
from rt_panoptic_ros.records import CameraImage
from rt_panoptic_ros.visualize import render_overlay

if TYPE_CHECKING:
    from pathlib import Path

    from rt_panoptic_ros.pipeline import PanopticPipeline
    from rt_panoptic_ros.sources import Frame, FrameSource

_JPEG_QUALITY = 92


def predict_source(
    pipeline: PanopticPipeline, source: FrameSource, out: Path, *, save_dense: bool, palette: str = "dataset"
) -> int:
    """Label every frame of `source` and return how many there were.

    Writes, for each frame, `out`/semantic/STEM.png (8-bit class ids, 255 void), `out`/instance/STEM.png (16-bit ids,
    0 none), `out`/panoptic/STEM.png with `out`/panoptic.json (COCO-panoptic format), `out`/overlay/STEM.jpg in the
    colours of `palette` and, with `save_dense`, `out`/dense/STEM.npz (see `PanopticPipeline.dense_arrays`).

    Raises:
        InvalidInputError: A frame can't be read; the results of those before it stay.
        UnavailableError: A file can't be written.
    """
    frames = 0
    with CocoPanopticWriter(out, pipeline.classes) as panoptic:
        for frame in tqdm(source, total=source.count, unit="frame", desc="labelling"):
            _write_frame(pipeline, frame, out, panoptic, palette)
            if save_dense:
                _write_arrays(out / "dense" / f"{frame.stem}.npz", pipeline.dense_arrays())
            frames += 1
    return frames


def _write_frame(
    pipeline: PanopticPipeline, frame: Frame, out: Path, panoptic: CocoPanopticWriter, palette: str
) -> None:
    result = pipeline(CameraImage(frame.image, "rgb"))
    write_image(out / "semantic" / f"{frame.stem}.png", result.semantic)
    write_image(out / "instance" / f"{frame.stem}.png", result.instance)
    panoptic.add(frame.stem, result, image_file=frame.file_name)
    overlay = render_overlay(frame.image, result, pipeline.classes, palette=palette)
    quality = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
    write_image(out / "overlay" / f"{frame.stem}.jpg", cv2.cvtColor(overlay, cv2.COLOR_RGB2BGR), quality)


def _write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    with output_path(path) as temporary:
        np.savez_compressed(temporary, allow_pickle=False, **arrays)
