# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""`rt-panoptic gpu-check`: all that a GPU has to show, step by step, each in a process of its own.

A failing kernel makes a process's GPU useless, and a graph that never ends would hang it; so no step can harm another.
Each writes what it finds at once, so that a step that dies still tells how far it came.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from rt_panoptic_ros.settings import plain

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

STEPS = {  # name: (what it shows, longest time s)
    "machine": ("what is there", 40.0),
    "compile": ("kernels compiled, each module in a process of its own", 150.0),
    "kernels": ("kernels on the device beside the same on the CPU", 90.0),
    "graphs": ("captured frames beside those launched kernel by kernel, under changes of settings", 60.0),
    "network": ("the torch backend beside ONNX Runtime on the CPU", 120.0),
    "tensorrt": ("the TensorRT backend beside ONNX Runtime on the CPU, engines built", 120.0),
    "timing": ("post-processing by stage and kernel, device time apart from host time", 60.0),
    "frames": ("whole frames with the torch backend, by precision", 180.0),
    "memcheck": ("graphs under compute-sanitizer's memcheck", 100.0),
    "racecheck": ("one graph, launched once, under compute-sanitizer's racecheck", 100.0),
}
_SANITIZER = {"memcheck": ("graphs", "--track-stream-ordered-races", "all"), "racecheck": ("graph",)}
"""{tool: the step that runs under it, options}"""

_NEED_TORCH = ("network", "frames")
_FOUND_ERRORS = 86  # exit status, otherwise unused


@dataclass(frozen=True)
class Plan:
    """What the steps work on."""

    device: str = "cuda:0"  # Warp's name, which settings take too
    sizes: tuple[tuple[int, int], ...] = ((512, 1024), (1024, 2048))  # (height, width) px of made-up scenes
    objects: tuple[int, ...] = (0, 1, 30, 100)  # in them
    networks: tuple[tuple[str, int, int], ...] = (("camvid_lite0", 480, 640), ("resnet50", 1024, 2048))
    repeats: int = 50  # of what is timed

    @classmethod
    def small(cls, device: str) -> Plan:
        """Return one that takes seconds on a CPU, to try the check itself, or to run under a sanitizer."""
        return cls(device, ((96, 160),), (0, 5), (("camvid_lite0", 64, 96),), 2)


class Findings:
    """Where a step writes what it finds, line by line."""

    def __init__(self, path: Path) -> None:
        """Begin a file."""
        self._file = path.open("w", encoding="utf-8")

    def note(self, **figures: Any) -> None:
        """Keep figures."""
        self._file.write(json.dumps(figures) + "\n")
        self._file.flush()

    def fail(self, what: str) -> None:
        """Keep what is wrong."""
        self.note(failure=what)

    def expect(self, holds: bool, what: str, figures: dict[str, Any]) -> None:
        """Keep figures, and that they are wrong unless it holds."""
        self.note(**figures)
        if not holds:
            self.fail(f"{what}: {figures}")


@dataclass
class StepReport:
    """What a step found."""

    step: str
    seconds: float = 0.0
    figures: list[dict[str, Any]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    not_run: str = ""  # why, where it can't be

    def format(self) -> str:
        """Return it as text for a terminal."""
        verdict = "not run" if self.not_run else "FAILED" if self.failures else "passed"
        lines = [f"== {self.step}: {STEPS[self.step][0]}: {verdict}, {self.seconds:.1f} s {self.not_run}".rstrip()]
        for figures in self.figures:
            lines.append("  " + ", ".join(f"{name} {_shown(value)}" for name, value in figures.items()))
        return "\n".join(lines + [f"  FAILED: {failure}" for failure in self.failures])


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name} {_shown(one)}" for name, one in value.items()) + "}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def check_gpu(plan: Plan, out: Path, steps: Sequence[str], *, limit_s: float = 585.0) -> list[StepReport]:
    """Run steps in their order; print each report, and write all to `out`/gpu_check.txt and .json.

    Args:
        plan: What they work on.
        out: Folder; what the steps themselves print lies there too.
        steps: Of `STEPS`.
        limit_s: A step for which no time is left fails.

    Raises:
        InvalidInputError: The device is none of `settings.DEVICES`.
        UnavailableError: There is no such GPU here.
    """
    from rt_panoptic_ros.inference.backends import resolve_device  # which starts Warp

    plan = replace(plan, device=resolve_device(plan.device))
    out.mkdir(parents=True, exist_ok=True)
    begin = time.monotonic()
    reports: list[StepReport] = []
    for step in STEPS:
        if step in steps:
            reports.append(_run(step, plan, out, limit_s - (time.monotonic() - begin)))
            print(reports[-1].format(), flush=True)
            text = "\n".join(report.format() for report in reports)
            (out / "gpu_check.txt").write_text(text + "\n", encoding="utf-8")
            document = {"plan": plain(plan), "steps": [asdict(report) for report in reports]}
            (out / "gpu_check.json").write_text(json.dumps(document, indent=1), encoding="utf-8")
    return reports


def _run(step: str, plan: Plan, out: Path, left_s: float) -> StepReport:
    """Run one step and read what it found."""
    prefix: list[str] = []
    work = step
    if step in _SANITIZER:
        tool = shutil.which("compute-sanitizer")
        if tool is None or plan.device == "cpu":
            return StepReport(step, not_run="(needs compute-sanitizer and a GPU)")
        work, *options = _SANITIZER[step]
        prefix = [tool, "--tool", step, *options, "--error-exitcode", str(_FOUND_ERRORS)]
        plan = Plan.small(plan.device)
    if step in _NEED_TORCH and importlib.util.find_spec("torch") is None:
        return StepReport(step, not_run="(needs torch)")
    findings, log = out / f"{step}.jsonl", out / f"{step}.log"
    findings.unlink(missing_ok=True)
    command = [sys.executable, "-m", "rt_panoptic_ros.benchmark.gpu_steps", work, json.dumps(plain(plan))]
    begin = time.monotonic()
    status = _status_of([*prefix, *command, str(findings)], log, min(STEPS[step][1], left_s))
    report = StepReport(step, time.monotonic() - begin)
    if findings.exists():
        for line in findings.read_text(encoding="utf-8").splitlines():
            found = json.loads(line)
            if "not_run" in found:
                report.not_run = f"({found['not_run']})"
                continue
            (report.failures if "failure" in found else report.figures).append(found.get("failure", found))
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    if step in _SANITIZER:
        report.figures += [{step: line.strip("= ")} for line in lines if "SUMMARY" in line]
    if status != "0" or report.failures:
        report.failures.append("\n    ".join([f"ended with {status}; {log}, its last lines:", *lines[-30:]]))
    return report


def _status_of(command: Sequence[str], log: Path, limit_s: float) -> str:
    """Run a command, its output in `log`; return its exit status, or that it was stopped with all that it started."""
    with log.open("wb") as file:
        if limit_s <= 0:
            return "no time left"
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            return str(process.wait(limit_s))
        except subprocess.TimeoutExpired:
            return f"no end after {limit_s:.0f} s"
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
