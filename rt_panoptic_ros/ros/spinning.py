# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Runs one node as a process: until it has finished or a signal asks it to end, and always to an orderly end."""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import sys
import threading
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar, runtime_checkable

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.logging import get_logger
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import try_shutdown

from rt_panoptic_ros.errors import RtPanopticError, first_line
from rt_panoptic_ros.ros.logs import find_log_directory, log_to_ros

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_LARGEST_KEPT = 32 << 20  # bytes; glibc takes no more
_MOST_KEPT = 256 << 20  # bytes that stay free at the heap's end


class RunnableNode(Protocol):
    """What `run_node` asks of a node besides being one."""

    def start(self) -> None:
        """Begin the work, before callbacks run."""

    def finish(self) -> int:
        """End the work, after the last callback; return the process's exit status."""


@runtime_checkable
class EnduringNode(Protocol):
    """A node that goes on when one of its callbacks fails, and ends in the middle of a library's call; others don't."""

    @property
    def cut_off(self) -> bool:
        """Whether the node was finished while a library's call was still at work, which goes on."""

    def outlive(self, error: BaseException) -> None:
        """Count the error and tell of it."""


AnyNode = TypeVar("AnyNode", bound=RunnableNode)


def run_node(make_node: Callable[[threading.Event], AnyNode], args: Sequence[str] | None = None) -> int:
    """Make a node, start it, spin it until its event is set or SIGINT or SIGTERM comes, and finish it.

    Args:
        make_node: Is given the event that the node sets when it has finished by itself.
        args: Command line with ROS arguments; None for the process's own.

    Returns:
        The process's exit status.
    """
    if {"-h", "--help"} & set(sys.argv[1:] if args is None else args):
        print(
            f"usage: {Path(sys.argv[0]).name} --ros-args -p NAME:=VALUE -r NAME:=TOPIC ...\n"
            "`ros2 param describe NODE NAME` and docs/topics_and_parameters.md tell of the node's parameters."
        )
        return 0
    _keep_image_buffers()
    log_to_ros()
    finished = threading.Event()
    # rclpy's own handlers invalidate the context at once, which leaves no time to publish or write what is at hand.
    try:
        find_log_directory()
        rclpy.init(args=None if args is None else list(args), signal_handler_options=SignalHandlerOptions.NO)
    except rclpy_implementation.RCLError as error:
        return _refuse(f"expected valid arguments after --ros-args, got some that are not: {first_line(error)}")
    except RtPanopticError as error:
        return _refuse(str(error))
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: finished.set())
    try:
        node, refusal = None, ""
        try:
            node = make_node(finished)
        except RtPanopticError as error:
            refusal = str(error)
        if node is None:
            gc.collect()  # what is half made is taken apart before ROS is shut down, not by the interpreter's end
            return _refuse(refusal)
        try:
            status = _run(node, finished)
        finally:
            node.destroy_node()  # type: ignore[attr-defined]
    finally:
        try_shutdown()  # a callback may have done it
    if isinstance(node, EnduringNode) and node.cut_off:
        # What the call still uses must not be taken apart under it, as the interpreter would.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    return status


def _refuse(reason: str) -> int:
    get_logger("rt_panoptic_ros").fatal(reason)
    return 1


def _run(node: RunnableNode, finished: threading.Event) -> int:
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    stop = threading.Event()
    failures: list[BaseException] = []
    spinner = threading.Thread(target=spin, args=(executor, node, stop, finished, failures), name="executor")
    try:
        if not finished.is_set():
            node.start()
        spinner.start()
        # The main thread only waits, so that Python can run signal handlers, which it does in this thread alone.
        finished.wait()
        stop.set()
        if spinner.is_alive():  # else the executor may be shut down
            executor.create_task(lambda: None)  # wakes it
        spinner.join()
    finally:
        executor.shutdown()
        status = node.finish()
    return 1 if failures else status


def spin(
    executor: SingleThreadedExecutor,
    node: RunnableNode,
    stop: threading.Event,
    finished: threading.Event,
    failures: list[BaseException],
) -> None:
    """Spin until `stop` is set, or it can't go on, which sets `finished`.

    That is when a callback fails that the node doesn't outlive, or shuts ROS or the executor down.
    """
    while not stop.is_set():
        failure: BaseException | None = None
        try:
            executor.spin_once()  # spin_until_future_complete adds a callback to the future for every callback it runs
        except BaseException as error:  # a library's SystemExit too: this thread would end, and the process stay
            if not _met_what_was_destroyed(error):
                failure = error
        if executor._is_shutdown or not executor.context.ok():  # of the former, spin_once says nothing
            what = "the executor" if executor.context.ok() else "ROS"
            failure = RuntimeError(f"{what} was shut down in this process")
        elif failure is None:
            continue
        elif isinstance(node, EnduringNode):
            node.outlive(failure)
            continue
        # Whatever it is, the process must end with it in the log.
        words = "".join(traceback.format_exception(failure))
        node.get_logger().fatal(f"ending, since a callback failed:\n{words}")  # type: ignore[attr-defined]
        failures.append(failure)
        finished.set()
        return


def _met_what_was_destroyed(error: BaseException) -> bool:
    """Return whether the executor, gathering what to wait for, met an event that another thread destroyed meanwhile.

    Of subscriptions it knows that case, of their events it doesn't (Jazzy). Nothing was taken yet, and with the next
    turn the event is gone.
    """
    places = {frame.name for frame in traceback.extract_tb(error.__traceback__)}
    return isinstance(error, rclpy_implementation.InvalidHandle) and "wait_for_ready_callbacks" in places


def _keep_image_buffers() -> None:
    """Let glibc reuse freed buffers of up to 32 MB instead of giving them back and asking for them with each image.

    Otherwise each image of 1024x2048 costs over 4,000 page faults. Call it before threads start. Other C libraries
    have no such setting and are left as they are.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGEST_KEPT)
        mallopt(_M_TRIM_THRESHOLD, _MOST_KEPT)


def give_back_memory() -> None:
    """Give the system what glibc keeps of freed memory, as after a model was closed: the next one finds it whole."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
