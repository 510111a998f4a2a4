# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""What a model is without its computation: configuration, bundle, classes, weights."""
