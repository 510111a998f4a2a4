"""`python -m rt_panoptic_ros` is the command line `rt-panoptic`."""

import sys

from rt_panoptic_ros.cli import main

sys.exit(main())
