# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Bags that are cut off, damaged or incomplete are read as far as they go, and the loss is told."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import struct
from typing import TYPE_CHECKING, Any

import pytest
from bag_cases import (
    IMAGE,
    NODE,
    StoragePlugin,
    contents,
    drive,
    image_message,
    make_bag,
    make_mcap,
    picture,
    read_bag,
    wheel_message,
    write_information,
)
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from mcap.writer import CompressionType, IndexType
from rosbags.rosbag2 import CompressionMode

from rt_panoptic_ros.bags.bag import open_bag
from rt_panoptic_ros.bags.topics import find_cameras, find_copied
from rt_panoptic_ros.cli import main
from rt_panoptic_ros.errors import InvalidInputError

if TYPE_CHECKING:
    from pathlib import Path

    from bag_cases import Label

COMPRESSIONS = list(CompressionType)
HEAD = struct.Struct("<BQ")


def records(content: bytes) -> list[tuple[int, int, int]]:
    """Return (opcode, begin, end) of an MCAP file's records."""
    found, place = [], 8
    while place < len(content) - 8:
        opcode, length = HEAD.unpack_from(content, place)
        found.append((opcode, place, place + HEAD.size + length))
        place = found[-1][-1]
    return found


def chunks(content: bytes) -> list[tuple[int, int]]:
    return [(begin, end) for opcode, begin, end in records(content) if opcode == 6]


def read(path: Path, scratch: Path) -> tuple[list[tuple[str, int, bytes]], list[str]]:
    """Return (topic, time, content) of all that can be read of a bag, and what is lost."""
    with open_bag(path, scratch) as bag:
        found = [
            (bag.channels[message.channel].topic, message.time_ns, message.data)
            for message in bag.messages(range(len(bag.channels)))
        ]
        return found, bag.losses.lines()


def expected(messages: list[Any]) -> list[tuple[str, int, bytes]]:
    return [(message.topic, message.time_ns, message.data) for message in messages]


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("chunk_size", [1, 70_000])
def test_an_mcap_cut_anywhere_is_read_as_far_as_it_goes(
    tmp_path: Path, compression: CompressionType, chunk_size: int
) -> None:
    messages = drive(6)
    content = make_mcap(tmp_path / "whole.mcap", messages, chunk_size=chunk_size, compression=compression).read_bytes()
    ends = [end for _, end in chunks(content)]
    cut = tmp_path / "cut.mcap"
    counts = []
    for size in sorted({*range(ends[0], len(content) - 20, 9973), *ends, *(end + 5 for end in ends), ends[-1] - 1}):
        cut.write_bytes(content[:size])
        found, losses = read(cut, tmp_path / "scratch")
        assert found == expected(messages)[: len(found)]
        assert len(found) >= sum(end <= size for end in ends) * len(messages) // len(ends)
        assert losses[0].startswith("cut.mcap: cut off or damaged: read up to byte ")
        counts.append(len(found))
    assert counts == sorted(counts)
    assert counts[-1] == len(messages)
    if chunk_size > 1 and compression == CompressionType.NONE:
        assert len(set(counts)) > len(ends) + 2  # parts of chunks too
    assert list(tmp_path.iterdir()) == [tmp_path / "whole.mcap", cut] or not (tmp_path / "scratch").exists()


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_a_damaged_chunk_costs_itself(label: Label, tmp_path: Path, compression: CompressionType) -> None:
    messages = drive(4)
    source = make_mcap(tmp_path / "drive.mcap", messages, chunk_size=1, compression=compression)
    content = bytearray(source.read_bytes())
    begin, end = chunks(content)[3]  # of the second image: the wheel and the images have chunks of their own
    content[(begin + end) // 2] ^= 0xFF
    source.write_bytes(content)
    summary = label(source, tmp_path / "out")
    assert summary.frames == 3
    assert "lost: drive.mcap: a chunk is damaged and left out" in summary.format()
    assert summary.format().count("lost:") == 1
    assert "messages lost are 1 on /camera/image_raw" in summary.format()
    del messages[3]
    copied = [entry[:3] for entry in read_bag(tmp_path / "out") if not entry[0].startswith(NODE)]
    assert copied == expected(messages)


@pytest.mark.parametrize("part", ["zeros", "lengths"])
def test_records_behind_a_damaged_place_are_found_by_the_summary(tmp_path: Path, part: str) -> None:
    messages = drive(6)
    source = make_mcap(tmp_path / "drive.mcap", messages, chunk_size=1)
    content = bytearray(source.read_bytes())
    begin, end = chunks(content)[4]
    content[begin : begin + 9] = bytes(9) if part == "zeros" else HEAD.pack(6, 1 << 50)
    source.write_bytes(content)
    found, losses = read(source, tmp_path / "scratch")
    # A chunk whose length is wrong is still read where all else in it is right.
    assert found == expected(messages[:4] + messages[5 - (part == "lengths") :])
    assert losses[0].startswith(f"drive.mcap: damaged: bytes {begin} to {chunks_after(source, begin, end)}")


def chunks_after(source: Path, begin: int, end: int) -> int:
    content = source.read_bytes()
    restored = bytearray(content)
    restored[begin : begin + 9] = HEAD.pack(6, end - begin - 9)
    return next(place for place, _ in chunks(bytes(restored)) if place > begin)


@pytest.mark.parametrize(
    "options",
    [
        {"index_types": IndexType.NONE},
        {"use_statistics": False, "use_summary_offsets": False, "repeat_channels": False, "repeat_schemas": False},
        {"use_chunking": False},
        {"use_chunking": False, "use_statistics": False, "repeat_channels": False, "repeat_schemas": False},
    ],
)
def test_an_mcap_without_index_or_summary(tmp_path: Path, options: dict[str, Any]) -> None:
    messages = drive(4)
    source = make_mcap(tmp_path / "drive.mcap", messages, **options)
    assert read(source, tmp_path / "scratch") == (expected(messages), [])


@pytest.mark.parametrize("kind", ["footer", "magic", "empty chunk"])
def test_a_wrong_end_and_empty_chunks_cost_nothing(tmp_path: Path, kind: str) -> None:
    messages = drive(4)
    source = make_mcap(tmp_path / "drive.mcap", messages)
    content = source.read_bytes()
    if kind == "footer":
        content = content[:-28] + bytes(20) + content[-8:]
    elif kind == "magic":
        content = content[:-8] + b"something"
    else:
        begin, _ = chunks(content)[0]
        for compression in (b"", b"lz4", b"zstd"):
            body = struct.pack("<QQQII", 0, 0, 0, 0, len(compression)) + compression + struct.pack("<Q", 0)
            content = content[:begin] + HEAD.pack(6, len(body)) + body + content[begin:]
    source.write_bytes(content)
    assert read(source, tmp_path / "scratch") == (expected(messages), [])


def test_an_mcap_out_of_order_is_read_by_receive_time(tmp_path: Path) -> None:
    messages = drive(8)
    source = make_mcap(tmp_path / "drive.mcap", [*messages[8:], *messages[:8]], chunk_size=1)
    assert read(source, tmp_path / "scratch")[0] == sorted(expected(messages), key=lambda entry: entry[1])


def test_a_cut_bag_gives_the_same_bytes_however_often_it_was_stopped(label: Label, tmp_path: Path) -> None:
    source = tmp_path / "drive"
    source.mkdir()
    whole = make_mcap(tmp_path / "whole.mcap", drive(8), chunk_size=1, publish_delay_ns=7)
    (source / "drive_0.mcap").write_bytes(whole.read_bytes()[: chunks(whole.read_bytes())[11][1] - 100])
    metadata = {"relative_file_paths": ["drive_0.mcap"], "message_count": 16}
    write_information(source, metadata)
    first = label(source, tmp_path / "whole" / "out", tracking=True)
    assert first.frames == 5
    assert "lost: metadata.yaml: it counts 16 messages, 11 are there" in first.format()

    def stop(doing: str, done: int, total: int) -> None:
        if (doing, done) == stops[-1]:
            stops.pop()
            raise KeyboardInterrupt

    stops = [("writing", 0), ("labelling", 4), ("labelling", 2)]
    while stops:
        with pytest.raises(KeyboardInterrupt):
            label(source, tmp_path / "out", stop, tracking=True)
    again = label(source, tmp_path / "out", tracking=True)
    assert (again.resumed, again.frames, again.losses) == (5, 5, first.losses)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole" / "out")


@pytest.mark.parametrize("kind", ["missing", "cut", "empty", "other"])
def test_a_split_bag_with_a_bad_part(tmp_path: Path, kind: str) -> None:
    messages, source = drive(12), tmp_path / "drive"
    source.mkdir()
    names = ["drive_9.mcap", "drive_10.mcap", "drive_11.mcap"]
    for number, name in enumerate(names):
        make_mcap(source / name, messages[8 * number : 8 * number + 8], chunk_size=1)
    write_information(source, {"relative_file_paths": [f"drive/{name}" for name in (*names, names[0])], "version": 3})
    assert read(source, tmp_path / "scratch") == (expected(messages), [])
    part = source / names[1]
    if kind == "missing":
        part.unlink()
    elif kind == "cut":
        part.write_bytes(part.read_bytes()[: chunks(part.read_bytes())[4][1]])
    else:
        part.write_bytes(b"" if kind == "empty" else b"some other file")
    found, (loss,) = read(source, tmp_path / "scratch")
    kept = 5 if kind == "cut" else 0
    assert found == expected(messages[: 8 + kept] + messages[16:])
    assert loss.startswith("drive_10.mcap: ")


@pytest.mark.parametrize("text", ["", "{", "rosbag2_bagfile_information: 3", "\udc80"])
def test_a_bag_without_readable_metadata(tmp_path: Path, text: str) -> None:
    messages, source = drive(6), tmp_path / "drive"
    source.mkdir()
    for number, name in enumerate(["drive_9.mcap", "drive_10.mcap"]):
        make_mcap(source / name, messages[6 * number : 6 * number + 6])
    assert read(source, tmp_path / "scratch") == (expected(messages), [])
    (source / "metadata.yaml").write_text(text, errors="surrogateescape")
    found, (loss,) = read(source, tmp_path / "scratch")
    assert found == expected(messages)
    assert loss.startswith("metadata.yaml: it can't be read, and the files are taken by their names")


def test_metadata_that_disagrees_with_the_files(tmp_path: Path) -> None:
    source = make_bag(tmp_path / "drive", drive(3))
    make_mcap(source / "recovered.mcap", drive(3))
    found, (loss,) = read(source, tmp_path / "scratch")
    assert found == expected(drive(3))
    assert loss.startswith("recovered.mcap: it is not read, as metadata.yaml doesn't list it")
    (source / "drive.mcap").unlink()
    found, losses = read(source, tmp_path / "scratch")
    assert (found, losses) == (expected(drive(3)), ["drive.mcap: it is missing"])


def sqlite_drive(folder: Path, count: int) -> Path:
    return make_bag(folder, drive(count), StoragePlugin.SQLITE3) / f"{folder.name}.db3"


def test_a_sqlite_file_alone(tmp_path: Path) -> None:
    file = sqlite_drive(tmp_path / "drive", 4)
    (tmp_path / "drive" / "metadata.yaml").unlink()
    assert read(file, tmp_path / "scratch") == read(file.parent, tmp_path / "scratch") == (expected(drive(4)), [])


@pytest.mark.parametrize("part", [0.3, 0.6, 0.9])
def test_a_sqlite_file_that_is_cut_off(label: Label, tmp_path: Path, part: float) -> None:
    file = sqlite_drive(tmp_path / "drive", 60)
    content = file.read_bytes()
    file.write_bytes(content[: int(part * len(content)) // 4096 * 4096])
    found, losses = read(file.parent, tmp_path / "scratch")
    assert found == [entry for entry in expected(drive(60)) if entry in found]
    assert abs(len(found) / 120 - part) < 0.1
    assert losses[0].startswith("drive.db3: cut off or damaged behind row ")
    assert losses[1].startswith("metadata.yaml: it counts 120 messages, ")
    if part == 0.3:
        images = sum(topic == "/camera/image_raw" for topic, *_ in found)
        assert label(file.parent, tmp_path / "out").frames == images > 10


def test_a_damaged_row_costs_itself(label: Label, tmp_path: Path) -> None:
    file = sqlite_drive(tmp_path / "drive", 6)
    content = bytearray(file.read_bytes())
    # In the middle of an image: the page holds it alone, and begins with the number of the next one.
    place = content.index(picture(3).tobytes()[9000:9100]) // 4096 * 4096
    content[place : place + 4] = b"\xff" * 4
    file.write_bytes(content)
    summary = label(file.parent, tmp_path / "out")
    assert summary.frames == 5
    assert "lost: drive.db3: a row is damaged and left out" in summary.format()
    assert "messages lost are 1 on /camera/image_raw" in summary.format()


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_what_a_sqlite_journal_holds_is_read_and_left_as_it_is(label: Label, tmp_path: Path, mode: str) -> None:
    recording = sqlite_drive(tmp_path / "recording", 2)
    source = tmp_path / "drive"
    source.mkdir()
    database = sqlite3.connect(recording, isolation_level=None)
    database.execute(f"PRAGMA journal_mode = {mode}")
    database.execute("PRAGMA wal_autocheckpoint = 0")
    database.execute("PRAGMA cache_size = 2")  # so that much of an open transaction is on the disk
    database.execute("BEGIN")
    for message in drive(6)[4:]:
        topic = 1 + (message.kind == IMAGE)
        row = (topic, message.time_ns, message.data)
        database.execute("INSERT INTO messages (topic_id, timestamp, data) VALUES (?, ?, ?)", row)
    if mode == "wal":
        database.execute("COMMIT")
    for path in recording.parent.glob("recording.db3*"):  # as they are when the power fails
        if not path.name.endswith("-shm"):
            shutil.copyfile(path, source / path.name)
    database.close()
    before = contents(source)
    assert len(before) == 2
    # What was committed is in the journal alone; what was not is taken back by it.
    frames = 6 if mode == "wal" else 2
    found, losses = read(source, tmp_path / "scratch")
    assert (found, losses) == (expected(drive(6))[: 2 * frames], [])
    assert label(source / "recording.db3", tmp_path / "out").frames == frames
    assert contents(source) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["drive", "out", "recording"]


@pytest.mark.parametrize("storage", [StoragePlugin.MCAP, StoragePlugin.SQLITE3])
@pytest.mark.parametrize("mode", [CompressionMode.FILE, CompressionMode.MESSAGE])
def test_bags_that_rosbag2_compressed(
    label: Label, tmp_path: Path, storage: StoragePlugin, mode: CompressionMode
) -> None:
    source = make_bag(tmp_path / "drive", drive(40), storage, mode)
    assert read(source, tmp_path / "scratch") == (expected(drive(40)), [])
    assert label(source, tmp_path / "out").frames == 40
    assert sorted(path.name for path in tmp_path.iterdir()) == ["drive", "out"]
    (file,) = (path for path in source.iterdir() if path.name != "metadata.yaml")
    content = bytearray(file.read_bytes())
    if mode == CompressionMode.FILE:
        file.write_bytes(content[: len(content) * 5 // 6])
    else:
        place = content.rindex(b"\x28\xb5\x2f\xfd")  # a message's
        content[place + 4 : place + 8] = b"\xff" * 4
        file.write_bytes(content)
    found, losses = read(source, tmp_path / "scratch")
    assert 0 < len(found) < 80
    assert found == [entry for entry in expected(drive(40)) if entry in found]
    assert losses


def test_a_compression_that_is_not_known_is_named(tmp_path: Path) -> None:
    source = make_bag(tmp_path / "drive", drive(2), StoragePlugin.MCAP, CompressionMode.MESSAGE)
    text = (source / "metadata.yaml").read_text()
    (source / "metadata.yaml").write_text(text.replace("compression_format: zstd", "compression_format: xz"))
    with pytest.raises(InvalidInputError, match=r"expected messages compressed with zstd, got .*drive with xz"):
        read(source, tmp_path / "scratch")
    chunk = make_mcap(tmp_path / "new.mcap", drive(2))
    chunk.write_bytes(chunk.read_bytes().replace(b"\x04\0\0\0zstd", b"\x04\0\0\0zst9"))
    found, losses = read(chunk, tmp_path / "scratch")
    assert not found
    assert "expected lz4, zstd or no compression, got 'zst9'" in losses[0]


@pytest.mark.parametrize("name", ["empty.mcap", "empty.db3", "text.mcap", "folder", "magic.mcap"])
def test_bags_of_which_nothing_is_left(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    source = tmp_path / name
    if name == "folder":
        source.mkdir()
        (source / "folder.db3").write_bytes(b"")
        (source / "metadata.yaml").write_text("rosbag2_bagfile_information: {relative_file_paths: [folder.db3]}")
    else:
        source.write_bytes({"text": b"text", "magic": b"\x89MCAP0\r\n"}.get(source.stem, b""))
    assert main(["bag", str(source), str(tmp_path / "out"), *arguments]) == 1
    said = capsys.readouterr().err
    assert "expected a bag of ROS 2" in said
    assert "nothing can be read" in said
    assert list(tmp_path.iterdir()) == [source]


EDITS = st.lists(
    st.tuples(
        st.sampled_from(["flip", "fill", "cut", "count"]), st.one_of(st.floats(0, 0.05), st.floats(0, 1)),
        st.binary(min_size=1, max_size=40),
    ),
    min_size=1, max_size=4,
)  # fmt: skip


@pytest.fixture(scope="module")
def small_files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Files of all kinds, with all that they may hold."""
    folder = tmp_path_factory.mktemp("small")
    messages = [part for n in range(4) for part in (wheel_message(n), image_message(n, picture(n, (10, 30))))]

    def extend(writer: Any) -> None:
        writer.add_attachment(3, 4, "calibration.yaml", "text/yaml", b"fx: 1")
        writer.add_metadata("run", {"a": "b"})
        writer.add_metadata("rosbag2", {"serialized_metadata": "{version: 8, custom_data: {a: b}}"})

    files = [
        make_mcap(folder / f"{kind.name}_{size}.mcap", messages, compression=kind, chunk_size=size, extend=extend)
        for kind in COMPRESSIONS
        for size in (1, 3000)
    ]
    files.append(make_mcap(folder / "loose.mcap", messages, use_chunking=False, extend=extend))
    files.append(make_bag(folder / "rows", messages, StoragePlugin.SQLITE3) / "rows.db3")
    packed = make_bag(folder / "packed", messages, StoragePlugin.SQLITE3, CompressionMode.FILE)
    files.append(next(packed.glob("*.zstd")))
    return files


@pytest.mark.slow
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(number=st.integers(0, 8), edits=EDITS)
@example(number=0, edits=[("fill", 0.0, b"#ROSBAG V")])
def test_no_damage_ends_a_run_otherwise_than_with_a_sentence(
    small_files: list[Path], tmp_path: Path, number: int, edits: list[tuple[str, float, bytes]]
) -> None:
    content = bytearray(small_files[number].read_bytes())
    for kind, part, data in edits:
        place = int(part * (len(content) - 1))
        if kind == "flip":
            content[place] ^= 1 << data[0] % 8
        elif kind == "fill":
            content[place : place + len(data)] = data
        elif kind == "cut":
            del content[place + 1 :]
        else:
            content[place : place + 8] = (int.from_bytes(data[:6], "little")).to_bytes(8, "little")
    damaged = tmp_path / f"damaged{small_files[number].suffix}"
    damaged.write_bytes(content)
    try:
        with open_bag(damaged, tmp_path / "scratch") as bag:
            for find in (lambda: find_cameras(bag, ()), lambda: find_copied(bag, None, ())):
                with contextlib.suppress(InvalidInputError):
                    find()
            for message in bag.messages(range(len(bag.channels))):
                assert isinstance(message.data, bytes)
            assert all(isinstance(part.data, bytes) for part in bag.attachments())
            assert all(bag.losses.lines())
    except InvalidInputError as error:
        sentences = ("nothing can be read", "expected messages compressed with zstd", "of ROS 1: convert it")
        assert any(sentence in str(error) for sentence in sentences)  # noqa: PT017
