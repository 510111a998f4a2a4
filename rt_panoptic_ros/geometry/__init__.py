# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Three dimensions from labels and depth: intrinsics, the organised cloud, the objects' boxes; no ROS."""
