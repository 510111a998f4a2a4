# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""What a bag's topics are, and so what goes into the new one: cameras, recorded labels, what is copied."""

from __future__ import annotations

import json
import logging
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from rosbags.serde import SerdeError

from rt_panoptic_ros.bags.messages import COMPRESSED_IMAGE, IMAGE, message_store
from rt_panoptic_ros.bags.storage import CDR
from rt_panoptic_ros.errors import InvalidInputError
from rt_panoptic_ros.frames.outputs import BAG_OUTPUTS, LATCHED_OUTPUTS, OUTPUTS, inputs_of
from rt_panoptic_ros.frames.pixel_encodings import is_color_encoding
from rt_panoptic_ros.model.class_table import parse_published_table

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from rt_panoptic_ros.bags.options import BagOptions
    from rt_panoptic_ros.bags.storage import Bag, Channel

INPUT_TYPES = {"depth": IMAGE, "camera_info": "sensor_msgs/msg/CameraInfo"}
"""{what outputs are made from besides images: its type}."""

NODE = "/panoptic_node"
"""What the outputs' topics begin with, as those of the node do."""

_LOGGER = logging.getLogger(__name__)
_TRANSPORT = "compressed|compressedDepth|theora|zstd|ffmpeg"  # image_transport puts them behind a topic
_OTHER_IMAGES = re.compile(r"(Image|Video)$|image_transport.*Packet$")  # types of images that can't be decoded
_IMAGE_OUTPUTS = {name for name, output in OUTPUTS.items() if output.type == IMAGE}
_ONE_REGION = 0.9  # share of neighbours that are equal in images of ids, which no sensor reaches


@dataclass(frozen=True, slots=True)
class Camera:
    """A topic whose images are labelled."""

    topic: str
    prefix: str  # what its outputs' topics begin with


@dataclass(frozen=True, slots=True)
class BagPlan:
    """What goes into the new bag."""

    cameras: tuple[Camera, ...]
    others: Mapping[str, str]  # {topic with images: why it is not labelled}
    labelled: Mapping[int, int]  # {number of a channel: of its camera}
    copied: tuple[int, ...]  # numbers of channels
    inputs: Mapping[int, tuple[str, int]]  # {number of a channel: depth or camera_info, of which camera}
    output_topics: Mapping[tuple[str, str], str]  # {(camera's topic, output): topic}; latched outputs have no camera's


def plan_bag(bag: Bag, options: BagOptions) -> BagPlan:
    """Return what the new bag of an old one will have.

    Raises:
        InvalidInputError: The options don't fit the bag; see `find_cameras` and `find_copied`.
    """
    cameras, others = find_cameras(bag, options.images)
    wanted = [name for name in BAG_OUTPUTS if name in options.outputs]
    frames = [name for name in wanted if name not in LATCHED_OUTPUTS]
    topics = {("", name): f"{NODE}/{name}" for name in wanted if name in LATCHED_OUTPUTS}
    topics |= {(camera.topic, name): f"{camera.prefix}/{name}" for camera in cameras for name in frames}
    images = _image_channels(bag)
    labelled = {place: number for number, camera in enumerate(cameras) for place in images[camera.topic]}
    inputs: dict[int, tuple[str, int]] = {}
    for name in inputs_of(options.outputs):
        for number, places in enumerate(find_inputs(bag, name, cameras, options)):
            inputs |= dict.fromkeys(places, (name, number))
    return BagPlan(cameras, others, labelled, find_copied(bag, options.topics, topics.values()), inputs, topics)


def find_cameras(bag: Bag, wanted: Collection[str]) -> tuple[tuple[Camera, ...], dict[str, str]]:
    """Return the cameras of a bag by their topics' names, and {topic with other images: why it is not labelled}.

    Args:
        bag: The bag.
        wanted: Topics of images; none for all that have images and look like a camera's.

    Raises:
        InvalidInputError: A topic is not there or has no images, there is no camera, or two have the same name.
    """
    images = _image_channels(bag)
    for topic in wanted:
        if topic not in images:
            types = sorted({_described(channel) for channel in bag.channels if channel.topic == topic})
            have = f"a topic of {' and '.join(types)}" if types else "no such topic"
            raise InvalidInputError(
                f"expected images on {topic}, got {have}: choose from {', '.join(sorted(images)) or 'another bag'}"
            )
    others = {} if wanted else _others(bag, images)
    topics = sorted(set(wanted) or images.keys() - others.keys())
    if not topics:
        if any(channel.encoding == "ros1" for channel in bag.channels):
            raise InvalidInputError(
                f"expected a bag of ROS 2, got {bag.path} with messages of ROS 1: "
                "convert the .bag file that it was made from with `rosbags-convert`"
            )
        known = ", ".join(sorted(images))
        unknown = ", ".join(f"{topic} ({others[topic]})" for topic in sorted(others.keys() - images.keys()))
        raise InvalidInputError(
            f"expected a topic with a camera's images in {bag.path}, found none"
            + (f" (but {known}: name those to label with --images)" if known else "")
            + (f" (but {unknown}: make them {IMAGE} or {COMPRESSED_IMAGE})" if unknown else "")
        )
    prefixes = [NODE] if len(topics) == 1 else [f"{NODE}/{name}" for name in camera_names(topics)]
    return tuple(map(Camera, topics, prefixes)), others


def find_inputs(bag: Bag, name: str, cameras: Sequence[Camera], options: BagOptions) -> list[list[int]]:
    """Return, for each camera, the numbers of the channels that have its depth or camera_info.

    Raises:
        InvalidInputError: There are none, or not as many topics were named as there are cameras.
    """
    option, kind = f"--{name.replace('_', '-')}", INPUT_TYPES[name]
    named: tuple[str, ...] = getattr(options, name)
    # Cameras are in the order of their names, what is named in that of the images.
    order = [camera.topic for camera in cameras]
    topics = [f"{topic.rpartition('/')[0]}/{name}" for topic in order]
    if named:
        if len(named) != len(options.images or order):
            raise InvalidInputError(
                f"expected {option} with a topic for each of {', '.join(options.images or order)}, got "
                f"{', '.join(named)}: name as many with {option} as with --images"
            )
        by_image = dict(zip(options.images or order, named, strict=True))
        topics = [by_image[topic] for topic in order]
    found = []
    for topic in topics:
        places = [
            place for place, channel in enumerate(bag.channels)
            if channel.topic == topic and channel.encoding == CDR and channel.type_name == kind
        ]  # fmt: skip
        if not places:
            there = sorted({channel.topic for channel in bag.channels if channel.type_name == kind})
            raise InvalidInputError(
                f"expected {name} ({kind}) on {topic}, the bag has none there: name its topic with {option}, such as "
                f"one of {', '.join(there) or 'another bag'}"
            )
        found.append(places)
    return found


def camera_names(topics: Sequence[str]) -> list[str]:
    """Return different names for cameras by their topics: front for /front/image_raw.

    The words before the image's own (image..., compressed) are taken, from the last as many as make all different.

    Raises:
        InvalidInputError: They can't be told apart.
    """
    words = [_words(topic, r"image.*|compressed") for topic in topics]
    whole = [topic.strip("/").split("/") for topic in topics]
    attempts = [[parts[-count:] for parts in words] for count in range(1, max(map(len, words)) + 1)]
    for attempt in (*attempts, whole):
        names = ["_".join(parts) for parts in attempt]
        if len(set(names)) == len(names):
            return names
    raise InvalidInputError(
        f"expected cameras whose topics give different names, got {', '.join(topics)}: choose some with --images"
    )


def find_copied(bag: Bag, wanted: Collection[str] | None, outputs: Collection[str]) -> tuple[int, ...]:
    """Return the numbers of the channels that are copied; what has to be left out is said in the log.

    Args:
        bag: The bag.
        wanted: Topics; None for all.
        outputs: Topics that will be written.

    Raises:
        InvalidInputError: A topic is not there, or can't be copied.
    """
    topics = {channel.topic for channel in bag.channels}
    for topic in wanted or ():
        if topic not in topics:
            raise InvalidInputError(
                f"expected topics of the bag to copy, got {topic}: it has {', '.join(sorted(topics))}"
            )
    copied = []
    for number, channel in enumerate(bag.channels):
        if wanted is not None and channel.topic not in wanted:
            continue
        problem = "the outputs have a topic of that name" if channel.topic in outputs else channel.problem
        if not problem:
            copied.append(number)
        elif wanted is not None:
            raise InvalidInputError(f"expected topics that can be copied, got {channel.topic}: {problem}")
        else:
            _LOGGER.warning("%s is not copied: %s", channel.topic, problem)
            bag.losses.add(channel.topic, f"it is not copied: {problem}")
    return tuple(copied)


def _image_channels(bag: Bag) -> dict[str, list[int]]:
    """Return {topic: numbers of its channels} of the messages that can be labelled."""
    found: dict[str, list[int]] = {}
    for number, channel in enumerate(bag.channels):
        if channel.encoding == CDR and channel.type_name in (IMAGE, COMPRESSED_IMAGE):
            found.setdefault(channel.topic, []).append(number)
    return found


def _others(bag: Bag, images: Mapping[str, Sequence[int]]) -> dict[str, str]:
    """Return {topic: why it is not taken for a camera's} of the topics with images."""
    others, doubtful = {}, set()
    for topic in sorted(images):
        image = _first(bag, images[topic])
        if image is None:
            others[topic] = "no images"
        elif topic.startswith(f"{NODE}/") or _words(topic, _TRANSPORT)[-1] in _IMAGE_OUTPUTS:
            others[topic] = "named like a panoptic node's output"
        elif isinstance(image, SerdeError):
            continue  # one that can't be read may be a camera's
        elif not is_color_encoding(encoding := getattr(image, "format", None) or image.encoding):
            others[topic] = f"{encoding} is no camera's colours"
        elif encoding == OUTPUTS["instance"].encoding and _has_regions(image, np.uint16):
            others[topic] = "ids, not a picture"
        elif encoding == OUTPUTS["semantic"].encoding and _has_regions(image, np.uint8):
            doubtful.add(topic)
    if doubtful and (_labels_were_recorded(bag) or "ids, not a picture" in others.values()):
        others.update(dict.fromkeys(doubtful, "ids, not a picture"))
    for channel in bag.channels:
        if channel.topic not in images and _OTHER_IMAGES.search(channel.type_name):
            others[channel.topic] = _described(channel)
    return others


def _first(bag: Bag, numbers: Sequence[int]) -> Any:
    """Return the first message on some channels of one topic, or why it can't be read; None without any."""
    message = next(bag.messages(numbers), None)
    if message is None:
        return None
    try:
        return message_store().deserialize_cdr(message.data, bag.channels[message.channel].type_name)
    except SerdeError as error:
        return error


def _labels_were_recorded(bag: Bag) -> bool:
    """Whether a node's detections, or its class names, are in a bag."""
    for number, channel in enumerate(bag.channels):
        if channel.type_name == OUTPUTS["detections"].type:
            return True
        if channel.encoding == CDR and channel.type_name == OUTPUTS["class_names"].type:
            try:
                parse_published_table(json.loads(_first(bag, [number]).data))
            except (AttributeError, RecursionError, ValueError):  # no message, another text
                continue
            return True
    return False


def _has_regions(image: Any, kind: type[np.generic]) -> bool:
    """Whether almost all neighbouring pixels of an image of one channel are equal."""
    size = np.dtype(kind).itemsize
    if image.height < 1 or image.step % size or len(image.data) != image.height * image.step:
        return False
    pixels = np.frombuffer(image.data, kind).reshape(image.height, -1)[:, : image.width]
    return min(pixels.shape) > 1 and all(np.mean(np.diff(pixels, axis=axis) == 0) > _ONE_REGION for axis in (0, 1))


def _described(channel: Channel) -> str:
    return channel.type_name if channel.encoding == CDR else f"{channel.type_name or 'no type'} in {channel.encoding}"


def _words(topic: str, unwanted: str) -> list[str]:
    """Return a topic's words without those at its end that match `unwanted`; the first stays."""
    words = topic.strip("/").split("/")
    while len(words) > 1 and re.fullmatch(unwanted, words[-1]):
        words.pop()
    return words
