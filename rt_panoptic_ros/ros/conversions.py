# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The only module that makes ROS messages of this package's records, as `message_layout` says they lie.

An `array.array` is what a message's data can take and give without going through Python integers; anything else that
looks as convenient (a list, an ndarray, `array('B', memoryview)`) takes a thousand times as long.
"""

from __future__ import annotations

import array
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
from sensor_msgs.msg import CameraInfo, Image, PointCloud2, PointField, RegionOfInterest
from std_msgs.msg import String

from rt_panoptic_ros.frames.message_layout import class_names_text, detection_fields, image_layout, label_space_text
from rt_panoptic_ros.frames.outputs import OUTPUTS
from rt_panoptic_ros.geometry.cloud import POINT, cloud_layout
from rt_panoptic_ros.geometry.intrinsics import scaled_info
from rt_panoptic_ros.msg import PanopticDetection, PanopticDetectionArray

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from std_msgs.msg import Header
    from vision_msgs.msg import Detection2DArray, Detection3DArray, LabelInfo

    from rt_panoptic_ros.model.class_table import ClassTable
    from rt_panoptic_ros.records import DetectionTable


def output_classes(names: Iterable[str] = tuple(OUTPUTS)) -> dict[str, Any]:
    """Return {output: class of its messages}, without optional outputs whose package is not installed."""
    classes = {}
    for name in names:
        package, _, kind = OUTPUTS[name].type.split("/")
        try:
            classes[name] = getattr(import_module(f"{package}.msg"), kind)
        except ImportError:
            if not OUTPUTS[name].optional:
                raise
    return classes


def image_to_msg(pixels: np.ndarray, encoding: str, header: Header, reuse: Image | None = None) -> Image:
    """Return an image message with a copy of `pixels` and the given header.

    Args:
        pixels: (H, W) or (H, W, C), of the type that the encoding says.
        encoding: One of sensor_msgs' image encodings.
        header: Taken as it is.
        reuse: A message to fill again instead of a new one, once nobody needs its content any more (publishing
            needs it only during the call): its memory need not be fetched from the system again.
    """
    msg = Image() if reuse is None else reuse
    msg.header = header
    msg.encoding = encoding
    for name, value in image_layout(pixels).items():
        setattr(msg, name, value)
    source = np.ascontiguousarray(pixels).data.cast("B")
    if len(msg.data) == len(source):
        memoryview(msg.data)[:] = source
    else:
        data = array.array("B")
        data.frombytes(source)
        msg.data = data
    return msg


def detections_to_msg(
    detections: DetectionTable, classes: ClassTable, image_size: tuple[int, int], header: Header
) -> PanopticDetectionArray:
    """Return the objects of one frame, by rising id.

    Args:
        detections: The objects.
        classes: Names of the class ids.
        image_size: (height, width) of the labels, px.
        header: Taken as it is.
    """
    messages = [
        PanopticDetection(mask_box=RegionOfInterest(**region), **fields)
        for fields, region in detection_fields(detections, classes)
    ]
    return PanopticDetectionArray(header=header, height=image_size[0], width=image_size[1], detections=messages)


def detections_2d_to_msg(array: PanopticDetectionArray, *, lasting_ids: bool) -> Detection2DArray:
    """Return the same objects in vision_msgs' form: visible boxes, and class ids as `label_info_to_msg` has them.

    Args:
        array: The objects.
        lasting_ids: Whether an instance id says the same object in each image, as an equal `id` does in vision_msgs;
            without that, `id` is empty.
    """
    from vision_msgs.msg import BoundingBox2D, Detection2D, Detection2DArray, ObjectHypothesisWithPose

    messages = []
    for entry in array.detections:
        region = entry.mask_box
        box = BoundingBox2D(size_x=float(region.width), size_y=float(region.height))
        box.center.position.x = region.x_offset + region.width / 2
        box.center.position.y = region.y_offset + region.height / 2
        hypothesis = ObjectHypothesisWithPose()
        hypothesis.hypothesis.class_id, hypothesis.hypothesis.score = str(entry.class_id), entry.score
        lasting_id = str(entry.instance_id) if lasting_ids else ""
        messages.append(Detection2D(header=array.header, results=[hypothesis], bbox=box, id=lasting_id))
    return Detection2DArray(header=array.header, detections=messages)


def points_to_msg(size: tuple[int, int], header: Header, reuse: PointCloud2) -> tuple[PointCloud2, np.ndarray]:
    """Return a message for an organised cloud, and its points, (height, width) of `cloud.POINT`, to be filled in place.

    Args:
        size: (height, width) of the cloud.
        header: The camera image's.
        reuse: A message to fill again, once nobody needs its content any more.
    """
    layout = cloud_layout(size)
    fields = [PointField(**field) for field in layout.pop("fields")]
    reuse.header, reuse.fields = header, fields
    for name, value in layout.items():
        setattr(reuse, name, value)
    if len(reuse.data) != size[0] * layout["row_step"]:
        data = array.array("B")
        data.frombytes(bytes(size[0] * layout["row_step"]))
        reuse.data = data
    return reuse, np.frombuffer(memoryview(reuse.data), POINT).reshape(size)


def detections_3d_to_msg(detections: Iterable[Mapping[str, Any]], header: Header) -> Detection3DArray:
    """Return objects in vision_msgs' form.

    Args:
        detections: As `LocatedFrame.detections` gives them.
        header: Of the camera image, with the frame along whose axes the boxes are.
    """
    from vision_msgs.msg import BoundingBox3D, Detection3D, Detection3DArray, ObjectHypothesisWithPose

    messages = []
    for entry in detections:
        box, hypothesis = BoundingBox3D(), ObjectHypothesisWithPose()
        for name, center, size in zip("xyz", entry["center"].tolist(), entry["size"].tolist(), strict=True):
            setattr(box.center.position, name, center)
            setattr(box.size, name, size)
        hypothesis.hypothesis.class_id, hypothesis.hypothesis.score = entry["class_id"], entry["score"]
        hypothesis.pose.pose = box.center
        messages.append(Detection3D(header=header, results=[hypothesis], bbox=box, id=entry["id"]))
    return Detection3DArray(header=header, detections=messages)


def camera_info_to_msg(
    info: CameraInfo, image_size: tuple[int, int], size: tuple[int, int], header: Header
) -> CameraInfo:
    """Return a camera's info for its outputs, with the image's own header; see `scaled_info`."""
    fields = {name: getattr(info, name) for name in info.get_fields_and_field_types()}
    fields |= {"header": header, **scaled_info(info, image_size, size)}
    if size != image_size:
        fields["roi"] = RegionOfInterest()
    return CameraInfo(**fields)


def label_info_to_msg(classes: ClassTable, threshold: float) -> LabelInfo:
    """Return a class table in vision_msgs' form, with the score from which objects are told of."""
    from vision_msgs.msg import LabelInfo, VisionClass

    ids = classes.published.tolist()
    class_map = [VisionClass(class_id=ids[number], class_name=name) for number, name in enumerate(classes.names)]
    return LabelInfo(class_map=class_map, threshold=threshold)


def class_names_to_msg(classes: ClassTable) -> String:
    """Return a class table as JSON, see `class_names_text`."""
    return String(data=class_names_text(classes))


def label_space_to_msg(classes: ClassTable) -> String:
    """Return the categories of the panoptic image as YAML, see `label_space_text`."""
    return String(data=label_space_text(classes))
