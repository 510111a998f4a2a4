# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Several bags: each in a process of its own, on this machine or, with Ray, on several; one bad bag stops no other."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from multiprocessing.pool import ThreadPool
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from rt_panoptic_ros.bags.labelling import BagSummary, label_bag
from rt_panoptic_ros.errors import InvalidInputError, RtPanopticError, first_line, require_package

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from multiprocessing.connection import Connection
    from pathlib import Path

    from rt_panoptic_ros.bags.options import BagOptions
    from rt_panoptic_ros.bags.writing import Report

_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class BagJob:
    """One bag to label."""

    source: Path
    out: Path
    options: BagOptions


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a job ended: with a summary, a problem, or both where the bag was made in vain."""

    job: BagJob
    summary: BagSummary | None = None
    problem: str = ""


def plan_jobs(sources: Sequence[Path], out: Path, options: BagOptions) -> list[BagJob]:
    """Return a job for each bag: a single one becomes `out`, each of several the bag of its name in folder `out`.

    Raises:
        InvalidInputError: Two have the same name.
    """
    if len(sources) == 1:
        return [BagJob(sources[0], out, options)]
    names = [source.resolve().name if source.is_dir() else source.stem for source in sources]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InvalidInputError(
            f"expected bags of different names, since each gives {out}/NAME, got several of {', '.join(twice)}: "
            "label them one by one"
        )
    return [BagJob(source, out / name, options) for source, name in zip(sources, names, strict=True)]


class Progress:
    """Shows what is done with one or several bags, a bar for each kind of work; any thread may tell of it."""

    def __init__(self) -> None:
        """Show nothing yet."""
        self._bars: dict[str, Any] = {}  # tqdm's
        self._done: dict[tuple[str, Path], int] = {}
        self._lock = threading.Lock()

    def update(self, source: Path, doing: str, done: int, total: int) -> None:
        """Show how far a bag is; see `Report`."""
        with self._lock:
            if doing not in self._bars:
                unit = "frame" if doing == "labelling" else "message"
                self._bars[doing] = tqdm(desc=doing, total=0, unit=unit)
            bar = self._bars[doing]
            if (doing, source) not in self._done:
                bar.total += total
                bar.initial += done  # by an earlier run: not of this one's rate
            bar.update(done - self._done.get((doing, source), 0))
            self._done[doing, source] = done

    def close(self) -> None:
        """End the bars."""
        for bar in self._bars.values():
            bar.close()


def run_here(job: BagJob) -> Outcome:
    """Do a job in this process; what `label_bag` raises is left to the caller."""
    with closing(Progress()) as progress:
        summary = label_bag(job.source, job.out, job.options, partial(progress.update, job.source))
    return Outcome(job, summary, summary.problem)


def run_in_processes(jobs: Sequence[BagJob], at_once: int) -> Iterator[Outcome]:
    """Give each job's outcome as it ends; a process that dies is its own job's problem.

    Args:
        jobs: What to do.
        at_once: How many processes work at the same time.
    """
    with closing(Progress()) as progress, ThreadPool(at_once) as pool:  # a thread waits for each process
        yield from pool.imap_unordered(lambda job: _in_process(job, progress), jobs)


def run_with_ray(jobs: Sequence[BagJob], at_once: int) -> Iterator[Outcome]:
    """Give each job's outcome as it ends, from the machines of a Ray cluster, which must share the bags' folders.

    Args:
        jobs: What to do.
        at_once: How many are under way at the same time.

    Raises:
        UnavailableError: Ray is not installed.
    """
    require_package("ray", "spreading bags over machines", "`pip install ray`, or use --jobs on this machine")
    import ray

    ray.init(ignore_reinit_error=True)
    gpus = int(jobs[0].options.pipeline["device"] == "cuda")
    # A task that was lost with its machine goes on elsewhere from its journal.
    work = ray.remote(num_cpus=1, num_gpus=gpus, scheduling_strategy="SPREAD")(outcome_of)

    def outcome(job: BagJob) -> Outcome:
        try:
            found: Outcome = ray.get(work.remote(job))
        except ray.exceptions.RayError as error:
            return Outcome(job, problem=first_line(error))
        return found

    with ThreadPool(at_once) as pool:  # a thread waits for each task
        yield from tqdm(pool.imap_unordered(outcome, jobs), total=len(jobs), unit="bag", desc="labelling")


def outcome_of(job: BagJob, report: Report = lambda *_: None) -> Outcome:
    """Do a job and return how it ended, whatever happens."""
    try:
        summary = label_bag(job.source, job.out, job.options, report)
    except (RtPanopticError, OSError) as error:
        return Outcome(job, problem=first_line(error))
    except Exception as error:
        _LOGGER.exception("%s", job.source)
        return Outcome(job, problem=f"an unexpected {type(error).__name__} came: {first_line(error)}")
    return Outcome(job, summary, summary.problem)


def _in_process(job: BagJob, progress: Progress) -> Outcome:
    """Do a job in a process of its own."""
    context = multiprocessing.get_context("spawn")  # backends and threads don't survive a fork
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(job, there), daemon=True)  # one that is at work ends with this one
    process.start()
    there.close()  # so that the process's end is the pipe's
    try:
        while not isinstance(message := here.recv(), Outcome):
            progress.update(job.source, *message)
    except EOFError:
        message = None
    process.join()
    return message or Outcome(job, problem=f"its process ended with status {process.exitcode}")


def _work(job: BagJob, pipe: Connection) -> None:
    """Do a job, with the parent at the other end of the pipe."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent has it too, and ends this process
    threading.Thread(target=_end_with_parent, daemon=True).start()
    logging.basicConfig(level=logging.INFO, format=f"%(levelname)s: {job.source}: %(message)s")
    pipe.send(outcome_of(job, lambda *progress: pipe.send(progress)))


def _end_with_parent() -> None:
    """End this process when its parent was killed, so that the parent's next run finds the journals free."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
