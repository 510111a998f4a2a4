# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""`python -m scripts.three_dimensions`: how near objects are found to where they are, what cloud and boxes cost.

The scenes, what a depth camera makes of them, and the plain implementation lie in test/.
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rt_panoptic_ros.benchmark.measure import Comparison, StageClock, compare
from rt_panoptic_ros.geometry.boxes import BoxFinder
from rt_panoptic_ros.geometry.cloud import POINT, fill_cloud, metres

if TYPE_CHECKING:
    from collections.abc import Iterator

sys.path.append(str(Path(__file__).resolve().parents[1] / "test"))

CONDITIONS = {  # noise (m at 3 m), holes, and how far masks reach over their objects, px
    "exact": (0.0, 0.0, 0),
    "1 cm noise, 10 % holes": (0.01, 0.1, 0),
    "and masks 4 px too wide": (0.01, 0.1, 4),
}


def accuracy() -> Iterator[str]:
    """Give a line for each scene and condition, with errors of centre and size against what is seen of the object."""
    cases: Any = import_module("depth_scenes")
    scenes = {
        "box, from the front": cases.Box((0, 0, 3.25), (0.6, 0.8, 0.5)),
        "box, turned": cases.Box((0.3, 0.1, 3.2), (0.6, 0.8, 0.5), 0.6),
        "plane, slanting": cases.Box((0, 0, 3), (1.2, 0.8, 0.001), 0.7),
        "ball": cases.Ball((0.2, -0.1, 3.3), 0.3),
        "small ball": cases.Ball((0.2, -0.1, 3.1), 0.1),
        "box of 1.5 m depth": cases.Box((0.8, 0.1, 3.5), (0.4, 0.4, 1.5)),
    }
    finder = BoxFinder()
    for name, thing in scenes.items():
        scene = cases.Scene((thing,))
        center, size = scene.visible_box(0)
        for condition, (noise, holes, loose_px) in CONDITIONS.items():
            depth = cases.measured(scene.depth, noise=noise, holes=holes, flying=noise > 0)
            instance = cases.loosened(scene.instance, loose_px)
            ids, boxes = cases.mask_boxes(instance)
            found = finder.find(metres(depth), instance, ids, boxes, scene.camera)
            off, wrong = found.centers[0] - center, found.sizes[0] - size
            sizes = ", ".join(f"{100 * value:.0f} {100 * error:+.1f}" for value, error in zip(size, wrong, strict=True))
            yield f"{name:20} {condition:24} centre {100 * np.linalg.norm(off):4.1f} cm off; x, y, z: {sizes} cm"


def times(seconds: float) -> Comparison:
    """Time cloud and boxes of 20 objects at 480x640, beside the plain implementation."""
    cases: Any = import_module("depth_scenes")
    reference: Any = import_module("reference_geometry")
    scene = cases.Scene(
        tuple(
            cases.Box((-1.5 + 0.6 * (i % 6), -0.9 + 0.6 * (i // 6), 3 + 0.1 * i), (0.45, 0.45, 0.3), 0.3 * i)
            for i in range(20)
        )
    )
    depth, instance, (ids, boxes) = cases.measured(scene.depth), scene.instance, cases.mask_boxes(scene.instance)
    random = np.random.default_rng(0)
    rgb, labels = random.integers(0, 256, (*depth.shape, 3), np.uint8), instance.astype(np.uint8)
    finder, cloud = BoxFinder(), np.empty(depth.shape, POINT)

    def ours(clock: StageClock) -> None:
        with clock.stage("metres"):
            z = metres(depth)
        with clock.stage("cloud"):
            fill_cloud(cloud, z, rgb, labels, instance, labels, scene.camera)
        with clock.stage("boxes"):
            finder.find(z, instance, ids, boxes, scene.camera)

    def plain(clock: StageClock) -> None:
        with clock.stage("cloud"):
            reference.cloud(depth, rgb, labels, instance, labels, scene.camera)
        with clock.stage("boxes"):
            z = metres(depth)
            for number, box in zip(ids, boxes, strict=True):
                reference.object_box(z, instance == number, box, scene.camera)

    subject = (
        f"organised cloud and {len(ids)} boxes at {depth.shape[0]}x{depth.shape[1]}, on the CPU, beside plain NumPy"
    )
    return compare(subject, ours, plain, seconds=seconds)


if __name__ == "__main__":
    print("\n".join(accuracy()))
    print(times(10.0).format())
