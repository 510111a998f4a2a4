# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""`python -m rt_panoptic_ros` is the command line `rt-panoptic`."""

import sys

from rt_panoptic_ros.cli import main

sys.exit(main())
