"""What the package says through Python's logging goes to ROS's log."""

from __future__ import annotations

import logging

from rclpy.logging import get_logger


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
