# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""What the package says through Python's logging goes to ROS's log, which has a folder that can be written."""

from __future__ import annotations

import logging
import os

from rclpy.logging import get_logger, get_logging_directory

from rt_panoptic_ros.files import process_folder, why_unwritable

_LOG = logging.getLogger(__name__)


class RosLogHandler(logging.Handler):
    """Hands records to the ROS logger of the package."""

    def emit(self, record: logging.LogRecord) -> None:
        """Log a record; ROS wants each severity to come from a line of its own."""
        logger, text = get_logger("rt_panoptic_ros"), self.format(record)
        if record.levelno >= logging.ERROR:
            logger.error(text)
        elif record.levelno >= logging.WARNING:
            logger.warning(text)
        else:
            logger.info(text)


def log_to_ros() -> None:
    """Send the package's records, from INFO on, to ROS's log; once for a process."""
    logger = logging.getLogger("rt_panoptic_ros")
    if not any(isinstance(handler, RosLogHandler) for handler in logger.handlers):
        logger.addHandler(RosLogHandler())
        logger.setLevel(logging.INFO)
        logger.propagate = False


def find_log_directory() -> None:
    """Have ROS write its log into a folder of this process where its own can't be written: it would not start.

    Raises:
        UnavailableError: Not even a temporary folder can be written.
    """
    try:
        folder = get_logging_directory()
        reason = why_unwritable(folder)
    except RuntimeError:
        folder, reason = "~/.ros/log", "this user has no home folder"
    if reason is not None:
        os.environ["ROS_LOG_DIR"] = str(process_folder("log"))
        _LOG.warning(
            "ROS's log can't be kept in %s (%s), so it ends with this process: set ROS_LOG_DIR to a folder that can be "
            "written", folder, reason,
        )  # fmt: skip
