# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""`python -m rt_panoptic_ros bench postprocess | network | pipeline`: what is timed, against which reference.

The reference implementations lie in test/, so this runs in a checkout only.
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import warp as wp

from rt_panoptic_ros.benchmark.measure import Comparison, StageClock, compare, graph_times, median_stages
from rt_panoptic_ros.benchmark.scenes import street_scene
from rt_panoptic_ros.frames.sources import open_source
from rt_panoptic_ros.inference.backends import open_backend, resolve_device
from rt_panoptic_ros.inference.base import Backend, CapturableBackend
from rt_panoptic_ros.inference.frame_graph import FrameGraph
from rt_panoptic_ros.inference.input_image import plan_geometry, prepare_input
from rt_panoptic_ros.model.class_table import load_class_table
from rt_panoptic_ros.panoptic.postprocess import Postprocessor
from rt_panoptic_ros.pipeline import PanopticPipeline
from rt_panoptic_ros.records import CameraImage, ImageGeometry
from rt_panoptic_ros.settings import PostprocessSettings
from scripts.floors import count_floors

if TYPE_CHECKING:
    from collections.abc import Callable

    from rt_panoptic_ros.model.bundle import ModelBundle
    from rt_panoptic_ros.records import DenseDetections, PanopticResult

sys.path.append(str(Path(__file__).resolve().parents[1] / "test"))


class SceneBackend(Backend):
    """Runs a network, then gives the outputs of a made-up scene in place of its own, so that objects can be counted.

    It wraps a backend that is loaded. Without a scene, it is that one, except that it can't be captured.
    """

    def __init__(self, inner: Backend, scene: DenseDetections | None) -> None:
        self._inner, self._scene = inner, scene
        self.name, self.device, self.precision = inner.name, inner.device, inner.precision
        self.network_size = inner.network_size

    def infer(self, image: np.ndarray) -> DenseDetections:
        """Run the network and return the scene."""
        dense = self._inner.infer(image)
        return dense if self._scene is None else self._scene

    def close(self) -> None:
        """Free the backend."""
        self._inner.close()


class CapturableSceneBackend(SceneBackend, CapturableBackend):
    """The same around a backend that can be captured, as one that can."""

    def __init__(self, inner: CapturableBackend, scene: DenseDetections) -> None:
        super().__init__(inner, scene)
        self.image, self._enqueue, self._dense = inner.image, inner.enqueue, scene

    def enqueue(self) -> DenseDetections:
        """Enqueue the network and return the scene."""
        self._enqueue()
        return self._dense


def bench_postprocess(
    size: tuple[int, int], detections: int, device: str, *, seconds: float, capture: bool | None = None
) -> Comparison:
    """Time everything behind the network for a scene of Cityscapes' classes, camera and network of one size.

    Args:
        size: (height, width) px.
        detections: Objects of the scene.
        device: One of `DEVICES`.
        seconds: About how long to measure.
        capture: Whether ours is one graph, as in the pipeline behind a backend that can be captured; None for a GPU.
    """
    plain, where = import_module("reference_postprocess"), resolve_device(device)
    classes = load_class_table("cityscapes")
    dense = street_scene(size, detections, classes=len(classes), thing_ids=classes.thing_ids, device=where)
    settings, geometry = PostprocessSettings(), ImageGeometry(*size, *size, *size)
    capture = where != "cpu" if capture is None else capture
    postprocessor = Postprocessor(dense, classes.thing_ids, geometry, capturable=capture or None)

    def by_stage(clock: StageClock) -> PanopticResult:
        postprocessor.launch(dense, settings, clock.stage)
        result = postprocessor.result()
        clock.end("fusion")
        return result

    def enqueue() -> list[object]:
        postprocessor.launch(dense, settings)
        return postprocessor.in_use()

    launch = _captured(enqueue, where) if capture else None

    def ours(clock: StageClock) -> PanopticResult:
        if launch is None:
            return by_stage(clock)
        launch()
        result = postprocessor.result()
        clock.end("graph")
        return result

    def theirs(clock: StageClock) -> PanopticResult:
        result: PanopticResult = plain.postprocess(dense, classes.thing_ids, geometry, settings, clock.stage)
        return result

    mine, other = ours(StageClock()), theirs(StageClock())
    alike = (mine.semantic == other.semantic) & (mine.instance == other.instance)
    details: dict[str, Any] = {"detections": len(mine.detections), "pixels_alike": float(alike.mean())}
    if launch is not None:
        details["captured_ms"] = graph_times(lambda: ours(StageClock()))
        details["by_stage_ms"] = _stages_ms(by_stage, where)
    return compare(
        f"post-processing, {detections} objects, {size[0]}x{size[1]}, {where}", ours, theirs, device=where,
        seconds=seconds, details=details,
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
    details: dict[str, Any] = {"largest_logit_difference": float(np.abs(logits - expected).max())}
    launch = _captured(ours.enqueue, ours.device) if isinstance(ours, CapturableBackend) else None

    def infer() -> None:
        if isinstance(ours, CapturableBackend) and launch is not None:
            ours.image.assign(image)
            launch()
        else:
            ours.infer(image)
        wp.synchronize_device(ours.device)

    if launch is not None:
        details["captured_ms"] = graph_times(infer)
    gemms = [_gemm_gflop_per_s(ours.device)]
    comparison = compare(
        f"network of {bundle.name}, {size[0]}x{size[1]}, {ours.name} in {ours.precision} on {ours.device}",
        lambda _: infer(), lambda _: theirs.infer(image), device=ours.device, seconds=seconds, details=details,
    )  # fmt: skip
    gemms.append(_gemm_gflop_per_s(ours.device))
    floors = count_floors(replace(bundle, input=replace(bundle.input, size=size)), size)
    rates = {"gflop_per_s": 1e3 * sum(floors.gflop.values()) / comparison.median_ms, "gemm_gflop_per_s": max(gemms)}
    rates["share_of_gemm"] = rates["gflop_per_s"] / rates["gemm_gflop_per_s"]
    comparison.details.update({name: round(value, 3) for name, value in rates.items()})
    return comparison


def _gemm_gflop_per_s(device: str) -> float:
    """Return the rate of torch's product of two 2048x2048 matrices in float32: what the processor can do."""
    torch, side = import_module("torch"), 2048
    matrix = torch.rand(side, side, device=device)
    times_s = []
    for _ in range(12):
        begin_s = time.perf_counter()
        torch.mm(matrix, matrix)
        wp.synchronize_device(device)
        times_s.append(time.perf_counter() - begin_s)
    return 2e-9 * side**3 / float(np.median(times_s[2:]))


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
        device: One of `DEVICES`.
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
        if scene is None:
            return inner
        if isinstance(inner, CapturableBackend):
            return CapturableSceneBackend(inner, scene)
        return SceneBackend(inner, scene)

    opened: list[Backend] = []

    def open_once(*arguments: Any, **tf32: Any) -> Backend:
        opened.append(open_backend(*arguments, **tf32))
        return with_scene(opened[0])

    pipeline_of = partial(
        PanopticPipeline, bundle, backend=backend, device=device, precision=precision, tf32=tf32, network_size=None,
        settings=settings,
    )  # fmt: skip
    pipeline = pipeline_of(backend_opener=open_once)
    theirs = with_scene(network.ReferenceNetwork(bundle, geometry.network_size, where))
    camera = CameraImage(_street_image(size) if source is None else _first_image(source, size), "rgb")
    pipeline(camera)  # a graph is captured with the first frame and used from the second on
    details: dict[str, Any] = {"detections": len(pipeline(camera).detections)}

    def frame_of(labeller: PanopticPipeline, clock: StageClock) -> None:
        labeller(camera)
        clock.stages_ms = dict(labeller.timings_ms)

    if "graph" in pipeline.timings_ms:
        details["captured_ms"] = graph_times(lambda: pipeline(camera))
        plainly = pipeline_of(backend_opener=lambda *_, **__: SceneBackend(opened[0], scene))
        details["by_stage_ms"] = _stages_ms(partial(frame_of, plainly), where)
    over_network: list[float] = []

    def frame(clock: StageClock) -> None:
        frame_of(pipeline, clock)
        if "network" in clock.stages_ms:  # as one graph, the frame can't be told apart from the network
            over_network.append(sum(clock.stages_ms.values()) / clock.stages_ms["network"])

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


def _captured(enqueue: Callable[[], object], device: str) -> Callable[[], None] | None:
    """Return what launches some work as one graph; None where it can't be captured, which the log says."""
    enqueue()
    graph = FrameGraph(device)
    graph.capture("work", enqueue)
    return partial(graph.launch, "work") if graph.holds("work") else None


def _stages_ms(work: Callable[[StageClock], object], device: str) -> dict[str, float]:
    """Return the medians of some work's stages over 20 turns, after two to warm up."""
    clocks = []
    for _ in range(2 + 20):
        clocks.append(StageClock(device))
        work(clocks[-1])
    return median_stages([clock.stages_ms for clock in clocks[2:]])


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
