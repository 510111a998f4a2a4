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

    from rt_panoptic_ros.frames.sources import FrameSource
    from rt_panoptic_ros.model.bundle import ModelBundle


def calibrate(
    bundle: ModelBundle, images: Iterable[np.ndarray], network_size: tuple[int, int]
) -> dict[str, tuple[float, float]]:
    """Return {tensor: (lowest, highest) value}, each the mean of the frames' own, which one odd frame moves little.

    Args:
        bundle: The model.
        images: (H, W, 3) uint8 RGB network inputs of `network_size`, such as a few dozen typical frames.
        network_size: (height, width) px.

    Raises:
        InvalidInputError: No image.
    """
    import onnxruntime

    from rt_panoptic_ros.inference.onnx_graph import build_onnx

    graph = build_onnx(bundle.network, bundle.input, bundle.load_weights(), network_size, show_ranges=True)
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    ends = [output.name for output in session.get_outputs() if output.name.endswith((".lowest", ".highest"))]
    values = np.array([[float(end) for end in session.run(ends, {"image": image[None]})] for image in images])
    if not len(values):
        raise InvalidInputError("expected at least one frame to calibrate with, got none: check the source")
    means = dict(zip(ends, values.mean(axis=0).tolist(), strict=True))
    tensors = [end.removesuffix(".lowest") for end in ends if end.endswith(".lowest")]
    return {tensor: (means[f"{tensor}.lowest"], means[f"{tensor}.highest"]) for tensor in tensors}


def calibrate_from_source(bundle: ModelBundle, source: FrameSource, frames: int) -> dict[str, tuple[float, float]]:
    """Return `calibrate`'s ranges over up to `frames` frames, spread over the source where its length is known.

    Raises:
        InvalidInputError: The source has no frame, or one that can't be decoded.
    """
    step = max(1, (source.count or 0) // frames)
    chosen = islice(source, 0, frames * step, step)
    first = next(chosen, None)
    if first is None:
        raise InvalidInputError("expected at least one frame to calibrate with, got none: check the source")
    size = first.image.shape[0], first.image.shape[1]
    network_size = plan_geometry(size, bundle.input, None).network_size

    def inputs() -> Iterator[np.ndarray]:
        for frame in (first, *chosen):
            camera = CameraImage(frame.image, "rgb")
            geometry = plan_geometry((frame.image.shape[0], frame.image.shape[1]), bundle.input, network_size)
            yield prepare_input(camera, geometry, bundle.input)

    return calibrate(bundle, tqdm(inputs(), total=frames, unit="frame", desc="calibrating"), network_size)
