# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The backends, which compute the network, behind one contract (see `base`)."""

import os
import sys

# A robot tells the backends' makers nothing: ONNX Runtime, from 1.29, and OpenVINO would send what runs, and complain
# or fail without a home folder for an identifier. OpenVINO has a stub in place of a package that is missing.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
