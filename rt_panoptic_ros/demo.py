"""`make demo`: player, node and recorder as separate processes on a ROS graph, and a table of what they measured."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from rt_panoptic_ros.errors import UnavailableError
from rt_panoptic_ros.model_bundle import read_bundle
from rt_panoptic_ros.resources import DEFAULT_MODEL
from rt_panoptic_ros.ros.transport import profile_environment
from rt_panoptic_ros.sources import open_source

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

DOMAIN = "87"
"""ROS domain of the demo, unless the environment names one."""

_STOP_TIMEOUT_S = 20.0
_PATIENCE_S = 120.0
"""For the first outputs: the node compiles its kernels and makes its engine before."""
_LOG_TAIL = 12


def run_demo(source: str, out: Path, *, model: str | None, max_frames: int) -> None:
    """Play `source` to the node and record its outputs into `out`: overlay.mp4, overlay.png, summary.json, logs/.

    Args:
        source: Image, folder, video or camera.
        out: Folder for the results.
        model: Bundle; None takes the one that comes with the package.
        max_frames: Frames of the source to play at most.

    Raises:
        InvalidInputError: The source or the model can't be read.
        UnavailableError: ROS is not installed here, or one of the processes failed (its last words are quoted).
    """
    if importlib.util.find_spec("rclpy") is None:
        raise UnavailableError(
            "expected ROS 2 (rclpy) in this environment for the demo, it is not installed: run `make demo` in a "
            "checkout, or source a ROS 2 installation"
        )
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # so that the processes are stopped too
    with open_source(source):
        pass  # a wrong source should be said before anything starts
    bundle = str(read_bundle(model or DEFAULT_MODEL).path)
    environment = demo_environment(os.environ)
    logs = out / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    print(f"The demo's ROS domain is {environment['ROS_DOMAIN_ID']}.")
    with ExitStack() as stack:

        def start(name: str, module: str, parameters: Mapping[str, object], *, shown: bool = False) -> _Process:
            return stack.enter_context(_process(name, module, parameters, environment, None if shown else logs))

        recorder = start(
            "recorder", "output_recorder", {"out": out, "progress": True, "patience_s": _PATIENCE_S}, shown=True
        )
        node = start("node", "panoptic_node", {"model": bundle, "output_reliability": "reliable"})
        player = start(
            "player", "image_player", {"source": source, "max_frames": max_frames, "summary": logs / "player.json"}
        )
        _wait_for_all([player, recorder], watched=[node])
    print(demo_table(json.loads((logs / "player.json").read_text()), json.loads((out / "summary.json").read_text())))
    print(f"Look at {out / 'overlay.mp4'} and {out / 'overlay.png'}; logs are in {logs}")


def demo_environment(inherited: Mapping[str, str]) -> dict[str, str]:
    """Return the processes' environment: this machine only, a domain of its own, the transport for large images."""
    return {
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
        "ROS_DOMAIN_ID": DOMAIN,
        **profile_environment(inherited),
        **inherited,
        "PYTHONUNBUFFERED": "1",
    }


def demo_table(player: Mapping[str, Any], recorder: Mapping[str, Any]) -> str:
    """Return the table of what was sent, received and dropped, how fast and how late."""
    node, latency = recorder["node"], recorder["latency_ms"]
    rows = [
        ("frames sent by the player", f"{player['frames']}"),
        ("frames received by the node", node["frames received"]),
        ("frames dropped for a newer one", node["frames dropped"]),
        ("frames labelled and recorded", f"{recorder['frames']}"),
        ("objects found", f"{recorder['objects']}"),
        ("rate", f"{recorder['rate_hz']:.1f} Hz of {player['rate_hz']:g} Hz sent"),
        ("latency p50, image stamp to outputs received", f"{latency['p50']:.0f} ms"),
        ("latency p95", f"{latency['p95']:.0f} ms"),
    ]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"  {name:<{width}}  {value}" for name, value in rows)


class _Process:
    """A ROS process of the demo."""

    def __init__(self, name: str, popen: subprocess.Popen[bytes], log: Path | None) -> None:
        self.name, self.popen, self.log = name, popen, log

    def failure(self) -> UnavailableError:
        words = "" if self.log is None else " ".join(self.log.read_text(errors="replace").splitlines()[-_LOG_TAIL:])
        where = "" if self.log is None else f"; its log is {self.log}"
        return UnavailableError(
            f"expected the demo's {self.name} to run to the end, it exited with status {self.popen.returncode}: "
            f"{words or 'see above'}{where}"
        )


@contextmanager
def _process(
    name: str, module: str, parameters: Mapping[str, object], environment: Mapping[str, str], logs: Path | None
) -> Iterator[_Process]:
    """Run a module of `ros/` while the block runs; stopped by SIGINT at its end, so that it finishes its files."""
    arguments = [word for key, value in parameters.items() for word in ("-p", f"{key}:={value}")]
    code = f"import sys; from rt_panoptic_ros.ros.{module} import main; sys.exit(main())"
    log = None if logs is None else logs / f"{name}.log"
    with ExitStack() as stack:
        output = None if log is None else stack.enter_context(log.open("wb"))
        popen = subprocess.Popen(
            [sys.executable, "-c", code, "--ros-args", *arguments],
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
        try:
            yield _Process(name, popen, log)
        finally:
            if popen.poll() is None:
                popen.send_signal(signal.SIGINT)
            try:
                popen.wait(_STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                popen.kill()
                popen.wait()


def _wait_for_all(processes: list[_Process], *, watched: list[_Process]) -> None:
    """Wait until all `processes` have ended well, and none of `watched` has ended.

    Raises:
        UnavailableError: One ended with an error, or too early.
    """
    pending = list(processes)
    while pending:
        for process in watched:
            if process.popen.poll() is not None:
                raise process.failure()
        for process in list(pending):
            try:
                status = process.popen.wait(0.2)
            except subprocess.TimeoutExpired:
                continue
            if status != 0:
                raise process.failure()
            pending.remove(process)
