# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The subcommands of `rt-panoptic`, thin functions by subject; heavy modules load only where needed."""
