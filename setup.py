"""Installs the Python half of the package: what pyproject.toml cannot say."""

from pathlib import Path
from xml.etree import ElementTree

from setuptools import setup

NAME = "rt_panoptic_ros"


def share_files() -> list[tuple[str, list[str]]]:
    """Lay the files beside the code out as ament does, under `share/rt_panoptic_ros` of the installation prefix."""
    layout = {Path("share", NAME): ["package.xml"]}
    for top in ("config", "launch", "models", "msg"):
        for path in sorted(Path(top).rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                layout.setdefault(Path("share", NAME) / path.parent, []).append(str(path))
    return [(str(folder), files) for folder, files in layout.items()]


setup(version=ElementTree.parse("package.xml").findtext("version"), data_files=share_files())
