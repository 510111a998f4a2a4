# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Installs the Python half of the package, or with CMake's part all of it: what pyproject.toml cannot say."""

import os
from pathlib import Path
from xml.etree import ElementTree

from setuptools import Distribution, setup

NAME = "rt_panoptic_ros"
PREFIX = os.environ.get("RT_PANOPTIC_PREFIX")
"""Where CMake has installed the package with its messages, for a wheel that holds both (`scripts/make_wheel`)."""


def share_files() -> list[tuple[str, list[str]]]:
    """Lay the files beside the code out as ament does, under `share/rt_panoptic_ros` of the installation prefix."""
    layout = {Path("share", NAME): ["package.xml"]}
    for top in ("config", "launch", "models", "msg"):
        for path in sorted(Path(top).rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                layout.setdefault(Path("share", NAME) / path.parent, []).append(str(path))
    return [(str(folder), files) for folder, files in layout.items()]


def built_files(prefix: Path) -> list[tuple[str, list[str]]]:
    """Lay out all that CMake has installed, less the modules, which setuptools packs, and their metadata."""
    layout: dict[str, list[str]] = {}
    for path in sorted(path for path in prefix.rglob("*") if path.is_file()):
        inside = path.relative_to(prefix)
        module = Path(NAME, *inside.parts[4:])  # behind lib/pythonX.Y/site-packages/rt_panoptic_ros
        if "site-packages" not in inside.parts or not (module.exists() or inside.parts[3].endswith(".egg-info")):
            layout.setdefault(str(inside.parent), []).append(os.path.relpath(path))
    return list(layout.items())


class Built(Distribution):
    """A distribution for one version of Python on one kind of machine."""

    def has_ext_modules(self) -> bool:
        """Say so."""
        return True


setup(
    version=ElementTree.parse("package.xml").findtext("version"),
    data_files=built_files(Path(PREFIX)) if PREFIX else share_files(),
    distclass=Built if PREFIX else Distribution,
)
