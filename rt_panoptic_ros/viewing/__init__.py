# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Results before eyes, with Rerun: what is shown of a frame, and the window, page or file. Knows no ROS."""
