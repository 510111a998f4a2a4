# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Faults of the backend and of the thread that owns it, in a node with a real model."""

from __future__ import annotations

import faulthandler
import threading

import numpy as np
import pytest
import warp as wp
from diagnostic_msgs.msg import DiagnosticStatus
from fake_tensorrt import FakeEngine, take_tensorrts_place
from node_cases import TIMEOUT_S, Camera, Labelling, activated, counts, picture
from rclpy.parameter import Parameter

from rt_panoptic_ros.records import VOID
from rt_panoptic_ros.ros.node.node_settings import Periods
from rt_panoptic_ros.ros.node.panoptic_node import PanopticNode
from rt_panoptic_ros.ros.node.watchdog import RESTART


@pytest.fixture
def backend(labelling, monkeypatch):
    """Let a test say what the backend does with an image: `backend(what)`, which is given the real `infer`."""
    (network,) = labelling.node._model.pipeline._networks.values()
    infer = network.backend.infer
    yield lambda what: monkeypatch.setattr(network.backend, "infer", lambda image: what(infer, image))
    monkeypatch.undo()
    # A failure is told of for some reports, instead of what is less than it: the next test's.
    labelling.send_until(lambda: picture(9), lambda status: status.level != DiagnosticStatus.ERROR)


def errors():
    """Return what the backends' libraries really raise, made by them where they are installed."""
    onnx = pytest.importorskip("onnxruntime.capi.onnxruntime_pybind11_state")
    return {
        "ONNX Runtime": onnx.RuntimeException("[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Non-zero status code"),
        "OpenVINO": RuntimeError("Exception from src/inference/src/cpp/infer_request.cpp:223"),
        "TensorRT": RuntimeError("expected TensorRT to enqueue the network, it failed"),
        "a bug": ZeroDivisionError("division by zero"),
    }


def failing(status, words):
    return status.level == DiagnosticStatus.ERROR and words in status.message


@pytest.mark.fault(
    "backend throws once (each backend's own error)", "that frame fails, ERROR with its cause; the next is labelled"
)
@pytest.mark.parametrize("whose", ["ONNX Runtime", "OpenVINO", "TensorRT", "a bug"])
def test_a_backend_that_throws_once(labelling, backend, recovery, whose):
    error, before = errors()[whose], counts(labelling.node).failed

    def throw_once(infer, image):
        backend(lambda infer, image: infer(image))
        raise error

    backend(throw_once)
    labelling.camera.reports.clear()
    labelling.camera.send(picture(2))
    labelling.graph.spin_until(lambda: counts(labelling.node).failed > before, "for the frame to fail")
    with recovery("result"):
        labelling.label(picture(3))
    cause = f"failed with an unexpected error: {type(error).__name__}"
    labelling.camera.await_report(lambda status: failing(status, cause), past=True)


@pytest.mark.fault("backend throws always", "ERROR with the cause as long as it does; labels as soon as it doesn't")
def test_a_backend_that_throws_always(labelling, backend, recovery):
    def throw(infer, image):
        raise RuntimeError("the accelerator's firmware is gone")

    backend(throw)
    with recovery("ERROR"):
        labelling.camera.send(picture(2))
        labelling.camera.await_report(
            lambda status: failing(status, "RuntimeError: the accelerator's firmware is gone")
        )
    for number in range(3, 8):
        labelling.camera.send(picture(number))
    backend(lambda infer, image: infer(image))
    with recovery("result"):
        labelling.label(picture(8))
    labelling.camera.await_report(lambda status: status.level != DiagnosticStatus.ERROR)


@pytest.mark.fault("a library ends the worker (SystemExit)", "that frame fails; the thread stays, the next is labelled")
@pytest.mark.parametrize("error", [SystemExit(1), KeyboardInterrupt(), GeneratorExit()], ids=lambda e: type(e).__name__)
def test_a_library_that_would_end_the_thread(labelling, backend, recovery, error):
    before = counts(labelling.node).failed

    def leave(infer, image):
        raise error

    backend(leave)
    labelling.camera.send(picture(2))
    labelling.graph.spin_until(lambda: counts(labelling.node).failed > before, "for the frame to fail")
    backend(lambda infer, image: infer(image))
    with recovery("result"):
        labelling.label(picture(3))


@pytest.mark.fault("backend runs out of memory", "that frame is refused with one sentence; the next is labelled")
@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : std::bad_alloc"),
        RuntimeError("Failed to allocate 123 bytes on device 'cuda:0'"),
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    ],
    ids=["Python", "ONNX Runtime", "Warp", "torch"],
)
def test_a_backend_without_memory(labelling, backend, recovery, error):
    before = counts(labelling.node)

    def starve(infer, image):
        raise error

    backend(starve)
    labelling.camera.send(picture(2))
    labelling.camera.await_report(
        lambda status: "frames refused: expected more memory to be free, got" in status.message
    )
    backend(lambda infer, image: infer(image))
    with recovery("result"):
        labelling.label(picture(3))
    assert counts(labelling.node).failed == before.failed


@pytest.mark.fault(
    "NaN and infinities in the network's outputs", "void where nothing is known, no such object; ERROR that says so"
)
@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_outputs_that_are_no_numbers(labelling, backend, recovery, poison):
    def poisoned(infer, image):
        dense = infer(image)
        for array in (dense.semantic_logits, *dense.box_class_logits, *dense.box_offsets, *dense.centerness_logits):
            array.fill_(poison)
        return dense

    backend(poisoned)
    labelling.camera.reports.clear()
    labels = labelling.label(picture(2))
    assert set(labels.data) == {VOID}
    with recovery("ERROR"):
        labelling.camera.await_report(lambda status: failing(status, "no finite numbers"), past=True)
    backend(lambda infer, image: infer(image))
    with recovery("result"):
        assert VOID not in labelling.label(picture(3)).data


@pytest.mark.fault(
    "backend is slow once, beyond all measure",
    "ERROR with stage and seconds meanwhile; then its result, and the newest image's",
)
def test_a_backend_that_returns_after_all(labelling, backend, recovery):
    go = threading.Event()

    def wait(infer, image):
        assert go.wait(TIMEOUT_S)
        return infer(image)

    backend(wait)
    labelling.camera.send(picture(2))
    labelling.camera.await_report(lambda status: failing(status, "in the stage network of an image of /image"))
    assert labelling.node.health.fatal == ""  # not this process's to end
    go.set()
    with recovery("result"):
        labelling.label(picture(3))
    labelling.camera.await_report(lambda status: status.level != DiagnosticStatus.ERROR)


@pytest.fixture
def mortal(graph, small_bundle, monkeypatch, tmp_path):
    """Make a node that may end its process, which is this one: give it and the event by which it does so."""
    monkeypatch.setattr(faulthandler, "dump_traceback_later", lambda *_, **__: None)  # this process goes on

    def make(**parameters):
        finished = threading.Event()
        values = {"model": str(small_bundle.path), "network_size": "32x64", "image_reliability": "reliable"}
        overrides = [Parameter(name, value=value) for name, value in {**values, **parameters}.items()]
        node = PanopticNode(
            finished=finished, periods=Periods(diagnostics_s=0.1), context=graph.context, parameter_overrides=overrides
        )
        activated(graph.add(node))
        return Labelling(graph, node, Camera(graph).connected()), finished

    return make


@pytest.mark.fault(
    "GPU is lost (stand-in for CUDA's errors that last)", "ERROR that names it; the process ends with status 75"
)
def test_a_lost_gpu_ends_the_process(graph, mortal, recovery, monkeypatch, capfd):
    take_tensorrts_place(monkeypatch)
    labelling, finished = mortal(backend="tensorrt", device="cpu")
    labelling.label(picture(1))
    broken = "CUDA error 700: an illegal memory access was encountered"

    def fail(*_):
        raise RuntimeError(broken)

    monkeypatch.setattr(FakeEngine, "enqueue", fail)
    monkeypatch.setattr(wp, "synchronize_device", fail)
    with recovery("ERROR"):
        labelling.camera.send(picture(2))
        told = f"the GPU is lost to this process: {broken}"
        labelling.camera.await_report(lambda status: failing(status, told))
    graph.spin_until(finished.is_set, "for the node to end its process")
    assert labelling.node.finish() == RESTART
    assert labelling.node.cut_off  # nothing is taken apart on a GPU that fails every call
    assert f"{told}: this process ends with status {RESTART}" in "".join(capfd.readouterr())


@pytest.mark.fault("the worker's thread dies all the same", "ERROR that says so; the process ends with status 75")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_dead_worker_ends_the_process(graph, mortal, recovery, monkeypatch):
    labelling, finished = mortal()
    labelling.label(picture(1))

    def fail(*_):
        raise MemoryError

    monkeypatch.setattr(labelling.node._worker, "_work", fail)
    monkeypatch.setattr(labelling.node._worker, "_on_error", fail)
    with recovery("ERROR"):
        labelling.camera.send(picture(2))
        labelling.camera.await_report(lambda status: failing(status, "the thread that labels has ended"))
    graph.spin_until(finished.is_set, "for the node to end its process")
    assert labelling.node.finish() == RESTART
