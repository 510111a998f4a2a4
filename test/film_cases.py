# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Films that several tests play."""

from __future__ import annotations

import struct
from pathlib import Path

import cv2
import numpy as np


def matroska(path: Path, times_ms: list[int], duration_ms: float = 0, default_ms: int = 0) -> Path:
    """Write a film of JPEGs, frame i of grey 10 i % 250, as MediaRecorder does: no duration, no rate."""

    def element(identity: str, content: bytes) -> bytes:
        return bytes.fromhex(identity) + (1 << 56 | len(content)).to_bytes(8, "big") + content

    def number(value: int) -> bytes:
        return value.to_bytes(8, "big")

    info = element("2AD7B1", number(1_000_000))  # ns per tick
    info += element("4489", struct.pack(">d", duration_ms)) if duration_ms else b""
    track = b"".join(element(key, number(1)) for key in ("D7", "73C5", "83")) + element("86", b"V_MJPEG")
    track += element("23E383", number(default_ms * 1_000_000)) if default_ms else b""
    track += element("E0", element("B0", number(64)) + element("BA", number(48)))
    clusters = b""
    for i, time_ms in enumerate(times_ms):
        jpeg = cv2.imencode(".jpg", np.full((48, 64, 3), 10 * i % 250, np.uint8))[1].tobytes()
        clusters += element("1F43B675", element("E7", number(time_ms)) + element("A3", b"\x81\0\0\x80" + jpeg))
    head = element("1A45DFA3", element("4282", b"matroska"))
    body = element("1549A966", info) + element("1654AE6B", element("AE", track)) + clusters
    path.write_bytes(head + bytes.fromhex("1853806701FFFFFFFFFFFFFF") + body)
    return path
