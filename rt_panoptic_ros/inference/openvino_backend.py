"""OpenVINO on the CPU: a faster engine where it is installed, above all in int8."""

from __future__ import annotations

from typing import TYPE_CHECKING

import openvino
import warp as wp

from rt_panoptic_ros.errors import UnavailableError
from rt_panoptic_ros.inference.base import Backend
from rt_panoptic_ros.inference.onnx_export import dense_detections, exported_onnx

if TYPE_CHECKING:
    import numpy as np

    from rt_panoptic_ros.model.bundle import ModelBundle
    from rt_panoptic_ros.records import DenseDetections

_OPTIONS = {
    "PERFORMANCE_HINT": "LATENCY",
    "INFERENCE_PRECISION_HINT": "f32",  # else bfloat16 where the CPU has it: as good as none of the bundle's figures
}


class OpenVinoBackend(Backend):
    """Runs the bundle's exported graph; outputs are written straight into Warp arrays."""

    name = "openvino"

    def __init__(self, bundle: ModelBundle, network_size: tuple[int, int], device: str, precision: str) -> None:
        """Load the graph, making it when the cache has none; see `Backend`."""
        if device != "cpu":
            raise UnavailableError(
                f"expected device cpu for the openvino backend, got {device}: choose device cpu or backend torch"
            )
        if precision == "float16":
            raise UnavailableError(
                "expected precision float32 or int8 for the openvino backend, got float16, which saves a CPU nothing: "
                "choose one of them"
            )
        self.device, self.network_size, self.precision = device, network_size, precision
        core = openvino.Core()
        compiled = core.compile_model(core.read_model(exported_onnx(bundle, network_size, precision)), "CPU", _OPTIONS)
        self._request = compiled.create_infer_request()
        arrays: dict[str, wp.array] = {}
        for index, output in enumerate(compiled.outputs):
            array = wp.empty(tuple(output.shape)[1:], dtype=wp.float32, device="cpu")
            self._request.set_output_tensor(index, openvino.Tensor(array.numpy()[None], shared_memory=True))
            arrays[output.any_name] = array
        self._outputs = dense_detections(arrays)

    def infer(self, image: np.ndarray) -> DenseDetections:
        """Return the network's outputs for `image`; see `Backend`."""
        self._request.set_input_tensor(openvino.Tensor(image[None], shared_memory=True))
        self._request.infer()
        return self._outputs

    def close(self) -> None:
        """Free the request."""
        del self._request, self._outputs
