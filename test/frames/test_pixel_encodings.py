# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Image messages of every encoding: the right colours at the right places, or one sentence that names the encoding."""

from __future__ import annotations

import array
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rt_panoptic_ros.errors import InvalidInputError
from rt_panoptic_ros.frames.message_layout import decode_image
from rt_panoptic_ros.frames.pixel_encodings import is_color_encoding, to_rgb
from rt_panoptic_ros.inference.input_image import check_image

DIRECT = {"rgb8": [0, 1, 2], "bgr8": [2, 1, 0], "rgba8": [0, 1, 2, 0], "bgra8": [2, 1, 0, 0]}
DEEP = {name.replace("8", "16"): order for name, order in DIRECT.items()}
BAYER = {f"bayer_{pattern}{bits}": (pattern, bits) for pattern in ("rggb", "bggr", "gbrg", "grbg") for bits in (8, 16)}
PACKED_YUV = {"uyvy": "uyvy", "yuv422": "uyvy", "yuyv": "yuyv", "yuv422_yuy2": "yuyv", "yuy2": "yuyv"}
PLANAR_YUV = ("nv12", "nv21", "nv24", "i420", "yv12")
COLORS = (*DIRECT, *DEEP, *BAYER, *PACKED_YUV, *PLANAR_YUV)
GREY = ("mono8", "mono16", "8UC1")
NUMBERS = tuple(
    f"{kind}C{channels}" for kind in ("8U", "8S", "16U", "16S", "32S", "32F", "64F") for channels in range(1, 5)
)


@dataclass
class Message:
    """What is read of a sensor_msgs/Image."""

    height: int
    width: int
    encoding: str
    step: int
    data: bytes | array.array[int] | np.ndarray
    is_bigendian: int = 0


def scene(height: int, width: int) -> np.ndarray:
    """Return a smooth picture, (H, W, 3) uint8 RGB, whose channels and corners all differ."""
    y, x = np.mgrid[:height, :width] / max(height, width)
    return np.stack([40 + 160 * x, 200 - 120 * y, 60 + 60 * x + 80 * y], axis=-1).round().astype(np.uint8)


def luma_and_chroma(rgb: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return Y, U and V, (H, W) each, by BT.601 with limited range."""
    red, green, blue = (rgb[..., i] / 255 for i in range(3))
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    planes = 16 + 219 * luma, 128 + 224 * (blue - luma) / 1.772, 128 + 224 * (red - luma) / 1.402
    first, second, third = (plane.round().astype(np.uint8) for plane in planes)
    return first, second, third


def halved(plane: np.ndarray, axes: int) -> np.ndarray:
    """Return every second column, of every second row with 2 axes; those at an odd edge stay."""
    return plane[::2, ::2] if axes == 2 else plane[:, ::2]


def padded(rows: np.ndarray, step: int) -> bytes:
    """Return rows of bytes, `step` bytes each."""
    return np.pad(rows, ((0, 0), (0, step - rows.shape[1])), constant_values=77).tobytes()


def message(encoding: str, rgb: np.ndarray, padding: int = 0, *, bigendian: bool = False) -> Message:
    """Return a picture as a driver would send it."""
    height, width = rgb.shape[:2]
    kind = ">u2" if bigendian else "<u2"
    if encoding in BAYER:
        pattern, bits = BAYER[encoding]
        channels = np.array(["rgb".index(letter) for letter in pattern]).reshape(2, 2)
        y, x = np.mgrid[:height, :width]
        pixels = np.take_along_axis(rgb, channels[y % 2, x % 2][..., None], axis=2)
    elif encoding in DIRECT | DEEP:
        pixels, bits = rgb[..., (DIRECT | DEEP)[encoding]], 16 if encoding in DEEP else 8
    elif encoding in GREY:
        pixels, bits = rgb[..., 1], 16 if encoding == "mono16" else 8
    else:
        return yuv_message(encoding, rgb, padding)
    samples = pixels if bits == 8 else (pixels.astype(np.uint16) * 257).astype(kind)
    rows = np.ascontiguousarray(samples).reshape(height, -1).view(np.uint8)
    step = rows.shape[1] + padding
    return Message(height, width, encoding, step, padded(rows, step), int(bigendian))


def yuv_message(encoding: str, rgb: np.ndarray, padding: int) -> Message:
    height, width = rgb.shape[:2]
    y, u, v = luma_and_chroma(rgb)
    if encoding in PACKED_YUV:
        even = width + width % 2
        y = np.pad(y, ((0, 0), (0, even - width)))
        u, v = halved(u, 1), halved(v, 1)
        parts = {"uyvy": (u, y[:, ::2], v, y[:, 1::2]), "yuyv": (y[:, ::2], u, y[:, 1::2], v)}[PACKED_YUV[encoding]]
        rows = np.stack(parts, axis=-1).reshape(height, -1)
        step = rows.shape[1] + padding
        return Message(height, width, encoding, step, padded(rows, step))
    if encoding == "nv24":
        step = width + padding
        pairs = np.stack([u, v], axis=-1).reshape(height, -1)
        return Message(height, width, encoding, step, padded(y, step) + padded(pairs, 2 * step))
    u, v = halved(u, 2), halved(v, 2)
    if encoding in ("nv12", "nv21"):
        step = width + width % 2 + padding
        pairs = np.stack([u, v] if encoding == "nv12" else [v, u], axis=-1).reshape(u.shape[0], -1)
        return Message(height, width, encoding, step, padded(y, step) + padded(pairs, step))
    step = width + padding
    first, second = (u, v) if encoding == "i420" else (v, u)
    chroma_step = (step + 1) // 2
    return Message(
        height, width, encoding, step, padded(y, step) + padded(first, chroma_step) + padded(second, chroma_step)
    )


@pytest.mark.parametrize("padding", [0, 6])
@pytest.mark.parametrize("size", [(48, 64), (47, 63), (6, 64)])
@pytest.mark.parametrize("encoding", COLORS)
def test_every_colour_comes_out_where_it_was(encoding: str, size: tuple[int, int], padding: int) -> None:
    rgb = scene(*size)
    image = decode_image(message(encoding, rgb, padding))
    check_image(image)
    assert image.pixels.shape[:2] == size
    difference = np.abs(to_rgb(image).astype(int) - rgb)
    edge = 2 if encoding in BAYER else 0  # OpenCV repeats the pattern's edge
    limit = 0 if encoding in DIRECT | DEEP else 2 if encoding in (*BAYER, "nv24") else 6
    assert difference[edge : size[0] - edge, edge : size[1] - edge].max() <= limit
    assert is_color_encoding(encoding)


@pytest.mark.parametrize("bigendian", [False, True])
@pytest.mark.parametrize("encoding", [*DEEP, "mono16", *(name for name, (_, bits) in BAYER.items() if bits == 16)])
def test_both_byte_orders(encoding: str, bigendian: bool) -> None:
    rgb = scene(16, 12)
    image = decode_image(message(encoding, rgb, 2, bigendian=bigendian))
    expected = decode_image(message(encoding.replace("16", "8"), rgb))
    np.testing.assert_array_equal(to_rgb(image), to_rgb(expected))


def test_sixteen_bits_are_scaled_as_cv_bridge_scales_them() -> None:
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    pixels = decode_image(Message(256, 256, "mono16", 512, values.astype("<u2").tobytes())).pixels
    np.testing.assert_array_equal(pixels[..., 0], np.rint(values / 257))  # convertTo(CV_8U, 255. / 65535.)


@pytest.mark.parametrize(
    ("encoding", "code"),
    [
        ("bayer_rggb8", cv2.COLOR_BayerBG2RGB), ("bayer_bggr8", cv2.COLOR_BayerRG2RGB),
        ("bayer_gbrg8", cv2.COLOR_BayerGR2RGB), ("bayer_grbg8", cv2.COLOR_BayerGB2RGB),
        ("yuv422", cv2.COLOR_YUV2RGB_UYVY), ("yuv422_yuy2", cv2.COLOR_YUV2RGB_YUY2),
        ("nv12", cv2.COLOR_YUV2RGB_NV12), ("nv21", cv2.COLOR_YUV2RGB_NV21), ("i420", cv2.COLOR_YUV2RGB_I420),
    ],
)  # fmt: skip
def test_bit_for_bit_what_cv_bridge_and_opencv_make_of_noise(encoding: str, code: int) -> None:
    random = np.random.default_rng(3)
    shape = {"b": (12, 18), "y": (12, 18, 2), "n": (18, 18), "i": (18, 18)}[encoding[0]]
    stored = random.integers(0, 256, shape, dtype=np.uint8)
    step = 36 if encoding.startswith("yuv") else 18
    image = decode_image(Message(12, 18, encoding, step, stored.tobytes()))
    assert image.color_order == "rgb"
    np.testing.assert_array_equal(image.pixels, cv2.cvtColor(stored, code))


def test_nv24_is_nv12_where_chroma_is_the_same_in_blocks() -> None:
    random = np.random.default_rng(4)
    luma = random.integers(0, 256, (8, 10), dtype=np.uint8)
    chroma = random.integers(0, 256, (4, 5, 2), dtype=np.uint8)
    halved_image = decode_image(Message(8, 10, "nv12", 10, luma.tobytes() + chroma.tobytes()))
    full = chroma.repeat(2, axis=0).repeat(2, axis=1)
    image = decode_image(Message(8, 10, "nv24", 10, luma.tobytes() + full.tobytes()))
    np.testing.assert_array_equal(image.pixels, halved_image.pixels)


@pytest.mark.parametrize(("encoding", "planes"), [("nv12", 1.5), ("nv21", 1.5), ("i420", 1.5), ("nv24", 3)])
def test_a_step_that_counts_all_planes(encoding: str, planes: float) -> None:
    """Step x height is then the size of the data, as the message's definition has it."""
    sent = message(encoding, scene(8, 12))
    expected = decode_image(sent).pixels
    sent.step = int(12 * planes)
    assert len(sent.data) == sent.step * sent.height
    np.testing.assert_array_equal(decode_image(sent).pixels, expected)


@pytest.mark.parametrize("encoding", ["NV12", "I420", " rgb8", "YUYV"])
def test_names_as_some_drivers_write_them(encoding: str) -> None:
    sent = message(encoding.strip().lower(), scene(8, 12))
    expected = decode_image(sent).pixels
    sent.encoding = encoding
    np.testing.assert_array_equal(decode_image(sent).pixels, expected)


@pytest.mark.parametrize("encoding", [*COLORS, *GREY])
@pytest.mark.parametrize(
    "make", [bytes, lambda data: array.array("B", data), lambda data: np.frombuffer(data, np.uint8)]
)
def test_any_buffer_serves(encoding: str, make: type) -> None:
    sent = message(encoding, scene(6, 8))
    expected = decode_image(sent).pixels
    sent.data = make(sent.data)
    pixels = decode_image(sent).pixels
    np.testing.assert_array_equal(pixels, expected)
    shares = np.shares_memory(pixels, np.frombuffer(sent.data, np.uint8))
    assert shares == (encoding in (*DIRECT, "mono8", "8UC1"))  # those are never copied


def names_of_sensor_msgs() -> list[str]:
    """Return the names in image_encodings.hpp of the ROS that is installed here."""
    headers = sorted(Path(sys.prefix).glob("include/sensor_msgs/**/image_encodings.hpp"))
    return re.findall(r'^const char \w+\[\] = "(\w+)";', headers[0].read_text(), re.MULTILINE) if headers else []


@pytest.mark.parametrize("encoding", sorted({*COLORS, *GREY, *NUMBERS, *names_of_sensor_msgs()}))
def test_every_name_of_sensor_msgs_is_labelled_or_refused_by_name(encoding: str) -> None:
    if encoding in (*COLORS, *GREY):
        assert decode_image(message(encoding, scene(6, 8))).pixels.shape[:2] == (6, 8)
        assert is_color_encoding(encoding)
        return
    assert encoding in NUMBERS
    assert not is_color_encoding(encoding)
    remedy = "subscribe to the colour camera" if encoding in ("16UC1", "32FC1") else "set it in the camera's driver"
    with pytest.raises(InvalidInputError, match=rf"^expected .*got .*{encoding}.*: {remedy}$"):
        decode_image(Message(6, 8, encoding, 8 * 32, bytes(6 * 8 * 32)))


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        (Message(4, 6, "nv12", 6, bytes(24)), "height without the rows of chroma) = 36 bytes of image data, got 24"),
        (Message(6, 6, "nv12", 6, bytes(36)), "= 54 bytes of image data, got 36"),  # height counts the chroma
        (Message(4, 6, "nv12", 6, bytes(37)), "= 36 bytes of image data, got 37"),
        (Message(4, 6, "nv12", 5, bytes(30)), "a step of at least even width = 6 bytes for nv12, got 5"),
        (Message(4, 5, "nv12", 5, bytes(30)), "a step of at least even width = 6 bytes for nv12, got 5"),
        (Message(4, 6, "nv24", 6, bytes(71)), "height without the rows of chroma) = 72 bytes of image data, got 71"),
        (Message(4, 6, "i420", 0, b""), "a step of at least width = 6 bytes for i420, got 0"),
        (Message(2, 3, "yuyv", 6, bytes(12)), "a step of at least even width x 2 = 8 bytes for yuyv, got 6"),
        (Message(2, 3, "rgb16", 17, bytes(34)), "a step of at least width x 6 = 18 bytes for rgb16, got 17"),
        (Message(5000, 5000, "bgr8", 15000, bytes(64)), "= 75000000 bytes of image data, got 64"),
        (Message(2**32 - 1, 2**32 - 1, "rgb8", 2**32 - 1, bytes(8)), "64 megapixels"),
        (Message(2**32 - 1, 2**32 - 1, "i420", 2**32 - 1, bytes(8)), "64 megapixels"),
        (Message(2, 2, "yuv420", 2, bytes(6)), "got 'yuv420': set it in the camera's driver"),
        (Message(2, 2, "rgb8\n\x1b[31m" + "x" * 9999, 6, bytes(12)), r"got 'rgb8\n\x1b[31mxxxx"),
    ],
)  # fmt: skip
def test_the_inconsistent_is_refused_in_one_short_sentence(sent: Message, words: str) -> None:
    with pytest.raises(InvalidInputError, match=re.escape(words)) as caught:
        decode_image(sent)
    assert len(str(caught.value)) < 250
    assert str(caught.value).isprintable()


SIZES = st.one_of(st.integers(0, 9), st.sampled_from([2**16, 2**31 - 1, 2**32 - 1]))


@settings(max_examples=200, deadline=None)
@given(
    height=SIZES, width=SIZES, data=st.data(), bigendian=st.integers(0, 255),
    encoding=st.one_of(st.sampled_from([*COLORS, *GREY, *NUMBERS, "nv16", "jpeg"]), st.text(max_size=20)),
)  # fmt: skip
def test_any_message_gives_its_size_or_one_sentence(
    height: int, width: int, encoding: str, bigendian: int, data: st.DataObject
) -> None:
    step = data.draw(
        st.one_of(SIZES, st.integers(width, width + 3), st.integers(1, 9).map(lambda n: n * width)), "step"
    )
    fitting = st.sampled_from([1.0, 1.5, 3.0]).map(lambda planes: int(step * height * planes))
    length = data.draw(st.one_of(fitting, st.integers(0, 500)).filter(lambda length: length < 10**5), "length")
    try:
        image = decode_image(Message(height, width, encoding, step, bytes(length), bigendian))
    except InvalidInputError as error:
        sentence = str(error)
    else:
        sentence = "expected "
        check_image(image)
        assert image.pixels.shape[:2] == (height, width)
        assert is_color_encoding(encoding)
    assert sentence.startswith("expected ")
    assert sentence.isprintable()
