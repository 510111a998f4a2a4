# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The table of what the node publishes of its cameras' images and its model.

Publishers, the messages in bags, parameters, recorder, benchmarks, doctor and the reference page derive from it. An
image's content is made in `labeller.LabelledFrame.pixels`, that of outputs with depth in `geometry/located.py`; the
messages in `ros/node/outputs.py` and `depth_outputs.py` and, for those in `BAG_OUTPUTS`, in `bags/messages.py` and
`located.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_IMAGE = "sensor_msgs/msg/Image"


@dataclass(frozen=True, slots=True)
class Output:
    """One output; its topic is named like it."""

    name: str
    type: str
    content: str  # for the reference page, which says the fields below too
    encoding: str = ""  # sensor_msgs' name of it, for an image
    images: tuple[str, ...] = ()  # those of `records.IMAGES` that it is made from; objects are in every result
    inputs: tuple[str, ...] = ()  # of camera_info and depth: the topics besides the images that it is made from
    latched: bool = False  # published when the node is activated, for all who come later; else with every image
    optional: bool = False  # left out where the type's package is not installed: it is not of ROS's base


_ALL = (
    Output(
        "semantic", _IMAGE, encoding="mono8", images=("semantic",),
        content="the camera image's size, or `output_size`: the class of every pixel, an id of the class table; 255 "
        "(0 with a label map that says so) has no class. Pixels of countable classes (things) that no object claims "
        "keep their class.",
    ),
    Output(
        "instance", _IMAGE, encoding="mono16", images=("instance",),
        content="the same size: the object that the pixel belongs to, 1 to 32767; 0 for none. Ids count from 1 in "
        "every image, by falling score; with `tracking` an object keeps its id (the rules stand in "
        "`panoptic/tracking.py`).",
    ),
    Output(
        "detections", "rt_panoptic_ros/msg/PanopticDetectionArray",
        "The objects; `instance_id` is the value of the object's pixels in the instance image, `class_id` that in the "
        "semantic image. The message files say every field's unit and range.",
    ),
    Output(
        "detections_2d", "vision_msgs/msg/Detection2DArray", optional=True,
        content="the same objects, with their visible boxes and scores; `class_id` is the class's number in "
        "`~/label_info`, as text. `id` is the instance id as text with `tracking`, else empty: in vision_msgs, an "
        "equal `id` is the same object in every image.",
    ),
    Output(
        "confidence", _IMAGE, encoding="mono8", images=("confidence",),
        content="the same size: the probability of the most likely class x 255, computed at every eighth pixel of the "
        "network's input and interpolated between; at class borders it is low.",
    ),
    Output(
        "overlay", _IMAGE, encoding="rgb8", images=("semantic", "instance"),
        content="for eyes: nothing is in it that the other topics lack.",
    ),
    Output(
        "mask", _IMAGE, encoding="mono8", images=("semantic",),
        content="the same size: 255 where the class is one of `mask_classes`, else 0.",
    ),
    Output(
        "panoptic", _IMAGE, encoding="32SC1", images=("semantic", "instance"),
        content="the same size: instance << 16 | class + 1, of the two images above (the class itself with a label map "
        "whose void is 0); 0 has no class. What the lower half counts, the categories, stands in `~/label_space`.",
    ),
    Output(
        "semantic_color", _IMAGE, encoding="rgb8", images=("semantic",),
        content="the same size: the class's colour of the class table, and nothing else; black has no class.",
    ),
    Output(
        "camera_info", "sensor_msgs/msg/CameraInfo", inputs=("camera_info",),
        content="the camera's, for the images above: their size, intrinsics scaled to it, their stamp and frame id.",
    ),
    Output(
        "points", "sensor_msgs/msg/PointCloud2", images=("semantic", "instance", "confidence"),
        inputs=("depth", "camera_info"),
        content="a point for every pixel of the images above, as many in rows and columns; NaN without depth. Fields "
        "x, y, z (m, in the camera's optical frame), rgb, class, instance, confidence, as in the images.",
    ),
    Output(
        "detections_3d", "vision_msgs/msg/Detection3DArray", optional=True, images=("instance",),
        inputs=("depth", "camera_info"),
        content="the objects with enough depth: centre and size (m) of a box around what is seen of them, along the "
        "axes of the camera's optical frame or of `target_frame`; class ids, scores and `id` as in `~/detections_2d`.",
    ),
    Output(
        "depth_filtered", _IMAGE, images=("semantic",), inputs=("depth",),
        content="the depth image, in its encoding and the size of the images above, 0 where the mask has pixels.",
    ),
    Output(
        "class_names", "std_msgs/msg/String", latched=True,
        content='the class table as JSON, {"name", "classes": [{"id", "name", "thing", "color" (RGB), "dataset_id"}]}. '
        "The colours are the dataset's own, whatever `palette` the overlay shows: they belong to the model, and the "
        "palette may change at any time.",
    ),
    Output(
        "label_info", "vision_msgs/msg/LabelInfo", latched=True, optional=True,
        content="class ids and names, and the `score_threshold` of that moment. With `cameras`, on `~/NAME/label_info` "
        "too.",
    ),
    Output(
        "label_space", "std_msgs/msg/String", latched=True,
        content="the categories of `~/panoptic` as YAML, in the form of Hydra's label spaces: `label_names` (0 is "
        "unknown), `object_labels` (the countable ones), `total_semantic_labels`.",
    ),
)  # fmt: skip

OUTPUTS = {output.name: output for output in _ALL}

FRAME_OUTPUTS = tuple(output.name for output in _ALL if not output.latched)
"""Names of the outputs that come with every image."""

BAG_OUTPUTS = (
    "semantic", "instance", "confidence", "detections", "overlay", "mask", "panoptic", "semantic_color",
    "camera_info", "points", "detections_3d", "depth_filtered", "class_names", "label_space",
)  # fmt: skip
"""Names of those that a labelled bag can have, in the order in which they are written."""

DEFAULT_BAG_OUTPUTS = ("semantic", "instance", "confidence", "detections", "class_names")

COLOURED = ("mask", "semantic_color")
"""Names of those that `rt-panoptic predict` writes as pictures where it is told to."""

LATCHED_OUTPUTS = tuple(output.name for output in _ALL if output.latched)
"""Names of those that come once."""


def inputs_of(outputs: Iterable[str]) -> frozenset[str]:
    """Return those of camera_info and depth that some outputs are made from."""
    return frozenset(topic for name in outputs for topic in OUTPUTS[name].inputs)


def images_of(outputs: Iterable[str]) -> frozenset[str]:
    """Return those of `records.IMAGES` that some outputs are made from."""
    return frozenset(image for name in outputs for image in OUTPUTS[name].images)
