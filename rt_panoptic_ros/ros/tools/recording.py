# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""What the output recorder keeps: a video in real time, and a few pictures of it."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from rt_panoptic_ros.drawing.overlay import contact_sheet
from rt_panoptic_ros.errors import UnavailableError
from rt_panoptic_ros.files import literal_name, output_path, write_image

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

_FALLBACK_RATE_HZ = 10.0  # of a video with a single frame
_LONGEST_GAP_S = 5.0  # stamps further apart than this are no pause to show


def write_pictures(
    pictures: Iterable[tuple[np.ndarray, float]], folder: Path, rate_hz: float
) -> tuple[dict[str, str], str]:
    """Write pictures, (H, W, 3) uint8 RGB with stamps in s, into overlay.mp4 and overlay.png while they come.

    Returns:
        {what: path} of the files, and why one of them could not be written, empty if both could.
    """
    files: dict[str, str] = {}
    problem = ""
    samples = Samples()
    pictures = samples.taken_from(pictures)
    try:
        if write_video(folder / "overlay.mp4", pictures, rate_hz):
            files["video"] = str(folder / "overlay.mp4")
    except UnavailableError as error:
        problem = str(error)
        for _ in pictures:  # the sheet can be written all the same
            pass
    try:
        if samples.write_sheet(folder / "overlay.png"):
            files["contact_sheet"] = str(folder / "overlay.png")
    except UnavailableError as error:
        problem = problem or str(error)
    return files, problem


def write_video(path: Path, pictures: Iterable[tuple[np.ndarray, float]], rate_hz: float = 0.0, probe: int = 10) -> int:
    """Write pictures as an mp4 that plays in their own time: a picture stands for those that are missing before it.

    Args:
        path: The file; without a picture there is none.
        pictures: (H, W, 3) uint8 RGB and stamp, s; one of another size than the first is scaled into its frame.
        rate_hz: Frames per second; 0 to find it from the stamps of the first pictures.
        probe: How many pictures that takes.

    Returns:
        How many pictures came.

    Raises:
        UnavailableError: OpenCV cannot write this video.
    """
    pictures = iter(pictures)
    first = list(itertools.islice(pictures, 1 if rate_hz else probe))
    if not first:
        return 0
    stamps_s = [stamp_s for _, stamp_s in first]
    gaps_s = np.diff(stamps_s)
    gaps_s = gaps_s[gaps_s > 0]
    rate_hz = rate_hz or (round(float(1 / np.median(gaps_s)), 2) if len(gaps_s) else _FALLBACK_RATE_HZ)
    rate_hz = min(max(rate_hz, 1.0), 240.0)
    height, width = size = first[0][0].shape[:2]
    count = written = 0
    time_s, last_s = 0.0, stamps_s[0]  # of the newest picture: in the video, and its stamp
    with output_path(path) as temporary:
        with literal_name(temporary) as name:
            writer: Any = cv2.VideoWriter(name, cv2.VideoWriter.fourcc(*"mp4v"), rate_hz, (width, height))
        if not writer.isOpened():
            raise UnavailableError(
                f"expected OpenCV to write {path} as MPEG-4 of {width}x{height} px, but it cannot: check that the "
                "folder can be written, and that OpenCV has FFmpeg (cv2.getBuildInformation())"
            )
        for image_rgb, stamp_s in itertools.chain(first, pictures):
            gap_s = stamp_s - last_s
            time_s += gap_s if 0 <= gap_s <= _LONGEST_GAP_S else 1 / rate_hz
            last_s = stamp_s
            image_bgr = cv2.cvtColor(fitted(image_rgb, size), cv2.COLOR_RGB2BGR)
            for _ in range(max(1, round(time_s * rate_hz) + 1 - written)):
                writer.write(image_bgr)
                written += 1
            count += 1
        writer.release()
    return count


def fitted(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return a picture of (height, width) px: scaled with its proportions kept, black around it."""
    if image.shape[:2] == size:
        return image
    scale = min(size[0] / image.shape[0], size[1] / image.shape[1])
    height, width = (max(1, round(scale * side)) for side in image.shape[:2])
    canvas = np.zeros((*size, 3), np.uint8)
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    canvas[top : top + height, left : left + width] = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    return canvas


class Samples:
    """Keeps a few pictures, evenly spread over all that came, without knowing how many will come.

    Attributes:
        kept: The pictures, (H, W, 3) uint8 RGB, and their captions.
    """

    def __init__(self, number: int = 12) -> None:
        """Keep at least `number` pictures once there are as many, and less than twice that."""
        self.kept: list[tuple[np.ndarray, str]] = []
        self._number = number
        self._every = 1
        self._seen = 0

    def add(self, image_rgb: np.ndarray, caption: str) -> None:
        """Show a picture, which is kept or not."""
        if self._seen % self._every == 0:
            self.kept.append((image_rgb, caption))
            if len(self.kept) >= 2 * self._number:
                del self.kept[1::2]
                self._every *= 2
        self._seen += 1

    def taken_from(self, pictures: Iterable[tuple[np.ndarray, float]]) -> Iterator[tuple[np.ndarray, float]]:
        """Give pictures with stamps, s, on as they come; each one's caption is the time since the first."""
        begin_s: float | None = None
        for image_rgb, stamp_s in pictures:
            begin_s = stamp_s if begin_s is None else begin_s
            self.add(image_rgb, f"{stamp_s - begin_s:.1f} s")
            yield image_rgb, stamp_s

    def write_sheet(self, path: Path, columns: int = 4, width_px: int = 1600) -> bool:
        """Write the pictures as one PNG; return False, without a file, where none came.

        Raises:
            UnavailableError: The file can't be written.
        """
        if not self.kept:
            return False
        places = np.linspace(0, len(self.kept) - 1, min(self._number, len(self.kept))).round().astype(int)
        images, captions = zip(*(self.kept[place] for place in places), strict=True)
        sheet = contact_sheet(images, min(columns, len(images)), width_px, captions)
        write_image(path, cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))
        return True
