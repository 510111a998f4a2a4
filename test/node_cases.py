# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""What the tests of the node share: cameras that play by command, and looks into the node."""

from __future__ import annotations

import array
from types import SimpleNamespace

import cv2
import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from rt_panoptic_ros.frames.outputs import FRAME_OUTPUTS, OUTPUTS
from rt_panoptic_ros.ros import qos
from rt_panoptic_ros.ros.conversions import image_to_msg, output_classes
from rt_panoptic_ros.ros.node.frame_statistics import OUTCOMES

SUCCESS, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE
TIMEOUT_S = 60.0
KINDS = output_classes()
OF_IMAGES = tuple(name for name in FRAME_OUTPUTS if name in KINDS and not OUTPUTS[name].inputs)
"""Outputs that come with every image, whatever else there is."""


def picture(number: int, size: tuple[int, int] = (6, 8), encoding: str = "rgb8") -> Image:
    """Return an image whose every byte is `number`, with a stamp and frame id that show any rounding."""
    header = Header(frame_id=f"camera {number}")
    header.stamp.sec, header.stamp.nanosec = 2**31 - 1 - number, 999_999_999 - number
    return image_to_msg(np.full((*size, 3), number, np.uint8), encoding, header)


def compressed_picture(number: int, size: tuple[int, int] = (6, 8)) -> CompressedImage:
    """Return the same as PNG."""
    content = cv2.imencode(".png", np.full((*size, 3), number, np.uint8))[1].tobytes()
    return CompressedImage(header=picture(number).header, format="png", data=array.array("B", content))


class Camera:
    """A publisher of images, and subscribers to what the node makes of them."""

    def __init__(self, graph, topics=("semantic",), name=""):
        self.graph = graph
        self.node = graph.node(f"camera{name}")
        image, outputs = (f"/{name}/image", f"/panoptic_node/{name}") if name else ("image", "/panoptic_node")
        self.publisher = self.node.create_publisher(Image, image, qos.stream("reliable"))
        self.received = {topic: [] for topic in topics}
        self.subscriptions = [
            self.node.create_subscription(
                KINDS[topic], f"{outputs}/{topic}", self.received[topic].append, qos.stream("reliable")
            )
            for topic in topics
        ]
        self.reports = []
        self.node.create_subscription(DiagnosticArray, "/diagnostics", self.reports.append, qos.diagnostics())

    def connected(self):
        self.graph.spin_until(self.publisher.get_subscription_count, "for the node to subscribe")
        return self

    def send(self, *messages):
        for message in messages:
            self.publisher.publish(message)

    def await_outputs(self, number):
        self.graph.spin_until(
            lambda: all(len(got) >= number for got in self.received.values()), f"for {number} outputs"
        )

    def await_report(self, condition, index=0, *, past=False):
        """Return the status of that index, the node's or a camera's, of the next report for which it holds.

        With `past`, reports that have come since `reports` was cleared count, too: one may be over by now.
        """
        if not past:
            self.reports.clear()

        def fitting():
            statuses = [array.status[index] for array in self.reports if index < len(array.status)]
            return [status for status in statuses if condition(status)]

        self.graph.spin_until(fitting, "for a report")
        return fitting()[0]


class Labelling:
    """A node with a real model, active, and a camera whose images it labels."""

    def __init__(self, graph, node, camera):
        self.graph, self.node, self.camera = graph, node, camera

    def label(self, message):
        """Send an image and return its labels, once they are here."""
        got = self.camera.received["semantic"]
        got.clear()
        self.camera.connected().send(message)
        self.graph.spin_until(lambda: got and got[-1].header == message.header, "for the image's labels")
        return got[-1]

    def send_until(self, make, condition):
        """Send one message after the other until a report's status of the node fits."""
        self.camera.reports.clear()

        def fits():
            self.camera.send(make())
            return any(condition(report.status[0]) for report in self.camera.reports)

        self.graph.spin_until(fits, "for a report")


def value(status, key):
    return next(item.value for item in status.values if item.key == key)


def activated(node):
    assert node.trigger_configure() == SUCCESS
    assert node.trigger_activate() == SUCCESS
    return node


def counts(node, camera=""):
    """Return a camera's frames of each outcome, such as `.processed`."""
    found = node.statistics[camera].counts()
    return SimpleNamespace(**{outcome: found[outcome] for outcome in OUTCOMES})


def final_counts(node, camera=""):
    """Return the same once the frame at hand is counted, too: that comes after its outputs, which may be here."""
    node._worker.run(lambda: None)
    return counts(node, camera)


def set_parameters(node, **values):
    return node.set_parameters_atomically([Parameter(name, value=value) for name, value in values.items()])


def called(graph, node, kind, name, request):
    """Call a service and return the future of its answer."""
    client = next((one for one in node.clients if one.srv_name == name), None) or node.create_client(kind, name)
    graph.spin_until(client.service_is_ready, "for the service")
    return client.call_async(request)


def call(graph, node, kind, name, request):
    """Call a service and return its answer."""
    answer = called(graph, node, kind, name, request)
    graph.spin_until(answer.done, "for its answer")
    return answer.result()


def requested(graph, node, transition):
    """Request a transition of the panoptic node as ros2 lifecycle does; return the future of the answer."""
    request = ChangeState.Request(transition=Transition(id=transition))
    return called(graph, node, ChangeState, "/panoptic_node/change_state", request)
