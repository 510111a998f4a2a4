"""The commands that mend things, spelled out for the node at hand. Knows no ROS."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from rt_panoptic_ros.ros.node_settings import Change, node_setting_infos, parse_cameras
from rt_panoptic_ros.ros.transport import PROFILE_VARIABLES, shipped_profile

if TYPE_CHECKING:
    from rt_panoptic_ros.ros.doctor.records import GraphSeen, NodeSeen

_SMALL = 100_000  # bytes; what Fast DDS's default buffers carry several of

_CHANGES = {entry.info.name: entry.change for entry in node_setting_infos()}


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


def mend_transport(graph: GraphSeen, sender: str, largest: int = 0) -> tuple[str, tuple[str, ...]]:
    """Return words and commands that keep messages from being lost.

    Args:
        graph: The graph.
        sender: What sends them, in words.
        largest: Bytes of the largest that arrived, 0 if none did.
    """
    if 0 < largest < _SMALL:
        return (
            "They are too small for the middleware's buffers to be the cause: look for a weak network or a machine "
            "without idle time between the two",
            ("top", "ping -c 20 HOST_OF_THE_CAMERA"),
        )
    if "fastrtps" not in graph.rmw:
        words = f"Enlarge the buffers for large messages of {graph.rmw or 'the middleware'} on both machines"
        return words, ("sudo sysctl -w net.core.rmem_max=2147483647",)
    words = (
        "Fast DDS loses large images by default, and it is the sender's profile that counts: in the terminal of "
        f"{sender}, choose the shipped one and start it again"
    )
    return words, tuple(f"export {variable}={shlex.quote(shipped_profile())}" for variable in PROFILE_VARIABLES)


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
