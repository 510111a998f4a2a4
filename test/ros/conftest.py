# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""What the ROS tests share: a graph of their own, a pipeline that computes nothing, and real processes.

Nothing here sleeps: everything waits for a condition, and fails when it does not come true in time.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from rt_panoptic_ros.errors import InvalidInputError
from rt_panoptic_ros.model.class_table import load_class_table
from rt_panoptic_ros.records import LABELS, DetectionTable, PanopticResult
from rt_panoptic_ros.ros.transport import profile_environment
from rt_panoptic_ros.settings import PostprocessSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def _own_domain() -> int:
    """Return a domain that no other test process has as long as this one lives, and no process left memory in.

    Domains 1 to 100 have ports of their own, 250 each; a process that was killed leaves the memory named after them.
    Two nodes of one name on one domain would answer each other's clients.
    """
    used = {int(port) for path in Path("/dev/shm").glob("fast*_port*") for port in re.findall(r"\d+", path.name)}
    domains = [1 + (os.getpid() + offset) % 100 for offset in range(100)]
    for number in domains:
        path = Path(tempfile.gettempdir(), f"ros_domain_{number}_of_{os.getuid()}.lock")
        lock = os.open(path, os.O_CREAT | os.O_RDWR)  # held, where it is had, until this process ends
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if used.isdisjoint(range(7400 + 250 * number, 7650 + 250 * number)):
                return number
        os.close(lock)
    return domains[0]


# Before rclpy is loaded: only this machine, and a domain that no other test process shares.
os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
if os.environ.get("ROS_DISTRO") == "humble":
    os.environ["ROS_LOCALHOST_ONLY"] = "1"
os.environ["ROS_DOMAIN_ID"] = str(_own_domain())

try:
    import rclpy
    import rt_panoptic_ros.msg  # noqa: F401
    from rclpy.executors import SingleThreadedExecutor
except ImportError as error:
    collect_ignore_glob = ["*test_*.py"]
    MISSING = f"needs rclpy and the generated messages: {error}"
else:
    MISSING = ""


TIMEOUT_S = 60.0
ROOT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("RT_PANOPTIC_DATA", ROOT.parent / "shared" / "data"))
PROGRAMS = {
    "panoptic_node": "node.panoptic_node",
    "play_images": "tools.image_player",
    "record_outputs": "tools.output_recorder",
}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Show what a failed test's processes wrote: what a test waits for in vain is mostly told there."""
    report = yield
    if report.when == "call" and report.failed:
        values = [one for value in item.funcargs.values() for one in (value, getattr(value, "programs", None))]
        found = {id(one): one for one in values if isinstance(one, Programs)}  # each once
        report.sections.extend(("programs", programs.told()) for programs in found.values())
    return report


def pytest_report_header() -> str:
    return f"ROS tests left out: {MISSING}" if MISSING else f"ROS tests on domain {os.environ['ROS_DOMAIN_ID']}"


class FakePipeline:
    """Stands in for the pipeline: labels by brightness, and does as a test tells it."""

    def __init__(self, model: str, **arguments: Any) -> None:
        if model == "missing":
            raise InvalidInputError("expected a model bundle at 'missing', found none")
        self.model = model
        self.arguments = arguments
        self.classes = load_class_table("camvid")
        card = PostprocessSettings().replaced({"similarity": "giou", "mask_threshold": 0.4})
        self.settings = card.replaced(arguments["settings"])
        self.timings_ms = {"network": 1.0}
        self.prepared: list[tuple[int, int] | None] = []
        self.seen: list[tuple[np.ndarray, PostprocessSettings]] = []
        self.asked: list[frozenset[str]] = []
        self.entered = threading.Semaphore(0)
        self.gate = threading.Event()
        self.gate.set()
        self.error: Exception | None = None
        self.closed = False
        self.label = fake_result

    def prepare(self, camera_size: tuple[int, int] | None = None) -> None:
        self.prepared.append(camera_size)

    def __call__(self, image: Any, *, settings: PostprocessSettings, images: frozenset[str]) -> PanopticResult:
        self.entered.release()
        assert self.gate.wait(TIMEOUT_S)
        self.seen.append((image.pixels.copy(), settings))
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        result = self.label(image.pixels)
        self.asked.append(images)
        absent = {name: np.empty((0, 0), np.uint8) for name in LABELS - images}
        return replace(result, **absent, confidence=255 - result.semantic if "confidence" in images else None)

    fallback = ""
    stage = "network"

    def lost(self) -> str:
        return ""

    def describe(self) -> str:
        return f"fake {self.model}"

    def close(self) -> None:
        self.closed = True


def fake_result(pixels: np.ndarray) -> PanopticResult:
    """Return a result with one object, the left half, and the class by the first channel's value."""
    first = pixels.reshape(*pixels.shape[:2], -1)[..., 0]
    height, width = first.shape
    instance = np.zeros((height, width), np.uint16)
    instance[:, : max(1, width // 2)] = 1
    table = DetectionTable(
        class_ids=np.array([8], np.uint8),
        scores=np.array([0.75], np.float32),
        boxes=np.array([[0, 0, width / 2, height]], np.float32),
        mask_boxes=np.array([[0, 0, max(1, width // 2) - 1, height - 1]], np.int32),
        areas=np.array([np.count_nonzero(instance)], np.uint32),
    )
    return PanopticResult((first % 11).astype(np.uint8), instance, table)


class Graph:
    """Nodes of this process, spun by the test itself."""

    def __init__(self) -> None:
        self.context = rclpy.Context()
        rclpy.init(context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.nodes: list[Any] = []

    def add(self, node: Any) -> Any:
        self.nodes.append(node)
        self.executor.add_node(node)
        return node

    def node(self, name: str) -> Any:
        return self.add(rclpy.create_node(name, context=self.context))

    def spin_until(self, condition: Callable[[], object], what: str = "", state: Callable[[], object] = str) -> None:
        """Spin until a condition holds; else fail with what it was for, and the state at the end."""
        deadline_s = time.monotonic() + TIMEOUT_S
        while not condition():
            assert time.monotonic() < deadline_s, f"waited {TIMEOUT_S:g} s in vain {what} {state()}".rstrip()
            self.executor.spin_once(timeout_sec=0.02)

    def close(self) -> None:
        for node in self.nodes:
            self.executor.remove_node(node)
            if hasattr(node, "finish"):
                node.finish()
            _end(node)
        self.executor.shutdown()
        self.context.try_shutdown()  # a test may have done it


def _end(node: Any) -> None:
    node.destroy_node()
    # rclpy's lifecycle nodes hold their state machine, and its services stay on the graph until both are collected:
    # the next test's clients would find more than one server, and never be ready.
    vars(node).clear()


class Programs:
    """The package's programs as processes of their own; none outlives the test."""

    def __init__(self, log: Path) -> None:
        import rt_panoptic_ros

        packages = Path(rt_panoptic_ros.__file__).parent.parent
        self.environment = dict(
            os.environ, PYTHONPATH=os.pathsep.join([str(packages), os.environ.get("PYTHONPATH", "")])
        )
        self.environment |= profile_environment(self.environment)
        self.environment["ROS_LOG_DIR"] = str(log)
        self.environment["PYTHONFAULTHANDLER"] = "1"
        self._log = log
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, program: str, *arguments: str, **parameters: object) -> subprocess.Popen[bytes]:
        options = [item for name, value in parameters.items() for item in ("-p", f"{name}:={_yaml(value)}")]
        code = (
            "import faulthandler, signal, sys; faulthandler.register(signal.SIGUSR1); "
            f"from rt_panoptic_ros.ros.{PROGRAMS[program]} import main; sys.exit(main())"
        )
        with (self._log / f"{program}.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-c", code, "--ros-args", *arguments, *options],
                env=self.environment, cwd=self._log, stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip
        self._running[program] = process
        return process

    def wait(self, program: str) -> int:
        try:
            return self._running[program].wait(TIMEOUT_S)
        except subprocess.TimeoutExpired:
            pytest.fail(f"{program} did not end within {TIMEOUT_S:g} s:\n{self.log(program)}")

    def stop(self, program: str, number: int = signal.SIGINT) -> int:
        self._running[program].send_signal(number)
        return self.wait(program)

    def log(self, program: str) -> str:
        return (self._log / f"{program}.log").read_text()

    def told(self) -> str:
        """Return the state of each and all that it wrote, for the report of a test that failed.

        Who still runs adds where its threads are.
        """
        states = {program: process.poll() for program, process in self._running.items()}
        for program, process in self._running.items():
            length, deadline_s = len(self.log(program)), time.monotonic() + TIMEOUT_S
            process.send_signal(signal.SIGUSR1)  # none to who has ended
            while process.poll() is None and "Current thread" not in self.log(program)[length:]:
                if time.monotonic() > deadline_s:
                    break  # a process that is stopped, for one, tells nothing
                os.sched_yield()
        return "\n".join(f"{program}: exit status {state}\n{self.log(program)}" for program, state in states.items())

    def close(self) -> None:
        # A killed process leaves its shared memory behind, in which Fast DDS of a later process may get stuck.
        for process in self._running.values():
            if process.poll() is None:
                process.terminate()
        for process in self._running.values():
            try:
                process.wait(TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@pytest.fixture(scope="module")
def shared_programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Programs]:
    """Processes that a module's tests share."""
    programs = Programs(tmp_path_factory.mktemp("programs"))
    yield programs
    programs.close()


def _participants() -> int:
    """Count the sockets of this process on its domain's ports: each of the middleware's participants has some.

    Each is asked itself: /proc/net/udp leaves out some that live while another process closes its own.
    """
    first = 7400 + 250 * int(os.environ["ROS_DOMAIN_ID"])
    count = 0
    for path in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # closed by another thread meanwhile
            if path.is_socket():
                with socket.socket(fileno=os.dup(int(path.name))) as own:
                    count += own.family == socket.AF_INET and first <= own.getsockname()[1] < first + 250
    return count


def _sweep() -> None:
    """Remove what killed processes left in shared memory: segments, and this domain's ports, whose names return.

    Not ports 7000 and on, which all domains share: another process may be taking one over at this moment.
    """
    first = 7400 + 250 * int(os.environ["ROS_DOMAIN_ID"])
    for lock in Path("/dev/shm").glob("fast*_el"):
        port = re.search(r"_port(\d+)_el$", lock.name)
        if port and not first <= int(port[1]) < first + 250:
            continue
        # Who lives holds the lock, but in the moment after it has made the file; others may sweep at the same time.
        with contextlib.suppress(FileNotFoundError, BlockingIOError, PermissionError):
            if time.time() - lock.stat().st_mtime <= TIMEOUT_S:
                continue  # not even tried: whoever has just made it would find it locked
            with lock.open("rb") as opened:
                fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
                name = lock.name.removesuffix("_el")
                for left in (name, f"sem.{name}_mutex", lock.name):
                    lock.with_name(left).unlink(missing_ok=True)


@pytest.fixture(autouse=True)
def _leaves_nobody() -> Iterator[None]:
    """No participant outlives its test, or its module where all of it shares one: later tests would meet its nodes."""
    before = _participants()
    yield
    assert _participants() == before, "participants of this test are left in this process"
    _sweep()


@pytest.fixture
def graph() -> Iterator[Graph]:
    graph = Graph()
    yield graph
    graph.close()


@pytest.fixture(scope="module")
def shared_graph() -> Iterator[Graph]:
    """One graph for a module's tests that share a node."""
    graph = Graph()
    yield graph
    graph.close()


@pytest.fixture
def programs(tmp_path: Path) -> Iterator[Programs]:
    programs = Programs(tmp_path)
    yield programs
    programs.close()


@pytest.fixture
def fake_node(graph: Graph) -> Callable[..., Any]:
    """Make a node around a `FakePipeline`, configured and activated by the test; `.pipelines` lists all it opened.

    Words such as image:=/camera are remapping rules; `on_open` is given each pipeline before the node has it.
    """
    from rclpy.parameter import Parameter

    from rt_panoptic_ros.ros.node.panoptic_node import PanopticNode

    def make(
        *rules: str,
        periods: Any = None,
        on_open: Callable[[FakePipeline], object] = lambda _: None,
        **parameters: object,
    ) -> Any:
        pipelines: list[FakePipeline] = []

        def opened(model: str, **arguments: Any) -> FakePipeline:
            pipelines.append(FakePipeline(model, **arguments))
            on_open(pipelines[-1])
            return pipelines[-1]

        overrides = [Parameter(name, value=value) for name, value in {"model": "fake", **parameters}.items()]
        arguments = ["--ros-args", *(word for rule in rules for word in ("-r", rule))]
        node = PanopticNode.__new__(PanopticNode)
        try:
            node.__init__(
                pipeline_factory=opened, periods=periods, context=graph.context, parameter_overrides=overrides,
                cli_args=arguments,
            )  # fmt: skip
        except InvalidInputError:  # what there is of it would stay on the graph
            _end(node)
            raise
        node.pipelines = pipelines
        return graph.add(node)

    return make


@pytest.fixture(scope="session")
def real_frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of a few frames of a real drive, or of generated ones where the data is absent."""
    import cv2

    folder = tmp_path_factory.mktemp("frames")
    drive = sorted((DATA / "camvid" / "val" / "images").glob("*"))[:8]
    for path in drive:
        (folder / path.name).write_bytes(path.read_bytes())
    for number in range(8 if not drive else 0):
        row = np.linspace(0, 255, 480, dtype=np.uint8)
        cv2.imwrite(str(folder / f"{number}.png"), np.roll(np.tile(row, (360, 1)), 20 * number, 1))
    return folder


def _yaml(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
