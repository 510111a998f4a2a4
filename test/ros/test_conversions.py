# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Messages to records and back: bit for bit, without copies where promised, and with one sentence for what is unfit."""

from __future__ import annotations

import array
import json
import re
import sys

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from rt_panoptic_ros.errors import InvalidInputError
from rt_panoptic_ros.frames.message_layout import decode_image, decode_message
from rt_panoptic_ros.frames.outputs import OUTPUTS
from rt_panoptic_ros.model.class_table import load_class_table
from rt_panoptic_ros.records import DetectionTable
from rt_panoptic_ros.ros.conversions import class_names_to_msg, detections_to_msg, image_to_msg

DIRECT = {"rgb8": ("rgb", 3), "bgr8": ("bgr", 3), "mono8": ("mono", 1), "rgba8": ("rgba", 4), "bgra8": ("bgra", 4)}
SIZES = st.tuples(st.integers(1, 9), st.integers(1, 9))


def header(sec: int = 7, nanosec: int = 123456789, frame_id: str = "left camera/ü") -> Header:
    message = Header(frame_id=frame_id)
    message.stamp.sec, message.stamp.nanosec = sec, nanosec
    return message


def message(height: int, width: int, encoding: str, step: int, data: bytes) -> Image:
    image = Image(header=header(), height=height, width=width, encoding=encoding, step=step)
    image.data = array.array("B", data)
    return image


@settings(deadline=None)
@given(st.sampled_from(sorted(DIRECT)), SIZES, st.integers(0, 5), st.booleans(), st.randoms(use_true_random=False))
def test_views_what_needs_no_conversion(encoding, size, padding, bigendian, random):
    color_order, channels = DIRECT[encoding]
    height, width = size
    step = width * channels + padding
    data = random.randbytes(step * height)
    msg = message(height, width, encoding, step, data)
    msg.is_bigendian = int(bigendian)

    image = decode_image(msg)

    expected = np.frombuffer(data, np.uint8).reshape(height, step)[:, : width * channels]
    assert image.color_order == color_order
    assert image.pixels.shape == ((height, width) if channels == 1 else (height, width, channels))
    assert np.array_equal(image.pixels.reshape(height, -1), expected)
    assert np.shares_memory(image.pixels, np.frombuffer(msg.data, np.uint8))


@settings(deadline=None)
@given(npst.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3)), elements=st.integers(0, 255)))
def test_rgb_round_trip(pixels):
    assert np.array_equal(decode_image(image_to_msg(pixels, OUTPUTS["overlay"].encoding, header())).pixels, pixels)


@settings(deadline=None)
@given(npst.arrays(np.uint16, SIZES, elements=st.integers(0, 65535)))
def test_instances_keep_every_bit(instance):
    msg = image_to_msg(instance, OUTPUTS["instance"].encoding, header())

    order = ">" if msg.is_bigendian else "<"
    assert msg.encoding == "mono16"
    assert bool(msg.is_bigendian) == (sys.byteorder == "big")
    assert (msg.height, msg.width, msg.step) == (*instance.shape, 2 * instance.shape[1])
    assert np.array_equal(np.frombuffer(msg.data, f"{order}u2").reshape(instance.shape), instance)


def test_semantic_image_and_header():
    semantic = np.arange(12, dtype=np.uint8).reshape(3, 4)
    msg = image_to_msg(semantic[:, ::2], OUTPUTS["semantic"].encoding, header())  # not contiguous

    assert (msg.encoding, msg.height, msg.width, msg.step) == ("mono8", 3, 2, 2)
    assert bytes(msg.data) == semantic[:, ::2].tobytes()
    assert msg.header == header()


def test_reused_messages_keep_their_memory_and_change_size():
    msg = Image()
    first = image_to_msg(np.zeros((4, 6), np.uint8), "mono8", header(), msg)
    memory = first.data
    second = image_to_msg(np.full((6, 4), 9, np.uint8), "mono8", header(sec=8), msg)
    assert second is msg
    assert second.data is memory
    assert (second.height, second.step, set(second.data), second.header.stamp.sec) == (6, 4, {9}, 8)
    third = image_to_msg(np.full((5, 5), 3, np.uint8), "mono8", header(), msg)
    assert len(third.data) == 25


@pytest.mark.parametrize(
    ("msg", "words"),
    [
        (message(0, 4, "rgb8", 12, b""), "height 0 and width 4"),
        (message(4, 0, "rgb8", 0, b""), "height 4 and width 0"),
        (message(2, 2, "rgb8", 6, bytes(11)), "6 x 2 = 12 bytes of image data, got 11"),
        (message(2, 2, "rgb8", 6, bytes(13)), "got 13"),
        (message(2, 2, "rgba8", 6, bytes(12)), "width x 4 = 8 bytes for rgba8, got 6"),
        (message(2, 2, "mono16", 2, bytes(4)), "mono16"),
        (message(2, 2, "", 2, bytes(4)), "''"),
        (message(2, 2, "purple7", 2, bytes(4)), "purple7"),
        (message(2, 2, "8UC3", 6, bytes(12)), "8UC3: set it in the camera's driver"),
        (message(2, 2, "32FC1", 8, bytes(16)), "32FC1"),
    ],
)
def test_refuses_the_unfit_with_one_sentence(msg, words):
    with pytest.raises(InvalidInputError) as caught:
        decode_image(msg)
    assert str(caught.value).startswith("expected ")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@settings(max_examples=200, deadline=None)
@given(
    st.integers(0, 5), st.integers(0, 5), st.integers(0, 20), st.integers(0, 100),
    st.sampled_from(["rgb8", "bgra8", "mono8", "mono16", "bayer_rggb8", "yuv422", "nv12", "32FC1", "jpeg", ""]),
)  # fmt: skip
def test_any_message_gives_an_image_or_a_sentence(height, width, step, length, encoding):
    try:
        image = decode_image(message(height, width, encoding, step, bytes(length)))
    except InvalidInputError as error:
        sentence = str(error)
    else:
        sentence = "expected "
        assert image.pixels.shape[:2] == (height, width)
        assert image.pixels.dtype == np.uint8
    assert sentence.startswith("expected ")


@pytest.mark.parametrize("padding", [0, 3])
def test_converts_bayer_with_opencvs_own_kernel(padding):
    bayer = np.random.default_rng(1).integers(0, 256, (8, 10), dtype=np.uint8)
    rows = np.pad(bayer, ((0, 0), (0, padding)))
    image = decode_image(message(8, 10, "bayer_rggb8", 10 + padding, rows.tobytes()))
    assert image.color_order == "rgb"
    assert np.array_equal(image.pixels, cv2.cvtColor(bayer, cv2.COLOR_BayerBG2RGB))


@pytest.mark.parametrize(
    ("encoding", "code"), [("yuv422", cv2.COLOR_YUV2RGB_UYVY), ("yuv422_yuy2", cv2.COLOR_YUV2RGB_YUYV)]
)
def test_converts_yuv(encoding, code):
    yuv = np.random.default_rng(2).integers(0, 256, (6, 8, 2), dtype=np.uint8)
    image = decode_image(message(6, 8, encoding, 16, yuv.tobytes()))
    assert np.array_equal(image.pixels, cv2.cvtColor(yuv, code))


@pytest.mark.parametrize("bigendian", [False, True])
def test_converts_16_bits_of_either_byte_order(bigendian):
    grey = np.array([[0, 257 * 100], [257 * 200, 65535]], ">u2" if bigendian else "<u2")
    msg = message(2, 2, "mono16", 4, grey.tobytes())
    msg.is_bigendian = int(bigendian)
    pixels = decode_image(msg).pixels
    assert np.allclose(pixels[..., 0], [[0, 100], [200, 255]], atol=1)
    assert np.array_equal(pixels[..., 0], pixels[..., 2])


def test_detections():
    table = DetectionTable(
        class_ids=np.array([8, 9], np.uint8),
        scores=np.array([0.9, 0.5], np.float32),
        boxes=np.array([[1.5, 2, 30.25, 40], [0, 0, 5, 6]], np.float32),
        mask_boxes=np.array([[2, 3, 29, 39], [4, 4, 4, 4]], np.int32),
        areas=np.array([700, 1], np.uint32),
    )
    classes = load_class_table("camvid")
    msg = detections_to_msg(table, classes, (48, 64), header())

    assert (msg.header, msg.height, msg.width) == (header(), 48, 64)
    first, second = msg.detections
    assert (first.instance_id, first.class_id, first.class_name) == (1, 8, "car")
    assert (second.instance_id, second.class_id, second.class_name) == (2, 9, "pedestrian")
    assert (first.x_min, first.y_min, first.x_max, first.y_max) == (1.5, 2, 30.25, 40)
    assert first.score == pytest.approx(0.9)
    box = first.mask_box
    assert (box.x_offset, box.y_offset, box.width, box.height, box.do_rectify) == (2, 3, 28, 37, False)
    assert (second.mask_box.width, second.mask_box.height, second.area) == (1, 1, 1)


def test_class_names_are_plain_json():
    table = load_class_table("camvid")
    document = json.loads(class_names_to_msg(table).data)
    assert [row["name"] for row in document["classes"]] == list(table.names)
    assert document["classes"][8]["thing"] is True


def test_message_sizes_do_not_depend_on_dtype_order():
    assert image_to_msg(
        np.asfortranarray(np.arange(6, dtype=np.uint8).reshape(2, 3)), "mono8", header()
    ).data.tobytes() == bytes(range(6))


def compressed(content: bytes, kind: str = "jpeg") -> CompressedImage:
    return CompressedImage(format=kind, data=array.array("B", content))


@pytest.mark.parametrize(
    ("suffix", "kind", "shape", "order"),
    [
        (".jpg", "jpeg", (48, 64, 3), "bgr"), (".png", "png", (48, 64, 3), "bgr"),
        (".png", "rgb8; png compressed", (48, 64), "mono"), (".jpg", "bgr8; jpeg compressed bgr8", (48, 64), "mono"),
        (".png", "png", (48, 64, 4), "bgra"),
    ],
)  # fmt: skip
def test_decodes_compressed_images(suffix, kind, shape, order):
    ramp = np.add.outer(np.arange(48, dtype=np.uint8), np.arange(64, dtype=np.uint8))
    pixels = ramp if len(shape) == 2 else np.stack([ramp, 255 - ramp, ramp // 2, ramp][: shape[2]], axis=-1)
    image = decode_message(compressed(cv2.imencode(suffix, pixels)[1].tobytes(), kind))
    assert image.color_order == order
    assert image.pixels.shape == shape
    assert np.abs(image.pixels.astype(int) - pixels).max() <= (0 if suffix == ".png" else 12)


JPEG = cv2.imencode(".jpg", np.zeros((48, 64, 3), np.uint8))[1].tobytes()
DEPTH = cv2.imencode(".png", np.zeros((48, 64), np.uint16))[1].tobytes()


@pytest.mark.parametrize(
    ("msg", "words"),
    [
        (compressed(b""), "got 0 bytes"),
        (compressed(JPEG[:100]), "got 100 bytes that can't be decoded"),
        (compressed(b"garbage" * 50), "can't be decoded"),
        (compressed(JPEG, "h264"), "format says jpeg or png, got 'h264'"),
        (
            compressed(DEPTH, "16UC1; png compressed"),
            "got depth ('16UC1; png compressed'): subscribe to the colour camera",
        ),
    ],
)
def test_refuses_broken_compressed_images_with_one_sentence(msg, words):
    with pytest.raises(InvalidInputError, match=re.escape(words)):
        decode_message(msg)
