# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Draws a soak: its figures over time, with the calm points and the lines through them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rt_panoptic_ros.files import output_path

if TYPE_CHECKING:
    from pathlib import Path

    from rt_panoptic_ros.ros.soak.record import Record

_PANELS = (
    ("labelled frames a second", ("answered",), False),
    ("latency, ms", ("p50_ms", "p99_ms"), True),
    ("resident memory, MB", ("resident_mb",), False),
    ("pieces of Python's memory", ("python_blocks",), False),
    ("threads, handles, segments", ("threads", "handles", "segments"), False),
)
"""(what the axis says, samples' fields, whether it is logarithmic)"""


def draw_soak(record: Record, path: Path) -> None:
    """Write a PNG with a panel for each kind of figure.

    Raises:
        UnavailableError: The file can't be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 11), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    trends, points = record.trends(), record.calm_points()
    minutes = [sample.time_s / 60 for sample in record.samples]
    calm_minutes = [point.time_s / 60 for point in points]
    for panel, (title, names, is_log) in zip(figure.subplots(len(_PANELS), 1, sharex=True), _PANELS, strict=True):
        for number, name in enumerate(names):
            values = [getattr(sample, name) for sample in record.samples]
            panel.plot(minutes, values, linewidth=0.6, color=f"C{number}", alpha=0.6, label=name)
            if name in trends:
                trend = trends[name]
                line = [trend.at_begin + trend.per_hour * (m - calm_minutes[0]) / 60 for m in calm_minutes]
                words = f"in calm: {trend.per_hour:+.2f} ± {trend.margin:.2f} an hour"
                panel.plot(calm_minutes, [getattr(point, name) for point in points], ".", color=f"C{number}")
                panel.plot(calm_minutes, line, "--", color="black", linewidth=1, label=words)
        panel.set(ylabel=title, yscale="log" if is_log else "linear")
        panel.grid(alpha=0.3)
        panel.legend(fontsize="x-small", loc="upper right")
    panel.set_xlabel("minutes")
    with output_path(path) as temporary:
        canvas.print_figure(temporary, dpi=80, format="png")
