# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""`make demo`: player, node and recorder as separate processes on a ROS graph, and a table of what they measured."""

from __future__ import annotations

import json
import os
import subprocess
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any

from rt_panoptic_ros.frames.sources import open_source
from rt_panoptic_ros.model.bundle import read_bundle
from rt_panoptic_ros.resources import DEFAULT_MODEL
from rt_panoptic_ros.ros.processes import exit_on_sigterm, local_environment, require_ros, running

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from rt_panoptic_ros.ros.processes import Process

DOMAIN = "87"
"""ROS domain of the demo, unless the environment names one."""

_PATIENCE_S = 120.0
"""For the first outputs: the node compiles its kernels and makes its engine before."""


def run_demo(source: str, out: Path, *, model: str | None, max_frames: int) -> None:
    """Play `source` to the node and record its outputs into `out`: overlay.mp4, overlay.png, summary.json, logs/.

    Args:
        source: Image, folder, video or camera.
        out: Folder for the results.
        model: Bundle; None takes the one that comes with the package.
        max_frames: Frames of the source to play at most.

    Raises:
        InvalidInputError: The source or the model can't be read.
        UnavailableError: ROS is not installed here, or one of the processes failed (the end of its log is quoted).
    """
    require_ros("the demo")
    exit_on_sigterm()
    with open_source(source):
        pass  # a wrong source should be said before anything starts
    bundle = str(read_bundle(model or DEFAULT_MODEL).path)
    # Not before: they need ROS, and load slowly.
    from rt_panoptic_ros.ros.node import panoptic_node
    from rt_panoptic_ros.ros.tools import image_player, output_recorder

    environment = local_environment(os.environ, DOMAIN)
    logs = out / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    print(f"The demo's ROS domain is {environment['ROS_DOMAIN_ID']}.")
    with ExitStack() as stack:

        def start(name: str, main: Callable[..., int], log: Path | None, **parameters: object) -> Process:
            return stack.enter_context(running(name, main, parameters, environment, log))

        recorder = start("recorder", output_recorder.main, None, out=out, progress=True, patience_s=_PATIENCE_S)
        node = start("node", panoptic_node.main, logs, model=bundle, output_reliability="reliable")
        player = start(
            "player", image_player.main, logs, source=source, max_frames=max_frames, summary=logs / "player.json"
        )
        _wait_for([player, recorder], watched=node)
    reports = [json.loads(path.read_text(encoding="utf-8")) for path in (logs / "player.json", out / "summary.json")]
    print(demo_table(*reports))
    print(f"Look at {out / 'overlay.mp4'} and {out / 'overlay.png'}; logs are in {logs}")


def _wait_for(processes: list[Process], *, watched: Process) -> None:
    """Wait until all `processes` have ended well, and fail where one did not or `watched` ended before."""
    while processes:
        watched.check_running()
        for process in processes:
            with suppress(subprocess.TimeoutExpired):
                if process.popen.wait(0.2) != 0:
                    raise process.failure()
        processes = [process for process in processes if process.popen.returncode is None]


def demo_table(player: Mapping[str, Any], recorder: Mapping[str, Any]) -> str:
    """Return the table of what was sent, received and dropped, how fast and how late."""
    node, latency = recorder["node"], recorder["latency_ms"]
    rows = [
        ("frames sent by the player", f"{player['frames']}"),
        ("frames received by the node", node["frames received"]),
        ("frames dropped for a newer one", node["frames dropped"]),
        ("frames labelled and recorded", f"{recorder['frames']}"),
        ("objects found", f"{recorder['objects']}"),
        ("rate", f"{recorder['rate_hz']:.1f} Hz of {player['rate_hz']:.4g} Hz sent"),
        ("latency p50, image stamp to outputs received", f"{latency['p50']:.0f} ms"),
        ("latency p95", f"{latency['p95']:.0f} ms"),
    ]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"  {name:<{width}}  {value}" for name, value in rows)
