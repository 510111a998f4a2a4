# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Fixtures shared by all tests; caches go to a folder of this test run."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
from hypothesis import settings

from rt_panoptic_ros.model.architecture import NetworkConfig
from rt_panoptic_ros.model.bundle import ModelBundle
from rt_panoptic_ros.model.class_table import load_class_table
from rt_panoptic_ros.model.untrained import make_untrained_bundle

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rt_panoptic_ros.training.recipe import Recipe

ROOT = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("RT_PANOPTIC_SHARED", ROOT.parent / "shared"))
DATA = Path(os.environ.get("RT_PANOPTIC_DATA", SHARED / "data"))

# The same examples in every run, so that a run fails only for what changed; new ones with --hypothesis-profile=default.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")

TINY_RECIPE: dict[str, Any] = {
    "network": {
        "backbone": "efficientnet_lite0", "pyramid_channels": 16, "localization_channels": 16, "semantics_channels": 8,
        "tower_depth": 1,
    },
    "augmentation": {"output_size": [64, 96], "scale_range": [0.8, 1.2], "flip_probability": 0.5},
    "optimizer": {"name": "adamw", "learning_rate": 1e-3, "average_decay": 0.9},
    "schedule": {"batch": 2, "images_per_process": 2, "steps": 4},
}  # fmt: skip
"""A recipe that takes seconds, on `tiny_camvid`."""


@pytest.hookimpl(trylast=True)  # what is deselected is gone then
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Have each of several processes begin with as many slow tests, the slowest first, so that none is left with one.

    pytest-xdist gives each an equal part of the items in their order; the others stay together, as they share fixtures.
    """

    def seconds(item: pytest.Item) -> float:
        marker = item.get_closest_marker("slow")
        return 0.0 if marker is None else float((*marker.args, 5.0)[0])

    slow = sorted((item for item in items if seconds(item)), key=seconds, reverse=True)
    others = [item for item in items if not seconds(item)]
    processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    ends, ordered = [len(items) * (part + 1) // processes for part in range(processes)], []
    for part, end in enumerate(ends):
        ordered += slow[part::processes]
        ordered += [others.pop(0) for _ in range(min(end - len(ordered), len(others)))]
    items[:] = ordered + others


@pytest.fixture(autouse=True, scope="session")
def _private_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder = tmp_path_factory.mktemp("cache")
    os.environ["XDG_CACHE_HOME"] = str(folder)
    yield
    # Up to 1.5 GB of graphs and engines, and what NVRTC leaves in a process that ends at once, as pytest-xdist's do.
    for left in (folder, *Path("/tmp").glob(f"__nvrtc_auto_pch_{os.getpid()}_*")):
        shutil.rmtree(left, ignore_errors=True)


@pytest.fixture(scope="session")
def reference_folder() -> Path:
    """The case computed by the authors' published code."""
    folder = SHARED / "reference"
    if not folder.is_dir():
        pytest.skip(f"the reference case is not at {folder}")
    return folder


@pytest.fixture(scope="session")
def small_network() -> NetworkConfig:
    """A network that runs in milliseconds."""
    return NetworkConfig("resnet18", pyramid_channels=16, localization_channels=16, semantics_channels=8, tower_depth=1)


@pytest.fixture(scope="session")
def small_bundle(tmp_path_factory: pytest.TempPathFactory, small_network: NetworkConfig) -> ModelBundle:
    """Random weights for `small_network`, CamVid's classes, any input size."""
    return make_untrained_bundle(
        tmp_path_factory.mktemp("models") / "small",
        network=small_network,
        classes=load_class_table("camvid"),
        size=None,
        seed=1,
    )


@pytest.fixture
def tiny_recipe() -> Recipe:
    from rt_panoptic_ros.training.recipe import parse_recipe

    return parse_recipe("tiny", TINY_RECIPE)


@pytest.fixture
def tiny_camvid(tmp_path: Path) -> Path:
    """Three images for learning, one for looking at: sky over road, and a car."""
    return write_tiny_camvid(tmp_path / "camvid")


def write_tiny_camvid(root: Path) -> Path:
    for split, count in (("train", 3), ("val", 1)):
        for folder in ("images", "labels"):
            (root / split / folder).mkdir(parents=True)
        for number in range(count):
            labels = np.full((64, 96), 3, np.uint8)
            labels[:24] = 0
            labels[30:50, 10 + 5 * number : 40] = 8
            cv2.imwrite(str(root / split / "labels" / f"{number}.png"), labels)
            image = np.random.default_rng(number).integers(0, 256, (64, 96, 3), np.uint8)
            cv2.imwrite(str(root / split / "images" / f"{number}.png"), image)
    return root
