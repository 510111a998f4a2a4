# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The node's ROS parameters: declared with description and range, changes checked and applied between frames."""

from __future__ import annotations

import os
import threading
import traceback
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.parameter import Parameter

from rt_panoptic_ros.errors import InvalidInputError
from rt_panoptic_ros.resources import share_directory
from rt_panoptic_ros.ros.node.node_settings import NodeSettings
from rt_panoptic_ros.settings import Change, PostprocessSettings, Setting, listed, settings_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rclpy.node import Node

_OF_ROS = ("use_sim_time", "start_type_description_service", "qos_overrides.")
"""Parameters, or how their names begin, that rclpy itself declares for every node."""
_PATHS = {"model": "models", "label_map": "config/label_maps"}
"""Parameters that name a file or a folder, and where those lie that come with the package."""


Record = TypeVar("Record")


def declare_settings(node: Node, record: type[Record]) -> Record:
    """Declare a parameter for every field of a record, and return the record with what the user gave.

    Args:
        node: Made with `automatically_declare_parameters_from_overrides=True`, so that what the user gave is known.
        record: A dataclass with fields made by `setting`.

    Raises:
        InvalidInputError: The user gave a value that a parameter cannot have.
    """
    return record(**_declare(node, settings_of(record)))


class NodeParameters:
    """Keeps the node's and the post-processing's settings equal to the ROS parameters.

    Post-processing parameters that the user never gave follow the model's card.
    """

    def __init__(self, node: Node, is_active: Callable[[], bool], check: Callable[[NodeSettings], object]) -> None:
        """Declare all parameters.

        Args:
            node: As for `declare_settings`.
            is_active: Says whether the node is active, when some settings must not change.
            check: Raises `InvalidInputError` for settings that don't fit what is loaded.

        Raises:
            InvalidInputError: The user gave a value that a parameter cannot have.
        """
        self._node = node
        self._is_active = is_active
        self._check = check
        own, stages = settings_of(NodeSettings), settings_of(PostprocessSettings)
        self._own = {one.name: one for one in own}
        described = [replace(one, description=f"{one.description} Unless given, the model's own.") for one in stages]
        values = _declare(node, (*own, *described))
        settings = NodeSettings(**{name: values.pop(name) for name in values.keys() & self._own.keys()})
        shipped = [str(share_directory() / folder) for folder in _PATHS.values()]
        named = [settings.model, settings.label_map, *listed(settings.model_folders)]
        self._places = frozenset(Path(os.path.realpath(place)) for place in [*shipped, *named] if place)
        self._given: dict[str, object] = values  # post-processing settings that the user gave
        self._now = settings, PostprocessSettings()
        self._adopting = False
        self._changing = threading.RLock()  # the executor's thread sets parameters, the worker's follows a card
        node.add_on_set_parameters_callback(self._on_change)

    @property
    def settings(self) -> NodeSettings:
        """The node's settings now."""
        return self._now[0]

    @property
    def given(self) -> dict[str, object]:
        """{post-processing setting: value} of those that the user gave; the others are the model's own."""
        return dict(self._given)

    def now(self) -> tuple[NodeSettings, PostprocessSettings]:
        """Return the settings of the node and of the post-processing, both before or both after a change."""
        return self._now

    def follow(self, card: PostprocessSettings) -> None:
        """Take over a model's settings, except for those that the user gave, and show them as parameters.

        Raises:
            InvalidInputError: One is out of its range.
        """
        with self._changing:
            stages = card.replaced(self._given)
            self._now = self.settings, stages
            own = [Parameter(name, value=value) for name, value in stages.flat().items() if name not in self._given]
            self._adopting = True
            try:
                result = self._node.set_parameters_atomically(own)
            finally:
                self._adopting = False
        if not result.successful:
            raise InvalidInputError(f"expected a model card whose settings are in range, got one where {result.reason}")

    def _on_change(self, parameters: Sequence[Parameter]) -> SetParametersResult:
        """Accept a change and apply it, or say why not; several parameters together change all or none."""
        try:
            with self._changing:
                self._apply({parameter.name: parameter.value for parameter in parameters})
        except InvalidInputError as error:
            return SetParametersResult(successful=False, reason=str(error))
        except Exception as error:  # unanswered, whoever asked would wait for ever
            self._node.get_logger().error(f"a change of parameters failed:\n{traceback.format_exc()}")
            reason = f"an unexpected {type(error).__name__} came: {error}"
            return SetParametersResult(successful=False, reason=reason)
        return SetParametersResult(successful=True)

    def _apply(self, values: dict[str, Any]) -> None:
        before, stages = self._now
        own = {name: self._own[name].parsed(value) for name, value in values.items() if name in self._own}
        settings = replace(before, **own)
        for name, value in own.items():
            if self._own[name].change is Change.INACTIVE and self._is_active() and value != getattr(before, name):
                raise InvalidInputError(
                    f"expected {name} to be set {Change.INACTIVE.value}, but it is: deactivate it first "
                    f"(ros2 lifecycle set {self._node.get_fully_qualified_name()} deactivate), then set {name} and "
                    "activate"
                )
        for name in _PATHS.keys() & own.keys():
            self._check_place(name, own[name])
        given = {name: values[name] for name in stages.flat() if name in values}
        stages = stages.replaced(given)
        self._check(settings)
        if not self._adopting:
            self._given.update(given)
        self._now = settings, stages

    def _check_place(self, name: str, text: str) -> None:
        """Check where the file or folder lies that a parameter names: whoever is on the graph may set it.

        Raises:
            InvalidInputError: Outside of what was named at start.
        """
        if os.path.lexists(text) or Path(text).name != text:  # else it can only be the name of a shipped one
            place = Path(os.path.realpath(text))
            if self._places.isdisjoint((place, *place.parents)):
                raise InvalidInputError(
                    f"expected {name} to be the name of one that comes with the package, the one given at start, or "
                    f"one in the folders of the parameter model_folders, got {text[:80]!r}: start the node with "
                    f"model_folders, or with this {name}"
                )


def _declare(node: Node, known: Sequence[Setting]) -> dict[str, Any]:
    """Declare parameters with the user's values or the defaults; return the former, and warn of unknown names."""
    given = {
        name: parameter.value
        for name, parameter in node.get_parameters_by_prefix("").items()
        if not name.startswith(_OF_ROS)
    }
    for name in given:
        node.undeclare_parameter(name)
    names = [one.name for one in known]
    for name in sorted(set(given) - set(names)):
        node.get_logger().warning(
            f"parameter '{name}' has no effect, as this node has none of that name: it has {', '.join(names)}"
        )
    values = {one.name: one.parsed(given[one.name]) for one in known if one.name in given}
    for one in known:
        node.declare_parameter(one.name, values.get(one.name, one.default), _descriptor(one), ignore_override=True)
    return values


def _descriptor(one: Setting) -> ParameterDescriptor:
    choices = [f"one of {', '.join(one.choices)}"] if one.choices else []
    descriptor = ParameterDescriptor(
        description=one.description,
        additional_constraints="; ".join([*choices, f"can be set {one.change.value}"]),
        read_only=one.change is Change.STARTUP,
    )
    if one.minimum is not None and one.maximum is not None:
        low, high = one.kind(one.minimum), one.kind(one.maximum)
        if one.kind is float:
            descriptor.floating_point_range = [FloatingPointRange(from_value=low, to_value=high)]
        else:
            descriptor.integer_range = [IntegerRange(from_value=low, to_value=high, step=1)]
    return descriptor
