# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Feeds the targets of test/fuzz/ with changed files, messages and texts: `make fuzz`, docs/reliability.md.

Each target runs in a process of its own, by atheris, which looks for inputs that reach new lines, or, where that isn't
installed, by random changes of the same kinds. What no user should see is written to --out: an error that is not one of
`errors`, a message of several lines, more than 10 s or 2 GiB for one input, the end of the process.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import logging
import mmap
import os
import random
import resource
import signal
import subprocess
import sys
import time
import traceback
import warnings
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any

from tqdm import tqdm

sys.path.append(str(Path(__file__).resolve().parents[1] / "test"))

HANG_S, MEMORY_BYTES = 10, 2 << 30
"""More than this for one input is a find; the memory is what comes on top of the process's own."""

_PERIOD_S = 1.0  # between what a process tells of itself
_MOST_DEATHS = 5  # of a target's processes, after which it is given up
_COLUMNS = ("target", "inputs", "taken", "coverage", "finds", "longest, s", "time, s")


def main() -> int:
    """Run the campaign; return 1 where there is a find."""
    parser = argparse.ArgumentParser(prog="python -m scripts.fuzz", description=__doc__)
    parser.add_argument("--runs", type=int, default=1_000_000, help="inputs in all (default: %(default)s)")
    parser.add_argument("--target", action="append", help="one of those in test/fuzz/; may be repeated (default: all)")
    parser.add_argument("--seed", type=int, default=1, help="another one gives other inputs (default: %(default)s)")
    parser.add_argument(
        "--out", type=Path, default=Path("out/fuzz"), help="finds and the summary (default: %(default)s)"
    )
    parser.add_argument("--engine", choices=("atheris", "random"), help="(default: atheris where it is installed)")
    parser.add_argument("--child", help=argparse.SUPPRESS)  # the module of the only target, which is run here
    options = parser.parse_args()
    if options.child:
        return _Child(options).run()
    if options.engine is None:
        options.engine = "atheris" if importlib.util.find_spec("atheris") else "random"
        if options.engine == "random":
            print(
                "atheris is not installed (PyPI has it for some versions of Python): inputs are changed at random, "
                "without a look at what they reach", file=sys.stderr,
            )  # fmt: skip
    places: dict[str, str] = {}
    for module in import_module("fuzz.fuzzing").MODULES:
        if not options.target or set(options.target) - places.keys():
            places |= dict.fromkeys(_names(module), module)
    shares = {name: one.share for name, one in _targets().items() if name in (options.target or places)}
    if unknown := set(options.target or ()) - set(places):
        parser.error(f"expected targets among {', '.join(places)}, got {', '.join(sorted(unknown))}")
    options.out.mkdir(parents=True, exist_ok=True)
    rows = []
    for name, share in shares.items():
        runs = max(1, round(options.runs * share / sum(shares.values())))
        rows.append(_fuzz(name, places[name], runs, options))
        _write_summary(options.out / "summary.md", rows)
    print((options.out / "summary.md").read_text(encoding="utf-8"))
    return int(any(row["finds"] for row in rows))


def _targets() -> dict[str, Any]:
    targets: dict[str, Any] = import_module("fuzz.fuzzing").TARGETS
    return targets


def _names(module: str) -> list[str]:
    import_module(module)
    return [name for name, one in _targets().items() if one.run.__module__ == module]


def _fuzz(name: str, module: str, runs: int, options: argparse.Namespace) -> dict[str, Any]:
    """Run one target, in a new process after each that ended before its time; return its row of the summary."""
    row: dict[str, Any] = {"target": name, "inputs": 0, "taken": 0, "coverage": "", "finds": 0, "longest": 0.0}
    begin, deaths = time.monotonic(), 0
    with TemporaryDirectory() as folder, tqdm(total=runs, desc=name, unit="input", mininterval=1) as bar:
        last = Path(folder) / "last"
        while row["inputs"] < runs and deaths < _MOST_DEATHS:
            words = [
                "--child", module, "--target", name, "--runs", str(runs - row["inputs"]), "--seed",
                str(options.seed + 1000 * deaths), "--engine", options.engine, "--out", str(options.out),
            ]  # fmt: skip
            before = {key: row[key] for key in ("inputs", "taken", "finds")}
            with subprocess.Popen(
                [sys.executable, "-m", "scripts.fuzz", *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                env={**os.environ, "TMPDIR": folder, "OPENCV_LOG_LEVEL": "OFF"}, encoding="utf-8", errors="replace",
            ) as process:  # fmt: skip
                assert process.stdout is not None
                said = _follow(process.stdout, row, before, bar)
            if row["inputs"] < runs:
                deaths += 1
                row["finds"] += 1
                row["inputs"] += 1  # the one at hand
                place = options.out / f"{name}-death{deaths}"
                place.with_suffix(".bin").write_bytes(_recalled(last))
                place.with_suffix(".txt").write_text(
                    f"exit status {process.returncode}\n{''.join(said)}", encoding="utf-8"
                )
    return {**row, "seconds": time.monotonic() - begin}


def _follow(lines: IO[str], row: dict[str, Any], before: dict[str, int], bar: Any) -> list[str]:
    """Enter what a process tells into its target's row; return the last lines of what else it says."""
    said: list[str] = []
    for line in lines:
        if line.startswith('{"fuzzed"'):
            told = json.loads(line)
            row["inputs"] = before["inputs"] + told["fuzzed"]
            row["taken"], row["finds"] = before["taken"] + told["taken"], before["finds"] + told["finds"]
            row["longest"] = max(row["longest"], told["longest"])
            bar.update(row["inputs"] - bar.n)
        elif " cov: " in line:
            row["coverage"] = line.partition(" cov: ")[2].split()[0]
        else:
            said = [*said[-60:], line]
    return said


def _write_summary(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    lines = [f"| {' | '.join(_COLUMNS)} |", "|---" * len(_COLUMNS) + "|"]
    rows = list(rows)
    total = {key: sum(row[key] for row in rows) for key in ("inputs", "taken", "finds", "seconds")}
    for row in (*rows, {**total, "target": "all", "coverage": "", "longest": max(row["longest"] for row in rows)}):
        lines.append(
            "| {target} | {inputs:,} | {taken:,} | {coverage} | {finds} | {longest:.2f} | {seconds:.0f} |".format(**row)
        )
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _recalled(file: Path) -> bytes:
    if not file.exists():
        return b""
    content = file.read_bytes()
    return content[8 : 8 + int.from_bytes(content[:8], "little")]


class _Child:
    """The process of one target."""

    def __init__(self, options: argparse.Namespace) -> None:
        """Import the target, by atheris with counters in the package's code."""
        self._options, self._module = options, options.child
        logging.disable()
        warnings.simplefilter("ignore")
        self._fuzzing: Any = import_module("fuzz.fuzzing")
        signal.signal(signal.SIGVTALRM, self._on_hang)  # of CPU time, as the machine may be busy
        (self._name,) = options.target
        if options.engine == "atheris":
            import atheris

            with atheris.instrument_imports(include=["rt_panoptic_ros"]):
                self._prepare()
        else:
            self._prepare()
        self._fuzzed = self._taken = 0
        self._longest_s, self._told_s = 0.0, time.monotonic()
        self._met: set[tuple[str, ...]] = set()
        self._last = self._opened_last()

    def run(self) -> int:
        """Feed the target."""
        if self._options.engine == "atheris":
            self._run_atheris()
        else:
            self._run_random()
        self._tell()
        return 0

    def _prepare(self) -> None:
        import_module(self._module)
        self._target = self._fuzzing.TARGETS[self._name]
        limit = (
            int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[0]) * resource.getpagesize() + MEMORY_BYTES
        )
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        with contextlib.suppress(Exception):  # that input comes again; this one imports what is imported late
            self._target.run(self._target.seeds[0])

    def _opened_last(self) -> mmap.mmap:
        path = Path(os.environ.get("TMPDIR", "/tmp")) / "last"
        path.write_bytes(bytes(8 + self._fuzzing.LARGEST))
        with path.open("rb+") as file:
            return mmap.mmap(file.fileno(), 0)

    def _run_atheris(self) -> None:
        import atheris

        corpus = self._fuzzing.workplace() / "corpus"
        corpus.mkdir()
        for number, seed in enumerate(self._target.seeds):
            (corpus / f"seed{number}").write_bytes(seed)
        words = [
            f"-runs={self._options.runs}", f"-seed={self._options.seed}", f"-max_len={self._fuzzing.LARGEST}",
            f"-timeout={30 * HANG_S}", "-rss_limit_mb=0", "-len_control=0", "-reload=0", f"-artifact_prefix={corpus}/",
        ]  # fmt: skip

        def mutate(data: bytes, size: int, seed: int) -> bytes:
            return bytes(
                self._fuzzing.changed(bytes(data), random.Random(seed), lambda part: bytes(atheris.Mutate(part, size)))
            )[:size]

        atheris.Setup([sys.argv[0], *words, str(corpus)], self._feed, custom_mutator=mutate)
        atheris.Fuzz()

    def _run_random(self) -> None:
        draw = random.Random(self._options.seed)
        kept = list(self._target.seeds)
        for data in kept[: self._options.runs]:
            self._feed(data)
        while self._fuzzed < self._options.runs:
            data = self._fuzzing.changed(draw.choice(kept), draw)
            if self._feed(data) and len(kept) < 1000:
                kept.append(data)

    def _feed(self, data: bytes) -> bool:
        """Give the target an input; return whether it took it."""
        data = bytes(data)
        self._last[: 8 + len(data)] = len(data).to_bytes(8, "little") + data
        begin_s, taken = time.process_time(), False
        signal.setitimer(signal.ITIMER_VIRTUAL, HANG_S)
        try:
            taken = self._fuzzing.accepts(self._target, data)
        except Exception as error:
            self._keep(data, error)
        finally:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        self._longest_s = max(self._longest_s, time.process_time() - begin_s)
        self._fuzzed += 1
        self._taken += taken
        if self._fuzzed == self._options.runs or time.monotonic() - self._told_s > _PERIOD_S:
            self._tell()
        return taken

    def _on_hang(self, *_: object) -> None:
        raise self._fuzzing.FindError(f"it takes more than {HANG_S} s")

    def _keep(self, data: bytes, error: Exception) -> None:
        """Write a find, once for each kind of error and place in the package."""
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "rt_panoptic_ros/" in frame.filename]
        place = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else str(error)[:40]
        kind = type(error).__name__, place
        if kind in self._met:
            return
        self._met.add(kind)
        path = self._options.out / f"{self._name}-{self._options.seed}-{len(self._met)}"
        path.with_suffix(".bin").write_bytes(data)
        path.with_suffix(".txt").write_text(
            "".join(traceback.format_exception(error)), encoding="utf-8", errors="replace"
        )

    def _tell(self) -> None:
        self._told_s = time.monotonic()
        told = {"fuzzed": self._fuzzed, "taken": self._taken, "finds": len(self._met), "longest": self._longest_s}
        print(json.dumps(told), flush=True)


if __name__ == "__main__":
    sys.exit(main())
