# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Serves a lifecycle node's transitions from the thread that does their work, while the executor goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rclpy.impl.implementation_singleton import rclpy_implementation

if TYPE_CHECKING:
    from concurrent.futures import Future

    from lifecycle_msgs.srv import ChangeState
    from rclpy.lifecycle import LifecycleNode

    from rt_panoptic_ros.ros.node.frame_worker import FrameWorker


def state_of(node: LifecycleNode) -> str:
    """Return the label of a node's lifecycle state, such as active or configuring."""
    return str(node._state_machine.current_state[1])


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
