# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""What the recorder keeps: a video in real time, evenly spread samples."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from rt_panoptic_ros.errors import UnavailableError
from rt_panoptic_ros.ros.tools.recording import Samples, fitted, write_pictures, write_video


def frames_of(path):
    capture = cv2.VideoCapture(str(path))
    rate_hz, images = capture.get(cv2.CAP_PROP_FPS), []
    while (item := capture.read())[0]:
        images.append(item[1])
    return rate_hz, images


def shade(number):
    return np.full((32, 48, 3), 20 * number, np.uint8)


def test_video_keeps_time_where_frames_are_missing(tmp_path):
    pictures = [(shade(number), 100 + number / 10) for number in (0, 1, 2, 6, 7)]  # of a 10 Hz camera
    assert write_video(tmp_path / "v.mp4", pictures, probe=3) == 5
    rate_hz, images = frames_of(tmp_path / "v.mp4")
    assert rate_hz == pytest.approx(10)
    assert len(images) == 8
    assert [round(float(image.mean()) / 20) for image in images] == [0, 1, 2, 6, 6, 6, 6, 7]


def test_video_of_fewer_frames_than_the_probe(tmp_path):
    write_video(tmp_path / "v.mp4", [(shade(1), 5.0)])
    assert len(frames_of(tmp_path / "v.mp4")[1]) == 1


def test_a_jump_of_the_clock_is_no_pause(tmp_path):
    pictures = [(shade(1), stamp_s) for stamp_s in (10.0, 10.1, 5000.0, 5000.1, 3.0)]
    write_video(tmp_path / "v.mp4", pictures, rate_hz=10)
    assert len(frames_of(tmp_path / "v.mp4")[1]) == 5


def test_no_frame_no_file(tmp_path):
    assert write_video(tmp_path / "v.mp4", []) == 0
    assert not (tmp_path / "v.mp4").exists()
    assert not Samples().write_sheet(tmp_path / "s.png")


@pytest.mark.parametrize(
    ("size", "inside"),
    [((64, 96), np.s_[:, :]), ((16, 48), np.s_[8:24, :]), ((20, 10), np.s_[:, 16:32]), ((1, 4000), np.s_[15:16, :])],
)
def test_pictures_of_another_size_lie_whole_in_the_videos_frame(tmp_path, size, inside):
    white, black = np.full((*size, 3), 255, np.uint8), np.zeros((32, 48, 3), np.uint8)
    np.testing.assert_array_equal(fitted(white, (32, 48))[inside], 255)
    assert fitted(white, (32, 48)).sum() == 255 * black[inside].size
    pictures = [(image, number / 10) for number, image in enumerate((shade(1), white, shade(2)))]
    assert write_video(tmp_path / "v.mp4", pictures, rate_hz=10) == 3
    assert len(frames_of(tmp_path / "v.mp4")[1]) == 3


@pytest.mark.parametrize("folder", ["a:b", "%04d", "a%20b", "ü ✓", "\udcff", "two\nlines"])
def test_the_video_is_written_into_a_folder_of_any_name(tmp_path, folder):
    write_video(tmp_path / folder / "v.mp4", [(shade(1), 0.0)], rate_hz=10)
    assert [path.name for path in (tmp_path / folder).iterdir()] == ["v.mp4"]
    assert (tmp_path / folder / "v.mp4").stat().st_size > 100


def test_says_when_the_video_cannot_be_written(tmp_path):
    (tmp_path / "v.mp4").mkdir()
    with pytest.raises(UnavailableError, match=r"expected to write .*v\.mp4"):
        write_video(tmp_path / "v.mp4", [(shade(1), 0.0)], rate_hz=10)


def test_the_sheet_is_whole_where_the_video_cannot_be_written(tmp_path):
    (tmp_path / "overlay.mp4").mkdir()
    files, problem = write_pictures(((shade(number % 12), number / 10) for number in range(30)), tmp_path, 0.0)
    assert files == {"contact_sheet": str(tmp_path / "overlay.png")}
    assert "expected to write" in problem
    assert cv2.imread(files["contact_sheet"]).shape[0] > 800  # three rows of pictures


@pytest.mark.parametrize("number", [1, 11, 12, 24, 500])
def test_samples_are_spread_over_all(tmp_path, number):
    samples = Samples(number=12)
    for place in range(number):
        samples.add(shade(place % 12), str(place))
    places = [int(caption) for _, caption in samples.kept]
    assert min(12, number) <= len(places) < 24
    assert places[0] == 0
    assert len(set(np.diff(places))) <= 1
    assert samples.write_sheet(tmp_path / "sheet.png")
    assert cv2.imread(str(tmp_path / "sheet.png")).shape[1] == 1600
