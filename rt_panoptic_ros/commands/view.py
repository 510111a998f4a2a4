# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""`rt-panoptic view`."""

from __future__ import annotations

import argparse
import logging
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, TypeVar

from rt_panoptic_ros.commands.options import add_labels, add_pipeline, open_pipeline_of, positive
from rt_panoptic_ros.errors import InvalidInputError, require, require_package
from rt_panoptic_ros.resources import DEFAULT_MODEL
from rt_panoptic_ros.settings import parse_size

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rt_panoptic_ros.bags.playback import Playback
    from rt_panoptic_ros.records import CameraImage
    from rt_panoptic_ros.viewing.recorder import ViewedFrame, ViewRecorder
    from rt_panoptic_ros.viewing.viewers import Viewer

Item = TypeVar("Item")

_LOG = logging.getLogger(__name__)
_BAG_ENDS = (".mcap", ".db3", ".mcap.zstd", ".db3.zstd")
_RECORDING_END = ".rrd"
_PAGE_PORT = 9090  # Rerun's own
_CAMERA = "camera"  # what one is called that is alone
_NODE = "panoptic_node"  # what the running node is called unless --node says otherwise
_OF_LABELLING = ("model", "set", "label_map", "output_size", "tracking", "object_classes")
"""Options that are of no use where the labels are there already."""
_OF_LIVE = ("node", "ros_args")
"""Options that are of no use without --live."""


def _view(options: argparse.Namespace) -> int:
    from rt_panoptic_ros.ros.processes import exit_on_sigterm

    require_package("rerun", "the viewer", "`pip install 'rerun-sdk==0.41.*'`, with Python 3.11 or later and NumPy 2")
    require(
        options.live == (options.source is None),
        "either SOURCE (an image, folder, video, camera or bag) or --live (a running node)",
        "both" if options.live else "neither",
    )
    exit_on_sigterm()  # not before the viewer is stopped
    if options.live:
        return _view_live(options)
    _refuse(options, _OF_LIVE, "they are for --live")
    if Path(options.source).suffix == _RECORDING_END:
        _view_recording(options)
    elif _is_bag(options.source):
        _view_bag(options)
    else:
        _view_source(options)
    return 0


def _view_recording(options: argparse.Namespace) -> None:
    from rt_panoptic_ros.viewing.viewers import open_window

    path = Path(options.source)
    require(path.is_file(), "a recording that --out wrote", f"{path}, which is no file: check the path")
    require(options.out is None and options.web is None, f"a window for {path}", "--out or --web: leave it out")
    _refuse(options, (*_OF_LABELLING, "images"), f"{path} is shown as it was recorded")
    with open_window(path) as viewer:
        assert viewer.process is not None
        print(f"Look at {viewer.place}{viewer.ending}", flush=True)
        viewer.process.wait()


def _view_source(options: argparse.Namespace) -> None:
    from rt_panoptic_ros.frames.sources import open_source
    from rt_panoptic_ros.records import CameraImage

    _refuse(options, ("images",), f"{options.source} is no bag, which alone has topics")
    with open_source(options.source) as source:
        source.on_broken = lambda error: _LOG.warning("left out: %s", error)
        labelling = _Labelling(options)
        with _recording(options, options.source) as (viewer, recorder):
            recorder.show_classes(labelling.classes)
            for frame in _until_closed(source, viewer, source.count, "frame"):
                image = CameraImage(frame.image, "rgb")
                recorder.add(_CAMERA, labelling.label(image, round(frame.time_s * 1e9), _CAMERA))


def _view_bag(options: argparse.Namespace) -> None:
    for package in ("rosbags", "mcap"):
        require_package(package, "bags")
    from rt_panoptic_ros.bags.playback import open_playback

    with open_playback(Path(options.source), options.images, _CAMERA) as playback:
        if playback.cameras and options.model is None:
            why = f"{options.source} has labels, which are shown; to label it anew, name --model"
            _refuse(options, _OF_LABELLING, why)
            _show_recorded(options, playback)
        else:
            _show_labelled(options, playback)
        for topic, number in playback.broken.items():
            _LOG.warning("%d messages on %s can't be read", number, topic)
        for loss in playback.bag.losses.lines():
            _LOG.warning("lost: %s", loss)


def _show_recorded(options: argparse.Namespace, playback: Playback) -> None:
    """Show the labels that a bag has."""
    from rt_panoptic_ros.viewing.outputs import FRAME, IMAGE, OutputView

    images = {IMAGE} if playback.images else set()
    parts = {camera: images | outputs.intersection(FRAME) for camera, outputs in playback.cameras.items()}
    topics = {*playback.images, *playback.outputs}
    messages, count = playback.messages(topics), playback.count(topics)
    with _recording(options, options.source) as (viewer, recorder):
        view = OutputView(recorder, parts)
        for topic, time_ns, message in _until_closed(messages, viewer, count, "message"):
            if topic in playback.outputs:
                view.add(*playback.outputs[topic], message, time_ns)
            else:  # its stamp and frame say whose it is
                for camera in view.cameras:
                    view.add(camera, IMAGE, message, time_ns)
        for reason, number in view.skipped.items():
            _LOG.warning("left out %d messages: %s", number, reason)
        require(
            recorder.frames > 0 or not viewer.is_open,
            f"frames in {options.source} that have {', '.join(sorted(set().union(*parts.values())))} with equal stamps",
            "none: label it with --model",
        )


def _show_labelled(options: argparse.Namespace, playback: Playback) -> None:
    """Label the images of a bag on the way, and show that."""
    from rt_panoptic_ros.frames.message_layout import decode_message, stamp_ns

    labelling = _Labelling(options)
    with _recording(options, options.source) as (viewer, recorder):
        recorder.show_classes(labelling.classes)
        count, skipped = playback.count(playback.images), dict[str, int]()
        for topic, _, message in _until_closed(playback.messages(playback.images), viewer, count, "frame"):
            camera = playback.images[topic]
            try:
                frame = labelling.label(decode_message(message), stamp_ns(message.header), camera)
            except InvalidInputError as error:
                skipped[str(error)] = skipped.get(str(error), 0) + 1
            else:
                recorder.add(camera, frame)
        for reason, number in skipped.items():
            _LOG.warning("left out %d frames: %s", number, reason)
        require(recorder.frames > 0 or not viewer.is_open, f"frames in {options.source} that can be labelled", "none")


def _view_live(options: argparse.Namespace) -> int:
    from rt_panoptic_ros.ros.processes import require_ros

    require_ros("--live")
    _refuse(options, (*_OF_LABELLING, "images"), "--live shows what the node does, by the node's parameters")
    from rt_panoptic_ros.ros.tools.live_view import view_node

    node = options.node or _NODE
    with _recording(options, node, wait=False) as (viewer, recorder):
        arguments = [] if options.ros_args is None else ["--ros-args", *options.ros_args]
        return view_node(node, recorder, viewer, _CAMERA, arguments)


class _Labelling:
    """The pipeline that the options ask for, and what is shown of its results."""

    def __init__(self, options: argparse.Namespace) -> None:
        from rt_panoptic_ros.labeller import FrameLabeller, OutputStyle
        from rt_panoptic_ros.model.label_map import read_label_map
        from rt_panoptic_ros.panoptic.class_filter import parse_class_names

        options.model = options.model or DEFAULT_MODEL
        label_map = read_label_map(options.label_map) if options.label_map else None
        self._labeller = FrameLabeller(open_pipeline_of(options), label_map)
        self.classes = self._labeller.classes
        self._class_ids = parse_class_names(options.object_classes, self.classes)
        self._output_size = parse_size("--output-size", options.output_size)
        self._tracking = options.tracking
        self._style = OutputStyle()

    def label(self, image: CameraImage, stamp_ns: int, camera: str) -> ViewedFrame:
        """Return what is shown of a camera's next image; raises as `FrameLabeller.label` does."""
        from rt_panoptic_ros.frames.message_layout import detection_fields
        from rt_panoptic_ros.frames.pixel_encodings import to_rgb
        from rt_panoptic_ros.viewing.outputs import viewed_object
        from rt_panoptic_ros.viewing.recorder import ViewedFrame

        frame = self._labeller.label(
            image, stamp_ns, camera=camera, class_ids=self._class_ids, tracking=self._tracking,
            output_size=self._output_size,
        )  # fmt: skip
        return ViewedFrame(
            stamp_ns,
            image=to_rgb(image),
            semantic=frame.pixels("semantic", self._style),
            instance=frame.pixels("instance", self._style),
            objects=[
                viewed_object(SimpleNamespace(**fields, mask_box=SimpleNamespace(**region)))
                for fields, region in detection_fields(frame.result.detections, frame.classes)
            ],
            timings_ms=frame.timings_ms,
        )


@contextmanager
def _recording(options: argparse.Namespace, title: str, *, wait: bool = True) -> Iterator[tuple[Viewer, ViewRecorder]]:
    """Give what shows frames, and what takes them; `wait`, at the end, until nobody looks any more.

    A file without a frame is deleted, so that its place is free for the next try.
    """
    from rt_panoptic_ros.viewing import viewers
    from rt_panoptic_ros.viewing.recorder import ViewRecorder

    if options.out is not None:
        opened = viewers.open_file(options.out)
    else:
        opened = viewers.open_window() if options.web is None else viewers.open_page(options.web)
    with opened as viewer:
        if viewer.process is not None:
            print(f"Look at {viewer.place}", flush=True)
        frames = 0
        try:
            recorder = ViewRecorder(viewer.sink, title)
            try:
                yield viewer, recorder
            finally:
                frames = recorder.frames
                if viewer.is_open:
                    recorder.close()
        finally:
            if options.out is not None and frames == 0:
                options.out.unlink(missing_ok=True)
        if viewer.process is None:
            print(
                f"{frames} frames are in {viewer.place}" if frames else f"no frame came, so there is no {options.out}"
            )
        elif wait and viewer.is_open:
            print(f"{frames} frames are shown{viewer.ending}", flush=True)
            with suppress(KeyboardInterrupt):
                viewer.process.wait()


def _until_closed(items: Iterable[Item], viewer: Viewer, count: int | None, unit: str) -> Iterator[Item]:
    """Give items, with a progress bar, until nobody looks any more."""
    from tqdm import tqdm

    for item in tqdm(items, total=count, unit=unit, desc="showing"):
        if not viewer.is_open:
            return
        yield item


def _refuse(options: argparse.Namespace, names: Iterable[str], why: str) -> None:
    """Refuse the options of some names, which would do nothing."""
    for name in names:
        require(not getattr(options, name), f"no --{name.replace('_', '-')}, as {why}", "it: leave it out")


def _is_bag(source: str) -> bool:
    path = Path(source)
    names = [entry.name for entry in path.iterdir()] if path.is_dir() else [path.name]
    return any(name.endswith(_BAG_ENDS) for name in names)


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    command = commands.add_parser("view", help="look at labels with Rerun: of a video, a camera, a bag, a running node")
    command.set_defaults(run=_view)
    command.add_argument(
        "source", nargs="?", metavar="SOURCE",
        help="image, folder of images, video or camera number, as for predict; a bag: a folder, .mcap or .db3 file; "
        "or what --out wrote",
    )  # fmt: skip
    command.add_argument("--live", action="store_true", help="look at a running node (needs ROS)")
    place = command.add_mutually_exclusive_group()
    place.add_argument("--out", type=Path, metavar="FILE.rrd", help="write a file instead of opening a window")
    place.add_argument(
        "--web", type=positive, nargs="?", const=_PAGE_PORT, metavar="PORT",
        help=f"serve a page for browsers of this machine, at PORT (default: {_PAGE_PORT}) and its data at the next one",
    )  # fmt: skip
    add_pipeline(command, model_required=False)
    add_labels(command)
    command.add_argument(
        "--images", nargs="+", default=[], metavar="TOPIC", help="of a bag (default: all with a camera's images)"
    )
    command.add_argument("--node", help=f"name of the running node, for --live (default: {_NODE})")
    command.add_argument("--ros-args", nargs=argparse.REMAINDER, help="what follows is for ROS")
