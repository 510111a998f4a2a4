"""`rt-panoptic bench postprocess | network | pipeline`: what is timed, against which plain twin."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import cv2
import numpy as np
import warp as wp

from rt_panoptic_ros.benchmark.measure import Comparison, StageClock, compare
from rt_panoptic_ros.benchmark.plain import PlainNetwork, plain_postprocess, same_pixels
from rt_panoptic_ros.benchmark.scenes import street_scene
from rt_panoptic_ros.frames.sources import open_source
from rt_panoptic_ros.inference.backends import open_backend, resolve_device
from rt_panoptic_ros.inference.base import Backend
from rt_panoptic_ros.inference.input_image import plan_geometry, prepare_input
from rt_panoptic_ros.model.class_table import load_class_table
from rt_panoptic_ros.panoptic.postprocess import Postprocessor
from rt_panoptic_ros.pipeline import PanopticPipeline
from rt_panoptic_ros.records import CameraImage, ImageGeometry
from rt_panoptic_ros.settings import PostprocessSettings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rt_panoptic_ros.model.bundle import ModelBundle
    from rt_panoptic_ros.records import DenseDetections, PanopticResult

_CLASSES = "cityscapes"


class SceneBackend(Backend):
    """Runs a network, then gives the outputs of a made-up scene in place of its own, so that objects can be counted."""

    def __init__(self, inner: Backend, scene: DenseDetections) -> None:  # wraps a loaded engine instead of loading one
        self._inner, self._scene = inner, scene
        self.name, self.device, self.precision = inner.name, inner.device, inner.precision
        self.network_size = inner.network_size

    def infer(self, image: np.ndarray) -> DenseDetections:
        """Run the network and return the scene."""
        self._inner.infer(image)
        return self._scene

    def close(self) -> None:
        """Free the engine."""
        self._inner.close()


def bench_postprocess(size: tuple[int, int], detections: int, device: str, *, seconds: float) -> Comparison:
    """Time everything behind the network for a scene of Cityscapes' classes, camera and network of one size."""
    where = resolve_device(device)
    thing_ids = load_class_table(_CLASSES).thing_ids
    classes = len(load_class_table(_CLASSES))
    dense = street_scene(size, detections, classes=classes, thing_ids=thing_ids, device=where)
    settings = PostprocessSettings()
    geometry = ImageGeometry(*size, *size, *size)
    postprocessor = Postprocessor(dense, thing_ids, geometry)
    latest: dict[str, PanopticResult] = {}

    def ours() -> dict[str, float]:
        clock = StageClock()
        postprocessor.launch(dense, settings, stage=lambda stage: _finishing(where, clock, stage))
        latest["result"] = postprocessor.result()
        clock.end("fusion")
        return clock.stages_ms

    def twin() -> dict[str, float]:
        return plain_postprocess(dense, size, thing_ids, settings)[1]

    ours()
    details = {
        "detections": len(latest["result"].detections),
        "pixels_alike": same_pixels(latest["result"], plain_postprocess(dense, size, thing_ids, settings)[0]),
    }
    return compare(
        f"post-processing, {detections} objects, {size[0]}x{size[1]}, {where}", ours, twin, seconds=seconds,
        details=details,
    )  # fmt: skip


def bench_network(
    bundle: ModelBundle, size: tuple[int, int], backend: str, device: str, precision: str, *, seconds: float
) -> Comparison:
    """Time the network alone for inputs of `size` against the plain one in torch."""
    engine = open_backend(backend, bundle, size, device, precision)
    plain = PlainNetwork(bundle, engine.device)
    image = _street_image(size)

    def ours() -> dict[str, float]:
        engine.infer(image)
        wp.synchronize_device(engine.device)
        return {}

    def twin() -> dict[str, float]:
        plain(image)
        return {}

    mine, other = engine.infer(image), plain(image)
    difference = np.abs(mine.semantic_logits.numpy() - other.semantic_logits.numpy()).max()
    subject = f"network of {bundle.name}, {size[0]}x{size[1]}, {engine.name} in {precision} on {engine.device}"
    return compare(subject, ours, twin, seconds=seconds, details={"largest_logit_difference": float(difference)})


def bench_pipeline(
    bundle: ModelBundle, size: tuple[int, int], detections: int | None, backend: str, device: str, precision: str, *,
    seconds: float, source: str | None = None,
) -> Comparison:  # fmt: skip
    """Time the whole frame, image in and labels out, against the plain network and the plain post-processing.

    Args:
        bundle: The model.
        size: (height, width) px of the camera image; the card says what it is brought to.
        detections: Objects of a made-up scene that takes the place of the network's outputs after it ran; None
            keeps its own.
        backend: One of `BACKENDS`.
        device: auto, cpu or cuda.
        precision: One of `PRECISIONS`, for ours; the twin is float32.
        seconds: About how long to measure.
        source: Its first image is the camera's, brought to `size`; None makes one up.
    """
    geometry = plan_geometry(size, bundle.input, None)
    thing_ids = bundle.classes.thing_ids
    where = resolve_device(device)
    scene = None if detections is None else street_scene(
        geometry.network_size, detections, classes=len(bundle.classes), thing_ids=thing_ids, device=where
    )  # fmt: skip

    def engine(name: str, model: ModelBundle, network_size: tuple[int, int], where: str, precision: str) -> Backend:
        inner = open_backend(name, model, network_size, where, precision)
        return inner if scene is None else SceneBackend(inner, scene)

    pipeline = PanopticPipeline(
        bundle,
        backend=backend,
        device=device,
        precision=precision,
        network_size=None,
        settings=bundle.settings,
        backend_opener=engine,
    )
    camera = CameraImage(_street_image(size) if source is None else _first_image(source, size), "rgb")
    pipeline(camera)  # a graph is captured with the first frame and used from the second on
    result = pipeline(camera)
    plain = PlainNetwork(bundle, where)
    stages: list[dict[str, float]] = []

    def ours() -> dict[str, float]:
        pipeline(camera)
        stages.append(pipeline.timings_ms)
        return pipeline.timings_ms

    def twin() -> dict[str, float]:
        clock = StageClock()
        network_input = prepare_input(camera, geometry, bundle.input)
        clock.end("input")
        dense = plain(network_input)
        clock.end("network")
        _, rest = plain_postprocess(scene or dense, geometry.network_size, thing_ids, bundle.settings)
        return {**clock.stages_ms, **rest}

    subject = f"frame of {size[0]}x{size[1]}, {pipeline.describe()}"
    found = {"detections": len(result.detections)}
    comparison = compare(subject, ours, twin, seconds=seconds, details=found)
    if "network" in stages[-1]:  # as one graph, the frame can't be told apart from the network
        over_network = [sum(sample.values()) / sample["network"] for sample in stages]
        comparison.details["frame_over_network"] = float(np.median(over_network))
    pipeline.close()
    return comparison


@contextmanager
def _finishing(device: str, clock: StageClock, stage: str) -> Iterator[None]:
    yield
    if device != "cpu":
        wp.synchronize_device(device)
    clock.end(stage)


def _first_image(source: str, size: tuple[int, int]) -> np.ndarray:
    with open_source(source) as frames:
        image: np.ndarray = cv2.resize(next(iter(frames)).image, size[::-1], interpolation=cv2.INTER_AREA)
    return image


def _street_image(size: tuple[int, int]) -> np.ndarray:
    """Return a picture of (height, width) px with edges and texture, uint8 RGB."""
    random = np.random.default_rng(1)
    y, x = np.mgrid[: size[0], : size[1]]
    waves = [127 + 80 * np.sin(x / (17 + 9 * c)) * np.cos(y / (23 + 7 * c)) for c in range(3)]
    image: np.ndarray = np.stack(waves, axis=-1) + random.normal(0, 12, (*size, 3))
    return image.clip(0, 255).astype(np.uint8)
