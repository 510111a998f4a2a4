# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""`rt-panoptic soak`: the running node for minutes or days, under all that a robot does to it."""
