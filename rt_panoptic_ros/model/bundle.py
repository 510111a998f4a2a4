# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Model bundles: a folder with the card (`model.yaml`) and the weights; all that inference must know.

The card says what network the weights belong to, the classes, the input's preprocessing, the post-processing
settings the weights are meant for, and where they come from.
"""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml
from safetensors import SafetensorError
from safetensors.numpy import load, save

from rt_panoptic_ros.errors import InvalidInputError, require
from rt_panoptic_ros.files import MOST_TEXT_BYTES, output_path, read_regular, read_yaml, sync
from rt_panoptic_ros.model.architecture import NetworkConfig, state_dict_layout
from rt_panoptic_ros.model.class_table import ClassTable, available_class_tables, load_class_table, parse_class_table
from rt_panoptic_ros.resources import is_file, share_directory
from rt_panoptic_ros.settings import MAX_SIZE_MEGAPIXELS, PostprocessSettings, plain, record_from

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_LOG = logging.getLogger(__name__)

CARD = "model.yaml"
WEIGHTS = "weights.safetensors"
_NEXT_WEIGHTS = "weights.next.safetensors"  # until the card is theirs
RANGES = "int8.json"
FITS = ("stretch", "pad")
_QUALITIES = ("mean_iou", "pq")  # of a card's measured figures, in percent
_FLOAT = float(np.finfo(np.float32).max)
_MOST_WEIGHTS_BYTES = 4 << 30
_MOST_DIVISOR = 1024  # px, by which an input may grow


@dataclass(frozen=True, slots=True)
class InputSpec:
    """How a camera image becomes the network's input."""

    mean_rgb: tuple[float, float, float] = (122.7717, 115.9465, 102.9801)  # of 0..255 pixels, subtracted
    std_rgb: tuple[float, float, float] = (1.0, 1.0, 1.0)  # divided by
    color_order: str = "bgr"  # the channel order of the weights' first convolution: rgb or bgr
    size: tuple[int, int] | None = None  # (height, width) px that images are brought to; None: as they come
    fit: str = "stretch"  # to `size`: stretch both axes, or keep the aspect ratio and pad right and below
    size_divisor: int = 1  # the input is padded right and below to a multiple of this many px

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            InvalidInputError: A value that no input can have.
        """
        checks = {
            "color_order to be rgb or bgr": self.color_order in ("rgb", "bgr"),
            f"fit to be one of {', '.join(FITS)}": self.fit in FITS,
            f"size_divisor to be from 1 to {_MOST_DIVISOR}": 1 <= self.size_divisor <= _MOST_DIVISOR,
            f"size to be null or [height, width], both at least 1 and {MAX_SIZE_MEGAPIXELS} megapixels at most": (
                self.size is None
                or (min(self.size) >= 1 and self.size[0] * self.size[1] <= MAX_SIZE_MEGAPIXELS * 10**6)
            ),
            "std_rgb to be from 1e-6 to 1e6": all(1e-6 <= one <= 1e6 for one in self.std_rgb),
            "mean_rgb to be from 0 to 255": all(0 <= one <= 255 for one in self.mean_rgb),
        }
        for expectation, holds in checks.items():
            require(holds, f"the input's {expectation}", self)

    @property
    def fill_rgb(self) -> tuple[int, int, int]:
        """The colour of padding: the mean's."""
        red, green, blue = map(round, self.mean_rgb)
        return red, green, blue


@dataclass(frozen=True, slots=True)
class ModelBundle:
    """A bundle's card; the weights stay on disk until `load_weights`."""

    path: Path
    name: str
    network: NetworkConfig
    classes: ClassTable
    input: InputSpec
    settings: PostprocessSettings
    weights_sha256: str
    about: dict[str, Any] = field(default_factory=dict)  # recipe, data and licence, measured figures

    @property
    def layout(self) -> dict[str, tuple[int, ...]]:
        """Return {entry name: shape} of the weights."""
        return state_dict_layout(self.network, len(self.classes), len(self.classes.thing_ids))

    @property
    def content_key(self) -> str:
        """Hexadecimal digest of all that the network's computation depends on."""
        spec = {key: value for key, value in asdict(self.input).items() if key not in ("size", "fit", "size_divisor")}
        parts = [self.weights_sha256, plain(self.network), spec, len(self.classes), self.classes.thing_ids]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    @property
    def has_ranges(self) -> bool:
        """Whether there are ranges for precision int8; `load_ranges` says whether they are sound."""
        return (self.path / RANGES).is_file()

    def loss(self, precision: str) -> float | None:
        """Return by how many points a precision's figures are below float32's in the card, at most; None: not told.

        Of every subject that about.measured has as "SUBJECT, float32" and "SUBJECT, PRECISION", those in `_QUALITIES`.
        """
        measured = self.about.get("measured")
        figures = measured if isinstance(measured, dict) else {}
        losses = []
        for name, ours in figures.items():
            subject, comma, of = str(name).rpartition(", ")
            theirs = figures.get(f"{subject}{comma}float32")
            if of == precision and isinstance(ours, dict) and isinstance(theirs, dict):
                shared = [quality for quality in _QUALITIES if _is_share(theirs.get(quality), ours.get(quality))]
                losses += [float(theirs[quality]) - float(ours[quality]) for quality in shared]
        return max(losses, default=None)

    def load_weights(self) -> dict[str, np.ndarray]:
        """Return {entry name: float32 array} in the layout's order.

        Raises:
            InvalidInputError: The file is missing, damaged, not the card's, or of another layout.
        """
        path, content = self.path / WEIGHTS, self._verified_weights()
        try:
            weights: dict[str, np.ndarray] = load(content)
        except (SafetensorError, AttributeError, LookupError, TypeError, ValueError) as error:  # NumPy's too
            raise InvalidInputError(f"expected weights in {path}, got {error}: restore the file") from None
        other = next((name for name, value in weights.items() if value.dtype != np.float32), None)
        require(other is None, f"float32 weights in {path}", f"others, such as {other}: import the weights again")
        return checked_weights(weights, self.layout, str(path))

    def load_ranges(self) -> dict[str, tuple[float, float]]:
        """Return {tensor name: (lowest, highest) activation}, what an 8-bit graph is scaled by.

        Raises:
            InvalidInputError: The bundle has none, or they are damaged or were measured with other weights.
        """
        path = self.path / RANGES
        remedy = f"make it with `rt-panoptic calibrate --model {self.path} --source FRAMES`"
        if not path.is_file():
            raise InvalidInputError(f"expected the ranges for precision int8 in {path}, found none: {remedy}")
        try:
            document = json.loads(read_regular(path, "ranges", MOST_TEXT_BYTES))
            ranges = {str(name): (float(low), float(high)) for name, (low, high) in document["ranges"].items()}
            digest, own_digest = document["weights_sha256"], document.pop("ranges_sha256", "")
            if (own_digest or len(document) != 3) and own_digest != _ranges_digest(ranges):
                raise ValueError("numbers that are not those of its digest")
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            raise InvalidInputError(f"expected ranges as JSON in {path}, got {error!r}: {remedy}") from None
        wrong = next((name for name, (low, high) in ranges.items() if not -_FLOAT <= low <= high <= _FLOAT), None)
        if wrong is not None:
            raise InvalidInputError(
                f"expected finite ranges of [lowest, highest] in {path}, got {ranges[wrong]} for {wrong}: {remedy}"
            )
        if digest != self.weights_sha256:
            raise InvalidInputError(f"expected {path} to be of this bundle's weights, got that of others: {remedy}")
        if not own_digest:
            _LOG.warning("%s has no digest, as version 0.1 wrote it, so damage would go unnoticed: %s", path, remedy)
        return ranges

    def verify_weights(self) -> None:
        """Check that the weights' file is the one that the card was written for.

        Raises:
            InvalidInputError: The file is missing, damaged or was exchanged.
        """
        self._verified_weights()

    def _verified_weights(self) -> bytes:
        """Return what is in the weights' file, read once, so that what was verified is what is used."""
        path, found = self.path / WEIGHTS, ""
        for file in (path, self.path / _NEXT_WEIGHTS):  # a writer was ended before its last step
            try:
                content = read_regular(file, "weights", _MOST_WEIGHTS_BYTES)
            except (OSError, InvalidInputError) as error:
                found = found or str(error)
                continue
            digest = hashlib.sha256(content).hexdigest()
            if digest == self.weights_sha256:
                return content
            found = found or f"{digest[:12]}..., so the file is damaged or was exchanged"
        raise InvalidInputError(
            f"expected weights in {path} with the SHA-256 of the card ({self.weights_sha256[:12]}...), got {found}: "
            "restore the file or import the weights again"
        )


def _is_share(*values: object) -> bool:
    return all(isinstance(value, int | float) and 0 <= value <= 100 for value in values)


def read_bundle(model: Path | str) -> ModelBundle:
    """Return the bundle in folder `model`, or the one of that name that comes with the package.

    Raises:
        InvalidInputError: There is no such bundle, or its card is not valid.
    """
    path = Path(model)
    if not is_file(path / CARD, "a model bundle") and path.parts == (path.name,) and not path.exists():
        path = share_directory() / "models" / path
    if not is_file(path / CARD, "a model bundle"):
        shipped = (share_directory() / "models").glob(f"*/{CARD}")
        names = ", ".join(sorted(card.parent.name for card in shipped)) or "none"
        raise InvalidInputError(
            f"expected a model bundle (a folder with {CARD} and {WEIGHTS}) at '{model}', found none: give the path of "
            f"one, or the name of one that comes with the package ({names}), or make one with `rt-panoptic "
            "import-weights` or `rt-panoptic make-untrained`"
        )
    try:
        return _parse_card(path, read_yaml(path / CARD, "a card"))
    except (KeyError, TypeError, AttributeError) as error:
        summary = " ".join(str(error).split())
        raise InvalidInputError(
            f"expected a valid card in {path / CARD}, got a missing or wrong entry ({summary}): see docs/models.md"
        ) from None


def _parse_card(path: Path, document: object) -> ModelBundle:
    if not isinstance(document, dict):
        raise TypeError("it is not a table of entries")
    classes, about = document["classes"], document.get("about", {})
    if not isinstance(about, dict):
        raise TypeError("about is not a table of entries")
    return ModelBundle(
        path=path,
        name=str(document["name"]),
        network=record_from(NetworkConfig, document["network"], "network"),
        classes=load_class_table(classes) if isinstance(classes, str) else parse_class_table(classes),
        input=record_from(InputSpec, document["input"], "input"),
        settings=PostprocessSettings().replaced(document["postprocess"]),
        weights_sha256=str(document["weights_sha256"]),
        about=about,
    )


def write_bundle(
    path: Path,
    weights: Mapping[str, np.ndarray],
    *,
    network: NetworkConfig,
    classes: ClassTable,
    spec: InputSpec,
    settings: PostprocessSettings,
    about: Mapping[str, Any],
) -> ModelBundle:
    """Write a bundle into folder `path` and return it read back; one that was there is whole until the new one is.

    Raises:
        InvalidInputError: `weights` don't have the network's layout; nothing is written.
        UnavailableError: A file can't be written; a bundle that was there is intact.
    """
    layout = state_dict_layout(network, len(classes), len(classes.thing_ids))
    checked = checked_weights(weights, layout, "the given weights")
    # safetensors writes an array's memory as it lies, whatever its strides say.
    checked = {name: np.ascontiguousarray(value) for name, value in checked.items()}
    content = save(checked)
    with output_path(path / _NEXT_WEIGHTS) as temporary:
        temporary.write_bytes(content)
    shipped = classes.name in available_class_tables() and load_class_table(classes.name) == classes
    _write_card(
        path,
        {
            "name": path.name,
            "network": plain(network),
            "classes": classes.name if shipped else classes.to_document(),
            "input": plain(spec),
            "postprocess": settings.flat(),
            "weights_sha256": hashlib.sha256(content).hexdigest(),
            "about": dict(about),
        },
    )
    (path / _NEXT_WEIGHTS).replace(path / WEIGHTS)
    sync(path)
    return read_bundle(path)


def record_measurement(bundle: ModelBundle, name: str, figures: Mapping[str, object]) -> None:
    """Write `figures` into the card, as about.measured.`name`, in place of earlier ones of that name.

    Raises:
        UnavailableError: The card can't be written; it is as it was.
    """
    card = read_yaml(bundle.path / CARD, "a card")
    card.setdefault("about", {}).setdefault("measured", {})[name] = dict(figures)
    _write_card(bundle.path, card)


def _write_card(path: Path, card: Mapping[str, object]) -> None:
    with output_path(path / CARD) as temporary:
        text = yaml.safe_dump(dict(card), sort_keys=False, width=110, allow_unicode=True)
        temporary.write_text(text, encoding="utf-8")


def write_ranges(bundle: ModelBundle, ranges: Mapping[str, tuple[float, float]], origin: str) -> Path:
    """Write what `ModelBundle.load_ranges` reads and return its path.

    Args:
        bundle: The model.
        ranges: {tensor name: (lowest, highest) activation}.
        origin: What they were measured on.

    Raises:
        UnavailableError: The file can't be written.
    """
    path = bundle.path / RANGES
    document = {
        "origin": origin,
        "weights_sha256": bundle.weights_sha256,
        "ranges_sha256": _ranges_digest(ranges),
        "ranges": dict(ranges),
    }
    with output_path(path) as temporary:
        temporary.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return path


def _ranges_digest(ranges: Mapping[str, Sequence[float]]) -> str:
    return hashlib.sha256(json.dumps(ranges).encode()).hexdigest()


def checked_weights(
    weights: Mapping[str, np.ndarray], layout: Mapping[str, tuple[int, ...]], origin: str
) -> dict[str, np.ndarray]:
    """Return `weights` in the layout's order after checking every name and shape.

    Raises:
        InvalidInputError: Names the entries that are missing, unknown, or of another shape.
    """
    problems = {
        "are missing": [f"{name} is missing" for name in layout if name not in weights],
        "are unknown": [f"{name} is unknown" for name in weights if name not in layout],
        "differ in shape": [
            f"{name} has shape {tuple(weights[name].shape)}, expected {shape}"
            for name, shape in layout.items()
            if name in weights and tuple(weights[name].shape) != shape
        ],
    }
    shown = "; ".join(
        "; ".join(some[:3]) + (f"; {len(some) - 3} more {kind}" if len(some) > 3 else "")
        for kind, some in problems.items()
        if some
    )
    if shown:
        raise InvalidInputError(
            f"expected the {len(layout)} entries of the configured network in {origin}, got differences: {shown}; "
            "check the backbone, the class table and the channel widths"
        )
    return {name: weights[name] for name in layout}
