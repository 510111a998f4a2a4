"""Reading the COCO-panoptic format whole, as panopticapi does: what tests compare with."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from rt_panoptic_ros.datasets.coco_panoptic import Segment, decode_ids, read_segments
from rt_panoptic_ros.frames.sources import read_image


class Annotation(NamedTuple):
    """What the format says about one image."""

    image_id: int | str
    ids: np.ndarray  # (H, W) int32 segment ids, 0 void
    segments: tuple[Segment, ...]


def read_coco_panoptic(json_path: Path) -> list[Annotation]:
    """Return all images of a JSON file whose PNGs lie in a folder beside it, named like it."""
    return [
        Annotation(image_id, decode_ids(read_image(json_path.with_suffix("") / name)), segments)
        for image_id, name, segments in read_segments(json_path)
    ]
