# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The contract of the backends, which compute the network: a uint8 image in, dense detections on the device out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, ClassVar

import warp as wp

from rt_panoptic_ros.errors import UnavailableError
from rt_panoptic_ros.settings import PRECISIONS

if TYPE_CHECKING:
    import numpy as np

    from rt_panoptic_ros.records import DenseDetections


CPU_ONLY = ("onnxruntime", "openvino")
"""Backends that compute on the CPU, whatever GPUs there are: the device auto is the CPU for them."""


def made_current(device: str) -> AbstractContextManager[object]:
    """Make a GPU this thread's current one meanwhile: that is the one that TensorRT and torch work on.

    Args:
        device: Warp's name; for cpu, nothing happens.
    """
    return nullcontext() if device == "cpu" else wp.ScopedDevice(device)


class Backend(ABC):
    """Computes one bundle's network for one input size on one device.

    A backend is opened as `NAME(bundle, network_size, device, precision, tf32=tf32)`; the network is loaded when that
    returns, and the first image warms it up. Not safe for use by several threads at once.
    """

    name: str
    fallback: str = ""
    """Why it is used, on the CPU, in place of a GPU or another backend; empty where none was to be preferred."""
    chosen: bool = False
    """Whether auto stands for it, or for its precision."""
    tf32: bool = False
    lacks: ClassVar[dict[str, str]] = {}  # precisions that it has not, and what to say of it in the error

    def __init__(self, network_size: tuple[int, int], device: str, precision: str, *, tf32: bool = False) -> None:
        """Check and keep what a backend is opened with; its own constructor loads the network then.

        Args:
            network_size: (height, width) px of the images that `infer` will get.
            device: Warp's name of the device that outputs lie on: cpu, cuda:0, cuda:1 and so on.
            precision: Of the convolutions: float32, float16 or int8; outputs are float32 always.
            tf32: Whether products in float32 may round what they multiply to TF32; of no effect on a CPU.

        Raises:
            UnavailableError: It does not run on the device or lacks the precision; a backend's own constructor also
                raises it where its library is not on this machine.
            InvalidInputError: Of its own constructor: the bundle's weights are damaged, or it has no ranges for int8.
        """
        if self.name in CPU_ONLY and device != "cpu":
            raise UnavailableError(
                f"expected device cpu for the {self.name} backend, got {device}: choose device cpu or backend torch"
            )
        if precision in self.lacks:
            known = " or ".join(one for one in PRECISIONS if one not in self.lacks)
            raise UnavailableError(
                f"expected precision {known} for the {self.name} backend, got {precision}{self.lacks[precision]}: "
                "choose one of them, or another backend"
            )
        self.network_size, self.device, self.precision, self.tf32 = network_size, device, precision, tf32

    @abstractmethod
    def infer(self, image: np.ndarray) -> DenseDetections:
        """Return the network's outputs for `image`, in memory that the next call may write over.

        Args:
            image: (H, W, 3) uint8, RGB, contiguous, of `network_size`.
        """

    @abstractmethod
    def close(self) -> None:
        """Free the network, in the thread that calls `infer` and after its last call; the backend is of no use then.

        `PanopticPipeline` calls it, when it is closed itself and when it gives one input size up for another.
        """


class CapturableBackend(Backend):
    """One whose work for a frame can be captured, with all that follows, in one CUDA graph.

    What `enqueue` launches always reads and writes the same memory and waits for nothing.
    """

    image: wp.array
    """(H, W, 3) uint8 RGB on the device, contiguous, of `network_size`: what `enqueue` reads."""

    @abstractmethod
    def enqueue(self) -> DenseDetections:
        """Enqueue the network on Warp's current stream of the device; return always the same arrays.

        Called with the device's CUDA context current.
        """

    def infer(self, image: np.ndarray) -> DenseDetections:
        """Return the network's outputs for `image`; see `Backend`."""
        with made_current(self.device):
            self.image.assign(image)
            return self.enqueue()
