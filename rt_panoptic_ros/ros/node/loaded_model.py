# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The model that the node runs: loaded, warmed and closed as a whole."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from rt_panoptic_ros.drawing.overlay import warm_overlay
from rt_panoptic_ros.errors import InvalidInputError
from rt_panoptic_ros.labeller import FrameLabeller, OutputStyle
from rt_panoptic_ros.model.label_map import read_label_map
from rt_panoptic_ros.panoptic.class_filter import parse_class_names
from rt_panoptic_ros.settings import parse_size

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from rt_panoptic_ros.pipeline import PanopticPipeline
    from rt_panoptic_ros.ros.node.node_settings import NodeSettings


class LoadedModel:
    """A pipeline, ready to label, and what it was loaded for.

    The worker thread alone makes it, has it label and describe itself, and closes it, and with it the backend and all
    that lies on a GPU. Other threads may `check` settings meanwhile, which depends on nothing that changes.
    """

    def __init__(
        self,
        settings: NodeSettings,
        stages: Mapping[str, object],
        open_pipeline: Callable[..., PanopticPipeline],
    ) -> None:
        """Open the pipeline, and warm all that a listener can ask for.

        Args:
            settings: Say which model, and for what.
            stages: {post-processing setting: value}, over the model's own.
            open_pipeline: With the arguments of `pipeline.open_pipeline`.

        Raises:
            InvalidInputError: No model, one that can't be used, or classes that it doesn't have.
            UnavailableError: The backend can't be had here.
        """
        if not settings.model:
            raise InvalidInputError(
                "expected the parameter model to be the path of a model bundle or the name of one that comes with the "
                "package, got nothing: start with `-p model:=PATH`, or set it and configure again"
            )
        self._structure = settings.structure()
        label_map = read_label_map(settings.label_map) if settings.label_map else None
        self.pipeline = open_pipeline(
            settings.model,
            backend=settings.backend,
            device=settings.device,
            precision=settings.precision,
            tf32=settings.tf32,
            network_size=parse_size("network_size", settings.network_size),
            settings=stages,
        )
        try:
            self.labeller = FrameLabeller(self.pipeline, label_map)
            self.pipeline.prepare(parse_size("camera_size", settings.camera_size))
            if settings.build_only and not self.pipeline.loaded:
                raise InvalidInputError(
                    f"expected network_size or camera_size with build_only, as {settings.model} takes images of any "
                    "size, got neither: set one of them"
                )
            self.classes = self.labeller.classes
            self.check(settings)
            warm_overlay(self.classes)
            # The first frame would wait for half a second; set live later, one frame does.
            for wanted, module in ((settings.tracking, "scipy.optimize"), (settings.output_size, "scipy.ndimage")):
                if wanted:
                    importlib.import_module(module)
        except BaseException:
            self.close()
            raise

    def fits(self, settings: NodeSettings) -> bool:
        """Return whether nothing was set since that what is loaded depends on."""
        return self._structure == settings.structure()

    def wanted_classes(self, settings: NodeSettings) -> frozenset[int] | None:
        """Return the ids of the classes whose objects are wanted, None for all.

        Raises:
            InvalidInputError: There is no class of that name.
        """
        return parse_class_names(settings.object_classes, self.classes)

    def style(self, settings: NodeSettings) -> OutputStyle:
        """Return what the images made of the labels look like.

        Raises:
            InvalidInputError: There is no class of that name.
        """
        return OutputStyle.of(settings.overlay_opacity, settings.palette, settings.mask_classes, self.classes)

    def check(self, settings: NodeSettings) -> None:
        """Check the settings that name classes.

        Raises:
            InvalidInputError: There is no class of that name.
        """
        self.wanted_classes(settings)
        self.style(settings)

    def close(self) -> None:
        """Free everything."""
        self.pipeline.close()
