# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Fuzz target: a node's outputs on their way into the viewer, for which Rerun must be installed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
from fuzz.frame_targets import image_of
from fuzz.fuzzing import FindError, UnusableError, headed, number, parted, target, text

from rt_panoptic_ros.errors import InvalidInputError
from rt_panoptic_ros.frames.message_layout import class_names_text
from rt_panoptic_ros.frames.outputs import OUTPUTS
from rt_panoptic_ros.geometry.cloud import cloud_layout
from rt_panoptic_ros.model.class_table import load_class_table
from rt_panoptic_ros.viewing.outputs import OutputView


class _Recorder:
    """Takes what is shown."""

    def show_classes(self, classes: Any) -> None:
        classes.colors, classes.published, classes.categories  # noqa: B018

    def add_points(self, camera: str, stamp_ns: int, positions: np.ndarray, rgb: np.ndarray) -> None:
        if positions.shape != rgb.shape or not np.isfinite(positions).all():
            raise FindError(f"points of {positions.shape}, colours of {rgb.shape}")

    def add(self, camera: str, frame: Any) -> None:
        for labels in (frame.semantic, frame.instance):
            if labels is not None and labels.ndim != 2:
                raise FindError(f"labels of {labels.shape}")


def _shown_seeds() -> list[bytes]:
    layout = cloud_layout((3, 4))
    cloud = {name: value for name, value in layout.items() if name not in ("fields", "data", "is_dense")}
    cloud["is_bigendian"] = int(cloud.get("is_bigendian", 0))
    fields = [{"name": one["name"], "offset": one["offset"]} for one in layout["fields"]]
    points = headed({"part": "points", "fields": fields, **cloud}, bytes(3 * layout["row_step"]))
    names = headed({"part": "class_names"}, class_names_text(load_class_table("camvid")).encode())
    image = {"height": 4, "width": 6, "step": 6, "is_bigendian": 0}
    labels = headed({"part": "semantic", "encoding": OUTPUTS["semantic"].encoding, **image}, bytes(24))
    ids = headed({"part": "instance", "encoding": "mono16", **image, "step": 12, "is_bigendian": 1}, bytes(48))
    return [points, names, labels, ids]


@target(_shown_seeds, share=6)
def shown_output(data: bytes) -> None:
    """A node's outputs on their way into the viewer."""
    fields, content = parted(data)
    part = fields.get("part")
    if part not in ("points", "class_names", "semantic", "instance"):
        raise UnusableError
    header = SimpleNamespace(stamp=SimpleNamespace(sec=1, nanosec=2), frame_id="camera")
    if part == "class_names":
        message = SimpleNamespace(data=content.decode("utf-8", "replace"))
    elif part == "points":
        entries = fields.get("fields")
        if not isinstance(entries, list) or not all(isinstance(one, dict) for one in entries):
            raise UnusableError
        names = ("height", "width", "point_step", "row_step")
        message = SimpleNamespace(
            header=header, data=np.frombuffer(content, np.uint8), is_bigendian=bool(fields.get("is_bigendian")),
            fields=[SimpleNamespace(name=text(one, "name"), offset=number(one, "offset", 32)) for one in entries],
            **{name: number(fields, name, 32) for name in names},
        )  # fmt: skip
    else:
        message = image_of(data)
        message.header = header
    view = OutputView(_Recorder(), {"camera": [part]})  # type: ignore[arg-type]
    view.add("camera", part, message, 5)
    for why in view.skipped:
        raise InvalidInputError(why)
