# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""How camera images and results lie in messages, whoever's message classes hold them: rclpy's or those of `rosbags`.

Fields have the same names in both; a message's data, a buffer of bytes, is an `array.array` there and an ndarray here.
"""

from __future__ import annotations

import json
import re
import sys
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import yaml

from rt_panoptic_ros.errors import InvalidInputError
from rt_panoptic_ros.frames.encoded_image import MAX_MESSAGE_MEGAPIXELS, decode_image_file
from rt_panoptic_ros.frames.pixel_encodings import (
    check_color_encoding,
    fits,
    image_of_message,
    image_of_pixels,
    is_known,
    shown,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rt_panoptic_ros.model.class_table import ClassTable
    from rt_panoptic_ros.records import CameraImage, DetectionTable

_MAX_FRAME_ID = 256  # characters
_FILE_ORDERS = {1: "mono", 3: "bgr", 4: "bgra"}
"""{channels: their order} of an image file as OpenCV gives it."""


def stamp_ns(header: Any) -> int:
    """Return the stamp of a std_msgs/Header in ns."""
    return int(header.stamp.sec) * 10**9 + int(header.stamp.nanosec)


def decode_message(msg: Any) -> CameraImage:
    """Return the pixels of a sensor_msgs/Image or CompressedImage; see the two functions below.

    Raises:
        InvalidInputError: As they do, or its frame id is none that outputs should carry.
    """
    check_frame_id(msg)
    return decode_compressed_image(msg) if hasattr(msg, "format") else decode_image(msg)


def check_frame_id(msg: Any) -> None:
    """Check the frame id of a message with a header, since outputs and logs have it too.

    Raises:
        InvalidInputError: It is longer than any name is, or has unprintable characters.
    """
    name = msg.header.frame_id
    if len(name) > _MAX_FRAME_ID or not name.isprintable():
        raise InvalidInputError(
            f"expected a frame_id of at most {_MAX_FRAME_ID} printable characters, got {len(name)} that begin with "
            f"'{shown(name[:20])}': set it in the camera's driver"
        )


def decode_image(msg: Any) -> CameraImage:
    """Return the pixels of an image message.

    rgb8, bgr8, mono8 (8UC1), rgba8 and bgra8 are viewed where they lie, padded rows included, and must not change
    while the view is used; other colour encodings (Bayer, YUV, 16 bits) are converted to RGB.

    Raises:
        InvalidInputError: Empty, inconsistent, or of an encoding that is not a camera's colours.
    """
    return image_of_message(msg.encoding, msg.data, (msg.height, msg.width), msg.step, bigendian=bool(msg.is_bigendian))


def decode_compressed_image(msg: Any) -> CameraImage:
    """Return the pixels of a JPEG, PNG or TIFF message, decoded; of Bayer patterns and 16 bits as RGB.

    The format is compressed_image_transport's, "ORIGINAL; CODEC compressed TARGET", the codec alone, or empty.

    Raises:
        InvalidInputError: None of these, of depth, or damaged.
    """
    original, _, compression = (part.strip().lower() for part in msg.format.partition(";"))
    check_color_encoding(msg.format)
    codec = re.search(r"jpe?g|png|tiff?", compression or original)
    if codec is None and msg.format and not is_known(msg.format):
        raise InvalidInputError(
            f"expected a compressed image whose format says jpeg or png, got '{shown(msg.format)}': have the camera "
            "send those, or image_transport republish it as compressed"
        )
    content = np.frombuffer(msg.data, np.uint8)
    pixels = decode_image_file(content, cv2.IMREAD_UNCHANGED, MAX_MESSAGE_MEGAPIXELS, others=False)
    if pixels is None:
        raise InvalidInputError(
            f"expected a whole '{shown(msg.format)}' image of at most {MAX_MESSAGE_MEGAPIXELS} megapixels, got "
            f"{len(content)} bytes that can't be decoded as JPEG, PNG or TIFF: the frame is skipped"
        )
    channels, bits = pixels.shape[2] if pixels.ndim == 3 else 1, 8 * pixels.itemsize
    if channels not in _FILE_ORDERS or pixels.dtype not in (np.uint8, np.uint16):
        raise InvalidInputError(
            f"expected an image of 1, 3 or 4 channels of 8 or 16 bits, got {channels} of {pixels.dtype}: "
            "subscribe to the colour camera"
        )
    encoding, as_sent = f"{_FILE_ORDERS[channels]}{bits}", f"{original.rstrip('0123456789')}{bits}"
    # image_transport makes colours bgr, but not for TIFF, and keeps a Bayer pattern unless the target is grey.
    keeps_order = codec is not None and "tif" in codec[0]
    if (keeps_order or (original.startswith("bayer_") and "mono" not in compression)) and fits(as_sent, pixels):
        encoding = as_sent
    elif encoding == "mono16" and not is_known(original):
        raise InvalidInputError(
            f"expected a camera's colours, got one channel of 16 bits, as depth has ('{shown(msg.format)}'): "
            "subscribe to the colour camera, or have the format begin with the encoding, such as mono16"
        )
    return image_of_pixels(encoding, pixels)


def image_layout(pixels: np.ndarray) -> dict[str, int]:
    """Return the fields that say how contiguous pixels, (H, W) or (H, W, C), lie in an image message."""
    height, width = pixels.shape[:2]
    return {
        "height": height,
        "width": width,
        "is_bigendian": int(sys.byteorder == "big"),
        "step": pixels.nbytes // height,
    }


def detection_fields(
    detections: DetectionTable, classes: ClassTable
) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Give the fields of each object's PanopticDetection but mask_box, and those of its mask_box, by rising id."""
    for row in np.argsort(detections.ids).tolist():
        class_id = int(detections.class_ids[row])
        x_min, y_min, x_max, y_max = detections.boxes[row].tolist()
        left, top, right, bottom = detections.mask_boxes[row].tolist()
        region = {
            "x_offset": left, "y_offset": top, "width": right - left + 1, "height": bottom - top + 1,
            "do_rectify": False,
        }  # fmt: skip
        yield {
            "instance_id": int(detections.ids[row]), "class_id": int(classes.published[class_id]),
            "class_name": classes.names[class_id], "score": float(detections.scores[row]),
            "x_min": x_min, "y_min": y_min, "x_max": x_max, "y_max": y_max, "area": int(detections.areas[row]),
        }, region  # fmt: skip


def class_names_text(classes: ClassTable) -> str:
    """Return a class table as JSON: {"name": ..., "classes": [{"id", "name", "thing", "color", "dataset_id"}, ...]}.

    Ids are the published ones; where void is not 255, `void` says so.
    """
    return json.dumps(classes.published_document())


def label_space_text(classes: ClassTable) -> str:
    """Return what the categories of the panoptic image mean, as YAML in the form of Hydra's label spaces.

    A category is the published id + 1, or the id itself where void is published as 0; 0, of pixels without a class, is
    the label `unknown`.
    """
    categories = classes.categories[: len(classes)].tolist()
    return yaml.safe_dump(
        {
            "total_semantic_labels": max(categories) + 1,
            "dynamic_labels": [],
            "invalid_labels": [0],
            "object_labels": [categories[thing] for thing in classes.thing_ids],
            "surface_places_labels": [],
            "label_names": [
                {"label": 0, "name": "unknown"},
                *({"label": categories[number], "name": name} for number, name in enumerate(classes.names)),
            ],
        },
        sort_keys=False,
    )
