# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""ONNX Runtime on the CPU: the backend of machines without a GPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnxruntime
import warp as wp

from rt_panoptic_ros.inference.base import Backend
from rt_panoptic_ros.inference.onnx_export import exported_onnx, physical_cores
from rt_panoptic_ros.records import DenseDetections

if TYPE_CHECKING:
    from rt_panoptic_ros.model.bundle import ModelBundle

_ERRORS_ONLY = 3


class OnnxRuntimeBackend(Backend):
    """Runs the bundle's exported graph; outputs are written straight into Warp arrays."""

    name = "onnxruntime"

    def __init__(
        self, bundle: ModelBundle, network_size: tuple[int, int], device: str, precision: str, *, tf32: bool = False
    ) -> None:
        """Load the graph, making it when the cache has none; see `Backend`."""
        super().__init__(network_size, device, precision, tf32=tf32)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = _ERRORS_ONLY
        # Threads share the work out as they go: one that another process delays does not delay all.
        options.add_session_config_entry("session.dynamic_block_base", "4")
        # Between frames they rest, else they would spin beside post-processing, and for nothing if a camera is slow.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        options.intra_op_num_threads = physical_cores()  # without a number, it takes cores that the process may not use
        graph = exported_onnx(bundle, network_size, precision)
        self._session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        self._binding = self._session.io_binding()
        arrays: dict[str, wp.array] = {}
        for output in self._session.get_outputs():
            array = arrays[output.name] = wp.empty(output.shape[1:], dtype=wp.float32, device="cpu")
            self._binding.bind_output(output.name, "cpu", 0, np.float32, output.shape, array.ptr)
        self._outputs = DenseDetections.of_arrays(arrays)

    def infer(self, image: np.ndarray) -> DenseDetections:
        """Return the network's outputs for `image`; see `Backend`."""
        self._binding.bind_input("image", "cpu", 0, np.uint8, (1, *image.shape), image.ctypes.data)
        self._session.run_with_iobinding(self._binding)
        return self._outputs

    def close(self) -> None:
        """Free the session; see `Backend`."""
        del self._binding, self._session, self._outputs
