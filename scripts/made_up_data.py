# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""A made-up data set as labelling tools export them: balls, crates and cones on a floor before a wall.

    python -m scripts.made_up_data --out shapes

writes, in COCO's instances format (as CVAT exports it) with a label map that says that floor and wall are stuff,

    OUT/images/default/000.jpg
    OUT/annotations/instances_default.json
    OUT/shapes.yaml

or with `--format panoptic` the same scenes in COCO's panoptic format:

    OUT/default/000.jpg
    OUT/annotations/panoptic_default.json
    OUT/annotations/panoptic_default/000.png

It is what docs/own_data.md walks through.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from rt_panoptic_ros.files import output_path, write_image

CLASSES = {"floor": False, "wall": False, "ball": True, "crate": True, "cone": True}
"""{name: whether a thing}; category ids are 1, 2, ... in this order."""

LABEL_MAP = """\
# The tool knows polygons only: which of them are ground or background rather than objects is said here.
name: shapes
classes:
  floor: {thing: false, color: [128, 64, 128], of: [floor]}
  wall: {thing: false, color: [70, 70, 70], of: [wall]}
  ball: {thing: true, color: [220, 20, 60], of: [ball]}
  crate: {thing: true, color: [0, 130, 180], of: [crate]}
  cone: {thing: true, color: [250, 170, 30], of: [cone]}
"""


@dataclass(frozen=True, slots=True)
class Scene:
    """One picture and its labels."""

    picture: np.ndarray  # (H, W, 3) uint8 RGB
    shapes: list[tuple[str, np.ndarray]]  # from back to front: class, and (k, 2) int32 outline, xy px
    segments: np.ndarray  # (H, W) uint8: number of the shape that each pixel shows, from 1


_SIZE = 480, 640  # (height, width) px
_SMALLEST_PX = 60  # pixels that an object still shows where another stands before it; with fewer nobody labels it


def make_instances(out: Path, pictures: int) -> None:
    """Write the data set into folder `out` as polygons: of the floor, the wall, and what is seen of each object.

    Raises:
        UnavailableError: A file can't be written.
    """
    annotations: list[dict[str, Any]] = []
    for number, scene in enumerate(_scenes(out / "images" / "default", pictures), 1):
        for row, (category, polygon) in enumerate(scene.shapes, 1):
            outlines = [polygon]
            if CLASSES[category]:
                mask = (scene.segments == row).astype(np.uint8)
                outlines = list(cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)[0])
            polygons = [outline.ravel().tolist() for outline in outlines if len(outline) > 2]
            about = {"id": len(annotations) + 1, "image_id": number, "segmentation": polygons}
            annotations.append({**about, **_segment(scene.segments, row, category)})
    _write_json(out / "annotations" / "instances_default.json", pictures, annotations, {})
    with output_path(out / "shapes.yaml") as temporary:
        temporary.write_text(LABEL_MAP, encoding="utf-8")


def make_panoptic(out: Path, pictures: int) -> None:
    """Write the data set into folder `out` as a segment for each pixel.

    Raises:
        UnavailableError: A file can't be written.
    """
    annotations: list[dict[str, Any]] = []
    labels = out / "annotations" / "panoptic_default"
    for number, scene in enumerate(_scenes(out / "default", pictures)):
        pixels = np.zeros((*_SIZE, 3), np.uint8)
        pixels[..., 2] = scene.segments  # an id's lowest byte is red, and OpenCV's order is BGR
        write_image(labels / f"{number:03d}.png", pixels)
        segments = [
            {"id": row, **_segment(scene.segments, row, category)} for row, (category, _) in enumerate(scene.shapes, 1)
        ]
        annotations.append({"image_id": number + 1, "file_name": f"{number:03d}.png", "segments_info": segments})
    isthing = {name: {"isthing": int(thing)} for name, thing in CLASSES.items()}
    _write_json(labels.with_suffix(".json"), pictures, annotations, isthing)


def _scenes(images: Path, pictures: int) -> Iterator[Scene]:
    """Yield the scenes, the same in each run, with their pictures written into folder `images`."""
    for number in tqdm(range(pictures), unit="picture"):
        scene = draw_scene(np.random.default_rng(number))
        write_image(images / f"{number:03d}.jpg", cv2.cvtColor(scene.picture, cv2.COLOR_RGB2BGR))
        yield scene


def _segment(segments: np.ndarray, row: int, category: str) -> dict[str, Any]:
    """Return what both formats say about the shape of number `row`."""
    mask = segments == row
    box = cv2.boundingRect(mask.astype(np.uint8))
    number = list(CLASSES).index(category) + 1
    return {"category_id": number, "area": int(mask.sum()), "bbox": list(box), "iscrowd": 0}


def _write_json(path: Path, pictures: int, annotations: list[dict[str, Any]], more: dict[str, Any]) -> None:
    size = {"height": _SIZE[0], "width": _SIZE[1]}
    document = {
        "images": [{"id": number + 1, "file_name": f"{number:03d}.jpg", **size} for number in range(pictures)],
        "annotations": annotations,
        "categories": [{"id": row, "name": name, **more.get(name, {})} for row, name in enumerate(CLASSES, 1)],
    }
    with output_path(path) as temporary:
        temporary.write_text(json.dumps(document), encoding="utf-8")


def draw_scene(rng: np.random.Generator) -> Scene:
    """Return a random scene."""
    height, width = _SIZE
    horizon = int(rng.integers(height // 4, height // 2))
    picture = np.zeros((*_SIZE, 3), np.float32)
    segments = np.zeros(_SIZE, np.uint8)
    shapes: list[tuple[str, np.ndarray]] = []

    def add(name: str, polygon: np.ndarray, pixels: np.ndarray) -> None:
        mask = np.zeros(_SIZE, np.uint8)
        cv2.fillPoly(mask, [polygon], 1)
        covered = np.where(mask > 0, len(shapes) + 1, segments)
        counts = np.bincount(covered.ravel(), minlength=len(shapes) + 2)[1:]
        if counts.min() >= _SMALLEST_PX:
            np.copyto(picture, pixels, where=mask[..., None] > 0)
            segments[:] = covered
            shapes.append((name, polygon))

    corners = [(0, 0), (width - 1, 0), (width - 1, height - 1), (0, height - 1)]
    wall = np.array([*corners[:2], (width - 1, horizon), (0, horizon)], np.int32)
    floor = np.array([(0, horizon + 1), (width - 1, horizon + 1), *corners[2:]], np.int32)
    add("floor", floor, _texture(rng, stretch=(2, 8)))
    add("wall", wall, _texture(rng, stretch=(8, 2)))
    feet = np.sort(rng.integers(horizon + 10, height, rng.integers(3, 9)))  # from far to near
    for foot in feet:
        size = int((foot - horizon) * rng.uniform(0.35, 0.6)) + 16
        name = ("ball", "crate", "cone")[rng.integers(3)]
        outline = _outline(name, rng) * size + (rng.integers(width), foot - size // 2)
        polygon = np.clip(np.round(outline), 0, (width - 1, height - 1)).astype(np.int32)
        light = np.linspace(1.25, 0.7, height, dtype=np.float32)[:, None, None] if name == "ball" else 1.0
        pixels = _texture(rng, stretch=(3, 3), contrast=0.15) * light
        if name == "cone":  # stripes
            pixels = np.where((np.arange(height) // max(size // 5, 2) % 2 == 0)[:, None, None], pixels, 230)
        add(name, polygon, pixels.astype(np.float32))
    picture *= rng.uniform(0.6, 1.2)
    picture += rng.normal(0, rng.uniform(2, 8), picture.shape)
    return Scene(cv2.GaussianBlur(np.clip(picture, 0, 255), (3, 3), 0).astype(np.uint8), shapes, segments)


def _outline(name: str, rng: np.random.Generator) -> np.ndarray:
    """Return a shape's corners, (k, 2), its height about 1 and its middle at 0."""
    if name == "ball":
        angle = np.linspace(0, 2 * np.pi, 24, endpoint=False)
        return 0.5 * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    if name == "cone":
        return np.array([(0.0, -0.5), (rng.uniform(0.25, 0.4), 0.5), (rng.uniform(-0.4, -0.25), 0.5)])
    tilt, half = rng.uniform(-0.3, 0.3), rng.uniform(0.35, 0.6)
    turn = np.array([(np.cos(tilt), -np.sin(tilt)), (np.sin(tilt), np.cos(tilt))])
    corners: np.ndarray = np.array([(-half, -0.45), (half, -0.45), (half, 0.45), (-half, 0.45)]) @ turn.T
    return corners


def _texture(rng: np.random.Generator, stretch: tuple[int, int], contrast: float = 0.3) -> np.ndarray:
    """Return (H, W, 3) float32 in a random colour, with blotches of `stretch` times 4 px."""
    height, width = _SIZE
    coarse = rng.random((height // (4 * stretch[0]), width // (4 * stretch[1]))).astype(np.float32)
    blotches = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)[..., None]
    result: np.ndarray = rng.uniform(40, 220, 3).astype(np.float32) * (1 - contrast + 2 * contrast * blotches)
    return result


def main() -> None:
    """Run the script."""
    parser = argparse.ArgumentParser(description="Make a data set of balls, crates and cones to learn from.")
    parser.add_argument("--out", required=True, type=Path, help="folder of the data set")
    parser.add_argument("--pictures", type=int, default=60, help="how many (default: %(default)s)")
    parser.add_argument("--format", default="instances", choices=("instances", "panoptic"), help="COCO's two")
    options = parser.parse_args()
    make = make_instances if options.format == "instances" else make_panoptic
    make(options.out, options.pictures)


if __name__ == "__main__":
    main()
