# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The ROS 2 side: message conversions, parameters, diagnostics and the nodes. Importing this package needs no ROS."""
