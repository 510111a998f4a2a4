# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Published object detectors as ONNX files, and the boxes that several of them agree on: labels to learn from."""
