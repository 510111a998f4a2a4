"""The contract of the inference engines: a uint8 image in, dense detections on the device out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from rt_panoptic_ros.model.bundle import ModelBundle
    from rt_panoptic_ros.records import DenseDetections


class Backend(ABC):
    """Runs one bundle's network for one input size on one device.

    The engine is loaded when the constructor returns; the first image warms it. Not safe for use by several threads at
    once.
    """

    name: str
    precision: str  # of the convolutions: float32, float16 or int8; outputs are float32 always
    device: str  # Warp's name of the device that outputs lie on: cpu or cuda:0
    network_size: tuple[int, int]  # (height, width) px of the input

    @abstractmethod
    def __init__(self, bundle: ModelBundle, network_size: tuple[int, int], device: str, precision: str) -> None:
        """Load the engine.

        Args:
            bundle: The model.
            network_size: (height, width) px of the images that `infer` will get.
            device: cpu or cuda:0.
            precision: float32, float16 or int8.

        Raises:
            UnavailableError: The engine's library or the device is not on this machine, or it lacks the precision.
            InvalidInputError: The bundle's weights are damaged, or it has no ranges for int8.
        """

    @abstractmethod
    def infer(self, image: np.ndarray) -> DenseDetections:
        """Return the network's outputs for `image`, valid until the next call.

        Args:
            image: (H, W, 3) uint8, RGB, contiguous, of `network_size`.
        """

    @abstractmethod
    def close(self) -> None:
        """Free the engine; the object can't be used after it."""


class CapturableBackend(Backend):
    """An engine whose work for a frame can be captured, with all that follows, in one CUDA graph.

    What `enqueue` launches always reads and writes the same memory and waits for nothing.
    """

    @abstractmethod
    def stage(self, image: np.ndarray) -> None:
        """Copy an image, as `infer` gets it, to where `enqueue` uploads it from; no upload may still be going on."""

    @abstractmethod
    def enqueue(self) -> DenseDetections:
        """Enqueue upload and network on Warp's current stream of the device; return always the same arrays."""

    def infer(self, image: np.ndarray) -> DenseDetections:
        """Return the network's outputs for `image`; see `Backend`."""
        self.stage(image)
        return self.enqueue()
