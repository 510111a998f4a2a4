# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""What comes from others: the lock beside the ranges, licences, known vulnerabilities by a stand-in, the SBOM."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from rt_panoptic_ros.errors import InvalidInputError
from scripts import supply_chain
from scripts.supply_chain import (
    LOCK,
    Pin,
    bill_of_materials,
    check_vulnerabilities,
    installed_licences,
    licence_of,
    main,
    normalized,
    parse_lock,
    remark_on,
)

PACKAGES = [("numpy", "2.4.6"), ("pillow", "9.0.0")]
MIT = "License :: OSI Approved :: MIT License"


@cache
def asked() -> list[Requirement]:
    listed = subprocess.run(
        [ROOT / "scripts" / "make_environment", "--list"], check=True, capture_output=True, text=True
    )
    return [Requirement(line) for line in listed.stdout.splitlines()]


@pytest.mark.parametrize("python", ["3.10.0", "3.11.7", "3.12.1", "3.14.0"])
@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_lock_holds_all_that_is_asked_for_within_its_range(python: str, machine: str) -> None:
    surroundings = {"python_full_version": python, "python_version": python.rpartition(".")[0],
                    "platform_machine": machine, "sys_platform": "linux"}  # fmt: skip
    pins = [
        pin
        for pin in parse_lock(LOCK.read_text(encoding="utf-8"))
        if not pin.marker or Marker(pin.marker).evaluate(surroundings)
    ]
    locked = {pin.name: pin.version for pin in pins}
    assert len(locked) == len(pins), "one version of each"
    wanted = [one for one in asked() if one.marker is None or one.marker.evaluate(surroundings)]
    assert ("ros-jazzy-rclpy" in locked) == (machine == "x86_64")
    assert {one.name for one in wanted} >= {"numpy", "rosbags", "onnxruntime", "warp-lang"}
    for one in wanted:
        assert one.specifier.contains(locked[canonicalize_name(one.name)]), f"{one}: run `make lock`"


def test_the_lock_holds_all_that_its_packages_need_here() -> None:
    pins = parse_lock(LOCK.read_text(encoding="utf-8"))
    locked = {pin.name: pin.version for pin in pins if not pin.marker or Marker(pin.marker).evaluate()}
    installed = {normalized(found.metadata["Name"]): found for found in metadata.distributions()}
    same = [installed[name] for name in locked if name in installed and installed[name].version == locked[name]]
    if not same:
        pytest.skip("nothing is installed as the lock has it")
    for package in same:
        for needed in map(Requirement, package.requires or ()):
            if needed.marker is None or needed.marker.evaluate({"extra": ""}):
                name = canonicalize_name(needed.name)
                assert needed.specifier.contains(locked[name], prereleases=True), f"{package.name}: {needed}"


def test_no_address_of_any_index_is_in_the_lock() -> None:
    text = LOCK.read_text(encoding="utf-8")
    assert not re.search(r"://|@ |--(extra-)?index|find-links|/opt/", text)
    assert text.count("sha256:") > 1000


@pytest.mark.parametrize("line", ["numpy\n", "numpy==2.4.6\n", "--index-url https://example.org\n"])
def test_what_has_no_digest_is_no_lock(line: str) -> None:
    good = f"# by make lock\nsix==1.17.0 \\\n    --hash=sha256:{'a' * 64}\n    # via numpy\n"
    assert parse_lock(good) == [Pin("six", "1.17.0", "", ("a" * 64,), ("numpy",))]
    with pytest.raises(InvalidInputError, match=r"as `make lock` writes it, got '(numpy|--index)"):
        parse_lock(good + line)


@pytest.mark.parametrize(
    ("described", "classifiers", "texts", "licence", "remark"),
    [
        ({"License-Expression": "BSD-3-Clause AND Zlib", "License": "no"}, [MIT], [], "BSD-3-Clause AND Zlib", ""),
        ({"License": "Apache License, Version 2.0"}, [], [], "Apache-2.0", ""),
        ({"License": "UNKNOWN"}, [MIT], ["<license>BSD</license>"], "MIT", ""),
        ({"License": "Copyright 2026\nAll rights"}, ["License :: OSI Approved :: BSD License"], [], "BSD License", ""),
        ({}, [], ['<license file="L">Apache License 2.0</license><license>zlib</license>'], "Apache-2.0 AND zlib", ""),
        ({}, [], ["\n   Apache License\n   Version 2.0, January 2004\n"], "Apache-2.0", ""),
        ({}, [], ["Apache Software License 2.0\n\nCopyright"], "Apache-2.0", ""),
        ({"License": "MPL-2.0 AND MIT"}, [], [], "MPL-2.0 AND MIT", "weak copyleft"),
        ({"License-Expression": "LGPL-2.1-or-later"}, [], [], "LGPL-2.1-or-later", "weak copyleft"),
        ({"License-Expression": "MIT AND (GPL-3.0-only OR Apache-2.0)"}, [], [], None, ""),
        ({"License-Expression": "MIT AND GPL-2.0-only"}, [], [], "MIT AND GPL-2.0-only", "copyleft: not"),
        ({"License": "AGPLv3"}, [], [], "AGPLv3", "copyleft: not"),
        ({"License": "Proprietary"}, [], [], "Proprietary", "proprietary"),
        ({}, ["Topic :: Scientific/Engineering"], ["All rights reserved"], "", "not told"),
    ],
)  # fmt: skip
def test_licences_are_told_and_remarked_upon(
    described: dict[str, str], classifiers: list[str], texts: list[str], licence: str | None, remark: str
) -> None:
    told = licence_of(described, classifiers, texts)
    assert told == (described["License-Expression"] if licence is None else licence)
    assert remark_on(told).startswith(remark)
    assert bool(remark_on(told)) == bool(remark)


def test_all_that_is_installed_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["licences"]) == 0
    table = capsys.readouterr().out
    assert re.search(r"^\| pyyaml \| [\d.]+ \| MIT \|  \|$", table, re.MULTILINE)
    assert f"{len(installed_licences())} packages" in table


@pytest.fixture
def database() -> Iterator[Callable[[Callable[[dict[str, Any]], object]], str]]:
    """Start a server on this machine that answers each request with what a function makes of it; return its address."""
    servers: list[ThreadingHTTPServer] = []

    def serve(answer: Callable[[dict[str, Any]], object]) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                made = answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(made if isinstance(made, int) else 200)
                self.end_headers()
                self.wfile.write(json.dumps(made).encode())

            def log_message(self, *_: object) -> None: ...

        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_address[1]}/v1/querybatch"

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


def osv(request: dict[str, Any]) -> dict[str, Any]:
    """Know two of pillow 9.0.0, the second on another page, and none of others."""
    results = []
    for query in request["queries"]:
        assert query["package"]["ecosystem"] == "PyPI"
        if (query["package"]["name"], query["version"]) != ("pillow", "9.0.0"):
            results.append({})
        elif query.get("page_token") == "2":
            results.append({"vulns": [{"id": "PYSEC-2022-9"}]})
        else:
            results.append({"vulns": [{"id": "GHSA-8vj2"}], "next_page_token": "2"})
    return {"results": results}


def test_a_known_vulnerability_fails_the_check(
    database: Callable[..., str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    address = database(osv)
    assert check_vulnerabilities(PACKAGES[:1], database=address) == 0
    assert capsys.readouterr().out == "1 packages looked up, 0 with known vulnerabilities\n"
    monkeypatch.setitem(supply_chain.ACCEPTED, "GHSA-8vj2", "no such file is read")
    assert check_vulnerabilities(PACKAGES, database=address) == 1
    out = capsys.readouterr().out.splitlines()
    assert out[0].endswith("GHSA-8vj2 (accepted: no such file is read)")
    assert out[1].startswith("pillow 9.0.0: https://osv.dev/PYSEC-2022-9")
    monkeypatch.setitem(supply_chain.ACCEPTED, "PYSEC-2022-9", "neither")
    assert check_vulnerabilities(PACKAGES, database=address) == 0


def test_make_lint_asks_for_the_lock_and_for_what_is_installed(
    database: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[tuple[str, str]] = []

    def everything(request: dict[str, Any]) -> dict[str, Any]:
        seen.extend((query["package"]["name"], query["version"]) for query in request["queries"])
        return {"results": [{"vulns": [{"id": "X-1"}]} if name == "pytest" else {} for name, _ in seen]}

    assert main(["vulnerabilities", "--database", database(everything)]) == 1
    locked = {(pin.name, pin.version) for pin in parse_lock(LOCK.read_text(encoding="utf-8"))}
    assert set(seen) == locked | set(installed_licences())
    assert "osv.dev/X-1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (lambda _: 503, "HTTP Error 503"),
        (lambda _: {"results": [{}]}, "1 results to 2 queries"),
        (lambda _: {"error": "moved"}, "KeyError"),
        (lambda _: {"results": ["", ""]}, "AttributeError"),
        (lambda _: [], "TypeError"),
    ],
)
def test_a_database_that_makes_no_sense_is_told(
    answer: Callable[[dict[str, Any]], object], reason: str, database: Callable[..., str],
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    assert check_vulnerabilities(PACKAGES, database=database(answer)) == 0
    line = capsys.readouterr().out
    assert line.startswith("known vulnerabilities were NOT checked: ")
    assert reason in line
    assert line.count("\n") == 1


def test_a_database_that_never_answers_is_told_in_time(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        assert check_vulnerabilities(PACKAGES, database=address, seconds=0.2) == 0
    assert re.match("known vulnerabilities were NOT checked: .*(timed out|no answer within)", capsys.readouterr().out)
    assert check_vulnerabilities(PACKAGES, database=address, seconds=20) == 0
    assert "refused" in capsys.readouterr().out


def test_the_bill_of_materials_is_cyclonedx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1790000000")
    file = tmp_path / "dist" / "bill.cdx.json"
    assert main(["sbom", "--out", str(file)]) == 0
    text = file.read_text(encoding="utf-8")
    bill = json.loads(text)
    assert bill["metadata"]["timestamp"] == "2026-09-21T14:13:20+00:00"
    assert main(["sbom", "--out", str(file)]) == 0
    assert file.read_text(encoding="utf-8") == text, "the same in every run"
    components = {component["name"]: component for component in bill["components"]}
    assert components["pyyaml"]["licenses"] == [{"expression": "MIT"}]
    assert components["pyyaml"]["purl"] == f"pkg:pypi/pyyaml@{components['pyyaml']['version']}"
    wants = {entry["ref"]: entry["dependsOn"] for entry in bill["dependencies"]}
    assert set(wants) == {component["bom-ref"] for component in bill["components"]} | {
        bill["metadata"]["component"]["bom-ref"]
    }
    assert components["numpy"]["bom-ref"] in wants[bill["metadata"]["component"]["bom-ref"]]
    assert components["numpy"]["bom-ref"] in wants[components["onnxruntime"]["bom-ref"]]
    validation = pytest.importorskip("cyclonedx.validation.json", reason="cyclonedx-python-lib is not installed")
    schema = pytest.importorskip("cyclonedx.schema").SchemaVersion.V1_6
    validator = validation.JsonStrictValidator(schema)
    few = json.dumps(bill | {"components": bill["components"][:4]})  # all of them take ten seconds
    assert validator.validate_str(few) is None
    assert validator.validate_str(few.replace('"library"', '"book"')) is not None


def test_a_bill_leaves_out_what_is_meant_for_others() -> None:
    pins = [Pin("six", "1.0", "sys_platform == 'win32'", ("a" * 64,), ("b",)), Pin("b", "2.0", "", ("b" * 64,), ())]
    bill = bill_of_materials(pins, {("b", "2.0"): "BSD License"}, "1.2.3", datetime.now(timezone.utc))
    assert [component["name"] for component in bill["components"]] == ["b"]
    assert bill["components"][0]["licenses"] == [{"license": {"name": "BSD License"}}]
