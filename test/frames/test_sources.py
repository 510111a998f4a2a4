# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Frames from images, folders, videos and cameras, and what is said when there are none."""

from __future__ import annotations

import itertools
import logging
import os
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import SHARED
from film_cases import matroska
from hypothesis import given, settings
from hypothesis import strategies as st

from rt_panoptic_ros.errors import InvalidInputError, UnavailableError
from rt_panoptic_ros.frames.sources import Frame, FrameSource, natural_key, open_source, read_image

RATE_HZ = 12.5
COUNT = 40
RECORDER = SHARED / "cases" / "webm_rate" / "recorder.webm"


def picture(seed: int = 0, shape: tuple[int, ...] = (24, 40, 3)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def write(path: Path, stored: np.ndarray) -> Path:
    assert cv2.imwrite(str(path), stored)
    return path


def drain(source: FrameSource, into: list[Frame]) -> None:
    """Iterate to the end, keeping what comes before an error."""
    for frame in source:
        into.append(frame)


@pytest.fixture(scope="session")
def video_bytes(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A motion-JPEG film: frame i is red 5 i, green 100, blue 240 - 5 i."""
    path = tmp_path_factory.mktemp("video") / "made.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), RATE_HZ, (64, 48))
    if not writer.isOpened():
        pytest.skip("this OpenCV cannot write motion JPEG")
    for i in range(COUNT):
        writer.write(np.full((48, 64, 3), (240 - 5 * i, 100, 5 * i), np.uint8))
    writer.release()
    return path.read_bytes()


@pytest.fixture
def video(video_bytes: bytes, tmp_path: Path) -> Path:
    path = tmp_path / "drive.avi"
    path.write_bytes(video_bytes)
    return path


class TestImages:
    @pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "tiff", "PNG"])
    def test_lossless_formats_give_their_exact_pixels_as_rgb(self, tmp_path: Path, suffix: str) -> None:
        rgb = picture()
        path = write(tmp_path / f"one.{suffix}", rgb[..., ::-1])
        with open_source(str(path)) as source:
            (frame,) = source
        np.testing.assert_array_equal(frame.image, rgb)
        assert frame.image.flags.c_contiguous
        assert (frame.stem, frame.time_s, source.count, source.rate_hz) == ("one", 0.0, 1, None)

    @pytest.mark.parametrize("suffix", ["jpg", "jpeg", "webp"])
    def test_lossy_formats_come_as_rgb(self, tmp_path: Path, suffix: str) -> None:
        path = write(tmp_path / f"one.{suffix}", np.full((32, 32, 3), (20, 120, 220), np.uint8))
        (frame,) = open_source(str(path))
        assert np.abs(frame.image.astype(int) - (220, 120, 20)).max() <= 6

    def test_grey_becomes_three_equal_channels(self, tmp_path: Path) -> None:
        grey = picture(shape=(7, 9))
        np.testing.assert_array_equal(read_image(write(tmp_path / "grey.png", grey)), np.dstack([grey] * 3))

    def test_alpha_is_dropped(self, tmp_path: Path) -> None:
        bgra = picture(shape=(7, 9, 4))
        image = read_image(write(tmp_path / "alpha.png", bgra))
        np.testing.assert_array_equal(image, bgra[..., 2::-1])

    @pytest.mark.parametrize("suffix", ["png", "tif"])
    @pytest.mark.parametrize("channels", [1, 3, 4])
    def test_sixteen_bits_are_scaled_over_their_whole_range(self, tmp_path: Path, suffix: str, channels: int) -> None:
        deep = np.random.default_rng(1).integers(0, 65536, (16, 16, channels), np.uint16)
        deep[0, 0], deep[0, 1] = 0, 65535
        image = read_image(write(tmp_path / f"deep.{suffix}", deep))
        rgb = np.repeat(deep, 3, axis=2) if channels == 1 else deep[..., 2::-1]
        np.testing.assert_array_equal(image, np.rint(rgb / 257).astype(np.uint8))

    @pytest.mark.parametrize(("orientation", "turns"), [(1, 0), (3, 2), (6, -1), (8, 1)])
    def test_images_are_upright_as_their_orientation_says(self, tmp_path: Path, orientation: int, turns: int) -> None:
        half = np.zeros((32, 64, 3), np.uint8)
        half[:, :32] = 255
        jpeg = write(tmp_path / "phone.jpg", half).read_bytes()
        exif = b"Exif\0\0MM\0*" + struct.pack(">IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0)
        (tmp_path / "phone.jpg").write_bytes(
            jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + jpeg[2:]
        )
        image = read_image(tmp_path / "phone.jpg").astype(int)
        expected = np.rot90(half, turns).astype(int)
        assert image.shape == expected.shape
        assert np.abs(image - expected).max() < 40

    def test_float_samples_are_refused_by_name(self, tmp_path: Path) -> None:
        path = write(tmp_path / "hdr.tif", np.zeros((4, 4, 3), np.float32))
        with pytest.raises(InvalidInputError, match=r"8 or 16 bits.*hdr\.tif.*float32"):
            read_image(path)

    @pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "webp"])
    @pytest.mark.parametrize("share", [0, 0.5])
    def test_damaged_images_are_named(self, tmp_path: Path, suffix: str, share: float) -> None:
        path = write(tmp_path / f"broken.{suffix}", picture())
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
        with pytest.raises(InvalidInputError, match=rf"decode, got .*broken\.{suffix}"):
            list(open_source(str(path)))

    def test_an_image_that_vanishes_is_named(self, tmp_path: Path) -> None:
        path = write(tmp_path / "gone.png", picture())
        source = open_source(str(path))
        path.unlink()
        with pytest.raises(InvalidInputError, match=r"gone\.png: No such file"):
            list(source)


class TestFolder:
    def test_natural_order_without_strangers(self, tmp_path: Path) -> None:
        for name in ("f10.png", "f2.PNG", "F1.jpg", "f2b.bmp", ".hidden.png", "._f3.png"):
            write(tmp_path / name, picture())
        (tmp_path / "notes.txt").write_text("no image")
        (tmp_path / "folder.png").mkdir()
        source = open_source(str(tmp_path))
        frames = list(source)
        assert [frame.stem for frame in frames] == ["F1", "f2", "f2b", "f10"]
        assert [frame.time_s for frame in frames] == [0, 1, 2, 3]
        assert source.count == 4
        assert [frame.stem for frame in source] == ["F1", "f2", "f2b", "f10"]  # again from the start

    @settings(deadline=None)
    @given(numbers=st.lists(st.integers(0, 10**12), unique=True))
    def test_numbers_sort_by_value(self, numbers: list[int]) -> None:
        ordered = sorted((Path(f"run7_{number}.png") for number in numbers), key=natural_key)
        assert [int(path.stem.split("_")[1]) for path in ordered] == sorted(numbers)

    @settings(deadline=None)
    @given(names=st.lists(st.text("aB1²-0._", min_size=1), unique=True))
    def test_any_names_have_one_order(self, names: list[str]) -> None:
        paths = [Path(name) for name in names]
        shuffled = paths[::-1]
        assert sorted(paths, key=natural_key) == sorted(shuffled, key=natural_key)

    def test_images_that_share_a_stem_get_names_that_differ(self, tmp_path: Path) -> None:
        for name in ("a.png", "a.jpg", "b.png"):
            write(tmp_path / name, picture())
        assert [frame.stem for frame in open_source(str(tmp_path))] == ["a.jpg", "a.png", "b.png"]

    def test_images_are_decoded_when_asked_for(self, tmp_path: Path) -> None:
        write(tmp_path / "1.png", picture(1))
        (tmp_path / "2.png").write_bytes(b"not a picture")
        frames = iter(open_source(str(tmp_path)))
        np.testing.assert_array_equal(next(frames).image, picture(1)[..., ::-1])
        with pytest.raises(InvalidInputError, match=r"2\.png"):
            next(frames)

    def test_loop_goes_on_for_ever(self, tmp_path: Path) -> None:
        for name in ("a.png", "b.png"):
            write(tmp_path / name, picture())
        source = open_source(str(tmp_path), loop=True)
        frames = list(itertools.islice(source, 5))
        assert source.count is None
        assert [(frame.stem, frame.time_s) for frame in frames] == [("a", 0), ("b", 1), ("a", 2), ("b", 3), ("a", 4)]

    def test_the_images_of_sub_folders_come_where_a_folder_has_none_itself(self, tmp_path: Path) -> None:
        for name in ("lindau/2.png", "lindau/10.jpg", "aachen/1.png", "9/x/1.png", ".git/1.png", "aachen/.1.png"):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            write(tmp_path / name, picture())
        (tmp_path / "empty").mkdir()
        (tmp_path / "readme.txt").write_text("no image", encoding="utf-8")
        frames = list(open_source(str(tmp_path)))
        names = ["aachen/1.png", "lindau/2.png", "lindau/10.jpg", "9/x/1.png"]
        assert [frame.file_name for frame in frames] == names
        assert [frame.stem for frame in frames] == ["aachen/1", "lindau/2", "lindau/10", "9/x/1"]
        write(tmp_path / "own.png", picture())
        assert [frame.stem for frame in open_source(str(tmp_path))] == ["own"]

    def test_links_that_lead_in_circles_are_followed_once(self, tmp_path: Path) -> None:
        (tmp_path / "in").mkdir()
        (tmp_path / "elsewhere").mkdir()
        write(tmp_path / "elsewhere" / "1.png", picture())
        (tmp_path / "in" / "city").symlink_to(tmp_path / "elsewhere")
        (tmp_path / "elsewhere" / "up").symlink_to(tmp_path / "in")
        (tmp_path / "elsewhere" / "self.png").symlink_to("self.png")
        assert [frame.file_name for frame in open_source(str(tmp_path / "in"))] == ["city/1.png"]

    def test_a_folder_that_cannot_be_read_is_named(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(path: object) -> object:
            raise PermissionError(13, "Permission denied", str(path))

        monkeypatch.setattr(os, "scandir", refuse)  # root may read everything
        with pytest.raises(InvalidInputError, match=rf"{tmp_path}: Permission denied"):
            open_source(str(tmp_path))

    def test_an_empty_folder_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "deeper").mkdir()
        with pytest.raises(InvalidInputError, match=r"expected images \(\.png.*got none"):
            open_source(str(tmp_path))

    @pytest.mark.parametrize("name", ["nowhere", "0016", "0x10", "1e3", "1700000000000000000", "٣", "1000", "-1", ""])
    def test_a_missing_path_is_refused(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        monkeypatch.chdir(tmp_path)
        with pytest.raises(InvalidInputError, match=f"'{name}' does not exist"):
            open_source(name)

    @pytest.mark.parametrize(
        ("name", "reason"), [("pipe", "a pipe"), ("n" * 300, "File name too long"), ("a\0b", "does not exist")]
    )
    def test_what_is_neither_file_nor_folder_is_refused(self, tmp_path: Path, name: str, reason: str) -> None:
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(InvalidInputError, match=reason):
            open_source(f"{tmp_path}/{name}")


NAMES = ["0", "12", "0016", "0x10", "1e3", "1700000000000000000", "a:b", "file:x", "%04d", "a%20b", "~", "ü ✓", "-",
         "two\nlines", "\udcff", "null"]  # fmt: skip


class TestNames:
    """An existing path is a path, whatever its name."""

    @pytest.mark.parametrize("name", NAMES)
    def test_folders(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        (tmp_path / name).mkdir()
        write(tmp_path / "a.png", picture()).rename(tmp_path / name / f"{name}.png")
        monkeypatch.chdir(tmp_path)
        for source in (name, f"{name}/", str(tmp_path / name)):
            (frame,) = open_source(source)
            np.testing.assert_array_equal(frame.image, picture()[..., ::-1])
            assert (frame.stem, frame.file_name) == (name, f"{name}.png")

    @pytest.mark.parametrize("suffix", ["", ".avi", ".gif"])
    @pytest.mark.parametrize("name", NAMES)
    def test_videos(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, video_bytes: bytes, name: str, suffix: str
    ) -> None:
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}{suffix}").write_bytes(video_bytes)
        monkeypatch.chdir(tmp_path / name)
        for source in (f"{name}{suffix}", str(tmp_path / name / f"{name}{suffix}")):
            assert len(list(open_source(source))) == COUNT


class TestVideo:
    def test_frames_come_in_order_in_rgb_with_their_times(self, video: Path) -> None:
        source = open_source(str(video))
        assert (source.rate_hz, source.count) == (RATE_HZ, COUNT)
        frames = list(source)
        assert len(frames) == COUNT
        for i, frame in enumerate(frames):
            assert frame.image.shape == (48, 64, 3)
            assert np.abs(frame.image.reshape(-1, 3).mean(axis=0) - (5 * i, 100, 240 - 5 * i)).max() < 4, i
            assert frame.time_s == pytest.approx(i / RATE_HZ)
            assert frame.stem == f"drive_{i:06d}"

    def test_each_iteration_starts_again(self, video: Path) -> None:
        source = open_source(str(video))
        first, other = iter(source), iter(source)
        next(first), next(first)
        np.testing.assert_array_equal(next(iter(source)).image, next(other).image)
        assert next(first).stem == "drive_000002"

    def test_loop_repeats_the_pictures_while_time_goes_on(self, video: Path) -> None:
        source = open_source(str(video), loop=True)
        frames = list(itertools.islice(source, 2 * COUNT + 3))
        assert source.count is None
        np.testing.assert_array_equal(frames[2 * COUNT + 1].image, frames[1].image)
        times = np.array([frame.time_s for frame in frames])
        np.testing.assert_allclose(np.diff(times), 1 / RATE_HZ)
        assert len({frame.stem for frame in frames}) == len(frames)

    def test_a_cut_video_gives_what_it_has_and_then_says_so(self, video: Path, video_bytes: bytes) -> None:
        video.write_bytes(video_bytes[: len(video_bytes) // 2])
        frames = []
        with pytest.raises(
            InvalidInputError, match=rf"expected {COUNT} frames in .*drive\.avi.*ended after \d+"
        ) as told:
            drain(open_source(str(video)), frames)
        assert 5 < len(frames) < COUNT - 5
        assert f"ended after {len(frames)}:" in str(told.value)

    def test_a_video_that_misses_its_last_frame_is_warned_of(
        self, video: Path, video_bytes: bytes, caplog: pytest.LogCaptureFixture
    ) -> None:
        last = video_bytes.rindex(b"00dc", 0, video_bytes.rindex(b"idx1"))
        video.write_bytes(video_bytes[:last])
        with caplog.at_level(logging.WARNING):
            frames = list(open_source(str(video)))
        assert len(frames) == COUNT - 1
        assert f"claims {COUNT} frames, {COUNT - 1} could be decoded" in caplog.text

    def test_times_of_a_variable_rate_are_the_recordings_own(self, tmp_path: Path) -> None:
        times_ms = [0, 40, 90, 148, 169, 194, 246, 303, 332, 1332, 1348, 1400]
        path = matroska(tmp_path / "recorder.webm", times_ms)
        source = open_source(str(path))
        assert source.timed
        assert source.count is None
        assert source.rate_hz == pytest.approx(20, rel=0.3)  # OpenCV says 1000
        frames = list(source)
        np.testing.assert_allclose([frame.time_s for frame in frames], np.array(times_ms) / 1000, atol=1e-6)
        assert [round(frame.image.mean() / 10) for frame in frames] == list(range(12))

    def test_a_loop_of_it_goes_on_after_the_usual_gap(self, tmp_path: Path) -> None:
        path = matroska(tmp_path / "recorder.webm", [0, 50, 100, 300])
        times = [frame.time_s for frame in itertools.islice(open_source(str(path), loop=True), 8)]
        np.testing.assert_allclose(times, [0, 0.05, 0.1, 0.3, 0.35, 0.4, 0.45, 0.65], atol=1e-6)

    @pytest.mark.parametrize(
        ("times_ms", "default_ms", "expected"),
        [
            ([0, 40, 80, 60, 100, 140], 40, [0, 0.04, 0.08, 0.12, 0.16, 0.2]),  # one out of order
            ([0, 40, 30_000, 30_040], 40, [0, 0.04, 30, 30.04]),  # a pause
            ([0, 40, 80, 9_000_000, 9_000_040], 40, [0, 0.04, 0.08, 0.12, 0.16]),  # another recording behind it
            ([0, 0, 0, 0], 0, [0, 1, 2, 3]),  # none
        ],
    )
    def test_times_that_make_no_sense_give_way_to_the_usual_gap(
        self, tmp_path: Path, times_ms: list[int], default_ms: int, expected: list[float]
    ) -> None:
        frames = list(open_source(str(matroska(tmp_path / "odd.mkv", times_ms, default_ms=default_ms))))
        np.testing.assert_allclose([frame.time_s for frame in frames], expected, atol=1e-6)

    @pytest.mark.parametrize("claimed_hz", [0.0, 1000.0, 90000.0, float("nan"), float("inf"), -1.0, 1e-9])
    def test_an_absurd_rate_is_not_believed(
        self, monkeypatch: pytest.MonkeyPatch, video: Path, claimed_hz: float
    ) -> None:
        opened = cv2.VideoCapture

        class Capture:
            def __init__(self, name: str) -> None:
                self.capture = opened(name)

            def get(self, key: int) -> float:
                return claimed_hz if key == cv2.CAP_PROP_FPS else self.capture.get(key)

            def __getattr__(self, name: str) -> object:
                return getattr(self.capture, name)

        monkeypatch.setattr(cv2, "VideoCapture", Capture)
        source = open_source(str(video))
        assert source.rate_hz == pytest.approx(RATE_HZ)
        np.testing.assert_allclose([frame.time_s for frame in source], np.arange(COUNT) / RATE_HZ, atol=1e-6)

    def test_a_variable_rate_with_pauses_is_not_taken_for_a_cut_file(self, tmp_path: Path) -> None:
        # OpenCV counts 40 frames: the duration times the default rate, though 10 of them never were.
        times_ms = [*range(0, 800, 40), *range(1200, 1600, 40)]
        path = matroska(tmp_path / "pauses.mkv", times_ms, duration_ms=1600, default_ms=40)
        source = open_source(str(path))
        assert (source.rate_hz, source.count) == (25, 40)
        frames = list(source)
        np.testing.assert_allclose([frame.time_s for frame in frames], np.array(times_ms) / 1000, atol=1e-6)

    @pytest.mark.skipif(not RECORDER.is_file(), reason=f"needs the case {RECORDER}")
    def test_the_recorders_film_takes_its_time(self) -> None:
        frames = list(open_source(str(RECORDER)))
        assert len(frames) == 40
        assert frames[-1].time_s == pytest.approx(1.532, abs=0.002)

    def test_a_video_without_frames_is_refused_when_opened(self, video: Path, video_bytes: bytes) -> None:
        video.write_bytes(video_bytes[: video_bytes.index(b"movi") + 4])
        with pytest.raises(InvalidInputError, match=r"drive\.avi"):
            open_source(str(video))

    @pytest.mark.parametrize("name", ["film.mp4", "notes.txt", "part_001.dat", "noending"])
    @pytest.mark.parametrize("content", [b"", b"these are no pictures\n" * 50])
    def test_what_is_no_video_is_refused(self, tmp_path: Path, name: str, content: bytes) -> None:
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(InvalidInputError, match=rf"or a video, but OpenCV cannot open .*{name}"):
            open_source(str(path))


class _FakeCapture:
    """A camera with a few pictures."""

    def __init__(self, frames: int) -> None:
        self.left, self.released = frames, False
        self.settings: dict[int, float] = {}

    def isOpened(self) -> bool:  # noqa: N802 - OpenCV's name
        return not self.released

    def set(self, key: int, value: float) -> bool:
        self.settings[key] = value
        return True

    def get(self, key: int) -> float:
        return 30.0 if key == cv2.CAP_PROP_FPS else -1.0

    def read(self) -> tuple[bool, np.ndarray | None]:
        self.left -= 1
        return (
            (True, np.full((4, 6, 3), (1, 2, 3), np.uint8)) if self.left >= 0 and not self.released else (False, None)
        )

    def release(self) -> None:
        self.released = True


class TestCamera:
    @pytest.mark.parametrize("name", ["97", "/dev/video97", "/dev/null", "/dev/no-such-camera"])
    def test_one_that_does_not_open_is_named(self, name: str) -> None:
        with pytest.raises(UnavailableError, match=f"'{name}'"):
            open_source(name)

    @pytest.mark.parametrize(("name", "number"), [("0", 0), ("3", 3), ("/dev/video2", 2)])
    def test_pictures_come_until_it_stops_and_that_is_told(
        self, monkeypatch: pytest.MonkeyPatch, name: str, number: int
    ) -> None:
        capture, asked = _FakeCapture(3), []
        monkeypatch.setattr(cv2, "VideoCapture", lambda which: asked.append(which) or capture)
        frames: list[Frame] = []
        source = open_source(name)
        assert (source.rate_hz, source.count) == (30.0, None)
        with pytest.raises(UnavailableError, match=f"'{name}'.*stopped after 3"):
            drain(source, frames)
        source.close()
        assert asked == [number]
        assert capture.released
        assert capture.settings[cv2.CAP_PROP_BUFFERSIZE] == 1  # never a stale picture
        assert [frame.stem for frame in frames] == ["camera_000000", "camera_000001", "camera_000002"]
        assert frames[0].time_s == 0
        assert frames[0].time_s <= frames[1].time_s <= frames[2].time_s
        np.testing.assert_array_equal(frames[0].image[0, 0], (3, 2, 1))

    def test_a_second_iterator_goes_on(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(cv2, "VideoCapture", lambda which: _FakeCapture(9))
        source = open_source("0")
        assert [next(iter(source)).stem for _ in range(2)] == ["camera_000000", "camera_000001"]


class TestClosing:
    @pytest.fixture(params=["folder", "video", "camera"])
    def opened(self, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
        if request.param == "video":
            return str(request.getfixturevalue("video"))
        if request.param == "camera":
            monkeypatch.setattr(cv2, "VideoCapture", lambda which: _FakeCapture(9))
            return "0"
        for name in "abc":
            write(tmp_path / f"{name}.png", picture())
        return str(tmp_path)

    def test_it_ends_running_iterators_and_refuses_new_ones(self, opened: str) -> None:
        with open_source(opened) as source:
            frames = iter(source)
            next(frames)
        assert list(frames) == []
        with pytest.raises(ValueError, match="closed"):
            next(iter(source))
        source.close()  # harmless
