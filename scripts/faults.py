# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The faults that the node survives, as a table: `python -m scripts.faults [--out FILE] [--write docs/reliability.md]`.

Each is a test in test/ros/faults, marked `fault(what breaks, what happens)`; all are run, and recovery is measured.
"""

from __future__ import annotations

import argparse
import ast
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_FOLDER = Path(__file__).resolve().parents[1] / "test" / "ros" / "faults"
_BEGIN, _END = "<!-- faults: made by `python -m scripts.faults` -->\n", "<!-- end of faults -->"
_PLACE = re.compile(f"(?<={_BEGIN}).*(?={_END})", re.DOTALL)
_MARK = "pytest.mark.fault"
_HEAD = ("fault", "what happens", "recovery", "test")

Recoveries = dict[str, dict[str, float]]  # {fault: {what came: the most seconds after the fault's end}}


@dataclass(frozen=True)
class Fault:
    """One row, but for its recovery."""

    breaks: str
    happens: str
    test: str  # file::function


def declared_faults(folder: Path = _FOLDER) -> list[Fault]:
    """Return the faults that a folder's tests are marked with, in their order."""
    faults = []
    for path in sorted(folder.glob("test_*.py")):
        for function in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(function, ast.FunctionDef):
                calls = [call for decorator in function.decorator_list for call in ast.walk(decorator)]
                marks = [call for call in calls if isinstance(call, ast.Call) and ast.unparse(call.func) == _MARK]
                for mark in sorted(marks, key=lambda mark: mark.lineno):
                    breaks, happens = map(ast.literal_eval, mark.args)
                    faults.append(Fault(breaks, happens, f"{path.name}::{function.name}"))
    return faults


class _Measured:
    """Collects, as pytest's plugin, what the fixture `recovery` measured."""

    def __init__(self) -> None:
        self.recoveries: Recoveries = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        value: Any
        for name, value in report.user_properties if report.when == "call" else ():
            if name == "recovery":
                breaks, what, seconds = value
                worst = self.recoveries.setdefault(breaks, {})
                worst[what] = max(seconds, worst.get(what, 0.0))


def fault_table(faults: Sequence[Fault], recoveries: Mapping[str, Mapping[str, float]]) -> str:
    """Return the table as Markdown; faults without a recovery were not run here."""
    rows = [_HEAD, ("---",) * len(_HEAD)]
    for fault in faults:
        times = [f"{what} after {seconds:.2f} s" for what, seconds in recoveries.get(fault.breaks, {}).items()]
        rows.append((fault.breaks, fault.happens, ", ".join(times) or "not run here", f"`{fault.test}`"))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"


def shown_faults(page: str) -> list[Fault]:
    """Return the faults of the table in a page, in their order."""
    table = _PLACE.search(page)
    lines = table[0].splitlines()[2:] if table else []
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [Fault(breaks, happens, test.strip("`")) for breaks, happens, _, test in rows]


def main() -> int:
    """Run the tests of all faults, and write their table unless one fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="file for the table; without, it is printed")
    parser.add_argument("--write", type=Path, help="page with a place for the table, which is put there")
    arguments = parser.parse_args()
    measured = _Measured()
    status = pytest.main(["-q", "-m", "fault", "-p", "no:cacheprovider", str(_FOLDER)], [measured])
    if status != pytest.ExitCode.OK:
        return int(status)
    table = fault_table(declared_faults(), measured.recoveries)
    if arguments.write is not None:
        page = arguments.write.read_text(encoding="utf-8")
        if _PLACE.search(page) is None:
            parser.error(f"expected the two comments of faults in {arguments.write}, as in docs/reliability.md")
        arguments.write.write_text(_PLACE.sub(lambda _: table, page), encoding="utf-8")
    if arguments.out is not None:
        arguments.out.write_text(table, encoding="utf-8")
    else:
        print(table)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
