# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""One process or several that learn together (`torchrun`)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, distributed

from rt_panoptic_ros.errors import UnavailableError


@dataclass(frozen=True, slots=True)
class Processes:
    """This process among those that learn together."""

    rank: int
    count: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes files."""
        return self.rank == 0

    def mean(self, value: Tensor) -> Tensor:
        """Return the mean of a scalar over all processes."""
        if self.count > 1:
            value = value.detach().clone()
            distributed.all_reduce(value)
            value /= self.count
        return value

    def any(self, value: bool) -> bool:
        """Return whether `value` holds in any process."""
        return float(self.mean(torch.tensor(float(value), device=self.device))) > 0

    def wait(self) -> None:
        """Wait for all processes."""
        if self.count > 1:
            distributed.barrier()


@contextmanager
def joined_processes(device: str) -> Iterator[Processes]:
    """Join the processes that torchrun started, if it did, for the block.

    Args:
        device: auto, cpu or cuda; with several processes, each takes the GPU of its local rank.

    Raises:
        UnavailableError: cuda was asked for and torch has none.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise UnavailableError(
            f"expected a torch with CUDA for device cuda, got torch {torch.__version__} without: install a CUDA "
            "build of torch, or choose device cpu"
        )
    kind = device if device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    count, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    place = torch.device(kind, int(os.environ.get("LOCAL_RANK", "0"))) if kind == "cuda" else torch.device("cpu")
    if kind == "cuda":
        torch.cuda.set_device(place)
    if count == 1:
        yield Processes(0, 1, place)
        return
    distributed.init_process_group("nccl" if kind == "cuda" else "gloo")
    try:
        yield Processes(rank, count, place)
    finally:
        distributed.destroy_process_group()
