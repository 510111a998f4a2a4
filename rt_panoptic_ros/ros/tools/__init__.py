# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Programs beside the node: image player, output recorder, the demo."""
