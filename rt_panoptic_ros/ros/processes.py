# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Runs the package's nodes as processes of their own on a graph of this machine. Knows no ROS itself."""

from __future__ import annotations

import signal
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rt_panoptic_ros.errors import UnavailableError, require_package
from rt_panoptic_ros.ros.transport import profile_environment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

_STOP_TIMEOUT_S = 20.0
_LOG_TAIL = 12  # lines


@dataclass(frozen=True)
class Process:
    """A node's process."""

    name: str
    popen: subprocess.Popen[bytes]
    log: Path | None  # what its output goes to; None where it is shown

    def check_running(self) -> None:
        """Check that the process has not ended yet.

        Raises:
            UnavailableError: It has.
        """
        if self.popen.poll() is not None:
            raise self.failure()

    def failure(self) -> UnavailableError:
        """Return the error that says how the process ended, with the end of its log."""
        return UnavailableError(
            f"expected the process {self.name} to run to the end, it exited with status {self.popen.returncode}: "
            f"{self.log_tail()}"
        )

    def log_tail(self) -> str:
        """Return the end of its log, and where that lies."""
        if self.log is None:
            return "see above"
        tail = " ".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-_LOG_TAIL:])
        return f"{tail or 'it said nothing'}; its log is {self.log}"


@contextmanager
def running(
    name: str,
    main: Callable[..., int],
    parameters: Mapping[str, object],
    environment: Mapping[str, str],
    logs: Path | None,
    arguments: Sequence[object] = (),
) -> Iterator[Process]:
    """Run a node while the block runs; stopped by SIGINT at its end, so that it finishes its files.

    Args:
        name: What messages and the log call it.
        main: A module's function that runs the node and returns the exit status.
        parameters: ROS parameters of its node.
        environment: All of the process's environment variables.
        logs: Folder for its output, NAME.log; None shows it.
        arguments: What `main` is called with: values whose `repr` Python can read.
    """
    code = f"import sys; from {main.__module__} import {main.__name__} as main; sys.exit(main(*{tuple(arguments)!r}))"
    rules = [word for name, value in parameters.items() for word in ("-p", f"{name}:={value}")]
    log = None if logs is None else logs / f"{name}.log"
    with ExitStack() as stack:
        output = None if log is None else stack.enter_context(log.open("wb"))
        popen = subprocess.Popen(
            [sys.executable, "-c", code, "--ros-args", *rules],
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
        try:
            yield Process(name, popen, log)
        finally:
            popen.send_signal(signal.SIGINT)
            try:
                popen.wait(_STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                popen.kill()
                popen.wait()


def local_environment(inherited: Mapping[str, str], domain: str) -> dict[str, str]:
    """Return the processes' environment: this machine only, a domain of its own, the transport for large images.

    Args:
        inherited: The present environment; what it says of ROS is kept.
        domain: ROS domain, unless the environment names one.
    """
    humble = inherited.get("ROS_DISTRO") == "humble"  # it knows the old variable only, of which newer ones warn
    return {
        **({"ROS_LOCALHOST_ONLY": "1"} if humble else {"ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}),
        "ROS_DOMAIN_ID": domain,
        **profile_environment(inherited),
        **inherited,
        "PYTHONUNBUFFERED": "1",
    }


def require_ros(purpose: str) -> None:
    """Check that ROS is installed here, else say what it is needed for (`UnavailableError`)."""
    require_package("rclpy", purpose, "run `make demo` in a checkout, or source a ROS 2 installation")


def exit_on_sigterm() -> None:
    """Let SIGTERM end this process as an exception does, so that the processes it runs are stopped too."""
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
