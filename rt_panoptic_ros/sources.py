"""Frames with stamps from an image, a folder of images, a video or a camera; decoded one at a time, on demand."""

from __future__ import annotations

import itertools
import logging
import math
import re
import time
from abc import ABC, abstractmethod
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from rt_panoptic_ros.encoded_image import MAX_MEGAPIXELS, decode_image_file
from rt_panoptic_ros.errors import InvalidInputError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import TracebackType

    from typing_extensions import Self

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")

# Containers estimate their frame count, so a video that ends a little early is whole; more than this is missing.
_MISSING_TOLERANCE = 0.02

_TEXT_CODEC = int.from_bytes(b"ansi", "little")  # FFmpeg takes a text file for a film of its letters

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Frame:
    """One picture of a source."""

    image: np.ndarray  # (H, W, 3) uint8 RGB, contiguous
    stem: str  # names the frame's files; unique within a source that does not loop
    file_name: str  # of the image it came from; of a video or camera, what a file of the frame would be called
    time_s: float  # since the first frame; a source without a rate counts one second a frame, a camera real time


class FrameSource(ABC):
    """An iterable of frames.

    Iterating again starts again (a camera goes on). The source belongs to one thread; closing it ends its iterators.

    Attributes:
        rate_hz: Frames per second; None where the source has none (images) or does not tell.
        count: Number of frames, for a video as its container claims; None where unknown or endless.
    """

    def __init__(self, rate_hz: float | None, count: int | None) -> None:
        self.rate_hz = rate_hz
        self.count = count
        self._closed = False

    @abstractmethod
    def __iter__(self) -> Iterator[Frame]:
        """Return an iterator that decodes each frame when it is asked for.

        Raises:
            InvalidInputError: While iterating: a frame cannot be decoded, or a video ends early.
            UnavailableError: While iterating: a camera delivers no more frames.
        """

    def close(self) -> None:
        """Release the device or file; harmless when repeated."""
        self._closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_source(source: str, *, loop: bool = False) -> FrameSource:
    """Open frames by a path or a camera's name.

    Args:
        source: An image, a folder of images (their natural order: 2 before 10), a video, or a camera: its number
            ("0") or device ("/dev/video0"). A file or folder whose name is a number is written "./0".
        loop: Start again at the end, for ever; stems and times go on. Nothing to a camera.

    Raises:
        InvalidInputError: The path does not exist, the folder has no images, or the video has no frames.
        UnavailableError: The camera cannot be opened.
    """
    if source.isdecimal() or source.startswith("/dev/"):
        return _Camera(source)
    path = Path(source)
    if path.is_dir():
        return _ImageFiles(_images_in(path), loop)
    if not path.exists():
        raise InvalidInputError(
            f"expected an image, a folder of images, a video or a camera number, but '{source}' does not exist: "
            "check the path"
        )
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return _ImageFiles([path], loop)
    return _VideoFile(path, loop)


def read_image(path: Path) -> np.ndarray:
    """Return an image file's pixels, (H, W, 3) uint8 RGB, upright as its EXIF orientation says.

    Grey becomes RGB, alpha is dropped, and 16 bits are scaled to 8 (65535 becomes 255).

    Raises:
        InvalidInputError: The file cannot be read or decoded, or its samples have neither 8 nor 16 bits.
    """
    try:
        encoded = np.fromfile(path, np.uint8)
    except OSError as error:
        raise InvalidInputError(f"expected a readable image, got {path}: {error.strerror}") from None
    image = decode_image_file(encoded, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    if image is None:
        raise InvalidInputError(
            f"expected an image that OpenCV can decode, got {path} ({encoded.size} bytes): "
            f"it is damaged, cut short, of another format or above {MAX_MEGAPIXELS} Mpx; save it again or remove it"
        )
    if image.dtype == np.uint16:
        image = cv2.convertScaleAbs(image, alpha=255 / 65535)
    if image.dtype != np.uint8:
        raise InvalidInputError(
            f"expected an image with 8 or 16 bits a channel, got {path} with {image.dtype}: convert it to 8 bits"
        )
    rgb: np.ndarray = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    return rgb


class _ImageFiles(FrameSource):
    """Image files in the given order."""

    def __init__(self, paths: Sequence[Path], loop: bool) -> None:
        super().__init__(rate_hz=None, count=None if loop else len(paths))
        self._paths = paths
        self._loop = loop
        stems = [path.stem for path in paths]
        # a.jpg and a.png must not overwrite each other's results
        self._stems = stems if len(set(stems)) == len(stems) else [path.name for path in paths]

    def __iter__(self) -> Iterator[Frame]:
        _refuse_closed(self._closed)
        named = list(zip(self._paths, self._stems, strict=True))
        for number, (path, stem) in enumerate(itertools.cycle(named) if self._loop else named):
            if self._closed:
                return
            yield Frame(read_image(path), stem, path.name, float(number))


class _VideoFile(FrameSource):
    """A video file; each iterator decodes through its own reader."""

    def __init__(self, path: Path, loop: bool) -> None:
        with _opened_video(path) as capture:
            rate_hz = capture.get(cv2.CAP_PROP_FPS)
            claimed = capture.get(cv2.CAP_PROP_FRAME_COUNT)
            if not capture.read()[0]:
                raise InvalidInputError(
                    f"expected a video with frames, got {path} without one that can be decoded: "
                    "it is empty, damaged or of an unknown codec; encode it again"
                )
        self._path = path
        self._loop = loop
        self._claimed = int(claimed) if math.isfinite(claimed) and claimed > 0 else None
        super().__init__(
            rate_hz=rate_hz if math.isfinite(rate_hz) and rate_hz > 0 else None, count=None if loop else self._claimed
        )

    def __iter__(self) -> Iterator[Frame]:
        _refuse_closed(self._closed)
        period_s = 1 / self.rate_hz if self.rate_hz else 1.0
        numbers = itertools.count()
        while True:
            decoded = 0
            with _opened_video(self._path) as capture:
                while not self._closed:
                    there, image = capture.read()
                    if not there:
                        break
                    decoded += 1
                    number = next(numbers)
                    stem = f"{self._path.stem}_{number:06d}"
                    yield Frame(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), stem, f"{stem}.png", number * period_s)
            if self._closed:
                return
            self._check_end(decoded)
            if not self._loop:
                return

    def _check_end(self, decoded: int) -> None:
        """Report a video whose frames end before the count that its container claims."""
        claimed = self._claimed or 1
        if decoded >= claimed:
            return
        if decoded == 0 or claimed - decoded > max(2, _MISSING_TOLERANCE * claimed):
            raise InvalidInputError(
                f"expected {claimed} frames in {self._path}, but decoding ended after {decoded}: the file is "
                "damaged, cut short or of changing format; the frames before are good, encode or copy it again "
                "for the rest"
            )
        _logger.warning("%s claims %d frames, %d could be decoded", self._path, claimed, decoded)


class _Camera(FrameSource):
    """A camera of this machine, by number or device path."""

    def __init__(self, source: str) -> None:
        if source.isdecimal():
            number = int(source)
        else:  # links such as those in /dev/v4l/by-id lead to /dev/videoN
            match = re.fullmatch(r"/dev/video(\d+)", str(Path(source).resolve()))
            if match is None:
                raise UnavailableError(
                    f"expected a camera such as 0 or /dev/video0, got '{source}': list the cameras with "
                    "'ls /dev/video*'"
                )
            number = int(match.group(1))
        self._source = source
        self._capture: Any = cv2.VideoCapture(number)
        if not self._capture.isOpened():
            self._capture.release()
            raise UnavailableError(
                f"expected camera '{source}' to open, but it does not: list the cameras with 'ls /dev/video*', and "
                "check that you may read it (group video) and that no other program holds it"
            )
        self._capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # the newest picture, not the oldest waiting one
        rate_hz = self._capture.get(cv2.CAP_PROP_FPS)
        self._number = 0
        self._start_s: float | None = None
        super().__init__(rate_hz=rate_hz if math.isfinite(rate_hz) and rate_hz > 0 else None, count=None)

    def __iter__(self) -> Iterator[Frame]:
        _refuse_closed(self._closed)
        while not self._closed:
            there, image = self._capture.read()
            now_s = time.monotonic()
            if not there:
                raise UnavailableError(
                    f"expected frames from camera '{self._source}', but it stopped after {self._number}: "
                    "check its cable and that no other program took it"
                )
            self._start_s = now_s if self._start_s is None else self._start_s
            stem = f"camera_{self._number:06d}"
            self._number += 1
            yield Frame(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), stem, f"{stem}.png", now_s - self._start_s)

    def close(self) -> None:
        super().close()
        self._capture.release()


def _images_in(folder: Path) -> list[Path]:
    """Return the image files of a folder in natural order, without hidden ones."""
    paths = [
        path
        for path in folder.iterdir()
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file()
    ]
    if not paths:
        raise InvalidInputError(
            f"expected images ({', '.join(IMAGE_SUFFIXES)}) in the folder {folder}, got none: "
            "name the folder that holds them directly"
        )
    return sorted(paths, key=_natural_key)


def _natural_key(path: Path) -> tuple[list[tuple[int, str]], str]:
    """Sort runs of digits by value and the rest as text, without case; the name itself breaks ties."""
    runs = re.findall(r"([0-9]+)|([^0-9]+)", path.name.casefold())
    return [(int(digits), "") if digits else (-1, text) for digits, text in runs], path.name


@contextmanager
def _opened_video(path: Path) -> Iterator[Any]:
    capture = cv2.VideoCapture(str(path))
    try:
        if not capture.isOpened() or int(capture.get(cv2.CAP_PROP_FOURCC)) == _TEXT_CODEC:
            raise InvalidInputError(
                f"expected an image ({', '.join(IMAGE_SUFFIXES)}) or a video, but OpenCV cannot open {path}: "
                "it is empty, damaged or of an unknown format; encode it again"
            )
        yield capture
    finally:
        capture.release()


def _refuse_closed(closed: bool) -> None:
    if closed:
        raise ValueError("the source is closed")
