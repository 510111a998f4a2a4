# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Detectors made in a test: ONNX files of a few nodes, and their descriptions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import yaml
from onnx import TensorProto, helper, numpy_helper

CLASSES = ["person", "car", "dog"]
INPUT = {"size": [16, 16], "fit": "stretch", "color_order": "rgb", "mean_rgb": [0, 0, 0], "std_rgb": [255, 255, 255]}


def write_detector(folder: Path, name: str, outputs: dict[str, np.ndarray], **description: Any) -> Path:
    """Write NAME.onnx, which gives the same outputs for every image, and NAME.yaml; return the latter."""
    nodes = [
        helper.make_node("Constant", [], [key], value=numpy_helper.from_array(value, key))
        for key, value in outputs.items()
    ]
    return write_graph(folder, name, nodes, {key: value.dtype for key, value in outputs.items()}, **description)


def write_channel_means(folder: Path, name: str, **description: Any) -> Path:
    """Write a detector of three boxes, of class 0 to 2, whose scores are the means of the input's channels."""
    constants = {
        "labels": np.array([[0, 1, 2]]),
        "boxes": np.float32([[[0, 0, 16, 16]] * 3]),
        "shape": np.array([1, 3]),
    }
    nodes = [
        helper.make_node("Constant", [], [key], value=numpy_helper.from_array(value, key))
        for key, value in constants.items()
    ]
    nodes += [helper.make_node("GlobalAveragePool", ["images"], ["means"]),
              helper.make_node("Reshape", ["means", "shape"], ["scores"])]  # fmt: skip
    kinds = {"labels": np.dtype(np.int64), "boxes": np.dtype(np.float32), "scores": np.dtype(np.float32)}
    return write_graph(folder, name, nodes, kinds, **description)


def write_graph(folder: Path, name: str, nodes: list[Any], kinds: dict[str, np.dtype], **description: Any) -> Path:
    """Write a graph with the inputs that detectors have, and the description of it."""
    inputs = [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, None, None])]
    if "boxes" in kinds:
        inputs.append(helper.make_tensor_value_info("orig_target_sizes", TensorProto.INT64, [1, 2]))
    outputs = [
        helper.make_tensor_value_info(key, helper.np_dtype_to_tensor_dtype(kind), None) for key, kind in kinds.items()
    ]
    graph = helper.make_graph(nodes, name, inputs, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(folder / f"{name}.onnx"))
    document = {"model": f"{name}.onnx", "decoding": "boxes", "input": INPUT, "classes": CLASSES, **description}
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return path


def seen(*rows: tuple[float, float, float, float, int, float]) -> dict[str, np.ndarray]:
    """Return outputs of decoding boxes: rows of x1, y1, x2, y2 (px of 16x16), class, score."""
    table = np.array(rows, np.float64).reshape(-1, 6)
    return {"labels": table[None, :, 4].astype(np.int64), "boxes": table[None, :, :4].astype(np.float32),
            "scores": table[None, :, 5].astype(np.float32)}  # fmt: skip
