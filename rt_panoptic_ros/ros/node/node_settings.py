# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The panoptic node's own settings (all but the post-processing's): each default, range and description exists once.

Knows no ROS, so that the launch file derives its arguments from here; `parameters.py` declares them as ROS parameters.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from rt_panoptic_ros.errors import InvalidInputError, require
from rt_panoptic_ros.frames.outputs import FRAME_OUTPUTS
from rt_panoptic_ros.resources import DEFAULT_MODEL
from rt_panoptic_ros.settings import (
    BACKENDS,
    DEPTH_SLACK_S,
    OVERLAY_OPACITY,
    PALETTES,
    PRECISIONS,
    Change,
    check_device,
    listed,
    parse_size,
    setting,
    settings_of,
)

RELIABILITIES = ("best_effort", "reliable")
TRANSPORTS = ("raw", "compressed")

_MOST_CAMERAS = 32

_CAMERA = re.compile(r"([A-Za-z][A-Za-z0-9_]*)\s*=\s*(~?/?[A-Za-z_][A-Za-z0-9_/]*)")


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """What a user can say about the node.

    Raises:
        InvalidInputError: The device, a size, the cameras or the outputs are not of their form.
    """

    model: str = setting(
        DEFAULT_MODEL,
        "Model bundle: the path of its folder, or the name of one that comes with the package.",
        Change.INACTIVE,
    )
    backend: str = setting(
        "auto",
        "What computes the network; auto takes the best one of this machine, as `rt-panoptic tune` has measured it.",
        Change.INACTIVE,
        choices=BACKENDS,
    )
    device: str = setting(
        "auto",
        "Where to compute: cpu, cuda, cuda:N for one of several GPUs, from 0, or auto for a GPU if there is one.",
        Change.INACTIVE,
    )
    precision: str = setting(
        "auto",
        "Of the convolutions; float16 is faster on a GPU, int8 everywhere where the model has ranges. On a CPU, auto "
        "is int8 where the model's card says that it loses at most half a point; else float32.",
        Change.INACTIVE,
        choices=("auto", *PRECISIONS),
    )
    tf32: bool = setting(
        False,
        "Let float32 convolutions and products round their inputs to 10 bits of mantissa (TF32), for an NVIDIA GPU's "
        "tensor cores; of no effect on a CPU.",
        Change.INACTIVE,
    )
    network_size: str = setting(
        "", "Size of the network's input as HEIGHTxWIDTH in px, such as 512x1024; empty for the model's own.",
        Change.INACTIVE,
    )  # fmt: skip
    camera_size: str = setting(
        "",
        "Size of the camera's images as HEIGHTxWIDTH in px, to warm the network up for before the first frame; "
        "empty if unknown. Images of other sizes are accepted all the same.",
        Change.INACTIVE,
    )
    label_map: str = setting(
        "",
        "Label map that merges, renames and drops the model's classes: a YAML file, or the name of one in "
        "config/label_maps; empty for the classes as they are.",
        Change.INACTIVE,
    )
    cameras: str = setting(
        "",
        "Several cameras that take turns, as NAME=TOPIC with commas between, such as front=/front/image_raw,"
        "rear=/rear/image_raw; their outputs are ~/NAME/.... Empty for one camera on the topic image.",
        Change.INACTIVE,
    )
    image_transport: str = setting(
        "raw",
        "How the camera's images come: raw on its topic, or compressed (JPEG, PNG) on TOPIC/compressed.",
        Change.INACTIVE,
        choices=TRANSPORTS,
    )
    image_reliability: str = setting(
        "best_effort",
        "Reliability asked of the camera; best_effort receives from every camera, reliable only from a reliable one.",
        Change.INACTIVE,
        choices=RELIABILITIES,
    )
    output_reliability: str = setting(
        "reliable",
        "Reliability offered to the subscribers of the outputs; reliable serves both kinds.",
        Change.INACTIVE,
        choices=RELIABILITIES,
    )
    max_rate_hz: float = setting(
        0.0, "Images processed per second and camera at most, the rest is skipped; 0 for no limit.",
        minimum=0.0, maximum=1000.0,
    )  # fmt: skip
    enabled_outputs: str = setting(
        ",".join(FRAME_OUTPUTS), "Outputs that are published, if someone subscribes; with commas between."
    )
    lazy: bool = setting(True, "Receive and process images only while someone subscribes to an output.")
    object_classes: str = setting(
        "",
        "Names of the classes whose objects are told of, with commas between, such as person,vehicle; empty for all. "
        "The semantic image keeps all classes.",
    )
    mask_classes: str = setting(
        "",
        "Names of the classes whose pixels ~/mask has and ~/depth_filtered lacks, with commas between, such as "
        "person,sky; empty for all countable ones.",
    )
    depth_sync: str = setting(
        "approximate",
        "Which depth is an image's: the one with its own stamp (exact), or else the nearest within depth_slack_s.",
        choices=("exact", "approximate"),
    )
    depth_slack_s: float = setting(
        DEPTH_SLACK_S, "By how much the stamps of an image and its depth may differ.", minimum=0.0, maximum=1.0
    )
    target_frame: str = setting(
        "",
        "Frame along whose axes the boxes of ~/detections_3d are, through tf2, such as base_link; empty for the "
        "camera's optical frame.",
        Change.INACTIVE,
    )
    output_size: str = setting(
        "",
        "Size of all outputs as HEIGHTxWIDTH in px, such as 480x640 to match a point cloud's: labels by nearest "
        "neighbour; empty for the camera image's.",
    )
    tracking: bool = setting(
        False, "Keep an object's id from image to image, by class and mask overlap; else ids count anew."
    )
    overlay_opacity: float = setting(
        OVERLAY_OPACITY, "Share of the class colours in the overlay.", minimum=0.0, maximum=1.0
    )
    palette: str = setting(
        "dataset",
        "Colours of the overlay: the dataset's own, or colorblind for ones that colour-blind people tell apart.",
        choices=PALETTES,
    )
    watchdog_s: float = setting(
        30.0,
        "Time after which a frame whose work doesn't end has the process end with status 75, so that whatever started "
        "it (the launch argument respawn) starts it anew; loading is not counted. 0 to only tell of it.",
        minimum=0.0, maximum=3600.0,
    )  # fmt: skip
    model_folders: str = setting(
        "",
        "Folders, with commas between, in which a model or a label map may lie that is set while the node runs; "
        "besides, the ones given at start may be set again, and those that come with the package.",
        Change.STARTUP,
    )
    build_only: bool = setting(
        False, "Load the network (tensorrt: build its engine), then end: for provisioning a robot.", Change.STARTUP
    )
    autostart: bool = setting(
        True, "Configure and activate at start; false leaves that to a lifecycle manager.", Change.STARTUP
    )

    def __post_init__(self) -> None:
        check_device(self.device)
        for name in ("network_size", "camera_size", "output_size"):
            parse_size(name, getattr(self, name))
        parse_cameras(self.cameras)
        parse_outputs(self.enabled_outputs)

    def structure(self) -> dict[str, object]:
        """Return the settings that what configuring acquires depends on."""
        names = [one.name for one in settings_of(NodeSettings) if one.change is Change.INACTIVE]
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class Periods:
    """How long the node waits, s; no user's choice, but tests have others."""

    diagnostics_s: float = 1.0  # between reports
    demand_s: float = 0.2  # between looks for subscribers: events that tell of them exist only since Iron
    silence_s: float = 5.0  # without an image, after which a camera counts as silent
    lasting_s: float = 30.0  # that a trouble has kept all results away, after which its warning is an error
    rest_s: float = 0.04  # at most that a camera which is faster than the pipeline is left alone after an image
    stuck_s: float = 5.0  # at the same frame, from which on it is told as an error
    end_s: float = 0.5  # at most that an end waits for the work at hand: no library's call can be interrupted


def parse_cameras(text: str) -> dict[str, str]:
    """Return {name: topic} of a text such as front=/front/image_raw,rear=/rear/image_raw; empty for empty text.

    Raises:
        InvalidInputError: Of another form, more than 32, or a name or topic comes twice.
    """
    cameras: dict[str, str] = {}
    for part in listed(text):
        match = _CAMERA.fullmatch(part)
        if match is None or "//" in part or part.endswith("/"):
            raise InvalidInputError(
                f"expected cameras as NAME=TOPIC with commas between, such as front=/front/image_raw, got '{part}'"
            )
        name, topic = match.groups()
        if name in cameras or topic in cameras.values():
            raise InvalidInputError(
                f"expected every camera to have its own name and topic, got '{part}' beside another"
            )
        cameras[name] = topic
    require(len(cameras) <= _MOST_CAMERAS, f"at most {_MOST_CAMERAS} cameras", len(cameras))
    return cameras


def beside(topic: str, name: str) -> str:
    """Return the topic of a name beside another topic: /front/depth for /front/image_raw."""
    before, slash, _ = topic.rpartition("/")
    return f"{before}{slash}{name}"


@lru_cache(maxsize=8)  # asked for every frame
def parse_outputs(text: str) -> frozenset[str]:
    """Return the outputs that a text such as semantic,instance names.

    Raises:
        InvalidInputError: A name is not one of `FRAME_OUTPUTS`.
    """
    names = frozenset(listed(text))
    if unknown := sorted(names.difference(FRAME_OUTPUTS)):
        raise InvalidInputError(
            f"expected enabled_outputs to name some of {', '.join(FRAME_OUTPUTS)}, got '{unknown[0]}'"
        )
    return names
