# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""PyTorch on the CPU or a CUDA GPU: the researcher's backend, the network itself without an export."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import warp as wp

from rt_panoptic_ros.errors import UnavailableError
from rt_panoptic_ros.inference.base import Backend, CapturableBackend
from rt_panoptic_ros.network import half_kernels
from rt_panoptic_ros.network.backbones import fold_norms
from rt_panoptic_ros.network.panoptic_network import InputNormalization, PanopticNetwork
from rt_panoptic_ros.progress import report
from rt_panoptic_ros.records import DenseDetections
from rt_panoptic_ros.warp_runtime import load_kernels

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np

    from rt_panoptic_ros.model.bundle import ModelBundle
    from rt_panoptic_ros.network.head import NetworkOutputs

_LOGGER = logging.getLogger(__name__)


def open_torch(
    bundle: ModelBundle, network_size: tuple[int, int], device: str, precision: str, *, tf32: bool = False
) -> Backend:
    """Return the backend of the device; see `Backend`."""
    kind = TorchBackend if device == "cpu" else CudaTorchBackend
    return kind(bundle, network_size, device, precision, tf32=tf32)


class TorchBackend(Backend):
    """Runs `PanopticNetwork` with the bundle's weights on the CPU, in float32 or, slower, convolutions in float16."""

    name = "torch"
    lacks: ClassVar = {"int8": ""}

    def __init__(
        self, bundle: ModelBundle, network_size: tuple[int, int], device: str, precision: str, *, tf32: bool = False
    ) -> None:
        """Load the network; see `Backend`."""
        super().__init__(network_size, device, precision, tf32=tf32)
        if precision == "float16":
            _LOGGER.warning("torch takes several times as long in float16 as in float32 on a CPU: choose float32 there")
        self._network = _load(bundle)
        self._normalize = InputNormalization(bundle.input, device)

    @torch.inference_mode()
    def infer(self, image: np.ndarray) -> DenseDetections:
        """Return the network's outputs for `image`; see `Backend`."""
        pixels = torch.from_numpy(image).permute(2, 0, 1)
        half = self.precision == "float16"  # of convolutions; torch itself keeps norms and exponentials in float32
        with torch.autocast("cpu", torch.float16, enabled=half):
            outputs = self._network(self._normalize(pixels)[None])
        arrays = {name: wp.from_torch(value.float().contiguous()) for name, value in _by_name(outputs).items()}
        return DenseDetections.of_arrays(arrays)

    def close(self) -> None:
        """Free the network; see `Backend`."""
        del self._network


class CudaTorchBackend(CapturableBackend):
    """Runs `PanopticNetwork` on an NVIDIA GPU, on Warp's stream, so that Warp captures it with all that follows.

    In float16 all weights and activations are of half precision, channels last. What torch allocates on the way lies in
    a pool of its own, which nothing else is given memory of: what a graph has captured is there as long as the backend.
    That is why torch does not capture itself: its graphs can be no part of another, and from 2.12 on it refuses to
    capture on streams such as Warp's.
    """

    name = "torch"
    lacks: ClassVar = {"int8": ""}

    def __init__(
        self, bundle: ModelBundle, network_size: tuple[int, int], device: str, precision: str, *, tf32: bool = False
    ) -> None:
        """Load the network and have cuDNN choose an algorithm for each convolution by its time; see `Backend`."""
        if not (torch.cuda.is_available() and hasattr(torch.backends, "fp32_precision")):
            raise UnavailableError(
                f"expected torch 2.9 or newer with CUDA for device {device}, got torch {torch.__version__}: "
                "install a CUDA build of torch, or choose device cpu"
            )
        super().__init__(network_size, device, precision, tf32=tf32)
        self._type = torch.float16 if precision == "float16" else torch.float32
        tensor_cores = tf32 or precision == "float16"
        self._layout = torch.channels_last if tensor_cores else torch.contiguous_format
        network: torch.nn.Module = _load(bundle)
        self._network = network.to(device=device, dtype=self._type, memory_format=self._layout)  # type: ignore[call-overload]
        self._normalize = InputNormalization(bundle.input, device)
        self.image = wp.zeros((*network_size, 3), dtype=wp.uint8, device=device)
        self._pixels = wp.to_torch(self.image).permute(2, 0, 1)
        load_kernels([half_kernels], device)
        report("choosing the convolutions' algorithms")
        with self._on_warps_stream(), convolution_flags(tf32, choose=True):
            shapes = {name: tuple(value.shape) for name, value in self._compute().items()}
            torch.cuda.empty_cache()  # of what was tried
            self._pool = torch.cuda.MemPool()
        arrays = {name: wp.empty(shape, dtype=wp.float32, device=device) for name, shape in shapes.items()}
        self._outputs = {name: wp.to_torch(array) for name, array in arrays.items()}
        self._dense = DenseDetections.of_arrays(arrays)

    def enqueue(self) -> DenseDetections:
        """Enqueue the network; see `CapturableBackend`."""
        pool = torch.cuda.use_mem_pool(self._pool, self.device)
        with self._on_warps_stream(), convolution_flags(self.tf32, choose=False), pool:
            for name, value in self._compute().items():
                self._outputs[name].copy_(value)
        return self._dense

    def _compute(self) -> dict[str, torch.Tensor]:
        """Return the network's outputs for the image by name."""
        images = self._normalize(self._pixels)[None].to(self._type, memory_format=self._layout)
        return _by_name(self._network(images))

    @contextmanager
    def _on_warps_stream(self) -> Iterator[None]:
        """Make torch's current device and stream those of Warp, for inference."""
        with torch.inference_mode(), torch.cuda.stream(wp.stream_to_torch(self.device)):
            yield

    def close(self) -> None:
        """Free the network; see `Backend`."""
        del self._network, self._pool


@contextmanager
def convolution_flags(tf32: bool, *, choose: bool) -> Iterator[None]:
    """Have cuDNN compute convolutions always alike, in true float32 unless `tf32`; then all is as it was.

    The flags are the process's: other threads that compute in torch meanwhile have them too.

    Args:
        tf32: Whether inputs in float32 may be rounded to 10 bits of mantissa.
        choose: Whether algorithms not yet chosen are chosen by trying them out.
    """
    cudnn: Any = torch.backends.cudnn  # whose attributes of newer versions are unknown to type checkers
    flags = {
        (cudnn, "benchmark"): choose, (cudnn, "deterministic"): True,
        (cudnn.conv, "fp32_precision"): "tf32" if tf32 else "ieee",
    }  # fmt: skip
    before = {(place, name): getattr(place, name) for place, name in flags}
    try:
        for (place, name), value in flags.items():
            setattr(place, name, value)
        yield
    finally:
        for (place, name), value in before.items():
            setattr(place, name, value)


def _load(bundle: ModelBundle) -> PanopticNetwork:
    """Return the network with the bundle's weights, its norms folded into its convolutions."""
    network = PanopticNetwork(bundle.network, len(bundle.classes), len(bundle.classes.thing_ids))
    network.load_arrays(bundle.load_weights())
    fold_norms(network)
    return network.eval().requires_grad_(False)


def _by_name(outputs: NetworkOutputs) -> dict[str, torch.Tensor]:
    """Return the outputs for the one image by the names of `DenseDetections.of_arrays`."""
    named: dict[str, torch.Tensor] = {}
    for name, value in outputs._asdict().items():
        if isinstance(value, tuple):
            named |= {f"{name}_{level}": part[0] for level, part in enumerate(value)}
        elif value is not None:
            named[name] = value[0]
    return named
