"""What the node tells about its health on /diagnostics, after the conventions of diagnostic_updater.

One status for the node, NODE: panoptic, and one for each camera, NODE: camera or NODE: camera NAME. The node's level
and message are the worst of all.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from rt_panoptic_ros.ros.node.frame_statistics import FUTURE_MS, LATE_SHARE, FrameCounts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from builtin_interfaces.msg import Time

    from rt_panoptic_ros.ros.node.frame_statistics import FrameReport, Percentiles

PERIOD_S = 1.0

SILENCE_S = 5.0
"""Time without a frame from which a camera counts as silent."""

OUTPUT_TOPIC = " topic"
"""What follows an output's name in the key whose value is its topic."""

_OK, _WARN, _ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR
_CALM = 3  # reports without new trouble after which a warning or error ends
_LATE_ENDS, _LATE_REPORTS = 0.2, 3  # share of late frames again, in so many reports one after the other
_NO_STAMP_MS = 1e12  # some 30 years: the stamp is zero, or counts from the robot's start


@dataclass(frozen=True)
class NodeHealth:
    """The node's state beside its frames."""

    state: str  # of the lifecycle, such as active
    engine: str  # what is loaded, or why nothing is
    enabled: bool  # by the service ~/enable
    building: str  # what is built or waited for while configuring, empty when nothing is
    problem: str  # why the node cannot do its work, empty if it can
    callback_errors: int = 0  # since the node was started
    trouble: Finding | None = None  # with its own callbacks, beside the cameras' frames


@dataclass(frozen=True)
class CameraHealth:
    """A camera's state and frames."""

    name: str  # empty for the only one
    topic: str
    subscribed: bool
    publishers: int  # of the topic
    silence_s: float  # since the last frame arrived, or since subscribing if none has
    report: FrameReport
    obstacle: str = ""  # what the graph says that keeps all images away
    outputs: Mapping[str, str] = field(default_factory=dict)  # {name: topic}


@dataclass(frozen=True)
class Finding:
    """A level and one line."""

    level: bytes
    message: str


class _Trouble:
    """A kind of trouble that is told from its first report until some reports have been free of it."""

    def __init__(self, level: bytes, words: str) -> None:
        self._finding = Finding(level, words)
        self._number = 0
        self._calm = _CALM

    def update(self, number: int) -> Finding | None:
        """Take in the number of new cases; return what to tell."""
        if number:
            self._number, self._calm = number, 0
        else:
            self._calm += 1
        if self._calm >= _CALM:
            return None
        return Finding(self._finding.level, self._finding.message.format(self._number))


class CallbackWatch:
    """Counts and judges the errors that callbacks meet which belong to no camera's frame."""

    def __init__(self) -> None:
        """Begin without errors."""
        self.errors = 0
        self._told = 0
        self._trouble = _Trouble(_ERROR, "{} callbacks failed with an unexpected error: see the node's log")

    def judge(self) -> Finding | None:
        """Return what is to be told now; called once for every report."""
        since_last, self._told = self.errors - self._told, self.errors
        return self._trouble.update(since_last)


class CameraWatch:
    """Judges one camera's reports, with hysteresis, so that a level doesn't flicker."""

    def __init__(self) -> None:
        """Begin without trouble."""
        self._troubles = {
            "failed": _Trouble(_ERROR, "{} frames failed with an unexpected error: see the node's log"),
            "refused": _Trouble(_WARN, "{} frames refused: see the node's log"),
            "lost": _Trouble(_WARN, "{} frames lost in transport: see the node's log"),
        }
        self._late = False
        self._turning = 0  # reports that speak for the other state

    def judge(self, camera: CameraHealth, *, active: bool) -> Finding:
        """Return the worst that is to be told now; called once for every report."""
        report = camera.report
        troubles = [trouble.update(getattr(report.since_last, fate)) for fate, trouble in self._troubles.items()]
        late = self._judge_lateness(report.since_last)
        found = [trouble for trouble in troubles if trouble is not None]
        age_ms = report.latencies_ms.get("age at arrival", (0.0, 0.0))[0]
        period_ms = report.period_ms or 0.0
        cases = (
            (not active, _OK, "not active"),
            (not camera.subscribed, _OK, "waiting for a subscriber"),
            (bool(camera.obstacle), _WARN, camera.obstacle),
            (not camera.publishers, _WARN, f"waiting for a camera: nobody publishes images on {camera.topic}"),
            (camera.silence_s > SILENCE_S, _WARN, f"waiting for images: none arrived for {camera.silence_s:.0f} s"),
            (
                age_ms > _NO_STAMP_MS, _WARN,
                "the images' stamps are no time of day: have the camera's driver set them",
            ),
            (
                age_ms < FUTURE_MS, _WARN,
                f"the images' stamps are {-age_ms / 1e3:.2f} s in the future: synchronise the machines' clocks",
            ),
            (
                late, _WARN,
                f"most frames are labelled later than the camera's period of {period_ms:.0f} ms, so newer ones replace "
                "others: lower its rate, or take a faster model, precision or machine",
            ),
        )  # fmt: skip
        found += [Finding(level, words) for applies, level, words in cases if applies]
        return found[0] if found else Finding(_OK, f"processing {report.rate_hz:.1f} frames per second")

    def _judge_lateness(self, since: FrameCounts) -> bool:
        if since.processed:
            share = since.late / since.processed
            against = share < _LATE_ENDS if self._late else share > LATE_SHARE
            self._turning = self._turning + 1 if against else 0
            if self._turning == _LATE_REPORTS:
                self._late, self._turning = not self._late, 0
        return self._late


def diagnostic_array(
    name: str,
    stamp: Time,
    health: NodeHealth,
    cameras: Sequence[tuple[CameraHealth, Finding]],
    stages_ms: Percentiles,
) -> DiagnosticArray:
    """Return the message for one period.

    Args:
        name: The node's.
        stamp: Now.
        health: The node's state.
        cameras: Each with what is to be told of it.
        stages_ms: Of the work on a frame.
    """
    totals = FrameCounts()
    for camera, _ in cameras:
        for fate, number in vars(camera.report.counts).items():
            setattr(totals, fate, getattr(totals, fate) + number)
    rate_hz = sum(camera.report.rate_hz for camera, _ in cameras)
    own = _of_node(health, [(camera.name, finding) for camera, finding in cameras], rate_hz)
    node = _status(
        f"{name}: panoptic",
        own,
        {
            "state": health.state,
            "enabled": str(health.enabled),
            "engine": health.engine,
            "cameras": str(len(cameras)),
            "callbacks failed": str(health.callback_errors),
            "rate (Hz)": f"{rate_hz:.2f}",
            **_counts(totals),
            **_times(stages_ms),
        },
    )
    array = DiagnosticArray(status=[node, *(_camera_status(name, camera, finding) for camera, finding in cameras)])
    array.header.stamp = stamp
    return array


def _camera_status(node: str, camera: CameraHealth, finding: Finding) -> DiagnosticStatus:
    report = camera.report
    return _status(
        f"{node}: camera {camera.name}".rstrip(),
        finding,
        {
            "topic": camera.topic,
            **{f"{output}{OUTPUT_TOPIC}": topic for output, topic in camera.outputs.items()},
            "camera publishers": str(camera.publishers),
            "subscribed to camera": str(camera.subscribed),
            "silence (s)": f"{camera.silence_s:.2f}",
            "input rate (Hz)": f"{report.input_hz:.2f}",
            "period (ms)": "unknown" if report.period_ms is None else f"{report.period_ms:.2f}",
            "rate (Hz)": f"{report.rate_hz:.2f}",
            **_counts(report.counts),
            **_times(report.latencies_ms),
        },
    )


def _of_node(health: NodeHealth, cameras: Sequence[tuple[str, Finding]], rate_hz: float) -> Finding:
    """Return the node's level and line: its own trouble first, then the worst camera's."""
    name, worst = max(cameras, key=lambda camera: camera[1].level, default=("", Finding(_OK, health.state)))
    cases = (
        (bool(health.building), _WARN, health.building),
        (bool(health.problem), _ERROR, health.problem),
        *([(True, health.trouble.level, health.trouble.message)] if health.trouble else []),
        (health.state == "finalized", _OK, "finalized: it works again when its process is started anew"),
        (worst.level != _OK, worst.level, f"{name}: {worst.message}" if name else worst.message),
        (health.state != "active", _OK, health.state),
        (not health.enabled, _OK, "disabled by the service ~/enable"),
        (len(cameras) == 1, _OK, worst.message),
        (True, _OK, f"processing {rate_hz:.1f} frames per second of {len(cameras)} cameras"),
    )
    return next(Finding(level, words) for applies, level, words in cases if applies)


def _counts(counts: FrameCounts) -> dict[str, str]:
    return {f"frames {fate}": str(number) for fate, number in vars(counts).items()}


def _times(times_ms: Percentiles) -> dict[str, str]:
    values = {}
    for stage, (p50, p95) in times_ms.items():
        values[f"{stage} p50 (ms)"] = f"{p50:.2f}"
        values[f"{stage} p95 (ms)"] = f"{p95:.2f}"
    return values


def _status(name: str, finding: Finding, values: Mapping[str, str]) -> DiagnosticStatus:
    return DiagnosticStatus(
        level=finding.level, name=name, message=finding.message, hardware_id="none",
        values=[KeyValue(key=key, value=value) for key, value in values.items()],
    )  # fmt: skip
