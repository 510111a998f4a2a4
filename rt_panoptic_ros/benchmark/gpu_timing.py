# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The timing steps of `gpu_check`: post-processing by stage and kernel, and whole frames with the torch backend."""

from __future__ import annotations

import ctypes
import tempfile
import time
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import warp as wp

from rt_panoptic_ros.benchmark.measure import median_stages
from rt_panoptic_ros.benchmark.scenes import made_up_image, street_scene
from rt_panoptic_ros.inference.backends import resolve_device
from rt_panoptic_ros.model.architecture import NetworkConfig
from rt_panoptic_ros.model.bundle import read_bundle
from rt_panoptic_ros.model.class_table import load_class_table
from rt_panoptic_ros.model.untrained import make_untrained_bundle
from rt_panoptic_ros.panoptic.fusion import PanopticFuser
from rt_panoptic_ros.panoptic.launching import Packed
from rt_panoptic_ros.panoptic.masks import MaskConstructor
from rt_panoptic_ros.panoptic.postprocess import Postprocessor
from rt_panoptic_ros.panoptic.query_boxes import QueryBoxSelector
from rt_panoptic_ros.panoptic.semantics import ConfidencePainter
from rt_panoptic_ros.pipeline import PanopticPipeline
from rt_panoptic_ros.records import CameraImage, ImageGeometry
from rt_panoptic_ros.settings import PostprocessSettings

if TYPE_CHECKING:
    from collections.abc import Callable

    from rt_panoptic_ros.benchmark.gpu_check import Findings, Plan
    from rt_panoptic_ros.model.bundle import ModelBundle
    from rt_panoptic_ros.records import DenseDetections

TORCH_PRECISIONS = (("float32", False), ("float32", True), ("float16", False))
"""(precision, whether TF32 is allowed)"""
TENSORRT_PRECISIONS = (("float32", False), ("float16", False), ("int8", False))

_MOST_NODES = 30

_NODE_TYPES = ("kernel", "memcpy", "memset", "host", "graph", "empty", "wait", "record", "signal", "semaphore_wait",
               "alloc", "free", "batch", "conditional")  # fmt: skip
"""Of `CUgraphNodeType`, by value."""


def time_postprocessing(plan: Plan, findings: Findings) -> None:
    """Time each stage and all of them as a captured graph, and count the graph's nodes."""
    resolve_device(plan.device)
    table = load_class_table("cityscapes")
    for size in reversed(plan.sizes):
        for objects in sorted({min(30, max(plan.objects)), 10, max(plan.objects)}, reverse=True):
            dense = street_scene(size, objects, classes=len(table), thing_ids=table.thing_ids, device=plan.device)
            subject = {"size": f"{size[0]}x{size[1]}", "objects": objects}
            for stage, work in _stages(dense, table.thing_ids, size).items():
                figures: dict[str, Any] = {**subject, "stage": stage, **_times(work, plan)}
                nodes: dict[str, int] = figures.get("nodes", {})
                few = nodes.get("all", 0) <= _MOST_NODES and "alloc" not in nodes
                findings.expect(few, f"expected at most {_MOST_NODES} nodes and no allocation", figures)
            if objects == max(plan.objects) and plan.device != "cpu":
                geometry = ImageGeometry(*size, *size, *size)
                postprocessor = Postprocessor(dense, table.thing_ids, geometry)
                _time_kernels(lambda: postprocessor.launch(dense, PostprocessSettings()), subject, findings)  # noqa: B023


def _stages(
    dense: DenseDetections, thing_ids: tuple[int, ...], size: tuple[int, int]
) -> dict[str, Callable[[], object]]:
    """Return {stage: what enqueues it}; each works on what the one before left."""
    settings, geometry = PostprocessSettings(), ImageGeometry(*size, *size, *size)
    device = dense.semantic_logits.device
    selector, constructor = QueryBoxSelector(dense), MaskConstructor(dense, thing_ids)
    fuser, painter = PanopticFuser(dense, thing_ids, geometry), ConfidencePainter(dense, geometry)
    whole = Postprocessor(dense, thing_ids, geometry)
    queries = selector.select(dense, size, settings.query_boxes)
    membership = constructor.construct(dense, queries, settings.masks)
    paint = partial(fuser.paint_semantics, dense, membership)
    images = Packed({"semantic": (size, wp.uint8), "instance": (size, wp.uint8)}, device)
    return {
        "all": lambda: whole.launch(dense, settings),
        "query_boxes": lambda: selector.select(dense, size, settings.query_boxes),
        "masks": lambda: constructor.construct(dense, queries, settings.masks),
        "fusion with download": lambda: fuser.launch(queries, membership, settings.fusion, paint),
        "download of two images": lambda: images.enqueue("semantic", "instance"),
        "confidence": lambda: painter.launch(dense),
    }


def _times(work: Callable[[], object], plan: Plan) -> dict[str, Any]:
    """Return times of some work, ms: on a GPU of its graph on the device, and what the host takes to launch it."""
    work()
    if plan.device == "cpu":
        begin = time.perf_counter()
        for _ in range(plan.repeats):
            work()
        return {"ms": 1e3 * (time.perf_counter() - begin) / plan.repeats}
    wp.synchronize_device(plan.device)
    begin = time.perf_counter()
    work()
    host_uncaptured = time.perf_counter() - begin
    with wp.ScopedCapture(device=plan.device) as capture:
        work()
    device_ms, host_ms = [], []
    start, end = (wp.Event(plan.device, enable_timing=True) for _ in range(2))
    for _ in range(plan.repeats + 5):
        wp.synchronize_device(plan.device)
        wp.record_event(start)
        begin = time.perf_counter()
        wp.capture_launch(capture.graph)
        host_ms.append(1e3 * (time.perf_counter() - begin))
        wp.record_event(end)
        device_ms.append(wp.get_event_elapsed_time(start, end))
    wp.record_event(start)
    for _ in range(plan.repeats):
        wp.capture_launch(capture.graph)
    wp.record_event(end)
    return {
        "device_ms": float(np.median(device_ms[5:])), "least_ms": min(device_ms[5:]),
        "in_a_row_ms": wp.get_event_elapsed_time(start, end) / plan.repeats,
        "host_launch_ms": float(np.median(host_ms[5:])), "host_uncaptured_ms": 1e3 * host_uncaptured,
        "nodes": _count_nodes(capture.graph),
    }  # fmt: skip


def _count_nodes(graph: wp.Graph) -> dict[str, int]:
    """Return {kind: nodes} of a captured graph."""
    cuda = ctypes.CDLL("libcuda.so.1")
    count = ctypes.c_size_t()
    if cuda.cuGraphGetNodes(graph.graph, None, ctypes.byref(count)):
        raise RuntimeError("the driver does not tell a graph's nodes")
    nodes = (ctypes.c_void_p * count.value)()
    cuda.cuGraphGetNodes(graph.graph, nodes, ctypes.byref(count))
    kinds: Counter[str] = Counter()
    for node in nodes:
        kind = ctypes.c_int()
        cuda.cuGraphNodeGetType(ctypes.c_void_p(node), ctypes.byref(kind))
        kinds[_NODE_TYPES[kind.value]] += 1
    return {"all": count.value, **kinds}


def _time_kernels(launch: Callable[[], object], subject: dict[str, Any], findings: Findings) -> None:
    """Note what each kernel, copy and filling takes on the device, launched one by one."""
    launch()
    runs: list[dict[str, tuple[int, float]]] = []
    for _ in range(10):
        wp.timing_begin()
        launch()
        by_name: dict[str, tuple[int, float]] = {}
        for result in wp.timing_end():
            times, total = by_name.get(result.name, (0, 0.0))
            by_name[result.name] = times + 1, total + result.elapsed
        runs.append(by_name)
    medians = {name: float(np.median([run.get(name, (0, 0.0))[1] for run in runs])) for name in runs[0]}
    for name in sorted(medians, key=medians.__getitem__, reverse=True):
        findings.note(**subject, kernel=name, launches=runs[0][name][0], device_ms=medians[name])


def time_frames(plan: Plan, findings: Findings) -> None:
    """Time whole frames with the torch backend by precision: of a shipped model, and of an untrained one."""
    with tempfile.TemporaryDirectory() as folder:
        for name, *sides in plan.networks:
            size = (sides[0], sides[1])
            if name == "resnet50":
                table = load_class_table("cityscapes")
                bundle = make_untrained_bundle(
                    Path(folder) / name, network=NetworkConfig(name), classes=table, size=size, seed=1
                )
            else:
                bundle = read_bundle(name)
            for precision, tf32 in TORCH_PRECISIONS:
                times, objects = _frame_times(bundle, size, precision, plan, tf32=tf32)
                findings.note(
                    model=name, size=f"{size[0]}x{size[1]}", precision=precision, tf32=tf32, objects=objects, **times
                )


def _frame_times(
    bundle: ModelBundle, size: tuple[int, int], precision: str, plan: Plan, *, tf32: bool
) -> tuple[dict[str, float | bool], int]:
    """Return the medians of a frame's stages and of it all, ms, whether it is a graph, and how many objects it has."""
    pipeline = PanopticPipeline(
        replace(bundle, input=replace(bundle.input, size=size)), backend="torch", precision=precision,
        tf32=tf32, device=plan.device, network_size=size, settings=bundle.settings,
    )  # fmt: skip
    image = CameraImage(made_up_image(size), "rgb")
    samples = []
    for turn in range(3 + plan.repeats):
        begin = time.perf_counter()
        result = pipeline(image)
        total = {"frame": 1e3 * (time.perf_counter() - begin)}
        if turn >= 3:
            samples.append(total | pipeline.timings_ms)
    captured = "graph" in pipeline.timings_ms
    pipeline.close()
    return {"captured": captured} | {f"{stage}_ms": value for stage, value in median_stages(samples).items()}, len(
        result.detections
    )
