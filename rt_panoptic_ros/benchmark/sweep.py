"""`rt-panoptic bench postprocess --plot`: how its time grows with objects and image size, beside the twin's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rt_panoptic_ros.benchmark.comparisons import bench_postprocess
from rt_panoptic_ros.files import output_path

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from matplotlib.axes import Axes

    from rt_panoptic_ros.benchmark.measure import Comparison

_SIZES = ((256, 512), (512, 1024), (1024, 2048))
_OBJECTS = (1, 3, 10, 30, 100)


def sweep_postprocess(plot: Path, device: str, *, seconds: float) -> None:
    """Measure every size with every number of objects, print a row for each, and draw `plot`, a PNG.

    Args:
        plot: File to write.
        device: auto, cpu or cuda.
        seconds: About how long to measure each.
    """
    results: dict[tuple[tuple[int, int], int], Comparison] = {}
    print(f"{'size':>10} {'objects':>7} {'ours, ms':>9} {'twin, ms':>9} {'ratio':>6}")
    for size in _SIZES:
        for objects in _OBJECTS:
            result = results[size, objects] = bench_postprocess(size, objects, device, seconds=seconds)
            times = f"{result.median_ms:9.1f} {result.twin_median_ms:9.0f} {result.ratio:6.1f}"
            print(f"{f'{size[0]}x{size[1]}':>10} {objects:7d} {times}", flush=True)
    _draw(plot, results)


def _draw(plot: Path, results: Mapping[tuple[tuple[int, int], int], Comparison]) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 4), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    over_objects, over_size = figure.subplots(1, 2)

    def curve(panel: Axes, x: list[float], points: list[Comparison], color: str, label: str) -> None:
        ours, twin = [point.median_ms for point in points], [point.twin_median_ms for point in points]
        panel.loglog(x, ours, marker="o", color=color, label=f"ours, {label}")
        panel.loglog(x, twin, marker="s", linestyle="--", color=color, label=f"twin, {label}")

    for index, size in enumerate(_SIZES):
        points = [results[size, objects] for objects in _OBJECTS]
        curve(over_objects, list(map(float, _OBJECTS)), points, f"C{index}", f"{size[0]}x{size[1]}")
    megapixels = [height * width / 1e6 for height, width in _SIZES]
    for index, objects in enumerate((_OBJECTS[0], _OBJECTS[-1])):
        points = [results[size, objects] for size in _SIZES]
        curve(over_size, megapixels, points, f"C{index}", f"{objects} object{'s' if objects > 1 else ''}")
    over_objects.set(title="Post-processing over objects", xlabel="objects", ylabel="ms")
    over_size.set(title="Post-processing over image size", xlabel="megapixels", ylabel="ms")
    for panel, ticks in ((over_objects, _OBJECTS), (over_size, megapixels)):
        panel.set_xticks(ticks, [f"{tick:.3g}" for tick in ticks])
        panel.minorticks_off()
        panel.grid(alpha=0.3)
        panel.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1.0, 1.0))
    with output_path(plot) as temporary:
        canvas.print_figure(temporary, dpi=80, format="png")
