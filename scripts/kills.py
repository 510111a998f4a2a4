# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""What kills and power losses cost: `python -m scripts.kills --kills 200 --power-losses 50 --seed 1`.

Small runs of the programs that write are ended by SIGKILL, half of them at a random time, half before a random one of
their file operations (a file opened to write, renamed, removed or synced, a folder made), and started again in the same
folder until a run completes. Each must leave every file whole: equal to an uninterrupted run's or, where the bytes tell
of a time or a step, one that the package reads and verifies. What a program had told of must be there; and what the
completed run leaves must equal the uninterrupted run's, byte for byte.

A power loss is played on an ext4 file system of its own: it is shut down at once, as xfstests does it, so that only
what was synced is there when it is mounted again. It is mounted without the help that ext4 gives programs that don't
sync (noauto_da_alloc), and syncs nothing by itself meanwhile. That needs root and a loop device.

The programs' code is imported once, and each run is a fork. The tests lend their data and what takes TensorRT's place,
so this runs in a checkout only. `TMPDIR=/dev/shm` spares the disk.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import random
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from rt_panoptic_ros import warp_runtime
from rt_panoptic_ros.errors import UnavailableError
from scripts.kill_programs import PROGRAMS, Inputs, make_inputs, warm_up

if TYPE_CHECKING:
    from scripts.kill_programs import Program

_SHUTDOWN = 0x8004587D  # FS_IOC_SHUTDOWN
_WITHOUT_FLUSHING = struct.pack("I", 2)
_DISK_BYTES = 1 << 30  # 256 MB were full in the middle
_HANG_S = 600.0
_COMPLETE = 0.3  # share of the runs that nobody ends
_OPERATIONS = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate")


@dataclass
class Row:
    """What became of one program's runs."""

    name: str
    kills: int = 0
    quarters: list[int] = field(default_factory=lambda: [0] * 4)  # of the kills, by how far the run was
    writing: int = 0  # of the kills, those that left a file half written, under a temporary name
    completed: int = 0  # runs that went on to the end
    files: int = 0  # compared or verified
    corrupt: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)

    def format(self) -> str:
        """Return the row of the table."""
        parts = [self.name, self.kills, "/".join(map(str, self.quarters)), self.writing, self.completed, self.files]
        return "| " + " | ".join(map(str, [*parts, len(self.corrupt), len(self.lost)])) + " |"


HEAD = (
    "| program | ended | by quarter of its run | in a file | completed | files checked | corrupt accepted | lost |\n"
    "|---|---|---|---|---|---|---|---|"
)


class Disk:
    """A file system whose power can be cut."""

    def __init__(self, folder: Path) -> None:
        """Make and mount it.

        Raises:
            UnavailableError: Not as this user, or not on this machine.
        """
        self._image, self.place = folder / "disk", folder / "mounted"
        self.mounted_s = 0.0
        self.place.mkdir()
        with self._image.open("wb") as file:
            file.truncate(_DISK_BYTES)
        try:
            _command("mkfs.ext4", "-q", "-F", self._image)
            self._mount()
        except (OSError, subprocess.CalledProcessError) as error:
            said = getattr(error, "stderr", "") or error
            raise UnavailableError(
                f"expected to mount a file system on a loop device, got: {' '.join(str(said).split())}: run it as root"
            ) from None

    def cut(self) -> None:
        """Lose all that isn't synced; nothing can be written from now on."""
        handle = os.open(self.place, os.O_RDONLY)
        fcntl.ioctl(handle, _SHUTDOWN, _WITHOUT_FLUSHING)
        os.close(handle)

    def restart(self) -> None:
        """Mount again what is left."""
        _command("umount", self.place)
        self._mount()

    def close(self) -> None:
        """Unmount it."""
        _command("umount", self.place)

    def _mount(self) -> None:
        _command("mount", "-o", "loop,noauto_da_alloc,commit=600", self._image, self.place)
        self.mounted_s = time.monotonic()


def _command(*words: str | Path) -> None:
    subprocess.run(words, check=True, capture_output=True, text=True, encoding="utf-8")


class Runs:
    """Starts one program's runs and looks at what they leave."""

    def __init__(
        self, program: Program, inputs: Inputs, folder: Path, chance: random.Random, disk: Disk | None
    ) -> None:
        """Make the uninterrupted run that the others are compared with."""
        self._program, self._inputs, self._chance, self._disk = program, inputs, chance, disk
        self._state = (folder if disk is None else disk.place) / program.name
        self._words = folder / f"{program.name}.words"
        self._words.mkdir(exist_ok=True)
        self.row = Row(program.name)
        self._told, self._built = set[Path](), set[Path]()
        self._begin()
        begin_s = time.monotonic()
        self._require(self._run(), 0)
        self._seconds = time.monotonic() - begin_s
        self._operations = int((self._words / "operations").read_text(encoding="utf-8"))
        self._whole = {name: path.read_bytes() for name, path in self._files()}

    def end_often(self, kills: int) -> Iterator[None]:
        """End runs so often; yields after each end."""
        while self.row.kills < kills:
            self._begin()
            for _ in range(1000):
                told, share = self._progress()[1], self._chance.random()
                aimed = self._chance.random() < 0.5
                if self.row.kills == kills or self._chance.random() < _COMPLETE:
                    status = self._run()
                elif aimed:
                    status = self._run(before=1 + int(share * self._operations))
                else:
                    status = self._run(after_s=share * self._seconds)
                first, _ = self._progress()
                if self._program.resumes and self._disk is None and first is not None and first < told:
                    self.row.lost.append(f"{self._program.name}: {told} frames were told of, {first} are there")
                if status == 0:
                    break
                self._require(status, -signal.SIGKILL)
                self.row.kills += 1
                self.row.quarters[int(4 * share)] += 1
                self._check(ended=True)
                yield
            self.row.completed += 1
            self._check(ended=False)

    def _begin(self) -> None:
        shutil.rmtree(self._state, ignore_errors=True)
        for words in self._words.iterdir():
            words.unlink()
        self._told.clear()
        self._built.clear()

    def _run(self, after_s: float | None = None, before: int = 0) -> int:
        """Return how a run ended, its status or the negative signal.

        Args:
            after_s: When to end it.
            before: Before which of its file operations to end it; 0 for none.
        """
        self._state.mkdir(exist_ok=True)
        self._program.prepare(self._inputs, self._state)
        if self._disk is not None:
            os.sync()  # what was prepared, and what an earlier run left, is old
        sys.stdout.flush()
        process = os.fork()
        if process == 0:
            self._work(before)
        handle = os.pidfd_open(process)
        limit_s = _HANG_S if after_s is None else after_s
        ended, _, _ = select.select([handle], [], [], limit_s)
        os.close(handle)
        if not ended:
            assert after_s is not None, f"{self._program.name} hangs"
            self._end(process)
        _, status = os.waitpid(process, 0)
        code = os.waitstatus_to_exitcode(status)
        if self._disk is not None and (not ended or code == -signal.SIGKILL):
            self._disk.restart()
            return -signal.SIGKILL  # though it may have come to its end at that moment
        return code

    def _work(self, before: int) -> None:
        """Be the process that runs the program."""
        status, count = 1, 0

        def operate() -> None:
            nonlocal count
            count += 1
            if count == before:
                self._end(os.getpid())

        def hear(event: str, arguments: tuple[object, ...]) -> None:
            writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
            if (event in _OPERATIONS or writes) and str(arguments[0]).startswith(str(self._state)):
                operate()

        def heard(sync: Callable[[Any], None]) -> Callable[[Any], None]:
            def operated(handle: Any) -> None:
                operate()
                sync(handle)

            return operated

        try:
            for number, name in ((1, "out"), (2, "err")):
                os.dup2(os.open(self._words / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
            sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
            os.environ["XDG_CACHE_HOME"] = str(self._state / "cache")
            if self._disk is not None:  # as long as the machine is up
                up_s = time.monotonic() - self._disk.mounted_s
                clock = {**vars(time), "clock_gettime": lambda _: up_s}
                warp_runtime.time = SimpleNamespace(**clock)  # type: ignore[assignment,attr-defined]
            os.fsync, os.fdatasync = heard(os.fsync), heard(os.fdatasync)  # type: ignore[assignment]
            sys.addaudithook(hear)
            self._program.run(self._inputs, self._state)
            (self._words / "operations").write_text(str(count), encoding="utf-8")
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(status)

    def _end(self, process: int) -> None:
        if self._disk is not None:
            self._disk.cut()
        os.kill(process, signal.SIGKILL)

    def _require(self, status: int, expected: int) -> None:
        if status != expected:
            words = "".join((self._words / name).read_text(encoding="utf-8") for name in ("out", "err"))
            raise RuntimeError(f"{self._program.name} ended with {status} instead of {expected}:\n{words}")

    def _files(self) -> Iterator[tuple[str, Path]]:
        """Give all files that a user would see, by their names in the state."""
        for path in sorted(self._state.rglob("*")):
            name = path.relative_to(self._state).as_posix()
            hidden = ".part-" in name or ".partial/" in name or name.endswith(".lock")
            if path.is_file() and not hidden and not re.search(self._program.changing, name):
                yield name, path

    def _check(self, *, ended: bool) -> None:
        row, program, names = self.row, self._program, set[str]()
        row.writing += ended and any(".part-" in path.name for path in self._state.rglob(".*"))
        for name, path in self._files():
            names.add(name)
            row.files += 1
            if ended and re.search(program.growing, name):
                continue
            if path.read_bytes() != self._whole.get(name):
                row.corrupt.append(f"{program.name}: {name} is not that of an uninterrupted run")
        try:
            program.verify(self._inputs, self._state)
        except Exception as error:
            row.corrupt.append(f"{program.name}: {type(error).__name__}: {error}")
        if not ended:
            row.lost += [f"{program.name}: {name} is missing at the end" for name in self._whole.keys() - names]
        self._listen()
        for told in self._told:
            below = [name for name in self._whole if Path(name) == told or told in Path(name).parents]
            row.lost += [f"{program.name}: {name} was told of" for name in below if name not in names]
        if program.name == "predict" and ended:
            _, count = self._progress()
            if len(list((self._state / "out" / "semantic").glob("*.png"))) < count:
                row.lost.append(f"{program.name}: {count} frames were told of, fewer are there")

    def _listen(self) -> None:
        """Take in what the last run told of, and that nothing is built twice."""
        for line in (self._words / "out").read_text(encoding="utf-8").splitlines():
            if found := re.search(rf"{re.escape(str(self._state))}/([^\s:]+)", line):
                path = Path(found[1])
                if line.startswith("built: "):
                    if path in self._built:
                        self.row.lost.append(f"{self._program.name}: {path} was built before")
                    self._built.add(path)
                self._told.add(path)

    def _progress(self) -> tuple[int | None, int]:
        """Return how many frames the last run's bar began and ended with."""
        words = self._words / "err"
        counts = re.findall(r"labelling:.*?(\d+)/\d+ \[", words.read_text(encoding="utf-8") if words.exists() else "")
        return (int(counts[0]), int(counts[-1])) if counts else (None, 0)


@contextmanager
def _disk(folder: Path, wanted: bool) -> Iterator[Disk | None]:
    disk = Disk(folder) if wanted else None
    try:
        yield disk
    finally:
        if disk is not None:
            disk.close()


def end_programs(names: Sequence[str], kills: int, seed: int, *, power: bool) -> list[Row]:
    """End runs of some programs, `kills` in all, and return what became of them.

    Args:
        names: Of `PROGRAMS`.
        kills: How often.
        seed: Of all that is random.
        power: Whether the power is cut in place of a kill.

    Raises:
        UnavailableError: Power can't be cut here.
        RuntimeError: A program failed by itself.
    """
    programs = [program for program in PROGRAMS if program.name in names]
    shares = sum(program.share for program in programs)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="kills-") as name, tqdm(total=kills, unit="end") as bar:
        folder = Path(name)
        inputs = make_inputs(folder / "inputs")
        with _disk(folder, power) as disk:
            for number, program in enumerate(programs):
                bar.set_description(program.name)
                runs = Runs(program, inputs, folder, random.Random(f"{seed} {program.name}"), disk)
                share = round(kills * program.share / shares)
                rest = kills - sum(row.kills for row in rows)
                for _ in runs.end_often(rest if number == len(programs) - 1 else min(share, rest)):
                    bar.update()
                rows.append(runs.row)
                bar.write(runs.row.format(), file=sys.stdout)
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; 1 where anything was corrupt or lost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200, help="default: %(default)s")
    parser.add_argument("--power-losses", type=int, default=0, help="needs root; default: %(default)s")
    parser.add_argument("--seed", type=int, default=1, help="default: %(default)s")
    names = [program.name for program in PROGRAMS]
    parser.add_argument("--programs", nargs="+", choices=names, default=names, help="default: all")
    options = parser.parse_args(arguments)
    warm_up()
    bad: list[str] = []
    for title, count, power in (("Kills", options.kills, False), ("Power losses", options.power_losses, True)):
        if count:
            print(f"{title}: {count}, seed {options.seed}\n\n{HEAD}", flush=True)
            try:
                rows = end_programs(options.programs, count, options.seed, power=power)
            except UnavailableError as error:
                print(error, file=sys.stderr)
                return 1
            bad += [problem for row in rows for problem in (*row.corrupt, *row.lost)]
    print("\n".join(["", *bad[:20]]), file=sys.stderr)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
