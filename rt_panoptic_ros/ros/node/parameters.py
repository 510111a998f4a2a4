"""The node's ROS parameters: declared with description and range, changes checked and applied between frames."""

from __future__ import annotations

import threading
import traceback
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.parameter import Parameter

from rt_panoptic_ros.errors import InvalidInputError
from rt_panoptic_ros.ros.node.node_settings import NodeSettings, parse_cameras, parse_outputs
from rt_panoptic_ros.settings import Change, PostprocessSettings, Setting, parse_size, settings_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rclpy.node import Node

_PARSERS: dict[str, Callable[[str], object]] = {
    "network_size": lambda text: parse_size("network_size", text),
    "camera_size": lambda text: parse_size("camera_size", text),
    "cameras": parse_cameras,
    "enabled_outputs": parse_outputs,
}
"""What raises `InvalidInputError` for text that a setting can't have."""

_OF_ROS = ("use_sim_time", "start_type_description_service", "qos_overrides.")
"""Parameters, or how their names begin, that rclpy itself declares for every node."""


Record = TypeVar("Record")


def declare_settings(node: Node, record: type[Record]) -> Record:
    """Declare a parameter for every field of a record, and return the record with what the user gave.

    Args:
        node: Made with `automatically_declare_parameters_from_overrides=True`, so that what the user gave is known.
        record: A dataclass with fields made by `setting`.

    Raises:
        InvalidInputError: The user gave a value that a parameter cannot have.
    """
    known = settings_of(record)
    overrides = _take_overrides(node, [one.name for one in known])
    values: dict[str, Any] = {}
    for one in known:
        values[one.name] = one.parsed(overrides.get(one.name, one.default))
        _declare(node, one, values[one.name])
    return record(**values)


class HasSettings(Protocol):
    """The part of a pipeline that follows the parameters."""

    settings: PostprocessSettings


class NodeParameters:
    """Keeps the node's settings, and the pipeline's while there is one, equal to the ROS parameters.

    Post-processing parameters that the user never gave follow the model's card.

    Attributes:
        settings: The node's settings now; replaced as a whole.
    """

    def __init__(
        self,
        node: Node,
        is_active: Callable[[], bool],
        check: Callable[[NodeSettings], object],
    ) -> None:
        """Declare all parameters.

        Args:
            node: Made with `automatically_declare_parameters_from_overrides=True`, so that what the user gave is known.
            is_active: Says whether the node is active, when some settings must not change.
            check: Raises `InvalidInputError` for settings that don't fit what is loaded.

        Raises:
            InvalidInputError: The user gave a value that a parameter cannot have.
        """
        self._node = node
        self._is_active = is_active
        self._check = check
        self._own = {one.name: one for one in settings_of(NodeSettings)}
        self._stages = {one.name: one for one in settings_of(PostprocessSettings)}
        self._given: dict[str, object] = {}  # post-processing settings that the user gave
        self._pipeline: HasSettings | None = None
        self._adopting = False
        self._changing = threading.RLock()  # the executor's thread sets parameters, the worker's follows a pipeline
        self.settings = self._declare()
        node.add_on_set_parameters_callback(self._on_change)

    @property
    def given(self) -> dict[str, object]:
        """{post-processing setting: value} of those that the user gave; the others are the model's own."""
        return dict(self._given)

    def now(self) -> tuple[NodeSettings, PostprocessSettings]:
        """Return the settings of the node and of the pipeline that it follows, both before or both after a change."""
        with self._changing:
            return self.settings, PostprocessSettings() if self._pipeline is None else self._pipeline.settings

    def follow(self, pipeline: HasSettings) -> None:
        """Show `pipeline`'s settings as the parameters' values, and change them whenever the parameters change."""
        with self._changing:
            pipeline.settings = pipeline.settings.replaced(self._given)  # more may have been given while it was opened
            self._pipeline = pipeline
            own = {name: value for name, value in pipeline.settings.flat().items() if name not in self._given}
            self._adopting = True
            try:
                result = self._node.set_parameters_atomically(
                    [Parameter(name, value=value) for name, value in own.items()]
                )
            finally:
                self._adopting = False
        if not result.successful:
            raise InvalidInputError(f"expected a model card whose settings are in range, got one where {result.reason}")

    def unfollow(self) -> None:
        """Let go of the pipeline."""
        with self._changing:
            self._pipeline = None

    def _declare(self) -> NodeSettings:
        overrides = _take_overrides(self._node, (*self._own, *self._stages))
        values: dict[str, Any] = {}
        for name, one in self._own.items():
            values[name] = one.parsed(overrides.get(name, one.default))
            _declare(self._node, one, values[name])
        for name, parse in _PARSERS.items():
            parse(values[name])
        for name, one in self._stages.items():
            if name in overrides:
                self._given[name] = one.parsed(overrides[name])
            _declare(self._node, one, self._given.get(name, one.default), " Unless given, the model's own.")
        return NodeSettings(**values)

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
        node_values: dict[str, Any] = {}
        for name in values.keys() & self._own.keys():
            node_values[name] = self._own[name].parsed(values[name])
            if name in _PARSERS:
                _PARSERS[name](node_values[name])
            self._refuse_while_active(name, node_values[name])
        stage_values = {name: values[name] for name in values.keys() & self._stages.keys()}
        # Without a pipeline only their validity matters: the next one is opened with what was given.
        base = self._pipeline.settings if self._pipeline is not None else PostprocessSettings()
        replaced = base.replaced(stage_values)

        settings = replace(self.settings, **node_values)
        self._check(settings)
        if not self._adopting:
            self._given.update(stage_values)
        self.settings = settings
        if self._pipeline is not None and stage_values:
            self._pipeline.settings = replaced

    def _refuse_while_active(self, name: str, value: object) -> None:
        if self._own[name].change is Change.INACTIVE and self._is_active() and value != getattr(self.settings, name):
            raise InvalidInputError(
                f"expected {name} to be set {Change.INACTIVE.value}, but it is: deactivate it first "
                f"(ros2 lifecycle set {self._node.get_fully_qualified_name()} deactivate), then set {name} and activate"
            )


def _take_overrides(node: Node, known: Sequence[str]) -> dict[str, object]:
    """Return {name: value} of what the user gave, undeclared again; warn of names that the node does not know."""
    overrides = {
        name: parameter.value
        for name, parameter in node.get_parameters_by_prefix("").items()
        if not name.startswith(_OF_ROS)
    }
    for name in overrides:
        node.undeclare_parameter(name)
    for name in sorted(set(overrides) - set(known)):
        node.get_logger().warning(
            f"parameter '{name}' has no effect, as this node has none of that name: it has {', '.join(known)}"
        )
    return overrides


def _declare(node: Node, info: Setting, value: object, remark: str = "") -> None:
    constraints = [f"one of {', '.join(info.choices)}"] if info.choices else []
    descriptor = ParameterDescriptor(
        description=f"{info.description}{remark}",
        additional_constraints="; ".join([*constraints, f"can be set {info.change.value}"]),
        read_only=info.change is Change.STARTUP,
    )
    if info.minimum is not None and info.maximum is not None:
        if info.kind is float:
            descriptor.floating_point_range = [
                FloatingPointRange(from_value=float(info.minimum), to_value=float(info.maximum))
            ]
        else:
            descriptor.integer_range = [IntegerRange(from_value=int(info.minimum), to_value=int(info.maximum), step=1)]
    node.declare_parameter(info.name, value, descriptor, ignore_override=True)
