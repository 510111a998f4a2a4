"""What the output recorder keeps: messages matched by stamp, a video in real time, and a few pictures of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from rt_panoptic_ros.drawing.overlay import contact_sheet
from rt_panoptic_ros.errors import UnavailableError
from rt_panoptic_ros.files import literal_name, write_image

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_FALLBACK_RATE_HZ = 10.0  # of a video with a single frame
_LONGEST_GAP_S = 5.0  # stamps further apart than this are no pause to show


class StampMatcher:
    """Collects the messages of one stamp until all topics have theirs.

    Attributes:
        incomplete: Sets given up, since others came after them; those of a bag that loops have old stamps again.
    """

    def __init__(self, topics: Sequence[str], capacity: int = 16) -> None:
        """Prepare for sets of one message from each of `topics`, at most `capacity` sets waiting."""
        self._topics = frozenset(topics)
        self._capacity = capacity
        self._waiting: dict[int, dict[str, Any]] = {}  # by stamp, ns; in the order in which they began
        self.incomplete = 0

    def add(self, topic: str, stamp_ns: int, message: Any) -> dict[str, Any] | None:
        """Take a message; return {topic: message} when it was the last that its stamp waited for."""
        if topic in self._waiting.get(stamp_ns, ()):
            self._drop(stamp_ns)
        parts = self._waiting.setdefault(stamp_ns, {})
        parts[topic] = message
        if parts.keys() == self._topics:
            del self._waiting[stamp_ns]
            return parts
        if len(self._waiting) > self._capacity:
            self._drop(next(iter(self._waiting)))
        return None

    def give_up(self) -> None:
        """Count what still waits as incomplete."""
        self.incomplete += len(self._waiting)
        self._waiting.clear()

    def _drop(self, stamp_ns: int) -> None:
        del self._waiting[stamp_ns]
        self.incomplete += 1


class RealTimeVideo:
    """Writes pictures as an mp4 that plays in their own time: a picture stands for those that are missing before it.

    Attributes:
        frames: Pictures written, each of them once or more.
    """

    def __init__(self, path: Path, rate_hz: float = 0.0, probe: int = 10) -> None:
        """Prepare; the file is written with the first pictures.

        Args:
            path: The file.
            rate_hz: Frames per second; 0 to find it from the stamps of the first pictures.
            probe: How many pictures that takes.
        """
        self.frames = 0
        self._path = path
        self._rate_hz = rate_hz
        self._probe = 1 if rate_hz else probe
        self._held: list[tuple[np.ndarray, float]] = []
        self._writer: Any = None
        self._size = (0, 0)
        self._time_s = 0.0  # of the newest picture in the video
        self._stamp_s = 0.0  # of that picture
        self._written = 0  # pictures, with those that stand for others

    def add(self, image_rgb: np.ndarray, stamp_s: float) -> None:
        """Append a picture, (H, W, 3) uint8; one of another size than the first is scaled into its frame.

        Raises:
            UnavailableError: OpenCV cannot write this video.
        """
        self._held.append((image_rgb, stamp_s))
        if len(self._held) >= self._probe:
            self._write_held()

    def close(self) -> None:
        """Finish the file; without a picture there is none."""
        if self._held:
            self._write_held()
        if self._writer is not None:
            self._writer.release()
            self._writer = None

    def _write_held(self) -> None:
        if self._writer is None:
            self._open()
        held, self._held = self._held, []
        for image_rgb, stamp_s in held:
            gap_s = stamp_s - self._stamp_s
            self._time_s += gap_s if 0 <= gap_s <= _LONGEST_GAP_S else 1 / self._rate_hz
            self._stamp_s = stamp_s
            image_bgr = cv2.cvtColor(fitted(image_rgb, self._size), cv2.COLOR_RGB2BGR)
            for _ in range(max(1, round(self._time_s * self._rate_hz) + 1 - self._written)):
                self._writer.write(image_bgr)
                self._written += 1
            self.frames += 1

    def _open(self) -> None:
        stamps_s = [stamp_s for _, stamp_s in self._held]
        gaps = np.diff(stamps_s)
        gaps = gaps[gaps > 0]
        rate_hz = self._rate_hz or (round(float(1 / np.median(gaps)), 2) if len(gaps) else _FALLBACK_RATE_HZ)
        self._rate_hz = min(max(rate_hz, 1.0), 240.0)
        self._probe = 1
        self._stamp_s = stamps_s[0]
        height, width = self._size = self._held[0][0].shape[:2]
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with literal_name(self._path) as name:
            writer = cv2.VideoWriter(name, cv2.VideoWriter.fourcc(*"mp4v"), self._rate_hz, (width, height))
        if not writer.isOpened():
            raise UnavailableError(
                f"expected OpenCV to write {self._path} as MPEG-4 of {width}x{height} px, but it cannot: check that "
                "the folder can be written, and that OpenCV has FFmpeg (cv2.getBuildInformation())"
            )
        self._writer = writer


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
