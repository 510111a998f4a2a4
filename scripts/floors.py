# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""What a frame costs at least, counted from the graph: `python -m scripts.floors --model MODEL --size HxW`.

That is the floating-point operations of the network and the bytes that post-processing must touch.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, dataclass
from math import prod

import onnx

from rt_panoptic_ros.inference.input_image import plan_geometry
from rt_panoptic_ros.inference.onnx_graph import build_onnx
from rt_panoptic_ros.model.architecture import LEVELS
from rt_panoptic_ros.model.bundle import ModelBundle, read_bundle
from rt_panoptic_ros.settings import parse_size

_PARTS = {"backbone.body": "encoder", "backbone.fpn": "pyramid", "panoptic_head": "head"}


@dataclass(frozen=True, slots=True)
class Floors:
    """Counts for one frame; a multiply and an add are two operations."""

    subject: str
    gflop: dict[str, float]  # of the convolutions, by part of the network; all others are below 1 % of them
    concatenation_gflop: float  # of the two convolutions over all levels as the paper draws them, instead of ours
    weight_mb: float  # read once
    activation_mb: float  # written once by each convolution
    postprocess_read_mb: float  # the network's outputs
    postprocess_write_mb: float  # the semantic and the instance image

    def format(self) -> str:
        """Return it as text for a terminal."""
        figures = asdict(self)
        subject, gflop = figures.pop("subject"), figures.pop("gflop")
        parts = ", ".join(f"{part} {value:.2f}" for part, value in {**gflop, "total": sum(gflop.values())}.items())
        return "\n".join([subject, f"  gflop: {parts}", *(f"  {name}: {value:.2f}" for name, value in figures.items())])


def count_floors(bundle: ModelBundle, camera_size: tuple[int, int]) -> Floors:
    """Count from the graph for camera images of `camera_size` (height, width) px."""
    geometry = plan_geometry(camera_size, bundle.input, None)
    graph = build_onnx(bundle.network, bundle.input, bundle.load_weights(), geometry.network_size)
    inferred = onnx.shape_inference.infer_shapes(graph, data_prop=True).graph
    shapes = {
        value.name: [dimension.dim_value for dimension in value.type.tensor_type.shape.dim]
        for value in (*inferred.value_info, *inferred.input, *inferred.output)
    }
    weights = {tensor.name: tensor.dims for tensor in inferred.initializer}
    gflop = dict.fromkeys([*_PARTS.values()], 0.0)
    activations = 0
    for node in inferred.node:
        if node.op_type == "Conv":
            operations = 2 * prod(shapes[node.output[0]]) * prod(weights[node.input[1]][1:])
            part = next((name for prefix, name in _PARTS.items() if node.input[1].startswith(prefix)), "head")
            gflop[part] += operations / 1e9
            activations += 4 * prod(shapes[node.output[0]])
    outputs = [shapes[output.name] for output in inferred.output]
    classes, height, width = shapes["semantic_logits"][1:]
    concatenated = LEVELS * bundle.network.semantics_features * classes * height * width
    if bundle.network.levelness:
        localization = LEVELS * bundle.network.localization_channels
        concatenated += localization * prod(shapes["levelness_logits"][1:])
    return Floors(
        subject=f"{bundle.name}, camera {camera_size[0]}x{camera_size[1]}, network "
        f"{geometry.network_height}x{geometry.network_width}",
        gflop=gflop,
        concatenation_gflop=2 * 9 * concatenated / 1e9,
        weight_mb=sum(4 * prod(dims) for dims in weights.values()) / 1e6,
        activation_mb=activations / 1e6,
        postprocess_read_mb=sum(4 * prod(shape) for shape in outputs) / 1e6,
        postprocess_write_mb=3 * prod(camera_size) / 1e6,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m scripts.floors", description=__doc__)
    parser.add_argument("--model", required=True, help="folder of a model bundle, or the name of a shipped one")
    parser.add_argument("--size", default="512x1024", help="HEIGHTxWIDTH of the camera's image, px")
    options = parser.parse_args()
    size = parse_size("--size", options.size)
    assert size is not None
    print(count_floors(read_bundle(options.model), size).format())
