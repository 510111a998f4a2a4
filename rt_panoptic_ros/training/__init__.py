# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Learning: targets, losses, recipes, the loop; torch."""
