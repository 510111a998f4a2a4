# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""What the node tells about its health on /diagnostics, after the conventions of diagnostic_updater.

One status for the node, NODE: panoptic, and one for each camera, NODE: camera or NODE: camera NAME. The node's level
and message are the worst of all. A warning is an error once it has kept all results away for `Periods.lasting_s`.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from rt_panoptic_ros.ros.node.frame_statistics import (
    DEPTH_OUTCOMES,
    FUTURE_MS,
    LATE_SHARE,
    OUTCOMES,
    UNLOCATED,
    Latencies,
)
from rt_panoptic_ros.ros.node.node_settings import Periods

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from builtin_interfaces.msg import Time

    from rt_panoptic_ros.ros.node.frame_statistics import FrameCounts, FrameReport, Percentiles

OUTPUT_TOPIC = " topic"
"""What follows an output's name in the key whose value is its topic."""

INPUT_PUBLISHERS = " publishers"
"""What follows an input's name in the key whose value says how many publish it; that of its topic ends in ` input`."""

_OK, _WARN, _ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR
_SEE_LOG = "see the node's log"
_CALM = 3  # reports without new trouble after which a warning or error ends
_LATE_ENDS, _LATE_REPORTS = 0.2, 3  # share of late frames again, in so many reports one after the other
_NO_STAMP_MS = 1e12  # some 30 years: the stamp, or else the node's time, is zero, or counts from the robot's start
_LEASE_S = 30.0  # after which every middleware has forgotten a node that was killed (Fast DDS after 20 s)


@dataclass(frozen=True)
class Finding:
    """A level and one line."""

    level: bytes
    message: str


class Trouble:
    """A kind of trouble that is told from its first report until some reports have been free of it."""

    def __init__(self, level: bytes, words: str) -> None:
        """Begin without; `words` have a place for the number of new cases, and a reason follows them."""
        self._level, self._words = level, words
        self._number = 0
        self._calm = _CALM

    def judge(self, number: int, cause: str = "") -> Finding | None:
        """Return what is to be told now, given the number of new cases and their cause; called for every report."""
        self._number = number or self._number
        self._calm = 0 if number else self._calm + 1
        words = f"{self._words.format(self._number)}: {cause or _SEE_LOG}"
        return Finding(self._level, words) if self._calm < _CALM else None


@dataclass
class NodeHealth:
    """The node's state beside its frames, as its threads know it; `judge` is for the one that reports."""

    model: str = "none loaded"  # and the backend that computes it, in words
    active: bool = False  # whether frames are taken
    enabled: bool = True  # by the service ~/enable
    busy_with: str = ""  # what is loaded, built or waited for, empty when nothing is
    fallback: str = ""  # why it runs on the CPU where a GPU was to be preferred, empty if none was
    problem: str = ""  # why the node cannot do its work, empty if it can
    stuck: str = ""  # in which work on a frame, and for how long by now; empty as long as that is no trouble
    fatal: str = ""  # why only a new process can do the work, empty if this one can
    callback_errors: int = 0  # since the node was started
    callback_error: str = ""  # the last one
    shared_name_s: float = 0.0  # for how long another node has had this one's name, 0 if none has
    stages: Latencies = field(default_factory=Latencies)  # of the work on a frame
    _told_errors: int = 0
    _alone_s: float = field(default_factory=time.monotonic)  # when no other node had the name, the last time
    _failing: Trouble = field(default_factory=lambda: Trouble(_ERROR, "{} callbacks failed with an unexpected error"))

    def note_name(self, now_s: float, *, shared: bool) -> None:
        """Keep for how long another node has had this one's name."""
        self._alone_s = self._alone_s if shared else now_s
        self.shared_name_s = now_s - self._alone_s

    def judge(self, state: str, cameras: Sequence[tuple[CameraHealth, Finding]], rate_hz: float) -> Finding:
        """Return the worst that is to be told now, its own before the cameras'; called once for every report.

        Args:
            state: Of the lifecycle, such as active.
            cameras: Each with what is to be told of it.
            rate_hz: Frames that were processed, of all cameras.
        """
        new_errors, self._told_errors = self.callback_errors - self._told_errors, self.callback_errors
        failing = self._failing.judge(new_errors, self.callback_error)
        camera, worst = max(cameras, key=lambda judged: judged[1].level, default=(None, Finding(_OK, state)))
        named = f"{camera.name}: " if camera and camera.name else ""
        cases = (
            (bool(self.fatal), _ERROR, self.fatal),
            (bool(self.stuck), _ERROR, self.stuck),
            (bool(self.busy_with), _WARN, self.busy_with),
            (bool(self.problem), _ERROR, self.problem),
            *([(True, failing.level, failing.message)] if failing else []),
            (
                self.shared_name_s > 0 and worst.level != _ERROR, _ERROR if self.shared_name_s > _LEASE_S else _WARN,
                "another node has this one's name, so that either gets what is meant for one, or one was killed less "
                f"than {_LEASE_S:.0f} s ago: give each a name of its own (-r __node:=NAME)",
            ),
            (state == "finalized", _OK, "finalized: it works again when its process is started anew"),
            (worst.level != _OK, worst.level, f"{named}{worst.message}"),
            (state != "active", _OK, state),
            (not self.enabled, _OK, "disabled by the service ~/enable"),
            (bool(self.fallback), _WARN, self.fallback),
            (len(cameras) == 1, _OK, worst.message),
            (True, _OK, f"processing {rate_hz:.1f} frames per second of {len(cameras)} cameras"),
        )  # fmt: skip
        return next(Finding(level, words) for applies, level, words in cases if applies)


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
    inputs: Mapping[str, tuple[str, int]] = field(
        default_factory=dict
    )  # {depth, camera_info: topic, publishers} wanted


class CameraWatch:
    """Judges one camera's reports, with hysteresis, so that a level doesn't flicker."""

    def __init__(self, periods: Periods | None = None) -> None:
        """Begin without trouble; the periods say what is silence, and what lasts."""
        self._periods = periods or Periods()
        self._troubles = {
            "failed": Trouble(_ERROR, "{} frames failed with an unexpected error"),
            "undefined": Trouble(_ERROR, "{} frames labelled in parts only"),
            "refused": Trouble(_WARN, "{} frames refused"),
            "lost": Trouble(_WARN, "{} frames lost in transport"),
            **{outcome: Trouble(_WARN, f"{{}} frames {outcome}") for outcome in DEPTH_OUTCOMES if outcome != "located"},
        }
        self._fruitless_s = 0.0  # without a frame that was processed
        self._late = False
        self._turning = 0  # reports that speak for the other state

    def judge(self, camera: CameraHealth, *, active: bool) -> Finding:
        """Return the worst that is to be told now; called once for every report."""
        is_working = not active or not camera.subscribed or bool(camera.report.since_last["processed"])
        self._fruitless_s = 0.0 if is_working else self._fruitless_s + camera.report.elapsed_s
        found = self._judge(camera, active=active)
        is_lasting = found.level == _WARN and self._fruitless_s > self._periods.lasting_s
        return Finding(_ERROR, found.message) if is_lasting else found

    def _judge(self, camera: CameraHealth, *, active: bool) -> Finding:
        report = camera.report
        troubles = [
            trouble.judge(report.since_last[outcome], report.causes.get(outcome, ""))
            for outcome, trouble in self._troubles.items()
        ]
        late = self._judge_lateness(report.since_last)
        age_ms = report.latencies_ms.get("age at arrival", (0.0, 0.0))[0]
        cases = (
            (not active, _OK, "not active"),
            (not camera.subscribed, _OK, "waiting for a subscriber"),
            (bool(camera.obstacle), _WARN, camera.obstacle),
            (not camera.publishers, _WARN, f"waiting for a camera: nobody publishes images on {camera.topic}"),
            (
                camera.silence_s > self._periods.silence_s, _WARN,
                f"waiting for images: none arrived for {camera.silence_s:.0f} s",
            ),
            (
                age_ms > _NO_STAMP_MS, _WARN,
                "the images' stamps are no time of day: have the camera's driver set them",
            ),
            (
                age_ms < -_NO_STAMP_MS, _WARN,
                "the images' stamps are decades ahead of the node's clock: with use_sim_time, have /clock published",
            ),
            (
                age_ms < FUTURE_MS, _WARN,
                f"the images' stamps are {-age_ms / 1e3:.2f} s in the future: synchronise the machines' clocks",
            ),
            (
                late, _WARN,
                f"most frames are labelled later than the camera's period of {report.period_ms or 0:.0f} ms, so newer "
                "ones replace others: lower its rate, or take a faster model, precision or machine",
            ),
            (True, _OK, f"processing {report.rate_hz:.1f} frames per second"),
        )  # fmt: skip
        found = [trouble for trouble in troubles if trouble is not None]
        return found[0] if found else next(Finding(level, words) for applies, level, words in cases if applies)

    def _judge_lateness(self, since: FrameCounts) -> bool:
        if since["processed"]:
            share = since["late"] / since["processed"]
            against = share < _LATE_ENDS if self._late else share > LATE_SHARE
            self._turning = self._turning + 1 if against else 0
            if self._turning == _LATE_REPORTS:
                self._late, self._turning = not self._late, 0
        return self._late


def diagnostic_array(
    name: str, state: str, stamp: Time, health: NodeHealth, cameras: Sequence[tuple[CameraHealth, Finding]]
) -> DiagnosticArray:
    """Return the message for one period.

    Args:
        name: The node's.
        state: Of its lifecycle, such as active.
        stamp: Now.
        health: The node's.
        cameras: Each with what is to be told of it.
    """
    totals: FrameCounts = Counter()
    for camera, _ in cameras:
        totals.update(camera.report.counts)
    rate_hz = sum(camera.report.rate_hz for camera, _ in cameras)
    node = _status(
        f"{name}: panoptic",
        health.judge(state, cameras, rate_hz),
        {
            "state": state,
            "enabled": str(health.enabled),
            "engine": health.model,  # the key by which users' dashboards know it
            "fallback": health.fallback,
            "cameras": str(len(cameras)),
            "callbacks failed": str(health.callback_errors),
            "Python blocks": str(sys.getallocatedblocks()),  # pieces of memory in use: what leaks, grows for ever
            "rate (Hz)": f"{rate_hz:.2f}",
            **_frames_and_times(totals, health.stages.percentiles()),
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
            **{f"{name} input": topic for name, (topic, _) in camera.inputs.items()},
            **{f"{name}{INPUT_PUBLISHERS}": str(number) for name, (_, number) in camera.inputs.items()},
            "silence (s)": f"{camera.silence_s:.2f}",
            "input rate (Hz)": f"{report.input_hz:.2f}",
            "period (ms)": "unknown" if report.period_ms is None else f"{report.period_ms:.2f}",
            "rate (Hz)": f"{report.rate_hz:.2f}",
            **_frames_and_times(report.counts, report.latencies_ms),
        },
    )


def _frames_and_times(counts: FrameCounts, times_ms: Percentiles) -> dict[str, str]:
    values = {f"frames {outcome}": str(counts[outcome]) for outcome in OUTCOMES}
    if any(counts[outcome] for outcome in DEPTH_OUTCOMES):
        values |= {f"frames {outcome}": str(counts[outcome]) for outcome in DEPTH_OUTCOMES}
        values[UNLOCATED] = str(counts[UNLOCATED])
    for stage, percentiles in times_ms.items():
        values |= {f"{stage} {p} (ms)": f"{ms:.2f}" for p, ms in zip(("p50", "p95"), percentiles, strict=True)}
    return values


def _status(name: str, finding: Finding, values: Mapping[str, str]) -> DiagnosticStatus:
    return DiagnosticStatus(
        level=finding.level, name=name, message=finding.message, hardware_id="none",
        values=[KeyValue(key=key, value=value) for key, value in values.items()],
    )  # fmt: skip
