# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""What is installed: the files beside the Python code (class tables, models, the Fast DDS profile), and versions."""

from __future__ import annotations

from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from rt_panoptic_ros.errors import InvalidInputError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterable

DEFAULT_MODEL = "street_lite0"
"""The model bundle that comes with the package, in models/."""

_PACKAGE = Path(__file__).parent


@cache
def share_directory() -> Path:
    """Return the folder that holds config/, launch/, models/ and msg/.

    That is the checkout itself, or `share/rt_panoptic_ros` of the prefix (colcon, CMake or pip) that this code is
    installed under.

    Raises:
        UnavailableError: Neither exists.
    """
    if (_PACKAGE.parent / "package.xml").is_file():
        return _PACKAGE.parent
    for prefix in _PACKAGE.parents:
        candidate = prefix / "share" / _PACKAGE.name
        if (candidate / "config").is_dir():
            return candidate
    raise UnavailableError(
        f"expected config/ beside the code or share/{_PACKAGE.name}/config above {_PACKAGE}, found neither: "
        "install the package again"
    )


def is_file(path: Path, kind: str) -> bool:
    """Return whether there is a regular file; `kind` is what it should be, for the message.

    Raises:
        InvalidInputError: It can't be looked up, as one whose name is too long.
    """
    try:
        return path.is_file()
    except OSError as error:
        raise InvalidInputError(f"expected {kind}, got '{path!s:.80}': {error.strerror}") from None


def config_file(folder: str, path_or_name: str, kind: str) -> Path:
    """Return the file at a path, or the YAML file of that name that comes with the package.

    Args:
        folder: Below config/, where the package's own lie.
        path_or_name: Path, or name without suffix.
        kind: What it is, for the message, such as "a recipe".

    Raises:
        InvalidInputError: There is no such file.
    """
    path = Path(path_or_name)
    shipped = share_directory() / "config" / folder
    if not is_file(path, kind) and path.parts == (path.name,):
        path = shipped / f"{path.name}.yaml"
    if not is_file(path, kind):
        names = ", ".join(sorted(item.stem for item in shipped.glob("*.yaml")))
        raise InvalidInputError(f"expected {kind} file or one of {names}, got '{path_or_name}': check the path")
    return path


@cache
def package_version() -> str:
    """Return this package's version, which package.xml says."""
    return str(ElementTree.parse(share_directory() / "package.xml").findtext("version"))


def installed_versions(packages: Iterable[str]) -> dict[str, str]:
    """Return {package: version} of those that are installed."""
    versions = {}
    for name in packages:
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    return versions
