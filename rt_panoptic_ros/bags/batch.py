"""Several bags: each in a process of its own, on this machine or, with Ray, on several; one bad bag stops no other."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
from collections import deque
from dataclasses import dataclass
from multiprocessing import connection as pipes
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


class ProgressBar:
    """Shows one bag's run, a bar for each thing that is done."""

    def __init__(self) -> None:
        """Show nothing yet."""
        self._doing = ""
        self._bar: tqdm[Any] | None = None

    def __call__(self, doing: str, done: int, total: int) -> None:
        """Show how far it is; see `Report`."""
        if self._bar is None or doing != self._doing:
            self.close()
            self._doing = doing
            self._bar = tqdm(desc=doing, total=total, initial=done, unit="frame" if doing == "labelling" else "message")
        self._bar.update(done - self._bar.n)

    def close(self) -> None:
        """End the bar."""
        if self._bar is not None:
            self._bar.close()


def run_in_processes(jobs: Sequence[BagJob], at_once: int) -> Iterator[Outcome]:
    """Give each job's outcome as it ends; a process that dies is its own job's problem.

    Args:
        jobs: What to do.
        at_once: How many processes work at the same time.
    """
    context = multiprocessing.get_context("spawn")  # engines and threads don't survive a fork
    waiting = deque(jobs)
    running: dict[Connection, tuple[BagJob, Any]] = {}
    frames = _FrameSum()
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                job = waiting.popleft()
                here, there = context.Pipe(duplex=False)
                process = context.Process(target=_work, args=(job, there), daemon=True)
                process.start()
                there.close()  # so that the process's end is the pipe's
                running[here] = job, process
            for pipe in pipes.wait(list(running)):
                assert isinstance(pipe, pipes.Connection)
                job, process = running[pipe]
                try:
                    message = pipe.recv()
                except EOFError:
                    process.join()
                    message = Outcome(job, problem=f"its process ended with status {process.exitcode}")
                if isinstance(message, Outcome):
                    del running[pipe]
                    process.join()
                    yield message
                else:
                    frames.update(job, *message)
    finally:
        frames.close()
        for _, process in running.values():
            process.terminate()
            process.join()


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
    waiting = deque(jobs)
    running: dict[Any, BagJob] = {}
    with tqdm(total=len(jobs), unit="bag", desc="labelling") as bar:
        while waiting or running:
            while waiting and len(running) < at_once:
                job = waiting.popleft()
                running[work.remote(job)] = job
            (task,), _ = ray.wait(list(running))
            job = running.pop(task)
            try:
                outcome = ray.get(task)
            except ray.exceptions.RayError as error:
                outcome = Outcome(job, problem=first_line(error))
            bar.update()
            yield outcome


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


def _work(job: BagJob, pipe: Connection) -> None:
    """Do a job in a process of its own."""
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


class _FrameSum:
    """One bar for the frames of all bags."""

    def __init__(self) -> None:
        self._bar: Any = tqdm(unit="frame", desc="labelling", total=0)
        self._done: dict[Path, tuple[int, int]] = {}

    def update(self, job: BagJob, doing: str, done: int, total: int) -> None:
        if doing != "labelling":
            return
        if job.source not in self._done:
            self._bar.total += total
            self._bar.initial += done  # by an earlier run: not of this one's rate
        self._bar.update(done - self._done.get(job.source, (0, 0))[0])
        self._done[job.source] = done, total

    def close(self) -> None:
        self._bar.close()
