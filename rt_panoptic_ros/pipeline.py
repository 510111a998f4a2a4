"""One frame's way from camera pixels to labels: reads like the arrows of docs/architecture.md."""

from __future__ import annotations

import time
from collections import OrderedDict
from contextlib import contextmanager
from functools import partial
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
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from rt_panoptic_ros.inference.backends import BackendOpener
    from rt_panoptic_ros.inference.base import Backend
    from rt_panoptic_ros.model.bundle import ModelBundle
    from rt_panoptic_ros.model.class_table import ClassTable
    from rt_panoptic_ros.panoptic.postprocess import Stage

_NETWORKS_KEPT = 4
"""Input sizes that stay loaded at once, for cameras or folders of images of mixed sizes."""

_GEOMETRIES_KEPT = 8
"""Image geometries of one input size whose buffers stay at once."""


class _LoadedNetwork:
    """A backend, which computes the network for one input size, and what is kept behind it for each geometry."""

    def __init__(self, backend: Backend, thing_ids: tuple[int, ...]) -> None:
        self.backend = backend
        self._thing_ids = thing_ids
        # The first inference warms the backend up, and its outputs tell the buffers' sizes.
        self.dense = backend.infer(np.zeros((*backend.network_size, 3), np.uint8))
        if isinstance(backend, CapturableBackend):
            pinned = backend.device != "cpu"
            self._staged = wp.zeros_like(backend.image, device="cpu", pinned=pinned)  # from where a graph uploads
        self._kept: OrderedDict[ImageGeometry, tuple[Postprocessor, FrameGraph]] = OrderedDict()

    def run(
        self, image: np.ndarray, geometry: ImageGeometry, settings: PostprocessSettings, timed: Stage, *,
        confidence: bool,
    ) -> PanopticResult:  # fmt: skip
        """Do a frame's work: with one launch where it has been captured, else stage by stage, and captured then.

        Both give the same bits, as a graph is a recording of the very launches that the stages make, over the same
        memory. It is recorded behind a frame that went stage by stage, since what such a frame may still allocate or
        compile can't be recorded. It holds the addresses of one geometry's buffers, and the settings as constants.
        """
        postprocessor, graph = self.kept(geometry)
        capturable = self.backend if isinstance(self.backend, CapturableBackend) else None
        work = (settings, confidence)
        if capturable is not None and graph.holds(work):
            with timed("graph"):
                self._staged.numpy()[:] = image
                graph.launch(work)
                return postprocessor.result(confidence=confidence)
        with timed("network"):
            self.dense = self.backend.infer(image)
        postprocessor.launch(self.dense, settings, timed, confidence=confidence)
        with timed("fusion"):  # what is left of it
            result = postprocessor.result(confidence=confidence)
        if capturable is not None:
            self._staged.numpy()[:] = image  # the capture ends with a launch, which shall leave what this frame left

            def enqueue() -> list[object]:
                wp.copy(capturable.image, self._staged)
                dense = capturable.enqueue()
                postprocessor.launch(dense, settings, confidence=confidence)
                return [capturable.image, self._staged, dense, postprocessor, *postprocessor.in_use()]

            graph.capture(work, enqueue)
        return result

    def kept(self, geometry: ImageGeometry) -> tuple[Postprocessor, FrameGraph]:
        """Return the buffers behind the network for a geometry, and the graphs that use them."""
        if geometry not in self._kept:
            if len(self._kept) == _GEOMETRIES_KEPT:
                self._kept.popitem(last=False)
            capturable = True if isinstance(self.backend, CapturableBackend) else None
            postprocessor = Postprocessor(self.dense, self._thing_ids, geometry, capturable=capturable)
            self._kept[geometry] = postprocessor, FrameGraph(self.backend.device)
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
        precision: str = "float32",
        backend_opener: BackendOpener = open_backend,
    ) -> None:
        """Make a pipeline that opens its backend with the first image, or in `prepare`; see `open_pipeline`."""
        check_choice(backend, device, precision)
        self.settings = settings
        self.timings_ms: dict[str, float] = {}  # of the last frame, by stage
        self._bundle = bundle
        self._open_backend = backend_opener
        self._backend_name, self._device, self._precision = backend, device, precision
        self._network_size = network_size
        self._networks: OrderedDict[tuple[int, int], _LoadedNetwork] = OrderedDict()
        self._last: tuple[_LoadedNetwork, ImageGeometry, PostprocessSettings] | None = None

    @property
    def classes(self) -> ClassTable:
        """The classes that the model tells apart."""
        return self._bundle.classes

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
            UnavailableError: The backend can't be had here (only with the first image of a size).
        """
        check_image(image)
        settings, spec = settings or self.settings, self._bundle.input
        height, width = image.pixels.shape[:2]
        geometry = plan_geometry((height, width), spec, self._network_size)
        network = self._network(geometry.network_size)
        timings: dict[str, float] = {}
        timed = partial(_timed, timings, network.backend.device)
        with timed("input"):
            network_input = prepare_input(image, geometry, spec)
        result = network.run(network_input, geometry, settings, timed, confidence=confidence)
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
        postprocessor, _ = network.kept(geometry)
        queries, masks = postprocessor.masks(network.dense, settings)
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
        return f"{self._bundle.name} with {backend.name} in {backend.precision} on {backend.device} at {height}x{width}"

    def close(self) -> None:
        """Close the backends, in the thread that owns the pipeline: no other may be inside a call meanwhile.

        In the node that is the worker thread, also when a transition or a signal, which come in others, asks for it.
        The pipeline opens its backend again when it is called again.
        """
        self._last = None
        while self._networks:
            self._networks.popitem()[1].backend.close()

    def _network(self, network_size: tuple[int, int]) -> _LoadedNetwork:
        if network_size not in self._networks:
            if len(self._networks) == _NETWORKS_KEPT:
                self._networks.popitem(last=False)[1].backend.close()
            backend = self._open_backend(self._backend_name, self._bundle, network_size, self._device, self._precision)
            self._networks[network_size] = _LoadedNetwork(backend, self._bundle.classes.thing_ids)
        self._networks.move_to_end(network_size)
        return self._networks[network_size]


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
def _timed(timings: dict[str, float], device: str, stage: str) -> Iterator[None]:
    """Add the time until what it surrounds is done, on the device too, to the stage's."""
    begin = time.perf_counter()
    yield
    if device != "cpu":
        wp.synchronize_device(device)
    timings[stage] = timings.get(stage, 0.0) + 1e3 * (time.perf_counter() - begin)
