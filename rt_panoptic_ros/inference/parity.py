"""`rt-panoptic verify`: one image through every engine and precision of this machine, and how far they differ."""

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
class EngineParity:
    """One engine in one precision, beside the first that ran in float32."""

    engine: str
    differences: dict[str, float]  # by output: largest absolute of logits, largest relative of box offsets
    same_classes: float  # share of the stride-8 cells whose best class is the same


@dataclass(frozen=True)
class ParityReport:
    """All engines."""

    reference: str
    rows: tuple[EngineParity, ...]
    unavailable: tuple[str, ...]  # which, and why
    failures: tuple[str, ...]  # of float32

    def format(self) -> str:
        """Return a table for a terminal."""
        names = list(self.rows[0].differences) if self.rows else []
        lines = [f"beside {self.reference}: largest differences (of box_offsets relative), and cells of the same class"]
        lines.append(f"{'':24}" + "".join(f"{name:>20}" for name in names) + f"{'same class':>14}")
        for row in self.rows:
            values = "".join(f"{row.differences[name]:20.2e}" for name in names)
            lines.append(f"{row.engine:24}{values}{100 * row.same_classes:12.2f} %")
        return "\n".join([*lines, *(f"not run: {reason}" for reason in self.unavailable)])


def verify_bundle(bundle: ModelBundle, image: str, device: str) -> ParityReport:
    """Run the network on the first image of a source with every engine and precision that can be had.

    Raises:
        InvalidInputError: The image or the bundle can't be read.
        UnavailableError: No engine runs here, or there is no such device.
    """
    resolve_device(device)  # else every engine would say the same
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
        raise UnavailableError(f"expected an engine that runs here, found none: {'; '.join(unavailable)}")
    (first, kind), reference = next(iter(outputs.items()))
    rows, failures = [], []
    for (name, precision), arrays in list(outputs.items())[1:]:
        differences = {
            group: max(_difference(group, arrays[key], reference[key]) for key in arrays if key.startswith(group))
            for group in (item.name for item in fields(DenseDetections))
            if any(key.startswith(group) for key in arrays)
        }
        same = arrays["semantic_logits"].argmax(axis=0) == reference["semantic_logits"].argmax(axis=0)
        rows.append(EngineParity(f"{name} in {precision}", differences, float(same.mean())))
        if precision == "float32":
            failures += [
                f"{name}: {group} by {value:.2e}" for group, value in differences.items() if not value < _TOLERANCE
            ]
    return ParityReport(f"{first} in {kind}", tuple(rows), tuple(unavailable), tuple(failures))


def _difference(group: str, ours: np.ndarray, reference: np.ndarray) -> float:
    gap = np.abs(ours - reference)
    return float((gap / reference if group == "box_offsets" else gap).max())
