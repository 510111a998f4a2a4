"""The one module that touches TensorRT: `tensorrt` 10 and 11, and `tensorrt_rtx`, which have one API.

All is loaded lazily. Networks are strongly typed: what is float16 or 8 bits is written in the graph.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import logging
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import warp as wp

from rt_panoptic_ros.errors import InvalidInputError, UnavailableError
from rt_panoptic_ros.files import output_path
from rt_panoptic_ros.warp_runtime import start_warp, unusable_gpu

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

RUNTIMES = ("auto", "tensorrt", "tensorrt_rtx")
_INSTALL = {
    "tensorrt": "install it from JetPack or with `pip install tensorrt`",
    "tensorrt_rtx": "`pip install --no-deps tensorrt-rtx-cu13-libs tensorrt-rtx-cu13-bindings`",
}
_LOG = logging.getLogger(__name__)
_TOLD_PERIOD_S = 0.2


@dataclass(frozen=True)
class BuildOptions:
    """How an engine is built."""

    compute_capability: str = ""  # that it is for, such as 8.9; empty: of the GPU at hand
    workspace_mb: int = 0  # most scratch memory that a layer may take; 0: all there is
    timing_cache: Path | None = None  # file that keeps what was timed, for other builds


class Runtime:
    """A TensorRT that can be imported here."""

    def __init__(self, name: str, module: Any) -> None:
        """Take the module `tensorrt` or what stands for it."""
        self.name = name
        self.version = str(module.__version__)
        self._trt = module
        self._logger = _make_logger(module)
        self._deserializer: Any = None  # outlives the engines it makes

    def build(self, onnx: bytes, options: BuildOptions, progress: Callable[[float], None]) -> bytes:
        """Return the serialised engine of a graph.

        Args:
            onnx: The graph, its types written out.
            options: How.
            progress: Called with the share that is done, 0 to 1, from whatever thread; what it raises ends the build.

        Raises:
            UnavailableError: This TensorRT can't parse or build the graph; the layer and a remedy are named.
            InvalidInputError: A compute capability that this TensorRT doesn't know, or any for a TensorRT that builds
                for the GPU at hand only.
        """
        trt = self._trt
        builder = trt.Builder(self._logger)
        typed = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)  # of version 11, all are
        network = builder.create_network(0 if typed is None else 1 << int(typed))
        parser = trt.OnnxParser(network, self._logger)
        if not parser.parse(onnx):
            raise UnavailableError(self._parser_message([parser.get_error(i) for i in range(parser.num_errors)]))
        config = builder.create_builder_config()
        if options.compute_capability:
            self._set_target(config, options.compute_capability)
        if options.workspace_mb:
            config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_mb << 20)
        cache = self._load_timings(config, options.timing_cache)
        config.progress_monitor = monitor = _make_monitor(trt, progress)
        self._logger.last_error = ""
        plan = builder.build_serialized_network(network, config)
        if monitor.stopped_by is not None:
            raise monitor.stopped_by
        if plan is None:
            raise UnavailableError(self._build_message())
        if options.timing_cache is not None:
            with output_path(options.timing_cache) as temporary:
                temporary.write_bytes(bytes(cache.serialize()))
        return bytes(plan)

    def open(self, plan: bytes) -> Engine | None:
        """Return the engine of what `build` gave, ready to run on the current GPU, or None where it doesn't fit."""
        self._logger.last_error = ""
        if self._deserializer is None:
            self._deserializer = self._trt.Runtime(self._logger)
        engine = self._deserializer.deserialize_cuda_engine(plan)
        return None if engine is None else Engine(self._trt, engine, self)

    @property
    def last_error(self) -> str:
        """What TensorRT said last when something failed."""
        return str(self._logger.last_error)

    def _set_target(self, config: Any, capability: str) -> None:
        kinds = getattr(self._trt, "ComputeCapability", None)
        if kinds is None or not hasattr(config, "set_compute_capability"):
            raise InvalidInputError(
                f"expected no compute capability for {self.name}, which builds for the GPU at hand, got {capability}: "
                "leave it out, or choose --runtime tensorrt_rtx"
            )
        known = {f"{name[2:-1]}.{name[-1]}": name for name in kinds.__members__ if name.startswith("SM")}
        if capability not in known:
            raise InvalidInputError(
                f"expected compute capabilities that {self.name} {self.version} builds for "
                f"({', '.join(sorted(known, key=float))}), got {capability}: choose one of them, or build with "
                "tensorrt on the machine itself"
            )
        config.num_compute_capabilities = 1
        config.set_compute_capability(getattr(kinds, known[capability]), 0)

    def _load_timings(self, config: Any, path: Path | None) -> Any:
        if path is None:
            return None
        cache = config.create_timing_cache(path.read_bytes() if path.is_file() else b"")
        if cache is None:  # a file of another version: start anew
            cache = config.create_timing_cache(b"")
        config.set_timing_cache(cache, ignore_mismatch=False)
        return cache

    def _parser_message(self, errors: Sequence[Any]) -> str:
        where = "; ".join(
            f"layer {error.node_name() or '?'} ({error.node_operator() or 'the graph'}): "
            f"{' '.join(error.desc().split())[:200]}"
            for error in errors[:3]
        )
        return (
            f"expected a graph that {self.name} {self.version} can parse, it refused {where}: "
            "choose another precision, update TensorRT, or choose another backend"
        )

    def _build_message(self) -> str:
        said = " ".join(self.last_error.split())[:300] or "nothing"
        memory = "memory" in said.lower()
        remedy = "free GPU memory or set a smaller --workspace" if memory else "choose another precision or backend"
        return f"expected {self.name} {self.version} to build the engine, it failed and said: {said}: {remedy}"


class Engine:
    """A deserialised engine and its execution context, static shapes only."""

    def __init__(self, trt: Any, engine: Any, runtime: Runtime | None = None) -> None:
        """Make the context of a `tensorrt.ICudaEngine`; `runtime`, which made it, lives as long."""
        self._trt, self._runtime = trt, runtime
        self._engine = engine
        self._context = engine.create_execution_context()
        if self._context is None:
            raise UnavailableError(
                "expected enough GPU memory for the engine's activations, TensorRT could not get it: "
                "free GPU memory, or choose a smaller network_size"
            )

    def tensors(self) -> tuple[dict[str, tuple[int, ...]], dict[str, tuple[int, ...]]]:
        """Return {name: shape} of the inputs, and of the outputs."""
        sides: tuple[dict[str, tuple[int, ...]], dict[str, tuple[int, ...]]] = ({}, {})
        for index in range(self._engine.num_io_tensors):
            name = self._engine.get_tensor_name(index)
            output = self._engine.get_tensor_mode(name) == self._trt.TensorIOMode.OUTPUT
            sides[output][name] = tuple(self._engine.get_tensor_shape(name))
        return sides

    def bind(self, addresses: Mapping[str, int]) -> None:
        """Say where each tensor lies on the GPU."""
        for name, address in addresses.items():
            if not self._context.set_tensor_address(name, address):
                raise RuntimeError(f"TensorRT refused the address of {name}")

    def enqueue(self, stream: int) -> None:
        """Enqueue one inference on a CUDA stream, given by its handle."""
        if not self._context.execute_async_v3(stream):
            raise RuntimeError("TensorRT could not enqueue the network")

    def close(self) -> None:
        """Free context and engine."""
        self._context = self._engine = None


def load_runtime(name: str = "auto") -> Runtime:
    """Return one of `RUNTIMES`; auto takes tensorrt where it is installed, else tensorrt_rtx.

    Raises:
        InvalidInputError: Another name.
        UnavailableError: It is not installed, or its libraries can't be loaded.
    """
    if name not in RUNTIMES:
        raise InvalidInputError(f"expected the runtime to be one of {', '.join(RUNTIMES)}, got '{name}'")
    names = RUNTIMES[1:] if name == "auto" else (name,)
    reasons = []
    for candidate in names:
        try:
            runtime = Runtime(candidate, _import_rtx() if candidate == "tensorrt_rtx" else _import_tensorrt())
        except (ImportError, OSError, AttributeError) as error:
            reasons.append(f"{candidate} ({' '.join(str(error).split())[:160]}; {_INSTALL[candidate]})")
            continue
        _LOG.info("using %s %s", runtime.name, runtime.version)
        return runtime
    raise UnavailableError(f"expected TensorRT for the tensorrt backend, found none: {'; '.join(reasons)}")


def gpu_identity(device: str) -> tuple[str, str]:
    """Return name and compute capability, such as 8.9, of a GPU by Warp's name.

    Raises:
        UnavailableError: There is no such GPU.
    """
    start_warp()
    if not device.startswith("cuda") or not wp.is_cuda_available():
        found = unusable_gpu() or f"none as {device}: check `nvidia-smi`"
        raise UnavailableError(
            f"expected a CUDA GPU for the tensorrt backend, found {found}, choose backend onnxruntime, or "
            "build for another machine's GPU with `rt-panoptic build-engine --compute-capability`"
        )
    gpu = wp.get_device(device)
    return str(gpu.name), f"{gpu.arch // 10}.{gpu.arch % 10}"


def current_stream(device: str) -> int:
    """Return the handle of the CUDA stream that Warp launches on."""
    return int(wp.get_stream(device).cuda_stream or 0)


def _import_tensorrt() -> Any:
    trt = importlib.import_module("tensorrt")
    if not hasattr(trt, "Builder"):
        raise ImportError("the installed package tensorrt is only a stub without libraries")
    return trt


def _import_rtx() -> Any:
    if importlib.util.find_spec("tensorrt_rtx") is not None:
        return importlib.import_module("tensorrt_rtx")
    libraries = importlib.util.find_spec("tensorrt_rtx_libs")
    if libraries is None or not libraries.submodule_search_locations:
        raise ImportError("neither tensorrt_rtx nor tensorrt_rtx_libs is installed")
    folder = Path(next(iter(libraries.submodule_search_locations)))
    for pattern in ("libtensorrt_rtx.so*", "libtensorrt_onnxparser_rtx.so*"):
        for library in sorted(folder.glob(pattern)):
            ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
    return importlib.import_module("tensorrt_rtx_bindings")


def _make_logger(trt: Any) -> Any:
    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.last_error = ""

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.INFO, trt.ILogger.VERBOSE):
                return
            _LOG.debug("%s", message)
            if severity != trt.ILogger.WARNING:
                self.last_error = self.last_error or message  # the first tells most

    return Logger()


def _make_monitor(trt: Any, progress: Callable[[float], None]) -> Any:
    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        """Adds up the phases, which nest: all steps of a phase together are worth one step of its parent."""

        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._lock = threading.Lock()
            self._steps: dict[str, tuple[int, float]] = {}  # {phase that goes on: steps done, what one is worth}
            self._told_s = float("-inf")
            self.stopped_by: Exception | None = None  # what `progress` raised

        def phase_start(self, phase: str, parent: str | None, steps: int) -> None:
            with self._lock:
                _, whole = self._steps.get(parent or "", (0, 1.0))
                self._steps[phase] = 0, whole / max(steps, 1)

        def step_complete(self, phase: str, step: int) -> bool:
            with self._lock:
                if phase in self._steps:
                    self._steps[phase] = step + 1, self._steps[phase][1]
                share = min(sum(done * worth for done, worth in self._steps.values()), 1.0)
            now = time.monotonic()
            if self.stopped_by is None and now - self._told_s >= _TOLD_PERIOD_S:
                self._told_s = now
                try:
                    progress(share)
                except Exception as error:  # TensorRT's threads can't carry it; `build` raises it
                    self.stopped_by = error
            return self.stopped_by is None

        def phase_finish(self, phase: str) -> None:
            with self._lock:
                self._steps.pop(phase, None)

    return Monitor()
