# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The one module that touches TensorRT: `tensorrt` 10 and 11, and `tensorrt_rtx`, which have one API.

All is loaded lazily. Networks are strongly typed: what is float16 or 8 bits is written in the graph. TensorRT-RTX has
what this module asks of it beyond that from version 1.2 on.
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

    from rt_panoptic_ros.inference.onnx_layers import Dialect

RUNTIMES = ("auto", "tensorrt", "tensorrt_rtx")
_INSTALL = {
    "tensorrt": "install it from JetPack or with `pip install tensorrt`",
    "tensorrt_rtx": "`pip install --no-deps tensorrt-rtx-cu13-libs tensorrt-rtx-cu13-bindings`",
}
_LOG = logging.getLogger(__name__)
_TOLD_PERIOD_S = 0.2


@dataclass(frozen=True)
class Gpu:
    """What engines depend on: Orins, laptops' GPUs and slices of one (MIG) differ in size under one name."""

    name: str
    compute_capability: str  # such as 8.9
    multiprocessors: int
    memory_gib: int

    def __str__(self) -> str:
        """Return all but the compute capability."""
        return f"{self.name}, {self.multiprocessors} multiprocessors, {self.memory_gib} GiB"


@dataclass(frozen=True)
class BuildOptions:
    """How an engine is built."""

    compute_capability: str = ""  # that it is for, such as 8.9; empty: of the GPU at hand
    tf32: bool = False  # whether products in float32 may round what they multiply to TF32
    workspace_mb: int = 0  # most scratch memory that a layer may take; 0: all there is
    timing_cache: Path | None = None  # file that keeps what was timed, for other builds


class Runtime:
    """A TensorRT that can be imported here."""

    def __init__(self, name: str, module: Any) -> None:
        """Take the module `tensorrt` or what stands for it."""
        self.name = name
        self.version = str(module.__version__)
        self.rtx = name == "tensorrt_rtx"
        self._trt = module
        self._logger = _make_logger(module)
        self._deserializer: Any = None  # outlives the engines it makes

    @property
    def dialect(self) -> Dialect:
        """How the graphs that it parses are written."""
        release = tuple(int(number) for number in self.version.split(".")[:2])
        return "tensorrt" if self.rtx or release >= (10, 9) else "tensorrt_opset17"

    def build(self, onnx: bytes, options: BuildOptions, progress: Callable[[float], None]) -> bytes:
        """Return the serialised engine of a graph.

        Args:
            onnx: The graph, its types written out.
            options: How.
            progress: Called with the share that is done, 0 to 1, from whatever thread; what it raises ends the build.

        Raises:
            UnavailableError: This TensorRT can't parse or build the graph, with the layer and a remedy, or doesn't
                build for the compute capability.
            InvalidInputError: An option that this TensorRT has not.
        """
        trt = self._trt
        if self.rtx and options.timing_cache is not None:
            raise InvalidInputError(
                f"expected no timing cache for {self.name}, which times no kernels when it builds, got "
                f"{options.timing_cache}: leave it out"
            )
        builder = trt.Builder(self._logger)
        typed = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)  # of version 11, all are
        network = builder.create_network(0 if typed is None else 1 << int(typed))
        parser = trt.OnnxParser(network, self._logger)
        if not parser.parse(onnx):
            raise UnavailableError(self._parser_message([parser.get_error(i) for i in range(parser.num_errors)]))
        config = builder.create_builder_config()
        if not options.tf32:
            config.clear_flag(trt.BuilderFlag.TF32)  # which is set to begin with, in strongly typed networks too
        if self.rtx:  # nothing is allocated when the engine runs, so that it can be captured
            config.set_flag(trt.BuilderFlag.REQUIRE_USER_ALLOCATION)
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

    def open(self, plan: bytes, device: str, kernels: bytes = b"") -> Engine | None:
        """Return the engine of what `build` gave, ready to run, or None where it doesn't fit.

        Args:
            plan: The serialised engine.
            device: Warp's name of the GPU, which must be the current one, as with all calls of the engine.
            kernels: What `Engine.new_kernels` gave of this plan on such a GPU; they aren't compiled again then.

        Raises:
            UnavailableError: The GPU's memory doesn't suffice.
        """
        self._logger.last_error = ""
        if self._deserializer is None:
            self._deserializer = self._trt.Runtime(self._logger)
        engine = self._deserializer.deserialize_cuda_engine(plan)
        return None if engine is None else Engine(self._trt, engine, self, device, kernels)

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
            raise UnavailableError(
                f"expected a GPU of a compute capability that {self.name} {self.version} builds for "
                f"({', '.join(sorted(known, key=float))}), got {capability}: use tensorrt on the machine itself"
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

    def __init__(self, trt: Any, engine: Any, runtime: Runtime, device: str, kernels: bytes) -> None:
        """Make the context of a `tensorrt.ICudaEngine`, made by `runtime`, which lives as long; see `Runtime.open`."""
        self._trt, self._runtime = trt, runtime
        self._engine = engine
        self._memory: wp.array | None = None
        self._given = kernels
        self._compiled: Any = None  # TensorRT-RTX's runtime cache
        self._context = self._compile(device) if runtime.rtx else engine.create_execution_context()
        if self._context is None:
            raise UnavailableError(_memory_message(runtime.last_error))

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
            raise RuntimeError(f"TensorRT could not enqueue the network, it said: {self._runtime.last_error}")

    def new_kernels(self) -> bytes:
        """Return the kernels that were compiled to open and to run the engine; empty if it was given all of them."""
        compiled = b"" if self._compiled is None else bytes(self._compiled.serialize())
        return b"" if compiled == self._given else compiled

    def close(self) -> None:
        """Free context and engine."""
        self._context = self._compiled = self._engine = self._memory = None

    def _compile(self, device: str) -> Any:
        """Return the context of an engine of TensorRT-RTX, which compiles for the GPU at hand, or None.

        All is compiled and allocated now, and no graph is made inside, so that a frame can be captured as a whole.
        """
        trt = self._trt
        config = self._engine.create_runtime_config()
        config.cuda_graph_strategy = trt.CudaGraphStrategy.DISABLED
        config.dynamic_shapes_kernel_specialization_strategy = trt.DynamicShapesKernelSpecializationStrategy.EAGER
        config.set_execution_context_allocation_strategy(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
        self._compiled = cache = config.create_runtime_cache()
        if self._given and not cache.deserialize(self._given):
            _LOG.info("compiling the kernels again, as they were made by another driver or version")
        if not config.set_runtime_cache(cache):
            raise UnavailableError(f"expected {self._runtime.name} to take its runtime cache, it refused: update it")
        context = self._engine.create_execution_context(config)
        size = self._engine.device_memory_size_v2
        if context is not None and size:
            try:
                self._memory = wp.empty(size, dtype=wp.uint8, device=device)
            except RuntimeError as error:
                raise UnavailableError(_memory_message(error)) from None
            context.set_device_memory(self._memory.ptr, size)
        return context


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
            module = _import_rtx() if candidate == "tensorrt_rtx" else _import_tensorrt()
            if candidate == "tensorrt_rtx" and not hasattr(module.BuilderFlag, "REQUIRE_USER_ALLOCATION"):
                raise ImportError(f"version {module.__version__} is older than 1.2, whose engines can be captured")
            runtime = Runtime(candidate, module)
        except (ImportError, OSError, AttributeError) as error:
            reasons.append(f"{candidate} ({' '.join(str(error).split())[:160]}; {_INSTALL[candidate]})")
            continue
        _LOG.info("using %s %s", runtime.name, runtime.version)
        return runtime
    raise UnavailableError(f"expected TensorRT for the tensorrt backend, found none: {'; '.join(reasons)}")


def gpu_identity(device: str) -> Gpu:
    """Return which GPU has Warp's name `device`.

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
    capability = f"{gpu.arch // 10}.{gpu.arch % 10}"
    return Gpu(str(gpu.name), capability, gpu.sm_count, round(gpu.total_memory / (1 << 30)))


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


def _memory_message(said: object) -> str:
    said = " ".join(str(said).split())[:200] or "TensorRT says nothing"
    return (
        f"expected enough GPU memory for the engine's activations, could not get it ({said}): free GPU memory, or "
        "choose a smaller network_size"
    )


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
