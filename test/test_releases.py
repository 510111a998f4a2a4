# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""What a release says of itself: versions in agreement, keys for rosdep, and what lies in a wheel."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # catkin_pkg's, of pyparsing

OF_ROSDISTRO = {"python3-onnxruntime-pip"}
"""The keys for pip in package.xml that rosdistro's rosdep/python.yaml has."""


@pytest.fixture(scope="module")
def manifest():
    package = pytest.importorskip("catkin_pkg.package").parse_package(ROOT / "package.xml")
    warnings: list[str] = []
    package.validate(warnings)
    assert warnings == []
    return package


def test_all_places_tell_one_version(manifest):
    changelog = pytest.importorskip("catkin_pkg.changelog").get_changelog_from_path(ROOT / "CHANGELOG.rst")
    newest, *_ = [version for version, *_ in changelog.foreach_version()]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert newest == str(citation["version"]) == manifest.version
    assert (citation["authors"][0]["name"], citation["license"]) == (manifest.authors[0].name, manifest.licenses[0])


@pytest.mark.parametrize("wanted", [False, True])
def test_keys_that_pip_installs_are_there_when_asked_for_alone(manifest, wanted):
    manifest.evaluate_conditions({"RT_PANOPTIC_PIP": "yes"} if wanted else {})
    of_pip = {found.name for found in manifest.exec_depends if found.evaluated_condition and found.name[-4:] == "-pip"}
    ours = yaml.safe_load((ROOT / "config" / "rosdep.yaml").read_text(encoding="utf-8"))
    assert of_pip == (ours.keys() | OF_ROSDISTRO if wanted else set())
    for key, rules in ours.items():
        name = re.fullmatch("python3-(.+)-pip", key)[1]
        assert rules == {system: {"pip": {"packages": [name]}} for system in ("debian", "ubuntu")}
        assert re.search(f'"{name}>=', (ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_a_wheel_holds_all_that_cmake_installs_once(tmp_path):
    """The second half of `scripts/make_wheel`, behind what CMake installs for the tests, without the models' 30 MB."""
    pytest.importorskip("setuptools", minversion="77")
    build, prefix, source = Path(sys.prefix, "build"), tmp_path / "prefix", tmp_path / "source"
    if not (build / "cmake_install.cmake").is_file():
        pytest.skip("CMake has built the package elsewhere than in .venv/build")
    subprocess.run(["cmake", "--install", build, "--prefix", prefix], check=True, stdout=subprocess.DEVNULL)
    shutil.rmtree(prefix / "share/rt_panoptic_ros/models")
    source.mkdir()
    for name in ("pyproject.toml", "setup.py", "package.xml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "rt_panoptic_ros", source / "rt_panoptic_ros", ignore=shutil.ignore_patterns("*.pyc"))
    make = f"from setuptools.build_meta import build_wheel; build_wheel({str(tmp_path)!r})"
    environment = os.environ | {"RT_PANOPTIC_PREFIX": str(prefix)}
    subprocess.run([sys.executable, "-c", make], check=True, stdout=subprocess.DEVNULL, cwd=source, env=environment)
    (wheel,) = tmp_path.glob("*.whl")
    assert not wheel.stem.endswith("-any")
    _, version, *_ = wheel.stem.split("-")
    data, python = f"rt_panoptic_ros-{version}.data/data", "lib/python{}.{}/site-packages".format(*sys.version_info)
    names = set(zipfile.ZipFile(wheel).namelist())
    assert names >= {
        "rt_panoptic_ros/py.typed",
        f"{data}/{python}/rt_panoptic_ros/msg/_panoptic_detection.py",
        f"{data}/lib/librt_panoptic_ros__rosidl_generator_py.so",
        f"{data}/lib/rt_panoptic_ros/panoptic_node",
        f"{data}/share/rt_panoptic_ros/config/panoptic.yaml",
    }
    laid_by_cmake = {name.removeprefix(f"{data}/{python}/") for name in names if name.startswith(f"{data}/{python}/")}
    assert not laid_by_cmake & names
    assert not [name for name in laid_by_cmake if ".egg-info" in name]
