"""How camera images and results lie in messages, whoever's message classes hold them: rclpy's or those of `rosbags`.

Fields have the same names in both; a message's data is an `array.array` there and an ndarray here.
"""

from __future__ import annotations

import json
import re
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import cv2
import numpy as np

from rt_panoptic_ros.errors import InvalidInputError, UnavailableError
from rt_panoptic_ros.records import CameraImage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rt_panoptic_ros.class_table import ClassTable
    from rt_panoptic_ros.records import ColorOrder, DetectionTable

    Converter = tuple[Callable[["ImageFields"], Any], tuple[type[Exception], ...]]
    """(message to RGB pixels, what that raises for unfit messages)."""

ENCODINGS = {"semantic": "mono8", "instance": "mono16", "confidence": "mono8", "overlay": "rgb8"}
"""sensor_msgs' encoding of each output that is an image."""

_DIRECT: dict[str, tuple[ColorOrder, int]] = {  # encoding: (colour order, bytes per pixel); used as they lie
    "rgb8": ("rgb", 3),
    "bgr8": ("bgr", 3),
    "mono8": ("mono", 1),
    "8UC1": ("mono", 1),
    "rgba8": ("rgba", 4),
    "bgra8": ("bgra", 4),
}
_OPENCV_TYPE = re.compile(r"(8|16|32|64)[USF](C\d*)?")


class ImageFields(Protocol):
    """What is read of a sensor_msgs/Image; its data is any buffer of bytes."""

    height: int
    width: int
    encoding: str
    is_bigendian: int
    step: int
    data: Any


class CompressedImageFields(Protocol):
    """What is read of a sensor_msgs/CompressedImage."""

    format: str
    data: Any


@dataclass(slots=True)
class _Compact:
    """An image without padding, for rosbags-image."""

    height: int
    width: int
    encoding: str
    is_bigendian: int
    step: int
    data: Any


def stamp_ns(header: Any) -> int:
    """Return the stamp of a std_msgs/Header in ns."""
    return int(header.stamp.sec) * 10**9 + int(header.stamp.nanosec)


def is_color_encoding(encoding: str) -> bool:
    """Return whether an image's encoding, or a compressed image's format, may be that of a camera's colours.

    Encodings that name only a number type, such as 16UC1 and 32FC1, are those of depth and the like.
    """
    return encoding in _DIRECT or not _OPENCV_TYPE.match(encoding)


def decode_image(msg: ImageFields, converter: Callable[[], Converter] | None = None) -> CameraImage:
    """Return the pixels of an image message.

    rgb8, bgr8, mono8 (8UC1), rgba8 and bgra8 are viewed where they lie, padded rows included, and must not change
    while the view is used; other colour encodings (Bayer, YUV, 16 bits) are converted to RGB.

    Args:
        msg: The message.
        converter: Gives what converts them, called only where needed; None for rosbags-image.

    Raises:
        InvalidInputError: Empty, inconsistent, or of an encoding that is not a camera's colours.
        UnavailableError: The encoding needs a converter, and there is none.
    """
    height, width, step = msg.height, msg.width, msg.step
    if height < 1 or width < 1:
        raise InvalidInputError(f"expected an image of at least 1x1 px, got height {height} and width {width}")
    if len(msg.data) != step * height:
        raise InvalidInputError(
            f"expected step x height = {step} x {height} = {step * height} bytes of image data, got {len(msg.data)}"
        )
    if msg.encoding not in _DIRECT:
        return CameraImage(_converted(msg, converter or rosbags_converter), "rgb")
    color_order, channels = _DIRECT[msg.encoding]
    if step < width * channels:
        raise InvalidInputError(
            f"expected a step of at least width x {channels} = {width * channels} bytes for {msg.encoding}, got {step}"
        )
    axes = 2 if color_order == "mono" else 3
    shape, strides = (height, width, channels)[:axes], (step, channels, 1)[:axes]
    return CameraImage(np.ndarray(shape, np.uint8, buffer=msg.data, strides=strides), color_order)


def decode_compressed_image(msg: CompressedImageFields) -> CameraImage:
    """Return the pixels of a JPEG or PNG message, decoded.

    Raises:
        InvalidInputError: Neither JPEG nor PNG, not a picture of 8 bits per channel, or damaged.
    """
    if not re.search(r"jpe?g|png", msg.format, re.IGNORECASE):
        raise InvalidInputError(
            f"expected a compressed image whose format says jpeg or png, got '{msg.format}': set the camera's transport"
        )
    content = np.frombuffer(msg.data, np.uint8)
    try:
        pixels = cv2.imdecode(content, cv2.IMREAD_UNCHANGED) if len(content) else None
    except cv2.error:  # a size beyond all bounds
        pixels = None
    if pixels is None:
        raise InvalidInputError(
            f"expected a whole {msg.format} image, got {len(content)} bytes that can't be decoded: the frame is skipped"
        )
    if pixels.dtype != np.uint8:
        raise InvalidInputError(
            f"expected an image of 8 bits per channel, got {8 * pixels.itemsize}: subscribe to the colour camera"
        )
    orders: dict[int, ColorOrder] = {1: "mono", 3: "bgr", 4: "bgra"}
    return CameraImage(pixels, orders[pixels.shape[2] if pixels.ndim == 3 else 1])


def rosbags_converter() -> Converter:
    """Return rosbags-image's converter, the stand-in for cv_bridge.

    Raises:
        UnavailableError: It is not installed.
    """
    try:
        from rosbags.image import message_to_cvimage
        from rosbags.image.image import ImageError, to_cvtype
    except ImportError:
        raise UnavailableError(
            "expected cv_bridge or rosbags-image to convert this image encoding, found neither: "
            "install ros-$ROS_DISTRO-cv-bridge, or `pip install rosbags-image`"
        ) from None

    def convert(msg: ImageFields) -> Any:
        _, _, sample_type, channels = to_cvtype(msg.encoding)
        compact: Any = _without_padding(msg, msg.width * channels * np.dtype(sample_type).itemsize)
        return message_to_cvimage(compact, "rgb8")

    return convert, (ImageError, cv2.error, TypeError, ValueError)


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
    detections: DetectionTable, classes: ClassTable, ids: np.ndarray | None = None
) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Give the fields of each object's PanopticDetection but mask_box, and those of its mask_box, by rising id.

    Args:
        detections: Row i is instance id i + 1, unless `ids` says otherwise.
        classes: Names of the class ids.
        ids: (n,) the objects' values in the instance image.
    """
    order = np.arange(len(detections)) if ids is None else np.argsort(ids)
    numbers = order + 1 if ids is None else ids[order]
    rows = zip(
        numbers.tolist(),
        *(
            values[order].tolist()
            for values in (
                detections.class_ids, detections.scores, detections.boxes, detections.mask_boxes, detections.areas,
            )
        ),
        strict=True,
    )  # fmt: skip
    for instance_id, class_id, score, box, (left, top, right, bottom), area in rows:
        region = {
            "x_offset": left, "y_offset": top, "width": right - left + 1, "height": bottom - top + 1,
            "do_rectify": False,
        }  # fmt: skip
        yield {
            "instance_id": instance_id, "class_id": class_id, "class_name": classes.names[class_id], "score": score,
            "x_min": box[0], "y_min": box[1], "x_max": box[2], "y_max": box[3], "area": area,
        }, region  # fmt: skip


def class_names_text(classes: ClassTable) -> str:
    """Return a class table as JSON: {"name": ..., "classes": [{"id", "name", "thing", "color", "dataset_id"}, ...]}."""
    return json.dumps(classes.to_document())


def _converted(msg: ImageFields, converter: Callable[[], Converter]) -> np.ndarray:
    """Return the RGB pixels, (H, W, 3) uint8, of an encoding that cannot be used as it lies."""
    if _OPENCV_TYPE.fullmatch(msg.encoding):
        raise InvalidInputError(
            f"expected an encoding that names its colours such as rgb8, bgr8, mono8, bayer_rggb8 or yuv422, "
            f"got {msg.encoding}: set it in the camera's driver"
        )
    convert, errors = converter()
    try:
        pixels = convert(msg)
    except errors as error:
        raise InvalidInputError(
            f"expected a camera's colour encoding such as rgb8, bgr8, mono8, bayer_rggb8 or yuv422, "
            f"got '{msg.encoding}' with width {msg.width} and step {msg.step} ({' '.join(str(error).split())[:200]})"
        ) from None
    return np.ascontiguousarray(pixels, dtype=np.uint8)


def _without_padding(msg: ImageFields, row_bytes: int) -> ImageFields:
    """Return the message with rows of `row_bytes`, which is all that rosbags-image reads."""
    if msg.step < row_bytes:
        raise InvalidInputError(f"expected a step of at least {row_bytes} bytes for {msg.encoding}, got {msg.step}")
    if msg.step == row_bytes:
        return msg
    rows = np.ndarray((msg.height, msg.step), np.uint8, buffer=msg.data)[:, :row_bytes]
    data = np.ascontiguousarray(rows)
    return _Compact(msg.height, msg.width, msg.encoding, msg.is_bigendian, row_bytes, data)
