# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""What comes with this package from others: a lock of it, its licences, known vulnerabilities, a bill of materials.

`make lock` renews scripts/demo.lock, `make sbom` writes CycloneDX; `python -m scripts.supply_chain licences` and, in
`make lint`, `vulnerabilities` look at what is installed where they run. docs/releases.md says what came of it.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import queue
import re
import subprocess
import sys
import tempfile
import threading
import urllib.request
import uuid
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from rt_panoptic_ros.errors import InvalidInputError, UnavailableError, first_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "scripts" / "demo.lock"
"""The demo's environment for Python 3.10 and later: each package's version, and the digests of all files of it."""
OSV = "https://api.osv.dev/v1/querybatch"
"""The database of known vulnerabilities: https://google.github.io/osv.dev/post-v1-querybatch/"""
ACCEPTED: dict[str, str] = {}
"""Vulnerabilities that don't reach this package: the database's id, and why not."""

_ASKED = "make_environment.txt"
"""What the lock calls the list of those packages that are asked for themselves."""
_PIN = re.compile(
    r"(?P<name>[a-z0-9-]+)==(?P<version>[^\s;]+)(?: ; (?P<marker>[^\\\n]+))? \\\n"
    r"(?P<hashes>(?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)    # via (?P<via>.+)\n"
)
_SPDX = {  # what packages write in their own words
    "3-clause bsd license": "BSD-3-Clause",
    "apache 2.0": "Apache-2.0",
    "apache license 2.0": "Apache-2.0",
    "apache license version 2.0": "Apache-2.0",
    "apache license, version 2.0": "Apache-2.0",
    "apache software license 2.0": "Apache-2.0",
    "freebsd": "BSD-2-Clause",
    "mit license": "MIT",
    "mozilla public license 2.0 (mpl 2.0)": "MPL-2.0",
}
_LICENCE_IN_TEXT = re.compile(
    r"<license[^>]*>([^<]+)</license>|\A\s*(Apache(?: Software)? License\s+(?:Version )?2\.0|MIT License)"
)
_PERMISSIVE = re.compile(
    r"(?i)\b(0BSD|any-OSI|Apache|Boost|BSD|BSL|CC0|HPND|ISC|LLVM|MIT|PSF|Public Domain|Python|Unlicense|Zlib)\b"
)
_WEAK_COPYLEFT = re.compile(r"(?i)\b(LGPL|Lesser General|MPL|Mozilla|EPL|Eclipse)")
_COPYLEFT = re.compile(r"(?i)GPL|General Public")
_PROPRIETARY = re.compile(r"(?i)\b(proprietary|NVIDIA)\b")


@dataclass(frozen=True)
class Pin:
    """One package of the lock: its version, where that is meant, its files' SHA-256, and the packages that want it."""

    name: str
    version: str
    marker: str
    hashes: tuple[str, ...]
    wanted_by: tuple[str, ...]


def normalized(name: str) -> str:
    """Return a package's name as indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def parse_lock(text: str) -> list[Pin]:
    """Return the packages of a lock file, in its order.

    Args:
        text: pip's requirements with digests, each with a line on who wants it, as `write_lock` has uv write them.

    Raises:
        InvalidInputError: Something else is in it.
    """
    body = re.sub(r"\A(?:#.*\n)*", "", text)
    pins, end = [], 0
    for found in _PIN.finditer(body):
        if found.start() != end:
            break
        hashes = tuple(re.findall("sha256:([0-9a-f]+)", found["hashes"]))
        pins.append(
            Pin(found["name"], found["version"], found["marker"] or "", hashes, tuple(found["via"].split(", ")))
        )
        end = found.end()
    if not pins or end != len(body):
        raise InvalidInputError(f"expected a lock as `make lock` writes it, got {first_line(ValueError(body[end:]))!r}")
    return pins


def write_lock(path: Path) -> None:
    """Resolve what `scripts/make_environment` installs anew, with uv, for every Python and platform at once.

    Args:
        path: The lock; uv, which pip fetches for this, writes no index's address into it.
    """
    command = f"pip compile {_ASKED} --universal --python-version 3.10 --generate-hashes --annotation-style line"
    with tempfile.TemporaryDirectory() as folder:
        with Path(folder, _ASKED).open("wb") as asked:
            subprocess.run([ROOT / "scripts" / "make_environment", "--list"], check=True, stdout=asked)
        subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--target", folder, "uv>=0.9"], check=True)
        lock = subprocess.run(
            ["bin/uv", *command.split(), "--quiet", "--no-config", "--custom-compile-command", "make lock"],
            check=True, stdout=subprocess.PIPE, cwd=folder, encoding="utf-8",
        ).stdout  # fmt: skip
    parse_lock(lock)
    path.write_text(lock, encoding="utf-8")


def licence_of(described: Mapping[str, str], classifiers: Iterable[str] = (), texts: Iterable[str] = ()) -> str:
    """Return the licence that a package names, "" for none: SPDX where it says so or the words leave no doubt.

    Args:
        described: Its metadata, of which License-Expression and License are read.
        classifiers: Those of its metadata.
        texts: Its licence files and, of a ROS 2 package, package.xml: looked into where the metadata says nothing.
    """
    if expression := described.get("License-Expression"):
        return expression
    text = (described.get("License") or "").strip().rpartition(" :: ")[2]
    names = [text]
    if not text or text == "UNKNOWN" or "\n" in text or len(text) > 80:  # none, or all of its wording
        names = [entry.rpartition(" :: ")[2] for entry in classifiers if entry.startswith("License :: ")]
        names = names or [name for text in texts for found in _LICENCE_IN_TEXT.findall(text) for name in found if name]
    return " AND ".join(dict.fromkeys(_SPDX.get(name.lower(), name) for name in map(" ".join, map(str.split, names))))


def remark_on(licence: str) -> str:
    """Return what somebody who distributes the package with this one, under Apache-2.0, should know; "" for nothing.

    Args:
        licence: From `licence_of`; of alternatives (OR) the most liberal one counts, of parts (AND) the strictest.
    """
    ranks = ("", "weak copyleft: pass its source on", "not told: read its files", "proprietary: not to be passed on",
             "copyleft: not under Apache-2.0")  # fmt: skip

    def rank(part: str) -> int:
        if _WEAK_COPYLEFT.search(part):
            return 1
        if _COPYLEFT.search(part):
            return 4
        return 3 if _PROPRIETARY.search(part) else 0 if _PERMISSIVE.search(part) else 2

    alternatives = licence.replace("(", " ").replace(")", " ").split(" OR ")
    return ranks[min(max(map(rank, one.split(" AND "))) for one in alternatives)]


def _licence_texts(package: metadata.Distribution, name: str) -> Iterator[str]:
    ros_name = re.sub("^ros-((jazzy|kilted)-)?", "", name).replace("-", "_")
    files = [Path(str(file.locate())) for file in package.files or () if file.name.startswith(("LICEN", "COPYING"))]
    for path in (*files, Path(sys.prefix, "share", ros_name, "package.xml")):
        if path.is_file():
            yield path.read_text(encoding="utf-8", errors="replace")


def installed_licences() -> dict[tuple[str, str], str]:
    """Return the licence of each package that is installed where this runs, by name (`normalized`) and version."""
    licences = {}
    for package in metadata.distributions():
        told = package.metadata  # read anew each time
        name = normalized(told["Name"])
        described = {key: told[key] for key in ("License", "License-Expression") if key in told}
        licence = licence_of(described, told.get_all("Classifier") or (), _licence_texts(package, name))
        licences[name, told["Version"]] = licence
    return licences


def format_licences(licences: Mapping[tuple[str, str], str]) -> str:
    """Return a Markdown table of packages, with what to know of each, and below it a sentence that counts.

    Args:
        licences: From `installed_licences`.
    """
    rows = [(name, version, licence, remark_on(licence)) for (name, version), licence in sorted(licences.items())]
    lines = ["| package | version | licence | to know |", "|---|---|---|---|"]
    lines += ["| {} | {} | {} | {} |".format(*row) for row in rows]
    flagged = sum(1 for *_, remark in rows if remark)
    return "\n".join([*lines, "", f"{len(rows)} packages, {flagged} of them with something to know."])


def _ask(packages: Sequence[tuple[str, str]], database: str, seconds: float) -> list[list[str]]:
    queries: dict[int, dict[str, Any]] = {
        index: {"package": {"name": name, "ecosystem": "PyPI"}, "version": version}
        for index, (name, version) in enumerate(packages)
    }
    found: list[list[str]] = [[] for _ in packages]
    while queries:  # a long answer comes in pages, and says so for each query
        request = urllib.request.Request(
            database, json.dumps({"queries": list(queries.values())}).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=seconds) as answer:
            results = json.load(answer)["results"]
        if len(results) != len(queries):
            raise ValueError(f"{len(results)} results to {len(queries)} queries")
        for index, result in zip(list(queries), results, strict=True):
            found[index] += [entry["id"] for entry in result.get("vulns", ())]
            query = queries.pop(index)
            if token := result.get("next_page_token"):
                queries[index] = query | {"page_token": token}
    return found


def known_vulnerabilities(
    packages: Iterable[tuple[str, str]], *, database: str = OSV, seconds: float = 20.0
) -> dict[tuple[str, str], list[str]]:
    """Return the ids of vulnerabilities that a database knows of packages, for those of which it knows any.

    Args:
        packages: Names and versions.
        database: An address that answers as OSV's does.
        seconds: How long it may take in all, looking its name up included.

    Raises:
        UnavailableError: It could not be asked, or its answer makes no sense.
    """
    asked = sorted(packages)
    answers: queue.SimpleQueue[list[list[str]] | Exception] = queue.SimpleQueue()

    def ask() -> None:
        try:
            answers.put(_ask(asked, database, seconds))
        except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError, AttributeError) as error:
            answers.put(error)

    threading.Thread(target=ask, daemon=True).start()  # nothing else ends a look-up of names in time
    try:
        answer = answers.get(timeout=seconds)
    except queue.Empty:
        answer = TimeoutError(f"no answer within {seconds:g} s")
    if isinstance(answer, Exception):
        raise UnavailableError(
            f"{database} could not be asked: {type(answer).__name__}: {first_line(answer)}"
        ) from answer
    return {package: sorted(ids) for package, ids in zip(asked, answer, strict=True) if ids}


def check_vulnerabilities(packages: Iterable[tuple[str, str]], *, database: str = OSV, seconds: float = 20.0) -> int:
    """Print what is known, or that it wasn't checked, and return the exit status: 1 for any that `ACCEPTED` lacks.

    Args:
        packages: As `known_vulnerabilities` has them, like the rest.
        database: Of it.
        seconds: Of it.
    """
    packages = set(packages)
    try:
        known = known_vulnerabilities(packages, database=database, seconds=seconds)
    except UnavailableError as error:
        print(f"known vulnerabilities were NOT checked: {error}")
        return 0
    status = 0
    for (name, version), ids in known.items():
        for vulnerability in ids:
            reason = ACCEPTED.get(vulnerability)
            status |= reason is None
            print(f"{name} {version}: https://osv.dev/{vulnerability}", f"(accepted: {reason})" if reason else "")
    print(f"{len(packages)} packages looked up, {len(known)} with known vulnerabilities")
    return status


def bill_of_materials(
    pins: Iterable[Pin], licences: Mapping[tuple[str, str], str], version: str, now: datetime
) -> dict[str, Any]:
    """Return CycloneDX 1.6 (https://cyclonedx.org/docs/1.6/json/) of what the demo has where this runs.

    Args:
        pins: The lock's; those meant for another Python or platform are left out.
        licences: From `installed_licences`; a package that isn't installed as locked has none in it.
        version: Of this package.
        now: When this is.
    """
    from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression
    from packaging.markers import Marker

    def licence_entry(text: str) -> list[dict[str, Any]]:
        try:
            return [{"expression": canonicalize_license_expression(text)}]
        except InvalidLicenseExpression:
            return [{"license": {"name": text}}]

    meant = [pin for pin in pins if not pin.marker or Marker(pin.marker).evaluate()]
    references = {pin.name: f"pkg:pypi/{pin.name}@{pin.version}" for pin in meant}
    own = f"pkg:generic/rt_panoptic_ros@{version}"
    components: list[dict[str, Any]] = []
    for pin in meant:
        files = {
            "type": "distribution", "url": f"https://pypi.org/simple/{pin.name}/", "comment": "one of its files",
            "hashes": [{"alg": "SHA-256", "content": digest} for digest in pin.hashes],
        }  # fmt: skip
        component = {
            "type": "library", "bom-ref": references[pin.name], "name": pin.name, "version": pin.version,
            "purl": references[pin.name], "externalReferences": [files],
        }  # fmt: skip
        if licence := licences.get((pin.name, pin.version)):
            component["licenses"] = licence_entry(licence)
        components.append(component)
    wants: dict[str, list[str]] = {own: [], **{reference: [] for reference in references.values()}}
    for pin in meant:
        for parent in pin.wanted_by:
            wanting = own if parent == f"-r {_ASKED}" else references.get(parent)
            if wanting is not None:
                wants[wanting].append(references[pin.name])
    serial = uuid.uuid5(uuid.NAMESPACE_URL, "\n".join([own, *references.values()]))
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{serial}",
        "version": 1,
        "metadata": {
            "timestamp": now.isoformat(timespec="seconds"),
            "authors": [{"name": "rt_panoptic_ros developers"}],
            "component": {
                "type": "application", "bom-ref": own, "name": "rt_panoptic_ros", "version": version, "purl": own,
                "licenses": [{"expression": "Apache-2.0"}],
            },
        },
        "components": components,
        "dependencies": [{"ref": reference, "dependsOn": wanted} for reference, wanted in wants.items()],
    }  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m scripts.supply_chain", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("lock", help="renew scripts/demo.lock")
    commands.add_parser("licences", help="list those of all that is installed where this runs, as Markdown")
    lint = commands.add_parser(
        "vulnerabilities", help="look up the lock's packages and those installed where this runs"
    )
    lint.add_argument("--database", default=OSV, help="address that answers as OSV's does (default: %(default)s)")
    lint.add_argument("--seconds", type=float, default=20.0, help="how long it may take (default: %(default)g)")
    sbom = commands.add_parser("sbom", help="write CycloneDX JSON of the lock, as this Python and platform have it")
    sbom.add_argument("--out", type=Path, required=True, metavar="FILE.cdx.json")
    options = parser.parse_args(arguments)
    if options.command == "lock":
        write_lock(LOCK)
        return 0
    if options.command == "licences":
        print(format_licences(installed_licences()))
        return 0
    pins = parse_lock(LOCK.read_text(encoding="utf-8"))
    if options.command == "vulnerabilities":
        packages = {(pin.name, pin.version) for pin in pins} | set(installed_licences())
        return check_vulnerabilities(packages, database=options.database, seconds=options.seconds)
    version = ElementTree.parse(ROOT / "package.xml").findtext("version") or ""
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    now = datetime.fromtimestamp(int(epoch), timezone.utc) if epoch else datetime.now(timezone.utc)
    bill = bill_of_materials(pins, installed_licences(), version, now)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(bill, indent=1) + "\n", encoding="utf-8")
    print(f"{options.out}: {len(bill['components'])} packages")
    return 0


if __name__ == "__main__":
    sys.exit(main())
