# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Compressed images: whole ones of every format that image_transport writes, and nothing of those cut off."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rt_panoptic_ros.errors import InvalidInputError
from rt_panoptic_ros.frames.encoded_image import MAX_MESSAGE_MEGAPIXELS, decode_image_file
from rt_panoptic_ros.frames.message_layout import decode_compressed_image
from rt_panoptic_ros.frames.pixel_encodings import image_of_message, is_color_encoding, to_rgb
from rt_panoptic_ros.inference.input_image import check_image
from rt_panoptic_ros.settings import MAX_SIZE_MEGAPIXELS

HEIGHT, WIDTH = 48, 64
EOI = b"\xff\xd9"


@dataclass
class Message:
    """What is read of a sensor_msgs/CompressedImage."""

    format: str
    data: bytes


def scene() -> np.ndarray:
    """Return a smooth picture, (H, W, 3) uint8 RGB, whose channels and corners all differ."""
    y, x = np.mgrid[:HEIGHT, :WIDTH] / WIDTH
    return np.stack([40 + 160 * x, 200 - 120 * y, 60 + 60 * x + 80 * y], axis=-1).round().astype(np.uint8)


def noise() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)


def encoded(suffix: str, pixels: np.ndarray, *options: int) -> bytes:
    """Return pixels as a file; OpenCV takes their channels for blue, green and red."""
    return cv2.imencode(suffix, np.ascontiguousarray(pixels), options)[1].tobytes()


def mosaic(pattern: str) -> np.ndarray:
    channels = np.array(["rgb".index(letter) for letter in pattern]).reshape(2, 2)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return np.take_along_axis(scene(), channels[y % 2, x % 2][..., None], axis=2)[..., 0]


def deep(pixels: np.ndarray) -> np.ndarray:
    return pixels.astype(np.uint16) * 257


BEST = (cv2.IMWRITE_JPEG_QUALITY, 100)
RGB, BGR = scene(), scene()[..., ::-1]
GREY = RGB[..., 1]
ALPHA = np.dstack([BGR, GREY])


@pytest.mark.parametrize(
    ("kind", "content", "grey"),
    [
        # compressed_image_transport: colours become bgr, but not for TIFF
        *((f"{name}8; jpeg compressed bgr8", encoded(".jpg", BGR), False) for name in ("rgb", "bgr", "rgba", "bgra")),
        ("rgb16; jpeg compressed bgr8", encoded(".jpg", BGR), False),
        ("yuv422; jpeg compressed bgr8", encoded(".jpg", BGR), False),
        ("mono8; jpeg compressed mono8", encoded(".jpg", GREY), True),
        ("mono16; jpeg compressed mono8", encoded(".jpg", GREY), True),
        ("8UC1; jpeg compressed mono8", encoded(".jpg", GREY), True),
        ("mono8; jpeg compressed ", encoded(".jpg", GREY), True),
        *((f"{name}8; png compressed bgr8", encoded(".png", BGR), False) for name in ("rgb", "bgr", "rgba", "bgra")),
        *((f"{name}16; png compressed bgr16", encoded(".png", deep(BGR)), False) for name in ("rgb", "bgr", "rgba")),
        ("yuv422_yuy2; png compressed bgr8", encoded(".png", BGR), False),
        ("mono8; png compressed ", encoded(".png", GREY), True),
        ("mono16; png compressed ", encoded(".png", deep(GREY)), True),
        ("8UC1; png compressed ", encoded(".png", GREY), True),
        ("8UC3; jpeg compressed ", encoded(".jpg", BGR), False),
        ("8UC4; png compressed ", encoded(".png", ALPHA), False),
        ("rgb8; tiff compressed ", encoded(".tiff", RGB), False),
        ("bgr8; tiff compressed ", encoded(".tiff", BGR), False),
        ("rgb16; tiff compressed ", encoded(".tiff", deep(RGB)), False),
        ("bgra8; tiff compressed ", encoded(".tiff", ALPHA), False),
        ("rgba8; tiff compressed ", encoded(".tiff", ALPHA[..., [2, 1, 0, 3]]), False),
        ("mono8; tiff compressed ", encoded(".tiff", GREY), True),
        ("mono16; tiff compressed ", encoded(".tiff", deep(GREY)), True),
        # Bayer patterns: kept in PNG and TIFF; in JPEG grey, or kept where jpeg_compress_bayer is set (and in ROS 1)
        *(
            (f"bayer_{pattern}{suffix}", content, False)
            for pattern in ("rggb", "bggr", "gbrg", "grbg")
            for suffix, content in (
                ("8; png compressed ", encoded(".png", mosaic(pattern))),
                ("16; png compressed ", encoded(".png", deep(mosaic(pattern)))),
                ("8; tiff compressed ", encoded(".tiff", mosaic(pattern))),
                ("8; jpeg compressed ", encoded(".jpg", mosaic(pattern), *BEST)),
                (f"8; jpeg compressed bayer_{pattern}8", encoded(".jpg", mosaic(pattern), *BEST)),
            )
        ),
        ("bayer_rggb8; jpeg compressed mono8", encoded(".jpg", GREY), True),
        ("bayer_rggb16; jpeg compressed mono8", encoded(".jpg", GREY), True),
        ("bayer_rggb8; jpeg compressed bgr8", encoded(".jpg", BGR), False),
        # cv_bridge, drivers, and what the message's definition allows
        *((kind, encoded(".jpg", BGR), False) for kind in ("jpeg", "jpg", "JPEG", "", "bgr8", "rgb8;jpeg compressed")),
        ("rgb8; jpeg compressed rgb8", encoded(".jpg", BGR), False),
        ("jpeg", encoded(".jpg", GREY), True),
        ("image/png", encoded(".png", BGR), False),
        ("png", encoded(".png", ALPHA), False),
        ("png", encoded(".png", deep(BGR)), False),
        ("mono16; png", encoded(".png", deep(GREY)), True),
        ("tiff", encoded(".tiff", BGR), False),
    ],
)  # fmt: skip
def test_every_format_in_its_right_colours(kind: str, content: bytes, grey: bool) -> None:
    image = decode_compressed_image(Message(kind, content))
    check_image(image)
    expected = np.dstack([GREY] * 3) if grey else RGB
    difference = np.abs(to_rgb(image).astype(int) - expected)
    lossy = "jp" in kind.lower() or content[:2] == b"\xff\xd8"
    if kind.startswith("bayer") and not grey:
        difference = difference[2:-2, 2:-2]
    assert difference.max() <= (10 if lossy else 2 if kind.startswith("bayer") else 0)
    assert is_color_encoding(kind)


FLOAT = encoded(".tiff", np.zeros((8, 8), np.float32))
DEPTH_HEADER = struct.pack("<iff", 0, 1.0, 2.0)  # of compressed_depth_image_transport


@pytest.mark.parametrize(
    ("kind", "content", "words"),
    [
        *(
            (kind, DEPTH_HEADER + encoded(".png", deep(GREY)), f"got depth ('{kind}')")
            for name in ("16UC1", "32FC1", "mono16")
            for kind in (f"{name}; compressedDepth", f"{name}; compressedDepth png", f"{name}; compressedDepth rvl")
        ),
        ("16UC1; png compressed ", encoded(".png", deep(GREY)), "got depth ('16UC1; png compressed ')"),
        ("16UC1; jpeg compressed mono8", encoded(".jpg", GREY), "got depth ('16UC1; jpeg compressed mono8')"),
        ("32FC1; tiff compressed ", FLOAT, "got depth ('32FC1; tiff compressed ')"),
        ("8UC3; tiff compressed ", encoded(".tiff", RGB), "got 8UC3; tiff compressed : set it in the camera's driver"),
        ("8SC3; png compressed ", encoded(".png", BGR), "got 8SC3; png compressed : set it in the camera's driver"),
        ("png", encoded(".png", deep(GREY)), "got one channel of 16 bits, as depth has ('png')"),
        ("tiff", FLOAT, "got 1 of float32"),
        ("h264", b"\0\0\0\1", "format says jpeg or png, got 'h264'"),
        *((kind, encoded(".jpg", BGR), f"got '{kind}'") for kind in ("zstd", "avif", "webp", "hevc", "theora", "av1")),
        ("nv12", bytes(24), "'nv12' image of at most 64 megapixels, got 24 bytes that can't be decoded"),
        ("", bytes(9), "got 9 bytes that can't be decoded"),
        ("jpeg", b"", "got 0 bytes that can't be decoded"),
        ("h264\n" * 999, b"", r"got 'h264\nh264\n"),
    ],
)  # fmt: skip
def test_what_is_no_cameras_is_refused_by_name(kind: str, content: bytes, words: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        decode_compressed_image(Message(kind, content))
    assert words in str(caught.value)
    assert str(caught.value).isprintable()
    named_depth = "got depth" in words or "set it in" in words
    assert is_color_encoding(kind) == (not named_depth)


BASELINE = encoded(".jpg", noise())


def with_exif(content: bytes, inside: bytes) -> bytes:
    """Return a JPEG with something inside its EXIF."""
    exif = b"Exif\0\0" + inside
    return content[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + content[2:]


def claiming(height: int, width: int) -> bytes:
    """Return a JPEG whose header claims a size of its own."""
    place = BASELINE.index(b"\xff\xc0") + 5
    return BASELINE[:place] + struct.pack(">HH", height, width) + BASELINE[place + 4 :]


def without_huffman_tables(content: bytes) -> bytes:
    """Return a JPEG as cameras send it as motion JPEG: the standard tables are not told."""
    while (place := content.find(b"\xff\xc4")) > 0:
        content = content[:place] + content[place + 2 + int.from_bytes(content[place + 2 : place + 4], "big") :]
    return content


JPEGS = {
    "baseline": BASELINE,
    "grey": encoded(".jpg", noise()[..., 0]),
    "progressive": encoded(".jpg", noise(), cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
    "restarts": encoded(".jpg", noise(), cv2.IMWRITE_JPEG_RST_INTERVAL, 1),
    "optimised": encoded(".jpg", noise(), cv2.IMWRITE_JPEG_OPTIMIZE, 1),
    "thumbnail": with_exif(BASELINE, encoded(".jpg", noise()[:8, :8])),
    "motion": without_huffman_tables(BASELINE),
    "padded": BASELINE + bytes(1000),
    "filled": BASELINE[:2] + b"\xff\xff" + BASELINE[2:],
}


@pytest.mark.parametrize("name", JPEGS)
def test_a_cut_jpeg_is_refused_whatever_opencv_makes_of_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    content = JPEGS[name]
    assert decode_compressed_image(Message("jpeg", content)).pixels.shape[:2] == (HEIGHT, WIDTH)
    end = content.rindex(EOI)
    # As 4.5 to 4.10 do: the rest is grey.
    monkeypatch.setattr(cv2, "imdecode", lambda *_: np.full((HEIGHT, WIDTH, 3), 128, np.uint8))
    for size in (*range(2, end, 7), end, end + 1):
        with pytest.raises(InvalidInputError, match=f"got {size} bytes that can't be decoded"):
            decode_compressed_image(Message("jpeg", content[:size]))
    with pytest.raises(InvalidInputError, match="can't be decoded"):  # the next picture follows
        decode_compressed_image(Message("jpeg", content[: end - 40] + content))


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, rows: bytes, *, share: float = 1, crc: int = 0) -> bytes:
    """Return a PNG of 8-bit RGB whose compressed rows end early, or whose last checksum is off by `crc`."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    packed = zlib.compress(rows)
    data = bytearray(chunk(b"IDAT", packed[: int(len(packed) * share)]))
    data[-1] ^= crc
    return b"\x89PNG\r\n\x1a\n" + header + bytes(data) + chunk(b"IEND", b"")


ROWS = b"".join(b"\0" + row.tobytes() for row in noise())


def test_a_cut_or_damaged_png_is_refused() -> None:
    whole = png(WIDTH, HEIGHT, ROWS)
    assert np.array_equal(to_rgb(decode_compressed_image(Message("png", whole))), noise())
    damaged = [whole[:size] for size in range(1, len(whole) - 12, 53)]
    damaged += [png(WIDTH, HEIGHT, ROWS, share=0.5), png(WIDTH, HEIGHT, ROWS, crc=1), png(WIDTH, HEIGHT, ROWS[:-200])]
    for content in damaged:
        with pytest.raises(InvalidInputError, match="can't be decoded"):
            decode_compressed_image(Message("png", content))


@pytest.mark.parametrize("size", [(60000, 60000), (30000, 30000), (2**32 - 1, 2**32 - 1)])
def test_a_claimed_size_beyond_all_cameras_takes_no_memory(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def decode(*_: object) -> None:
        raise AssertionError("memory for it was asked for")

    monkeypatch.setattr(cv2, "imdecode", decode)
    with pytest.raises(InvalidInputError, match="of at most 64 megapixels"):
        decode_compressed_image(Message("png", png(*size, ROWS)))
    if max(size) < 2**16:
        with pytest.raises(InvalidInputError, match="of at most 64 megapixels"):
            decode_compressed_image(Message("jpeg", claiming(*size)))


def test_a_jpeg_with_fewer_bits_than_blocks_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="can't be decoded"):
        decode_compressed_image(Message("jpeg", claiming(10000, 10000)))
    for options in ((), (cv2.IMWRITE_JPEG_OPTIMIZE, 1), (cv2.IMWRITE_JPEG_PROGRESSIVE, 1, cv2.IMWRITE_JPEG_QUALITY, 1)):
        black = encoded(".jpg", np.zeros((3000, 4000), np.uint8), *options)
        assert decode_compressed_image(Message("jpeg", black)).pixels.shape == (3000, 4000)


def test_a_cameras_pixels_are_not_turned_by_what_exif_says() -> None:
    turned = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"  # orientation 6
    content = with_exif(BASELINE, turned)
    assert cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR).shape == (WIDTH, HEIGHT, 3)
    assert decode_compressed_image(Message("jpeg", content)).pixels.shape == (HEIGHT, WIDTH, 3)


@settings(max_examples=150, deadline=None)
@given(
    kind=st.one_of(
        st.sampled_from(["jpeg", "png", "", "rgb8; jpeg compressed bgr8", "bayer_rggb8; png compressed ", "tiff",
                         "16UC1; compressedDepth png", "mono16; png compressed ", "rgb8; tiff compressed "]),
        st.text(max_size=30),
    ),
    content=st.sampled_from([*JPEGS.values(), png(WIDTH, HEIGHT, ROWS), encoded(".png", deep(GREY)),
                             encoded(".tiff", RGB), encoded(".tiff", deep(GREY)), encoded(".bmp", BGR), FLOAT, b""]),
    cut=st.floats(0, 1),
    garble=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), max_size=3),
)  # fmt: skip
def test_any_message_gives_pixels_or_one_sentence(
    kind: str, content: bytes, cut: float, garble: list[tuple[float, int]]
) -> None:
    data = bytearray(content[: round(len(content) * cut)])
    for place, value in garble if data else ():
        # Not in the header, where a size may be claimed whose memory this machine lacks.
        data[max(int(len(data) * place), min(700, len(data) - 1))] = value
    try:
        image = decode_compressed_image(Message(kind, bytes(data)))
    except InvalidInputError as error:
        sentence = str(error)
    else:
        sentence = "expected "
        check_image(image)
        assert is_color_encoding(kind)
    assert sentence.startswith("expected ")
    assert sentence.isprintable()


def test_files_and_messages_share_the_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, "imdecode", lambda *_: np.zeros((1, 1), np.uint8))
    assert decode_image_file(np.frombuffer(BASELINE[:-2], np.uint8), cv2.IMREAD_COLOR) is None
    assert decode_image_file(np.frombuffer(BASELINE, np.uint8), cv2.IMREAD_COLOR) is not None


def png_of(width: int, height: int) -> bytes:
    """Return a grey PNG whose pixels are all 0: a thousandth of what they take in memory."""
    rows = zlib.compress(bytes((width + 1) * height), 1)
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)), (b"IDAT", rows), (b"IEND", b"")]
    number = lambda value: struct.pack(">I", value)  # noqa: E731
    parts = [number(len(data)) + kind + data + number(zlib.crc32(kind + data)) for kind, data in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def enlarged_tiff(order: str) -> bytes:
    """Return a TIFF whose picture says that it has 10,000 x 10,000 px."""
    header = struct.pack(order + "2sHIH", {"<": b"II", ">": b"MM"}[order], 42, 8, 2)
    return header + b"".join(struct.pack(order + "HHII", tag, 4, 1, 10_000) for tag in (256, 257)) + bytes(40)


def test_what_grows_is_refused_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    """An image may be a thousand times as large as its file: its header says so, and that is read first."""
    bomb = png_of(8001, 8001)
    assert len(bomb) < 500_000
    assert decode_image_file(np.frombuffer(bomb, np.uint8), cv2.IMREAD_UNCHANGED).shape == (8001, 8001)
    largest = decode_compressed_image(Message("png", png_of(8000, 8000)))
    assert largest.pixels.shape == (8000, 8000)
    jpeg = claiming(10_000, 10_000).removesuffix(EOI) + bytes(300_000) + EOI
    others = [cv2.imencode(suffix, BGR)[1].tobytes() for suffix in (".bmp", ".webp", ".ppm", ".sr", ".hdr")]

    def decode(*_: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(cv2, "imdecode", decode)
    for content in (bomb, jpeg, enlarged_tiff("<"), enlarged_tiff(">"), b"II*\0" + b"\xff" * 30, *others):
        with pytest.raises(InvalidInputError, match="of at most 64 megapixels, got"):
            decode_compressed_image(Message("", content))


def test_a_message_has_as_many_pixels_as_a_users_size() -> None:
    assert MAX_MESSAGE_MEGAPIXELS == MAX_SIZE_MEGAPIXELS
    with pytest.raises(InvalidInputError, match="expected an image of at most 64 megapixels, got height 10000 and"):
        image_of_message("mono8", b"", (10_000, 10_000), 10_000, bigendian=False)
