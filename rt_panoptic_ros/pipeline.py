"""One frame's way from camera pixels to labels: reads like the arrows of docs/architecture.md."""

from __future__ import annotations

import time
from collections import OrderedDict
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import warp as wp

from rt_panoptic_ros.inference.backends import check_choice, open_backend, resolve_device
from rt_panoptic_ros.inference.base import CapturableBackend
from rt_panoptic_ros.inference.frame_graph import FrameGraph
from rt_panoptic_ros.inference.input_image import check_image, plan_geometry, prepare_input
from rt_panoptic_ros.model.bundle import read_bundle
from rt_panoptic_ros.panoptic.postprocess import Postprocessor, load_postprocessing
from rt_panoptic_ros.progress import report
from rt_panoptic_ros.records import CameraImage, ImageGeometry, PanopticResult
from rt_panoptic_ros.settings import PostprocessSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from rt_panoptic_ros.inference.base import Backend
    from rt_panoptic_ros.model.bundle import ModelBundle
    from rt_panoptic_ros.model.class_table import ClassTable
    from rt_panoptic_ros.records import DenseDetections

    EngineOpener = Callable[[str, ModelBundle, tuple[int, int], str, str], Backend]  # the arguments of `open_backend`

_ENGINES_KEPT = 4
"""Network sizes that stay loaded at once, for cameras or folders of images of mixed sizes."""

_GEOMETRIES_KEPT = 8
"""Image geometries of one network size whose buffers stay at once."""


class _View:
    """What is kept for one geometry: the buffers behind the network, and the graph that uses them."""

    def __init__(
        self, dense: DenseDetections, thing_ids: tuple[int, ...], geometry: ImageGeometry, device: str
    ) -> None:
        self.postprocessor = Postprocessor(dense, thing_ids, geometry)
        self.graph = FrameGraph(device)


class _Engine:
    """The network for one input size, and what follows from it."""

    def __init__(self, backend: Backend, thing_ids: tuple[int, ...]) -> None:
        self.backend = backend
        self._thing_ids = thing_ids
        # The first inference warms the engine, and its outputs tell the buffers' sizes.
        self.dense = backend.infer(np.zeros((*backend.network_size, 3), np.uint8))
        self._capturable = backend if isinstance(backend, CapturableBackend) else None
        self._views: OrderedDict[ImageGeometry, _View] = OrderedDict()

    def run(
        self,
        image: np.ndarray,
        geometry: ImageGeometry,
        settings: PostprocessSettings,
        timings: dict[str, float],
        *,
        confidence: bool,
    ) -> PanopticResult:
        """Do a frame's work: as one graph where it has been captured, else stage by stage."""
        backend, capturable = self.backend, self._capturable
        view = self.view(geometry)
        postprocessor, work = view.postprocessor, (settings, confidence)
        if capturable is not None and view.graph.holds(work):
            with _timed(timings, "graph", backend.device):
                capturable.stage(image)
                view.graph.launch(work)
                return postprocessor.result(confidence=confidence)
        with _timed(timings, "network", backend.device):
            self.dense = backend.infer(image)
        postprocessor.launch(
            self.dense, settings, lambda stage: _timed(timings, stage, backend.device), confidence=confidence
        )
        with _timed(timings, "fusion"):
            result = postprocessor.result(confidence=confidence)
        if capturable is not None:

            def enqueue() -> list[object]:
                postprocessor.launch(capturable.enqueue(), settings, confidence=confidence)
                return postprocessor.in_use()

            view.graph.capture(work, enqueue)
        return result

    def view(self, geometry: ImageGeometry) -> _View:
        """Return what is kept for a geometry, made where there is nothing yet."""
        view = self._views.get(geometry)
        if view is None:
            if len(self._views) == _GEOMETRIES_KEPT:
                self._views.popitem(last=False)
            view = self._views[geometry] = _View(self.dense, self._thing_ids, geometry, self.backend.device)
        self._views.move_to_end(geometry)
        return view


class PanopticPipeline:
    """Labels images with one model. Not safe for use by several threads at once."""

    def __init__(
        self,
        bundle: ModelBundle,
        *,
        backend: str,
        device: str,
        network_size: tuple[int, int] | None,
        settings: PostprocessSettings,
        precision: str = "float32",
        engine_opener: EngineOpener = open_backend,
    ) -> None:
        """Make a pipeline that loads its engine with the first image, or in `prepare`; see `open_pipeline`."""
        check_choice(backend, device, precision)
        self.settings = settings
        self.timings_ms: dict[str, float] = {}  # of the last frame, by stage
        self._bundle = bundle
        self._open_backend = engine_opener
        self._backend_name, self._device, self._precision = backend, device, precision
        self._network_size = network_size
        self._engines: OrderedDict[tuple[int, int], _Engine] = OrderedDict()
        self._newest: _Engine | None = None  # the one used last
        self._last: tuple[_Engine, ImageGeometry, PostprocessSettings] | None = None

    @property
    def classes(self) -> ClassTable:
        """The classes that the model tells apart."""
        return self._bundle.classes

    @property
    def loaded(self) -> bool:
        """Whether an engine is loaded."""
        return bool(self._engines)

    def prepare(self, camera_size: tuple[int, int] | None = None) -> None:
        """Load and warm everything, the confidence too, for images of `camera_size` (height, width) px.

        Without it, for the network size of the argument or the card; where neither says one, only the kernels can be
        loaded yet, and the first image does the rest. `progress.observing` hears of each step and can call it off;
        what was loaded by then stays, and is not loaded again.
        """
        load_postprocessing(resolve_device(self._device))
        size = camera_size or self._network_size or self._bundle.input.size
        if size is not None:
            for confidence in (False, True):
                report("labelling a first image")
                self(CameraImage(np.zeros((*size, 3), np.uint8), "rgb"), confidence=confidence)

    def __call__(
        self, image: CameraImage, *, settings: PostprocessSettings | None = None, confidence: bool = False
    ) -> PanopticResult:
        """Return the labels of `image`.

        Args:
            image: The camera's.
            settings: For this image; None for those that the pipeline has.
            confidence: Whether the result shall tell how sure the classes are.

        Raises:
            InvalidInputError: Not a uint8 image of its colour order.
            UnavailableError: The engine can't be had here (only with the first image of a size).
        """
        check_image(image)
        settings, spec = settings or self.settings, self._bundle.input
        height, width = image.pixels.shape[:2]
        geometry = plan_geometry((height, width), spec, self._network_size)
        engine = self._engine(geometry.network_size)
        timings: dict[str, float] = {}
        with _timed(timings, "input"):
            network_input = prepare_input(image, geometry, spec)
        result = engine.run(network_input, geometry, settings, timings, confidence=confidence)
        self.timings_ms, self._last = timings, (engine, geometry, settings)
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
        engine, geometry, settings = self._last
        queries, masks = engine.view(geometry).postprocessor.masks(engine.dense, settings)
        return engine.dense.host_arrays() | {
            "boxes": queries.boxes.numpy()[: len(masks)].copy(),
            "scores": queries.scores.numpy()[: len(masks)].copy(),
            "labels": queries.labels.numpy()[: len(masks)].copy(),
            "mask_bits": np.packbits(masks, axis=-1),
            "mask_shape": np.array(masks.shape),
        }

    def describe(self) -> str:
        """Return one line that says which model runs with which engine where, as far as it is loaded.

        Unlike all else here, it may be asked for in another thread meanwhile.
        """
        newest = self._newest
        if newest is None:
            return f"{self._bundle.name}, backend {self._backend_name}, device {self._device}, not loaded yet"
        backend = newest.backend
        height, width = backend.network_size
        return f"{self._bundle.name} with {backend.name} in {backend.precision} on {backend.device} at {height}x{width}"

    def close(self) -> None:
        """Free the engines; the pipeline loads them again when it is called again."""
        self._last = self._newest = None
        while self._engines:
            self._engines.popitem()[1].backend.close()

    def _engine(self, network_size: tuple[int, int]) -> _Engine:
        engine = self._engines.get(network_size)
        if engine is None:
            if len(self._engines) == _ENGINES_KEPT:
                self._last = None
                self._engines.popitem(last=False)[1].backend.close()
            backend = self._open_backend(self._backend_name, self._bundle, network_size, self._device, self._precision)
            engine = self._engines[network_size] = _Engine(backend, self._bundle.classes.thing_ids)
        self._engines.move_to_end(network_size)
        self._newest = engine
        return engine


def open_pipeline(
    model: Path | str,
    *,
    backend: str = "auto",
    device: str = "auto",
    precision: str = "float32",
    network_size: tuple[int, int] | None = None,
    settings: Mapping[str, object] | None = None,
) -> PanopticPipeline:
    """Return the pipeline of a model bundle.

    Args:
        model: Folder of a bundle, or the name of one that comes with the package.
        backend: One of `settings.BACKENDS`; auto takes the best of this machine.
        device: auto, cpu or cuda.
        precision: One of `settings.PRECISIONS`; int8 is faster and needs ranges (`rt-panoptic calibrate`).
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
        network_size=network_size,
        settings=bundle.settings.replaced(settings or {}),
    )


@contextmanager
def _timed(timings: dict[str, float], stage: str, device: str = "cpu") -> Iterator[None]:
    begin = time.perf_counter()
    yield
    if device != "cpu":
        wp.synchronize_device(device)
    timings[stage] = timings.get(stage, 0.0) + 1e3 * (time.perf_counter() - begin)
