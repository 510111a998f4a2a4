# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Fine-tuning: the weights that a network starts with from a bundle, whose classes may be others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np

    from rt_panoptic_ros.model.bundle import ModelBundle
    from rt_panoptic_ros.model.class_table import ClassTable


def weights_of_model(
    bundle: ModelBundle, classes: ClassTable, fresh: Mapping[str, np.ndarray]
) -> tuple[dict[str, np.ndarray], str]:
    """Return a bundle's weights for a network of other classes, and in words what is kept.

    All layers are the bundle's. In the two that have a channel for each class, or for each thing, the channels of
    classes of the same name are; the others are `fresh`.

    Args:
        bundle: What is started from.
        classes: The new network's.
        fresh: {entry name: array}, the new network's own beginning.

    Raises:
        InvalidInputError: The bundle's file is missing, damaged or not its card's.
    """
    weights, notes = bundle.load_weights(), []
    for layer, new, old in (
        ("cls_logits", classes.names, bundle.classes.names),
        ("box_cls_logits", _thing_names(classes), _thing_names(bundle.classes)),
    ):
        kept = [name for name in new if name in old]
        anew = [name for name in new if name not in old]
        rows, sources = [new.index(name) for name in kept], [old.index(name) for name in kept]
        for entry in (f"panoptic_head.{layer}.weight", f"panoptic_head.{layer}.bias"):
            values = fresh[entry].copy()
            values[rows] = weights[entry][sources]
            weights[entry] = values
        notes.append(f"{layer} begins anew for {_listed(anew)} and keeps {_listed(kept)}")
    note = f"starting from {bundle.name} ({bundle.weights_sha256[:12]}): {'; '.join(notes)}; all else is kept"
    return weights, note


def origin_of(bundle: ModelBundle) -> dict[str, Any]:
    """Return what the card of a model tells of the bundle that it started from; its data's licence goes on."""
    data = {name: value for name, value in bundle.about.items() if name in ("data", "data_licence")}
    return {"name": bundle.name, "weights_sha256": bundle.weights_sha256, **data}


def _thing_names(classes: ClassTable) -> tuple[str, ...]:
    return tuple(classes.names[thing] for thing in classes.thing_ids)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "no class"
