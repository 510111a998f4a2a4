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
            color, trend = f"C{number}", trends.get(name)
            words = f"{name}, in calm {trend}" if trend else name
            panel.plot(minutes, [getattr(sample, name) for sample in record.samples], lw=0.6, color=color, label=words)
            if trend:
                line = [trend.at_begin + trend.per_hour * (m - calm_minutes[0]) / 60 for m in calm_minutes]
                panel.plot(calm_minutes, [getattr(point, name) for point in points], ".", color=color)
                panel.plot(calm_minutes, line, "--", color="black", linewidth=1)
        if not is_log:  # without the start, beside which all else would be flat
            late = [getattr(sample, name) for name in names for sample in record.samples[len(record.samples) // 10 :]]
            panel.set_ylim(0.99 * min(late, default=0) - 1, 1.01 * max(late, default=1) + 1)
        panel.set(ylabel=title, yscale="log" if is_log else "linear")
        panel.grid(alpha=0.3)
        panel.legend(fontsize="x-small", loc="lower right", ncols=len(names))
    panel.set_xlabel("minutes")
    with output_path(path) as temporary:
        canvas.print_figure(temporary, dpi=80, format="png")
