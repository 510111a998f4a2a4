# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The whole frame as one graph, network included: what the pipeline does with a backend that can be captured.

The backend is a small one in Warp; Warp records and replays graphs on the CPU as on a GPU.
"""

from __future__ import annotations

import gc
import logging
import weakref
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import warp as wp
from dense_cases import CLASSES, DEVICE, THING_IDS, random_dense
from warp._src.apic.capture import APICapture

from rt_panoptic_ros.errors import InvalidInputError
from rt_panoptic_ros.inference import frame_graph
from rt_panoptic_ros.inference.base import Backend, CapturableBackend
from rt_panoptic_ros.model.bundle import ModelBundle
from rt_panoptic_ros.model.class_table import ClassTable, SemanticClass
from rt_panoptic_ros.panoptic import fusion, launching, postprocess, query_boxes, semantics
from rt_panoptic_ros.pipeline import PanopticPipeline
from rt_panoptic_ros.records import IMAGES, LABELS, CameraImage, DenseDetections, PanopticResult
from rt_panoptic_ros.settings import PostprocessSettings, settings_of

SIZE = (96, 160)
ALL = frozenset(IMAGES)


@wp.kernel
def brighten(
    image: wp.array3d(dtype=wp.uint8), outputs: wp.array3d(dtype=wp.float32), brightened: wp.array3d(dtype=wp.float32)
) -> None:
    c, y, x = wp.tid()
    brightened[c, y, x] = outputs[c, y, x] + 0.02 * wp.float32(image[y, x, c % 3])


class WarpBackend(CapturableBackend):
    """Adds the image to fixed outputs."""

    name, precision, device = "warp", "float32", DEVICE

    def __init__(self, network_size: tuple[int, int]) -> None:
        self.network_size = network_size
        self.enqueued = 0
        self.image = wp.zeros((*network_size, 3), dtype=wp.uint8, device=DEVICE)
        self._base = random_dense(4, network_size, reach_px=60.0)
        self._semantic = wp.zeros_like(self._base.semantic_logits)

    def enqueue(self) -> DenseDetections:
        self.enqueued += 1
        base = self._base
        wp.launch(
            brighten, self._semantic.shape, device=DEVICE, inputs=[self.image, base.semantic_logits],
            outputs=[self._semantic],
        )  # fmt: skip
        return DenseDetections(
            self._semantic, base.levelness_logits, base.box_class_logits, base.box_offsets, base.centerness_logits
        )

    def close(self) -> None:
        pass


class StageByStage(Backend):
    """The same backend as one that can't be captured."""

    name, precision, device = "warp", "float32", DEVICE

    def __init__(self, network_size: tuple[int, int]) -> None:
        self.network_size = network_size
        self._backend = WarpBackend(network_size)

    def infer(self, image: np.ndarray) -> DenseDetections:
        return self._backend.infer(image)

    def close(self) -> None:
        pass


@pytest.fixture
def seven_classes(small_bundle: ModelBundle) -> ModelBundle:
    """A bundle with the classes of `dense_cases`; its weights aren't looked at."""
    classes = tuple(SemanticClass(i, f"class {i}", i in THING_IDS, (i, i, i), i) for i in range(CLASSES))
    return replace(small_bundle, classes=ClassTable("seven", classes))


@pytest.fixture(autouse=True)
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """No bands, and nothing that the host reads in between."""

    class Selector(query_boxes.QueryBoxSelector):
        def __init__(self, dense: DenseDetections, *, capturable: bool | None) -> None:
            super().__init__(dense, capturable=capturable is not False)

    monkeypatch.setattr(launching, "MAX_BANDS", 1)
    monkeypatch.setattr(postprocess, "QueryBoxSelector", Selector)


def pipeline_of(backend: Backend, bundle: ModelBundle) -> PanopticPipeline:
    return PanopticPipeline(
        bundle,
        backend="auto",
        device="cpu",
        network_size=backend.network_size,
        settings=bundle.settings.replaced({"mask_threshold": 0.1, "score_threshold": 0.1}),
        backend_opener=lambda *_, **__: backend,
    )


def frames(count: int) -> list[CameraImage]:
    random = np.random.default_rng(1)
    return [CameraImage(random.integers(0, 256, (*SIZE, 3), np.uint8), "rgb") for _ in range(count)]


def assert_same(ours: PanopticResult, expected: PanopticResult) -> None:
    np.testing.assert_array_equal(ours.semantic, expected.semantic)
    np.testing.assert_array_equal(ours.instance, expected.instance)
    np.testing.assert_array_equal(ours.detections.scores, expected.detections.scores)


def test_frames_after_the_first_are_one_launch(seven_classes: ModelBundle) -> None:
    backend = WarpBackend(SIZE)
    captured, plain = pipeline_of(backend, seven_classes), pipeline_of(StageByStage(SIZE), seven_classes)
    seen = []
    for frame in frames(4):
        ours = captured(frame)
        assert_same(ours, plain(frame))
        seen.append((list(captured.timings_ms), ours.semantic))
    assert seen[0][0] == ["input", "network", "query_boxes", "masks", "fusion"]
    assert [stages for stages, _ in seen[1:]] == [["input", "graph"]] * 3
    assert not np.array_equal(seen[1][1], seen[2][1])
    assert backend.enqueued == 3  # to warm it, for the first frame, and captured


def test_other_settings_or_image_size_make_another_graph(seven_classes: ModelBundle) -> None:
    captured, plain = pipeline_of(WarpBackend(SIZE), seven_classes), pipeline_of(StageByStage(SIZE), seven_classes)
    first, second = frames(2)
    objects = []
    for threshold in (0.1, 0.5, 0.1):
        for pipeline in (captured, plain):
            pipeline.settings = pipeline.settings.replaced({"score_threshold": threshold})
        for frame in (first, second):
            ours = captured(frame)
            assert_same(ours, plain(frame))
            objects.append(len(ours.detections))
    assert objects[0] == objects[4] > objects[2]
    wide = CameraImage(np.ascontiguousarray(np.tile(first.pixels, (1, 2, 1))), "rgb")
    for _ in range(2):
        assert_same(captured(wide), plain(wide))
    assert list(captured.timings_ms) == ["input", "graph"]


def test_two_cameras_in_turn_keep_their_graphs(seven_classes: ModelBundle) -> None:
    backend = WarpBackend(SIZE)
    captured, plain = pipeline_of(backend, seven_classes), pipeline_of(StageByStage(SIZE), seven_classes)
    first, second = frames(2)
    wide = CameraImage(np.ascontiguousarray(np.tile(second.pixels, (1, 2, 1))), "rgb")
    for turn in range(4):
        for image, images in ((first, LABELS), (wide, LABELS), (second, ALL)):
            assert_same(captured(image, images=images), plain(image))
            assert ("graph" in captured.timings_ms) == (turn > 0)
    assert backend.enqueued == 1 + 2 * 3  # to warm it; then each first frame, and captured


def test_cameras_bytes_are_brought_to_the_input_by_the_graph(seven_classes: ModelBundle) -> None:
    backend = WarpBackend(SIZE)
    captured, plain = pipeline_of(backend, seven_classes), pipeline_of(StageByStage(SIZE), seven_classes)
    rgb, bgr = (frame.pixels for frame in frames(2))
    rows = np.zeros((SIZE[0], SIZE[1] + 7, 3), np.uint8)
    rows[:, : SIZE[1]] = bgr
    grey, alpha = np.ascontiguousarray(rgb[..., 0]), np.dstack([rgb, bgr[..., 0]])
    small = np.ascontiguousarray(bgr[:50, :70])
    for image, in_graph in (
        (CameraImage(rgb, "rgb"), False), (CameraImage(rows[:, : SIZE[1]], "bgr"), True),
        (CameraImage(grey, "mono"), False), (CameraImage(grey, "mono"), True),
        (CameraImage(alpha, "bgra"), False), (CameraImage(alpha, "rgba"), True),
        (CameraImage(small, "bgr"), False), (CameraImage(small, "bgr"), True),
    ):  # fmt: skip
        ours, expected = captured(image), plain(image)
        assert ("graph" in captured.timings_ms) == in_graph
        assert len(ours.detections) > 0
        assert_same(ours, expected)


def test_where_capture_fails_frames_go_stage_by_stage(
    seven_classes: ModelBundle, caplog: pytest.LogCaptureFixture
) -> None:
    backend = WarpBackend(SIZE)
    captured, plain = pipeline_of(backend, seven_classes), pipeline_of(StageByStage(SIZE), seven_classes)
    launch = backend.enqueue

    def enqueue() -> DenseDetections:
        if wp.get_device(DEVICE).is_capturing:
            raise RuntimeError("operation not permitted when stream is capturing")
        return launch()

    backend.enqueue = enqueue  # type: ignore[method-assign]
    with caplog.at_level(logging.WARNING):
        for frame in frames(3):
            assert_same(captured(frame), plain(frame))
            assert "network" in captured.timings_ms
    messages = [record.message for record in caplog.records if "captured as a graph" in record.message]
    assert len(messages) == 1
    assert "not permitted" in messages[0]


@pytest.mark.parametrize("images", [frozenset(), {"semantic"}, {"instance"}, {"confidence"}, LABELS])
def test_images_come_only_when_asked_for(seven_classes: ModelBundle, images: frozenset[str]) -> None:
    captured, plain = pipeline_of(WarpBackend(SIZE), seven_classes), pipeline_of(StageByStage(SIZE), seven_classes)
    for frame in frames(3):
        ours, expected = captured(frame, images=frozenset(images)), plain(frame, images=ALL)
        for name in IMAGES:
            ours_image, expected_image = getattr(ours, name), getattr(expected, name)
            if name in images:
                np.testing.assert_array_equal(ours_image, expected_image)
            elif name == "confidence":
                assert ours_image is None
            else:
                assert (ours_image.shape, ours_image.dtype) == ((0, 0), expected_image.dtype)
        np.testing.assert_array_equal(ours.detections.areas, expected.detections.areas)
    assert list(captured.timings_ms) == ["input", "graph"]
    with pytest.raises(InvalidInputError, match="expected images among semantic, instance, confidence, got depth"):
        captured(frames(1)[0], images=frozenset({"depth"}))


class Capture(wp.ScopedCapture):
    """Warp's capture, whose graph then holds no more than addresses, as on a GPU: on the CPU it keeps arrays alive."""

    touched: tuple[weakref.ref[object], ...] = ()
    """All memory that the last graph reads or writes: arrays, and those that structs in them refer to."""

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self.graph._apic_capture._regions.clear()

    @classmethod
    def note(cls, value: object) -> None:
        if isinstance(value, wp.array):
            cls.touched += (weakref.ref(value),)
            cls.note(value._ref)  # what a view looks into
            cls.note(getattr(value, "memory", None))
            for struct in getattr(value, "structs", ()):
                for field in struct.values():
                    cls.note(field)


@pytest.fixture
def graphs_hold_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    track, enter = APICapture.track_array, Capture.__enter__

    def note_and_track(self: APICapture, array: wp.array | None) -> object:
        Capture.note(array)
        return track(self, array)

    def begin(self: Capture) -> object:
        Capture.touched = ()
        return enter(self)

    class Downloaded(launching.Packed):
        """Copied, as from a GPU."""

        def __init__(self, *kinds: Any) -> None:
            super().__init__(*kinds)
            self.come_to(wp.empty_like(self._buffer))

    monkeypatch.setattr(APICapture, "track_array", note_and_track)
    monkeypatch.setattr(Capture, "__enter__", begin)
    monkeypatch.setattr(frame_graph.wp, "ScopedCapture", Capture)
    for module in (fusion, semantics):
        monkeypatch.setattr(module, "Packed", Downloaded)
    monkeypatch.setattr(wp, "get_stream", wp.get_device)  # the CPU has none


OTHER_VALUES: dict[str, object] = {
    "pre_nms_threshold": 0.2, "pre_nms_top_k": 1500, "nms_threshold": 0.4, "global_nms_threshold": 0.7,
    "max_detections": 20, "similarity": "iou", "mask_threshold": 0.4, "score_threshold": 0.4,
    "overlap_threshold": 0.2, "stuff_area_min": 50,
}  # fmt: skip


def still_there(arrays: tuple[weakref.ref[object], ...]) -> bool:
    gc.collect()
    return all(array() is not None for array in arrays)


@pytest.mark.skipif(DEVICE != "cpu", reason="Warp tells what a graph holds on the CPU only")
@pytest.mark.parametrize("name", [info.name for info in settings_of(PostprocessSettings)])
def test_what_a_graph_reads_lives_as_long_as_it(
    seven_classes: ModelBundle, graphs_hold_addresses: None, name: str
) -> None:
    pipeline = pipeline_of(WarpBackend(SIZE), seven_classes)
    first = pipeline.settings = pipeline.settings.replaced({"pre_nms_top_k": 50})
    image, other = frames(2)
    wide = CameraImage(np.ascontiguousarray(np.tile(other.pixels, (1, 2, 1))), "rgb")
    expected = pipeline(image)
    arrays = Capture.touched
    assert len(arrays) > 30
    pipeline.settings = first.replaced({name: OTHER_VALUES[name]})
    assert pipeline.settings != first
    for frame, images in ((image, ALL), (wide, ALL), (other, LABELS)):
        before = Capture.touched
        pipeline(frame, images=images)
        assert Capture.touched is not before
        assert still_there(before)
    assert still_there(arrays)
    pipeline.settings = first
    assert_same(pipeline(image), expected)
    assert list(pipeline.timings_ms) == ["input", "graph"]


@pytest.mark.skipif(DEVICE != "cpu", reason="Warp tells what a graph holds on the CPU only")
def test_what_no_graph_reads_any_more_is_freed(seven_classes: ModelBundle, graphs_hold_addresses: None) -> None:
    pipeline = pipeline_of(WarpBackend(SIZE), seven_classes)
    image = frames(1)[0]
    pipeline(image)
    arrays, kept = Capture.touched, frame_graph._KEPT
    for turn in range(1, kept + 1):
        assert still_there(arrays)
        pipeline(image, settings=pipeline.settings.replaced({"mask_threshold": 0.1 + 0.01 * turn}))
    assert not still_there(arrays)


def test_graphs_that_are_launched_stay(seven_classes: ModelBundle) -> None:
    pipeline = pipeline_of(WarpBackend(SIZE), seven_classes)
    image = frames(1)[0]
    for turn in range(2 * frame_graph._KEPT):
        pipeline(image)
        assert ("graph" in pipeline.timings_ms) == (turn > 0)
        pipeline(image, settings=pipeline.settings.replaced({"mask_threshold": 0.2 + 0.01 * turn}))


def test_the_first_real_frame_is_one_launch(seven_classes: ModelBundle, monkeypatch: pytest.MonkeyPatch) -> None:
    launched: list[wp.Graph] = []
    launch = wp.capture_launch
    monkeypatch.setattr(wp, "capture_launch", lambda graph: launched.append(graph) or launch(graph))
    captured, plain = pipeline_of(WarpBackend(SIZE), seven_classes), pipeline_of(StageByStage(SIZE), seven_classes)
    captured.prepare(SIZE)
    warmed = set(launched)  # a graph's first launch instantiates it
    frame = frames(1)[0]
    for images in (LABELS, ALL):
        assert_same(captured(frame, images=images), plain(frame))
        assert list(captured.timings_ms) == ["input", "graph"]
        assert launched[-1] in warmed


def test_capturing_changes_nothing_of_the_frame_before(seven_classes: ModelBundle) -> None:
    captured, plain = pipeline_of(WarpBackend(SIZE), seven_classes), pipeline_of(StageByStage(SIZE), seven_classes)
    for pipeline in (captured, plain):
        pipeline(frames(1)[0])
    expected = plain.dense_arrays()
    for name, array in captured.dense_arrays().items():
        np.testing.assert_array_equal(array, expected[name])
