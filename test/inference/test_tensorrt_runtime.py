"""What the narrow module asks of TensorRT 10 and 11, and what it makes of failures, over objects of their shape."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rt_panoptic_ros.errors import CancelledError, InvalidInputError, UnavailableError
from rt_panoptic_ros.inference.tensorrt_runtime import BuildOptions, Engine, Runtime


class FakeTensorRt:
    """The part of TensorRT's module that is used, with a record of what it was asked for."""

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
                outer.configs.append(FakeConfig())
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


class FakeConfig:
    def __init__(self) -> None:
        self.limits: dict[str, int] = {}
        self.progress_monitor: Any = None
        self.loaded: list[bytes] = []

    def set_memory_pool_limit(self, pool: str, size: int) -> None:
        self.limits[pool] = size

    def create_timing_cache(self, content: bytes) -> Any:
        if content == b"of another version":
            return None
        self.loaded.append(content)
        return SimpleNamespace(serialize=lambda: b"timings")

    def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> None:
        assert not ignore_mismatch


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


def test_an_engine_tells_its_tensors_and_runs_on_the_given_stream() -> None:
    context = FakeContext(accepts=True)
    engine = Engine(FakeTensorRt("10.3"), fake_engine(context))
    assert engine.tensors() == ({"image": (1, 64, 96, 3)}, {"semantic_logits": (1, 11, 8, 12)})
    engine.bind({"image": 16, "semantic_logits": 32})
    engine.enqueue(4711)
    assert (context.addresses, context.streams) == ({"image": 16, "semantic_logits": 32}, [4711])


def test_what_tensorrt_refuses_is_an_error() -> None:
    with pytest.raises(UnavailableError, match=r"enough GPU memory for the engine's activations.*smaller network_size"):
        Engine(FakeTensorRt("10.3"), fake_engine(None))
    engine = Engine(FakeTensorRt("10.3"), fake_engine(FakeContext(accepts=False)))
    with pytest.raises(RuntimeError, match="address of image"):
        engine.bind({"image": 16})
    with pytest.raises(RuntimeError, match="enqueue"):
        engine.enqueue(1)
