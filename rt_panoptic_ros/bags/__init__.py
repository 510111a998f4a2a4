# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Labels recorded bags (rosbag2) without ROS: every frame, resumable, the same bytes each time."""
