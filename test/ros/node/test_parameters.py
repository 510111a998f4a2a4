# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The node's parameters: described, checked with a reason, applied between frames, the model's own unless given."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from node_cases import Camera, activated, counts, picture
from node_cases import set_parameters as change
from rclpy.lifecycle import TransitionCallbackReturn

from rt_panoptic_ros.errors import InvalidInputError
from rt_panoptic_ros.resources import share_directory
from rt_panoptic_ros.ros.node.node_settings import NodeSettings
from rt_panoptic_ros.settings import Change, PostprocessSettings, settings_of
from scripts.reference_page import TOPICS, reference_page


def test_every_parameter_is_described_with_its_range(fake_node):
    node = fake_node()
    infos = [*settings_of(PostprocessSettings), *settings_of(NodeSettings)]
    for info in infos:
        descriptor = node.describe_parameter(info.name)
        assert descriptor.description.startswith(info.description)
        ranges = [*descriptor.floating_point_range, *descriptor.integer_range]
        assert [(found.from_value, found.to_value) for found in ranges] == (
            [] if info.minimum is None else [(info.minimum, info.maximum)]
        )
        assert all(choice in descriptor.additional_constraints for choice in info.choices)
    assert node.describe_parameter("autostart").read_only
    assert "onnxruntime" in node.describe_parameter("backend").additional_constraints


def test_defaults_are_the_records(fake_node):
    node = fake_node(model=NodeSettings().model)
    assert node.settings == NodeSettings()
    for name, default in PostprocessSettings().flat().items():
        assert node.get_parameter(name).value == default


def test_the_models_own_settings_show_unless_given(fake_node):
    node = activated(fake_node(mask_threshold=0.7))
    assert node.get_parameter("mask_threshold").value == 0.7
    assert node.get_parameter("similarity").value == "giou"  # the fake's card
    assert (node.stages.masks.mask_threshold, node.stages.masks.similarity) == (0.7, "giou")


def test_what_was_set_lives_on_after_configuring_again(fake_node):
    node = activated(fake_node())
    assert change(node, score_threshold=0.55).successful
    assert node.trigger_deactivate() == node.trigger_cleanup() == TransitionCallbackReturn.SUCCESS
    assert change(node, nms_threshold=0.5).successful
    node = activated(node)
    assert node.pipelines[1].arguments["settings"] == {"score_threshold": 0.55, "nms_threshold": 0.5}


def test_an_accepted_change_is_another_record(fake_node):
    node = activated(fake_node())
    before = node.stages
    assert change(node, score_threshold=0.6, similarity="iou", max_detections=7).successful
    assert (before.masks.score_threshold, before.masks.similarity) == (0.3, "giou")
    assert node.stages.masks.score_threshold == 0.6
    assert node.stages.masks.similarity == "iou"
    assert node.stages.query_boxes.max_detections == 7


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"score_threshold": 1.5}, "out of range"),
        ({"score_threshold": float("nan")}, "out of range"),
        ({"max_detections": 0}, "out of range"),
        ({"similarity": "cosine"}, "expected similarity to be one of iou, giou, got 'cosine'"),
        ({"score_threshold": 0.5, "similarity": "cosine"}, "similarity"),
        ({"network_size": "big"}, "network_size as HEIGHTxWIDTH"),
        ({"model": "other"}, "deactivate it first (ros2 lifecycle set /panoptic_node deactivate)"),
        ({"backend": "torch"}, "deactivate it first"),
        ({"label_map": "people"}, "deactivate it first"),
        ({"output_size": "12"}, "output_size as HEIGHTxWIDTH"),
        ({"mask_classes": "road,rain"}, "expected mask_classes to be names of classes (sky, "),
        ({"image_reliability": "perhaps"}, "one of best_effort, reliable"),
        ({"autostart": False}, "read-only"),
        ({"max_rate_hz": -1.0}, "out of range"),
        ({"cameras": "front=/front"}, "deactivate it first"),
        ({"cameras": "front"}, "expected cameras as NAME=TOPIC"),
        ({"enabled_outputs": "semantic,depth"}, "expected enabled_outputs to name some of"),
        ({"overlay_opacity": 1}, "Wrong parameter type"),
    ],
)
def test_a_rejected_change_says_why_and_changes_nothing(fake_node, values, words):
    node = activated(fake_node())
    settings, stages = node.settings, node.stages
    result = change(node, **values)
    assert not result.successful
    assert words in result.reason
    assert (node.settings, node.stages) == (settings, stages)
    assert node.get_parameter("score_threshold").value == 0.3


def test_setting_the_same_value_is_no_change(fake_node):
    node = activated(fake_node())
    assert change(node, model="fake").successful


ANOTHER = {
    "depth_sync": "exact", "depth_slack_s": 0.5,  # value of each live parameter of the node that isn't its default
    "max_rate_hz": 1000.0, "enabled_outputs": "semantic", "lazy": False, "object_classes": "pedestrian",
    "tracking": True, "overlay_opacity": 0.25, "palette": "colorblind", "mask_classes": "road", "output_size": "12x16",
    "watchdog_s": 60.0,
}  # fmt: skip


def test_every_live_parameter_changes_while_frames_flow(graph, fake_node):
    node = activated(fake_node(image_reliability="reliable"))
    camera = Camera(graph).connected()
    pipeline = node.pipelines[0]
    assert sorted(ANOTHER) == sorted(one.name for one in settings_of(NodeSettings) if one.change is Change.LIVE)
    stages = {one.name: next(choice for choice in one.choices if choice != node.get_parameter(one.name).value)
              if one.choices else one.kind(one.maximum) for one in settings_of(PostprocessSettings)}  # fmt: skip
    for number, (name, value) in enumerate({**ANOTHER, **stages}.items(), start=1):
        before = node.get_parameter(name).value
        camera.send(picture(number))
        assert change(node, **{name: value}).successful, name
        assert node.get_parameter(name).value == value != before, name
        graph.spin_until(lambda number=number: counts(node).received == number, "for the frame")
    # Again and again, as the rate limit leaves out what comes too soon.
    graph.spin_until(lambda: camera.send(picture(99)) or pipeline.seen[-1][0].flat[0] == 99, "for the last frame")
    assert pipeline.seen[-1][1].flat() == stages
    assert {name: getattr(node.settings, name) for name in ANOTHER} == ANOTHER
    assert (counts(node).failed, counts(node).refused) == (0, 0)


def test_structure_changes_while_inactive_and_takes_effect_on_activation(fake_node):
    node = activated(fake_node())
    node.trigger_deactivate()
    assert change(node, network_size="64x96", camera_size="48x64", backend="torch", label_map="people").successful
    assert node.trigger_activate() == TransitionCallbackReturn.SUCCESS
    first, second = node.pipelines
    assert first.closed
    assert second.arguments["network_size"] == (64, 96)
    assert second.arguments["backend"] == "torch"
    assert second.prepared == [(48, 64)]


def test_a_bad_model_set_while_inactive_fails_activation_and_can_be_mended(fake_node):
    node = activated(fake_node())
    node.trigger_deactivate()
    assert change(node, model="missing").successful
    assert node.trigger_activate() == TransitionCallbackReturn.FAILURE
    assert change(node, model="mended").successful
    assert node.trigger_activate() == TransitionCallbackReturn.SUCCESS


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"score_threshold": 2.0}, "score_threshold"),
        ({"backend": "abacus"}, "backend to be one of auto"),
        ({"device": "cuda:"}, "device to be one of auto, cpu, cuda, cuda:N"),
        ({"lazy": "perhaps"}, "lazy to be true or false"),
        ({"network_size": "1"}, "network_size"),
        ({"model": [1, 2]}, "model to be text"),
    ],
)
def test_a_wrong_start_value_is_refused_with_one_sentence(fake_node, values, words):
    with pytest.raises(InvalidInputError, match=words):
        fake_node(**values)


def test_whole_numbers_are_numbers_and_unknown_names_are_told(fake_node, capfd):
    node = fake_node(mask_threshold=1, scor_threshold=0.5)
    assert node.get_parameter("mask_threshold").value == 1.0
    assert "parameter 'scor_threshold' has no effect" in "".join(capfd.readouterr())


def test_the_reference_page_is_made_from_the_declarations():
    page = Path(__file__).resolve().parents[3] / "docs" / "topics_and_parameters.md"
    made = "python -m scripts.reference_page makes it anew"
    assert page.read_text() == reference_page(), made


def test_the_reference_page_lists_the_topics_that_there_are(graph, fake_node):
    node = fake_node()
    assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
    # Not asked of the graph, which may still know a node of an earlier test by this name.
    published = {
        publisher.topic_name: publisher.msg_type.__module__.rpartition(".")[0].replace(".", "/")
        + f"/{publisher.msg_type.__name__}"
        for publisher in node.publishers
    }
    own = {"/parameter_events", "/rosout", "/panoptic_node/transition_event"}
    listed = {
        topic.replace("~", "/panoptic_node"): kind
        for topic, kind in TOPICS.items()
        if importlib.util.find_spec(kind.split("/")[0]) is not None
    }
    assert {name: kind for name, kind in published.items() if name not in own} == listed


def test_nothing_on_the_graph_becomes_a_path(fake_node, tmp_path, monkeypatch):
    """Whoever may set parameters names what is shipped, was named at start, or lies in a folder that was."""
    inside, outside = tmp_path / "models", tmp_path / "elsewhere"
    for folder in (inside / "one", inside / "other", outside, tmp_path / "given"):
        folder.mkdir(parents=True)
    (inside / "way_out").symlink_to(outside)
    (inside / "way_around").symlink_to(inside / "one")
    (tmp_path / "local").mkdir()  # a name that isn't a shipped one's
    (outside / "map.yaml").touch()
    monkeypatch.chdir(tmp_path)
    given = str(tmp_path / "given")
    node = fake_node(model=given, model_folders=f"{inside},/nowhere")
    for name in ("model", "label_map"):
        before = node.settings
        for value in [
            "..", ".", "/", "../x", "./given/../elsewhere", "elsewhere/map.yaml", f"{outside}/map.yaml", "/etc/passwd",
            f"{inside}/../elsewhere", f"{inside}/way_out", f"{inside}/way_out/map.yaml", f"{inside}s", "~/x", "local",
            f"{given}x", "/proc/self/root/etc", "/dev/zero", "//etc",
        ]:  # fmt: skip
            result = change(node, **{name: value})
            assert not result.successful, value
            assert result.reason.startswith(f"expected {name} to be the name of one that comes with the package"), value
        for value in ("a\0b", f"{inside}/\0", "n" * 5000, f"{inside}/{'n/' * 3000}"):
            result = change(node, **{name: value})
            assert f"expected {name} to have at most 4096 characters and no zero among them" in result.reason
            assert len(result.reason) < 300
        assert node.settings == before
        shipped = Path(share_directory(), "models" if name == "model" else "config/label_maps", "x")
        for value in (given, "street_lite0", f"{inside}/one", f"{inside}/not/yet", f"{inside}/way_around", str(shipped),
                      "models/other", "n" * 300):  # fmt: skip
            assert change(node, **{name: value}).successful, value
            assert getattr(node.settings, name) == value


def test_texts_and_cameras_have_an_end(fake_node):
    node = fake_node()
    names = [one.name for one in settings_of(NodeSettings) if one.kind is str and one.change is not Change.STARTUP]
    assert len(names) > 10
    for name in names:
        result = change(node, **{name: "x" * 10**6})
        assert not result.successful, name
        assert len(result.reason) < 300, name
    many = ",".join(f"c{number}=/c{number}" for number in range(33))
    assert change(node, cameras=many).reason == "expected at most 32 cameras, got 33"
    assert change(node, cameras=many.rpartition(",")[0]).successful
