# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""How the time of post-processing grows with objects and image size: `python -m scripts.sweep PNG`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from rt_panoptic_ros.files import output_path
from scripts.comparisons import bench_postprocess

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes

    from rt_panoptic_ros.benchmark.measure import Comparison

SIZES = ((256, 512), (512, 1024), (1024, 2048))
OBJECTS = (1, 3, 10, 30, 100)


def sweep_postprocess(
    plot: Path,
    device: str,
    *,
    seconds: float,
    sizes: Sequence[tuple[int, int]] = SIZES,
    objects: Sequence[int] = OBJECTS,
) -> None:
    """Measure every size with every number of objects, print a row for each, and draw `plot`, a PNG.

    Args:
        plot: File to write.
        device: auto, cpu or cuda.
        seconds: About how long to measure each.
        sizes: (height, width) px.
        objects: Numbers of them.
    """
    results: dict[tuple[tuple[int, int], int], Comparison] = {}
    print(f"{'size':>10} {'objects':>7} {'ours, ms':>9} {'reference, ms':>13} {'ratio':>6}")
    for size in sizes:
        for number in objects:
            result = results[size, number] = bench_postprocess(size, number, device, seconds=seconds)
            times = f"{result.median_ms:9.1f} {result.reference_median_ms:13.0f} {result.ratio:6.1f}"
            print(f"{f'{size[0]}x{size[1]}':>10} {number:7d} {times}", flush=True)
    _draw(plot, results, sizes, objects)


def _draw(
    plot: Path,
    results: Mapping[tuple[tuple[int, int], int], Comparison],
    sizes: Sequence[tuple[int, int]],
    objects: Sequence[int],
) -> None:
    figure = Figure(figsize=(12, 4), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    over_objects, over_size = figure.subplots(1, 2)

    def curve(panel: Axes, x: list[float], points: list[Comparison], color: str, label: str) -> None:
        ours = [point.median_ms for point in points]
        reference = [point.reference_median_ms for point in points]
        panel.loglog(x, ours, marker="o", color=color, label=f"ours, {label}")
        panel.loglog(x, reference, marker="s", linestyle="--", color=color, label=f"reference, {label}")

    for index, size in enumerate(sizes):
        points = [results[size, number] for number in objects]
        curve(over_objects, list(map(float, objects)), points, f"C{index}", f"{size[0]}x{size[1]}")
    megapixels = [height * width / 1e6 for height, width in sizes]
    for index, number in enumerate((objects[0], objects[-1])):
        points = [results[size, number] for size in sizes]
        curve(over_size, megapixels, points, f"C{index}", f"{number} object{'s' if number > 1 else ''}")
    over_objects.set(title="Post-processing over objects", xlabel="objects", ylabel="ms")
    over_size.set(title="Post-processing over image size", xlabel="megapixels", ylabel="ms")
    for panel, ticks in ((over_objects, objects), (over_size, megapixels)):
        panel.set_xticks(ticks, [f"{tick:.3g}" for tick in ticks])
        panel.minorticks_off()
        panel.grid(alpha=0.3)
        panel.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1.0, 1.0))
    with output_path(plot) as temporary:
        canvas.print_figure(temporary, dpi=80, format="png")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m scripts.sweep", description=__doc__)
    parser.add_argument("plot", type=Path, help="PNG to write")
    parser.add_argument("--device", default="auto", help="auto (default), cpu or cuda")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each measurement (default: %(default)s)")
    options = parser.parse_args()
    sweep_postprocess(options.plot, options.device, seconds=options.seconds)
