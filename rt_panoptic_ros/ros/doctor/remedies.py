"""The commands that mend things, spelled out for the node at hand. Knows no ROS."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from rt_panoptic_ros.ros.node.node_settings import NodeSettings, parse_cameras
from rt_panoptic_ros.settings import Change, settings_of

if TYPE_CHECKING:
    from rt_panoptic_ros.ros.doctor.records import NodeSeen

_CHANGES = {one.name: one.change for one in settings_of(NodeSettings)}


def lifecycle(node: NodeSeen, *transitions: str) -> tuple[str, ...]:
    """Return the commands for transitions such as configure."""
    return tuple(f"ros2 lifecycle set {node.name} {transition}" for transition in transitions)


def set_parameters(node: NodeSeen, **values: str) -> tuple[str, ...]:
    """Return the commands that set parameters in the node's state, and activate it where it has to be."""
    commands = tuple(f"ros2 param set {node.name} {name} {shlex.quote(value)}" for name, value in values.items())
    if all(_CHANGES.get(name) is not Change.INACTIVE for name in values):
        return commands
    if node.state == "active":
        return (*lifecycle(node, "deactivate"), *commands, *lifecycle(node, "activate"))
    return (*commands, *lifecycle(node, *(["activate"] if node.state == "inactive" else ["configure", "activate"])))


def restart(node: NodeSeen, *arguments: str) -> str:
    """Return the command that starts the node anew under its name with ROS arguments such as `-r image:=/camera`."""
    namespace, _, name = node.name.rpartition("/")
    named = [] if name == "panoptic_node" else [f"-r __node:={name}"]
    placed = [f"-r __ns:={namespace}"] if namespace else []
    return " ".join(["ros2 run rt_panoptic_ros panoptic_node --ros-args", *placed, *named, *arguments])


def take_camera(node: NodeSeen, camera: str, topic: str, transport: str = "") -> tuple[str, ...]:
    """Return the commands that have the node take a camera's images from another topic.

    Args:
        node: The node.
        camera: The camera's name, empty for the only one.
        topic: Its topic, without the /compressed that image_transport puts behind it.
        transport: raw or compressed; empty to leave it.
    """
    cameras = parse_cameras(str(node.parameters.get("cameras", "")))
    values = {"image_transport": transport} if transport else {}
    if camera in cameras:
        text = ",".join(f"{name}={place}" for name, place in {**cameras, camera: topic}.items())
        return set_parameters(node, cameras=text, **values)
    return (restart(node, f"-r image:={topic}", *(f"-p {name}:={value}" for name, value in values.items())),)


def lacks_gpu(problem: str) -> bool:
    """Return whether what the node says is about a GPU, or an engine that needs one."""
    return any(word in problem for word in ("CUDA", "GPU", "TensorRT", "tensorrt"))


def do_without_gpu(node: NodeSeen) -> tuple[str, ...]:
    """Return the commands that look for the GPU, and that let the node work without."""
    return ("nvidia-smi", *set_parameters(node, device="auto", backend="auto"))


def see_log(node: NodeSeen, about: str = "") -> tuple[str, tuple[str, ...]]:
    """Return the newest that the node's log says about something, and the command that shows more."""
    lines = next((text.strip().splitlines() for text in reversed(node.log) if about in text), [])
    # Of a traceback, the two lines that tell.
    words = f"Its log says: {' ... '.join(dict.fromkeys((lines[0], lines[-1])))}" if lines else "Its log says more"
    return words, ("ros2 topic echo /rosout",)
