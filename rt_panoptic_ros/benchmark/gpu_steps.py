# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The steps of `gpu_check`, each run as `python -m rt_panoptic_ros.benchmark.gpu_steps STEP PLAN FINDINGS`.

PLAN is the JSON of a `Plan`; each line that FINDINGS gets is a JSON table of figures, or {"failure": what is wrong}.
"""

from __future__ import annotations

import gc
import importlib.util
import json
import multiprocessing
import os
import platform
import shutil
import subprocess
import sys
import time
import traceback
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import warp as wp

from rt_panoptic_ros.benchmark.gpu_check import Findings, Plan
from rt_panoptic_ros.benchmark.gpu_timing import TENSORRT_PRECISIONS, TORCH_PRECISIONS, time_frames, time_postprocessing
from rt_panoptic_ros.benchmark.scenes import SceneBackend, made_up_image, street_scene
from rt_panoptic_ros.inference.backends import open_backend, resolve_device
from rt_panoptic_ros.inference.base import Backend
from rt_panoptic_ros.inference.parity import compare_outputs
from rt_panoptic_ros.model.bundle import ModelBundle, read_bundle
from rt_panoptic_ros.model.class_table import load_class_table
from rt_panoptic_ros.panoptic import launching
from rt_panoptic_ros.panoptic.fusion import PanopticFuser
from rt_panoptic_ros.panoptic.masks import MaskConstructor
from rt_panoptic_ros.panoptic.postprocess import Postprocessor
from rt_panoptic_ros.panoptic.query_boxes import QueryBoxSelector
from rt_panoptic_ros.panoptic.semantics import ConfidencePainter
from rt_panoptic_ros.pipeline import PanopticPipeline
from rt_panoptic_ros.records import IMAGES, LABELS, CameraImage, DenseDetections, ImageGeometry, PanopticResult
from rt_panoptic_ros.settings import PostprocessSettings, record_from
from rt_panoptic_ros.warp_runtime import load_kernels

_PACKAGES = ("warp-lang", "torch", "numpy", "onnx", "onnxruntime", "tensorrt", "tensorrt_rtx", "opencv-python-headless")
_KERNELS = ("query_boxes", "suppression", "mask_kernels", "fusion_kernels", "painting", "semantics")
_ROUNDING = 2e-5  # share of pixels, or difference of scores, that float32's rounding may decide
_UNSURE = {"pre_nms_threshold": 0.01, "score_threshold": 0.01, "mask_threshold": 0.05}  # objects in a made-up image

OTHER_VALUES: dict[str, object] = {
    "pre_nms_threshold": 0.2, "pre_nms_top_k": 1500, "nms_threshold": 0.4, "global_nms_threshold": 0.7,
    "max_detections": 20, "similarity": "giou", "mask_threshold": 0.4, "score_threshold": 0.4,
    "overlap_threshold": 0.2, "stuff_area_min": 50,
}  # fmt: skip
"""{live setting: a value that isn't its default}"""


def _look_around(plan: Plan, findings: Findings) -> None:
    """Say which machine this is."""
    findings.note(python=platform.python_version(), machine=platform.platform(), cores=len(os.sched_getaffinity(0)))
    findings.note(**{name: _version(name) for name in _PACKAGES})
    findings.note(**{tool: shutil.which(tool) or "absent" for tool in ("compute-sanitizer", "nvcc", "nvidia-smi")})
    if shutil.which("nvidia-smi"):
        query = "--query-gpu=name,driver_version,memory.total,compute_cap,clocks.sm,clocks.max.sm,clocks.mem"
        command = ["nvidia-smi", query, "--format=csv,noheader"]
        said = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=20, check=False)
        findings.note(nvidia_smi=said.stdout.strip())
    resolve_device(plan.device)
    device = wp.get_device(plan.device)
    findings.note(device=device.alias, name=device.name, cuda=str(wp.get_cuda_toolkit_version()))
    if device.is_cuda:
        findings.note(
            driver_cuda=str(wp.get_cuda_driver_version()), compute_capability=device.arch / 10,
            multiprocessors=device.sm_count, memory_mb=device.total_memory // 10**6,
            memory_pool=device.is_mempool_enabled,
        )  # fmt: skip


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"


def _compile(plan: Plan, findings: Findings) -> None:
    """Compile all modules at once, and say where they are kept; from a warm cache that takes no time."""
    with ProcessPoolExecutor(len(_KERNELS), multiprocessing.get_context("spawn")) as processes:
        for name, seconds in zip(_KERNELS, processes.map(_load, _KERNELS, [plan.device] * len(_KERNELS)), strict=True):
            findings.note(module=name, seconds=seconds)
    resolve_device(plan.device)
    findings.note(cache=str(wp.config.kernel_cache_dir))


def _load(name: str, device: str) -> float:
    """Return how long a module's kernels take to load, s."""
    resolve_device(device)
    wp.zeros(1, device=device)
    module = importlib.import_module(f"rt_panoptic_ros.panoptic.{name}")
    begin = time.perf_counter()
    load_kernels((module,), device)
    return time.perf_counter() - begin


def _compare_kernels(plan: Plan, findings: Findings) -> None:
    """Run every stage on the device and on the CPU, with the CPU's query boxes for the stages behind them."""
    table = load_class_table("cityscapes")
    for size in plan.sizes:
        for objects in plan.objects:
            host = street_scene(size, objects, classes=len(table), thing_ids=table.thing_ids, device="cpu")
            arrays = {name: wp.array(array, device=plan.device) for name, array in host.host_arrays().items()}
            both = host, DenseDetections.of_arrays(arrays)
            geometry = ImageGeometry(*size, *size, *size)
            for similarity in ("iou", "giou"):
                settings = PostprocessSettings().replaced({"similarity": similarity, "stuff_area_min": 2000})
                subject = {"size": f"{size[0]}x{size[1]}", "objects": objects, "similarity": similarity}
                figures = _stage_differences(both, table.thing_ids, geometry, settings)
                wrong = [
                    name for name, value in figures.items()
                    if value > {"query_rows": 0, "confidence_levels": 1}.get(name, _ROUNDING) and name != "found"
                ]  # fmt: skip
                findings.expect(not wrong, f"{', '.join(wrong)} beyond rounding", subject | figures)


def _stage_differences(
    both: tuple[DenseDetections, DenseDetections],
    thing_ids: tuple[int, ...],
    geometry: ImageGeometry,
    settings: PostprocessSettings,
) -> dict[str, float]:
    """Return how much each stage's results differ: rows, largest differences of scores and boxes, shares of pixels."""
    selectors = [QueryBoxSelector(dense) for dense in both]
    queries = [
        selector.select(dense, geometry.content_size, settings.query_boxes)
        for selector, dense in zip(selectors, both, strict=True)
    ]
    counts = [int(one.count.numpy()[0]) for one in queries]
    count = min(counts)
    labels, scores, boxes = (
        [getattr(one, name).numpy()[:count].copy() for one in queries] for name in ("labels", "scores", "boxes")
    )
    figures = {
        "found": float(counts[0]),
        "query_rows": float(abs(counts[0] - counts[1]) + (labels[0] != labels[1]).sum()),
        "scores": float(np.abs(scores[0] - scores[1]).max(initial=0)),
        "boxes": float((np.abs(boxes[0] - boxes[1]) / np.maximum(np.abs(boxes[0]), 1)).max(initial=0)),
    }
    for name in ("boxes", "scores", "labels", "count"):
        wp.copy(getattr(queries[1], name), getattr(queries[0], name))
    masks, results, confidences = [], [], []
    for dense, query in zip(both, queries, strict=True):
        membership = MaskConstructor(dense, thing_ids).construct(dense, query, settings.masks)
        fuser = PanopticFuser(dense, thing_ids, geometry)
        fuser.launch(query, membership, settings.fusion, partial(fuser.paint_semantics, dense, membership))
        results.append(fuser.result())
        masks.append(fuser.render_masks(membership))
        painter = ConfidencePainter(dense, geometry)
        painter.launch(dense)
        confidences.append(painter.result().astype(int))
    same = masks[0].shape == masks[1].shape
    return figures | {
        "masks": float((masks[0] != masks[1]).mean()) if same and masks[0].size else float(not same),
        "semantic": float((results[0].semantic != results[1].semantic).mean()),
        "instance": float((results[0].instance != results[1].instance).mean()),
        "confidence_levels": float(np.abs(confidences[0] - confidences[1]).max()),
    }


class _Uncaptured(Backend):
    """A backend as one that can't be captured."""

    name = "uncaptured"

    def __init__(self, backend: SceneBackend) -> None:
        super().__init__(backend.network_size, backend.device, backend.precision)
        self._backend = backend

    def infer(self, image: np.ndarray) -> DenseDetections:
        return self._backend.infer(image)

    def close(self) -> None:
        pass


def _compare_graphs(plan: Plan, findings: Findings) -> None:
    """Replay graphs after changes of settings, of the confidence and of the camera, over trampled memory."""
    if plan.device == "cpu":
        launching.MAX_BANDS = 1  # a GPU has none; in other threads they can't be captured
    resolve_device(plan.device)
    table = load_class_table("cityscapes")
    bundle = replace(read_bundle("camvid_lite0"), classes=table)
    random = np.random.default_rng(1)
    for size in plan.sizes:
        scene = street_scene(size, max(plan.objects), classes=19, thing_ids=table.thing_ids, device=plan.device)
        backend = SceneBackend(scene, size, plan.device)
        cameras = [size, (size[0] * 3 // 4, size[1]), (size[0], size[1] * 5 // 4)]
        images = [CameraImage(random.integers(0, 256, (*one, 3), np.uint8), "rgb") for one in cameras for _ in range(2)]
        first = PostprocessSettings().replaced({"pre_nms_top_k": 100})
        plain = _pipeline_of(_Uncaptured(backend), bundle, first)
        usual, confident = (first, images[:2], False), (first, images[:2], True)
        changes = {name: [usual, (first.replaced({name: value}), images[:2], False), usual]
                   for name, value in OTHER_VALUES.items()}  # fmt: skip
        others = [(first, images[2:4], False), (first, images[4:], False)]
        changes["confidence, cameras"] = [usual, confident, usual, *others, confident]
        for name, frames in changes.items():
            captured = _pipeline_of(backend, bundle, first)
            _play(captured, plain, frames, f"{size[0]}x{size[1]} {name}", findings, plan.device)


def _launch_one_graph(plan: Plan, findings: Findings) -> None:
    """Launch a small frame's graph, which a tool that takes a thousand times as long can follow."""
    if plan.device == "cpu":
        launching.MAX_BANDS = 1
    resolve_device(plan.device)
    size, table = plan.sizes[0], load_class_table("cityscapes")
    scene = street_scene(size, 3, classes=len(table), thing_ids=table.thing_ids, device=plan.device)
    postprocessor = Postprocessor(scene, table.thing_ids, ImageGeometry(*size, *size, *size), capturable=True)
    settings, images = PostprocessSettings().replaced({"pre_nms_top_k": 100}), frozenset(IMAGES)
    postprocessor.launch(scene, settings, images=images)
    expected = postprocessor.result(images=images)
    with wp.ScopedCapture(device=plan.device) as capture:
        postprocessor.launch(scene, settings, images=images)
    wp.capture_launch(capture.graph)
    different = _different(postprocessor.result(images=images), expected)
    figures = {"objects": len(expected.detections), "different": ", ".join(different) or "none"}
    findings.expect(not different and bool(figures["objects"]), "the graph's results differ", figures)


def _pipeline_of(backend: Backend, bundle: ModelBundle, settings: PostprocessSettings) -> PanopticPipeline:
    """Return the pipeline of a backend that is open."""
    return PanopticPipeline(
        bundle, backend="auto", device=backend.device, precision=backend.precision,
        network_size=backend.network_size, settings=settings, backend_opener=lambda *_, **__: backend,
    )  # fmt: skip


def _play(
    captured: PanopticPipeline,
    plain: PanopticPipeline,
    frames: list[tuple[PostprocessSettings, list[CameraImage], bool]],
    subject: str,
    findings: Findings,
    device: str,
) -> None:
    """Label each two images, twice, captured and not, and compare all bits."""
    different, replayed, objects, played = [], 0, [], 0
    for turn, (settings, images, confidence) in enumerate(frames):
        wanted = LABELS | {"confidence"} if confidence else LABELS
        for image in images * 2:
            ours = captured(image, settings=settings, images=wanted)
            replayed += "graph" in captured.timings_ms
            expected = plain(image, settings=settings, images=wanted)
            different += [f"{name} in turn {turn}" for name in _different(ours, expected)]
            objects.append(len(expected.detections))
            played += 1
        _trample(device)
    findings.expect(
        not different and replayed >= played - len(frames),
        "captured frames differ or aren't captured",
        {"subject": subject, "frames": played, "replayed": replayed, "objects": str(objects[:: len(images) * 2]),
         "different": ", ".join(different) or "none"},
    )  # fmt: skip


def _different(ours: PanopticResult, expected: PanopticResult) -> list[str]:
    """Return what isn't the same to the bit."""
    pairs = {name: (getattr(ours, name), getattr(expected, name)) for name in ("semantic", "instance", "confidence")}
    for name in ("scores", "areas", "boxes", "mask_boxes", "class_ids"):
        pairs[name] = getattr(ours.detections, name), getattr(expected.detections, name)
    return [name for name, (mine, other) in pairs.items() if not np.array_equal(mine, other)]


def _trample(device: str) -> None:
    """Write over all of the memory that has been freed, so that nothing can go on reading it unseen."""
    gc.collect()
    sizes = [2**power for power in range(6, 23)]
    arrays = [wp.full(size, -1, dtype=wp.int8, device=device) for size in sizes for _ in range(16)]
    wp.synchronize_device(device)
    del arrays


def _compare_torch(plan: Plan, findings: Findings) -> None:
    _compare_backend("torch", TORCH_PRECISIONS, plan, findings)


def _compare_tensorrt(plan: Plan, findings: Findings) -> None:
    if plan.device == "cpu" or not any(importlib.util.find_spec(name) for name in ("tensorrt", "tensorrt_rtx")):
        findings.note(not_run="needs tensorrt or tensorrt_rtx, and a GPU")
        return
    _compare_backend("tensorrt", TENSORRT_PRECISIONS, plan, findings)


def _compare_backend(name: str, precisions: tuple[tuple[str, bool], ...], plan: Plan, findings: Findings) -> None:
    """Run a trained network on the device, and whole frames behind it, beside ONNX Runtime on the CPU.

    Args:
        name: The backend.
        precisions: (precision, whether TF32 is allowed).
        plan: What is run where.
        findings: Where differences go.
    """
    model, *size = plan.networks[0]
    bundle, network_size = read_bundle(model), (size[0], size[1])
    image = made_up_image(network_size)
    settings = bundle.settings.replaced(_UNSURE)

    def run(
        backend: str, device: str, precision: str, *, tf32: bool = False
    ) -> tuple[dict[str, np.ndarray], PanopticResult]:
        opened = open_backend(backend, bundle, network_size, device, precision, tf32=tf32)
        outputs = opened.infer(image).host_arrays()
        pipeline = _pipeline_of(opened, bundle, settings)
        result = pipeline(CameraImage(image, "rgb"))
        pipeline.close()
        return outputs, result

    expected, expected_result = run("onnxruntime", "cpu", "float32")
    for precision, tf32 in precisions:
        outputs, result = run(name, plan.device, precision, tf32=tf32)
        differences, same_classes = compare_outputs(outputs, expected)
        same_semantic = float((result.semantic == expected_result.semantic).mean())
        figures = {
            "precision": precision, "tf32": tf32, **differences, "same_class_cells": same_classes,
            "same_semantic": same_semantic,
            "same_instance": float((result.instance == expected_result.instance).mean()),
            "objects": f"{len(result.detections)} of {len(expected_result.detections)}",
        }  # fmt: skip
        exact = precision == "float32" and not tf32
        right = same_semantic >= (0.9999 if exact else 0.97) and same_classes >= 0.99
        right = right and (not exact or max(differences.values()) < 2e-3)
        findings.expect(right, f"{name} differs from ONNX Runtime", figures)


_STEPS = {
    "machine": _look_around,
    "compile": _compile,
    "kernels": _compare_kernels,
    "graphs": _compare_graphs,
    "graph": _launch_one_graph,
    "network": _compare_torch,
    "tensorrt": _compare_tensorrt,
    "timing": time_postprocessing,
    "frames": time_frames,
}


def main(step: str, plan: str, findings: str) -> int:
    """Run a step; return 1 where it raised, with what in the findings."""
    found = Findings(Path(findings))
    try:
        _STEPS[step](record_from(Plan, json.loads(plan), "the plan"), found)
    except Exception:  # whatever it is, the other steps go on, and the report says it
        found.fail(traceback.format_exc())
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
