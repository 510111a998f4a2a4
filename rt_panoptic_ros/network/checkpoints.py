"""Reading torch checkpoints as plain arrays."""

from __future__ import annotations

import pickle
import struct
from pathlib import Path

import numpy as np
import torch

from rt_panoptic_ros.errors import InvalidInputError, first_line


def read_torch_checkpoint(path: Path) -> dict[str, np.ndarray]:
    """Return {entry name: array} of a torch file; one that holds anything but tensors and plain data is refused.

    A state dict inside an entry `model` or `state_dict` is found.

    Raises:
        InvalidInputError: Not a torch file, pickled code in it, or no state dict.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, struct.error, RuntimeError, LookupError, EOFError, ValueError, TypeError) as error:
        raise InvalidInputError(
            f"expected a torch checkpoint of plain tensors in {path}, got one that can't be read without running code "
            f"or is damaged ({first_line(error)}): save it again with torch.save(model.state_dict(), ...)"
        ) from None
    for key in ("model", "state_dict"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(isinstance(value, torch.Tensor) for value in content.values()):
        raise InvalidInputError(f"expected a state dict (names to tensors) in {path}, got {type(content).__name__}")
    return {name: value.float().numpy() if value.is_floating_point() else value.numpy()
            for name, value in content.items()}  # fmt: skip
