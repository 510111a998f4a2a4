"""A made-up data set as labelling tools export them: balls, crates and cones on a floor before a wall.

    python -m scripts.made_up_data --out shapes --pictures 60

    OUT/images/default/000.jpg
    OUT/annotations/instances_default.json        COCO instances: a polygon for each object, the floor and the wall
    OUT/annotations/panoptic_default.json         COCO panoptic: the same labels, a segment for each
    OUT/annotations/panoptic_default/000.png
    OUT/shapes.yaml                               the label map: floor and wall are stuff

It is what docs/own_data.md walks through.
"""

from __future__ import annotations

import argparse
import json
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

_SIZE = 480, 640  # (height, width) px
_SMALLEST_PX = 60  # pixels that an object still shows where another stands before it; with fewer nobody labels it


def make_data(out: Path, pictures: int, seed: int = 1) -> None:
    """Write the data set into folder `out`; the same for the same seed.

    Raises:
        UnavailableError: A file can't be written.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    panoptic: list[dict[str, Any]] = []
    for number in tqdm(range(pictures), unit="picture"):
        picture, shapes, segments = draw_scene(np.random.default_rng((seed, number)))
        name, image_id = f"{number:03d}", number + 1
        write_image(out / "images" / "default" / f"{name}.jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
        pixels = np.zeros((*_SIZE, 3), np.uint8)  # BGR, as OpenCV writes it: the id's lowest byte is red
        pixels[..., 2] = segments
        write_image(out / "annotations" / "panoptic_default" / f"{name}.png", pixels)
        images.append({"id": image_id, "file_name": f"{name}.jpg", "height": _SIZE[0], "width": _SIZE[1]})
        rows = []
        for row, (category, polygon) in enumerate(shapes, 1):
            x, y, width, height = cv2.boundingRect(polygon)
            area = int(np.count_nonzero(segments == row))
            about = {"category_id": category, "area": area, "bbox": [x, y, width, height], "iscrowd": 0}
            rows.append({"id": row, **about})
            outline = [polygon.reshape(-1).tolist()]
            annotations.append({"id": len(annotations) + 1, "image_id": image_id, "segmentation": outline, **about})
        panoptic.append({"image_id": image_id, "file_name": f"{name}.png", "segments_info": rows})
    categories = [{"id": number, "name": name} for number, name in enumerate(CLASSES, 1)]
    things = [{**entry, "isthing": int(CLASSES[entry["name"]])} for entry in categories]
    _write(
        out / "annotations" / "instances_default.json",
        {"images": images, "annotations": annotations, "categories": categories},
    )
    _write(
        out / "annotations" / "panoptic_default.json",
        {"images": images, "annotations": panoptic, "categories": things},
    )
    with output_path(out / "shapes.yaml") as temporary:
        temporary.write_text(LABEL_MAP, encoding="utf-8")


def draw_scene(rng: np.random.Generator) -> tuple[np.ndarray, list[tuple[int, np.ndarray]], np.ndarray]:
    """Return a picture, its shapes from back to front, and its labels.

    Returns:
        (H, W, 3) uint8 RGB; for each shape its category id and (k, 2) int32 polygon, xy px; (H, W) uint8 the number of
        the shape at each pixel, from 1.
    """
    height, width = _SIZE
    horizon = int(rng.integers(height // 4, height // 2))
    picture = np.zeros((*_SIZE, 3), np.float32)
    segments = np.zeros(_SIZE, np.uint8)
    shapes: list[tuple[int, np.ndarray]] = []

    def add(name: str, polygon: np.ndarray, pixels: np.ndarray) -> None:
        mask = np.zeros(_SIZE, np.uint8)
        cv2.fillPoly(mask, [polygon], 1)
        covered = np.where(mask > 0, len(shapes) + 1, segments)
        counts = np.bincount(covered.ravel(), minlength=len(shapes) + 2)[1:]
        if counts.min() >= _SMALLEST_PX:
            np.copyto(picture, pixels, where=mask[..., None] > 0)
            segments[:] = covered
            shapes.append((list(CLASSES).index(name) + 1, polygon))

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
    return cv2.GaussianBlur(np.clip(picture, 0, 255), (3, 3), 0).astype(np.uint8), shapes, segments


def _outline(name: str, rng: np.random.Generator) -> np.ndarray:
    """Return a shape's corners, (k, 2), its height about 1 and its middle at 0."""
    if name == "ball":
        angle = np.linspace(0, 2 * np.pi, 24, endpoint=False)
        return 0.5 * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    if name == "cone":
        return np.array([(0.0, -0.5), (rng.uniform(0.25, 0.4), 0.5), (rng.uniform(-0.4, -0.25), 0.5)])
    angle, half = rng.uniform(-0.3, 0.3), rng.uniform(0.35, 0.6)
    turn = np.array([(np.cos(angle), -np.sin(angle)), (np.sin(angle), np.cos(angle))])
    corners = np.array([(-half, -0.45), (half, -0.45), (half, 0.45), (-half, 0.45)])
    return corners @ turn.T


def _texture(rng: np.random.Generator, stretch: tuple[int, int], contrast: float = 0.3) -> np.ndarray:
    """Return (H, W, 3) float32 in a random colour, with blotches of `stretch` times 4 px."""
    height, width = _SIZE
    coarse = rng.random((height // (4 * stretch[0]), width // (4 * stretch[1]))).astype(np.float32)
    blotches = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)[..., None]
    result: np.ndarray = rng.uniform(40, 220, 3).astype(np.float32) * (1 - contrast + 2 * contrast * blotches)
    return result


def _write(path: Path, document: dict[str, Any]) -> None:
    with output_path(path) as temporary:
        temporary.write_text(json.dumps(document), encoding="utf-8")


def main() -> None:
    """Run the script."""
    parser = argparse.ArgumentParser(description="Make a data set of balls, crates and cones to learn from.")
    parser.add_argument("--out", required=True, type=Path, help="folder of the data set")
    parser.add_argument("--pictures", type=int, default=60, help="how many (default: %(default)s)")
    options = parser.parse_args()
    make_data(options.out, options.pictures)


if __name__ == "__main__":
    main()
