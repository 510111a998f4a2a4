# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""From dense detections to labels: Warp kernels for CPU and CUDA; their reference implementation is in test/."""
