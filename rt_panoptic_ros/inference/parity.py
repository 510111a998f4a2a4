# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""`rt-panoptic verify`: one image through every backend and precision of this machine, and how far they differ."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np

from rt_panoptic_ros.errors import RtPanopticError, UnavailableError
from rt_panoptic_ros.frames.sources import open_source
from rt_panoptic_ros.inference.backends import open_backend, resolve_device
from rt_panoptic_ros.inference.input_image import plan_geometry, prepare_input
from rt_panoptic_ros.records import CameraImage, DenseDetections
from rt_panoptic_ros.settings import BACKENDS, PRECISIONS

if TYPE_CHECKING:
    from rt_panoptic_ros.model.bundle import ModelBundle

_TOLERANCE = 1e-2
"""Of float32 outputs, absolute for logits and relative for box offsets: far above what rounding gives."""


@dataclass(frozen=True)
class BackendParity:
    """One backend in one precision, beside the first that ran in float32."""

    backend: str
    precision: str
    differences: dict[str, float]  # by output: largest absolute of logits, largest relative of box offsets
    same_classes: float  # share of the stride-8 cells whose best class is the same


@dataclass(frozen=True)
class ParityReport:
    """All backends."""

    reference: str
    rows: tuple[BackendParity, ...]
    unavailable: tuple[str, ...]  # which, and why

    @property
    def failures(self) -> list[str]:
        """What is beyond rounding in float32."""
        return [
            f"{row.backend}: {output} by {difference:.2e}"
            for row in self.rows
            if row.precision == "float32"
            for output, difference in row.differences.items()
            if not difference < _TOLERANCE
        ]

    def format(self) -> str:
        """Return a table for a terminal."""
        names = list(self.rows[0].differences) if self.rows else []
        lines = [f"beside {self.reference}: largest differences (of box_offsets relative), and cells of the same class"]
        lines.append(f"{'':24}" + "".join(f"{name:>20}" for name in names) + f"{'same class':>14}")
        for row in self.rows:
            values = "".join(f"{row.differences[name]:20.2e}" for name in names)
            lines.append(f"{f'{row.backend} in {row.precision}':24}{values}{100 * row.same_classes:12.2f} %")
        return "\n".join([*lines, *(f"not run: {reason}" for reason in self.unavailable)])


def verify_bundle(bundle: ModelBundle, image: str, device: str) -> ParityReport:
    """Run the network on the first image of a source with every backend and precision that can be had.

    Raises:
        InvalidInputError: The image or the bundle can't be read.
        UnavailableError: No backend runs here, or there is no such device.
    """
    resolve_device(device)  # else every backend would say the same
    with open_source(image) as source:
        camera = CameraImage(next(iter(source)).image, "rgb")
    geometry = plan_geometry(camera.pixels.shape[:2], bundle.input, None)
    network_input = prepare_input(camera, geometry, bundle.input)
    outputs: dict[tuple[str, str], dict[str, np.ndarray]] = {}
    unavailable = []
    for precision in PRECISIONS:
        for name in BACKENDS[1:]:
            try:
                backend = open_backend(name, bundle, geometry.network_size, device, precision)
            except RtPanopticError as error:
                unavailable.append(f"{name} in {precision}: {error}")
                continue
            outputs[name, precision] = backend.infer(network_input).host_arrays()
            backend.close()
    if not outputs:
        raise UnavailableError(f"expected a backend that runs here, found none: {'; '.join(unavailable)}")
    (first, *others) = outputs
    rows = tuple(BackendParity(*which, *compare_outputs(outputs[which], outputs[first])) for which in others)
    return ParityReport(" in ".join(first), rows, tuple(unavailable))


def compare_outputs(ours: dict[str, np.ndarray], reference: dict[str, np.ndarray]) -> tuple[dict[str, float], float]:
    """Return the largest difference of each output, over its levels, and the share of cells of the same class."""
    largest: dict[str, float] = {}
    for name, expected in reference.items():
        (output,) = (field.name for field in fields(DenseDetections) if name.startswith(field.name))
        gap = np.abs(ours[name] - expected) / (expected if output == "box_offsets" else 1.0)
        largest[output] = float(np.maximum(largest.get(output, 0.0), gap.max()))  # NaN stays
    same = ours["semantic_logits"].argmax(axis=0) == reference["semantic_logits"].argmax(axis=0)
    return largest, float(same.mean())
