# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Ranges of the activations of a bundle's network over real frames: what its 8-bit graph is scaled by."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from rt_panoptic_ros.errors import InvalidInputError
from rt_panoptic_ros.inference.input_image import plan_geometry, prepare_input
from rt_panoptic_ros.records import CameraImage

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rt_panoptic_ros.model.bundle import ModelBundle


def calibrate(bundle: ModelBundle, images: Iterable[np.ndarray]) -> dict[str, tuple[float, float]]:
    """Return {tensor: (lowest, highest) value}, each the mean of the frames' own, which one odd frame moves little.

    Args:
        bundle: The model.
        images: (H, W, 3) uint8 RGB network inputs of one size, such as a few dozen typical frames.

    Raises:
        InvalidInputError: No image.
    """
    import onnxruntime

    from rt_panoptic_ros.inference.onnx_graph import build_onnx

    session, ends, values = None, [], []
    for image in images:
        if session is None:
            graph = build_onnx(bundle.network, bundle.input, bundle.load_weights(), image.shape[:2], show_ranges=True)
            session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
            ends = [output.name for output in session.get_outputs() if output.name.endswith((".lowest", ".highest"))]
        values.append([float(end) for end in session.run(ends, {"image": image[None]})])
    if session is None:
        raise InvalidInputError("expected at least one frame to calibrate with, got none: check the source")
    means = dict(zip(ends, np.mean(values, axis=0).tolist(), strict=True))
    tensors = [end.removesuffix(".lowest") for end in ends if end.endswith(".lowest")]
    return {tensor: (means[f"{tensor}.lowest"], means[f"{tensor}.highest"]) for tensor in tensors}


def calibrate_from_images(
    bundle: ModelBundle, images: Iterable[np.ndarray], frames: int
) -> dict[str, tuple[float, float]]:
    """Return `calibrate`'s ranges over up to `frames` camera images, (H, W, 3) uint8 RGB.

    Raises:
        InvalidInputError: There is no image, or one that can't be decoded.
    """

    def inputs() -> Iterator[np.ndarray]:
        network_size = None  # of the first frame, for all
        for image in islice(images, frames):
            camera = CameraImage(image, "rgb")
            geometry = plan_geometry(image.shape[:2], bundle.input, network_size)
            network_size = geometry.network_size
            yield prepare_input(camera, geometry, bundle.input)

    return calibrate(bundle, tqdm(inputs(), total=frames, unit="frame", desc="calibrating"))
