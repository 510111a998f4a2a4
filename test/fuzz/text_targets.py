# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Fuzz targets: command lines, ROS parameters, and the YAML and JSON files that users write."""

from __future__ import annotations

import argparse
import contextlib
import functools
import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from fuzz.fuzzing import FindError, UnusableError, check_sentence, headed, parted, target, text, workplace

from rt_panoptic_ros.cli import _parser
from rt_panoptic_ros.commands.options import pipeline_arguments
from rt_panoptic_ros.detectors.description import read_description
from rt_panoptic_ros.errors import InvalidInputError
from rt_panoptic_ros.files import read_yaml
from rt_panoptic_ros.inference.input_image import plan_geometry
from rt_panoptic_ros.model.architecture import NetworkConfig
from rt_panoptic_ros.model.bundle import CARD, RANGES, InputSpec, ModelBundle, read_bundle
from rt_panoptic_ros.model.class_table import load_class_table, parse_class_table, parse_published_table
from rt_panoptic_ros.model.label_map import read_label_map
from rt_panoptic_ros.panoptic.class_filter import parse_class_names
from rt_panoptic_ros.resources import share_directory
from rt_panoptic_ros.ros.node.node_settings import NodeSettings, parse_cameras, parse_outputs
from rt_panoptic_ros.ros.text_arguments import texts_kept
from rt_panoptic_ros.settings import PostprocessSettings, parse_size, settings_of
from rt_panoptic_ros.training.recipe import parse_recipe, read_recipe


def _shipped(pattern: str) -> list[bytes]:
    """Return the package's own files."""
    return [path.read_bytes() for path in sorted(share_directory().glob(pattern))]


BOMB = b"a: &a [x, x, x, x, x, x, x, x]\n" + b"".join(
    b"%c: &%c [%s]\n" % (place, place, b", ".join([b"*%c" % (place - 1)] * 8)) for place in range(ord("b"), ord("m"))
)
"""Aliases of aliases: 33 billion values in 400 bytes."""


def _card_seeds() -> list[bytes]:
    return [*_shipped("models/camvid*/model.yaml"), BOMB + b"name: *l\n", b"classes: &a [*a]\n", b"[" * 3000]


@target(_card_seeds)
def model_card(data: bytes) -> None:
    folder = workplace() / "card"
    folder.mkdir(exist_ok=True)
    (folder / CARD).write_bytes(data)
    bundle = read_bundle(folder)
    json.dumps([bundle.content_key, bundle.settings.flat(), bundle.name])
    for size in ((1, 1), (480, 640), (10000, 3)):
        plan_geometry(size, bundle.input, None)
    if not all(0 <= value <= 255 for value in bundle.input.fill_rgb):
        raise FindError(f"padding of {bundle.input.fill_rgb}")
    _use_table(bundle.classes)
    if len(bundle.layout) > 100_000 or sum(map(math.prod, bundle.layout.values())) > 1 << 40:
        raise FindError("a network that no machine can hold")


def _use_table(table: Any) -> None:
    table.colors, table.published, table.categories, table.names  # noqa: B018
    json.dumps(table.published_document())
    if parse_published_table(table.published_document()) != table:
        raise FindError("a class table that changes when it is written and read")


def _table_seeds() -> list[bytes]:
    published = {"name": "a", "void": 0, "classes": [{"id": 7, "name": "b", "thing": True, "color": [1, 2, 3]}]}
    return [*_shipped("config/classes/camvid.yaml"), json.dumps(published).encode(), BOMB + b"classes: *l\nname: a\n"]


@target(_table_seeds)
def class_table(data: bytes) -> None:
    path = workplace() / "table.yaml"
    path.write_bytes(data)
    document = read_yaml(path, "a class table")
    problems = []
    for parse in (parse_class_table, parse_published_table):
        try:
            _use_table(parse(document))
        except InvalidInputError as error:
            problems.append(error)
            check_sentence(str(error))
    if problems:
        raise problems[0]


def _map_seeds() -> list[bytes]:
    own = b"name: a\nvoid: 0\nclasses:\n  b: {id: 7, thing: true, color: [1, 2, 3], of: [Car, Road]}\n"
    return [*_shipped("config/label_maps/*.yaml"), own, BOMB + b"classes: {Car: *l}\nname: *l\n"]


@target(_map_seeds)
def label_map(data: bytes) -> None:
    path = workplace() / "map.yaml"
    path.write_bytes(data)
    found = read_label_map(str(path))
    for name in ("camvid", "cityscapes"):
        table = found.table(load_class_table(name))
        _use_table(table)
        ids = found.new_ids(load_class_table(name))
        if ((ids >= len(table)) & (ids != 255)).any():
            raise FindError(f"class ids up to {ids.max()} of {len(table)} classes")


def _recipe_seeds() -> list[bytes]:
    recipes = _shipped("config/train/*.yaml")
    return [headed({"changes": ["schedule.steps=100"]}, one) for one in recipes] + [
        headed({"changes": ["network.towers=[1", "a=!!float x"]}, recipes[0]),
        headed({"changes": ["network=" + "[" * 2000]}, recipes[0]),
        headed({"changes": []}, BOMB + b"network: {backbone: *l}\n"),
    ]


@target(_recipe_seeds)
def recipe(data: bytes) -> None:
    fields, content = parted(data)
    changes = fields.get("changes")
    if not isinstance(changes, list) or not all(isinstance(one, str) and "from_model" not in one for one in changes):
        raise UnusableError
    if b"from_model" in content:  # a bundle is model_card's
        content = content.replace(b"from_model", b"from_modal")
    path = workplace() / "recipe.yaml"
    path.write_bytes(content)
    found = read_recipe(str(path), changes)
    document = json.loads(json.dumps(found.to_document()))
    if parse_recipe(found.name, document) != found:
        raise FindError("a recipe that changes when it is written and read")


@target(lambda: _shipped("config/detectors/*.yaml"), share=0.5)
def detector_description(data: bytes) -> None:
    path = workplace() / "detector.yaml"
    path.write_bytes(data)
    found = read_description(str(path))
    found.table.names, found.table.thing_ids  # noqa: B018


_DIGEST = "0" * 64


@functools.cache
def _bundle() -> ModelBundle:
    folder = workplace() / "ranges"
    folder.mkdir(exist_ok=True)
    table = load_class_table("camvid")
    return ModelBundle(folder, "a", NetworkConfig(), table, InputSpec(), PostprocessSettings(), _DIGEST)


@target(
    lambda: [json.dumps({"origin": "a", "weights_sha256": _DIGEST, "ranges": {"x": [-1.5, 2], "y": [0, 0]}}).encode()],
    share=4,
)
def calibration_ranges(data: bytes) -> None:
    (_bundle().path / RANGES).write_bytes(data)
    ranges = _bundle().load_ranges()
    ends = np.array(list(ranges.values())).reshape(-1, 2)
    if not np.isfinite(ends.astype(np.float32)).all() or (ends[:, 0] > ends[:, 1]).any():
        raise FindError("ranges without a scale")


def _line_seeds() -> list[bytes]:
    lines = (
        ["predict", "--model", "a", "--size", "512x1024", "--set", "mask_threshold=0.3", "in", "out"],
        ["bag", "in.mcap", "out", "--model", "a", "--outputs", "semantic", "--jobs", "2", "--opacity", "0.5"],
        ["view", "video.mp4", "--images", "/a", "/b"], ["evaluate", "--dataset", "camvid", "--root", "a"],
        ["train", "--config", "camvid_lite0", "--root", "a", "--out", "b"], ["doctor", "--camera", "/a"],
        ["import-weights", "--checkpoint", "a", "--out", "b"], ["calibrate", "--frames", "3"], ["gpu-check"],
        ["--help"],
    )  # fmt: skip
    return [headed({"words": words}) for words in lines]


_command_line = functools.cache(_parser)


@target(_line_seeds, share=4)
def command_line(data: bytes) -> None:
    fields, _ = parted(data)
    words = fields.get("words")
    if not isinstance(words, list) or not all(isinstance(word, str) and "\0" not in word for word in words):
        raise UnusableError
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            options = _command_line().parse_args(words)
    except SystemExit as end:
        if end.code == 0:
            return
        if end.code != 2 or len(lines := said.getvalue().splitlines()) < 2:
            raise FindError(f"exit status {end.code}: {said.getvalue()[:200]}") from None
        raise InvalidInputError(lines[-1]) from None
    _use_options(options)


def _use_options(options: argparse.Namespace) -> None:
    if "backend" in options and "set" in options:
        arguments = pipeline_arguments(options)
        PostprocessSettings().replaced(arguments["settings"])
    if "output_size" in options:
        parse_size("--output-size", options.output_size)


def _parameter_seeds() -> list[bytes]:
    table = {one.name: one.default for one in (*settings_of(NodeSettings), *settings_of(PostprocessSettings))}
    cameras = {"cameras": "front=/front/image_raw,rear=/rear/image_raw", "network_size": "512x1024", "device": "cuda:1"}
    classes = {"object_classes": "Car,Pedestrian", "mask_classes": "Sky", "output_size": "1x1"}
    return [headed(table), headed({**table, **cameras}), headed({**table, **classes}), headed({"device": "cuda:٣"})]


@target(_parameter_seeds, share=4)
def parameters(data: bytes) -> None:
    """Values as ROS gives them: truths, 64 bits of a number, float64, texts, and lists of one of them."""
    fields, _ = parted(data)
    for value in fields.values():
        for one in value if isinstance(value, list) else [value]:
            fits = -(2**63) <= one < 2**63 if isinstance(one, int) else isinstance(one, float | str | None)
            if not fits:
                raise UnusableError
    own = {one.name: one for one in settings_of(NodeSettings)}
    given = {name: own[name].parsed(value) for name, value in fields.items() if name in own}
    settings = NodeSettings(**given)
    changed = PostprocessSettings().replaced({name: value for name, value in fields.items() if name not in own})
    json.dumps(changed.flat())
    parse_cameras(settings.cameras)
    parse_outputs(settings.enabled_outputs)
    for size in (settings.network_size, settings.camera_size, settings.output_size):
        parse_size("size", size)
    table = load_class_table("camvid")
    parse_class_names(settings.object_classes, table)
    parse_class_names(settings.mask_classes, table, "mask_classes", stuff=True)


def _argument_seeds() -> list[bytes]:
    words = ["node", "--ros-args", "-p", "model:=0016", "-r", "image:=/a", "--params-file", "@"]
    return [
        *(headed({"words": words}, one) for one in _shipped("config/panoptic.yaml")),
        headed({"words": ["node", "--ros-args", "-p", "model:=y", "--"]}),
        headed({"words": ["node", "--ros-args", "-p", "model:=" + "[" * 3000, "--params-file", "@"]}, b"[" * 3000),
        headed({"words": words}, b"a: &a\n  ros__parameters: {model: 1}\n  b: *a\n"),
        headed({"words": words}, b"&a {ros__parameters: {model: 1}, x: *a}"),
        headed({"words": words}, b"? [a]\n: {ros__parameters: {model: 0x10}}\n"),
    ]


@target(_argument_seeds, share=2)
def text_arguments(data: bytes) -> None:
    fields, content = parted(data)
    words = fields.get("words")
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise UnusableError
    path = workplace() / "parameters.yaml"
    path.write_bytes(content)
    words = [str(path) if word == "@" else text({"word": word}, "word") for word in words]
    with texts_kept(words, NodeSettings) as kept:
        if len(kept) != len(words):
            raise FindError("another number of words")
        for word in kept:
            if word.startswith("/proc/self/fd/"):
                Path(word).stat()
