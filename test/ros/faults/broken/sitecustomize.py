# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Read by Python at its start where this folder is on PYTHONPATH: ONNX Runtime's backend never answers a white image.

The process is otherwise the one that users start, however it is started.
"""

import threading

from rt_panoptic_ros.inference import onnxruntime_backend

_infer = onnxruntime_backend.OnnxRuntimeBackend.infer


def _hang_at_white(self, image):
    if image.min() == 255:
        threading.Event().wait()
    return _infer(self, image)


onnxruntime_backend.OnnxRuntimeBackend.infer = _hang_at_white
