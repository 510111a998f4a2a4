# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""What a new bag holds: stamps and times bit for bit, labels as the pipeline gives them, definitions for any reader."""

from __future__ import annotations

import json
import logging
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest
import yaml
from bag_cases import (
    IMAGE,
    NODE,
    STORE,
    STRING,
    TYPES,
    WHEEL,
    Message,
    StoragePlugin,
    by_topic,
    compressed_message,
    drive,
    image_message,
    information,
    make_bag,
    picture,
    pixels_of,
    read_bag,
    stamp_of,
    wheel_message,
    write_information,
)
from conftest import DATA
from rosbags.highlevel import AnyReader

from rt_panoptic_ros.bags.topics import camera_names
from rt_panoptic_ros.drawing.overlay import render_overlay
from rt_panoptic_ros.errors import InvalidInputError
from rt_panoptic_ros.panoptic.tracking import InstanceTracker, with_ids
from rt_panoptic_ros.pipeline import open_pipeline
from rt_panoptic_ros.records import IMAGES, CameraImage

if TYPE_CHECKING:
    from bag_cases import Label

    from rt_panoptic_ros.bags.options import BagOptions


def test_a_bag_with_its_labels(label: Label, options: BagOptions, tmp_path: Path) -> None:
    source = make_bag(tmp_path / "drive", drive(6))
    summary = label(source, tmp_path / "out", outputs=("semantic", "instance", "confidence", "detections", "overlay"))
    assert (summary.frames, summary.resumed, summary.skipped) == (6, 0, {})

    topics = by_topic(tmp_path / "out")
    assert sorted(topics) == sorted(
        ["/camera/image_raw", "/wheel", *(f"{NODE}/{name}" for name in ("semantic", "instance", "confidence")),
         f"{NODE}/detections", f"{NODE}/overlay"]
    )  # fmt: skip
    pipeline = open_pipeline(**options.pipeline)
    objects = 0
    for number, (time_ns, image) in enumerate(topics["/camera/image_raw"]):
        expected = pipeline(CameraImage(picture(number), "rgb"), images=frozenset(IMAGES))
        outputs = {name.rpartition("/")[2]: topics[name][number] for name in topics if name.startswith(NODE)}
        assert {entry[0] for entry in outputs.values()} == {time_ns}
        assert all(entry[1].header == image.header for entry in outputs.values())
        messages = {name: entry[1] for name, entry in outputs.items()}
        for name, encoding in (("semantic", "mono8"), ("instance", "mono16"), ("confidence", "mono8")):
            assert messages[name].encoding == encoding
            np.testing.assert_array_equal(pixels_of(messages[name]), getattr(expected, name))
        overlay = render_overlay(picture(number), expected, pipeline.classes)
        np.testing.assert_array_equal(messages["overlay"].data.reshape(overlay.shape), overlay)

        listed = messages["detections"]
        assert (listed.height, listed.width) == picture(number).shape[:2]
        ids, areas = np.unique(pixels_of(messages["instance"]), return_counts=True)
        shown = dict(zip(ids.tolist(), areas.tolist(), strict=True))
        shown.pop(0, None)
        assert {entry.instance_id: entry.area for entry in listed.detections} == shown
        assert [entry.class_id for entry in listed.detections] == expected.detections.class_ids.tolist()
        objects += len(shown)
    assert objects > 6
    label(source, tmp_path / "objects", outputs=("detections",))  # none of the images is made for them alone
    alone = by_topic(tmp_path / "objects")[f"{NODE}/detections"]
    assert repr(alone) == repr(topics[f"{NODE}/detections"])


def test_outputs_for_consumers_in_groups_of_another_size(label: Label, tmp_path: Path) -> None:
    groups = tmp_path / "groups.yaml"
    classes = {
        name: {"id": value, "thing": True, "color": [value, 0, 0], "of": [name]}
        for name, value in (("car", 30), ("pedestrian", 20))
    }
    groups.write_text(yaml.safe_dump({"name": "groups", "unlisted": "drop", "void": 0, "classes": classes}))
    wanted = ("semantic", "instance", "detections", "mask", "panoptic", "semantic_color", "class_names", "label_space")
    source = make_bag(tmp_path / "drive", drive(2))
    label(source, tmp_path / "out", outputs=wanted, label_map=str(groups), output_size=(24, 32), mask_classes="car")
    topics = {name.rpartition("/")[2]: entries for name, entries in by_topic(tmp_path / "out").items()}
    table = json.loads(topics["class_names"][0][1].data)
    assert ([row["id"] for row in table["classes"]], table["void"]) == ([30, 20], 0)
    space = yaml.safe_load(topics["label_space"][0][1].data)
    assert space["label_names"] == [
        {"label": 0, "name": "unknown"}, {"label": 30, "name": "car"}, {"label": 20, "name": "pedestrian"},
    ]  # fmt: skip
    objects = 0
    for number in range(2):
        messages = {name: topics[name][number][1] for name in wanted if name not in ("class_names", "label_space")}
        semantic, instance, mask = (pixels_of(messages[name]) for name in ("semantic", "instance", "mask"))
        panoptic = messages["panoptic"].data.view(np.int32).reshape(24, 32)
        assert messages["panoptic"].encoding == "32SC1"
        assert set(np.unique(semantic)) <= {0, 20, 30}
        np.testing.assert_array_equal(panoptic & 0xFFFF, semantic)
        np.testing.assert_array_equal(panoptic >> 16, instance)
        np.testing.assert_array_equal(mask, np.where(semantic == 30, 255, 0))
        np.testing.assert_array_equal(messages["semantic_color"].data.reshape(24, 32, 3)[..., 0], semantic)
        listed = messages["detections"]
        assert (listed.height, listed.width) == (24, 32)
        assert {entry.class_id for entry in listed.detections} <= {20, 30}
        assert [entry.instance_id for entry in listed.detections] == list(range(1, len(listed.detections) + 1))
        areas = np.bincount(instance.ravel(), minlength=len(listed.detections) + 1)[1:]
        assert [entry.area for entry in listed.detections] == areas.tolist()
        objects += len(listed.detections)
    assert objects


def test_the_overlay_as_it_is_asked_for(label: Label, options: BagOptions, tmp_path: Path) -> None:
    source, out = make_bag(tmp_path / "drive", drive(1)), tmp_path / "out"
    looks = {"outputs": ("overlay",), "opacity": 0.75, "palette": "colorblind"}
    label(source, out, **looks)
    pipeline = open_pipeline(**options.pipeline)
    expected = render_overlay(
        picture(0), pipeline(CameraImage(picture(0), "rgb")), pipeline.classes, 0.75, "colorblind"
    )
    ((_, message),) = by_topic(out)[f"{NODE}/overlay"]
    np.testing.assert_array_equal(message.data.reshape(expected.shape), expected)
    with pytest.raises(InvalidInputError, match="was not made with these arguments"):
        label(source, out, **{**looks, "opacity": 0.5})


def test_what_is_copied_stays_bit_for_bit_and_in_order(label: Label, tmp_path: Path) -> None:
    source = make_bag(tmp_path / "drive", drive(5))
    label(source, tmp_path / "out")
    new = [entry[:3] for entry in read_bag(tmp_path / "out") if not entry[0].startswith(NODE)]
    assert new == [entry[:3] for entry in read_bag(source)]

    def description(bag: Path) -> dict[str, dict[str, object]]:
        return {entry["topic_metadata"]["name"]: entry for entry in information(bag)["topics_with_message_count"]}

    old, made = description(source), description(tmp_path / "out")
    assert {name: made[name] for name in old} == old  # types, hashes, quality of service, counts


def test_class_names_come_once_at_the_start_and_latched(label: Label, options: BagOptions, tmp_path: Path) -> None:
    label(make_bag(tmp_path / "drive", drive(3)), tmp_path / "out")
    topic, time_ns, _, message = read_bag(tmp_path / "out")[0]
    assert (topic, time_ns) == (f"{NODE}/class_names", wheel_message(0).time_ns)
    assert json.loads(message.data) == options.model.bundle.classes.to_document()
    assert len(by_topic(tmp_path / "out")[topic]) == 1

    qos = {
        entry["topic_metadata"]["name"]: yaml.safe_load(entry["topic_metadata"]["offered_qos_profiles"])
        for entry in information(tmp_path / "out")["topics_with_message_count"]
    }
    assert (qos[topic][0]["durability"], qos[topic][0]["reliability"], qos[topic][0]["depth"]) == (1, 1, 1)
    assert qos[f"{NODE}/semantic"][0]["durability"] == 2


@pytest.mark.parametrize("kind", ["sqlite3", "mcap file", "uncompressed", "two files"])
def test_every_kind_of_bag_gives_the_same(label: Label, tmp_path: Path, kind: str) -> None:
    source = make_bag(tmp_path / "drive", drive(4))
    label(source, tmp_path / "out")
    other = source / "drive.mcap"
    if kind == "sqlite3":
        other = make_bag(tmp_path / "other", drive(4), StoragePlugin.SQLITE3)
    if kind == "two files":
        other = make_bag(tmp_path / "other", drive(4)[:4])
        second = make_bag(tmp_path / "second", drive(4)[4:])
        (second / "second.mcap").rename(other / "second.mcap")
        write_information(other, {**information(other), "relative_file_paths": ["other.mcap", "second.mcap"]})
    label(other, tmp_path / "again", compressed=kind != "uncompressed")
    assert [entry[:3] for entry in read_bag(tmp_path / "again")] == [entry[:3] for entry in read_bag(tmp_path / "out")]


def test_a_bag_of_humble_without_definitions(label: Label, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = make_bag(tmp_path / "old", drive(3), StoragePlugin.SQLITE3)
    with sqlite3.connect(source / "old.db3") as database:
        database.execute("DELETE FROM message_definitions")
        database.execute("UPDATE topics SET type_description_hash = ''")
    values = information(source)
    for entry in values["topics_with_message_count"]:
        entry["topic_metadata"]["type_description_hash"] = ""
    write_information(source, values)

    with caplog.at_level(logging.WARNING):
        label(source, tmp_path / "out")
    assert f"/wheel is not copied: the bag has no definition of {WHEEL}" in caplog.text
    topics = by_topic(tmp_path / "out")
    assert "/wheel" not in topics
    assert len(topics["/camera/image_raw"]) == len(topics[f"{NODE}/detections"]) == 3
    with pytest.raises(InvalidInputError, match=f"got /wheel: the bag has no definition of {WHEEL}"):
        label(source, tmp_path / "other", topics=("/wheel",))


def test_encodings_padded_rows_and_compression(label: Label, tmp_path: Path) -> None:
    rgb = picture(3)
    height, width = rgb.shape[:2]
    padded = np.pad(rgb.reshape(height, -1), ((0, 0), (0, 9)), constant_values=77)
    png = cv2.imencode(".png", rgb[..., ::-1])[1].tobytes()
    bayer = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    nv12 = np.vstack([bayer, rgb[: height // 2, :, 0]])  # as drivers send it: height is the picture's own
    messages = [
        image_message(0, rgb, "/plain"),
        image_message(0, padded, "/padded", width=width, step=3 * width + 9),
        image_message(0, np.ascontiguousarray(rgb[..., ::-1]), "/bgr", "bgr8"),
        compressed_message(0, png, "rgb8; png compressed bgr8", "/compressed/compressed"),
        image_message(0, bayer, "/bayer", "bayer_rggb8"),
        compressed_message(0, cv2.imencode(".png", bayer)[1].tobytes(), "bayer_rggb8; png compressed ", "/bayer_png"),
        image_message(0, nv12, "/nv12", "nv12", height=height),
        image_message(0, cv2.cvtColor(bayer, cv2.COLOR_BayerBG2RGB), "/demosaiced"),
        image_message(0, cv2.cvtColor(nv12, cv2.COLOR_YUV2RGB_NV12), "/from_nv12"),
    ]
    summary = label(make_bag(tmp_path / "bag", messages), tmp_path / "out")
    assert summary.skipped == {}
    topics = by_topic(tmp_path / "out")
    labels = {
        name: [pixels_of(topics[f"{NODE}/{name}/{part}"][0][1]) for part in ("semantic", "instance", "confidence")]
        for name in ("plain", "padded", "bgr", "compressed", "bayer", "bayer_png", "demosaiced", "nv12", "from_nv12")
    }
    for name in ("padded", "bgr", "compressed"):
        np.testing.assert_array_equal(labels[name], labels["plain"])
    for name, same in (("bayer", "demosaiced"), ("bayer_png", "demosaiced"), ("nv12", "from_nv12")):
        np.testing.assert_array_equal(labels[name], labels[same])
    assert not np.array_equal(labels["bayer"], labels["plain"])


def test_two_cameras_have_topics_and_ids_of_their_own(label: Label, tmp_path: Path) -> None:
    front, rear = (f"/{name}/image_raw" for name in ("front", "rear"))
    pairs = [
        (image_message(number, picture(number), front), image_message(number, picture(number + 1, (64, 64)), rear))
        for number in range(5)
    ]
    both = make_bag(tmp_path / "both", [message for pair in pairs for message in pair])
    summary = label(both, tmp_path / "out", tracking=True)
    assert {camera.topic: camera.prefix for camera in summary.cameras} == {front: f"{NODE}/front", rear: f"{NODE}/rear"}
    assert "/front/image_raw -> /panoptic_node/front" in summary.format()
    topics = by_topic(tmp_path / "out")
    for place, name in enumerate(("front", "rear")):
        label(make_bag(tmp_path / name, [pair[place] for pair in pairs]), tmp_path / f"{name}_out", tracking=True)
        alone = by_topic(tmp_path / f"{name}_out")
        for part in ("semantic", "instance", "confidence"):
            for (_, one), (_, other) in zip(topics[f"{NODE}/{name}/{part}"], alone[f"{NODE}/{part}"], strict=True):
                assert stamp_of(one) == stamp_of(other)
                np.testing.assert_array_equal(one.data, other.data)

    label(both, tmp_path / "rear_only", images=(rear,), topics=())
    assert sorted(by_topic(tmp_path / "rear_only")) == [
        f"{NODE}/{name}" for name in ("class_names", "confidence", "detections", "instance", "semantic")
    ]


def test_tracked_ids_are_the_trackers(label: Label, options: BagOptions, tmp_path: Path) -> None:
    # The recording begins again in the middle, and so do the ids.
    messages = [image_message(number, picture(number)) for number in (*range(6), *range(6))]
    late = [Message(m.topic, m.kind, m.data, m.time_ns + 10**9 * (k >= 6)) for k, m in enumerate(messages)]
    label(make_bag(tmp_path / "drive", late), tmp_path / "out", tracking=True, outputs=("instance", "detections"))
    topics = by_topic(tmp_path / "out")
    pipeline, tracker = open_pipeline(**options.pipeline), InstanceTracker()
    changed = 0
    for frame, (_, message) in enumerate(topics[f"{NODE}/instance"]):
        if frame == 6:
            tracker.reset()
        result = pipeline(CameraImage(picture(frame % 6), "rgb"))
        ids = tracker.update(result)
        np.testing.assert_array_equal(pixels_of(message), with_ids(result, ids).instance)
        listed = topics[f"{NODE}/detections"][frame][1].detections
        assert [entry.instance_id for entry in listed] == sorted(ids.tolist())
        changed += ids.tolist() != list(range(1, len(ids) + 1))
    assert changed


def test_ids_outlive_frames_that_come_out_of_order(label: Label, options: BagOptions, tmp_path: Path) -> None:
    order = (0, 1, 3, 2, 4, 5)
    messages = [image_message(number, picture(number)) for number in order]
    late = [Message(m.topic, m.kind, m.data, messages[0].time_ns + 10**8 * k) for k, m in enumerate(messages)]
    label(make_bag(tmp_path / "drive", late), tmp_path / "out", tracking=True, outputs=("instance",))
    pipeline, tracker = open_pipeline(**options.pipeline), InstanceTracker()
    for number, (_, message) in zip(order, by_topic(tmp_path / "out")[f"{NODE}/instance"], strict=True):
        result = pipeline(CameraImage(picture(number), "rgb"))
        np.testing.assert_array_equal(pixels_of(message), with_ids(result, tracker.update(result)).instance)


def test_objects_of_some_classes_only(label: Label, tmp_path: Path) -> None:
    source = make_bag(tmp_path / "drive", drive(4))
    label(source, tmp_path / "all")
    everything = by_topic(tmp_path / "all")[f"{NODE}/detections"]
    names = {entry.class_name for _, message in everything for entry in message.detections}
    for name in ("car", "pedestrian", "bicyclist"):
        label(source, tmp_path / name, object_classes=name, outputs=("detections",))
        few = by_topic(tmp_path / name)[f"{NODE}/detections"]
        for (_, one), (_, other) in zip(few, everything, strict=True):
            kept = [entry.area for entry in other.detections if entry.class_name == name]
            assert [entry.area for entry in one.detections] == kept
    assert names


def test_broken_frames_are_counted_and_skipped(label: Label, tmp_path: Path) -> None:
    good = [image_message(number, picture(number)) for number in range(7)]
    broken = list(good)
    broken[0] = Message(good[0].topic, IMAGE, good[0].data[:40], good[0].time_ns)
    broken[2] = image_message(2, picture(2), encoding="purple7")
    broken[3] = image_message(3, picture(3), step=7)
    broken[5] = Message(good[5].topic, IMAGE, b"", good[5].time_ns)
    summary = label(make_bag(tmp_path / "broken", broken), tmp_path / "out", tracking=True)
    assert (summary.frames, sum(summary.skipped.values()), len(summary.skipped)) == (7, 4, 4)
    assert "skipped 1 frames: expected a camera's colour encoding" in summary.format()
    with AnyReader([tmp_path / "out"]) as reader:
        written = [(entry.topic, time_ns, data) for entry, time_ns, data in reader.messages()]
    labelled = [time_ns for topic, time_ns, _ in written if topic == f"{NODE}/semantic"]
    assert labelled == [good[number].time_ns for number in (1, 4, 6)]
    copied = [entry for entry in written if entry[0] == good[0].topic]
    assert copied == [(message.topic, message.time_ns, message.data) for message in broken]


def test_depth_and_earlier_labels_are_no_cameras(label: Label, tmp_path: Path) -> None:
    depth = np.zeros((8, 10), np.uint16)
    png = cv2.imencode(".png", depth)[1].tobytes()
    note = STORE.serialize_cdr(TYPES[STRING](data="hello"), STRING)
    messages = [
        image_message(0, depth, "/depth/image_rect", "16UC1"),
        compressed_message(0, png, "16UC1; compressedDepth png", "/depth/image_rect/compressedDepth"),
        image_message(0, np.zeros((8, 10), np.uint8), f"{NODE}/semantic", "mono8"),
        image_message(0, np.arange(80, dtype=np.uint16).reshape(8, 10), "/other/depth_filtered", "mono16"),
        Message("/note", STRING, bytes(note), 5),
    ]
    source = make_bag(tmp_path / "depth", messages)
    with pytest.raises(InvalidInputError, match=r"found none \(but /depth/image_rect, .*name those to label with"):
        label(source, tmp_path / "out")
    source = make_bag(tmp_path / "mixed", [*messages, image_message(1, picture(1), "/left/image")])
    summary = label(source, tmp_path / "out")
    assert [camera.topic for camera in summary.cameras] == ["/left/image"]
    topics = by_topic(tmp_path / "out")
    assert len(topics[f"{NODE}/semantic"]) == 1  # ours, in place of the earlier one
    assert topics[f"{NODE}/semantic"][0][1].width == picture(1).shape[1]
    with pytest.raises(InvalidInputError, match=f"got {NODE}/semantic: the outputs have a topic of that name"):
        label(source, tmp_path / "other", topics=(f"{NODE}/semantic",))


@pytest.mark.parametrize(
    ("topics", "names"),
    [
        (["/front/image_raw", "/rear/image_raw"], ["front", "rear"]),
        (["/robot/cam0/image_rect_color", "/robot/cam1/image_rect_color/compressed"], ["cam0", "cam1"]),
        (["/a/color/image_raw", "/b/color/image_raw"], ["a_color", "b_color"]),
        (["/image_left", "/image_right"], ["image_left", "image_right"]),
        (["/a/image_raw", "/a/image_raw/compressed"], ["a_image_raw", "a_image_raw_compressed"]),
    ],
)
def test_cameras_names(topics: list[str], names: list[str]) -> None:
    assert camera_names(topics) == names


def test_cameras_that_cannot_be_told_apart() -> None:
    with pytest.raises(InvalidInputError, match="choose some with --images"):
        camera_names(["/a_b/c/image", "/a/b/c/image", "/b/c/image"])


@pytest.mark.skipif(not (DATA / "camvid" / "val" / "images").is_dir(), reason="CamVid is not here")
@pytest.mark.slow
def test_a_real_drive(label: Label, tmp_path: Path) -> None:
    files = sorted((DATA / "camvid" / "val" / "images").iterdir())[:25]
    messages = [
        image_message(number, cv2.resize(cv2.imread(str(path)), (240, 180)), encoding="bgr8")
        for number, path in enumerate(files)
    ]
    source = make_bag(tmp_path / "camvid", messages)
    summary = label(source, tmp_path / "out", tracking=True)
    assert (summary.frames, summary.skipped) == (len(files), {})
    topics = by_topic(tmp_path / "out")
    images = topics.pop("/camera/image_raw")
    topics.pop(f"{NODE}/class_names")
    for entries in topics.values():
        assert [(time_ns, *stamp_of(message)) for time_ns, message in entries] == [
            (time_ns, *stamp_of(message)) for time_ns, message in images
        ]
    for (_, instance), (_, listed) in zip(topics[f"{NODE}/instance"], topics[f"{NODE}/detections"], strict=True):
        assert {entry.instance_id for entry in listed.detections} == set(np.unique(instance.data.view(np.uint16))) - {0}
