# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Recordings of `rt-panoptic view`, read back with Rerun's own reader and program."""

from __future__ import annotations

import math
import os
import subprocess
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow
import rerun_cli
from rerun.chunk import RrdReader

from rt_panoptic_ros.viewing.viewers import quiet_environment

PROGRAM = Path(rerun_cli.__file__).with_name("rerun")


def run_rerun(*arguments: object) -> str:
    """Run Rerun's program as the viewer is run, and return what it says."""
    words = [str(PROGRAM), *map(str, arguments)]
    done = subprocess.run(words, capture_output=True, text=True, check=True, env=quiet_environment(os.environ))
    return done.stdout + done.stderr


class Recording:
    """A .rrd file: what was logged for ever, and by frame."""

    def __init__(self, path: Path) -> None:
        assert "1 file verified without error" in run_rerun("rrd", "verify", path)
        reader = RrdReader(path)
        assert reader.blueprints()
        self._static: dict[str, dict[str, Any]] = {}
        self._rows: dict[str, list[dict[str, Any]]] = {}
        for chunk in reader.stream().collect().stream():
            batch = chunk.to_record_batch()
            columns = {name: _plain(batch.column(name)) for name in batch.schema.names}
            rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
            if chunk.is_static:
                for row in rows:
                    self._static.setdefault(chunk.entity_path, {}).update(row)
            else:
                self._rows.setdefault(chunk.entity_path, []).extend(rows)
        for rows in self._rows.values():
            rows.sort(key=lambda row: row["frame"])

    @property
    def entities(self) -> set[str]:
        return set(self._rows)

    def column(self, entity: str, name: str) -> list[Any]:
        """Return what an entity has, by frame, such as Boxes2D:labels, frame or stamp (ns)."""
        return [row[name] for row in self._rows[entity]]

    def classes(self, entity: str) -> dict[int, tuple[str, tuple[int, ...]]]:
        """Return {value: (name, RGBA)} of an entity's annotations."""
        (context,) = self._static[entity]["AnnotationContext:context"]
        infos = [entry["class_description"]["info"] for entry in context]
        return {info["id"]: (info["label"], tuple(info["color"].to_bytes(4, "big"))) for info in infos}

    def labels(self, entity: str) -> list[np.ndarray]:
        """Return an entity's segmentation images, by frame."""
        images = []
        forms = self.column(entity, "SegmentationImage:format")
        for (data,), (form,) in zip(self.column(entity, "SegmentationImage:buffer"), forms, strict=True):
            kind = np.uint8 if len(data) == form["width"] * form["height"] else np.uint16
            images.append(np.array(data, np.uint8).view(kind).reshape(form["height"], form["width"]))
        return images

    def pictures(self, camera: str) -> list[np.ndarray]:
        """Return a camera's pictures, RGB, by frame."""
        blobs = self.column(f"/{camera}/image", "EncodedImage:blob")
        return [cv2.imdecode(np.array(blob[0], np.uint8), cv2.IMREAD_COLOR)[..., ::-1] for blob in blobs]

    def ids(self, camera: str) -> list[list[int]]:
        """Return the ids in a camera's plot, by frame."""
        plots = self.column(f"/{camera}/ids", "Scalars:scalars")
        return [[int(mark) for mark in marks if not math.isnan(mark)] for marks in plots]


def _plain(column: Any) -> list[Any]:
    """Return a column's values; times in ns, which Python's own can't hold."""
    return column.cast(pyarrow.int64()).to_pylist() if pyarrow.types.is_temporal(column.type) else column.to_pylist()
