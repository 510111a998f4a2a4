# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Made-up scenes of boxes, balls and walls, with the depth of every pixel as a camera would measure it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from rt_panoptic_ros.geometry.intrinsics import Intrinsics

CAMERA = Intrinsics(525.0, 525.0, 319.5, 239.5)
SIZE = 480, 640


@dataclass(frozen=True)
class Box:
    """A box turned about the camera's y axis, then about its x axis."""

    center: tuple[float, float, float]  # m, in the camera's optical frame
    size: tuple[float, float, float]  # m
    turn: float = 0.0  # rad
    tilt: float = 0.0  # rad

    def depth(self, rays: np.ndarray) -> np.ndarray:
        """Return the depth at which rays (H, W, 3) with z = 1 meet it, infinite where they don't."""
        c, s, ct, st = np.cos(self.turn), np.sin(self.turn), np.cos(self.tilt), np.sin(self.tilt)
        rotation = np.array([[1, 0, 0], [0, ct, -st], [0, st, ct]]) @ np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
        directions, origin = rays @ rotation, -np.array(self.center) @ rotation  # of rotation's inverse
        with np.errstate(divide="ignore", invalid="ignore"):
            bounds = [(sign * np.array(self.size) / 2 - origin) / directions for sign in (-1, 1)]
        near, far = np.minimum(*bounds).max(axis=-1), np.maximum(*bounds).min(axis=-1)
        return np.where((near <= far) & (near > 0), near, np.inf)


@dataclass(frozen=True)
class Ball:
    """A sphere."""

    center: tuple[float, float, float]
    radius: float

    def depth(self, rays: np.ndarray) -> np.ndarray:
        """Return the depth at which rays (H, W, 3) with z = 1 meet it, infinite where they don't."""
        center = np.array(self.center)
        a, b, c = (rays**2).sum(-1), rays @ center, center @ center - self.radius**2
        root = b**2 - a * c
        return np.where(root >= 0, (b - np.sqrt(np.maximum(root, 0))) / a, np.inf)


@dataclass(frozen=True)
class Scene:
    """Things before a wall across the camera's axis."""

    things: tuple[Box | Ball, ...]
    wall: float = 6.0  # m
    size: tuple[int, int] = SIZE
    camera: Intrinsics = CAMERA
    depth: np.ndarray = field(init=False)  # (H, W) float32, m: exact
    instance: np.ndarray = field(init=False)  # (H, W) uint16: 1 + the thing's place, 0 for the wall

    def __post_init__(self) -> None:
        depths = np.stack([np.full(self.size, self.wall), *(thing.depth(self.rays) for thing in self.things)])
        object.__setattr__(self, "instance", depths.argmin(axis=0).astype(np.uint16))
        object.__setattr__(self, "depth", depths.min(axis=0).astype(np.float32))

    @property
    def rays(self) -> np.ndarray:
        """(H, W, 3) float64: the direction of each pixel, with z = 1."""
        v, u = np.indices(self.size)
        camera = self.camera
        return np.stack([(u - camera.cx) / camera.fx, (v - camera.cy) / camera.fy, np.ones(self.size)], axis=-1)

    def surface(self, number: int) -> np.ndarray:
        """Return points (n, 3) of what is seen of a thing, m, rendered finely."""
        fine, camera = 3, self.camera
        camera = Intrinsics(
            camera.fx * fine, camera.fy * fine, (camera.cx + 0.5) * fine - 0.5, (camera.cy + 0.5) * fine - 0.5
        )
        scene = Scene(self.things, self.wall, (self.size[0] * fine, self.size[1] * fine), camera)
        seen = scene.instance == number + 1
        points: np.ndarray = scene.rays[seen] * scene.depth[seen][:, None]
        return points

    def visible_box(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Return centre and size, (3,) each, m, of the box around what is seen of a thing."""
        points = self.surface(number)
        return (points.min(0) + points.max(0)) / 2, np.ptp(points, axis=0)


def mask_boxes(instance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the ids (n,) in an instance image, and the boxes (n, 4) int32 of their pixels, inclusive."""
    ids = np.setdiff1d(instance, 0)
    boxes = np.zeros((len(ids), 4), np.int32)
    for row, number in enumerate(ids):
        v, u = np.nonzero(instance == number)
        boxes[row] = u.min(), v.min(), u.max(), v.max()
    return ids, boxes


def measured(
    depth: np.ndarray, *, noise: float = 0.01, holes: float = 0.1, flying: bool = True, seed: int = 0
) -> np.ndarray:
    """Return depth, (H, W) uint16 mm, as a camera measures it.

    Args:
        depth: (H, W) float32, m.
        noise: Its standard deviation at 3 m, m; it grows with the square of the distance, as a stereo camera's.
        holes: Share of the pixels without depth.
        flying: Have pixels at edges lie anywhere between the near and the far side.
        seed: Of it all.
    """
    random = np.random.default_rng(seed)
    result = depth.astype(np.float64)
    if flying:
        for axis in (0, 1):
            near = np.minimum(depth, np.roll(depth, 1, axis))
            far = np.maximum(depth, np.roll(depth, 1, axis))
            edge = far - near > 0.3
            result[edge] = (near + (far - near) * random.random(depth.shape))[edge]
    result += noise * (result / 3) ** 2 * random.standard_normal(depth.shape)
    # Holes are patches, as of shine and shadow, and single pixels.
    patches = random.random((depth.shape[0] // 8 + 1, depth.shape[1] // 8 + 1)) < holes / 2
    hidden = np.kron(patches, np.ones((8, 8), bool))[: depth.shape[0], : depth.shape[1]]
    result[hidden | (random.random(depth.shape) < holes / 2)] = 0
    return np.clip(np.rint(result * 1000), 0, 65535).astype(np.uint16)


def loosened(instance: np.ndarray, pixels: int) -> np.ndarray:
    """Return masks that reach so many pixels over their objects' outlines, onto what is behind them."""
    import cv2

    kernel = np.ones((2 * pixels + 1, 2 * pixels + 1), np.uint8)
    result = instance.copy()
    for number in np.setdiff1d(instance, 0):
        grown = cv2.dilate((instance == number).astype(np.uint8), kernel) > 0
        result[grown & (result == 0)] = number
    return result
