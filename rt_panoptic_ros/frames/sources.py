# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Frames with stamps from an image, a folder of images, a video or a camera; decoded one at a time, on demand."""

from __future__ import annotations

import itertools
import logging
import math
import os
import re
import stat
import time
from abc import abstractmethod
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from rt_panoptic_ros.errors import InvalidInputError, UnavailableError
from rt_panoptic_ros.files import literal_name
from rt_panoptic_ros.frames.encoded_image import MAX_MEGAPIXELS, decode_image_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")

# Containers estimate their frame count, so a video that ends a little early is whole; more than this is missing.
_MISSING_TOLERANCE = 0.02

_PROBE = 10  # frames of a video whose times are compared with the rate that its container claims
_RATE_TOLERANCE = 3.0  # a claim further off is no rate but a time base, such as webm's 1000 Hz and MPEG's 90000
_FASTEST_HZ = 240.0  # that is believed of a video whose frames have no times
_LONGEST_STEP_S = 3600.0  # from frame to frame, as in FFmpeg's player: more is no pause but another recording's time

_TEXT_CODEC = int.from_bytes(b"ansi", "little")  # FFmpeg takes a text file for a film of its letters

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Frame:
    """One picture of a source."""

    image: np.ndarray  # (H, W, 3) uint8 RGB, contiguous
    stem: str  # names the frame's files, with / where it lies in a sub-folder; unique in a source that does not loop
    file_name: str  # of the image in its folder; of a video or camera, what a file of the frame would be called
    time_s: float  # since the first frame; images count one second each, a camera real time


class FrameSource(AbstractContextManager["FrameSource"]):
    """An iterable of frames.

    Iterating again starts again (a camera goes on). The source belongs to one thread; closing it ends its iterators.

    Attributes:
        rate_hz: Frames per second; None where the source has none (images) or does not tell.
        count: Number of frames, for a video as its container claims; None where unknown or endless.
        timed: Whether the frames' times are those of a recording, which need not be evenly spaced.
        on_broken: Told of each image of a folder that can't be read and is left out; None to end with the first.
    """

    def __init__(self, rate_hz: float | None, count: int | None, *, timed: bool = False) -> None:
        self.rate_hz = rate_hz
        self.count = count
        self.timed = timed
        self.on_broken: Callable[[InvalidInputError], None] | None = None
        self._closed = False

    def __iter__(self) -> Iterator[Frame]:
        """Give frames, each decoded when it is asked for.

        Raises:
            InvalidInputError: A frame cannot be decoded, or no image of a folder, or a video ends early.
            UnavailableError: A camera delivers no more frames.
        """
        if self._closed:
            raise ValueError("the source is closed")
        for frame in self._frames():
            yield frame
            if self._closed:
                return

    @abstractmethod
    def _frames(self) -> Iterator[Frame]:
        """Give frames, as `__iter__` says, from the start or, of a camera, from now on."""

    def close(self) -> None:
        """Release the device or file; harmless when repeated."""
        self._closed = True

    def __exit__(self, *_: object) -> None:
        self.close()


def open_source(source: str, *, loop: bool = False) -> FrameSource:
    """Open frames by a path or a camera's name.

    Args:
        source: An image, a folder of images (their natural order: 2 before 10; those of its sub-folders where it has
            none itself), a video, or a camera: its device ("/dev/video0") or, where no such path exists, its number.
        loop: Start again at the end, for ever; stems and times go on. Nothing to a camera.

    Raises:
        InvalidInputError: The path does not exist or can't be read, there are no images, or no frames in the video.
        UnavailableError: The camera cannot be opened.
    """
    path = Path(source)
    try:
        mode = path.stat().st_mode if source else None
    except (FileNotFoundError, NotADirectoryError, ValueError):  # the last for a zero byte, which no name has
        mode = None
    except OSError as error:
        raise InvalidInputError(
            f"expected an image, a folder of images, a video or a camera, got '{source}': {error.strerror}"
        ) from None
    if mode is None:
        if re.fullmatch(r"0|[1-9][0-9]{0,2}", source) or source.startswith("/dev/"):
            return _Camera(source)
        raise InvalidInputError(
            f"expected an image, a folder of images, a video or a camera number, but '{source}' does not exist: "
            "check the path"
        )
    if stat.S_ISCHR(mode):
        return _Camera(source)
    if stat.S_ISDIR(mode):
        return _ImageFiles(path, _images_in(path), loop)
    if not stat.S_ISREG(mode):
        raise InvalidInputError(
            f"expected an image, a folder of images, a video or a camera, but '{source}' is a pipe, a socket or a "
            "disk: save what comes from it as a file"
        )
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return _ImageFiles(path.parent, [path], loop)
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

    def __init__(self, folder: Path, paths: Sequence[Path], loop: bool) -> None:
        super().__init__(rate_hz=None, count=None if loop else len(paths))
        self._loop = loop
        names = [path.relative_to(folder).as_posix() for path in paths]
        stems = [path.relative_to(folder).with_suffix("").as_posix() for path in paths]
        # a.jpg and a.png must not overwrite each other's results
        self._named = list(zip(paths, stems if len(set(stems)) == len(stems) else names, names, strict=True))

    def _frames(self) -> Iterator[Frame]:
        named = itertools.cycle(self._named) if self._loop else self._named
        broken = 0  # in a row
        for number, (path, stem, name) in enumerate(named):
            try:
                image = read_image(path)
            except InvalidInputError as error:
                broken += 1
                if self.on_broken is None or broken == len(self._named):
                    raise
                self.on_broken(error)
                continue
            broken = 0
            yield Frame(image, stem, name, float(number))


class _VideoFile(FrameSource):
    """A video file; each iterator decodes through its own reader."""

    def __init__(self, path: Path, loop: bool) -> None:
        with _opened_video(path) as capture:
            claimed_hz, claimed = capture.get(cv2.CAP_PROP_FPS), capture.get(cv2.CAP_PROP_FRAME_COUNT)
            if not capture.read()[0]:
                raise InvalidInputError(
                    f"expected a video with frames, got {path} without one that can be decoded: "
                    "it is empty, damaged or of an unknown codec; encode it again"
                )
            times_s = [_position_s(capture)]
            while len(times_s) < _PROBE and capture.grab():
                times_s.append(_position_s(capture))
        gaps = [b - a for a, b in itertools.pairwise(times_s) if 0 < b - a <= _LONGEST_STEP_S]
        seen_hz = 1 / float(np.median(gaps)) if gaps else None
        if seen_hz is None:
            believed = 0 < claimed_hz <= _FASTEST_HZ
        else:
            believed = seen_hz / _RATE_TOLERANCE <= claimed_hz <= seen_hz * _RATE_TOLERANCE
        self._path = path
        self._loop = loop
        # Where the container has no count, OpenCV makes one of its rate.
        self._claimed = int(claimed) if believed and math.isfinite(claimed) and claimed > 0 else None
        super().__init__(
            rate_hz=claimed_hz if believed else seen_hz, count=None if loop else self._claimed, timed=bool(gaps)
        )

    def _frames(self) -> Iterator[Frame]:
        period_s = 1 / self.rate_hz if self.rate_hz else 1.0
        longest_s = max(_LONGEST_STEP_S, _RATE_TOLERANCE * period_s)
        number, time_s = 0, -period_s
        while True:
            first, begin_s, last_s = number, time_s, math.inf
            with _opened_video(self._path) as capture:
                while (picture := capture.read())[0]:
                    position_s = _position_s(capture)
                    step_s, last_s = position_s - last_s, position_s
                    time_s += step_s if 0 < step_s <= longest_s else period_s
                    yield _numbered(picture[1], self._path.stem, number, time_s)
                    number += 1
            self._check_end(number - first, round((time_s - begin_s) / period_s))
            if not self._loop:
                return

    def _check_end(self, decoded: int, reached: int) -> None:
        """Report a video whose frames end before the count that its container claims.

        Args:
            decoded: How many there were.
            reached: How many there would have been without pauses, which a variable rate has.
        """
        claimed = self._claimed or 1
        if claimed <= decoded:
            return
        if decoded == 0 or claimed - max(decoded, reached) > max(2, _MISSING_TOLERANCE * claimed):
            raise InvalidInputError(
                f"expected {claimed} frames in {self._path}, but decoding ended after {decoded}: the file is "
                "damaged, cut short or of changing format; the frames before are good, encode or copy it again "
                "for the rest"
            )
        _logger.warning(
            "%s claims %d frames, %d could be decoded: some are damaged, or its rate varies",
            self._path, claimed, decoded,
        )  # fmt: skip


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

    def _frames(self) -> Iterator[Frame]:
        while True:
            there, picture = self._capture.read()
            now_s = time.monotonic()
            if not there:
                raise UnavailableError(
                    f"expected frames from camera '{self._source}', but it stopped after {self._number}: "
                    "check its cable and that no other program took it"
                )
            self._start_s = now_s if self._start_s is None else self._start_s
            number, self._number = self._number, self._number + 1  # now: the iterator may be left at any frame
            yield _numbered(picture, "camera", number, now_s - self._start_s)

    def close(self) -> None:
        super().close()
        self._capture.release()


def _images_in(folder: Path) -> list[Path]:
    """Return a folder's images, or those of its sub-folders where it has none itself; natural order, no hidden ones."""

    def fail(error: OSError) -> None:
        raise error

    found: list[Path] = []
    seen = set()  # links may lead in circles
    try:
        for place, folders, names in os.walk(folder, onerror=fail, followlinks=True):
            identity = os.path.realpath(place)
            if identity in seen:
                folders.clear()
                continue
            seen.add(identity)
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            paths = (Path(place, name) for name in names if not name.startswith("."))
            found += [path for path in paths if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()]
            if found and Path(place) == folder:
                if folders:
                    _logger.info("%s: its own %d images are taken, not those of its sub-folders", folder, len(found))
                break
    except OSError as error:
        raise InvalidInputError(
            f"expected a folder that can be read, got {error.filename}: {error.strerror}; check its permissions"
        ) from None
    if not found:
        raise InvalidInputError(
            f"expected images ({', '.join(IMAGE_SUFFIXES)}) in the folder {folder} or below it, got none: "
            "name the folder that holds them"
        )
    return sorted(found, key=natural_key)


def natural_key(path: Path) -> tuple[list[list[tuple[int, str]]], str]:
    """Sort by folder and name, runs of digits by value and the rest as text without case; the path breaks ties."""
    parts = [re.findall(r"([0-9]+)|([^0-9]+)", part.casefold()) for part in path.parts]
    return [[(int(digits), "") if digits else (-1, text) for digits, text in runs] for runs in parts], str(path)


@contextmanager
def _opened_video(path: Path) -> Iterator[Any]:
    try:
        path.open("rb").close()  # OpenCV would not say why it can't
    except OSError as error:
        raise InvalidInputError(f"expected a readable video, got {path}: {error.strerror}") from None
    with literal_name(path) as name:
        capture = cv2.VideoCapture(name)
        try:
            if not capture.isOpened() or int(capture.get(cv2.CAP_PROP_FOURCC)) == _TEXT_CODEC:
                raise InvalidInputError(
                    f"expected an image ({', '.join(IMAGE_SUFFIXES)}) or a video, but OpenCV cannot open {path}: "
                    "it is empty, damaged or of an unknown format; encode it again"
                )
            yield capture
        finally:
            capture.release()


def _position_s(capture: Any) -> float:
    """Return the time of the frame that was read last, by its container; some number where that tells none."""
    return float(capture.get(cv2.CAP_PROP_POS_MSEC)) / 1e3


def _numbered(picture: np.ndarray, name: str, number: int, time_s: float) -> Frame:
    """Return a frame of a picture as OpenCV gives it, (H, W, 3) uint8 BGR."""
    stem = f"{name}_{number:06d}"
    return Frame(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), stem, f"{stem}.png", time_s)
