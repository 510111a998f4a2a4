# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""One frame's way from camera pixels to labels: reads like the arrows of docs/architecture.md."""

from __future__ import annotations

import logging
import math
import time
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import warp as wp

from rt_panoptic_ros.errors import InvalidInputError, first_line
from rt_panoptic_ros.inference.backends import check_choice, open_backend, resolve_device
from rt_panoptic_ros.inference.base import CapturableBackend, made_current
from rt_panoptic_ros.inference.device_input import DeviceInput, load_input
from rt_panoptic_ros.inference.frame_graph import FrameGraph
from rt_panoptic_ros.inference.input_image import check_image, plan_geometry, prepare_input
from rt_panoptic_ros.model.bundle import read_bundle
from rt_panoptic_ros.panoptic.postprocess import Postprocessor, load_postprocessing
from rt_panoptic_ros.progress import report
from rt_panoptic_ros.records import IMAGES, LABELS, CameraImage, ImageGeometry, PanopticResult
from rt_panoptic_ros.settings import PostprocessSettings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from rt_panoptic_ros.inference.backends import BackendOpener
    from rt_panoptic_ros.inference.base import Backend
    from rt_panoptic_ros.model.bundle import ModelBundle
    from rt_panoptic_ros.model.class_table import ClassTable
    from rt_panoptic_ros.panoptic.postprocess import Stage

_LOG = logging.getLogger(__name__)

UNDEFINED = (
    "the network gave values that are no finite numbers, where labels are void and objects missing: take precision "
    "float32 or another backend, or mend the weights"
)

_NETWORKS_KEPT = 4
"""Input sizes that stay loaded at once, for cameras or folders of images of mixed sizes."""

_GEOMETRIES_KEPT = 8
"""Image geometries of one input size whose buffers stay at once, if they have no more than:"""
_PIXELS_KEPT = 64 * 10**6


@dataclass(frozen=True, slots=True)
class _Buffers:
    """What is kept around the network for images of one geometry."""

    postprocessor: Postprocessor
    graph: FrameGraph
    inputs: dict[int, DeviceInput] = field(default_factory=dict)  # by channels


def load_frame_kernels(device: str) -> None:
    """Load all kernels of a frame's way on a device."""
    load_postprocessing(device)
    if device != "cpu":
        load_input(device)


class _LoadedNetwork:
    """A backend, which computes the network for one input size, and what is kept around it for each geometry."""

    def __init__(self, backend: Backend, bundle: ModelBundle) -> None:
        self.backend = backend
        self._thing_ids, self._spec = bundle.classes.thing_ids, bundle.input
        # The first inference warms the backend up, and its outputs tell the buffers' sizes.
        self.dense = backend.infer(np.zeros((*backend.network_size, 3), np.uint8))
        self._kept: OrderedDict[ImageGeometry, _Buffers] = OrderedDict()

    def run(
        self, image: CameraImage, geometry: ImageGeometry, settings: PostprocessSettings, timed: Stage, *,
        images: frozenset[str],
    ) -> PanopticResult:  # fmt: skip
        """Do a frame's work stage by stage, or with a graph of it."""
        if isinstance(self.backend, CapturableBackend):
            return self._run_graph(self.backend, image, geometry, settings, timed, images=images)
        with timed("input"):
            pixels = prepare_input(image, geometry, self._spec)
        with timed("network"):
            self.dense = self.backend.infer(pixels)
        return self._finish(self.buffers(geometry).postprocessor, settings, timed, images)

    def _run_graph(
        self, backend: CapturableBackend, image: CameraImage, geometry: ImageGeometry, settings: PostprocessSettings,
        timed: Stage, *, images: frozenset[str],
    ) -> PanopticResult:  # fmt: skip
        """Do a frame's work with one launch where it has been captured, else stage by stage, and captured then.

        Both give the same bits, as a graph is a recording of the very launches that the stages make, over the same
        memory. It is recorded behind a frame that went stage by stage, since what such a frame may still allocate or
        compile can't be recorded. It holds the addresses of one geometry's buffers, and the settings as constants.
        """
        kept = self.buffers(geometry)
        with timed("input"):
            channels = image.pixels.shape[2] if image.pixels.ndim == 3 else 1
            if channels not in kept.inputs:
                kept.inputs[channels] = DeviceInput(geometry, channels, self._spec, backend.image)
            source = kept.inputs[channels]
            source.stage(image)
        work = (settings, images, channels)
        if kept.graph.holds(work):
            with timed("graph"):
                kept.graph.launch(work)
                return kept.postprocessor.result(images=images)
        with timed("input"):
            source.launch()
        with timed("network"):
            self.dense = backend.enqueue()
        result = self._finish(kept.postprocessor, settings, timed, images)

        def enqueue() -> list[object]:
            source.launch()
            dense = backend.enqueue()
            kept.postprocessor.launch(dense, settings, images=images)
            return [source, dense, kept.postprocessor, *kept.postprocessor.in_use()]

        kept.graph.capture(work, enqueue)
        return result

    def _finish(
        self, postprocessor: Postprocessor, settings: PostprocessSettings, timed: Stage, images: frozenset[str]
    ) -> PanopticResult:
        """Do what follows the network."""
        postprocessor.launch(self.dense, settings, timed, images=images)
        with timed("fusion"):  # what is left of it
            return postprocessor.result(images=images)

    def close(self) -> None:
        """Close the backend."""
        with made_current(self.backend.device):
            self.backend.close()

    def buffers(self, geometry: ImageGeometry) -> _Buffers:
        """Return what is kept for a geometry."""
        if geometry not in self._kept:
            sizes = [math.prod(other.camera_size) for other in (*self._kept, geometry)]
            while self._kept and (len(sizes) > _GEOMETRIES_KEPT or sum(sizes) > _PIXELS_KEPT):
                self._kept.popitem(last=False)
                del sizes[0]
            capturable = True if isinstance(self.backend, CapturableBackend) else None
            postprocessor = Postprocessor(self.dense, self._thing_ids, geometry, capturable=capturable)
            self._kept[geometry] = _Buffers(postprocessor, FrameGraph(self.backend.device))
        self._kept.move_to_end(geometry)
        return self._kept[geometry]


class PanopticPipeline:
    """Labels images with one model.

    One thread owns it, from the first image to `close`; only `describe` may be called in another meanwhile.
    """

    def __init__(
        self,
        bundle: ModelBundle,
        *,
        backend: str,
        device: str,
        network_size: tuple[int, int] | None,
        settings: PostprocessSettings,
        precision: str = "auto",
        tf32: bool = False,
        backend_opener: BackendOpener = open_backend,
    ) -> None:
        """Make a pipeline that opens its backend with the first image, or in `prepare`; see `open_pipeline`."""
        check_choice(backend, device, precision)
        self.settings = settings
        self.timings_ms: dict[str, float] = {}  # of the last frame, by stage
        self._undefined = False  # whether the last frame was, in parts
        self.stage = ""  # of the frame that is being labelled; any thread may look
        self._bundle = bundle
        self._open_backend = backend_opener
        self._backend_name, self._device, self._precision, self._tf32 = backend, device, precision, tf32
        self._network_size = network_size
        self._networks: OrderedDict[tuple[int, int], _LoadedNetwork] = OrderedDict()
        self._last: tuple[_LoadedNetwork, ImageGeometry, PostprocessSettings] | None = None

    @property
    def classes(self) -> ClassTable:
        """The classes that the model tells apart."""
        return self._bundle.classes

    @property
    def precision(self) -> str:
        """The one that the last image was labelled in, or what was asked for if none was yet."""
        return self._last[0].backend.precision if self._last else self._precision

    @property
    def loaded(self) -> bool:
        """Whether the network is loaded, for any size."""
        return bool(self._networks)

    def prepare(self, camera_size: tuple[int, int] | None = None) -> None:
        """Load and warm everything, the confidence too, for images of `camera_size` (height, width) px.

        Without it, for the network size of the argument or the card; where neither says one, only the kernels can be
        loaded yet, and the first image does the rest. `progress.observing` hears of each step and can call it off;
        what was loaded by then stays, and is not loaded again.
        """
        device = resolve_device(self._device, self._backend_name)
        size = camera_size or self._network_size or self._bundle.input.size
        network = None
        with ThreadPoolExecutor(1) as beside:
            kernels = beside.submit(copy_context().run, load_frame_kernels, device)  # who observes hears of both
            if size is not None:
                network = self._network(plan_geometry(size, self._bundle.input, self._network_size).network_size)
            report("loading kernels, which a first start compiles")
            kernels.result()
        if size is None or network is None:
            return
        # A graph is recorded for each set of images; without one, the larger set warms all that the smaller has.
        recorded = isinstance(network.backend, CapturableBackend)
        for images in (LABELS, frozenset(IMAGES)) if recorded else (frozenset(IMAGES),):
            report("labelling a first image")
            self(CameraImage(np.zeros((*size, 3), np.uint8), "rgb"), images=images)

    def __call__(
        self, image: CameraImage, *, settings: PostprocessSettings | None = None, images: frozenset[str] = LABELS
    ) -> PanopticResult:
        """Return the labels of `image`.

        Args:
            image: The camera's.
            settings: For this image; None for those that the pipeline has.
            images: Those of `records.IMAGES` that the result shall have; the objects are in it always.

        Raises:
            InvalidInputError: Not a uint8 image of its colour order, or `images` has another name.
            UnavailableError: The backend can't be had here (only with the first image of a size).
        """
        check_image(image)
        if unknown := sorted(images.difference(IMAGES)):
            raise InvalidInputError(f"expected images among {', '.join(IMAGES)}, got {unknown[0]}: check the spelling")
        settings = settings or self.settings
        height, width = image.pixels.shape[:2]
        geometry = plan_geometry((height, width), self._bundle.input, self._network_size)
        network = self._network(geometry.network_size)
        timings: dict[str, float] = {}
        timed = partial(self._timed, timings, network.backend.device)
        with made_current(network.backend.device):
            result = network.run(image, geometry, settings, timed, images=images)
        if result.undefined and not self._undefined:
            _LOG.warning("%s", UNDEFINED)
        self._undefined = result.undefined
        self.timings_ms, self._last = timings, (network, geometry, settings)
        return result

    def dense_arrays(self) -> dict[str, np.ndarray]:
        """Return what the last frame gave before fusion, under the names of the published code's reference case.

        The network's outputs (`semantic_logits`, `levelness_logits`, `box_class_logits_i`, `box_offsets_i`,
        `centerness_logits_i`), all query boxes whatever their score (`boxes` (n, 4) xyxy network px, `scores` (n,),
        `labels` (n,)) and their masks at the camera's size (`mask_bits`, packed along the last axis; `mask_shape`).

        Raises:
            RuntimeError: No frame has been labelled yet.
        """
        if self._last is None:
            raise RuntimeError("label a frame before asking for its dense arrays")
        network, geometry, settings = self._last
        queries, masks = network.buffers(geometry).postprocessor.masks(network.dense, settings)
        return network.dense.host_arrays() | {
            "boxes": queries.boxes.numpy()[: len(masks)].copy(),
            "scores": queries.scores.numpy()[: len(masks)].copy(),
            "labels": queries.labels.numpy()[: len(masks)].copy(),
            "mask_bits": np.packbits(masks, axis=-1),
            "mask_shape": np.array(masks.shape),
        }

    def describe(self) -> str:
        """Return one line that says which model the last image was labelled with, by which backend and where.

        Unlike all else here, it may be asked for in another thread meanwhile.
        """
        last = self._last
        if last is None:
            return f"{self._bundle.name}, backend {self._backend_name}, device {self._device}, not loaded yet"
        backend = last[0].backend
        height, width = backend.network_size
        precision = f"{backend.precision}{', TF32 allowed,' if backend.tf32 else ''}"
        chosen = ", as auto chose" if backend.chosen else ""
        return f"{self._bundle.name} with {backend.name} in {precision} on {backend.device} at {height}x{width}{chosen}"

    @property
    def fallback(self) -> str:
        """Why the last image was labelled on the CPU, where a GPU was to be preferred; empty otherwise."""
        return self._last[0].backend.fallback if self._last else ""

    def lost(self) -> str:
        """Return why the last image's GPU can't be used by this process any more, empty where it can.

        After an error such as an illegal access, or one of the GPU itself, every call of CUDA fails until the process
        ends; others leave no trace.
        """
        try:
            if self._last:
                wp.synchronize_device(self._last[0].backend.device)
        except RuntimeError as error:
            return first_line(error)
        return ""

    def close(self) -> None:
        """Close the backends, in the thread that owns the pipeline: no other may be inside a call meanwhile.

        In the node that is the worker thread, also when a transition or a signal, which come in others, asks for it.
        The pipeline opens its backend again when it is called again.
        """
        self._last = None
        while self._networks:
            self._networks.popitem()[1].close()

    @contextmanager
    def _timed(self, timings: dict[str, float], device: str, stage: str) -> Iterator[None]:
        """Add the time until what it surrounds is done, on the device too, to the stage's."""
        begin, self.stage = time.perf_counter(), stage
        try:
            yield
            if device != "cpu":
                wp.synchronize_device(device)
        finally:
            self.stage = ""
        timings[stage] = timings.get(stage, 0.0) + 1e3 * (time.perf_counter() - begin)

    def _network(self, network_size: tuple[int, int]) -> _LoadedNetwork:
        if network_size not in self._networks:
            if len(self._networks) == _NETWORKS_KEPT:
                self._networks.popitem(last=False)[1].close()
            backend = self._open_backend(
                self._backend_name, self._bundle, network_size, self._device, self._precision, tf32=self._tf32
            )
            self._networks[network_size] = _LoadedNetwork(backend, self._bundle)
        self._networks.move_to_end(network_size)
        return self._networks[network_size]


def open_pipeline(
    model: Path | str,
    *,
    backend: str = "auto",
    device: str = "auto",
    precision: str = "auto",
    tf32: bool = False,
    network_size: tuple[int, int] | None = None,
    settings: Mapping[str, object] | None = None,
) -> PanopticPipeline:
    """Return the pipeline of a model bundle.

    Args:
        model: Folder of a bundle, or the name of one that comes with the package.
        backend: One of `settings.BACKENDS`; auto takes the best of this machine (`inference.choice.choices`).
        device: One of `settings.DEVICES`.
        precision: One of `settings.PRECISIONS`, or auto likewise. int8 is faster and needs ranges (`rt-panoptic
            calibrate`).
        tf32: Whether products in float32 may round their inputs to 10 bits of mantissa on a GPU.
        network_size: (height, width) px that images are brought to, in place of the card's.
        settings: Post-processing settings by name, over the card's.

    Raises:
        InvalidInputError: No such bundle, backend, device or precision, or a wrong setting.
    """
    bundle = read_bundle(model)
    return PanopticPipeline(
        bundle,
        backend=backend,
        device=device,
        precision=precision,
        tf32=tf32,
        network_size=network_size,
        settings=bundle.settings.replaced(settings or {}),
    )
