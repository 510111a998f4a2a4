# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""What the narrow module asks of TensorRT 10 and 11, and what it makes of failures, over objects of their shape."""

from __future__ import annotations

import importlib.util
from enum import Enum
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import warp as wp

from rt_panoptic_ros.errors import CancelledError, InvalidInputError, UnavailableError
from rt_panoptic_ros.inference import tensorrt_runtime
from rt_panoptic_ros.inference.tensorrt_runtime import BuildOptions, Engine, Runtime, load_runtime

BuilderFlag = Enum("BuilderFlag", ["TF32"])
RtxBuilderFlag = Enum("RtxBuilderFlag", ["TF32", "REQUIRE_USER_ALLOCATION"])
ComputeCapability = Enum("ComputeCapability", ["NONE", "CURRENT", "SM75", "SM89", "SM120"])
CudaGraphStrategy = Enum("CudaGraphStrategy", ["DISABLED", "WHOLE_GRAPH_CAPTURE"])
Specialization = Enum("Specialization", ["LAZY", "EAGER", "NONE"])
Allocation = Enum("Allocation", ["STATIC", "ON_PROFILE_CHANGE", "USER_MANAGED"])


class FakeTensorRt:
    """The part of TensorRT's module that is used, with a record of what it was asked for."""

    BuilderFlag: Any = BuilderFlag

    def __init__(self, version: str, *, build_error: str = "", parse_error: str = "") -> None:
        self.__version__ = version
        self.network_flags: list[int] = []
        self.configs: list[Any] = []
        self.build_error, self.parse_error = build_error, parse_error
        creation = SimpleNamespace(STRONGLY_TYPED=3) if version.startswith("10") else SimpleNamespace()
        self.NetworkDefinitionCreationFlag = creation
        self.MemoryPoolType = SimpleNamespace(WORKSPACE="workspace")
        self.TensorIOMode = SimpleNamespace(INPUT=0, OUTPUT=1)
        severities = {name: name for name in ("INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE")}
        self.ILogger = type("ILogger", (), severities)
        self.IProgressMonitor = type("IProgressMonitor", (), {})
        outer = self

        class Builder:
            def __init__(self, logger: Any) -> None:
                self.logger = logger

            def create_network(self, flags: int) -> str:
                outer.network_flags.append(flags)
                return "network"

            def create_builder_config(self) -> Any:
                outer.configs.append(outer.make_config())
                return outer.configs[-1]

            def build_serialized_network(self, network: str, config: Any) -> bytes | None:
                monitor = config.progress_monitor
                monitor.phase_start("build", None, 2)
                monitor.phase_start("layers", "build", 4)
                if not monitor.step_complete("layers", 0):
                    return None
                monitor.phase_finish("layers")
                assert monitor.step_complete("build", 0)
                monitor.phase_finish("build")
                if outer.build_error:
                    self.logger.log(outer.ILogger.ERROR, outer.build_error)
                    self.logger.log(outer.ILogger.ERROR, "a later one that tells less")
                    return None
                return b"plan"

        class OnnxParser:
            def __init__(self, network: str, logger: Any) -> None:
                self.num_errors = int(bool(outer.parse_error))

            def parse(self, onnx: bytes) -> bool:
                return not outer.parse_error

            def get_error(self, index: int) -> Any:
                return SimpleNamespace(
                    node_name=lambda: "tower.3", node_operator=lambda: "Foo", desc=lambda: outer.parse_error
                )

        self.Builder, self.OnnxParser = Builder, OnnxParser

    def make_config(self) -> FakeConfig:
        return FakeConfig(self.BuilderFlag.TF32)


class FakeRtx(FakeTensorRt):
    """TensorRT-RTX's, which has more."""

    BuilderFlag = RtxBuilderFlag
    ComputeCapability = ComputeCapability
    CudaGraphStrategy = CudaGraphStrategy
    DynamicShapesKernelSpecializationStrategy = Specialization
    ExecutionContextAllocationStrategy = Allocation

    def make_config(self) -> FakeConfig:
        return FakeRtxConfig(self.BuilderFlag.TF32)


class FakeConfig:
    def __init__(self, *flags: Enum) -> None:
        self.flags = {flag.name for flag in flags}
        self.limits: dict[str, int] = {}
        self.progress_monitor: Any = None
        self.loaded: list[bytes] = []

    def set_flag(self, flag: Enum) -> None:
        self.flags.add(flag.name)

    def clear_flag(self, flag: Enum) -> None:
        self.flags.remove(flag.name)

    def set_memory_pool_limit(self, pool: str, size: int) -> None:
        self.limits[pool] = size

    def create_timing_cache(self, content: bytes) -> Any:
        if content == b"of another version":
            return None
        self.loaded.append(content)
        return SimpleNamespace(serialize=lambda: b"timings")

    def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> None:
        assert not ignore_mismatch


class FakeRtxConfig(FakeConfig):
    num_compute_capabilities = 0
    target = ComputeCapability.NONE

    def set_compute_capability(self, compute_capability: Any, index: int) -> bool:
        assert index < self.num_compute_capabilities
        self.target = compute_capability
        return True


def test_networks_are_strongly_typed_in_both_versions() -> None:
    for version, flags in (("10.3.0", 1 << 3), ("11.0.0", 0)):
        trt = FakeTensorRt(version)
        runtime = Runtime("tensorrt", trt)
        shares: list[float] = []
        assert runtime.build(b"graph", BuildOptions(workspace_mb=512), shares.append) == b"plan"
        assert runtime.version == version
        assert trt.network_flags == [flags]
        assert trt.configs[0].limits == {"workspace": 512 << 20}
        assert shares
        assert shares[0] == pytest.approx(1 / 8)  # a quarter of the first of two steps


def test_float32_is_tf32_only_where_it_may_be() -> None:
    for tf32, flags in ((False, set()), (True, {"TF32"})):
        trt = FakeTensorRt("10.3")
        Runtime("tensorrt", trt).build(b"graph", BuildOptions(tf32=tf32), lambda share: None)
        assert trt.configs[0].flags == flags


def test_graphs_are_written_as_the_parser_reads_them() -> None:
    versions = {"10.3.0": "tensorrt_opset17", "10.9.0.34": "tensorrt", "10.13": "tensorrt", "11.0.0": "tensorrt"}
    for version, dialect in versions.items():
        assert Runtime("tensorrt", FakeTensorRt(version)).dialect == dialect
    assert Runtime("tensorrt_rtx", FakeRtx("1.7.1.116")).dialect == "tensorrt"


def test_tensorrt_rtx_builds_what_can_be_captured_for_a_named_gpu(tmp_path: Path) -> None:
    trt = FakeRtx("1.7.1")
    runtime = Runtime("tensorrt_rtx", trt)
    runtime.build(b"graph", BuildOptions("8.9"), lambda share: None)
    assert trt.configs[0].flags == {"REQUIRE_USER_ALLOCATION"}
    assert (trt.configs[0].num_compute_capabilities, trt.configs[0].target) == (1, ComputeCapability.SM89)
    with pytest.raises(InvalidInputError, match=r"no timing cache for tensorrt_rtx.*timings: leave it out"):
        runtime.build(b"graph", BuildOptions("8.9", timing_cache=tmp_path / "timings"), lambda share: None)


def test_a_tensorrt_rtx_whose_engines_cannot_be_captured_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    older = SimpleNamespace(BuilderFlag=BuilderFlag, __version__="1.1.0")
    monkeypatch.setattr(tensorrt_runtime, "_import_rtx", lambda: older)
    with pytest.raises(UnavailableError, match=r"version 1.1.0 is older than 1.2, whose.*captured; `pip install"):
        load_runtime("tensorrt_rtx")


def test_a_build_can_be_called_off() -> None:
    def tell(share: float) -> None:
        raise CancelledError("the node ends")

    trt = FakeTensorRt("10.3", build_error="stopped")
    with pytest.raises(CancelledError, match="the node ends"):
        Runtime("tensorrt", trt).build(b"graph", BuildOptions(), tell)


def test_timings_are_kept_and_those_of_another_version_replaced(tmp_path: Path) -> None:
    trt = FakeTensorRt("10.3")
    path = tmp_path / "timings"
    for content, loaded in ((None, b""), (b"earlier", b"earlier"), (b"of another version", b"")):
        if content is not None:
            path.write_bytes(content)
        Runtime("tensorrt", trt).build(b"graph", BuildOptions(timing_cache=path), lambda share: None)
        assert trt.configs[-1].loaded == [loaded]
        assert path.read_bytes() == b"timings"


def test_a_tensorrt_for_the_gpu_at_hand_takes_no_compute_capability() -> None:
    with pytest.raises(InvalidInputError, match=r"no compute capability for tensorrt.*got 8.9.*tensorrt_rtx"):
        Runtime("tensorrt", FakeTensorRt("10.3")).build(b"graph", BuildOptions("8.9"), lambda share: None)


@pytest.mark.parametrize(
    ("failure", "words"),
    [
        ({"parse_error": "no\nsuch operator"}, r"refused layer tower.3 \(Foo\): no such operator: choose another prec"),
        ({"build_error": "Could not allocate memory"}, r"said: Could not allocate memory: free GPU memory or set a sm"),
        ({"build_error": "no kernel for int8"}, r"it failed and said: no kernel for int8: choose another precision"),
    ],
)
def test_failures_are_one_sentence_with_a_remedy(failure: dict[str, str], words: str) -> None:
    with pytest.raises(UnavailableError, match=words):
        Runtime("tensorrt", FakeTensorRt("10.3", **failure)).build(b"graph", BuildOptions(), lambda share: None)


class FakeContext:
    def __init__(self, accepts: bool) -> None:
        self.accepts = accepts
        self.addresses: dict[str, int] = {}
        self.streams: list[int] = []

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return self.accepts

    def execute_async_v3(self, stream: int) -> bool:
        self.streams.append(stream)
        return self.accepts


def fake_engine(context: FakeContext | None) -> Any:
    shapes = {"image": (1, 64, 96, 3), "semantic_logits": (1, 11, 8, 12)}
    return SimpleNamespace(
        num_io_tensors=2,
        get_tensor_name=list(shapes).__getitem__,
        get_tensor_mode=lambda name: int(name != "image"),
        get_tensor_shape=shapes.__getitem__,
        create_execution_context=lambda: context,
    )


def make_engine(context: FakeContext | None) -> Engine:
    trt = FakeTensorRt("10.3")
    return Engine(trt, fake_engine(context), Runtime("tensorrt", trt), "cpu", b"")


def test_an_engine_tells_its_tensors_and_runs_on_the_given_stream() -> None:
    context = FakeContext(accepts=True)
    engine = make_engine(context)
    assert engine.new_kernels() == b""
    assert engine.tensors() == ({"image": (1, 64, 96, 3)}, {"semantic_logits": (1, 11, 8, 12)})
    engine.bind({"image": 16, "semantic_logits": 32})
    engine.enqueue(4711)
    assert (context.addresses, context.streams) == ({"image": 16, "semantic_logits": 32}, [4711])


def test_what_tensorrt_refuses_is_an_error() -> None:
    with pytest.raises(UnavailableError, match=r"enough GPU memory for the engine's activations.*smaller network_size"):
        make_engine(None)
    engine = make_engine(FakeContext(accepts=False))
    with pytest.raises(RuntimeError, match="address of image"):
        engine.bind({"image": 16})
    with pytest.raises(RuntimeError, match="enqueue"):
        engine.enqueue(1)


class FakeRuntimeCache:
    def __init__(self) -> None:
        self.content = b""

    def deserialize(self, blob: bytes) -> bool:
        if not blob.startswith(b"this driver's"):
            return False
        self.content = blob
        return True

    def serialize(self) -> bytes:
        return self.content or b"this driver's kernels"


class FakeRuntimeConfig:
    cuda_graph_strategy = CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
    dynamic_shapes_kernel_specialization_strategy = Specialization.LAZY

    def set_execution_context_allocation_strategy(self, strategy: Allocation) -> None:
        self.allocation = strategy

    def create_runtime_cache(self) -> FakeRuntimeCache:
        return FakeRuntimeCache()

    def set_runtime_cache(self, cache: FakeRuntimeCache) -> bool:
        self.cache = cache
        return True


class FakeRtxContext(FakeContext):
    def set_device_memory(self, memory: int, size: int) -> None:
        self.memory = memory, size


class FakeRtxEngine:
    device_memory_size_v2 = 4096

    def __init__(self) -> None:
        self.context = FakeRtxContext(accepts=True)

    def create_runtime_config(self) -> FakeRuntimeConfig:
        return FakeRuntimeConfig()

    def create_execution_context(self, runtime_config: FakeRuntimeConfig) -> FakeRtxContext:
        self.config = runtime_config
        return self.context


def open_rtx(engine: FakeRtxEngine, kernels: bytes) -> Engine:
    trt = FakeRtx("1.7.1")
    return Engine(trt, engine, Runtime("tensorrt_rtx", trt), "cpu", kernels)


def test_tensorrt_rtx_compiles_and_allocates_nothing_while_it_is_captured() -> None:
    made = FakeRtxEngine()
    engine = open_rtx(made, b"")
    assert made.config.allocation == Allocation.USER_MANAGED
    assert made.config.dynamic_shapes_kernel_specialization_strategy == Specialization.EAGER
    assert made.config.cuda_graph_strategy == CudaGraphStrategy.DISABLED
    address, size = made.context.memory
    assert (bool(address), size) == (True, 4096)
    engine.close()


@pytest.mark.parametrize(
    ("given", "new"),
    [(b"", b"this driver's kernels"), (b"another driver's", b"this driver's kernels"), (b"this driver's, too", b"")],
)
def test_kernels_that_tensorrt_rtx_was_given_are_not_new(given: bytes, new: bytes) -> None:
    assert open_rtx(FakeRtxEngine(), given).new_kernels() == new


def test_a_gpu_without_room_for_activations_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object, **kwargs: object) -> wp.array:
        raise RuntimeError("Failed to allocate 4096 bytes on device")

    monkeypatch.setattr(wp, "empty", full)
    with pytest.raises(UnavailableError, match=r"could not get it \(Failed to allocate 4096 bytes.*free GPU"):
        open_rtx(FakeRtxEngine(), b"")


@pytest.mark.skipif(importlib.util.find_spec("tensorrt_rtx_libs") is None, reason="TensorRT-RTX is not installed")
def test_the_stand_ins_have_only_what_tensorrt_rtx_has() -> None:
    trt = tensorrt_runtime._import_rtx()
    kinds = {
        RtxBuilderFlag: trt.BuilderFlag, ComputeCapability: trt.ComputeCapability,
        CudaGraphStrategy: trt.CudaGraphStrategy, Specialization: trt.DynamicShapesKernelSpecializationStrategy,
        Allocation: trt.ExecutionContextAllocationStrategy, FakeRuntimeCache: trt.IRuntimeCache,
        FakeRuntimeConfig: trt.IRuntimeConfig, FakeRtxContext: trt.IExecutionContext, FakeRtxEngine: trt.ICudaEngine,
        FakeRtxConfig: trt.IBuilderConfig,
    }  # fmt: skip
    ours = {"target"}  # of what it is a record
    for stand_in, real in kinds.items():
        names = {name for name in vars(stand_in) if not name.startswith("_")} - ours
        assert names
        assert not [name for name in names if not hasattr(real, name)]
    for name, value in vars(FakeRtx).items():
        assert name.startswith("_") or name == "make_config" or getattr(trt, name), value
