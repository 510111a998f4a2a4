# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""What is in a bag for eyes: its cameras' images and a node's outputs, in the order in which they were recorded."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rosbags.serde import SerdeError

from rt_panoptic_ros.bags.bag import open_bag
from rt_panoptic_ros.bags.messages import message_store
from rt_panoptic_ros.bags.storage import CDR
from rt_panoptic_ros.bags.topics import camera_names, find_cameras
from rt_panoptic_ros.errors import InvalidInputError
from rt_panoptic_ros.frames.outputs import OUTPUTS

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from rt_panoptic_ros.bags.storage import Bag, Channel

CLASS_NAMES = "class_names"
_SHOWN = ("semantic", "instance", "detections", "points")


@dataclass(frozen=True, slots=True)
class Playback:
    """An open bag whose messages are given one by one."""

    bag: Bag
    images: Mapping[str, str]  # {topic with a camera's images: the camera's name}
    outputs: Mapping[str, tuple[str, str]]  # {topic with outputs of a node: (its camera's name, output)}
    broken: dict[str, int] = field(default_factory=dict)  # {topic: messages that could not be read}

    @property
    def cameras(self) -> dict[str, set[str]]:
        """{camera: the outputs of it that the bag has}; those that are labelled already."""
        found: dict[str, set[str]] = {}
        for camera, output in self.outputs.values():
            if output != CLASS_NAMES:
                found.setdefault(camera, set()).add(output)
        return found

    def count(self, topics: Collection[str]) -> int:
        """Return how many messages the bag says that it has on some topics."""
        return sum(self.bag.counts[number] for number in self._channels(topics))

    def messages(self, topics: Collection[str]) -> Iterator[tuple[str, int, Any]]:
        """Give (topic, receive time in ns, message) of some topics; what can't be read is counted in `broken`."""
        store = message_store()
        for message in self.bag.messages(self._channels(topics)):
            channel = self.bag.channels[message.channel]
            try:
                content = store.deserialize_cdr(message.data, channel.type_name)
            except SerdeError:
                self.broken[channel.topic] = self.broken.get(channel.topic, 0) + 1
            else:
                yield channel.topic, message.time_ns, content

    def _channels(self, topics: Collection[str]) -> set[int]:
        return {
            number
            for number, channel in enumerate(self.bag.channels)
            if channel.topic in topics and channel.encoding == CDR
        }


@contextmanager
def open_playback(path: Path, images: Collection[str], single: str) -> Iterator[Playback]:
    """Open a bag and find what it has to show.

    Args:
        path: A rosbag2 folder or a single storage file, whole or not.
        images: Topics of cameras; none for all with images that look like a camera's.
        single: The name of a camera that is alone.

    Raises:
        InvalidInputError: Nothing of it can be read, or there is neither a camera nor an output.
    """
    with tempfile.TemporaryDirectory() as scratch, open_bag(path, Path(scratch) / "files") as bag:
        outputs = _find_outputs(bag.channels, single)
        try:
            cameras, _ = find_cameras(bag, images)
        except InvalidInputError:
            if images or not outputs:
                raise
            cameras = ()
        names = [single] if len(cameras) == 1 else [camera.prefix.rpartition("/")[2] for camera in cameras]
        topics = {camera.topic: name for camera, name in zip(cameras, names, strict=True)}
        yield Playback(bag, topics, outputs)


def _find_outputs(channels: Collection[Channel], single: str) -> dict[str, tuple[str, str]]:
    """Return {topic: (camera, output)} of what a node published, by name and type: detections, or both label images."""
    places: dict[str, set[str]] = {}
    for channel in channels:
        place, _, name = channel.topic.rpartition("/")
        if name in (*_SHOWN, CLASS_NAMES) and name in OUTPUTS and channel.type_name == OUTPUTS[name].type:
            places.setdefault(place, set()).add(name)
    labelled = [place for place, names in places.items() if "detections" in names or names >= {"semantic", "instance"}]
    if not labelled:
        return {}
    names = [single] if len(labelled) == 1 else camera_names([f"{place}/image" for place in labelled])
    cameras = dict(zip(labelled, names, strict=True))
    found = {
        f"{place}/{output}": (camera, output)
        for place, camera in cameras.items()
        for output in places[place]
        if output in _SHOWN
    }
    tables = {f"{place}/{CLASS_NAMES}": ("", CLASS_NAMES) for place, names in places.items() if CLASS_NAMES in names}
    return found | tables
