"""Keeps the ONNX graphs made from bundles, one per content and size, in the user's cache."""

from __future__ import annotations

import hashlib
import logging
from typing import TYPE_CHECKING

from rt_panoptic_ros.files import atomic_path, cache_directory, file_sha256

if TYPE_CHECKING:
    from pathlib import Path

    from rt_panoptic_ros.model_bundle import ModelBundle

_LOGGER = logging.getLogger(__name__)


def exported_onnx(bundle: ModelBundle, network_size: tuple[int, int]) -> Path:
    """Return the path of the bundle's ONNX graph for `network_size` (height, width) px, making it when absent.

    The file name holds a key of everything the graph depends on, and the file's own digest; a file whose bytes do not
    match is made again.

    Raises:
        InvalidInputError: The bundle's weights are missing or damaged.
    """
    from rt_panoptic_ros.inference.onnx_graph import GRAPH_VERSION, build_onnx

    height, width = network_size
    key = hashlib.sha256(f"{bundle.content_key} {height}x{width} {GRAPH_VERSION}".encode()).hexdigest()[:24]
    folder = cache_directory() / "onnx"
    for path in folder.glob(f"{bundle.name}-{height}x{width}-{key}-*.onnx"):
        if path.stem.endswith(file_sha256(path)[:16]):
            bundle.verify_weights()  # a cached graph must not outlive the weights that it was made from
            return path
        _LOGGER.warning("the cached graph %s is damaged: making it again", path)
        path.unlink(missing_ok=True)
    _LOGGER.info("making the ONNX graph of %s for %dx%d", bundle.name, height, width)
    content = build_onnx(bundle.network, bundle.input, bundle.load_weights(), network_size).SerializeToString()
    digest = hashlib.sha256(content).hexdigest()
    target = folder / f"{bundle.name}-{height}x{width}-{key}-{digest[:16]}.onnx"
    with atomic_path(target) as temporary:
        temporary.write_bytes(content)
    return target
