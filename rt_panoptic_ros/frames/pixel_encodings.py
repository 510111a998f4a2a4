# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The encodings of sensor_msgs (image_encodings.hpp) and of drivers: what they name, and their pixels as RGB.

Colours are cv_bridge's where it knows an encoding: 16 bits are scaled by 255/65535, YUV is BT.601 of limited range.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2
import numpy as np

from rt_panoptic_ros.errors import InvalidInputError
from rt_panoptic_ros.frames.encoded_image import MAX_MESSAGE_MEGAPIXELS
from rt_panoptic_ros.records import CameraImage

if TYPE_CHECKING:
    from rt_panoptic_ros.records import ColorOrder

_NUMBERS = re.compile(r"(8|16|32|64)[usf](c\d*)?")  # OpenCV's types; of them, 8UC1 alone is taken for what it is: grey
_EXAMPLES = "rgb8, bgr8, mono8, bayer_rggb8, yuv422 or nv12"

_TO_RGB = {
    "bgr": cv2.COLOR_BGR2RGB,
    "rgba": cv2.COLOR_RGBA2RGB,
    "bgra": cv2.COLOR_BGRA2RGB,
    "mono": cv2.COLOR_GRAY2RGB,
}


class _Packed(NamedTuple):
    """An encoding whose pixels lie one behind the other."""

    channels: int
    bits: int  # of a channel
    to_rgb: int | None = None  # OpenCV's conversion; None where the channels are colours, or grey
    color_order: ColorOrder = "rgb"  # after that


_ORDERS: dict[ColorOrder, int] = {"rgb": 3, "bgr": 3, "rgba": 4, "bgra": 4, "mono": 1}
_BAYER = {  # OpenCV names a pattern by the second and third pixel of its second row
    "bayer_rggb": cv2.COLOR_BayerBG2RGB,
    "bayer_bggr": cv2.COLOR_BayerRG2RGB,
    "bayer_gbrg": cv2.COLOR_BayerGR2RGB,
    "bayer_grbg": cv2.COLOR_BayerGB2RGB,
}
_PACKED = {
    **{f"{order}{bits}": _Packed(number, bits, None, order) for order, number in _ORDERS.items() for bits in (8, 16)},
    **{f"{pattern}{bits}": _Packed(1, bits, code) for pattern, code in _BAYER.items() for bits in (8, 16)},
    **dict.fromkeys(("uyvy", "yuv422"), _Packed(2, 8, cv2.COLOR_YUV2RGB_UYVY)),
    **dict.fromkeys(("yuyv", "yuv422_yuy2", "yuy2"), _Packed(2, 8, cv2.COLOR_YUV2RGB_YUYV)),
    "8uc1": _Packed(1, 8, None, "mono"),
}
_YUV420 = {
    "nv12": cv2.COLOR_YUV2RGB_NV12,
    "nv21": cv2.COLOR_YUV2RGB_NV21,
    "i420": cv2.COLOR_YUV2RGB_I420,
    "yv12": cv2.COLOR_YUV2RGB_YV12,
}
_KNOWN = {*_PACKED, *_YUV420, "nv24"}


def to_rgb(image: CameraImage) -> np.ndarray:
    """Return the pixels as (H, W, 3) uint8 RGB; those of an RGB image as they are, without a copy."""
    if image.color_order == "rgb":
        return image.pixels
    rgb: np.ndarray = cv2.cvtColor(image.pixels, _TO_RGB[image.color_order])
    return rgb


def is_color_encoding(encoding: str) -> bool:
    """Return whether an image's encoding, or a compressed image's format, may be that of a camera's colours.

    Encodings that name only a number type, such as 16UC1 and 32FC1, are those of depth and the like. With 8UC3 and 8UC4
    nobody knows the order of the colours, but a JPEG and a PNG tell their own.
    """
    name, _, compression = map(_normal, encoding.partition(";"))
    if compression.startswith("compresseddepth"):
        return False
    return (
        name in _PACKED
        or not _NUMBERS.match(name)
        or (name in ("8uc3", "8uc4") and compression.startswith(("jp", "png")))
    )


def check_color_encoding(encoding: str) -> None:
    """Check the same.

    Raises:
        InvalidInputError: It isn't.
    """
    if is_color_encoding(encoding):
        return
    if re.match(r"(16u|32f)(c1)?\b|.*compresseddepth", _normal(encoding)):
        raise InvalidInputError(
            f"expected a camera's colours, got depth ('{shown(encoding)}'): subscribe to the colour camera"
        )
    raise InvalidInputError(
        f"expected an encoding that names its colours such as {_EXAMPLES}, got {shown(encoding)}: "
        "set it in the camera's driver"
    )


def is_known(encoding: str) -> bool:
    """Return whether images of an encoding can be used here."""
    return _normal(encoding) in _KNOWN


def shown(text: str) -> str:
    """Return a text of a message for the user's eyes, whatever it holds."""
    return repr(text[:60])[1:-1]


def image_of_message(encoding: str, data: Any, size: tuple[int, int], step: int, *, bigendian: bool) -> CameraImage:
    """Return the pixels of an image message.

    rgb8, bgr8, mono8 (8UC1), rgba8 and bgra8 are viewed where they lie; others are converted to RGB.

    Args:
        encoding: As the message says.
        data: Any buffer of bytes.
        size: (height, width) in px.
        step: Bytes from row to row; where planes lie one behind the other, of the first.
        bigendian: Of 16 bits, the higher 8 come first.

    Raises:
        InvalidInputError: The encoding is none that can be used, or the message inconsistent.
    """
    if min(size) < 1:
        raise InvalidInputError(f"expected an image of at least 1x1 px, got height {size[0]} and width {size[1]}")
    if size[0] * size[1] > MAX_MESSAGE_MEGAPIXELS * 10**6:
        raise InvalidInputError(
            f"expected an image of at most {MAX_MESSAGE_MEGAPIXELS} megapixels, got height {size[0]} and width "
            f"{size[1]}: have the camera send smaller ones"
        )
    check_color_encoding(encoding)
    name = _normal(encoding)
    if name not in _KNOWN:
        raise InvalidInputError(
            f"expected a camera's colour encoding such as {_EXAMPLES}, got '{shown(encoding)}': "
            "set it in the camera's driver"
        )
    if name not in _PACKED:
        convert = _nv24_to_rgb if name == "nv24" else _yuv420_to_rgb
        return CameraImage(convert(name, np.frombuffer(data, np.uint8), size, step), "rgb")
    packed, (height, width) = _PACKED[name], size
    pixel = packed.channels * packed.bits // 8
    columns = width + width % 2 if packed.channels == 2 else width  # YUV 4:2:2 comes in pairs of pixels
    _check_bytes(len(data), step * height, f"step x height = {step} x {height}")
    _check_step(name, step, columns * pixel, f"{'width' if columns == width else 'even width'} x {pixel}")
    axes = 2 if packed.channels == 1 else 3
    shape, strides = (height, columns, packed.channels)[:axes], (step, pixel, packed.bits // 8)[:axes]
    kind = np.dtype(f"{'>' if bigendian else '<'}u{packed.bits // 8}")
    pixels: np.ndarray = np.ndarray(shape, kind, buffer=data, strides=strides)
    image = image_of_pixels(encoding, pixels if packed.bits == 8 else pixels.astype(np.uint16))
    return image if columns == width else CameraImage(np.ascontiguousarray(image.pixels[:, :width]), image.color_order)


def fits(encoding: str, pixels: np.ndarray) -> bool:
    """Return whether pixels, (H, W) or (H, W, C), can be of an encoding."""
    packed = _PACKED.get(_normal(encoding))
    channels = pixels.shape[2] if pixels.ndim == 3 else 1
    return packed is not None and packed.channels == channels and pixels.dtype == f"uint{packed.bits}"


def image_of_pixels(encoding: str, pixels: np.ndarray) -> CameraImage:
    """Return pixels of an encoding that they fit: of 8 bits and with a colour order as they are, else as RGB."""
    packed = _PACKED[_normal(encoding)]
    if packed.to_rgb is not None:
        pixels = cv2.cvtColor(pixels, packed.to_rgb)
    elif packed.bits == 8:
        return CameraImage(pixels, packed.color_order)
    if packed.bits == 16:
        pixels = cv2.convertScaleAbs(pixels, alpha=255 / 65535)
    return CameraImage(to_rgb(CameraImage(pixels, packed.color_order)), "rgb")


def _yuv420_to_rgb(name: str, data: np.ndarray, size: tuple[int, int], step: int) -> np.ndarray:
    """Return (H, W, 3) of a luma plane with chroma of half as many rows and columns behind it, in one plane or two."""
    height, width = size
    rows, columns = height + height % 2, width + width % 2  # OpenCV takes whole blocks of 2x2
    step = _step_of_luma(len(data), step, size, 3 * width // 2)
    interleaved = name.startswith("nv")
    chroma_step = step if interleaved else (step + 1) // 2
    planes = (1, rows // 2, columns) if interleaved else (2, rows // 2, columns // 2)
    _check_step(name, step, columns if interleaved else width, "even width" if interleaved else "width")
    luma_bytes = step * height
    expected = luma_bytes + planes[0] * planes[1] * chroma_step
    _check_bytes(len(data), expected, f"step x height x 1.5 ({name}: height without the rows of chroma)")
    blocks = np.zeros((rows * 3 // 2, columns), np.uint8)
    blocks[:height, :width] = data[:luma_bytes].reshape(height, step)[:, :width]
    blocks[rows:].reshape(planes)[...] = data[luma_bytes:].reshape(*planes[:2], chroma_step)[..., : planes[2]]
    return np.ascontiguousarray(cv2.cvtColor(blocks, _YUV420[name])[:height, :width])


def _nv24_to_rgb(name: str, data: np.ndarray, size: tuple[int, int], step: int) -> np.ndarray:
    """Return (H, W, 3) of a plane of luma with one of as many pairs of chroma behind it."""
    height, width = size
    step = _step_of_luma(len(data), step, size, 3 * width)
    _check_step(name, step, width, "width")
    luma_bytes = step * height
    _check_bytes(len(data), 3 * luma_bytes, f"step x height x 3 ({name}: height without the rows of chroma)")
    luma = data[:luma_bytes].reshape(height, step)[:, :width]
    chroma = data[luma_bytes:].reshape(height, step, 2)[:, :width]
    # OpenCV has no conversion of it: each pixel becomes two of UYVY, and one of them is taken.
    pairs = np.stack([chroma[..., 0], luma, chroma[..., 1], luma], axis=-1).reshape(height, 2 * width, 2)
    twice = cv2.cvtColor(pairs, cv2.COLOR_YUV2RGB_UYVY).reshape(height, width, 6)
    rgb = np.empty((height, width, 3), np.uint8)
    cv2.mixChannels([twice], [rgb], [0, 0, 1, 1, 2, 2])  # a slice takes five times as long
    return rgb


def _step_of_luma(length: int, step: int, size: tuple[int, int], all_planes: int) -> int:
    """Return the bytes of a luma row, also where `step` counts all planes so that step x height is the data."""
    height, width = size
    return width if step == all_planes and length == step * height else step


def _check_bytes(got: int, expected: int, rule: str) -> None:
    if got != expected:
        raise InvalidInputError(f"expected {rule} = {expected} bytes of image data, got {got}")


def _check_step(name: str, step: int, least: int, rule: str) -> None:
    if step < least:
        raise InvalidInputError(f"expected a step of at least {rule} = {least} bytes for {name}, got {step}")


def _normal(encoding: str) -> str:
    return encoding.strip().lower()
