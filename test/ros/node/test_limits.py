# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""What a message can make the node allocate has an end, each with one sentence, counted on /diagnostics."""

from __future__ import annotations

import array
import resource

import numpy as np
import pytest
from node_cases import Camera, activated, counts, picture, value
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from rt_panoptic_ros.errors import InvalidInputError
from rt_panoptic_ros.frames.depth import decode_depth
from rt_panoptic_ros.geometry.intrinsics import scaled_info
from rt_panoptic_ros.inference.input_image import plan_geometry
from rt_panoptic_ros.model.bundle import InputSpec, ModelBundle
from rt_panoptic_ros.pipeline import PanopticPipeline
from rt_panoptic_ros.records import CameraImage
from rt_panoptic_ros.ros import qos
from rt_panoptic_ros.ros.node.camera_stream import _MOST_TOLD

TIFF = b"II*\0" + b"".join(number.to_bytes(size, "little") for number, size in [
    (8, 4), (2, 2), (256, 2), (4, 2), (1, 4), (20_000, 4), (257, 2), (4, 2), (1, 4), (20_000, 4),
]) + bytes(64)  # fmt: skip
"""A compressed image of 98 bytes that would be 400 megapixels."""

TOO_MUCH = {
    "megapixels": Image(encoding="mono8", height=10_000, width=10_000, step=10_000),
    "rows": Image(encoding="rgb8", height=2**32 - 1, width=2**32 - 1, step=2**32 - 1),
    "chroma": Image(encoding="nv12", height=2**31, width=2**31, step=2**31),
    "long name": Image(encoding="rgb8", header=Header(frame_id="f" * 10**6)),
    "terminal": Image(encoding="rgb8", header=Header(frame_id="\x1b]0;x\x07")),
    "encoding": Image(encoding="e" * 10**6, height=1, width=1, step=1),
}


def test_the_node_refuses_counts_and_goes_on(graph, fake_node, capfd):
    activated(fake_node(image_reliability="reliable"))
    camera = Camera(graph).connected()
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number, message in enumerate(TOO_MUCH.values(), start=1):
        camera.send(message)
        status = camera.await_report(lambda one, n=number: value(one, "frames refused") == str(n))
    assert all(item.value.isprintable() and len(item.value) < 1000 for item in status.values)
    camera.send(picture(1))
    camera.await_outputs(1)
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib
    assert grown_kib < 64 << 10, "a few copies of a name of a megabyte, and no pixels"
    said = "".join(capfd.readouterr())
    assert "\x1b]" not in said
    assert max(map(len, said.splitlines())) < 1000


def test_compressed_images_say_how_large_they_will_be(graph, fake_node):
    node = activated(fake_node(image_transport="compressed", image_reliability="reliable", lazy=False))
    publisher = graph.node("camera").create_publisher(CompressedImage, "image/compressed", qos.stream("reliable"))
    graph.spin_until(publisher.get_subscription_count, "for the node")
    publisher.publish(CompressedImage(format="tiff", data=array.array("B", TIFF)))
    graph.spin_until(lambda: counts(node).refused == 1, "for the refusal")


def test_nobody_can_make_up_things_to_tell_without_end(fake_node):
    stream = activated(fake_node()).streams[0]
    for number in range(10 * _MOST_TOLD):
        stream.tell(f"trouble {number}", "words")
    assert len(stream._told) == _MOST_TOLD


def test_depth_and_calibration_too():
    depth = Image(encoding="16UC1", header=Header(frame_id="d" * 257))
    with pytest.raises(InvalidInputError, match="expected a frame_id of at most 256 printable characters, got 257"):
        decode_depth(depth)
    for info in (CameraInfo(d=[0.0] * 65), CameraInfo(distortion_model="m" * 65)):
        with pytest.raises(InvalidInputError, match="at most 64 distortion coefficients"):
            scaled_info(info, (2, 2), (2, 2))


def test_a_network_of_no_size_takes_no_image_of_any_size():
    spec = InputSpec(size=None)
    assert plan_geometry((4000, 4000), spec, None).network_size == (4000, 4000)
    with pytest.raises(InvalidInputError, match="at most 16 megapixels, as the model takes them as they come, got"):
        plan_geometry((4000, 4001), spec, None)
    assert plan_geometry((8000, 8000), spec, (512, 512)).network_size == (512, 512)


def test_images_of_ever_other_sizes_share_what_is_kept(small_bundle: ModelBundle, monkeypatch):
    """Each size has buffers of its own: as many as eight, and for large images as few as one."""
    monkeypatch.setattr("rt_panoptic_ros.pipeline._PIXELS_KEPT", 10_000)
    pipeline = PanopticPipeline(
        small_bundle, backend="onnxruntime", device="cpu", network_size=(32, 32), settings=small_bundle.settings
    )
    kept = []
    for side in (20, *range(10, 20), 60, 90, 101, 20, 21):
        pipeline(CameraImage(np.zeros((side, side, 3), np.uint8), "rgb"))
        (network,) = pipeline._networks.values()
        sizes = [geometry.camera_height for geometry in network._kept]
        assert sizes[-1] == side
        kept.append(len(sizes))
    assert kept == [1, 2, 3, 4, 5, 6, 7, 8, 8, 8, 8, 8, 1, 1, 1, 2]
    pipeline.close()
