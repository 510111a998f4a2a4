# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Labelled images in the datasets' official layouts, for training and evaluation."""
