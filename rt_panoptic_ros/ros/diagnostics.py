"""What the node tells about its health on /diagnostics, after the conventions of diagnostic_updater."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

if TYPE_CHECKING:
    from builtin_interfaces.msg import Time

    from rt_panoptic_ros.ros.frame_statistics import FrameReport

PERIOD_S = 1.0

SILENCE_S = 5.0
"""Time without a frame from which a camera counts as silent."""


@dataclass(frozen=True)
class NodeHealth:
    """The node's state beside its frames."""

    state: str  # unconfigured, inactive or active
    engine: str  # what is loaded, or why nothing is
    building: str  # what is built or waited for while configuring, empty when nothing is
    problem: str  # why the node cannot do its work, empty if it can
    subscribed: bool  # to the camera
    publishers: int  # of the camera topic
    silence_s: float  # since the last frame arrived, or since subscribing if none has


def diagnostic_array(name: str, stamp: Time, health: NodeHealth, report: FrameReport) -> DiagnosticArray:
    """Return the message for one period.

    Args:
        name: The node's.
        stamp: Now.
        health: The node's state.
        report: The frames' fates up to now, and in this period.
    """
    level, message = _summary(health, report)
    values = {
        "state": health.state,
        "engine": health.engine,
        "rate (Hz)": f"{report.rate_hz:.2f}",
        **{f"frames {fate}": str(number) for fate, number in vars(report.counts).items()},
        "camera publishers": str(health.publishers),
        "subscribed to camera": str(health.subscribed),
        "silence (s)": f"{health.silence_s:.2f}",
    }
    for stage, (p50, p95) in report.latencies_ms.items():
        values[f"{stage} p50 (ms)"] = f"{p50:.2f}"
        values[f"{stage} p95 (ms)"] = f"{p95:.2f}"
    status = DiagnosticStatus(
        level=level, name=f"{name}: panoptic", message=message, hardware_id="none",
        values=[KeyValue(key=key, value=value) for key, value in values.items()],
    )  # fmt: skip
    array = DiagnosticArray(status=[status])
    array.header.stamp = stamp
    return array


def _summary(health: NodeHealth, report: FrameReport) -> tuple[bytes, str]:
    """Return the level and one line; the worst comes first."""
    since = report.since_last
    error, warn, ok = DiagnosticStatus.ERROR, DiagnosticStatus.WARN, DiagnosticStatus.OK
    cases = (
        (bool(health.building), warn, health.building),
        (bool(health.problem), error, health.problem),
        (since.failed > 0, error, f"{since.failed} frames failed with an unexpected error: see the node's log"),
        (since.refused > 0, warn, f"{since.refused} frames refused: see the node's log"),
        (since.lost > 0, warn, f"{since.lost} frames lost in transport: see the node's log"),
        (health.state != "active", ok, health.state),
        (not health.subscribed, ok, "waiting for a subscriber"),
        (not health.publishers, warn, "waiting for a camera: nobody publishes images"),
        (health.silence_s > SILENCE_S, warn, f"waiting for images: none arrived for {health.silence_s:.0f} s"),
        (True, ok, f"processing {report.rate_hz:.1f} frames per second"),
    )
    return next((level, message) for applies, level, message in cases if applies)
