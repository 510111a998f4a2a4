"""Fixtures shared by all tests; caches go to a folder of this test run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rt_panoptic_ros.architecture import NetworkConfig
from rt_panoptic_ros.class_table import load_class_table
from rt_panoptic_ros.model_bundle import ModelBundle
from rt_panoptic_ros.untrained import make_untrained_bundle

ROOT = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("RT_PANOPTIC_SHARED", ROOT.parent / "shared"))
DATA = Path(os.environ.get("RT_PANOPTIC_DATA", SHARED / "data"))


@pytest.fixture(autouse=True, scope="session")
def _private_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))


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
