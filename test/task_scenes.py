# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Made-up scenes through all kernels in all orders: the same bits. Run with the variables of `task_orders.environment`.

At the end, two kernels race: they must be among what ThreadSanitizer reports, and alone there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields

import numpy as np
import task_orders
import warp as wp
from dense_cases import CLASSES, THING_IDS, random_dense, same_geometry
from task_orders import ORDERS, THREADS, choose_order, threads_of_blocks

from rt_panoptic_ros.benchmark.scenes import street_scene
from rt_panoptic_ros.panoptic import launching
from rt_panoptic_ros.panoptic.postprocess import Postprocessor
from rt_panoptic_ros.records import IMAGES, DenseDetections
from rt_panoptic_ros.settings import PostprocessSettings

SIZE = (64, 128)


def street() -> DenseDetections:
    return street_scene(SIZE, 30, classes=CLASSES, thing_ids=THING_IDS, device="cpu")


def crowd() -> DenseDetections:
    return random_dense(3, SIZE, levelness=False, reach_px=60.0)


SCENES: tuple[tuple[Callable[[], DenseDetections], dict[str, object], bool], ...] = (
    (street, {"stuff_area_min": 500}, True),
    (street, {"pre_nms_top_k": 20, "similarity": "giou", "overlap_threshold": 0.0}, True),
    (street, {"pre_nms_top_k": 20}, False),
    (crowd, {"pre_nms_threshold": 0.01, "pre_nms_top_k": 20, "nms_threshold": 1.0, "global_nms_threshold": 0.9,
             "overlap_threshold": 0.1, "mask_threshold": 0.1}, True),  # where most are dropped
)  # fmt: skip
"""(the network's outputs, settings, whether query boxes are selected as in a graph)"""


def results(outputs: DenseDetections, changes: dict[str, object], *, capturable: bool) -> list[np.ndarray]:
    """Return all that a frame gives."""
    settings = PostprocessSettings().replaced({"score_threshold": 0.05, **changes})
    postprocessor = Postprocessor(outputs, THING_IDS, same_geometry(SIZE), capturable=capturable)
    postprocessor.launch(outputs, settings, images=frozenset(IMAGES))
    result = postprocessor.result(images=frozenset(IMAGES))
    queries, masks = postprocessor.masks(outputs, settings)
    boxes = [getattr(queries, name).numpy()[: len(masks)].copy() for name in ("boxes", "scores", "labels")]
    assert len(masks) > 10
    table = [getattr(result.detections, info.name) for info in fields(result.detections)]
    return [result.semantic, result.instance, result.confidence, *table, *boxes, masks]


def differences() -> Iterator[str]:
    """Compare every order with the plain one."""
    for make, changes, capturable in SCENES:
        outputs = make()
        expected: list[np.ndarray] = []
        for order in ORDERS:
            launching.CPU_BLOCK_THREADS = threads_of_blocks(order)
            choose_order(order)
            found = results(outputs, changes, capturable=capturable)
            expected = expected or found
            if not all(map(np.array_equal, found, expected)):
                yield f"{order}: {make.__name__}, {changes}"


@wp.func_native("RT_PANOPTIC_SYNC_BLOCK;")
def _sync() -> None: ...


@wp.kernel(module="unique")  # whose name is in the report then
def racing_count(total: wp.array(dtype=wp.int32)) -> None:
    """Lose what two threads add at once."""
    wp.tid()
    total[0] = total[0] + 1


@wp.kernel
def synchronized_block(values: wp.array(dtype=wp.int32)) -> None:
    """Read what another thread of the block wrote before the barrier."""
    _block, thread = wp.tid()
    values[thread] = thread
    _sync()
    values[THREADS + thread] = values[(thread + 1) % THREADS]


@wp.kernel(module="unique")  # whose name is in the report then
def racing_block(values: wp.array(dtype=wp.int32)) -> None:
    """Do without the barrier."""
    _block, thread = wp.tid()
    values[thread] = thread
    values[THREADS + thread] = values[(thread + 1) % THREADS]


def main() -> None:
    """Run all."""
    task_orders.install()
    launching.MAX_BANDS = 1
    different = list(differences())
    choose_order("threads")
    # Arrays of their own, as no more than one race is reported at an address.
    values = [wp.zeros(2 * THREADS, dtype=wp.int32, device="cpu") for _ in range(3)]
    wp.launch(synchronized_block, (1, THREADS), [values[0]], device="cpu")
    wp.launch(racing_block, (1, THREADS), [values[1]], device="cpu")
    wp.launch(racing_count, 1000, [values[2]], device="cpu")
    if different:
        raise SystemExit("other results than in the plain order:\n" + "\n".join(different))


if __name__ == "__main__":
    main()
