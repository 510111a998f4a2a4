"""Keeps the ONNX graphs made from bundles, one per content and size, in the user's cache, and reads their outputs."""

from __future__ import annotations

import hashlib
import json
import logging
from typing import TYPE_CHECKING

from rt_panoptic_ros.architecture import LEVELS
from rt_panoptic_ros.files import atomic_path, cache_directory, file_sha256, plain_name
from rt_panoptic_ros.records import DenseDetections

if TYPE_CHECKING:
    from pathlib import Path

    import warp as wp

    from rt_panoptic_ros.inference.onnx_graph import Dialect
    from rt_panoptic_ros.model_bundle import ModelBundle

_LOGGER = logging.getLogger(__name__)


def exported_onnx(
    bundle: ModelBundle, network_size: tuple[int, int], precision: str, dialect: Dialect = "onnxruntime"
) -> Path:
    """Return the path of the bundle's ONNX graph for `network_size` (height, width) px, making it when absent.

    `precision` is float32, float16 or int8, see `onnx_graph`.

    The file name holds a key of everything the graph depends on, and the file's own digest; a file whose bytes do not
    match is made again.

    Raises:
        InvalidInputError: The bundle's weights, or for int8 its ranges, are missing or damaged.
    """
    from rt_panoptic_ros.inference.onnx_graph import GRAPH_VERSION, build_onnx

    height, width = network_size
    ranges = bundle.load_ranges() if precision == "int8" else None
    parts = f"{bundle.content_key} {height}x{width} {GRAPH_VERSION} {precision} {dialect} {json.dumps(ranges)}"
    key = hashlib.sha256(parts.encode()).hexdigest()[:24]
    folder, stem = cache_directory() / "onnx", f"{plain_name(bundle.name)}-{height}x{width}-{precision}-{key}"
    for path in folder.glob(f"{stem}-*.onnx"):
        if path.stem.endswith(file_sha256(path)[:16]):
            bundle.verify_weights()  # a cached graph must not outlive the weights that it was made from
            return path
        _LOGGER.warning("the cached graph %s is damaged: making it again", path)
        path.unlink(missing_ok=True)
    _LOGGER.info("making the %s ONNX graph of %s for %dx%d", precision, bundle.name, height, width)
    weights = bundle.load_weights()
    half = precision == "float16"
    content = build_onnx(
        bundle.network, bundle.input, weights, network_size, ranges=ranges, half=half, dialect=dialect
    ).SerializeToString()
    target = folder / f"{stem}-{hashlib.sha256(content).hexdigest()[:16]}.onnx"
    with atomic_path(target) as temporary:
        temporary.write_bytes(content)
    return target


def dense_detections(outputs: dict[str, wp.array]) -> DenseDetections:
    """Return the graph's `outputs`, {name: array without batch axis}, as the record."""
    return DenseDetections(
        semantic_logits=outputs["semantic_logits"],
        levelness_logits=outputs.get("levelness_logits"),
        box_class_logits=tuple(outputs[f"box_class_logits_{level}"] for level in range(LEVELS)),
        box_offsets=tuple(outputs[f"box_offsets_{level}"] for level in range(LEVELS)),
        centerness_logits=tuple(outputs[f"centerness_logits_{level}"] for level in range(LEVELS)),
    )
