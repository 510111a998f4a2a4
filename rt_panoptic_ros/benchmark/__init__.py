# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""What benchmarks share: two ways of the same work timed in the same run, as machines are noisy, and made-up scenes."""
