"""`python -m rt_panoptic_ros bench postprocess | network | pipeline`: what is timed, against which reference.

The reference implementations lie in test/, so this runs in a checkout only.
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from rt_panoptic_ros.benchmark.measure import Comparison, StageClock, compare
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
    from rt_panoptic_ros.model.bundle import ModelBundle
    from rt_panoptic_ros.records import DenseDetections, PanopticResult

sys.path.append(str(Path(__file__).resolve().parents[1] / "test"))


class SceneBackend(Backend):
    """Runs a network, then gives the outputs of a made-up scene in place of its own, so that objects can be counted."""

    def __init__(self, inner: Backend, scene: DenseDetections) -> None:  # wraps a loaded backend instead of loading one
        self._inner, self._scene = inner, scene
        self.name, self.device, self.precision = inner.name, inner.device, inner.precision
        self.network_size = inner.network_size

    def infer(self, image: np.ndarray) -> DenseDetections:
        """Run the network and return the scene."""
        self._inner.infer(image)
        return self._scene

    def close(self) -> None:
        """Free the backend."""
        self._inner.close()


def bench_postprocess(size: tuple[int, int], detections: int, device: str, *, seconds: float) -> Comparison:
    """Time everything behind the network for a scene of Cityscapes' classes, camera and network of one size."""
    plain, where = import_module("reference_postprocess"), resolve_device(device)
    classes = load_class_table("cityscapes")
    dense = street_scene(size, detections, classes=len(classes), thing_ids=classes.thing_ids, device=where)
    settings, geometry = PostprocessSettings(), ImageGeometry(*size, *size, *size)
    postprocessor = Postprocessor(dense, classes.thing_ids, geometry)

    def ours(clock: StageClock) -> PanopticResult:
        postprocessor.launch(dense, settings, clock.stage)
        result = postprocessor.result()
        clock.end("fusion")
        return result

    def theirs(clock: StageClock) -> PanopticResult:
        result: PanopticResult = plain.postprocess(dense, classes.thing_ids, geometry, settings, clock.stage)
        return result

    mine, other = ours(StageClock()), theirs(StageClock())
    alike = (mine.semantic == other.semantic) & (mine.instance == other.instance)
    return compare(
        f"post-processing, {detections} objects, {size[0]}x{size[1]}, {where}", ours, theirs, device=where,
        seconds=seconds, details={"detections": len(mine.detections), "pixels_alike": float(alike.mean())},
    )  # fmt: skip


def bench_network(
    bundle: ModelBundle, size: tuple[int, int], backend: str, device: str, precision: str, *, tf32: bool,
    seconds: float,
) -> Comparison:  # fmt: skip
    """Time the network alone for inputs of `size` against the plain one in torch."""
    network = import_module("reference_network")
    ours = open_backend(backend, bundle, size, device, precision, tf32=tf32)
    theirs = network.ReferenceNetwork(bundle, size, ours.device)
    image = _street_image(size)
    logits, expected = (each.infer(image).semantic_logits.numpy() for each in (ours, theirs))
    return compare(
        f"network of {bundle.name}, {size[0]}x{size[1]}, {ours.name} in {ours.precision} on {ours.device}",
        lambda _: ours.infer(image), lambda _: theirs.infer(image), device=ours.device, seconds=seconds,
        details={"largest_logit_difference": float(np.abs(logits - expected).max())},
    )  # fmt: skip


def bench_pipeline(
    bundle: ModelBundle, size: tuple[int, int], detections: int | None, backend: str, device: str, precision: str, *,
    tf32: bool, seconds: float, source: str | None = None,
) -> Comparison:  # fmt: skip
    """Time the whole frame, image in and labels out, against the plain network and the plain post-processing.

    Args:
        bundle: The model.
        size: (height, width) px of the camera image; the card says what it is brought to.
        detections: Objects of a made-up scene that takes the place of the network's outputs after it ran; None
            keeps its own.
        backend: One of `BACKENDS`.
        device: auto, cpu or cuda.
        precision: One of `PRECISIONS`, for ours; the reference is float32.
        tf32: Whether ours may take TF32 for float32.
        seconds: About how long to measure.
        source: Its first image is the camera's, brought to `size`; None makes one up.
    """
    plain, network = import_module("reference_postprocess"), import_module("reference_network")
    geometry, where = plan_geometry(size, bundle.input, None), resolve_device(device)
    thing_ids, settings = bundle.classes.thing_ids, bundle.settings
    scene = None if detections is None else street_scene(
        geometry.network_size, detections, classes=len(bundle.classes), thing_ids=thing_ids, device=where
    )  # fmt: skip

    def with_scene(inner: Backend) -> Backend:
        return inner if scene is None else SceneBackend(inner, scene)

    pipeline = PanopticPipeline(
        bundle, backend=backend, device=device, precision=precision, tf32=tf32, network_size=None,
        settings=settings, backend_opener=lambda *arguments, **tf32: with_scene(open_backend(*arguments, **tf32)),
    )  # fmt: skip
    theirs = with_scene(network.ReferenceNetwork(bundle, geometry.network_size, where))
    camera = CameraImage(_street_image(size) if source is None else _first_image(source, size), "rgb")
    pipeline(camera)  # a graph is captured with the first frame and used from the second on
    details: dict[str, Any] = {"detections": len(pipeline(camera).detections)}
    over_network: list[float] = []

    def frame(clock: StageClock) -> None:
        pipeline(camera)
        clock.stages_ms = stages = dict(pipeline.timings_ms)
        if "network" in stages:  # as one graph, the frame can't be told apart from the network
            over_network.append(sum(stages.values()) / stages["network"])

    def plain_frame(clock: StageClock) -> None:
        with clock.stage("input"):
            image = prepare_input(camera, geometry, bundle.input)
        with clock.stage("network"):
            dense = theirs.infer(image)
        plain.postprocess(dense, thing_ids, geometry, settings, clock.stage)

    subject = f"frame of {size[0]}x{size[1]}, {pipeline.describe()}"
    comparison = compare(subject, frame, plain_frame, device=where, seconds=seconds, details=details)
    if over_network:
        comparison.details["frame_over_network"] = float(np.median(over_network))
    pipeline.close()
    return comparison


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
