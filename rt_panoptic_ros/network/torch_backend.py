"""PyTorch on the CPU or a CUDA GPU: the researcher's backend, the network itself without an export."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, ClassVar

import torch
import warp as wp

from rt_panoptic_ros.errors import UnavailableError
from rt_panoptic_ros.inference.base import Backend
from rt_panoptic_ros.network.panoptic_network import InputNormalization, PanopticNetwork
from rt_panoptic_ros.records import DenseDetections

if TYPE_CHECKING:
    import numpy as np

    from rt_panoptic_ros.model.bundle import ModelBundle

_LOGGER = logging.getLogger(__name__)


class TorchBackend(Backend):
    """Runs `PanopticNetwork` with the bundle's weights, in float32 or, where it pays, float16."""

    name = "torch"
    lacks: ClassVar = {"int8": ""}

    def __init__(
        self, bundle: ModelBundle, network_size: tuple[int, int], device: str, precision: str, *, tf32: bool = False
    ) -> None:
        """Load the network; see `Backend`."""
        if device.startswith("cuda") and not torch.cuda.is_available():
            raise UnavailableError(
                f"expected a torch with CUDA for device {device}, got torch {torch.__version__} without: "
                "install a CUDA build of torch, or choose device cpu"
            )
        super().__init__(network_size, device, precision, tf32=tf32)
        if precision == "float16" and device == "cpu":
            _LOGGER.warning("torch takes several times as long in float16 as in float32 on a CPU: choose float32 there")
        network = PanopticNetwork(bundle.network, len(bundle.classes), len(bundle.classes.thing_ids))
        network.load_arrays(bundle.load_weights())
        self._network = network.eval().requires_grad_(False).to(device)
        self._normalize = InputNormalization(bundle.input, device)

    @torch.inference_mode()
    def infer(self, image: np.ndarray) -> DenseDetections:
        """Return the network's outputs for `image`; see `Backend`."""
        pixels = torch.from_numpy(image).to(self.device).permute(2, 0, 1)
        half = self.precision == "float16"  # of convolutions; torch itself keeps norms and exponentials in float32
        with torch.autocast(self.device.split(":")[0], torch.float16, enabled=half):
            outputs = self._network(self._normalize(pixels)[None])
        levelness = outputs.levelness_logits
        return DenseDetections(
            semantic_logits=_shared(outputs.semantic_logits),
            levelness_logits=None if levelness is None else _shared(levelness),
            box_class_logits=tuple(map(_shared, outputs.box_class_logits)),
            box_offsets=tuple(map(_shared, outputs.box_offsets)),
            centerness_logits=tuple(map(_shared, outputs.centerness_logits)),
        )

    def close(self) -> None:
        """Free the network; see `Backend`."""
        del self._network


def _shared(tensor: torch.Tensor) -> wp.array:
    return wp.from_torch(tensor[0].float().contiguous(), dtype=wp.float32)


def allow_tf32(allowed: bool) -> None:
    """Let torch round float32 inputs of products to 10 bits of mantissa (TF32) on a GPU, in this process, or not."""
    torch.backends.cuda.matmul.allow_tf32 = allowed
    torch.backends.cudnn.allow_tf32 = allowed
