# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Fuzz targets: weights, checkpoints, bags and their journals, caches, data sets."""

from __future__ import annotations

import io
import json
import shutil
import sqlite3
import struct
import zipfile
import zlib
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bag_cases import StoragePlugin, drive, image_message, make_bag, make_mcap, picture
from fuzz.fuzzing import FindError, UnusableError, check_sentence, headed, parted, target, workplace
from mcap.writer import CompressionType
from safetensors.numpy import save as safetensors

from rt_panoptic_ros.bags.bag import METADATA, open_bag
from rt_panoptic_ros.bags.journal import _PREFIX, FrameRecord, Journal, _checksum
from rt_panoptic_ros.bags.messages import qos_text
from rt_panoptic_ros.bags.storage import QOS
from rt_panoptic_ros.errors import InvalidInputError
from rt_panoptic_ros.files import file_sha256
from rt_panoptic_ros.inference.choice import _tuned_in
from rt_panoptic_ros.inference.engine_cache import EngineIdentity, _load, _store, sidecar
from rt_panoptic_ros.inference.onnx_export import _read, digest
from rt_panoptic_ros.model.architecture import NetworkConfig
from rt_panoptic_ros.model.bundle import WEIGHTS, InputSpec, ModelBundle
from rt_panoptic_ros.model.class_table import load_class_table
from rt_panoptic_ros.network.weights_import import fitting_weights, read_tensors
from rt_panoptic_ros.settings import PostprocessSettings
from rt_panoptic_ros.training.checkpoints import read_checkpoint

_LAYOUT = {"a.weight": (2, 3), "a.bias": (2,)}
_ARRAYS = {"a.weight": np.ones((2, 3), np.float32), "a.bias": np.zeros(2, np.float32)}


def _written(name: str, content: bytes) -> Path:
    path = workplace() / name
    path.write_bytes(content)
    return path


def _import(path: Path) -> None:
    for name, array in fitting_weights(read_tensors(path), _LAYOUT, path.name).items():
        if array.shape != _LAYOUT[name] or array.dtype != np.float32 or not np.isfinite(array).all():
            raise FindError(f"weights {name} of {array.shape} {array.dtype}")


def _torch_file(content: object, **options: Any) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, **options)
    return file.getvalue()


def _weights_seeds() -> list[bytes]:
    npz = io.BytesIO()
    np.savez(npz, **_ARRAYS)
    tensors = {name: torch.from_numpy(array) for name, array in _ARRAYS.items()}
    nested = {"state_dict": {f"module.{name}": one for name, one in tensors.items()}, "epoch": 3}
    half = {name: array.astype(np.float16) for name, array in _ARRAYS.items()}
    return [
        npz.getvalue(), safetensors(_ARRAYS), safetensors(half), _torch_file(nested), b"version https://git-lfs",
        _torch_file(tensors, _use_new_zipfile_serialization=False), b"\x08\x07\x12\x07pytorch", b"<html>",
        b"PK\x03\x04",
    ]  # fmt: skip


@target(_weights_seeds, share=2)
def weights_file(data: bytes) -> None:
    _import(_written("weights", data))


def _pickle_seeds() -> list[bytes]:
    tensors = {name: torch.from_numpy(array) for name, array in _ARRAYS.items()}
    states = (
        tensors,
        {"model": tensors, "args": [1, (2.5, None), "a"]},
        {"recipe": {"name": "a"}, "step": 3, **tensors},
    )
    seeds = []
    for state in states:
        with zipfile.ZipFile(io.BytesIO(_torch_file(state))) as archive:
            seeds.append(archive.read(next(name for name in archive.namelist() if name.endswith("data.pkl"))))
    return seeds


@target(_pickle_seeds, share=0.5)
def torch_pickle(data: bytes) -> None:
    """What a torch file's pickle says, in an archive that is whole."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("archive/data.pkl", data)
        archive.writestr("archive/byteorder", "little")
        for number, array in enumerate(_ARRAYS.values()):
            archive.writestr(f"archive/data/{number}", array.tobytes())
        archive.writestr("archive/version", "3\n")
    path = _written("weights.pt", file.getvalue())
    problems = []
    for read in (_import, lambda path: read_checkpoint(path, {"name": "a"})):
        try:
            read(path)
        except InvalidInputError as error:
            problems.append(error)
            check_sentence(str(error))
    if problems:
        raise problems[0]


class _SmallBundle(ModelBundle):
    """One whose network has two entries."""

    __slots__ = ()

    @property
    def layout(self) -> dict[str, tuple[int, ...]]:
        return _LAYOUT


def _safetensors_seeds() -> list[bytes]:
    content = safetensors(_ARRAYS)
    (length,) = struct.unpack_from("<Q", content)
    header, tail = json.loads(content[8 : 8 + length]), content[8 + length :]
    kinds = ({"a.bias": {"dtype": kind, "shape": [2], "data_offsets": [0, size]}} for kind, size in
             (("BF16", 4), ("F8_E4M3", 2), ("I64", 16), ("BOOL", 2), ("C64", 16)))  # fmt: skip
    return [headed(header, tail), *(headed(kind, bytes(40)[: kind["a.bias"]["data_offsets"][1]]) for kind in kinds)]


@target(_safetensors_seeds)
def safetensors_header(data: bytes) -> None:
    head, _, content = data.partition(b"\n")
    path = _written(WEIGHTS, struct.pack("<Q", len(head)) + head + content)
    table = load_class_table("camvid")
    digest = file_sha256(path)
    bundle = _SmallBundle(path.parent, "a", NetworkConfig(), table, InputSpec(), PostprocessSettings(), digest)
    try:
        for name, array in bundle.load_weights().items():
            if array.dtype.kind != "f" or array.shape != _LAYOUT[name]:
                raise FindError(f"weights {name} of {array.shape} {array.dtype}")
    except InvalidInputError as error:
        check_sentence(str(error))
    _import(path)


def _npy_seeds() -> list[bytes]:
    whole = {"descr": "<f4", "fortran_order": False, "shape": [2, 3]}
    return [
        headed({"a.weight": whole, "a.bias": {**whole, "shape": [2]}}, bytes(24)),
        headed({"a.bias": {**whole, "descr": "|O"}}, b"\x80\x04N."), headed({"a.bias": {**whole, "shape": [10**12]}}),
    ]  # fmt: skip


@target(_npy_seeds, share=2)
def npz_header(data: bytes) -> None:
    """What the arrays of an `.npz` say of themselves, in an archive that is whole."""
    fields, content = parted(data)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, header in list(fields.items())[:4]:
            said = header if isinstance(header, str) else repr(_tupled(header))
            encoded = said.encode("latin1", "replace")[:60000]
            magic = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(encoded))
            archive.writestr(
                zipfile.ZipInfo(name.encode("utf-8", "replace").decode() + ".npy"), magic + encoded + content
            )
    _import(_written("weights.npz", file.getvalue()))


def _tupled(header: Any) -> Any:
    if not isinstance(header, dict):
        return header
    return {name: tuple(value) if isinstance(value, list) else value for name, value in header.items()}


def _mcap_seeds() -> list[bytes]:
    small = [*drive(2)[:2], image_message(1, picture(1, (31, 24)))]
    small[1] = image_message(0, picture(0, (31, 24)))
    seeds = []
    for options in (
        {"compression": CompressionType.NONE, "enable_crcs": False}, {"compression": CompressionType.LZ4},
        {"compression": CompressionType.ZSTD, "chunk_size": 1, "enable_crcs": False}, {"use_chunking": False},
    ):  # fmt: skip
        path = make_mcap(workplace() / "seed.mcap", small, **options)  # type: ignore[arg-type]
        seeds.append(path.read_bytes())
    return [*seeds, _rosbag2(StoragePlugin.MCAP)]


def _rosbag2(storage: StoragePlugin) -> bytes:
    folder = workplace() / "seed"
    shutil.rmtree(folder, ignore_errors=True)
    make_bag(folder, [image_message(0, picture(0, (31, 24)))], storage)
    return next(path for path in folder.iterdir() if path.name != METADATA).read_bytes()


def _read_bag(path: Path) -> None:
    with open_bag(path, workplace() / "scratch") as bag:
        numbers = range(len(bag.channels))
        list(bag.messages(numbers))
        list(bag.messages(numbers))  # as a run does: to plan, then to label
        list(bag.attachments())
        for channel in bag.channels:
            try:
                qos_text(channel.metadata.get(QOS, ""))
            except InvalidInputError as error:
                check_sentence(str(error))
        for line in bag.losses.lines():
            check_sentence(line)


@target(_mcap_seeds, share=2)
def mcap_bag(data: bytes) -> None:
    _read_bag(_written("bag.mcap", data))


def _sqlite_seeds() -> list[bytes]:
    path = workplace() / "small.db3"
    path.unlink(missing_ok=True)
    database = sqlite3.connect(path)
    database.execute("PRAGMA page_size = 512")
    database.executescript(
        "CREATE TABLE topics(id INTEGER PRIMARY KEY, name TEXT, type TEXT, serialization_format TEXT, "
        "offered_qos_profiles TEXT);"
        "CREATE TABLE messages(id INTEGER PRIMARY KEY, topic_id INTEGER, timestamp INTEGER, data BLOB);"
        "CREATE TABLE metadata(id INTEGER PRIMARY KEY, metadata_version INTEGER, metadata TEXT);"
        "INSERT INTO topics VALUES(1, '/a', 'std_msgs/msg/String', 'cdr', '- depth: 1');"
        "INSERT INTO metadata VALUES(1, 8, 'version: 8');"
    )
    database.executemany(
        "INSERT INTO messages VALUES(?, 1, ?, ?)", [(n, 100 + n, b"12345678" * n) for n in range(1, 20)]
    )
    database.commit()
    database.close()
    return [path.read_bytes(), _rosbag2(StoragePlugin.SQLITE3)]


@target(_sqlite_seeds)
def sqlite_bag(data: bytes) -> None:
    _read_bag(_written("bag.db3", data))


_ROWS = {
    "topics": [[1, "/a", "std_msgs/msg/String", "cdr", "- depth: 1"], [2, "/b", "my_msgs/Own", "cdr", ""]],
    "messages": [[1, 1, 5, "abc"], [2, 2, 6, "d"], [3, 1, 4, "e"]],
    "metadata": [[1, 8, "version: 8\ncompression_mode: MESSAGE\ncompression_format: zstd"]],
    "message_definitions": [[1, "my_msgs/msg/Own", "ros2msg", "int32 a", ""]],
}


@target(lambda: [headed(_ROWS)], share=0.5)
def sqlite_rows(data: bytes) -> None:
    """What a whole database's rows hold."""
    fields, _ = parted(data)
    path = workplace() / "rows.db3"
    path.unlink(missing_ok=True)
    database = sqlite3.connect(path, isolation_level=None)
    database.executescript(
        "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;"
        "CREATE TABLE topics(id, name, type, serialization_format, offered_qos_profiles);"
        "CREATE TABLE messages(id, topic_id, timestamp, data);"
        "CREATE TABLE metadata(id, metadata_version, metadata);"
        "CREATE TABLE message_definitions(id, topic_type, encoding, encoded_message_definition, type_description_hash);"
    )
    try:
        for table, first in _ROWS.items():
            for row in fields.get(table, ()):
                values = [one.encode() if table == "messages" and isinstance(one, str) else one for one in row]
                database.execute(f"INSERT INTO {table} VALUES({', '.join('?' * len(first[0]))})", values)
    except (sqlite3.Error, TypeError, OverflowError, ValueError):
        raise UnusableError from None
    finally:
        database.close()
    _read_bag(path)


def _information_seeds() -> list[bytes]:
    folder = workplace() / "whole"
    if not folder.exists():
        make_bag(folder, [image_message(0, picture(0, (31, 24)))])
    own = b"rosbag2_bagfile_information: {version: 8, relative_file_paths: ['whole.mcap'], message_count: 1}\n"
    bomb = b"a: &a [x, x, x, x]\n" + b"".join(
        b"%c: &%c [*%c, *%c, *%c]\n" % (i, i, *[i - 1] * 3) for i in range(98, 120)
    )
    return [(folder / METADATA).read_bytes(), own, bomb + b"rosbag2_bagfile_information: {compression_mode: *w}\n"]


@target(_information_seeds, share=0.5)
def bag_metadata(data: bytes) -> None:
    _information_seeds()
    (workplace() / "whole" / METADATA).write_bytes(data)
    _read_bag(workplace() / "whole")


_DOCUMENT = {"package": "1.0", "images": ["/a"]}


def _journal_seeds() -> list[bytes]:
    path = workplace() / "seed.journal"
    path.unlink(missing_ok=True)
    with Journal(path, _DOCUMENT) as journal:
        journal.append(0, FrameRecord(5, outputs={"semantic": b"abc"}, state=b"d", notes="e"))
        journal.append(2, FrameRecord(6, problem="broken"))
    return [path.read_bytes()]


def _read_journal(path: Path) -> None:
    for replace in (False, True):
        with Journal(path, _DOCUMENT, replace=replace) as journal:
            for camera in range(len(journal.counts)):
                for record in journal.frames(camera):
                    bytes(record.state), record.outputs.keys(), record.problem
            journal.append(0, FrameRecord(1))


@target(_journal_seeds, share=2)
def journal_file(data: bytes) -> None:
    _read_journal(_written("run.journal", data))


def _record_seeds() -> list[bytes]:
    frame = {"camera": 0, "head": [5, "", {"semantic": 3, "?": 1, "": 1}], "content": "abced"}
    return [headed({"begin": _DOCUMENT, "frames": [frame, {**frame, "camera": 2}]})]


@target(_record_seeds, share=3)
def journal_records(data: bytes) -> None:
    """Whole records, whatever they hold."""
    fields, _ = parted(data)
    frames = fields.get("frames")
    if not isinstance(frames, list) or not all(isinstance(one, dict) for one in frames):
        raise UnusableError
    content = [(0, json.dumps(fields.get("begin")).encode())]
    for one in frames:
        camera = one.get("camera")
        if not isinstance(camera, int) or not 0 <= camera < 1 << 16:
            raise UnusableError
        content.append(
            (camera, json.dumps(one.get("head")).encode() + b"\n" + str(one.get("content")).encode("utf-8", "replace"))
        )
    packed = [(camera, zlib.compress(payload, 1)) for camera, payload in content]
    _read_journal(_written("run.journal", b"".join(_PREFIX.pack(len(p), c, _checksum(c, p)) + p for c, p in packed)))


_IDENTITY = EngineIdentity("a", "0" * 64, "32x64", "float32", "tensorrt", "10.0", "any", "8.9", "none")
_PLAN = b"engine" * 20


def _entry_seeds() -> list[bytes]:
    path = workplace() / "a.engine"
    _store(path, _IDENTITY, _PLAN)
    return [headed(json.loads(sidecar(path).read_text()), _PLAN), headed({"identity": asdict(_IDENTITY)}, _PLAN)]


@target(_entry_seeds, share=2)
def engine_entry(data: bytes) -> None:
    head, _, plan = data.partition(b"\n")
    path = _written("a.engine", plan)
    path.chmod(0o644)
    sidecar(path).write_bytes(head)
    sidecar(path).chmod(0o644)
    found = _load(path, _IDENTITY)
    if found is None:
        raise InvalidInputError("not taken")
    if found != plan or json.loads(head)["identity"] != asdict(_IDENTITY):
        raise FindError("an engine of something else")


@target(lambda: [json.dumps({"network_size": [64, 96], "ms": [["openvino", "int8", 1.5]]}).encode()], share=0.5)
def tuned_choices(data: bytes) -> None:
    if not _tuned_in(_written("tuned.json", data), "cpu"):
        raise InvalidInputError("not taken")


@target(lambda: [b"graph" * 10, b""], share=0.2)
def graph_entry(data: bytes) -> None:
    folder = workplace() / "onnx"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    (folder / f"a-{digest(b'graph' * 10)}.onnx").write_bytes(data)
    if (_read(folder, "a", "onnx") is not None) != (data == b"graph" * 10):
        raise FindError("a graph with another digest")
