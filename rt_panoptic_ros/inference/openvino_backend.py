# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""OpenVINO on the CPU: a faster backend where it is installed, above all in int8."""

from __future__ import annotations

import io
import logging
from typing import TYPE_CHECKING, ClassVar

import openvino
import warp as wp

from rt_panoptic_ros.errors import UnavailableError
from rt_panoptic_ros.files import plain_name
from rt_panoptic_ros.inference.base import Backend
from rt_panoptic_ros.inference.onnx_export import digest, exported_onnx, kept, processor
from rt_panoptic_ros.records import DenseDetections

if TYPE_CHECKING:
    import numpy as np

    from rt_panoptic_ros.model.bundle import ModelBundle

_LOG = logging.getLogger(__name__)

_OPTIONS = {
    "PERFORMANCE_HINT": "LATENCY",
    "INFERENCE_PRECISION_HINT": "f32",  # else bfloat16 where the CPU has it: as good as none of the bundle's figures
}


class OpenVinoBackend(Backend):
    """Runs the bundle's exported graph; outputs are written straight into Warp arrays."""

    name = "openvino"
    lacks: ClassVar = {"float16": ", which saves a CPU nothing"}

    def __init__(
        self, bundle: ModelBundle, network_size: tuple[int, int], device: str, precision: str, *, tf32: bool = False
    ) -> None:
        """Load the graph, making it when the cache has none; see `Backend`."""
        super().__init__(network_size, device, precision, tf32=tf32)
        compiled = _compiled(bundle, network_size, precision)
        self._request = compiled.create_infer_request()
        arrays: dict[str, wp.array] = {}
        for index, output in enumerate(compiled.outputs):
            array = arrays[output.any_name] = wp.empty(tuple(output.shape)[1:], dtype=wp.float32, device="cpu")
            self._request.set_output_tensor(index, openvino.Tensor(array.numpy()[None], shared_memory=True))
        self._outputs = DenseDetections.of_arrays(arrays)

    def infer(self, image: np.ndarray) -> DenseDetections:
        """Return the network's outputs for `image`; see `Backend`."""
        self._request.set_input_tensor(openvino.Tensor(image[None], shared_memory=True))
        self._request.infer()
        return self._outputs

    def close(self) -> None:
        """Free the request; see `Backend`."""
        del self._request, self._outputs


def _compiled(bundle: ModelBundle, network_size: tuple[int, int], precision: str) -> openvino.CompiledModel:
    """Return the bundle's compiled graph, from the cache where this OpenVINO has compiled it on this processor.

    Raises:
        UnavailableError: OpenVINO can't compile it.
    """
    core, graph = openvino.Core(), exported_onnx(bundle, network_size, precision, "openvino")
    compiled = None

    def compile_graph() -> bytes:
        nonlocal compiled
        try:
            compiled = core.compile_model(core.read_model(graph), "CPU", _OPTIONS)
            content: bytes = compiled.export_model().getvalue()
        except RuntimeError as error:
            raise UnavailableError(
                f"expected OpenVINO {openvino.__version__} to compile {bundle.name}, it failed: {_last_line(error)}: "
                "choose another backend, or update OpenVINO"
            ) from None
        return content

    height, width = network_size
    key = digest(f"{openvino.__version__} {processor()} {_OPTIONS} {digest(graph)}".encode())
    stem = f"{plain_name(bundle.name)}-{height}x{width}-{precision}-{key}"
    blob = kept("openvino", stem, compile_graph)
    if compiled is not None:
        return compiled
    try:
        return core.import_model(io.BytesIO(blob), "CPU", _OPTIONS)
    except RuntimeError as error:
        _LOG.warning("OpenVINO does not take its compiled graph %s (%s): compiling it again", stem, _last_line(error))
    kept("openvino", stem, compile_graph, anew=True)
    return compiled


def _last_line(error: RuntimeError) -> str:
    """Return the last line of what an error says: OpenVINO puts the reason behind the places in its source."""
    return next((line for line in reversed(str(error).splitlines()) if line.strip()), "no reason given").strip()
