"""ONNX Runtime on the CPU: the engine of machines without a GPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnxruntime
import warp as wp

from rt_panoptic_ros.errors import UnavailableError
from rt_panoptic_ros.inference.base import Backend
from rt_panoptic_ros.inference.onnx_export import dense_detections, exported_onnx

if TYPE_CHECKING:
    from rt_panoptic_ros.model.bundle import ModelBundle
    from rt_panoptic_ros.records import DenseDetections

_ERRORS_ONLY = 3


class OnnxRuntimeBackend(Backend):
    """Runs the bundle's exported graph; outputs are written straight into Warp arrays."""

    name = "onnxruntime"

    def __init__(self, bundle: ModelBundle, network_size: tuple[int, int], device: str, precision: str) -> None:
        """Load the graph, making it when the cache has none; see `Backend`."""
        if device != "cpu":
            raise UnavailableError(
                f"expected device cpu for the onnxruntime backend, got {device}: choose device cpu or backend torch"
            )
        self.device, self.network_size, self.precision = device, network_size, precision
        options = onnxruntime.SessionOptions()
        options.log_severity_level = _ERRORS_ONLY
        # Threads share the work out as they go: one that another process delays does not delay all.
        options.add_session_config_entry("session.dynamic_block_base", "4")
        graph = exported_onnx(bundle, network_size, precision)
        self._session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        self._binding = self._session.io_binding()
        arrays: dict[str, wp.array] = {}
        for output in self._session.get_outputs():
            array = wp.empty(output.shape[1:], dtype=wp.float32, device="cpu")
            self._binding.bind_output(output.name, "cpu", 0, np.float32, output.shape, array.ptr)
            arrays[output.name] = array
        self._outputs = dense_detections(arrays)

    def infer(self, image: np.ndarray) -> DenseDetections:
        """Return the network's outputs for `image`; see `Backend`."""
        self._binding.bind_input("image", "cpu", 0, np.uint8, (1, *image.shape), image.ctypes.data)
        self._session.run_with_iobinding(self._binding)
        return self._outputs

    def close(self) -> None:
        """Free the session."""
        del self._binding, self._session, self._outputs
