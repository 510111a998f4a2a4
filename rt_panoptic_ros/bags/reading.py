"""Reads a bag: which of its topics are cameras, which are copied, and its messages in order."""

from __future__ import annotations

import logging
import re
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rosbags.highlevel import AnyReader
from rosbags.interfaces import MessageDefinitionFormat
from rosbags.serde import SerdeError
from rosbags.typesys import Stores, TypesysError, get_typestore

from rt_panoptic_ros.bags.messages import COMPRESSED_IMAGE, IMAGE, read_image_message
from rt_panoptic_ros.errors import InvalidInputError, first_line
from rt_panoptic_ros.pixel_encodings import is_color_encoding

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from pathlib import Path

    from rosbags.interfaces import Connection

NODE = "/panoptic_node"
"""What the outputs' topics begin with, as those of the node do."""

_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Camera:
    """A topic whose images are labelled."""

    topic: str
    prefix: str  # what its outputs' topics begin with


@dataclass(frozen=True, slots=True)
class Copied:
    """A topic that goes into the new bag as it is."""

    connection: Connection
    definition: str
    type_hash: str


@contextmanager
def open_bag(path: Path) -> Iterator[AnyReader]:
    """Open a bag: a folder with metadata.yaml, or a single .mcap or .db3 file.

    Raises:
        InvalidInputError: There is none, it is of ROS 1, or it is damaged.
    """
    if path.suffix == ".bag":
        raise InvalidInputError(f"expected a bag of ROS 2, got {path} of ROS 1: convert it with `rosbags-convert`")
    # Bags without message definitions are those of Humble and before.
    with _unreadable(path):
        reader = AnyReader([path], default_typestore=get_typestore(Stores.ROS2_HUMBLE))
        reader.open()
    try:
        yield reader
    finally:
        reader.close()


def read_messages(reader: AnyReader, connections: Sequence[Connection]) -> Iterator[tuple[Connection, int, bytes]]:
    """Give (connection, receive time in ns, serialised message) in the bag's order.

    Raises:
        InvalidInputError: While iterating: the bag is damaged.
    """
    with _unreadable(reader.paths[0]):
        messages = reader.messages(connections)
    while connections:
        with _unreadable(reader.paths[0]):
            message = next(messages, None)
        if message is None:
            return
        yield message


def find_cameras(reader: AnyReader, wanted: Collection[str]) -> list[Camera]:
    """Return the cameras of a bag, by their topics' names.

    Args:
        reader: The bag.
        wanted: Topics of images; none for all that have images and look like a camera's.

    Raises:
        InvalidInputError: A topic is not there or has no images, there is no camera, or two have the same name.
    """
    types = {connection.topic: connection.msgtype for connection in reader.connections}
    images = [topic for topic, kind in types.items() if kind in (IMAGE, COMPRESSED_IMAGE)]
    for topic in wanted:
        if topic not in images:
            have = f"a topic of {types[topic]}" if topic in types else "no such topic"
            raise InvalidInputError(
                f"expected images on {topic}, got {have}: choose from {', '.join(sorted(images)) or 'another bag'}"
            )
    topics = sorted(set(wanted) or (topic for topic in images if _is_camera(reader, topic)))
    if not topics:
        raise InvalidInputError(
            f"expected a topic with a camera's images in {reader.paths[0]}, found none"
            + (f" (but {', '.join(sorted(images))}: name those to label with --images)" if images else "")
        )
    if len(topics) == 1:
        return [Camera(topics[0], NODE)]
    return [Camera(topic, f"{NODE}/{name}") for topic, name in zip(topics, camera_names(topics), strict=True)]


def camera_names(topics: Sequence[str]) -> list[str]:
    """Return different names for cameras by their topics: front for /front/image_raw.

    The words before the image's own (image..., compressed) are taken, from the last as many as make all different.

    Raises:
        InvalidInputError: They can't be told apart.
    """
    words = [_camera_words(topic) for topic in topics]
    whole = [topic.strip("/").split("/") for topic in topics]
    attempts = [[parts[-count:] for parts in words] for count in range(1, max(map(len, words)) + 1)]
    for attempt in (*attempts, whole):
        names = ["_".join(parts) for parts in attempt]
        if len(set(names)) == len(names):
            return names
    raise InvalidInputError(
        f"expected cameras whose topics give different names, got {', '.join(topics)}: choose some with --images"
    )


def find_copied(reader: AnyReader, wanted: Collection[str] | None, outputs: Collection[str]) -> list[Copied]:
    """Return what is copied, in the bag's order; what has to be left out of all is said in the log.

    Args:
        reader: The bag.
        wanted: Topics; None for all.
        outputs: Topics that will be written.

    Raises:
        InvalidInputError: A topic is not there, or can't be copied.
    """
    topics = {connection.topic for connection in reader.connections}
    for topic in wanted or ():
        if topic not in topics:
            raise InvalidInputError(f"expected topics of the bag to copy, got {topic}: it has {', '.join(topics)}")
    copied: dict[tuple[str, str], Copied] = {}
    for connection in reader.connections:
        if wanted is not None and connection.topic not in wanted:
            continue
        problem = "the outputs have a topic of that name" if connection.topic in outputs else ""
        if not problem:
            try:
                entry = Copied(connection, *_definition(reader, connection))
            except (KeyError, TypesysError):
                problem = f"the bag has no definition of {connection.msgtype}"
        if not problem:
            copied.setdefault((connection.topic, connection.msgtype), entry)
        elif wanted is not None:
            raise InvalidInputError(f"expected topics that can be copied, got {connection.topic}: {problem}")
        else:
            _LOGGER.warning("%s is not copied: %s", connection.topic, problem)
    return list(copied.values())


def _definition(reader: AnyReader, connection: Connection) -> tuple[str, str]:
    """Return the text and the hash that define a connection's type."""
    store = reader.typestore
    text = connection.msgdef.data
    if connection.msgdef.format != MessageDefinitionFormat.MSG:
        text, _ = store.generate_msgdef(connection.msgtype, ros_version=2)
    return text, connection.digest or store.hash_rihs01(connection.msgtype)


def _is_camera(reader: AnyReader, topic: str) -> bool:
    """Whether a topic's first image may be a camera's: one that can't be read may."""
    if topic.startswith(f"{NODE}/"):
        return False
    connections = [entry for entry in reader.connections if entry.topic == topic]
    for connection, _, data in read_messages(reader, connections):
        try:
            message = read_image_message(data, connection.msgtype)
        except SerdeError:
            return True
        return is_color_encoding(message.format if connection.msgtype == COMPRESSED_IMAGE else message.encoding)
    return False


def _camera_words(topic: str) -> list[str]:
    words = topic.strip("/").split("/")
    while len(words) > 1 and re.fullmatch(r"image.*|compressed", words[-1]):
        words.pop()
    return words


@contextmanager
def _unreadable(path: object) -> Iterator[None]:
    """Turn whatever `rosbags` raises for a damaged bag into one sentence."""
    try:
        yield
    except Exception as error:
        raise InvalidInputError(
            f"expected a whole rosbag2 bag (a folder with metadata.yaml, or an .mcap file), got {path}: "
            f"{type(error).__name__}: {first_line(error)}: try `ros2 bag reindex`, or record it again"
        ) from error
