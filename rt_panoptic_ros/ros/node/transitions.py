# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Serves a lifecycle node's transitions from the thread that does their work, while the executor goes on."""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING, Any

from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.lifecycle import TransitionCallbackReturn

from rt_panoptic_ros.errors import CancelledError, RtPanopticError, explained, is_out_of_memory

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from lifecycle_msgs.srv import ChangeState
    from rclpy.lifecycle import LifecycleNode

    from rt_panoptic_ros.ros.node.frame_worker import FrameWorker
    from rt_panoptic_ros.ros.node.panoptic_node import PanopticNode


def state_of(node: LifecycleNode) -> str:
    """Return the label of a node's lifecycle state, such as active or configuring."""
    return str(node._state_machine.current_state[1])


def shut_down(node: LifecycleNode, release: Callable[[], None]) -> None:
    """Finalize a node, whatever its state; once ROS is shut down no transition can be, so only release what it has."""
    if not node.context.ok():
        release()
    elif state_of(node) != "finalized":
        node.trigger_shutdown()


def has_namesake(node: LifecycleNode) -> bool:
    """Return whether another node has a node's name, as far as the graph is known."""
    return bool(node.get_node_names_and_namespaces().count((node.get_name(), node.get_namespace())) > 1)


def serve_transitions(node: LifecycleNode, worker: FrameWorker[Any]) -> None:
    """Have a worker do the transitions that are requested, one after the other, and answer each when it is done.

    One that the state doesn't allow is answered by `success: false`; up to Jazzy, rclpy wouldn't answer.
    """
    service = node._service_change_state
    change, send = service.callback, service.send_response

    def do(request: ChangeState.Request, response: ChangeState.Response) -> ChangeState.Response:
        try:
            return change(request, response)
        except rclpy_implementation.RCLError:
            wanted = request.transition.label or f"transition {request.transition.id}"
            node.get_logger().error(f"{wanted} refused: the state {state_of(node)} doesn't allow it")
            response.success = False
            return response

    def answer(done: Future[ChangeState.Response], header: object) -> None:
        try:
            send(done.result(), header)
        except rclpy_implementation.InvalidHandle:  # the node has ended meanwhile
            return

    # The executor calls `callback` and hands what that returns to `send_response`: here, an answer to come.
    service.callback = lambda request, response: worker.submit(lambda: do(request, response))
    service.send_response = lambda future, header: future.add_done_callback(lambda done: answer(done, header))


def attempt(
    node: PanopticNode,
    worker: FrameWorker[Any],
    name: str,
    transition: Callable[[], None],
    undo: Callable[[], None],
) -> TransitionCallbackReturn:
    """Have the worker do a transition's work, and undo it where it fails; the node's health says why."""
    try:
        worker.run(transition)
    except CancelledError:
        worker.run(undo)
        node.get_logger().info(f"called off: {name}, as the node was told to end")
        return TransitionCallbackReturn.FAILURE
    except Exception as error:  # rclpy would swallow it
        if isinstance(error, RtPanopticError) or is_out_of_memory(error):
            worker.run(undo)
            node.health.problem = f"cannot {name}: {explained(error)}"
            node.get_logger().error(node.health.problem)
            return TransitionCallbackReturn.FAILURE
        node.health.problem = f"cannot {name}, since an unexpected {type(error).__name__} came: {error}"
        node.get_logger().error(f"{node.health.problem}\n{traceback.format_exc()}")
        return TransitionCallbackReturn.ERROR
    node.health.problem = ""
    return TransitionCallbackReturn.SUCCESS
