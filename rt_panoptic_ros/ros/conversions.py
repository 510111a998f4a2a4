"""The only module that maps ROS messages to this package's records and back.

An `array.array` is what a message's data can take and give without going through Python integers; anything else that
looks as convenient (a list, an ndarray, `array('B', memoryview)`) takes a thousand times as long.
"""

from __future__ import annotations

import array
import json
import re
import sys
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from sensor_msgs.msg import CompressedImage, Image, RegionOfInterest
from std_msgs.msg import String

from rt_panoptic_ros.errors import InvalidInputError, UnavailableError
from rt_panoptic_ros.msg import PanopticDetection, PanopticDetectionArray
from rt_panoptic_ros.records import CameraImage

if TYPE_CHECKING:
    from collections.abc import Callable

    from std_msgs.msg import Header
    from vision_msgs.msg import Detection2DArray, LabelInfo

    from rt_panoptic_ros.class_table import ClassTable
    from rt_panoptic_ros.records import ColorOrder, DetectionTable

_DIRECT: dict[str, tuple[ColorOrder, int]] = {  # encoding: (colour order, bytes per pixel); used as they lie
    "rgb8": ("rgb", 3),
    "bgr8": ("bgr", 3),
    "mono8": ("mono", 1),
    "8UC1": ("mono", 1),
    "rgba8": ("rgba", 4),
    "bgra8": ("bgra", 4),
}
_OPENCV_TYPE = re.compile(r"(8|16|32|64)[USF](C\d*)?")


def camera_image(msg: Image | CompressedImage) -> CameraImage:
    """Return the pixels of a camera's message of either kind; see the two functions below."""
    return image_from_compressed_msg(msg) if isinstance(msg, CompressedImage) else image_from_msg(msg)


def image_from_msg(msg: Image) -> CameraImage:
    """Return the pixels of an image message.

    rgb8, bgr8, mono8 (8UC1), rgba8 and bgra8 are viewed where they lie, padded rows included, and must not change
    while the view is used; other colour encodings (Bayer, YUV, 16 bits) are converted to RGB.

    Raises:
        InvalidInputError: Empty, inconsistent, or of an encoding that is not a camera's colours.
        UnavailableError: The encoding needs a converter, and neither of the two is installed.
    """
    height, width, step = msg.height, msg.width, msg.step
    if height < 1 or width < 1:
        raise InvalidInputError(f"expected an image of at least 1x1 px, got height {height} and width {width}")
    if len(msg.data) != step * height:
        raise InvalidInputError(
            f"expected step x height = {step} x {height} = {step * height} bytes of image data, got {len(msg.data)}"
        )
    if msg.encoding not in _DIRECT:
        return CameraImage(_converted(msg), "rgb")
    color_order, channels = _DIRECT[msg.encoding]
    if step < width * channels:
        raise InvalidInputError(
            f"expected a step of at least width x {channels} = {width * channels} bytes for {msg.encoding}, got {step}"
        )
    shape, strides = (height, width, channels), (step, channels, 1)
    if color_order == "mono":
        shape, strides = shape[:2], strides[:2]  # type: ignore[assignment]
    return CameraImage(np.ndarray(shape, np.uint8, buffer=msg.data, strides=strides), color_order)


def image_from_compressed_msg(msg: CompressedImage) -> CameraImage:
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


def semantic_to_msg(semantic: np.ndarray, header: Header, reuse: Image | None = None) -> Image:
    """Return class ids, (H, W) uint8, as a mono8 image; `reuse` as in `image_to_msg`."""
    return image_to_msg(semantic, "mono8", header, reuse)


def instance_to_msg(instance: np.ndarray, header: Header, reuse: Image | None = None) -> Image:
    """Return instance ids, (H, W) uint16, as a mono16 image; `reuse` as in `image_to_msg`."""
    return image_to_msg(instance, "mono16", header, reuse)


def confidence_to_msg(confidence: np.ndarray, header: Header, reuse: Image | None = None) -> Image:
    """Return probabilities x 255, (H, W) uint8, as a mono8 image; `reuse` as in `image_to_msg`."""
    return image_to_msg(confidence, "mono8", header, reuse)


def overlay_to_msg(overlay: np.ndarray, header: Header, reuse: Image | None = None) -> Image:
    """Return an RGB picture, (H, W, 3) uint8, as an rgb8 image; `reuse` as in `image_to_msg`."""
    return image_to_msg(overlay, "rgb8", header, reuse)


def image_to_msg(pixels: np.ndarray, encoding: str, header: Header, reuse: Image | None = None) -> Image:
    """Return an image message with a copy of `pixels` and the given header.

    Args:
        pixels: (H, W) or (H, W, C), uint8 or uint16, as the encoding says.
        encoding: One of sensor_msgs' image encodings.
        header: Taken as it is.
        reuse: A message to fill again instead of a new one, once nobody needs its content any more (publishing
            needs it only during the call): its memory need not be fetched from the system again.
    """
    msg = Image() if reuse is None else reuse
    msg.header = header
    msg.height, msg.width = pixels.shape[:2]
    msg.encoding = encoding
    msg.is_bigendian = int(sys.byteorder == "big")
    msg.step = pixels.nbytes // pixels.shape[0]
    source = np.ascontiguousarray(pixels).data.cast("B")
    if len(msg.data) == len(source):
        memoryview(msg.data)[:] = source
    else:
        data = array.array("B")
        data.frombytes(source)
        msg.data = data
    return msg


def detections_to_msg(
    detections: DetectionTable,
    classes: ClassTable,
    image_size: tuple[int, int],
    header: Header,
    ids: np.ndarray | None = None,
) -> PanopticDetectionArray:
    """Return the objects of one frame.

    Args:
        detections: Row i is instance id i + 1, unless `ids` says otherwise.
        classes: Names of the class ids.
        image_size: (height, width) of the camera image, px.
        header: Taken as it is.
        ids: (n,) the objects' values in the instance image; they come by rising id.
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
    messages = []
    for instance_id, class_id, score, box, (left, top, right, bottom), area in rows:
        region = RegionOfInterest(
            x_offset=left, y_offset=top, width=right - left + 1, height=bottom - top + 1, do_rectify=False
        )
        messages.append(
            PanopticDetection(
                instance_id=instance_id, class_id=class_id, class_name=classes.names[class_id], score=score,
                x_min=box[0], y_min=box[1], x_max=box[2], y_max=box[3], mask_box=region, area=area,
            )
        )  # fmt: skip
    return PanopticDetectionArray(header=header, height=image_size[0], width=image_size[1], detections=messages)


def detections_2d_to_msg(array: PanopticDetectionArray) -> Detection2DArray:
    """Return the same objects in vision_msgs' form: visible boxes, class names, and the instance ids as text."""
    from vision_msgs.msg import BoundingBox2D, Detection2D, Detection2DArray, ObjectHypothesisWithPose

    messages = []
    for entry in array.detections:
        region = entry.mask_box
        box = BoundingBox2D(size_x=float(region.width), size_y=float(region.height))
        box.center.position.x = region.x_offset + region.width / 2
        box.center.position.y = region.y_offset + region.height / 2
        hypothesis = ObjectHypothesisWithPose()
        hypothesis.hypothesis.class_id, hypothesis.hypothesis.score = entry.class_name, entry.score
        messages.append(Detection2D(header=array.header, results=[hypothesis], bbox=box, id=str(entry.instance_id)))
    return Detection2DArray(header=array.header, detections=messages)


def label_info_to_msg(classes: ClassTable, threshold: float) -> LabelInfo:
    """Return a class table in vision_msgs' form, with the score from which objects are told of."""
    from vision_msgs.msg import LabelInfo, VisionClass

    class_map = [VisionClass(class_id=number, class_name=name) for number, name in enumerate(classes.names)]
    return LabelInfo(class_map=class_map, threshold=threshold)


def class_names_to_msg(classes: ClassTable) -> String:
    """Return a class table as JSON: {"name": ..., "classes": [{"id", "name", "thing", "color", "dataset_id"}, ...]}."""
    return String(data=json.dumps(classes.to_document()))


def _converted(msg: Image) -> np.ndarray:
    """Return the RGB pixels, (H, W, 3) uint8, of an encoding that cannot be used as it lies."""
    if _OPENCV_TYPE.fullmatch(msg.encoding):
        raise InvalidInputError(
            f"expected an encoding that names its colours such as rgb8, bgr8, mono8, bayer_rggb8 or yuv422, "
            f"got {msg.encoding}: set it in the camera's driver"
        )
    convert, errors = _converter()
    try:
        pixels = convert(msg)
    except errors as error:
        raise InvalidInputError(
            f"expected a camera's colour encoding such as rgb8, bgr8, mono8, bayer_rggb8 or yuv422, "
            f"got '{msg.encoding}' with width {msg.width} and step {msg.step} ({' '.join(str(error).split())[:200]})"
        ) from None
    return np.ascontiguousarray(pixels, dtype=np.uint8)


def _converter() -> tuple[Callable[[Image], Any], tuple[type[Exception], ...]]:
    """Return (message to RGB pixels, what that raises for unfit messages): cv_bridge where there is one."""
    try:
        import cv_bridge
    except ImportError:
        return _rosbags_converter(cv2.error)
    bridge = cv_bridge.CvBridge()
    return (
        lambda msg: bridge.imgmsg_to_cv2(msg, desired_encoding="rgb8"),
        (cv_bridge.CvBridgeError, cv2.error, TypeError, ValueError),
    )


def _rosbags_converter(opencv_error: type[Exception]) -> tuple[Callable[[Image], Any], tuple[type[Exception], ...]]:
    try:
        from rosbags.image import message_to_cvimage
        from rosbags.image.image import ImageError, to_cvtype
    except ImportError:
        raise UnavailableError(
            "expected cv_bridge or rosbags-image to convert this image encoding, found neither: "
            "install ros-$ROS_DISTRO-cv-bridge, or `pip install rosbags-image`"
        ) from None

    def convert(msg: Image) -> Any:
        _, _, sample_type, channels = to_cvtype(msg.encoding)
        return message_to_cvimage(_without_padding(msg, msg.width * channels * np.dtype(sample_type).itemsize), "rgb8")

    return convert, (ImageError, opencv_error, TypeError, ValueError)


def _without_padding(msg: Image, row_bytes: int) -> Image:
    """Return the message with rows of `row_bytes`, which is all that rosbags-image reads."""
    if msg.step < row_bytes:
        raise InvalidInputError(f"expected a step of at least {row_bytes} bytes for {msg.encoding}, got {msg.step}")
    if msg.step == row_bytes:
        return msg
    rows = np.ndarray((msg.height, msg.step), np.uint8, buffer=msg.data)[:, :row_bytes]
    compact = image_to_msg(rows, msg.encoding, msg.header)
    compact.width, compact.is_bigendian = msg.width, msg.is_bigendian
    return compact
