# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Takes a picture of a recording in Rerun's viewer: `python -m scripts.view_picture FILE.rrd FRAME PICTURE`.

It needs no screen, but Vulkan: Mesa's in software (Debian's mesa-vulkan-drivers) will do, slowly.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import cv2
from rerun.experimental import ViewerClient

from rt_panoptic_ros.files import write_image
from rt_panoptic_ros.viewing.viewers import data_url, free_port, running_viewer

_SIZE = "1400x900"  # px
_BAR_PX = 36  # of the viewer's own at the top
_LOADING_S, _PAINTING_S, _TRIES = 300.0, 10.0, 5


def take_picture(recording: Path, frame: int, picture: Path) -> None:
    """Write how a recording, a .rrd file, looks at a frame.

    Raises:
        UnavailableError: The viewer doesn't start.
        TimeoutError: It paints nothing.
    """
    port = free_port()
    with (
        running_viewer(port, "--headless", "--window-size", _SIZE, str(recording)),
        tempfile.TemporaryDirectory() as at,
    ):
        client = ViewerClient.connect(data_url(port))
        deadline_s = time.monotonic() + _LOADING_S
        while time.monotonic() < deadline_s and not (any(one.timelines for one in client.get_state().recordings)):
            time.sleep(0.5)
        client.set_time("frame", sequence=frame, play_state="paused")
        time.sleep(_PAINTING_S)  # nothing tells when all of it is painted
        for attempt in range(_TRIES):
            try:
                client.save_screenshot(f"{at}/shot.png")
                break
            except TimeoutError:
                if attempt == _TRIES - 1:
                    raise
        shot = cv2.imread(f"{at}/shot.png")
        assert shot is not None, "the viewer has written it"
        write_image(picture, shot[_BAR_PX:], [cv2.IMWRITE_JPEG_QUALITY, 85])


if __name__ == "__main__":
    take_picture(Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
