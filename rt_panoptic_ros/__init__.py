# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Real-time panoptic segmentation from dense detections (Hou et al., CVPR 2020) for ROS 2 robots."""

from pkgutil import extend_path

# In a checkout, the generated messages (rt_panoptic_ros.msg) lie in the copy of this package that was built.
__path__ = extend_path(__path__, __name__)
