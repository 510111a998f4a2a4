# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Panoptic quality, mean IoU, average precision, timing, and the file formats that they are exchanged in."""
