# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Fuzz targets: what comes as messages, be it over the graph or from a bag."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
from fuzz.fuzzing import FindError, UnusableError, headed, number, parted, real, target, text, workplace
from rosbags.serde import SerdeError

from rt_panoptic_ros.bags.messages import COMPRESSED_IMAGE, IMAGE, message_store
from rt_panoptic_ros.bags.storage import CDR, Bag, Channel, Message, Schema
from rt_panoptic_ros.bags.topics import NODE, find_cameras
from rt_panoptic_ros.frames.depth import decode_depth
from rt_panoptic_ros.frames.message_layout import decode_message
from rt_panoptic_ros.frames.pixel_encodings import _KNOWN, to_rgb
from rt_panoptic_ros.geometry.cloud import POINT, fill_cloud, metres
from rt_panoptic_ros.geometry.intrinsics import Intrinsics, scaled_info
from rt_panoptic_ros.inference.input_image import check_image, plan_geometry, prepare_input
from rt_panoptic_ros.model.bundle import InputSpec
from rt_panoptic_ros.records import CameraImage

_INPUTS = (InputSpec(size=(32, 48)), InputSpec(size=(32, 48), fit="pad", color_order="rgb"))


def _use(image: CameraImage) -> None:
    """Do with a decoded image what the node does up to the network."""
    check_image(image)
    height, width = image.pixels.shape[:2]
    rgb = to_rgb(image)
    if rgb.shape != (height, width, 3) or rgb.dtype != np.uint8:
        raise FindError(f"an image of {height} x {width} became {rgb.shape} {rgb.dtype}")
    for spec in _INPUTS:
        prepared = prepare_input(image, plan_geometry((height, width), spec, None), spec)
        if prepared.shape != (32, 48, 3):
            raise FindError(f"an image of {height} x {width} became an input of {prepared.shape}")


def _image_seeds() -> list[bytes]:
    seeds = []
    for encoding in sorted(_KNOWN):
        channels = (
            4 if "rgba" in encoding or "bgra" in encoding else 3 if "rgb8" in encoding or "bgr" in encoding else 2
        )
        step = 6 * channels * (2 if encoding.endswith("16") else 1)
        fields = {"encoding": encoding, "height": 4, "width": 6, "step": step, "is_bigendian": 0, "frame_id": "camera"}
        seeds.append(headed(fields, bytes(range(step * 4))))
    fields = {"encoding": "nv12", "height": 4, "width": 6, "step": 6, "is_bigendian": 0}
    seeds += [headed({**fields, "encoding": name}, bytes(range(36))) for name in ("nv12", "nv21", "i420", "yv12")]
    seeds.append(headed({**fields, "encoding": "nv24"}, bytes(range(72))))
    seeds.append(headed({**fields, "encoding": "bayer_rggb8"}, bytes(range(24))))
    return seeds


def _header(fields: dict[str, Any]) -> SimpleNamespace:
    return SimpleNamespace(frame_id=text(fields, "frame_id"))


def image_of(data: bytes) -> SimpleNamespace:
    """Return a sensor_msgs/Image; where `fitted` is, with as many bytes as its fields ask for."""
    fields, content = parted(data)
    message = SimpleNamespace(
        header=_header(fields), encoding=text(fields, "encoding"), is_bigendian=number(fields, "is_bigendian", 8),
        **{name: number(fields, name, 32) for name in ("height", "width", "step")},
    )  # fmt: skip
    size = message.height * message.step
    if fields.get("fitted") and size <= 1 << 22:
        content = (content * (size // max(1, len(content)) + 1))[:size].ljust(size, b"\0")
    message.data = np.frombuffer(content, np.uint8)
    return message


@target(_image_seeds, share=20)
def image_message(data: bytes) -> None:
    _use(decode_message(image_of(data)))


def _depth_seeds() -> list[bytes]:
    fields = {"encoding": "16UC1", "height": 4, "width": 6, "step": 12, "is_bigendian": 0, "fitted": 1}
    real_depth = np.array([np.nan, np.inf, -np.inf, -1, 0, 1e30, 1e-30, 2], np.float32).tobytes()
    seeds = [headed(fields, bytes(range(48))), headed({**fields, "encoding": "32FC1", "step": 24}, real_depth)]
    return [*seeds, headed({**fields, "encoding": "32FC1", "step": 25, "is_bigendian": 1}, real_depth)]


@target(_depth_seeds, share=8)
def depth_message(data: bytes) -> None:
    depth = decode_depth(image_of(data))
    if depth.size > 1 << 20:
        raise UnusableError
    size = depth.shape[:2]
    cloud = np.zeros(size, POINT)
    rgb, labels = np.zeros((*size, 3), np.uint8), np.zeros(size, np.uint8)
    confidence = np.zeros(size, np.uint8)
    fill_cloud(
        cloud, metres(np.ascontiguousarray(depth)), rgb, labels, labels.astype(np.uint16), confidence,
        Intrinsics(100.0, 100.0, 3.0, 2.0),
    )  # fmt: skip


def _camera_info_seeds() -> list[bytes]:
    info = {
        "k": [500.0, 0, 320, 0, 500, 240, 0, 0, 1], "p": [500.0, 0, 320, 0, 0, 500, 240, 0, 0, 0, 1, 0], "height": 480,
        "width": 640, "binning_x": 0, "binning_y": 0, "roi_height": 0, "roi_width": 0, "x_offset": 0, "y_offset": 0,
        "image": [480, 640], "size": [480, 640], "d": [0.1, 0, 0, 0, 0], "distortion_model": "plumb_bob",
    }  # fmt: skip
    binned = {**info, "binning_x": 2, "binning_y": 2, "image": [240, 320], "size": [48, 64], "p": [0.0] * 12}
    cut = {**info, "roi_height": 100, "roi_width": 200, "x_offset": 3, "image": [100, 200], "size": [50, 100]}
    return [headed(one) for one in (info, binned, cut)]


@target(_camera_info_seeds, share=8)
def camera_info(data: bytes) -> None:
    fields, _ = parted(data)
    names = ("height", "width", "binning_x", "binning_y")
    info = SimpleNamespace(**{name: number(fields, name, 32) for name in names})
    info.roi = SimpleNamespace(
        height=number(fields, "roi_height", 32), width=number(fields, "roi_width", 32),
        x_offset=number(fields, "x_offset", 32), y_offset=number(fields, "y_offset", 32),
    )  # fmt: skip
    sizes = []
    for name in ("image", "size"):
        size = fields.get(name)
        if (
            not isinstance(size, list)
            or len(size) != 2
            or not all(isinstance(s, int) and 0 < s < 1 << 16 for s in size)
        ):
            raise UnusableError
        sizes.append((size[0], size[1]))
    info.distortion_model = text(fields, "distortion_model")
    for name, count in (("k", 9), ("p", 12), ("d", None)):
        values = fields.get(name, [])
        if not isinstance(values, list) or len(values) != (len(values) if count is None else count):
            raise UnusableError
        setattr(info, name, np.array([real(value) for value in values]))
    found = Intrinsics.of(info, *sizes)
    if not np.isfinite([found.fx, found.fy, found.cx, found.cy]).all():
        raise FindError(f"an accepted camera_info gives {found}")
    changes = scaled_info(info, *sizes)
    if any(len(changes[name]) != count for name, count in (("k", 9), ("p", 12)) if changes):
        raise FindError("matrices of another size")


def _compressed_seeds() -> list[bytes]:
    picture = np.random.default_rng(1).integers(0, 256, (16, 24, 3), np.uint8)
    picture[:, 12:] = picture[:1, :1]
    seeds = []
    for end, codec in ((".png", "png"), (".jpg", "jpeg"), (".tiff", "tiff")):
        for pixels, origin in ((picture, "bgr8"), (picture[..., 0], "mono8"), (picture[..., 0], "bayer_rggb8")):
            content = cv2.imencode(end, np.ascontiguousarray(pixels))[1].tobytes()
            seeds.append(headed({"format": f"{origin}; {codec} compressed {origin}"}, content))
            seeds.append(headed({"format": codec}, content))
    deep = picture.astype(np.uint16) * 257
    for pixels, origin in ((deep, "rgb16"), (deep[..., 0], "16UC1"), (deep[..., 0], "mono16")):
        content = cv2.imencode(".png", np.ascontiguousarray(pixels))[1].tobytes()
        seeds.append(headed({"format": f"{origin}; png compressed"}, content))
    alpha = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_BGR2BGRA))[1].tobytes()
    return [*seeds, headed({"format": ""}, alpha)]


@target(_compressed_seeds, share=10)
def compressed_image(data: bytes) -> None:
    fields, content = parted(data)
    pixels = np.frombuffer(content, np.uint8)
    _use(decode_message(SimpleNamespace(header=_header(fields), format=text(fields, "format"), data=pixels)))


class _RecordedImage:
    """A bag's file with one message."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def messages(self, wanted: Any) -> Any:
        if 0 in wanted:
            yield Message(0, 1, 1, 0, self._data)


def _recorded_seeds() -> list[bytes]:
    store: Any = message_store()
    types = store.types
    stamp = types["builtin_interfaces/msg/Time"](sec=1, nanosec=2)
    header = types["std_msgs/msg/Header"](stamp=stamp, frame_id="camera")
    pixels = np.arange(72, dtype=np.uint8)
    layout = {"height": 4, "width": 6, "step": 18, "is_bigendian": 0, "data": pixels}
    messages = [
        (IMAGE, types[IMAGE](header=header, encoding="rgb8", **layout)),
        (IMAGE, types[IMAGE](header=header, encoding="mono16", **{**layout, "step": 12, "data": pixels[:48]})),
        (COMPRESSED_IMAGE, types[COMPRESSED_IMAGE](header=header, format="jpeg", data=pixels)),
    ]
    seeds = [headed({"type": kind, "topic": "/a"}, bytes(store.serialize_cdr(one, kind))) for kind, one in messages]
    table = types["std_msgs/msg/String"](data='{"name": "a", "classes": []}')
    content = bytes(store.serialize_cdr(table, "std_msgs/msg/String"))
    return [*seeds, headed({"type": "std_msgs/msg/String", "topic": f"{NODE}/class_names"}, content)]


@target(_recorded_seeds, share=6)
def recorded_message(data: bytes) -> None:
    fields, content = parted(data)
    bag = Bag(workplace() / "bag")
    bag.channels.append(Channel(text(fields, "topic"), CDR, Schema(text(fields, "type"), "ros2msg", b""), {}))
    bag.files.append(_RecordedImage(content))  # type: ignore[arg-type]
    cameras, _ = find_cameras(bag, ())
    if cameras:
        with contextlib.suppress(SerdeError):
            _use(decode_message(message_store().deserialize_cdr(content, bag.channels[0].type_name)))
