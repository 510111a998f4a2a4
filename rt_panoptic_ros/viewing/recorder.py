# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""What is shown of each frame, as Rerun has it: the only module that knows Rerun's archetypes.

Entities, below each camera's name: image, semantic, instance, objects, ids, timings/STAGE, and points where there is
depth. Time lines: `frame`, counted for each camera, and `stamp`.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2
import numpy as np
import rerun as rr
import rerun.blueprint as rrb

from rt_panoptic_ros.errors import UnavailableError, first_line
from rt_panoptic_ros.settings import MAX_DETECTIONS, OVERLAY_OPACITY

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from rt_panoptic_ros.model.class_table import ClassTable

APPLICATION = "rt_panoptic_ros"

_JPEG_QUALITY = 85
_RECENT_NS = 10**17  # some three years: stamps below count from a recording's or a robot's start, not from 1970
_NOTHING = (0, 0, 0, 0)  # RGBA
_ID_COLOR, _ID_SIZE = (150, 200, 255), 2.5  # of the marks in the plot of the ids


class ViewedObject(NamedTuple):
    """An object, as it is shown."""

    id: int
    name: str  # of its class
    score: float
    box: tuple[int, int, int, int]  # left, top, right, bottom of its visible pixels' edges, px of the labels


@dataclass(frozen=True, slots=True)
class ViewedFrame:
    """What is shown of a frame; what there is nothing of is None or empty."""

    stamp_ns: int
    image: np.ndarray | None = None  # (H, W, 3) uint8 RGB
    semantic: np.ndarray | None = None  # (h, w) uint8: class ids; the labels may have another size than the image
    instance: np.ndarray | None = None  # (h, w) uint16: object ids, 0 none
    objects: Sequence[ViewedObject] = ()
    timings_ms: Mapping[str, float] = field(default_factory=dict)  # by stage


class ViewRecorder:
    """Records frames for a viewer; belongs to one thread.

    Attributes:
        classes: What the semantic image's values mean; None until that is known.
    """

    def __init__(self, sink: Any, title: str) -> None:
        """Begin a recording.

        Args:
            sink: One of Rerun's, see `viewers`.
            title: What the viewer calls the recording.

        Raises:
            UnavailableError: The sink takes nothing.
        """
        self._stream = rr.RecordingStream(APPLICATION)
        with _telling_why():
            self._stream.set_sinks(sink)
        self._stream.set_log_time_enabled(False)
        self._stream.set_log_tick_enabled(False)
        self._stream.send_recording_name(title)
        self._counts: dict[str, int] = {}  # of frames, by camera
        self._clouds: set[str] = set()  # cameras with points
        self.classes: ClassTable | None = None

    @property
    def frames(self) -> int:
        """How many frames were recorded, of all cameras."""
        return sum(self._counts.values())

    def show_classes(self, classes: ClassTable) -> None:
        """Say what the semantic image's values, the published ones, mean; void is not drawn."""
        self.classes = classes
        for camera in self._counts:
            self._log_classes(camera, classes)

    def add(self, camera: str, frame: ViewedFrame) -> None:
        """Record a camera's next frame; the first makes its place in the viewer."""
        self._begin(camera)
        number = self._counts[camera]
        self._counts[camera] += 1
        self._set_time(frame.stamp_ns, number)
        labels = next((image for image in (frame.semantic, frame.instance) if image is not None), None)
        if frame.image is not None:
            size = frame.image.shape[:2] if labels is None else labels.shape
            self._log(camera, "image", _jpeg(frame.image, size))
        if frame.semantic is not None:
            self._log(camera, "semantic", rr.SegmentationImage(frame.semantic, opacity=OVERLAY_OPACITY))
        if frame.instance is not None:
            self._log(camera, "instance", rr.SegmentationImage(frame.instance, opacity=OVERLAY_OPACITY))
        ids = [one.id for one in frame.objects]
        boxes = rr.Boxes2D(
            array=np.array([one.box for one in frame.objects], np.float32).reshape(-1, 4),
            array_format=rr.Box2DFormat.XYXY,
            labels=[f"{one.name} {one.id} {one.score:.2f}" for one in frame.objects],
            class_ids=ids,  # Rerun colours what has no annotation by it, as in the instance image
        )
        self._log(camera, "objects", boxes)
        marks = np.full(MAX_DETECTIONS, np.nan)  # a plot has the same number of series in every frame
        marks[: len(ids)] = ids[:MAX_DETECTIONS]
        self._log(camera, "ids", rr.Scalars(marks))
        self.add_timings(camera, frame.timings_ms)

    def add_timings(self, camera: str, timings_ms: Mapping[str, float]) -> None:
        """Record how long stages took, {stage: ms}, at the time of the frame that was last."""
        self._begin(camera)
        for stage, ms in timings_ms.items():
            self._log(camera, f"timings/{rr.escape_entity_path_part(stage)}", rr.Scalars(ms))

    def add_points(self, camera: str, stamp_ns: int, positions: np.ndarray, colors: np.ndarray) -> None:
        """Record a camera's points, at its newest frame.

        Args:
            camera: Whose they are.
            stamp_ns: Of the frame that they are of.
            positions: (n, 3) float32, m, in a frame that looks along z with y down, as optical frames do.
            colors: (n, 3) uint8 RGB.
        """
        self._begin(camera)
        if camera not in self._clouds:
            self._clouds.add(camera)
            self._log(camera, "points", rr.ViewCoordinates.RDF, static=True)
            self._arrange()
        self._set_time(stamp_ns, max(self._counts[camera] - 1, 0))
        self._log(camera, "points", rr.Points3D(positions, colors=colors))

    def close(self) -> None:
        """Hand over what is recorded; a file is whole then.

        Raises:
            UnavailableError: Not all of it could be.
        """
        try:
            with _telling_why():
                self._stream.flush()
        finally:
            self._stream.disconnect()

    def _begin(self, camera: str) -> None:
        if camera in self._counts:
            return
        self._counts[camera] = 0
        self._log(camera, "instance", rr.AnnotationContext([(0, "none", _NOTHING)]), static=True)
        style = rr.SeriesPoints(
            colors=[_ID_COLOR] * MAX_DETECTIONS, markers=["square"] * MAX_DETECTIONS,
            marker_sizes=[_ID_SIZE] * MAX_DETECTIONS,
        )  # fmt: skip
        self._log(camera, "ids", style, static=True)
        if self.classes is not None:
            self._log_classes(camera, self.classes)
        self._arrange()

    def _log_classes(self, camera: str, classes: ClassTable) -> None:
        values = classes.published.tolist()
        known = [(values[entry.id], entry.name, entry.color) for entry in classes.classes]
        void = (classes.published_void, "void", _NOTHING)
        self._log(camera, "semantic", rr.AnnotationContext([*known, void]), static=True)

    def _arrange(self) -> None:
        """Lay out what there is: a tab for each camera."""
        tabs = [_camera_layout(_place(camera), camera, points=camera in self._clouds) for camera in self._counts]
        layout = tabs[0] if len(tabs) == 1 else rrb.Tabs(*tabs)
        blueprint = rrb.Blueprint(layout, rrb.TimePanel(timeline="frame", state="collapsed"), collapse_panels=True)
        self._stream.send_blueprint(blueprint)

    def _set_time(self, stamp_ns: int, number: int) -> None:
        self._stream.set_time("frame", sequence=number)
        if stamp_ns < _RECENT_NS:
            self._stream.set_time("stamp", duration=np.timedelta64(stamp_ns, "ns"))
        else:
            self._stream.set_time("stamp", timestamp=np.datetime64(stamp_ns, "ns"))

    def _log(self, camera: str, name: str, content: Any, *, static: bool = False) -> None:
        self._stream.log(f"{_place(camera)}/{name}", content, static=static)


@contextmanager
def _telling_why() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise UnavailableError(
            f"expected Rerun to take all frames, got: {first_line(error)}; check the disk's space"
        ) from None


def _place(camera: str) -> str:
    return f"/{rr.escape_entity_path_part(camera)}"


def _jpeg(image: np.ndarray, size: tuple[int, ...]) -> rr.EncodedImage:
    """Return a picture, (H, W, 3) uint8 RGB, as JPEG of (height, width) px."""
    height, width = size
    if image.shape[:2] != (height, width):
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    encoded, content = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    assert encoded, f"OpenCV can't encode {image.dtype} {image.shape} as JPEG"
    return rr.EncodedImage(contents=content.tobytes(), media_type="image/jpeg")


def _camera_layout(place: str, name: str, *, points: bool) -> rrb.Container:
    """Return how a camera's entities, below `place`, are laid out: pictures on the left, what changes on the right."""

    def pictures(title: str, *entities: str) -> rrb.Spatial2DView:
        return rrb.Spatial2DView(origin=place, contents=[f"{place}/{entity}" for entity in entities], name=title)

    plots: list[Any] = [
        rrb.TimeSeriesView(origin=f"{place}/ids", name="ids of the objects", plot_legend=rrb.PlotLegend(visible=False)),
        rrb.TimeSeriesView(origin=f"{place}/timings", name="timings, ms"),
    ]
    if points:
        plots.insert(0, rrb.Spatial3DView(origin=f"{place}/points", name="points"))
    left = rrb.Vertical(pictures("classes", "image", "semantic"), pictures("objects", "image", "instance", "objects"))
    return rrb.Horizontal(left, rrb.Vertical(*plots), column_shares=[3, 2], name=name)
